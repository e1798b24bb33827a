"""Text for files that others read: no home folder, no user name, no token. Commands stay commands that a shell understands."""

from __future__ import annotations

import getpass
import os.path
import re
from typing import Any

from replication.report.cells import Report

TOKEN = re.compile(r"\b(hf_|ghp_|github_pat_|sk-)[A-Za-z0-9_-]{16,}")
# An absolute path, not the rest of a relative one or of an address.
PATH = re.compile(r"(?<![\w.:/~$}-])/[\w.@+~-]+(?:/[\w.@+~-]+)*")


def public_text(text: str, *, home: str | None = None, user: str | None = None) -> str:
    """The text with `$HOME` for the home folder, `$USER` for the user's name inside absolute paths, and a mark for tokens.

    Without `home` and `user` they are those of this process.
    """
    folder, name = os.path.expanduser("~") if home is None else home, _user() if user is None else user
    shown = TOKEN.sub("(token)", text)
    if folder.startswith("/") and folder.strip("/"):
        shown = re.sub(rf"(?<![\w./~-]){re.escape(folder.rstrip('/'))}(?![\w.-])", "$HOME", shown)
    return PATH.sub(lambda found: "/".join("$USER" if name and part == name else part for part in found[0].split("/")), shown)


def public_report(report: Report) -> Report:
    """A report in which every text is public."""
    return Report.model_validate(_public(report.model_dump()))


def _public(value: Any) -> Any:
    if isinstance(value, str):
        return public_text(value)
    if isinstance(value, dict):
        return {key: _public(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_public(entry) for entry in value)
    return value


def _user() -> str:
    try:
        return getpass.getuser()
    # Without an entry for this user id there is no name to hide.
    except (OSError, KeyError):
        return ""
