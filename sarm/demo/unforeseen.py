"""What nobody foresaw, as one line; its traceback is kept in a file."""

from __future__ import annotations

import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from sarm.job import printable
from sarm.store.tracebacks import keep_traceback


def told(error: Exception) -> str:
    """The line for an error that is being handled."""
    lines = str(error).splitlines()
    name = f"replicate-demo-{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}-traceback.txt"
    kept = keep_traceback(Path(tempfile.gettempdir()), name)
    return f"{type(error).__name__}: {printable(lines[0]) if lines else 'no message'}; traceback in {kept}"
