"""(experiment, profile, protocol, seeds, ...) to the jobs that it needs. Shared work is one equal job.

Planning and collecting use the same recipe, so a cell reads exactly what was planned.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from replication.choices import choices, geometry, values
from replication.experiments import Experiment, Row
from replication.problems import UsageProblems, nearest
from replication.profiles import (
    Backbone,
    BenchmarkName,
    FileData,
    FolderBackbone,
    HeldOutPairs,
    HubBackbone,
    HubData,
    MiniatureData,
    Profile,
)
from replication.protocols import Protocol
from replication.settings import Overrides
from sarm.checksums import fingerprint
from sarm.config import (
    BaselineConfig,
    DataConfig,
    MiniatureConfig,
    PretrainingConfig,
    RewardTrainingConfig,
    SAETrainingConfig,
    ScoringConfig,
    WeightsConfig,
)
from sarm.job import Job, JobConfig
from sarm.resources import Resources

Config = TypeVar("Config", bound=JobConfig)
SHAPES: Mapping[BenchmarkName, str] = {"rewardbench2": "rewardbench2", "rmbench": "rmbench"}
# Inputs that are brought in rather than computed: a new attempt would download the same bytes.
BROUGHT_IN = ("fetch_weights", "prepare_data")


@dataclass(frozen=True)
class Setting:
    """All that decides which jobs an experiment needs.

    `rows` are comma-separated patterns (empty: all); `overrides` come from `--set`; `attempt` > 0 is `--fresh`;
    `digest` gives the SHA-256 of a local file or folder.
    """

    experiment: Experiment
    profile: Profile
    protocol: Protocol
    seeds: tuple[int, ...] = (0,)
    rows: str = ""
    overrides: Overrides = field(default_factory=dict)
    attempt: int = 0
    digest: Callable[[Path], str] = fingerprint


@dataclass(frozen=True)
class Training:
    """The jobs of one row with one seed. `missing` says why there are none."""

    row: Row
    seed: int
    sae: Job | None = None
    model: Job | None = None
    scores: Mapping[BenchmarkName, Job] = field(default_factory=dict)
    missing: str = ""


@dataclass(frozen=True)
class Recipe:
    """Everything that a report of the experiment reads."""

    setting: Setting
    trainings: tuple[Training, ...]
    baselines: Mapping[str, Mapping[BenchmarkName, Job]]

    @property
    def jobs(self) -> list[Job]:
        """The jobs at the ends; their inputs follow from them."""
        ends = [job for training in self.trainings for job in training.scores.values()]
        return ends + [job for scores in self.baselines.values() for job in scores.values()]

    def of_row(self, name: str) -> tuple[Training, ...]:
        """The trainings of one row, one for each seed."""
        return tuple(training for training in self.trainings if training.row.name == name)


def recipe(setting: Setting) -> Recipe:
    """The jobs of an experiment. Raises UsageProblems for rows, layers or sizes that do not fit."""
    chosen = selected_rows(setting)
    data: dict[BenchmarkName, Job] = {name: _benchmark_job(setting, name) for name in setting.profile.benchmarks}
    trainings = [_training(setting, row, seed, data) for row in chosen for seed in setting.seeds]
    baselines: dict[str, Mapping[BenchmarkName, Job]] = {
        features: {name: _baseline_job(setting, features, name, job) for name, job in data.items()}
        for features in setting.profile.baselines
    }
    return Recipe(setting=setting, trainings=tuple(trainings), baselines=baselines)


def selected_rows(setting: Setting) -> tuple[Row, ...]:
    """Rows that match `--rows`: a glob on the name, a slot, or a part of the paper's backbone name such as 3B.

    Raises UsageProblems when a pattern matches nothing.
    """
    rows = setting.experiment.rows
    patterns = [one.strip() for one in setting.rows.split(",") if one.strip()]
    if not patterns:
        return rows
    idle = [one for one in patterns if not any(_matches(setting.profile, row, one) for row in rows)]
    if idle:
        names = [row.name for row in rows]
        raise UsageProblems([f"--rows {one}: no such row in {setting.experiment.name}; {nearest(one, names)}" for one in idle])
    return tuple(row for row in rows if any(_matches(setting.profile, row, one) for one in patterns))


def _matches(profile: Profile, row: Row, pattern: str) -> bool:
    backbone = profile.backbones.get(row.slot)
    named = backbone is not None and pattern.lower() in backbone.stands_for.lower()
    return fnmatch.fnmatchcase(row.name, pattern) or pattern == row.slot or named


def _training(setting: Setting, row: Row, seed: int, data: Mapping[BenchmarkName, Job]) -> Training:
    backbone = setting.profile.backbones.get(row.slot)
    missing = _why_missing(setting.profile, row, backbone)
    if backbone is None or missing:
        return Training(row=row, seed=seed, missing=missing)
    weights = _backbone_job(setting, row, backbone)
    sae = _sae_job(setting, row, seed, backbone, weights) if row.encoder == "sae" else None
    model = _reward_job(setting, row, seed, backbone=backbone, weights=weights, sae=sae)
    scores = {name: _score_job(setting, row, seed, name=name, model=model, data=job) for name, job in data.items()}
    return Training(row=row, seed=seed, sae=sae, model=model, scores=scores)


def _why_missing(profile: Profile, row: Row, backbone: Backbone | None) -> str:
    if backbone is None:
        return f"profile {profile.name} has no backbone in slot {row.slot}"
    if row.layer not in backbone.layers:
        return f"profile {profile.name} has no counterpart of layer {row.layer} in slot {row.slot}"
    if row.k and row.k not in backbone.ks:
        return f"profile {profile.name} has no counterpart of k {row.k} in slot {row.slot}"
    return ""


def _job(setting: Setting, config: JobConfig, *, label: str, inputs: Mapping[str, Job] | None = None, source: str = "") -> Job:
    """A job with the profile's and `--set`'s resources."""
    base = setting.profile.resources.get(config.kind, Resources())
    changed = setting.overrides.get(f"resources.{config.kind}", {})
    return Job(
        config=config,
        inputs=dict(inputs or {}),
        resources=Resources.model_validate({**base.model_dump(), **changed}),
        locations={"source": source} if source else {},
        label=label,
        attempt=0 if config.kind in BROUGHT_IN else setting.attempt,
    )


def _build(config: type[Config], where: str, fields: Mapping[str, Any]) -> Config:
    """A config, or UsageProblems that name the row and what does not fit."""
    try:
        return config(**fields)
    except ValidationError as error:
        raise UsageProblems([f"{where}: {one['msg'].removeprefix('Value error, ')}" for one in error.errors()]) from error


def _backbone_job(setting: Setting, row: Row, backbone: Backbone) -> Job:
    source, shape, changes = backbone.source, backbone.shape, backbone.tokenizer
    label = f"backbone {row.slot} for {backbone.stands_for}"
    if isinstance(source, HubBackbone):
        hub = WeightsConfig(origin="hub", repository=source.repository, revision=source.revision, **changes.model_dump())
        return _job(setting, hub, label=label)
    if isinstance(source, FolderBackbone):
        _check_shape(row.slot, backbone, Path(source.path))
        folder = WeightsConfig(origin="folder", revision=setting.digest(_existing(source.path)), **changes.model_dump())
        return _job(setting, folder, label=label, source=source.path)
    pretraining = PretrainingConfig(
        **source.model_dump(exclude={"kind"}), **shape.model_dump(exclude={"head_dim", "vocab_size"})
    )
    return _job(setting, pretraining, label=label, inputs={"data": _miniature_job(setting)})


def _existing(path: str) -> Path:
    found = Path(path)
    if not found.exists():
        raise UsageProblems([f"{path} does not exist; mend the profile's path (or the environment variable in it)"])
    return found


def _check_shape(slot: str, backbone: Backbone, folder: Path) -> None:
    """A profile must tell the truth about its backbone: the width multiple and the layer map rest on it."""
    file = _existing(str(folder)) / "config.json"
    if not file.is_file():
        raise UsageProblems([f"backbones.{slot}.source.path: {folder} holds no config.json; give a folder in Hugging Face layout"])
    try:
        stated = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageProblems([f"{file}: not JSON: {error}"]) from error
    checked = ("num_hidden_layers", "hidden_size", "vocab_size")
    wrong = [name for name in checked if name in stated and stated[name] != getattr(backbone.shape, name)]
    if wrong:
        raise UsageProblems(
            [f"backbones.{slot}.shape.{name} = {getattr(backbone.shape, name)}, but {file} says {stated[name]}" for name in wrong]
        )


def _miniature_job(setting: Setting) -> Job:
    found = choices("miniature", protocol=setting.protocol, profile=setting.profile, overrides=setting.overrides)
    return _job(setting, _build(MiniatureConfig, "miniature", values(found)), label="miniature language")


def _data_job(setting: Setting, source: MiniatureData | FileData | HubData, label: str, **fields: Any) -> Job:
    if isinstance(source, MiniatureData):
        return _miniature_job(setting)
    if isinstance(source, HubData):
        hub = DataConfig(origin="hub", **source.model_dump(exclude={"kind", "gated"}), **fields)
        return _job(setting, hub, label=label)
    local = DataConfig(origin="file", revision=setting.digest(_existing(source.path)), **fields)
    return _job(setting, local, label=label, source=source.path)


def _text_job(setting: Setting) -> Job:
    text = setting.profile.text
    return _data_job(setting, text.source, "text corpus", shape="text", text_column=text.text_column)


def _preferences_job(setting: Setting) -> Job:
    pairs = setting.profile.preferences
    return _data_job(
        setting, pairs.source, "preference pairs", shape="pairs", evaluation_split=pairs.evaluation_split, skip_prompts=pairs.skip_prompts
    )


def _benchmark_job(setting: Setting, name: BenchmarkName) -> Job:
    source = setting.profile.benchmarks[name].source
    if isinstance(source, HeldOutPairs):
        return _preferences_job(setting)
    return _data_job(setting, source, f"benchmark {name}", shape=SHAPES.get(name, "pairs"))


def _sae_job(setting: Setting, row: Row, seed: int, backbone: Backbone, weights: Job) -> Job:
    fixed: dict[str, Any] = dict(row.sae)
    if row.same_text:
        fixed["vectors"] = setting.profile.text.token_vectors
    found = choices("sae", protocol=setting.protocol, profile=setting.profile, overrides=setting.overrides, row=fixed)
    place = values(geometry(row, backbone))
    config = _build(SAETrainingConfig, f"row {row.name}, SAE", {**values(found), **place, "seed": seed})
    label = f"SAE {row.slot} layer {config.layer}, {config.n_latents} latents, k {config.k}, tokens {config.tokens}, seed {seed}"
    return _job(setting, config, label=label, inputs={"backbone": weights, "corpus": _text_job(setting)})


def _reward_job(setting: Setting, row: Row, seed: int, *, backbone: Backbone, weights: Job, sae: Job | None) -> Job:
    found = choices("reward", protocol=setting.protocol, profile=setting.profile, overrides=setting.overrides, row=dict(row.reward))
    place = values(geometry(row, backbone))
    if row.encoder == "sae":
        place = {"layer": place["layer"]}
    config = _build(
        RewardTrainingConfig, f"row {row.name}, reward model", {**values(found), **place, "encoder": row.encoder, "seed": seed}
    )
    inputs = {"backbone": weights, "preferences": _preferences_job(setting), **({"sae": sae} if sae else {})}
    return _job(setting, config, label=f"reward model {row.name}, seed {seed}", inputs=inputs)


def _score_job(setting: Setting, row: Row, seed: int, *, name: BenchmarkName, model: Job, data: Job) -> Job:
    found = choices("scoring", protocol=setting.protocol, profile=setting.profile, overrides=setting.overrides)
    config = _build(ScoringConfig, f"scoring on {name}", {**values(found), "benchmark": name})
    return _job(setting, config, label=f"scores of {row.name} on {name}, seed {seed}", inputs={"model": model, "benchmark": data})


def _baseline_job(setting: Setting, features: str, name: BenchmarkName, data: Job) -> Job:
    found = choices("baseline", protocol=setting.protocol, profile=setting.profile, overrides=setting.overrides)
    config = _build(BaselineConfig, f"baseline {features}", {**values(found), "benchmark": name, "features": features})
    inputs = {"preferences": _preferences_job(setting), "benchmark": data}
    return _job(setting, config, label=f"baseline {features} on {name}", inputs=inputs)


def attempts(setting: Setting) -> Iterator[Setting]:
    """The same setting as attempt 1, 2, ...: what `--fresh` looks through."""
    number = 1
    while True:
        yield replace(setting, attempt=number)
        number += 1
