"""What the campaign of kills puts into a process: it holds still at a named moment until it is killed or let go.

Python imports this file by itself where its folder is on PYTHONPATH. It does nothing unless `SARM_CAMPAIGN_ORDER` names a file that
says which moment is meant. The product knows nothing of it: moments are renames that it makes and calls of its checkpointer.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

CHECKPOINTER = "sarm.engine.checkpointer"
LONGEST_HOLD_SECONDS = 120.0


class Order:
    """Which moment, at which of its occurrences in this process (from 1), `before` or `after` the call; and where to tell it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        found = json.loads((folder / "order.json").read_text(encoding="utf-8"))
        self.moment: str = found["moment"]
        self._left: int = found["nth"]
        self._before: bool = found["before"]
        self.rendered: str = found["rendered"]

    def around(self, call: Callable[[], Any]) -> Any:
        """Make a call that is this moment, and hold still before or after it where its turn has come."""
        self._left -= 1
        if self._left == 0 and self._before:
            self._hold()
        result = call()
        if self._left == 0 and not self._before:
            self._hold()
        return result

    def _hold(self) -> None:
        try:
            # One process of a run holds; the others go on.
            with (self._folder / "reached.partial").open("x", encoding="utf-8") as out:
                out.write(str(os.getpid()))
        except FileExistsError:
            return
        os.link(self._folder / "reached.partial", self._folder / "reached")
        end = time.monotonic() + LONGEST_HOLD_SECONDS
        while not (self._folder / "let-go").exists() and time.monotonic() < end:
            time.sleep(0.01)


def moment_of(source: str, target: str, rendered: str) -> str:
    """Which moment a rename is, or nothing."""
    to, since = Path(target), Path(source)
    parts = to.parts
    staged = parts[parts.index(".staging") + 1 :] if ".staging" in parts else ()
    if staged and len(staged) <= 3 and not to.name.startswith("free-"):
        # A prepared folder onto its slot, or a dead owner's folder taken over.
        return "claiming"
    if "checkpoint" in staged and since.suffix == ".partial" and since.is_dir():
        return "renaming a checkpoint"
    if to.name == "manifest.json" or since.name == "output":
        return "committing"
    return "rendering" if target.startswith(rendered) else ""


def watch_renames(order: Order) -> None:
    """Hold at renames that are the order's moment."""

    def watched(rename: Callable[..., None]) -> Callable[..., None]:
        def call(source: Any, target: Any, **more: Any) -> None:
            if moment_of(os.fspath(source), os.fspath(target), order.rendered) == order.moment:
                order.around(lambda: rename(source, target, **more))
            else:
                rename(source, target, **more)

        return call

    os.rename, os.replace = watched(os.rename), watched(os.replace)


class WatchSteps(importlib.abc.MetaPathFinder):
    """Hold at a step of a training: the call that every step makes, whether a checkpoint is due."""

    def __init__(self, order: Order) -> None:
        self._order = order

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> Any:
        if name != CHECKPOINTER:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is None or spec.loader is None:
            return spec
        execute, order = spec.loader.exec_module, self._order

        def exec_module(module: ModuleType) -> None:
            execute(module)
            due = module.Checkpointer.due
            module.Checkpointer.due = lambda self: order.around(lambda: due(self))

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def start(folder: Path) -> None:
    """Tell who we are, and wait for the moment."""
    words = sys.orig_argv
    # torchrun itself is a parent of workers and none of them: it only ends them when one is gone.
    role = "parent" if "replication.cli" in words else "worker" if "sarm.jobs" in words and "torch.distributed.run" not in words else ""
    if not role:
        return
    told = f"{'rank' if role == 'worker' and 'RANK' in os.environ else role}-{os.environ.get('RANK', '0')}-{os.getpid()}"
    (folder / "processes" / told).touch()
    order = Order(folder)
    if order.moment == "training":
        sys.meta_path.insert(0, WatchSteps(order))
    else:
        watch_renames(order)


if os.environ.get("SARM_CAMPAIGN_ORDER"):
    start(Path(os.environ["SARM_CAMPAIGN_ORDER"]))
