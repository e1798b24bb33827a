"""Checkpoints that resume exactly: written whole or not at all, by one process or by several together."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from sarm.job import Interrupted, JobContext
from sarm.store.checksums import files_below
from sarm.store.whole_files import sync, sync_folder


def optimizer_tensors(optimizer: torch.optim.Optimizer, prefix: str = "optimizer") -> dict[str, Tensor]:
    """The state of an optimizer as named tensors: `<prefix>.<parameter index>.<name>`."""
    state = optimizer.state_dict()["state"]
    return {
        f"{prefix}.{index}.{name}": value if isinstance(value, Tensor) else torch.tensor(value)
        for index, values in state.items()
        for name, value in values.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], prefix: str = "optimizer") -> None:
    """Put back what `optimizer_tensors` gave; parameter groups (learning rates) are the caller's."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(prefix + "."):
            index, name = key[len(prefix) + 1 :].split(".", 1)
            state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


@dataclass(frozen=True)
class Checkpoint:
    """What a long job needs to go on exactly: the steps done, tensors, plain facts; and who wrote it.

    `layout` is `plain` or `zero-<stage>`, `folder` where shards of several processes lie.
    """

    step: int
    tensors: dict[str, Tensor]
    facts: dict[str, Any]
    layout: str = "plain"
    processes: int = 1
    folder: Path = field(default_factory=Path)


class Together(Protocol):
    """What checkpoints ask of a process group."""

    @property
    def is_first(self) -> bool:
        """Whether this process writes what all have made."""

    @property
    def size(self) -> int:
        """How many there are."""

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""

    def from_first(self, value: Any) -> Any:
        """The first process's value."""


class Alone:
    """One process."""

    is_first = True
    size = 1

    def any(self, flag: bool) -> bool:
        """The flag."""
        return flag

    def from_first(self, value: Any) -> Any:
        """The value."""
        return value


class Checkpointer:
    """Checkpoints in `context.checkpoint`, each written whole or not at all, older ones pruned.

    `due(step)` is true when `Resources.checkpoint_minutes` have passed or a stop was requested. In a group of processes all
    must call the same methods: they agree on both, and the first one writes what is not a shard.
    """

    def __init__(self, context: JobContext, name: str = "step", *, group: Together | None = None, layout: str = "plain") -> None:
        self._context = context
        self._name = name
        self._group = group or Alone()
        self._layout = layout
        self._last = time.monotonic()
        self._stopping = False

    def latest(self) -> Checkpoint | None:
        """The newest whole checkpoint, or None."""
        name = self._group.from_first(self._newest_whole() if self._group.is_first else "")
        if not name:
            return None
        folder = self._context.checkpoint / name
        facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        facts.pop("_sizes", None)
        return Checkpoint(
            step=facts.pop("_step"),
            layout=facts.pop("_layout", "plain"),
            processes=facts.pop("_processes", 1),
            tensors=load_file(folder / "state.safetensors"),
            facts=facts,
            folder=folder,
        )

    def _newest_whole(self) -> str:
        """The name of the newest checkpoint that is whole; a torn one (power cut, full disk) is told and set aside. Empty for none."""
        for folder in sorted(self._context.checkpoint.glob(f"{self._name}-*[0-9]"), reverse=True):
            why = _torn(folder)
            if not why:
                return folder.name
            aside = folder.with_name(f"torn-{folder.name}")
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)
            self._context.log(f"checkpoint {folder.name} is torn ({why}) and set aside as {aside.name}; an earlier one or the start serves")
        return ""

    def due(self) -> bool:
        """Whether a checkpoint should be written now."""
        minutes = (time.monotonic() - self._last) / 60
        self._stopping = self._group.any(self._context.stop_requested())
        return self._stopping or self._group.any(minutes >= self._context.resources.checkpoint_minutes)

    def save(
        self, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], shards: Callable[[str], None] | None = None
    ) -> None:
        """Write a checkpoint and prune the older ones. `shards` writes every process's own part into a folder."""
        folder = self._context.checkpoint / f"{self._name}-{step:010d}"
        partial = folder.with_name(folder.name + ".partial")
        if self._group.is_first:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            save_file({name: value.detach().contiguous().cpu().clone() for name, value in tensors.items()}, partial / "state.safetensors")
        self._group.any(False)
        if shards is not None:
            shards(str(partial))
        # Complete only when the last process has written its part.
        self._group.any(False)
        if self._group.is_first:
            sizes = {name: (partial / name).stat().st_size for name in files_below(partial)}
            known = {"_step": step, "_layout": self._layout, "_processes": self._group.size, "_sizes": sizes}
            (partial / "facts.json").write_text(json.dumps({**known, **facts}), encoding="utf-8")
            self._publish(folder, partial)
        self._group.any(False)
        self._last = time.monotonic()

    def _publish(self, folder: Path, partial: Path) -> None:
        older = [path for path in self._context.checkpoint.glob(f"{self._name}-*[0-9]") if path != folder]
        if folder.exists():
            shutil.rmtree(partial)
        else:
            # On the disk before it has its name, and its name before the older ones go.
            sync_folder(partial)
            partial.rename(folder)
            sync(folder.parent)
        for path in older:
            shutil.rmtree(path, ignore_errors=True)

    def save_if_due(
        self, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], shards: Callable[[str], None] | None = None
    ) -> None:
        """Save when due. Raises Interrupted after saving when a stop was requested."""
        if not self.due():
            return
        self.save(step, tensors, facts, shards)
        if self._stopping:
            raise Interrupted(f"stopped at step {step} on request, checkpoint written; the same command continues")


def _torn(folder: Path) -> str:
    """Why a checkpoint cannot be used; empty where it can: its facts are read, and every file has the size that it was written with."""
    try:
        facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        step, sizes = facts["_step"], facts.get("_sizes", {})
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"facts.json: {type(error).__name__}"
    for name, size in sizes.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            return f"{name}: {path.stat().st_size if path.is_file() else 'no'} of {size} bytes"
    try:
        with safe_open(folder / "state.safetensors", framework="pt"):
            return "" if isinstance(step, int) else "facts.json: no step"
    except (OSError, SafetensorError) as error:
        return f"state.safetensors: {error}"
