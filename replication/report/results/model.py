"""The shape of `results.json`: what was measured, from what, where and at what cost; and the report that it was rendered as.

`replication/schemas/*.schema.json` are made from these types (`python -m replication.report.results.model`) and tests compare them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from replication.report.cells import Input, Report
from sarm.data.preferences import ScoredPreference

SCHEMA_VERSION = "1.4"
SCHEMAS = Path(__file__).resolve().parents[2] / "schemas"
BenchmarkName = Literal["rewardbench2", "rmbench", "evaluation"]


class Strict(BaseModel):
    """Frozen; nothing unknown, and no text where a number belongs."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ResultMetric(Strict):
    """One number of ours, and its place in the tables."""

    table: str
    row: str
    column: str
    model: str = Field(description="Row of the registry, or baseline, that was measured.")
    benchmark: BenchmarkName
    name: str = Field(description="Metric of the benchmark; for pairs a source.")
    value: float = Field(description="In `unit`; the mean over seeds where there are several.")
    unit: Literal["percent"] = "percent"
    n: int = Field(ge=1, description="Items of one seed.")
    correct: float | None = Field(description="Credits, where the metric is a mean of credits.")
    se: float | None = Field(description="Standard error over items, points.")
    ci95: tuple[float, float] | None = Field(
        description="Wilson's interval for credits, else value +- 1.96 se; over items alone, seeds not in it."
    )


class RewardFile(Strict):
    """The per-item rewards of one model with one seed on one benchmark."""

    model: str
    seed: int | None = Field(description="Null for baselines, which have none.")
    benchmark: BenchmarkName
    file: str = Field(pattern=r"^[^/\\]+(/[^/\\]+)*$", description="Relative to results.json.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    items: int = Field(ge=1)
    artifact: str = Field(description="kind/key in the store that it comes from.")


class Environment(Strict):
    """Where the rewards were computed; nulls where nothing was measured."""

    python: str | None = None
    packages: Mapping[str, str] = {}
    gpus: tuple[str, ...] = ()
    processor: str | None = Field(default=None, description="Model and, if told, the instructions that torch uses; null before 1.3.")
    world_size: int | None = None
    dtype: str | None = None
    attention: str | None = None
    batch_tokens: int | None = Field(default=None, description="Padded tokens of one forward pass.")
    max_length: int | None = Field(default=None, description="Tokens.")
    truncation: str | None = None
    bos: str | None = None


class Code(Strict):
    """The code that computed the rewards: of the last artifact; dirty if any was."""

    commit: str
    dirty: bool


class ResultCost(Strict):
    """Of every artifact behind the report, whenever it was built."""

    gpu_hours: float
    seconds: float
    peak_memory: int = Field(description="Bytes of host memory of the largest process.")


class ResultFile(Strict):
    """One results.json."""

    schema_version: str = Field(pattern=r"^1\.\d+$", description="major.minor; another major is not read.")
    experiment: str
    profile: str
    protocol: str
    published: str = Field(description="File of tables/published that judges it.")
    comparable: bool
    why_not_comparable: str
    seeds: tuple[int, ...]
    metrics: tuple[ResultMetric, ...]
    rewards: tuple[RewardFile, ...]
    inputs: tuple[Input, ...]
    environment: Environment
    code: Code
    command: str
    cost: ResultCost
    started: str | None = Field(description="ISO 8601, UTC: start of the first artifact; null where nothing was measured.")
    ended: str | None
    report: Report = Field(description="As rendered: labels, notes, provenance, and each cell with its verdict.")


def schemas() -> dict[str, dict[str, Any]]:
    """File name -> JSON Schema (draft 2020-12)."""
    found: dict[str, dict[str, Any]] = {}
    for name, model in (("results", ResultFile), ("rewards", ScoredPreference)):
        schema = model.model_json_schema()
        found[f"{name}.schema.json"] = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return found


def schema_text(schema: Mapping[str, Any]) -> str:
    """A schema as it is shipped."""
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


def main() -> None:
    """Write the schemas into the package."""
    SCHEMAS.mkdir(exist_ok=True)
    for name, schema in schemas().items():
        (SCHEMAS / name).write_text(schema_text(schema), encoding="utf-8")


if __name__ == "__main__":
    main()
