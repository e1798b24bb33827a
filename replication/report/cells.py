"""What a table is made of, before anything decides how it looks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from replication.frozen import Frozen

Verdict = Literal[
    "MATCH", "EQUIVALENT", "CONSISTENT", "INCONCLUSIVE", "DIFFERS", "DEFECTIVE", "MISSING", "NOT COMPARABLE", "PUBLISHED ONLY"
]


Origin = Literal["paper-ours", "paper-baseline", "control"]


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
    origin: Origin = Field(
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
    rules: Mapping[str, str] = Field(default={}, description="Column -> how its cells are judged, in words; empty where none is.")


class Listing(Frozen):
    """A titled block of plain text: numbers that are no percentages, checks, counts."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[str, ...] = Field(default=(), description="Columns of numbers, which stand on the right.")
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _rectangular(self) -> Self:
        wrong = [row for row in self.rows if len(row) != len(self.columns)]
        if wrong:
            raise ValueError(f"listing {self.name}: row {wrong[0]!r} has {len(wrong[0])} fields for {len(self.columns)} columns")
        return self


class Provenance(Frozen):
    """An artifact that a table rests on."""

    kind: str
    key: str
    label: str
    seconds: float
    gpus: int = Field(default=0, description="GPUs that it was made with, for all of its seconds.")
    code: str = Field(description="Commit, with `+dirty` when the tree had changes.")


class Input(Frozen):
    """A model, data set or benchmark that the numbers rest on."""

    id: str = Field(description="Hub repository, or what it is to the profile; never a path.")
    kind: Literal["model", "dataset", "benchmark"]
    revision: str = Field(description="Commit of the hub, SHA-256 of a local file or folder, or the key of the artifact that made it.")
    sha256: str = Field(default="", description="Of a benchmark's file, else over names and checksums; empty: not in the store.")


class PlantedNumber(Frozen):
    """One number of a miniature's planted truth, with its 95 % interval."""

    measure: str = Field(
        description="recovery, recovery-random, recovery-difference (mean AUROC of the best latents of the concepts); names, "
        "names-by-one-name (shares of explained latents); steered-latent, steered-latent-held-out, best-latent, steered-agrees-with "
        "(AUROC)."
    )
    subject: str = Field(description="Where concepts are read (sentence, reply); the encoder; or latent and concept.")
    seed: int | None = Field(description="Of training; null: over all seeds of the report.")
    value: float = Field(description="0 to 1, or a difference of such.")
    low: float
    high: float
    n: int = Field(ge=1, description="What the interval is over: concepts, seeds, latents, or replies.")


ORDINARY = (": processes 1", ": ZeRO stage 0", ": offload none")


class Circumstance(Frozen):
    """Something that moves last digits and is in no key, as the artifacts of a report say it."""

    what: str = Field(description="processor, GPU, threads, a package, or `<kind of work>: <resource>`.")
    values: tuple[str, ...] = Field(description="Each that was met, sorted.")


class Report(Frozen):
    """All that is rendered for one experiment."""

    experiment: str
    title: str
    profile: str
    protocol: str
    seeds: tuple[int, ...]
    regime: Literal["retrained", "evaluation"] = Field(
        default="retrained",
        description="Own training under new seeds, or an evaluation of weights that are claimed to be the published ones.",
    )
    comparable: bool
    why_not_comparable: str = ""
    tables: tuple[Table, ...]
    listings: tuple[Listing, ...] = ()
    deviations: tuple[str, ...] = ()
    provenance: tuple[Provenance, ...] = ()
    circumstances: tuple[Circumstance, ...] = Field(
        default=(), description="Machine and resources of what was computed: on others the same work rounds otherwise. Empty before 1.4."
    )
    inputs: tuple[Input, ...] = Field(default=(), description="Models and data; two reports of other data are never compared.")
    notes: tuple[str, ...] = ()
    command: str = Field(default="", description="What makes this report, or takes it from the store; empty where no command does.")
    planted: tuple[PlantedNumber, ...] = Field(default=(), description="How far planted truth was found; empty for real data.")

    @property
    def computed_with(self) -> str:
        """Its circumstances in one line, without one process, no ZeRO and no offload; empty where no artifact tells any."""
        told = [f"{one.what} {' and '.join(one.values)}" for one in self.circumstances]
        return "; ".join(one for one in told if not one.endswith(ORDINARY))
