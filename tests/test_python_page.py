"""The page for Python users: its code runs as it stands, in a temporary folder where tiny models lie under the page's names."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from authors_checkpoints import random_sarm, save_authors
from folders import ROOT
from tiny import HIDDEN, learnable_pairs, save_backbone, save_word_tokenizer, write_rows
from tiny_contexts import save_sarm
from tiny_scoring import items

import sarm
from sarm.checkpoints.saes.files import save_sae
from sarm.data.preferences import Message, Preference, ScoredPreference
from sarm.sae.model import TopKSAE

PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
AUTHORS_RUN = "run_Latent24_Layer2_K4_1B-SARM-TopK-LastToken-1"


def write_the_pages_files(folder: Path) -> None:
    """Everything that the page opens, tiny, under the name that the page gives it."""
    save_sarm(folder / "my-reward-model")
    save_word_tokenizer(save_authors(folder / AUTHORS_RUN, random_sarm(), {}))
    save_backbone(folder / "my-language-model")
    (folder / "my-sae").mkdir()
    save_sae(folder / "my-sae", TopKSAE(hidden_size=HIDDEN, n_latents=24, k=4), layer=2)
    write_rows(folder, "rewardbench2.jsonl", items())
    write_rows(folder, "pairs.jsonl", learnable_pairs(4))
    turn = (Message(role="user", content="tell me"),)
    styles = Preference(id="1", prompt=turn, chosen=("one.", "two.", "three."), rejected=("four.", "five.", "six."), subset="chat")
    write_rows(folder, "rmbench.jsonl", [styles])
    rewards = ScoredPreference(id="1", subset="Math", chosen_rewards=(0.5,), rejected_rewards=(0.1, 0.2, 0.3))
    write_rows(folder, "rewards.jsonl", [rewards])


def test_the_pages_code_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_the_pages_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for number, block in enumerate(BLOCKS, start=1):
        exec(compile(block, f"docs/python.md, block {number}", "exec"), names)
    assert len(names["rewards"].values) == 2  # type: ignore[attr-defined]
    printed = capsys.readouterr().out
    assert "no-such-folder: no such folder; give the folder of a model" in printed
    assert "conversation 1: turns: Value error, the last message must be the assistant's" in printed


@pytest.mark.slow
def test_the_pages_code_passes_a_type_checker_where_the_package_is_installed(tmp_path: Path) -> None:
    """Run away from the checkout, so that mypy takes `sarm` as it takes an installed package: only with its `py.typed`."""
    told = {
        "reveal_type(model.rewards(conversations).values)": 'Revealed type is "tuple[float, ...]"',
        "reveal_type(load_sae)": "-> sarm.api.saes.LoadedSAE",
        "reveal_type(first.latents[0].contribution)": 'Revealed type is "float"',
        "from sarm import nothing": 'Module "sarm" has no attribute "nothing"',
        "model.rewards(3)": 'Argument 1 to "rewards" of "LoadedRewardModel" has incompatible type "int"',
    }
    page = "\n".join(BLOCKS)
    (tmp_path / "page.py").write_text(page + "\n".join(told) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "page.py"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=600)
    found = dict(line.split(":", 2)[1:] for line in done.stdout.splitlines() if line.startswith("page.py:"))
    after = len(page.splitlines())
    expected = {str(after + number): words for number, words in enumerate(told.values(), start=1)}
    assert found.keys() == expected.keys(), done.stdout + done.stderr
    assert all(words in found[line] for line, words in expected.items()), found


def test_the_page_names_everything_public_and_calls_every_method() -> None:
    code = "".join(BLOCKS)
    assert not [name for name in sarm.FACE if not re.search(rf"\b{name}\b", PAGE) and not name.startswith("Loaded")]
    for kind in (sarm.LoadedRewardModel, sarm.LoadedBackbone, sarm.LoadedSAE):
        methods = [name for name, value in vars(kind).items() if callable(value) and not name.startswith("_")]
        assert methods and not [name for name in methods if f".{name}(" not in code]
