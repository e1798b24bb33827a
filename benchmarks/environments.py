"""Environments of the processes that train: our own, and those into which other libraries are installed once."""

from __future__ import annotations

import os
import subprocess
import venv
from collections.abc import Sequence
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent


def python_with(library: str, folder: Path, *, ours: Sequence[str] = ()) -> Path:
    """The Python of a virtual environment with a library, our version of torch and those of `ours`; made on first use (minutes)."""
    python, whole = folder / "bin" / "python", folder / "installed"
    pinned = [f"torch=={torch.__version__.partition('+')[0]}", *ours]
    wanted = " ".join([library, *pinned])
    if whole.exists() and whole.read_text(encoding="utf-8") == wanted:
        return python
    print(f"installing {wanted} into {folder} (once, some minutes)", flush=True)
    venv.create(folder, with_pip=True, clear=True)
    # torch first and pinned, so that the library's own range draws no other build of it.
    for packages in (pinned[:1], [library, *pinned]):
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *packages], check=True)
    whole.write_text(wanted, encoding="utf-8")
    return python


def variables(threads: int) -> tuple[dict[str, str], dict[str, str]]:
    """Environment variables of our processes, which find the suite, and of the peers', which do not. Neither asks a hub."""
    theirs = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    theirs |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    theirs.pop("PYTHONPATH", None)
    own = {**theirs, "PYTHONPATH": os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])}
    return own, theirs
