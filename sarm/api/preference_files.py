"""Benchmark items, pairs and their rewards from JSONL files; there is no torch here."""

from __future__ import annotations

from pathlib import Path

from sarm.data.preferences import Preference, Row, ScoredPreference, read_jsonl
from sarm.job import EnvironmentProblem


def read_preferences(path: str | Path) -> tuple[Preference, ...]:
    """Items or pairs of a file, one `Preference` a line (`id`, `prompt`, `chosen`, `rejected`, and perhaps `subset`, `source`).

    Raises EnvironmentProblem for a file that is absent, UsageProblem that names the line and key of a wrong row.
    """
    return _rows(Path(path), Preference)


def read_scored_preferences(path: str | Path) -> tuple[ScoredPreference, ...]:
    """Rewards of a file, one `ScoredPreference` a line: the `rewards.jsonl` of a scoring. Raises as `read_preferences`."""
    return _rows(Path(path), ScoredPreference)


def _rows(path: Path, row_type: type[Row]) -> tuple[Row, ...]:
    if not path.is_file():
        raise EnvironmentProblem(f"{path.name}: no such file; give a JSONL file")
    return tuple(read_jsonl(path, row_type))
