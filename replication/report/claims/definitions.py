"""The claims of the paper as data, and what can be said of one."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from replication.data_folders import published_folder
from replication.frozen import Frozen
from replication.report.published import read_published

ClaimKind = Literal[
    "best-of-table", "best-of-board", "non-inferior", "difference", "steps", "plateau", "range", "own-results-only", "steering", "detection"
]
# Kinds on which no published number bears.
OWN_RESULTS_ONLY: tuple[ClaimKind, ...] = ("own-results-only", "steering", "detection")
Outcome = Literal[
    "SUPPORTED", "DIRECTION ONLY", "INCONCLUSIVE", "CONTRADICTED", "SPEC-DEPENDENT", "NOT TESTED",
    "SUPPORTED-ANALOGUE", "NOT-SUPPORTED-ANALOGUE",
]  # fmt: skip


class Claim(Frozen):
    """A sentence of the paper that can be tested, in our words."""

    id: str
    says: str
    place: str
    kind: ClaimKind
    test: str
    table: str = ""
    row: str = ""
    against: str = ""
    rows: tuple[str, ...] = ()
    experiment: str = Field(default="", description="Experiment of ours whose results bear on it; empty where none does.")
    ours: str = Field(default="", description="Row of ours that is claimed to be better, or the middle of a plateau.")
    controls: tuple[str, ...] = Field(default=(), description="Rows of ours that it is compared with; it must hold against each.")
    apart: tuple[str, ...] = Field(
        default=(), description="Values of the training in which the rows may differ for this to be the claim; empty where any may."
    )
    margin: float = Field(default=0.0, ge=0, description="Points; 0 where the test has none.")
    least: float = Field(default=0.0, ge=0, description="Smallest difference that counts, points; half of the reported effect.")
    seeds: int = Field(default=1, ge=1, description="Seeds that SUPPORTED needs; the paper has one run a row.")


class ClaimFile(Frozen):
    """`tables/published/claims.toml`."""

    schema_version: Literal[1] = Field(alias="schema")
    ties_groups: int = Field(gt=0, description="Independent groups of prompts behind the Ties score.")
    alpha: float = Field(gt=0, lt=0.5)
    claims: tuple[Claim, ...] = Field(alias="claim")


class Effect(Frozen):
    """A number that a claim was judged by, in points of Overall unless its label says otherwise, and where the claim begins to hold."""

    label: str
    estimate: float
    low: float = Field(description="Lower end of the interval that the test uses.")
    high: float
    above: float | None = Field(default=None, description="The claim holds above this.")
    below: float | None = Field(default=None, description="The claim holds below this.")


class ClaimResult(Frozen):
    """What is known of a claim, and from what."""

    id: str
    says: str
    place: str
    test: str
    outcome: Outcome
    alone: Outcome | None = Field(
        default=None, description="Of our own results: the outcome before what other claims and the number of seeds take from it."
    )
    basis: Literal["published numbers", "own results", "none"]
    detail: str
    p_value: float | None = None
    p_holm: float | None = Field(default=None, description="Adjusted over all claims of the same basis that have a p value.")
    power_unpaired: float | None = Field(default=None, description="Of this comparison at the reported effect, items unpaired.")
    protocol: str = Field(default="", description="Of our own results; empty for published numbers.")
    power_paired: float | None = Field(default=None, description="The same if item scores correlate by 0.5 (assumed).")
    effects: tuple[Effect, ...] = Field(default=(), description="What was measured, one for each comparison; empty for ranks.")


def load_claims(folder: Path | None = None) -> ClaimFile:
    """The claims on file. Raises PublishedError with file and key."""
    return read_published((folder or published_folder()) / "claims.toml", ClaimFile)
