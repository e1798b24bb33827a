"""What an audit says about a published number."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from replication.frozen import Frozen

Severity = Literal["defect", "doubt", "note"]
Kind = Literal[
    "granularity", "mean", "duplicate", "link", "statement", "superlative", "double-rounding", "leaderboard",
    "partial-credit", "rounding-rule", "label", "size", "identity", "trend", "own-model",
]  # fmt: skip


class Finding(Frozen):
    """One thing that the audit found."""

    table: str
    row: str = Field(description="A row, or * for the table.")
    column: str = Field(description="A column, or * for the whole row.")
    kind: Kind
    severity: Severity = Field(description="defect: unusable as a reference; doubt: deserves attention; note: worth knowing.")
    printed: str = Field(description="The value as printed; empty where the finding is about more than one.")
    detail: str
    suspected_value: str = Field(default="", description="An inference, never an edit.")
