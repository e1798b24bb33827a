"""A checkpoint that a power cut or a full disk tore is told and set aside, whatever of it is damaged, and the work goes on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny import job_context

from sarm.engine.checkpointer import Checkpointer

STATE, FACTS = "state.safetensors", "facts.json"


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def write_shard(folder: str) -> None:
    (Path(folder) / "shard-0.pt").write_bytes(b"x" * 100)


@pytest.mark.parametrize("damage", [
    lambda folder: cut(folder / STATE),
    lambda folder: (folder / STATE).write_bytes(b""),
    lambda folder: (folder / STATE).unlink(),
    lambda folder: cut(folder / FACTS),
    lambda folder: (folder / FACTS).write_bytes(b""),
    lambda folder: (folder / FACTS).write_bytes(b"\0" * 40),
    lambda folder: (folder / FACTS).write_text("[]"),
    lambda folder: (folder / FACTS).unlink(),
    lambda folder: cut(folder / "shard-0.pt"),
    lambda folder: [path.unlink() for path in folder.iterdir()],
], ids=["state cut", "state empty", "state gone", "facts cut", "facts empty", "facts NUL", "facts a list", "facts gone", "shard cut",
        "folder empty"])  # fmt: skip
@pytest.mark.parametrize("earlier", [False, True])
def test_a_torn_checkpoint_is_set_aside_and_the_one_before_or_the_start_serves(
    tmp_path: Path, damage: Callable[[Path], object], earlier: bool
) -> None:
    context = job_context(tmp_path)
    if earlier:
        Checkpointer(context).save(1, {"w": torch.zeros(3)}, {}, write_shard)
        shutil.move(context.checkpoint / "step-0000000001", tmp_path / "kept")
    Checkpointer(context).save(2, {"w": torch.ones(3)}, {"cursor": 7}, write_shard)
    if earlier:
        shutil.move(tmp_path / "kept", context.checkpoint / "step-0000000001")
    damage(context.checkpoint / "step-0000000002")
    found = Checkpointer(context).latest()
    assert (found.step if found else None) == (1 if earlier else None)
    assert (context.checkpoint / "torn-step-0000000002").is_dir()
    Checkpointer(context).save(2, {"w": torch.ones(3)}, {"cursor": 8}, write_shard)
    again = Checkpointer(context).latest()
    assert again is not None and again.step == 2 and again.facts == {"cursor": 8}


def test_a_checkpoint_without_sizes_is_taken(tmp_path: Path) -> None:
    """Those of earlier versions say nothing of sizes."""
    context = job_context(tmp_path)
    Checkpointer(context).save(2, {"w": torch.ones(3)}, {"cursor": 7})
    facts = context.checkpoint / "step-0000000002" / FACTS
    facts.write_text('{"_step": 2, "_layout": "plain", "_processes": 1, "cursor": 7}')
    found = Checkpointer(context).latest()
    assert found is not None and found.facts == {"cursor": 7} and torch.equal(found.tensors["w"], torch.ones(3))
