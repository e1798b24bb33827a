"""`replicate init`: a profile that runs as it is, and one clear line for everything that none can be made from."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import replicate
from folders import ROOT
from own_input import own_input, raw_texts, write
from tiny import edit_json

from replication.settings.profile_files import load_profile

DATA = os.environ.get("SARM_DATA", "")
PARTS = ("model", "pairs", "text")


def command(where: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """As `replicate`, with a home of its own and time for a training."""
    own = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(where), "SARM_STORE": str(where / "store"), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "replication.cli", *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False, cwd=where, timeout=280, env={**own, **environment})


def options(paths: dict[str, Path], *names: str) -> list[str]:
    return [part for name in names for part in (f"--{name}", str(paths[name]))]


def files(folder: Path) -> dict[str, Path]:
    """Names of inputs that are there, with nothing in them that anybody reads."""
    for name in ("pairs.jsonl", "text.jsonl"):
        (folder / name).write_text("{}\n", encoding="utf-8")
    (folder / "model").mkdir()
    return {"model": folder / "model", "pairs": folder / "pairs.jsonl", "text": folder / "text.jsonl"}


def test_what_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    paths = {name: tmp_path / f"none-{name}" for name in PARTS}
    done = replicate("init", *options(paths, *PARTS), "--benchmark", "none.jsonl", cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    for words in ("--pairs ", "--text ", "--benchmark none.jsonl does not exist", "none-model: is no folder here and no OWNER/NAME"):
        assert words in done.stderr
    paths = files(tmp_path)
    done = replicate("init", "--model", str(paths["pairs"]), *options(paths, "pairs", "text"), cwd=tmp_path)
    assert done.returncode == 2 and "is a file; give the folder that holds its config.json" in done.stderr


def test_a_hub_model_that_is_not_fetched_names_the_command_with_code_7(tmp_path: Path) -> None:
    paths = files(tmp_path)
    done = replicate("init", "--model", "owner/model", *options(paths, "pairs", "text"), "--store", str(tmp_path / "store"), cwd=tmp_path)
    assert done.returncode == 7
    expected = "--model owner/model: no folder here, nor a model in the store; run: replicate fetch --model owner/model"
    assert done.stderr == f"replicate: {expected}\n"


def test_a_profile_that_is_there_stays_without_force(tmp_path: Path) -> None:
    paths = files(tmp_path)
    out = tmp_path / "model.toml"
    out.write_text("mine", encoding="utf-8")
    done = replicate("init", *options(paths, *PARTS), cwd=tmp_path)
    assert done.returncode == 2 and done.stderr == "replicate: --out model.toml: exists; give --force to replace it, or another --out\n"
    assert out.read_text(encoding="utf-8") == "mine"


def test_a_place_where_no_profile_can_be_is_refused(tmp_path: Path) -> None:
    paths = files(tmp_path)
    cases = [("none/p.toml", 2, "there is no folder none"), ("p.txt", 2, "ends with .toml"), (str(tmp_path), 2, "ends with .toml")]
    for out, code, words in cases:
        done = replicate("init", *options(paths, *PARTS), "--out", out, cwd=tmp_path)
        assert done.returncode == code and words in done.stderr and "Traceback" not in done.stderr
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    if os.access(locked, os.W_OK):
        # Root writes everywhere but into the kernel's own folders.
        locked = Path("/proc")
    done = replicate("init", *options(paths, *PARTS), "--out", str(locked / "p.toml"), cwd=tmp_path)
    assert done.returncode == 7 and "cannot be" in done.stderr and str(locked) in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_profile_of_tiny_input_runs_whole(tmp_path: Path) -> None:
    paths = own_input(tmp_path)
    out = tmp_path / "profiles" / "mine.toml"
    out.parent.mkdir()
    done = command(tmp_path, "init", *options(paths, *PARTS, "benchmark"), "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out}\n"
    assert "jobs to run" in done.stderr and "largest process" in done.stderr and "next: replicate table1 --profile" in done.stderr
    text = out.read_text(encoding="utf-8")
    assert str(tmp_path) not in text and 'path = "../model"' in text and 'path = "../data/pairs.jsonl"' in text
    assert 'Math = "not in the file that was given"' in text and "Safety = " not in text and text.count("#") > 10
    profile = load_profile(str(out), environment={})
    assert profile.name == "mine" and profile.backbones["small"].sizes.hidden_size == 16
    again = command(tmp_path, "init", *options(paths, *PARTS, "benchmark"), "--out", str(out))
    assert again.returncode == 2 and out.read_text(encoding="utf-8") == text
    asked = ("table1", "--profile", str(out), "--out", str(tmp_path / "tables"), "--workers", "1")
    ran = command(tmp_path, *asked, "--set", "reward.epochs=1")
    assert ran.returncode == 0, ran.stderr
    results = json.loads((tmp_path / "tables" / "mine" / "table1.results.json").read_text(encoding="utf-8"))
    assert results and str(tmp_path) not in json.dumps(results)


@pytest.mark.slow
@pytest.mark.skipif(not DATA, reason="needs SARM_DATA")
def test_a_profile_of_a_real_llama_runs_and_without_a_benchmark_too(tmp_path: Path) -> None:
    data = Path(DATA)
    # The first rows of the real files: minutes would be spent on the rest.
    for source, lines in (("preference/pairs.jsonl", 120), ("corpus/text.jsonl", 60)):
        rows = (data / source).read_text(encoding="utf-8").split("\n")[:lines]
        (tmp_path / Path(source).name).write_text("\n".join(rows) + "\n", encoding="utf-8")
    paths = {"model": data / "models" / "english4m", "pairs": tmp_path / "pairs.jsonl", "text": tmp_path / "text.jsonl"}
    done = command(tmp_path, "init", *options(paths, *PARTS), "--out", "real.toml", SARM_DATA=DATA)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "real.toml").read_text(encoding="utf-8")
    assert "${SARM_DATA}/models/english4m" in text and "<|eot_id|>, eos" in text and "rewardbench2" not in text
    short = ("--set", "reward.max_steps=2", "--set", "reward.max_length=64", "--set", "scoring.max_length=64", "--set", "sae.vectors=512")
    asked = ("table1", "--profile", "real.toml", "--out", "tables", "--rows", "sarm-4b", "--workers", "1", *short)
    ran = command(tmp_path, *asked, SARM_DATA=DATA)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "tables" / "real" / "table1.md").is_file()


@pytest.mark.slow
def test_a_tokenizer_whose_eos_ends_no_turn_and_whose_pad_is_one_is_mended_by_the_profile(tmp_path: Path) -> None:
    paths = own_input(tmp_path)
    edit_json(paths["model"] / "tokenizer_config.json", eos_token="<|end_of_text|>", pad_token="<|eot_id|>")
    done = command(tmp_path, "init", *options(paths, *PARTS), "--out", "mended.toml")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "mended.toml").read_text(encoding="utf-8")
    assert text.count('tokenizer = { end_of_turn = "<|eot_id|>", pad_token = "[PAD]" }') == 2
    short = ("--rows", "sarm-4b", "--workers", "1", "--set", "reward.max_steps=1", "--set", "sae.vectors=64")
    ran = command(tmp_path, "table1", "--profile", "mended.toml", "--out", "tables", *short)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.slow
def test_too_little_text_leaves_nothing_and_is_told(tmp_path: Path) -> None:
    paths = own_input(tmp_path)
    write(paths["text"], raw_texts()[:1])
    done = command(tmp_path, "init", *options(paths, *PARTS))
    assert done.returncode == 2 and "--text: 1 documents with about 3 sentences; an SAE needs 10 documents" in done.stderr
    assert "Traceback" not in done.stderr and not list(tmp_path.glob("*.toml")) and not list(tmp_path.glob(".*.partial"))
    shutil.rmtree(paths["model"])
    paths["model"].mkdir()
    done = command(tmp_path, "init", *options(paths, *PARTS))
    assert done.returncode == 2 and "holds no config.json" in done.stderr and done.stderr.count("\n") == 1
