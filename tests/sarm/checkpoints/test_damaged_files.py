"""Damaged files of models, tokenizers and SAEs, generated: whatever is wrong, a reader reads on or says it in one line with a code."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import baseline_checkpoints
import foreign_sae_files
import pytest
import torch
from authors_checkpoints import random_sae, random_sarm, save_authors
from every_layout import GEOMETRY
from safetensors.torch import load_file, save_file
from tiny import HIDDEN, job_context, save_backbone, save_word_tokenizer

from sarm.checkpoints.backbones import load_config, load_tokenizer, load_truncated_backbone
from sarm.checkpoints.reward_models.layouts import load_reward_model, save_reward_model
from sarm.checkpoints.reward_models.sparse_heads import load_head, save_head
from sarm.checkpoints.saes.files import load_sae, save_sae
from sarm.checkpoints.saes.foreign import read_foreign_sae
from sarm.checkpoints.saes.layouts import read_sae
from sarm.checkpoints.tensors import INDEX, TensorFolder
from sarm.config.weights import WeightsConfig
from sarm.job import EnvironmentProblem, JobError, UsageProblem
from sarm.jobs.weights.fetch import fetch_weights
from sarm.reward.sparse_rm import Dense, StateHead

Load = Callable[[Path], object]
CODES = {2, 6, 7}
# Values of another type or size than any setting has.
ODD = (None, "", "many", -3, 0, 1.5, True, [], [1], {}, {"x": None}, "9" * 40, 10**30, [[]], {"model_type": 3})


def sharded(folder: Path) -> Path:
    """The weights in two files, with an index."""
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    files = {name: f"model-0000{1 + place % 2}-of-00002.safetensors" for place, name in enumerate(names)}
    for file in set(files.values()):
        save_file({name: tensors[name].contiguous() for name in names if files[name] == file}, folder / file)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": files}))
    (folder / "model.safetensors").unlink()
    return folder


def backbone(path: Path) -> object:
    return load_truncated_backbone(path, layer=2, dtype=torch.float32)


def fetched(path: Path) -> object:
    output = path.parent / "fetched"
    shutil.rmtree(output, ignore_errors=True)
    config = WeightsConfig(origin="folder", revision="0" * 64, pad_token="<|new|>")
    return fetch_weights(config, job_context(output, locations={"source": path}))


def readers(folder: Path) -> dict[str, tuple[Path, Load]]:
    """A folder of every kind and what reads it."""
    found: dict[str, tuple[Path, Load]] = {
        "config": (save_backbone(folder / "config"), load_config),
        "tokenizer": (save_backbone(folder / "tokenizer"), load_tokenizer),
        "backbone": (save_backbone(folder / "backbone"), backbone),
        "sharded": (sharded(save_backbone(folder / "sharded")), backbone),
        "fetch": (sharded(save_backbone(folder / "fetch")), fetched),
        "authors": (save_authors(folder / "authors", random_sarm(), GEOMETRY), load_reward_model),
        "in a sarm": (save_authors(folder / "inside", random_sarm(), GEOMETRY), read_sae),
    }
    save_word_tokenizer(folder / "words")
    save_reward_model(folder / "ours", random_sarm(), encoder="sae", tokenizer=folder / "words")
    found["ours"] = (folder / "ours", load_reward_model)
    for name in ("armorm", "grm-mlp", "ldl", "classifier-llama"):
        found[name] = (baseline_checkpoints.write_checkpoint(folder / name, name), load_reward_model)
    (folder / "own").mkdir()
    save_sae(folder / "own", random_sae(), layer=2)
    (folder / "head").mkdir()
    save_head(folder / "head", StateHead(Dense(HIDDEN, "none"), width=5), layer=2, hidden_size=HIDDEN)
    found |= {"own sae": (folder / "own", load_sae), "head": (folder / "head", load_head)}
    return found | {name: (path, read_foreign_sae) for name, path in foreign_sae_files.every_layout(folder / "foreign").items()}


def torn(content: bytes, draw: random.Random) -> Iterator[bytes]:
    """Bytes that were cut, overwritten, or are of another file."""
    yield from (
        b"",
        b"\0" * 64,
        b"\xff\xfe{}",
        content[: len(content) // 2],
        content[:-1],
        b"[1]",
        b"null",
        b"3",
        b"{}",
        b'{"a": 1, "a": 2}',
    )
    place = draw.randrange(len(content))
    yield content[:place] + bytes([draw.randrange(256)]) + content[place + 1 :]
    yield b"[" * 5000


def mutated(value: Any, draw: random.Random) -> Any:
    """One key of a JSON object, at any depth, gone or of another type."""
    keys = list(value)
    key = draw.choice(keys)
    if isinstance(value[key], dict) and value[key] and draw.random() < 0.7:
        return {**value, key: mutated(value[key], draw)}
    if draw.random() < 0.3:
        return {name: value[name] for name in keys if name != key}
    return {**value, key: draw.choice(ODD)}


def variants(file: Path, draw: random.Random) -> Iterator[bytes]:
    """Some of the ways to damage it, by chance, so that a seed takes less than a minute; another seed draws others."""
    content = file.read_bytes()
    yield from draw.sample(list(torn(content, draw)), 5)
    if file.suffix == ".json":
        raw = json.loads(content)
        for _ in range(5):
            yield json.dumps(mutated(raw, draw)).encode()


def complaint(load: Load, path: Path) -> str:
    """What left a reader beside a refusal of ours in one line; empty for a good one."""
    try:
        load(path)
    except JobError as refusal:
        good = refusal.exit_code in CODES and "\n" not in str(refusal) and str(refusal)
        return "" if good else f"refused badly: {refusal!r}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    return ""


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_damaged_file_is_told_in_one_line_whichever_reader_meets_it(seed: int, tmp_path: Path) -> None:
    tried, found = 0, []
    for name, (path, load) in readers(tmp_path).items():
        load(path)
        for file in sorted(one for one in path.rglob("*") if one.is_file() and one.suffix != ".jinja"):
            whole = file.read_bytes()
            for number, content in enumerate(variants(file, random.Random(f"{seed}/{name}/{file.name}"))):
                file.write_bytes(content)
                if said := complaint(load, path):
                    found.append(f"{name}: {file.name}: seed {seed}, variant {number}: {content[:200]!r}: {said}")
                tried += 1
            file.write_bytes(whole)
        load(path)
    assert not found, "\n".join(found)
    assert tried > 300


def test_weights_in_two_sets_and_files_elsewhere_are_refused(tmp_path: Path) -> None:
    folder = sharded(save_backbone(tmp_path / "m"))
    index = json.loads((folder / INDEX).read_text())
    name = next(iter(index["weight_map"]))
    for wrong in ("../secret.safetensors", "/etc/passwd", "model.bin", 3, None):
        (folder / INDEX).write_text(json.dumps({"weight_map": {**index["weight_map"], name: wrong}}))
        with pytest.raises(UsageProblem, match=rf"m/{INDEX}: weight_map"):
            TensorFolder(folder)
    (folder / INDEX).write_text(json.dumps({"weight_map": {key: file for key, file in index["weight_map"].items() if key != name}}))
    with pytest.raises(UsageProblem, match=rf"holds tensor '{name}', for which {INDEX} does not name this file"):
        backbone(folder) if name != "model.embed_tokens.weight" else TensorFolder(folder).tensor("model.norm.weight")
    (folder / INDEX).write_text(json.dumps(index))
    save_file({"x": torch.ones(1)}, folder / "model.safetensors")
    with pytest.raises(UsageProblem, match=r"m: weights in model\.safetensors and in the files of .*, two sets; remove one"):
        TensorFolder(folder)


@pytest.mark.parametrize(("content", "package"), [(b"\n\x0e\n\x05<unk>", "sentencepiece"), (b"IQ== 0\nIg== 1\n", "tiktoken")])
def test_a_tokenizer_whose_package_is_not_here_names_it(
    content: bytes, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_backbone(tmp_path / "gemma")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(content)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        EnvironmentProblem, match=rf"gemma/tokenizer\.model: only the package {package} reads it.*pip install {package}"
    ) as told:
        load_tokenizer(folder)
    assert told.value.exit_code == 7 and "\n" not in str(told.value)
