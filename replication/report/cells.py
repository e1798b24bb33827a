"""What a table is made of, before anything decides how it looks."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Verdict = Literal[
    "MATCH", "EQUIVALENT", "CONSISTENT", "INCONCLUSIVE", "DIFFERS", "DEFECTIVE", "MISSING", "NOT COMPARABLE", "PUBLISHED ONLY"
]


class Frozen(BaseModel):
    """A value that is never changed after it is built."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Measurement(Frozen):
    """One of our numbers, in percent."""

    value: float = Field(description="Percent; the mean over seeds where there are several.")
    n: int = Field(description="Items behind it (of one seed).")
    correct: float | None = Field(default=None, description="Credits, where the metric is a mean of credits; may be fractional.")
    standard_error: float | None = Field(default=None, description="Percentage points, over items.")
    per_seed: tuple[float, ...] = Field(default=(), description="Percent, one for each seed.")
    artifacts: tuple[str, ...] = Field(default=(), description="Artifacts it was computed from, as kind/key.")


class Cell(Frozen):
    """One place of a table: ours, theirs, and what to think of it."""

    column: str
    ours: Measurement | None = None
    published: str | None = Field(default=None, description="Exactly as printed; None where the paper has no such cell.")
    reference: str | None = Field(default=None, description="A second published value (the leaderboard's), in percent as captured.")
    verdict: Verdict
    reason: str = Field(default="", description="How the verdict came about: why it is missing or not comparable, what would decide.")


class Row(Frozen):
    """A line of a table."""

    name: str
    label: str
    size: str = Field(default="", description="As printed.")
    group: str = ""
    origin: Literal["paper-ours", "paper-baseline", "control"] = Field(
        description="A model that the paper trains, a baseline that it quotes, or a row that we add."
    )
    note: str = Field(default="", description="For example where a miniature's counterpart is not exact.")
    cells: tuple[Cell, ...]


class Table(Frozen):
    """A titled block of rows over the same columns."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


class Provenance(Frozen):
    """An artifact that a table rests on."""

    kind: str
    key: str
    label: str
    seconds: float
    code: str = Field(description="Commit, with `+dirty` when the tree had changes.")


class Report(Frozen):
    """All that is rendered for one experiment."""

    experiment: str
    title: str
    profile: str
    protocol: str
    seeds: tuple[int, ...]
    regime: Literal["retrained", "evaluation"] = Field(
        default="retrained", description="Own training under new seeds, or an evaluation of weights that are claimed to be the published ones."
    )
    comparable: bool
    why_not_comparable: str = ""
    tables: tuple[Table, ...]
    deviations: tuple[str, ...] = ()
    provenance: tuple[Provenance, ...] = ()
    notes: tuple[str, ...] = ()
