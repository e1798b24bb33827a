"""The jobs of judges: what is asked where an endpoint or recorded answers are given, and what earlier runs have left in the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from replication.recipes.jobs import job_of, validated_config
from replication.recipes.setting import Setting
from replication.settings.judges import MODES, JudgeRow, Mode, judges_matching
from replication.settings.profiles import BenchmarkName
from sarm.config.score import JudgeConfig
from sarm.job import Job


@dataclass(frozen=True)
class Judged:
    """A judge with its judgements of RewardBench 2, by mode, and of RM-Bench, which is always rated."""

    row: JudgeRow
    asked: bool
    modes: Mapping[Mode, Job] = field(default_factory=dict)
    rmbench: Job | None = None

    @property
    def jobs(self) -> list[Job]:
        """All of them."""
        return [*self.modes.values(), *([self.rmbench] if self.rmbench else [])]


def judges_of(setting: Setting, data: Mapping[BenchmarkName, Job]) -> tuple[Judged, ...]:
    """Every judge of the experiment. One that nobody asks has the jobs whose artifacts the store has, so that an answer once paid for
    stays in the table; one that is asked also those that an endpoint or recorded answers will fill."""
    judging = setting.judging
    named = {row.name: row for row in setting.experiment.judges} | {row.name: row for row in judging.asked}
    if setting.rows:
        kept = {row.name for row in (*judges_matching(setting.rows, tuple(named.values())), *judging.asked)}
        named = {name: row for name, row in named.items() if name in kept}
    return tuple(_judged(setting, row, data) for row in named.values())


def _judged(setting: Setting, row: JudgeRow, data: Mapping[BenchmarkName, Job]) -> Judged:
    asked = row in setting.judging.asked
    modes: dict[Mode, Job] = {}
    if "rewardbench2" in data:
        for mode in MODES:
            job = judge_job(setting, row, mode, name="rewardbench2", data=data["rewardbench2"])
            # Both modes rate Ties: what a ranking has asked there, the rating reads instead of asking again.
            after = _after(setting, job, modes["ranking"]) if modes and not setting.answers else job
            chosen = job if setting.stored(job) else after
            if _wanted(setting, chosen, asked=setting.judging.asks(row, mode)):
                modes[mode] = chosen
    rated = judge_job(setting, row, "rating", name="rmbench", data=data["rmbench"]) if "rmbench" in data else None
    if rated is not None and not _wanted(setting, rated, asked=asked and "rmbench" in setting.judging.benchmarks):
        rated = None
    return Judged(row=row, asked=asked, modes=modes, rmbench=rated)


def _after(setting: Setting, job: Job, ranking: Job) -> Job:
    later = replace(job, inputs={**job.inputs, "earlier": ranking})
    return replace(later, locations=setting.answering(later, recorded=False))


def _wanted(setting: Setting, job: Job, *, asked: bool) -> bool:
    return setting.stored(job) or (asked and bool(setting.endpoint or setting.answers))


def judge_job(setting: Setting, row: JudgeRow, mode: Mode, *, name: BenchmarkName, data: Job) -> Job:
    """A judge's answers about a benchmark."""
    fixed = row.model_dump(include={"ranking_prompt", "ranking_tokens"}, exclude_none=True)
    found = setting.values("judge", fixed)
    part = setting.values("scoring")
    recorded = bool(setting.answers) and row in setting.judging.asked
    fields = {
        **found,
        "benchmark": name,
        "judge": "recorded" if recorded else "endpoint",
        "judge_model": row.model,
        "answers_digest": setting.digest(Path(setting.answers)) if recorded else "",
        "mode": mode,
        **{name: part[name] for name in ("subset", "limit")},
    }
    config = validated_config(JudgeConfig, f"judge {row.name}", fields)
    planned = job_of(setting, config, label=f"{mode} by {row.name} on {name}", inputs={"benchmark": data})
    return replace(planned, locations=setting.answering(planned, recorded=recorded))
