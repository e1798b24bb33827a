"""The numbers of the verdict rule, read from `tables/published/margins.toml`: margins are data, fixed before any result."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from replication.data_folders import published_folder
from replication.frozen import Frozen
from replication.report.published import PublishedError, read_published

Positive = Annotated[float, Field(gt=0)]
MachineKey = Literal["machine_dispersion", "ties_machine_dispersion"]


class VerdictRules(Frozen):
    """What separates one verdict from another."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    alpha: float = Field(gt=0, lt=0.5)
    prediction_seeds: int = Field(ge=3, description="Fewest seeds for a prediction interval.")
    noise_budget_items: Positive = Field(description="Items a subset, for evaluations of the same weights.")
    ties_budget: Positive = Field(description="Points, since Ties is no count.")
    seed_dispersion: Positive = Field(description="Assumed seed variance over binomial variance, before there are seeds.")
    machine_dispersion: Positive = Field(description="Variance of one run between machines over its variance over items.")
    ties_machine_dispersion: Positive = Field(description="The same of Ties, whose score also counts how far rewards lie apart.")
    machine_false_alarms: float = Field(gt=0, lt=0.5, description="Chance of one DIFFERS or more in a whole diff of two such runs.")
    margin: Mapping[str, Positive] = Field(description="Points, by column.")

    def margin_of(self, column: str) -> float:
        """The margin of a column in points. Raises PublishedError where none is fixed."""
        if column not in self.margin:
            raise PublishedError(f"margins.toml: margin.{column}: no margin is fixed for this column, so there is no verdict")
        return self.margin[column]

    def machine_dispersion_of(self, column: str) -> tuple[MachineKey, float]:
        """The variance of one run between machines over its variance over items in a column, behind its key of the file."""
        if column == "Ties":
            return "ties_machine_dispersion", self.ties_machine_dispersion
        return "machine_dispersion", self.machine_dispersion


def load_rules(folder: Path | None = None) -> VerdictRules:
    """The rule on file. Raises PublishedError with file and key, for example for a margin of zero."""
    return read_published((folder or published_folder()) / "margins.toml", VerdictRules)


def rule_in_words(rules: VerdictRules, column: str, regime: Literal["retrained", "evaluation"]) -> str:
    """How a cell of a column is judged, for a reader. Raises PublishedError where no margin is fixed for it."""
    if regime == "evaluation":
        if column == "Overall":
            return "Same weights claimed: follows the row's subsets."
        if column == "Ties":
            return f"Same weights claimed: MATCH up to {rules.ties_budget:g} points apart."
        return f"Same weights claimed: MATCH up to {rules.noise_budget_items:g} items apart."
    return (
        f"Retrained: EQUIVALENT within {rules.margin_of(column):g} points by two one-sided tests, DIFFERS where the difference excludes "
        f"that margin, CONSISTENT inside the prediction interval of {rules.prediction_seeds} seeds or more; level {rules.alpha:g}, "
        "Benjamini-Hochberg over the report."
    )
