"""Judges of Table 1 as data, and which of them a command asks, how and about what."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from replication.frozen import Frozen
from replication.settings.profiles import BenchmarkName
from replication.usage_problems import UsageProblems, nearest

Mode = Literal["ranking", "rating"]
MODES: tuple[Mode, ...] = ("ranking", "rating")
NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")


class JudgeRow(Frozen):
    """A judge: a published row, or one that the command line names. Source: model lists and calls of generative_v2.py."""

    name: str = Field(description="Identifier; equal to the published row's where there is one.")
    model: str = Field(description="What an endpoint calls the model.")
    ranking_prompt: Literal["system", "merged", "gemini"] | None = Field(default=None, description="None: as `[judge]` says.")
    ranking_tokens: int | None = Field(default=None, description="Longest answer to a ranking question, tokens; None: as `[judge]` says.")
    ours: bool = Field(default=False, description="No published row: named on the command line.")


TABLE1_JUDGES = (
    JudgeRow(name="gpt-4o", model="gpt-4o-2024-08-06", ranking_prompt="system", ranking_tokens=2048),
    JudgeRow(name="gemini-2.5-pro", model="gemini-2.5-pro-preview-05-06", ranking_prompt="gemini", ranking_tokens=4096),
    JudgeRow(name="claude-sonnet-4", model="claude-sonnet-4-20250514", ranking_prompt="system", ranking_tokens=1024),
    JudgeRow(name="gpt-4.1", model="gpt-4.1-2025-04-14", ranking_prompt="system", ranking_tokens=2048),
)


@dataclass(frozen=True)
class Judging:
    """Which judges are asked, in which modes and about which benchmarks."""

    asked: tuple[JudgeRow, ...] = ()
    modes: tuple[Mode, ...] = ("ranking",)
    benchmarks: tuple[BenchmarkName, ...] = ("rewardbench2",)

    def asks(self, row: JudgeRow, mode: Mode) -> bool:
        """Whether a judge is asked about RewardBench 2 in a mode."""
        return row in self.asked and mode in self.modes and "rewardbench2" in self.benchmarks


NOBODY = Judging()


def judges_named(texts: Sequence[str], registered: Sequence[JudgeRow]) -> tuple[JudgeRow, ...]:
    """`NAME` or `NAME=MODEL`, each a judge: a registered one (MODEL is what the endpoint calls it) or one of the user's own.

    Raises UsageProblems with every mistake at once.
    """
    known = {row.name: row for row in registered}
    found: dict[str, JudgeRow] = {}
    problems = []
    for text in texts:
        name, equals, model = (part.strip() for part in text.partition("="))
        if not NAME.fullmatch(name) or (equals and not model):
            problems.append(f"--judge {text}: expected NAME or NAME=MODEL, the name in small letters, digits, dots and dashes")
        elif name in found:
            problems.append(f"--judge {text}: {name!r} is asked twice; give each judge a name of its own")
        elif name in known:
            found[name] = known[name].model_copy(update={"model": model or known[name].model})
        elif model:
            found[name] = JudgeRow(name=name, model=model, ours=True)
        else:
            problems.append(f"--judge {name}: no such judge; {nearest(name, known)}; for one of your own give {name}=MODEL")
    if problems:
        raise UsageProblems(problems)
    return tuple(found.values())


def judges_matching(pattern: str, registered: Sequence[JudgeRow]) -> tuple[JudgeRow, ...]:
    """The registered judges whose names match one of the comma-separated globs of `--rows`."""
    globs = [one.strip() for one in pattern.split(",") if one.strip()]
    return tuple(row for row in registered if any(fnmatch.fnmatchcase(row.name, one) for one in globs))
