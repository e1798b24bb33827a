"""What lies in the folder of each walk: small stand-ins under the names that its page tells, and the environment of its commands."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import torch
from authors_checkpoints import random_sarm
from folders import ROOT
from hub_server import Hub, Repository, serving
from tiny import llama_config, save_backbone, save_word_tokenizer, write_corpus
from tiny_profile import PROFILE
from transformers import LlamaForSequenceClassification

from sarm.checkpoints.reward_models.layouts import save_reward_model

Stage = Callable[[Path, ExitStack], Mapping[str, str]]
SUBSETS = ("Factuality", "Precise IF", "Math", "Safety", "Focus")
CORPUS_LINES = 40
CARD = b"---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: corpus.jsonl\n---\n"


def rewards_file(path: Path, *, rows: int, better: float, seed: int) -> None:
    """RewardBench 2's own file of one model: parallel columns, chosen first; Ties last. Drawn, not measured."""
    draw = random.Random(seed)
    columns: dict[str, list[object]] = {"id": [], "subset": [], "num_correct": [], "scores": [], "results": [], "text": []}
    for number in range(rows):
        subset = SUBSETS[number % len(SUBSETS)]
        scores = [draw.gauss(better, 1.0), *(draw.gauss(0.0, 1.0) for _ in range(3))]
        best = float(scores[0] == max(scores))
        for name, value in zip(columns, (str(number), subset, 1, [[one] for one in scores], best, ["x"] * 4), strict=True):
            columns[name].append(value)
    for number in range(rows // 10):
        for kind, right in (("ref", 1), ("tied", 3)):
            scores = [draw.gauss(better + 0.5, 0.6) for _ in range(right)] + [draw.gauss(0.0, 1.0) for _ in range(4)]
            values = (f"{kind}:{number}", "Ties", right, [[one] for one in scores], None, ["x"] * len(scores))
            for name, value in zip(columns, values, strict=True):
                columns[name].append(value)
    about = {"model": "their/reward-model", "model_type": "Seq. Classifier", "chat_template": "tokenizer"}
    path.write_text(json.dumps(columns | about), encoding="utf-8")


def check_a_table(folder: Path, kept: ExitStack) -> Mapping[str, str]:
    """Published results, and two files of rewards as RewardBench 2 writes them."""
    shutil.copy(ROOT / "tests" / "fixtures" / "Llama-SARM-4B.json", folder)
    rewards_file(folder / "theirs.json", rows=200, better=1.5, seed=1)
    return {"SARM_STORE": str(folder / "artifacts")}


def score_a_model(folder: Path, kept: ExitStack) -> Mapping[str, str]:
    """A SARM and a scalar reward model with random weights, four conversations, a small benchmark of pairs."""
    save_word_tokenizer(folder / "words")
    save_reward_model(folder / "their-sarm", random_sarm(), encoder="sae", tokenizer=folder / "words", pad_id=5)
    torch.manual_seed(3)
    scalar = LlamaForSequenceClassification(llama_config(num_labels=1)).eval()
    scalar.save_pretrained(folder / "their-model")
    save_word_tokenizer(folder / "their-model")
    shutil.rmtree(folder / "words")
    answers = ("a good dog.", "the bad dog ran home.", "it is fine.", "how awful!")
    asked = {"role": "user", "content": "tell me about the dog"}
    lines = [json.dumps({"messages": [asked, {"role": "assistant", "content": answer}]}) for answer in answers]
    (folder / "conversations.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return {"SARM_STORE": str(folder / "artifacts")}


SBATCH = """#!/bin/bash
array() { for part in ${1//,/ }; do seq "${part%%-*}" "${part##*-}"; done; }
number=$(( $(cat "$FAKE/number" 2> /dev/null || echo 4210) + 1 ))
echo "$number" > "$FAKE/number"
case " $* " in *" --parsable "*) echo "$number" ;; *) echo "Submitted batch job $number" ;; esac
name="$(basename "${@: -1}" .sh)" tasks=("$number")
tasks_of="$(sed -n 's/^#SBATCH --array=\\([0-9,-]*\\).*/\\1/p' "${@: -1}")"
[[ -z $tasks_of ]] || mapfile -t tasks < <(array "$tasks_of" | sed "s/^/${number}_/")
for task in "${tasks[@]}"; do echo "$task|PENDING|Priority|$name" >> "$FAKE/queue"; done
"""
SLURM = {
    "sbatch": SBATCH,
    "squeue": '#!/bin/bash\ncat "$FAKE/queue" 2> /dev/null || true\n',
    "sacct": '#!/bin/bash\necho "Slurm accounting storage is disabled" >&2; exit 1\n',
    "scancel": "#!/bin/bash\n",
}


def on_a_cluster(folder: Path, kept: ExitStack) -> Mapping[str, str]:
    """The checkout's scripts, a Slurm that takes every job and runs none, and a hub of this machine."""
    pretended = folder / "bin"
    pretended.mkdir()
    for name, text in SLURM.items():
        (pretended / name).write_text(text, encoding="utf-8")
        (pretended / name).chmod(0o755)
    (folder / "slurm").symlink_to(ROOT / "slurm")
    hub = kept.enter_context(serving(our_hub(folder / "hub")))
    (folder / "ours.toml").write_text(our_profile(), encoding="utf-8")
    home = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(folder / "home")}
    # A walk shows what the commands say of a checkout whose changes are in a commit, also while somebody works on it.
    return {"SARM_STORE": str(folder / "artifacts"), "FAKE": str(pretended), "SARM_ALLOW_DIRTY": "1", **home}


def our_hub(folder: Path) -> Hub:
    """A tiny Llama and a text corpus, as a hub serves them."""
    model = save_backbone(folder / "llama")
    corpus = write_corpus(folder / "text", times=CORPUS_LINES) / "corpus.jsonl"
    return Hub(
        models={"our/llama": Repository.of_folder(model)},
        datasets={"our/text": Repository({"README.md": CARD, "corpus.jsonl": corpus.read_bytes()})},
    )


def our_profile() -> str:
    """The tests' profile of seconds with that model and text; pairs and benchmarks are the miniature's."""
    config = llama_config()
    sizes = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "vocab_size")
    shape = "".join(f"{name} = {getattr(config, name)}\n" for name in sizes)
    text = PROFILE.format(slot="large")
    start, end = text.index("[backbones.large]"), text.index("[text]")
    backbone = (
        '[backbones.large]\nstands_for = "Llama-3.1-8B-Instruct"\n'
        'source = { kind = "hub", repository = "our/llama", revision = "main" }\n'
        f"layers = {{ 16 = 2, 32 = 4 }}\nks = {{ 192 = 3 }}\n[backbones.large.shape]\n{shape}\n"
    )
    corpus = 'source = { kind = "hub", repository = "our/text", revision = "main", split = "train", download_gb = 0.001 }'
    text = text[:start] + backbone + text[end:].replace('source = { kind = "miniature" }', corpus, 1)
    return text.replace('"tiny"', '"ours"').replace('"a test"', '"another backbone"')


STAGES: Mapping[str, Stage] = {"check-a-table": check_a_table, "score-a-model": score_a_model, "on-a-cluster": on_a_cluster}
