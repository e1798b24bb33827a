"""The example script runs as its docstring says, on a tiny stand-in for a reward model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from folders import ROOT
from tiny_contexts import save_sarm

SCRIPT = ROOT / "examples" / "look_into_a_reward_model.py"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sarm(tmp_path_factory.mktemp("model") / "tiny-sarm")


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)


def test_the_script_prints_rewards_and_latents_and_writes_a_page(model: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = run(model, "--top", "4", "--page", page)
    assert done.returncode == 0, done.stderr
    assert "reward  tokens  truncated" in done.stdout and "latent  activation" in done.stdout
    assert "first minus second, latent by latent" in done.stdout
    text = page.read_text(encoding="utf-8")
    assert "reward model tiny-sarm" in text and "<caption>2 rewards</caption>" in text and "<script" not in text


def test_texts_of_a_file_are_escaped_in_the_page(model: Path, tmp_path: Path) -> None:
    harm = "<script>alert(1)</script> how are you?"
    turns = [{"role": "user", "content": harm}, {"role": "assistant", "content": "good."}]
    file, page = tmp_path / "mine.jsonl", tmp_path / "page.html"
    file.write_text(json.dumps({"messages": turns}) + "\n", encoding="utf-8")
    done = run(model, "--conversations", file, "--page", page)
    assert done.returncode == 0, done.stderr
    assert "<script" not in page.read_text(encoding="utf-8") and "&lt;script&gt;" in page.read_text(encoding="utf-8")


def test_what_cannot_be_done_is_one_line_with_the_documented_code(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text("{}\n", encoding="utf-8")
    for arguments, code, words in (
        ((tmp_path / "absent",), 7, "absent: no such folder"),
        ((model, "--conversations", tmp_path / "absent.jsonl"), 7, "absent.jsonl: no such file"),
        ((model, "--conversations", file), 2, "mine.jsonl:1: no conversation"),
    ):
        done = run(*arguments)
        assert done.returncode == code and words in done.stderr and "Traceback" not in done.stderr
