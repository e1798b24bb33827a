"""A folder that becomes read-only at a change: what changes files fails there with EROFS, as after a disk's own fault."""

from __future__ import annotations

import builtins
import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CHANGES = ("mkdir", "rename", "replace", "unlink", "rmdir", "link", "utime", "chmod")


class ReadOnly:
    """Counts the changes below a folder; those after the first `left` fail."""

    def __init__(self, root: Path, left: int) -> None:
        self.root = str(root)
        self.left = left
        self.changes = 0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put it before the calls that change files."""
        for name in CHANGES:
            monkeypatch.setattr(os, name, self._guarded(getattr(os, name)))
        opens = io.open

        def opened(file: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
            if set(mode) & set("wax+"):
                self._change(file)
            return opens(file, mode, *rest, **more)

        monkeypatch.setattr(io, "open", opened)
        monkeypatch.setattr(builtins, "open", opened)

    def _guarded(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(path: Any, *rest: Any, **more: Any) -> Any:
            self._change(path)
            return call(path, *rest, **more)

        return guarded

    def _change(self, path: Any) -> None:
        if not isinstance(path, (str, os.PathLike)) or not str(path).startswith(self.root):
            return
        self.changes += 1
        if self.changes > self.left:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))


def install_from_environment() -> None:
    """For a process of its own: READ_ONLY_UNDER and READ_ONLY_AFTER say where and when."""
    ReadOnly(Path(os.environ["READ_ONLY_UNDER"]), int(os.environ["READ_ONLY_AFTER"])).install(pytest.MonkeyPatch())
