"""Which latents are explored: those of a row of an experiment, or of the model in a folder, on one benchmark."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from replication.recipes.jobs import benchmark_job, job_of, scoring_choices, validated_config
from replication.recipes.jobs_needed import Training, recipe
from replication.recipes.setting import Setting
from replication.settings.profiles import BenchmarkName
from replication.settings.value_sources import plain_values
from replication.usage_problems import UsageProblems
from sarm.config.data import DataConfig
from sarm.config.latents import ExplorationConfig
from sarm.job import Job, Resources

Shape = Literal["pairs", "rewardbench2", "rmbench"]
# The file that each shape becomes in the store.
FILES: dict[Shape, BenchmarkName] = {"pairs": "evaluation", "rewardbench2": "rewardbench2", "rmbench": "rmbench"}
# As a row is scored for its table, so it is explored.
CONDITIONS = ("formatting", "max_length", "truncation", "bos", "dtype", "attention", "batch_tokens", "date_string", "subset", "limit")
WITH_LATENTS = ("sae", "random_sae")


@dataclass(frozen=True)
class ModelFolder:
    """A reward model that is no artifact: its folder, and which token of a conversation is scored."""

    path: Path
    digest: str
    end_of_turn: str = ""
    pooling: Literal["end_of_turn", "last_token"] = "end_of_turn"


def exploration_jobs(setting: Setting, benchmark: BenchmarkName) -> list[Job]:
    """One job for each chosen row with latents and each seed. Raises UsageProblems where no chosen row has any, or none can be made."""
    _require(setting, benchmark)
    trainings = recipe(setting).trainings
    able = [one for one in trainings if one.row.encoder in WITH_LATENTS or one.row.trained_by_others]
    if not able:
        names = ", ".join(dict.fromkeys(one.row.name for one in trainings))
        known = ", ".join(row.name for row in setting.experiment.rows if row.encoder in WITH_LATENTS) or "none"
        why = f"no SAE, so no latents to explore; rows of {setting.experiment.name} that have them: {known}"
        raise UsageProblems([f"{names}: {why}"])
    found = [_of_row(setting, one, benchmark, one.model) for one in able if one.model is not None]
    if not found:
        raise UsageProblems(list(dict.fromkeys(f"{one.row.name}: {one.missing}" for one in able)))
    return found


def _of_row(setting: Setting, training: Training, benchmark: BenchmarkName, model: Job) -> Job:
    row = training.row
    given = plain_values(scoring_choices(setting, row))
    fields = {name: given[name] for name in CONDITIONS}
    config = validated_config(ExplorationConfig, f"latents of {row.name} on {benchmark}", {**fields, "benchmark": benchmark})
    inputs = {"model": model, "benchmark": benchmark_job(setting, benchmark)}
    return job_of(setting, config, label=f"latents of {row.name}, seed {training.seed}, on {benchmark}", inputs=inputs)


def folder_exploration(setting: Setting, model: ModelFolder, benchmark: BenchmarkName, *, gpus: int) -> Job:
    """The model of a folder on a benchmark of the profile, under the profile's conditions of scoring."""
    _require(setting, benchmark)
    given = setting.values("scoring")
    config = _folder_config(model, benchmark, {name: given[name] for name in CONDITIONS})
    return _of_folder(model, config, benchmark_job(setting, benchmark), what=benchmark, gpus=gpus)


def file_exploration(model: ModelFolder, file: Path, shape: Shape, *, digest: Callable[[Path], str], gpus: int) -> Job:
    """The model of a folder on a file of a user's: pairs, or rows as a benchmark has them."""
    data = DataConfig(origin="file", revision=digest(file), shape=shape, evaluation_split="all" if shape == "pairs" else "none")
    benchmark = Job(config=data, locations={"source": str(file)}, label=f"benchmark {file.name}")
    return _of_folder(model, _folder_config(model, FILES[shape], {}), benchmark, what=file.name, gpus=gpus)


def _folder_config(model: ModelFolder, benchmark: BenchmarkName, conditions: dict[str, object]) -> ExplorationConfig:
    fields = {**conditions, "benchmark": benchmark, "model_digest": model.digest, "pooling": model.pooling}
    return validated_config(ExplorationConfig, f"latents of {model.path.name}", {**fields, "end_of_turn": model.end_of_turn})


def _of_folder(model: ModelFolder, config: ExplorationConfig, benchmark: Job, *, what: str, gpus: int) -> Job:
    return Job(
        config=config,
        inputs={"benchmark": benchmark},
        resources=Resources(gpus=gpus),
        locations={"model": str(model.path)},
        label=f"latents of {model.path.name} on {what}",
    )


def _require(setting: Setting, benchmark: BenchmarkName) -> None:
    known = setting.profile.benchmarks
    if benchmark not in known:
        raise UsageProblems([f"--benchmark {benchmark}: profile {setting.profile.name} has {', '.join(known) or 'no benchmark'}"])
