"""A small valid sample for every reader: what the campaign damages. Made once, in a fork, and copied for each case."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import authors_checkpoints
import baseline_checkpoints
import foreign_sae_files
import pyarrow
import pyarrow.parquet
import tiny
import tiny_profile
import torch
from fake_launcher import FakeLauncher
from safetensors.torch import load_file, save_file

from replication import pipeline
from replication.recipes.setting import Setting
from replication.report.steering.authors_figure import SETS
from replication.settings.experiments import EXPERIMENTS
from replication.settings.profile_files import load_profile
from replication.settings.protocols import PROTOCOLS
from sarm.backbone.decoder import truncated_backbone
from sarm.checkpoints.reward_models.layouts import save_reward_model
from sarm.checkpoints.saes.files import save_sae
from sarm.reward.models import SARM
from sarm.scoring.edited_head import head_identity
from sarm.store.archive import export_archive
from sarm.store.artifacts import ArtifactStore

PAIRS = [
    {
        "id": str(place),
        "prompt": f"Tell me about {word}.",
        "chosen": [{"role": "user", "content": f"Tell me about {word}."}, {"role": "assistant", "content": f"A good {word}."}],
        "rejected": [{"role": "user", "content": f"Tell me about {word}."}, {"role": "assistant", "content": f"A bad {word}."}],
    }
    for place, word in enumerate(("cat", "dog", "mat", "home"))
]
BENCHMARK = [
    {"id": str(place), "prompt": f"{subset}?", "chosen": ["good"], "rejected": ["bad", "awful", "fine"], "num_correct": 1, "subset": subset}
    for place, subset in enumerate(("Math", "Safety", "Focus", "Factuality"))
]
STYLED = [
    {"id": str(place), "prompt": "How?", "chosen": ["a", "b", "c"], "rejected": ["d", "e", "f"], "domain": domain}
    for place, domain in enumerate(("chat", "math", "code", "safety-refuse"))
]
SPOKEN = [
    {"id": str(place), "messages": [{"role": "user", "content": f"the {word}"}, {"role": "assistant", "content": "it is good."}]}
    for place, word in enumerate(("cat", "dog", "mat"))
]
SUBSETS = ("Factuality", "Precise IF", "Math", "Safety", "Focus")
SCORED = {
    "ours.jsonl": [
        {"id": str(place), "subset": subset, "chosen_rewards": [1.5], "rejected_rewards": [0.5, -0.25, 2.0 * (place % 2)]}
        for subset in SUBSETS
        for place in range(3)
    ],
    "flat.jsonl": [
        {"id": str(place), "subset": subset, "num_correct": 1, "scores": [1.0, 0.5, 0.25, 2.0 * (place % 2)]}
        for subset in SUBSETS
        for place in range(3)
    ],
}
ITEMS_OF_RMBENCH = [
    {"id": f"{domain}-{place}", "domain": domain, "score_chosen": [1.0, 2.0, 3.0], "score_rejected": [0.5, 1.5, 3.5]}
    for domain in ("chat", "math", "code", "safety-refuse", "safety-response")
    for place in range(2)
]
COLUMNS = {
    "id": [str(place) for place in range(10)],
    "subset": [subset for subset in SUBSETS for _ in range(2)],
    "num_correct": [1] * 10,
    "scores": [[[2.0], [1.0], [0.5], [0.0]] for _ in range(10)],
    "results": [1.0] * 10,
    "text": [["a", "b", "c", "d"]] * 10,
    "model": "toy",
    "model_type": "Seq. Classifier",
    "chat_template": "tokenizer",
}
OFFICIAL = {
    "Factuality": 0.5, "Focus": 0.5, "Math": 0.5, "Precise IF": 0.25, "Safety": 0.75, "Ties": 0.5,
    "model": "toy", "model_type": "Seq. Classifier", "chat_template": "tokenizer",
}  # fmt: skip


def _lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def data(folder: Path) -> None:
    """Pairs, benchmarks and texts as JSON lines, JSON lists and Parquet."""
    _lines(folder / "pairs.jsonl", PAIRS)
    _lines(folder / "rewardbench2.jsonl", BENCHMARK)
    _json(folder / "rmbench.json", STYLED)
    _lines(folder / "text.jsonl", [{"text": text} for text in tiny.TEXTS])
    tables = {"pairs": PAIRS, "rewardbench2": BENCHMARK, "text": [{"text": text} for text in tiny.TEXTS]}
    for name, rows in tables.items():
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / f"{name}.parquet")


def models(folder: Path) -> None:
    """Reward models in three layouts, one of them in two shards, and conversations."""
    _lines(folder / "spoken.jsonl", SPOKEN)
    model = authors_checkpoints.random_sarm()
    authors = authors_checkpoints.save_authors(
        folder / "authors", model, {"sarm_param": {"sae_source_layer": 2, "sae_latent_size": 24, "sae_k": 4}}
    )
    own, ours = folder / "own", SARM(truncated_backbone(tiny.llama_config(), 2), authors_checkpoints.random_sae())
    save_reward_model(own, ours, encoder="sae", tokenizer=None)
    identity = head_identity(ours, name="own").model_dump()
    _json(folder / "steering.json", {"schema_version": "1.0", "name": "own", "model": identity, "factors": {"3": 0.0, "7": 2.5, "11": -1}})
    sharded = folder / "sharded"
    shutil.copytree(authors, sharded)
    tensors = load_file(sharded / "model.safetensors")
    (sharded / "model.safetensors").unlink()
    names = sorted(tensors)
    where = {name: f"model-0000{1 + (place >= len(names) // 2)}-of-00002.safetensors" for place, name in enumerate(names)}
    for file in sorted(set(where.values())):
        save_file({name: tensors[name] for name in names if where[name] == file}, sharded / file, metadata={"format": "pt"})
    _json(sharded / "model.safetensors.index.json", {"metadata": {"total_size": 1}, "weight_map": where})
    for place in (authors, own, sharded):
        tiny.save_word_tokenizer(place)


def published(folder: Path) -> None:
    """Classifiers as others publish them, compared with themselves."""
    for name in ("classifier-llama", "classifier-qwen3", "grm-mlp"):
        for side in ("first", "second"):
            baseline_checkpoints.write_checkpoint(folder / side / name, name)


def saes(folder: Path) -> None:
    """SAEs of every layout, of the authors' and of our own."""
    foreign_sae_files.every_layout(folder)
    (folder / "own").mkdir()
    save_sae(folder / "own", authors_checkpoints.random_sae(), layer=2)
    (folder / "authors").mkdir()
    torch.save(dict(authors_checkpoints.random_sae().state_dict()), folder / "authors" / "Llama_token_Latent24_Layer2_K4_1B.pt")


def scored(folder: Path) -> None:
    """Files of per-item rewards in every shape."""
    for name, rows in SCORED.items():
        _lines(folder / name, rows)
    _json(folder / "columns.json", COLUMNS)
    _lines(folder / "rmbench.jsonl", ITEMS_OF_RMBENCH)
    _json(folder / "rmbench.json", ITEMS_OF_RMBENCH)


def results(folder: Path) -> None:
    """Results of an invented table 1 with the rewards beside them, and a file of RewardBench 2."""
    setting = Setting(experiment=EXPERIMENTS["table1"], profile=load_profile("mini", environment={}), protocol=PROTOCOLS["paper"])
    store = ArtifactStore(folder / "store")
    pipeline.replicate([setting], store, FakeLauncher(), watch=lambda event: None, rendered=folder / "rendered", command="replicate table1")
    shutil.copytree(next((folder / "rendered").rglob("table1.results.json")).parent, folder / "mini")
    shutil.rmtree(folder / "rendered")
    shutil.rmtree(folder / "store")
    _json(folder / "official.json", OFFICIAL)
    content = json.loads((folder / "mini" / "table1.results.json").read_text(encoding="utf-8"))
    mine = next(one for one in content["rewards"] if one["benchmark"] == "rewardbench2")
    (folder / "row.txt").write_text(mine["model"], encoding="utf-8")
    shutil.copyfile(folder / "mini" / mine["file"], folder / "theirs.jsonl")


def steering(folder: Path) -> None:
    """Rewards before and after steering, as the authors gave them."""
    chance = random.Random(0)

    def rows(share: float) -> list[dict[str, Any]]:
        found = []
        for place in range(60):
            on, before = float(chance.random() < share), chance.gauss(0, 1)
            found.append({"question_id": place, "reward": before, "reward_steered": before - on, "active": on})
        return found

    sets = {name: rows(0.8 - 0.6 * place) for place, name in enumerate(SETS)}
    _json(folder / "figure3_authors_rewards.json", {"latent": 1, "source": "invented", "sets": sets})


def profile(folder: Path) -> None:
    """A profile."""
    tiny_profile.write_profile(folder)


def cluster(folder: Path) -> None:
    """The description of a cluster that is shipped, and a profile."""
    root = Path(__file__).resolve().parents[2]
    shutil.copyfile(root / "slurm" / "clusters" / "rtx3090.toml", folder / "cluster.toml")
    tiny_profile.write_profile(folder)


def archive(folder: Path) -> None:
    """An archive of an invented store."""
    store = _invented_store(folder / "store")
    export_archive(store, [one.key for one in store.entries()][:3], folder / "archive.tar.gz")
    shutil.rmtree(folder / "store")


def _invented_store(folder: Path) -> ArtifactStore:
    setting = Setting(experiment=EXPERIMENTS["table1"], profile=load_profile("mini", environment={}), protocol=PROTOCOLS["paper"])
    store = ArtifactStore(folder)
    pipeline.replicate([setting], store, FakeLauncher(), watch=lambda event: None, rendered=folder / "rendered", command="replicate table1")
    shutil.rmtree(folder / "rendered")
    return store


def answers(folder: Path, run: Callable[[list[str]], int], url: str) -> None:
    """A store with the miniature's data, a profile, and what a judge has answered about them."""
    path = tiny_profile.write_profile(folder)
    common = ["table1", "--profile", str(path), "--judge", "toy=toy", "--rows", "toy", "--yes", "--api-key-env", ""]
    places = ["--store", str(folder / "store"), "--out", str(folder / "rendered")]
    if run([*common, "--api-base", url, *places]):
        raise SystemExit("the undisturbed run of a judge failed")
    shutil.copyfile(next((folder / "store" / "judge_benchmark").glob("*/answers.json")), folder / "answers.json")
    shutil.rmtree(folder / "store" / "judge_benchmark")
    shutil.rmtree(folder / "store" / ".endpoints")
    shutil.rmtree(folder / "rendered")
