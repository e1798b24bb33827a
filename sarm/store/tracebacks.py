"""Where the traceback of what nobody foresaw is kept."""

from __future__ import annotations

import os
import tempfile
import traceback
from pathlib import Path


def keep_traceback(root: Path, name: str) -> Path:
    """Write the current traceback into the logs of the store at `root`, or among the temporary files where the store cannot be written."""
    for folder in (root / ".logs", Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(traceback.format_exc(), encoding="utf-8")
        except OSError:
            continue
        return folder / name
    return Path(os.devnull)
