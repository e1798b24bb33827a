"""(experiment, profile, protocol, seeds, ...) to the jobs that it needs. Shared work is one equal job.

Planning and collecting use the same recipe, so a cell reads exactly what was planned.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from replication.recipes.jobs import (
    BROUGHT_IN,
    SCORING_CONDITIONS,
    backbone_job,
    baseline_job,
    benchmark_job,
    contexts_job,
    explanation_job,
    head_job,
    job_of,
    reward_job,
    sae_job,
    score_job,
    state_score_job,
    states_job,
    validated_config,
    weights_job,
)
from replication.recipes.judges import Judged, judges_of
from replication.recipes.released import hub_sources_for, released_job, rows_of_others, start_jobs, start_of, why_no_start, why_not_released
from replication.recipes.setting import Setting
from replication.settings.experiments import Row
from replication.settings.judges import judges_matching
from replication.settings.profiles import Backbone, BenchmarkName, HubSource, Profile, unpinned_of
from replication.usage_problems import UsageProblems, nearest
from sarm.config.latents import ContextConfig, SteeringConfig
from sarm.config.train import RewardTrainingConfig
from sarm.job import Job

__all__ = ["BROUGHT_IN", "Recipe", "Setting", "Training", "attempts", "recipe", "selected_rows", "unpinned_revisions"]


@dataclass(frozen=True)
class Training:
    """The jobs of one row with one seed. `missing` says why there are none.

    `scores` are there for tables of accuracies, `steering` for the figure, `contexts` and `explanation` for the features. `epochs`
    are the scores after every epoch, the last one among them, where the best is chosen on the test set.
    """

    row: Row
    seed: int
    sae: Job | None = None
    model: Job | None = None
    scores: Mapping[BenchmarkName, Job] = field(default_factory=dict)
    epochs: Mapping[BenchmarkName, tuple[Job, ...]] = field(default_factory=dict)
    steering: Job | None = None
    contexts: Job | None = None
    explanation: Job | None = None
    missing: str = ""

    @property
    def ends(self) -> list[Job]:
        """The jobs whose artifacts a report reads."""
        last = [self.steering, self.contexts, self.explanation]
        earlier = [job for jobs in self.epochs.values() for job in jobs[:-1]]
        found = [*self.scores.values(), *earlier, *(job for job in last if job is not None)]
        return found or [job for job in (self.sae, self.model) if job is not None]


@dataclass(frozen=True)
class Recipe:
    """Everything that a report of the experiment reads."""

    setting: Setting
    trainings: tuple[Training, ...]
    baselines: Mapping[str, Mapping[BenchmarkName, Job]]
    judges: tuple[Judged, ...] = ()

    @property
    def jobs(self) -> list[Job]:
        """The jobs at the ends; their inputs follow from them."""
        ends = [job for training in self.trainings for job in training.ends]
        judged = [job for one in self.judges for job in one.jobs]
        return ends + [job for scores in self.baselines.values() for job in scores.values()] + judged

    def of_row(self, name: str) -> tuple[Training, ...]:
        """The trainings of one row, one for each seed."""
        return tuple(training for training in self.trainings if training.row.name == name)


def recipe(setting: Setting) -> Recipe:
    """The jobs of an experiment. Raises UsageProblems for rows, layers or sizes that do not fit."""
    chosen = selected_rows(setting)
    if setting.source == "released" and setting.seeds != (0,):
        raise UsageProblems(["--seeds has no meaning with --from released: nothing is trained"])
    data: dict[BenchmarkName, Job] = {name: benchmark_job(setting, name) for name in setting.profile.benchmarks}
    trainings = [_training(setting, row, seed, data) for row in chosen for seed in setting.seeds]
    baselines: dict[str, Mapping[BenchmarkName, Job]] = {}
    if setting.experiment.product == "scores":
        for features in setting.profile.baselines:
            baselines[features] = {name: baseline_job(setting, features, name, one) for name, one in data.items()}
    if setting.experiment.product == "features":
        trainings = explained(setting, trainings)
    return Recipe(setting=setting, trainings=tuple(trainings), baselines=baselines, judges=judges_of(setting, data))


def explained(setting: Setting, trainings: Sequence[Training]) -> list[Training]:
    """With explanations of each pretrained SAE's latents; a frozen random encoder of the same seed is the control."""
    controls = {one.seed: one for one in trainings if one.row.encoder == "random_sae"}
    found = []
    for one in trainings:
        if one.row.encoder == "sae" and one.contexts is not None and one.model is not None:
            inputs = {"contexts": one.contexts, "model": one.model}
            control = controls.get(one.seed)
            if control is not None and control.contexts is not None and control.model is not None:
                inputs |= {"control_contexts": control.contexts, "control_model": control.model}
            one = replace(one, explanation=explanation_job(setting, one.row, one.seed, inputs))  # noqa: PLW2901 - the same training, completed
        found.append(one)
    return found


def selected_rows(setting: Setting) -> tuple[Row, ...]:
    """Rows that match `--rows`: a glob on the name, a slot, or a part of the paper's backbone name such as 3B.

    Raises UsageProblems when a pattern matches nothing.
    """
    rows = (*setting.experiment.rows, *rows_of_others(setting))
    patterns = [one.strip() for one in setting.rows.split(",") if one.strip()]
    if not patterns:
        # The models of others are hundreds of gigabytes in all: each is scored only when it is named.
        return setting.experiment.rows
    judges = (*setting.experiment.judges, *setting.judging.asked)
    idle = [one for one in patterns if not any(_matches(setting.profile, row, one) for row in rows) and not judges_matching(one, judges)]
    if idle:
        names = [*(row.name for row in rows), *(judge.name for judge in judges)]
        raise UsageProblems([f"--rows {one}: no such row in {setting.experiment.name}; {nearest(one, names)}" for one in idle])
    return tuple(row for row in rows if any(_matches(setting.profile, row, one) for one in patterns))


def unpinned_revisions(setting: Setting) -> list[tuple[str, str]]:
    """(repository, model|dataset) of each hub source of a setting whose revision is not known yet."""
    return unpinned_of(hub_sources_of(setting))


def hub_sources_of(setting: Setting) -> list[HubSource]:
    """Each hub source that a setting needs."""
    return hub_sources_for(setting, selected_rows(setting))


def unsized_weights(setting: Setting) -> list[Job]:
    """The jobs that fetch backbones whose sizes nobody knows before: what else an experiment needs cannot be planned without."""
    if setting.source == "released":
        return []
    slots = dict.fromkeys(row.slot for row in selected_rows(setting))
    needed = [(slot, setting.profile.backbones[slot]) for slot in slots if slot in setting.profile.backbones]
    return [weights_job(setting, slot, one) for slot, one in needed if one.shape is None and one.source.kind == "hub"]


def _matches(profile: Profile, row: Row, pattern: str) -> bool:
    backbone = profile.backbones.get(row.slot)
    named = backbone is not None and pattern.lower() in backbone.stands_for.lower()
    return fnmatch.fnmatchcase(row.name, pattern) or ((pattern == row.slot or named) and not row.trained_by_others)


def _training(setting: Setting, row: Row, seed: int, data: Mapping[BenchmarkName, Job]) -> Training:
    trained = _released(setting, row, seed) if setting.source == "released" else _trained(setting, row, seed, data)
    model = trained.model
    if model is None or trained.scores:
        return trained
    if setting.experiment.product == "scores":
        scores = {name: score_job(setting, row, seed, name=name, model=model, data=one) for name, one in data.items()}
        return replace(trained, scores=scores, epochs=_epochs(setting, row, seed, model=model, data=data, last=scores))
    if setting.experiment.product == "steering":
        return _steered(setting, trained, data)
    if setting.experiment.product == "features":
        return _with_contexts(setting, trained, model, data)
    return trained


def _with_contexts(setting: Setting, training: Training, model: Job, data: Mapping[BenchmarkName, Job]) -> Training:
    """With the contexts of the latents, or with the reason why there are none."""
    texts = setting.values("contexts").get("texts", ContextConfig.model_fields["texts"].default)
    if texts in ("rewardbench2", "rmbench") and texts not in data:
        lacking = f"profile {setting.profile.name} has no benchmark {texts}, in which contexts are looked for"
        return replace(training, missing=f"{lacking}; set contexts.texts = 'evaluation'")
    return replace(training, contexts=contexts_job(setting, training.row, training.seed, model=model, data=data))


def _epochs(
    setting: Setting, row: Row, seed: int, *, model: Job, data: Mapping[BenchmarkName, Job], last: Mapping[BenchmarkName, Job]
) -> dict[BenchmarkName, tuple[Job, ...]]:
    """The scores after each epoch, where the best one is chosen on the test set."""
    config = model.config
    if not isinstance(config, RewardTrainingConfig) or config.selection != "test":
        return {}
    earlier = range(1, config.epochs)
    return {
        name: (*(score_job(setting, row, seed, name=name, model=model, data=one, epoch=epoch) for epoch in earlier), last[name])
        for name, one in data.items()
    }


def _on_states(
    setting: Setting, row: Row, seed: int, *, backbone: Backbone, weights: Job, sae: Job, data: Mapping[BenchmarkName, Job]
) -> Training:
    """A head on cached states, scored on cached states: the backbone's forward pass is shared by all such rows."""
    model = head_job(setting, row, seed, backbone=backbone, weights=weights, sae=sae)
    scores = {}
    for name, one in data.items():
        states = states_job(setting, row, name, backbone=backbone, weights=weights, data=one)
        scores[name] = state_score_job(setting, row, seed, name=name, model=model, states=states, data=one)
    return Training(row=row, seed=seed, sae=sae, model=model, scores=scores)


def _released(setting: Setting, row: Row, seed: int) -> Training:
    model = released_job(setting, row)
    return Training(row=row, seed=seed, model=model, missing="" if model is not None else why_not_released(setting, row))


def _trained(setting: Setting, row: Row, seed: int, data: Mapping[BenchmarkName, Job]) -> Training:
    backbone, start = setting.profile.backbones.get(row.slot), start_of(setting.profile, row)
    missing = _why_missing(setting.profile, row, backbone) or (why_no_start(row) if start is not None else "")
    if backbone is None or missing:
        return Training(row=row, seed=seed, missing=missing)
    weights = backbone_job(setting, row.slot, backbone)
    sae: Job | None = None
    if start is not None:
        weights, sae = start_jobs(setting, row, backbone, start, weights)
    elif row.encoder == "sae":
        sae = sae_job(setting, row, seed, backbone, weights)
    if row.method != "reward" and sae is not None:
        return _on_states(setting, row, seed, backbone=backbone, weights=weights, sae=sae, data=data)
    return Training(row=row, seed=seed, sae=sae, model=reward_job(setting, row, seed, backbone=backbone, weights=weights, sae=sae))


def _why_missing(profile: Profile, row: Row, backbone: Backbone | None) -> str:
    if backbone is None:
        return f"profile {profile.name} has no backbone in slot {row.slot}"
    if row.layer not in backbone.layers:
        return f"profile {profile.name} has no counterpart of layer {row.layer} in slot {row.slot}"
    if row.k and row.k not in backbone.ks:
        return f"profile {profile.name} has no counterpart of k {row.k} in slot {row.slot}"
    return ""


def _steered(setting: Setting, training: Training, data: Mapping[BenchmarkName, Job]) -> Training:
    """With the steering job, or with the reason why there is none."""
    selection, _, subset = str(setting.protocol.feature_scores.value).partition("-")
    lacking = [name for name in ("rewardbench2", selection) if name not in data]
    if lacking:
        return replace(training, missing=f"profile {setting.profile.name} has no benchmark {lacking[0]}, which steering needs")
    conditions = setting.values("scoring")
    shared = {name: conditions[name] for name in SCORING_CONDITIONS}
    given = setting.sourced("steering")
    own = {name: choice.value for name, choice in given.items() if name not in shared}
    fields = {**own, **shared, "selection": selection, "target": "rewardbench2", "subset": subset, "edit": setting.steering}
    config = validated_config(SteeringConfig, f"row {training.row.name}, steering", fields)
    if training.model is None:
        return training
    named = {str(name): one for name, one in data.items()}
    inputs = {"model": training.model, "selection": named[selection], "target": named["rewardbench2"]}
    by = f"latent by s on {selection}" if setting.steering is None else "edited by a steering file"
    label = f"steered rewards of {training.row.name}, {by}, seed {training.seed}"
    return replace(training, steering=job_of(setting, config, label=label, inputs=inputs))


def attempts(setting: Setting) -> Iterator[Setting]:
    """The same setting as attempt 1, 2, ...: what `--fresh` looks through."""
    number = 1
    while True:
        yield replace(setting, attempt=number)
        number += 1
