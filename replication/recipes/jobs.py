"""One job at a time: a row of a setting to the config, inputs, resources and locations of each kind of work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from replication.recipes.setting import Setting
from replication.settings.experiments import Row
from replication.settings.model_sizes import contradictions
from replication.settings.profiles import (
    Backbone,
    BenchmarkName,
    FileData,
    FolderBackbone,
    HeldOutPairs,
    HubBackbone,
    HubData,
    MiniatureData,
    PunktDownload,
    Slot,
    TokenizerChanges,
    unknown_sizes,
)
from replication.settings.protocols import HARNESS, Choice
from replication.settings.value_sources import geometry, plain_values, sourced_values
from replication.usage_problems import UsageProblems
from sarm.config.data import DataConfig, MiniatureConfig, SplitterConfig
from sarm.config.latents import ContextConfig, ExplanationConfig
from sarm.config.related import HarvestConfig, Items, SaferConfig, SparseRMConfig, StateScoringConfig
from sarm.config.score import BaselineConfig, ScoringConfig
from sarm.config.train import PretrainingConfig, RewardTrainingConfig, SAETrainingConfig
from sarm.config.weights import WeightsConfig
from sarm.job import EnvironmentProblem, Job, JobConfig, Resources, unsuited

Config = TypeVar("Config", bound=JobConfig)
SHAPES: Mapping[BenchmarkName, str] = {"rewardbench2": "rewardbench2", "rmbench": "rmbench"}
# Fields of Resources that concern work which several processes share, and training alone.
OF_SEVERAL = ("nodes", "processes")
OF_TRAINING = ("zero_stage", "activation_checkpointing", "offload")
# Inputs that are brought in rather than computed: a new attempt would download the same bytes.
BROUGHT_IN = ("fetch_weights", "prepare_data", "fetch_splitter", "import_sae")
# Steering reads rewards under the conditions under which benchmarks are scored.
SCORING_CONDITIONS = ("max_length", "truncation", "bos", "dtype", "attention", "batch_tokens", "date_string")


def job_of(setting: Setting, config: JobConfig, *, label: str, inputs: Mapping[str, Job] | None = None, source: str = "") -> Job:
    """A job with the profile's and `--set`'s resources. Raises UsageProblems for processes that this kind of work cannot use."""
    base = setting.profile.resources.get(config.kind, Resources())
    general = suited_resources(config, setting.overrides.get("resources", {}))
    changed = {**general, **setting.overrides.get(f"resources.{config.kind}", {})}
    resources = Resources.model_validate({**base.model_dump(), **changed})
    found = unsuited(config, resources)
    if found is not None:
        raise UsageProblems([f"resources.{config.kind}.{found[0]} = {getattr(resources, found[0])}: {found[1]}"])
    return Job(
        config=config,
        inputs=dict(inputs or {}),
        resources=resources,
        locations={"source": source} if source else {},
        label=label,
        attempt=0 if config.kind in BROUGHT_IN else setting.attempt,
    )


def suited_resources(config: JobConfig, general: Mapping[str, Any]) -> dict[str, Any]:
    """What a value meant for all kinds says of this one: work that one process does keeps one, with one GPU at most."""
    kept = dict(general)
    if len(config.zero_stages) == 1:
        kept = {name: value for name, value in kept.items() if name not in OF_TRAINING}
    if config.data_parallel:
        return kept
    kept = {name: value for name, value in kept.items() if name not in OF_SEVERAL}
    return {**kept, "gpus": min(kept["gpus"], 1)} if "gpus" in kept else kept


def evenly_shared(job: Job, *, batch: int, field: str) -> Job:
    """The job, if its global batch can be shared evenly among its processes. Raises UsageProblems."""
    processes = job.resources.processes
    if batch % processes:
        raise UsageProblems(
            [f"{field} = {batch} is not a multiple of resources.{job.kind}.processes = {processes}; choose a batch that divides"]
        )
    return job


def validated_config(config: type[Config], where: str, fields: Mapping[str, Any]) -> Config:
    """A config, or UsageProblems that name the row and what does not fit."""
    try:
        return config(**fields)
    except ValidationError as error:
        raise UsageProblems([f"{where}: {one['msg'].removeprefix('Value error, ')}" for one in error.errors()]) from error


def backbone_job(setting: Setting, slot: Slot, backbone: Backbone) -> Job:
    """The job that brings in or makes a slot's backbone. Raises EnvironmentProblem where its sizes are not known before it is fetched."""
    if backbone.shape is None and isinstance(backbone.source, HubBackbone):
        raise EnvironmentProblem(f"profile {setting.profile.name}, backbones.{slot}: {unknown_sizes(backbone.source, setting.fetch)}")
    return weights_job(setting, slot, backbone)


def weights_job(setting: Setting, slot: Slot, backbone: Backbone) -> Job:
    """The same for a model whose sizes nobody has to know."""
    source, changes = backbone.source, backbone.tokenizer
    label = f"backbone {slot} for {backbone.stands_for}"
    if isinstance(source, HubBackbone):
        return job_of(setting, hub_weights(source, changes), label=label)
    if isinstance(source, FolderBackbone):
        _check_shape(slot, backbone, Path(source.path))
        folder = WeightsConfig(origin="folder", revision=setting.digest(existing_path(source.path)), **changes.model_dump())
        return job_of(setting, folder, label=label, source=source.path)
    pretraining = PretrainingConfig(
        **source.model_dump(exclude={"kind"}), **backbone.sizes.model_dump(exclude={"head_dim", "vocab_size"})
    )
    return job_of(setting, pretraining, label=label, inputs={"data": miniature_job(setting)})


def hub_weights(source: HubBackbone, changes: TokenizerChanges) -> WeightsConfig:
    """What is fetched of a hub model."""
    return WeightsConfig(origin="hub", repository=source.repository, revision=source.revision, **changes.model_dump())


def existing_path(path: str) -> Path:
    found = Path(path)
    if not found.exists():
        raise UsageProblems([f"{path} does not exist; mend the profile's path (or the environment variable in it)"])
    return found


def _check_shape(slot: str, backbone: Backbone, folder: Path) -> None:
    """A profile must tell the truth about its backbone: the width multiple and the layer map rest on it."""
    file = existing_path(str(folder)) / "config.json"
    if not file.is_file():
        raise UsageProblems([f"backbones.{slot}.source.path: {folder} holds no config.json; give a folder in Hugging Face layout"])
    wrong = contradictions(backbone.shape, file) if backbone.shape is not None else []
    if wrong:
        raise UsageProblems([f"backbones.{slot}.shape.{line}" for line in wrong])


def miniature_job(setting: Setting) -> Job:
    return job_of(setting, validated_config(MiniatureConfig, "miniature", setting.values("miniature")), label="miniature language")


def data_job(setting: Setting, source: MiniatureData | FileData | HubData, label: str, **fields: Any) -> Job:
    if isinstance(source, MiniatureData):
        return miniature_job(setting)
    if isinstance(source, HubData):
        hub = DataConfig(origin="hub", **source.model_dump(exclude={"kind", "gated", "download_gb", "disk_gb"}), **fields)
        return job_of(setting, hub, label=label)
    local = DataConfig(origin="file", revision=setting.digest(existing_path(source.path)), **fields)
    return job_of(setting, local, label=label, source=source.path)


def text_job(setting: Setting) -> Job:
    text = setting.profile.text
    return data_job(setting, text.source, "text corpus", shape="text", text_column=text.text_column)


def preferences_job(setting: Setting) -> Job:
    pairs = setting.profile.preferences
    return data_job(
        setting, pairs.source, "preference pairs", shape="pairs", evaluation_split=pairs.evaluation_split, skip_prompts=pairs.skip_prompts
    )


def benchmark_job(setting: Setting, name: BenchmarkName) -> Job:
    source = setting.profile.benchmarks[name].source
    if isinstance(source, HeldOutPairs):
        return preferences_job(setting)
    if name == "evaluation":
        return data_job(setting, source, "held-out pairs", shape="pairs", evaluation_split="all")
    return data_job(setting, source, f"benchmark {name}", shape=SHAPES[name])


def sae_job(setting: Setting, row: Row, seed: int, backbone: Backbone, weights: Job) -> Job:
    fixed: dict[str, Any] = dict(row.sae)
    if row.same_text:
        fixed["vectors"] = setting.profile.text.token_vectors
    place = plain_values(geometry(row, backbone))
    config = validated_config(SAETrainingConfig, f"row {row.name}, SAE", {**setting.values("sae", fixed), **place, "seed": seed})
    label = f"SAE {row.slot} layer {config.layer}, {config.n_latents} latents, k {config.k}, tokens {config.tokens}, seed {seed}"
    inputs = {"backbone": weights, "corpus": text_job(setting)}
    if config.splitter == "nltk-punkt":
        inputs["splitter"] = splitter_job(setting)
    planned = job_of(setting, config, label=label, inputs=inputs)
    return evenly_shared(planned, batch=config.batch_vectors, field="sae.batch_vectors")


def splitter_job(setting: Setting) -> Job:
    """The data of nltk's sentence splitter."""
    source, label = setting.profile.splitter, "data of nltk's Punkt"
    if isinstance(source, PunktDownload):
        return job_of(setting, SplitterConfig(origin="url", url=source.url, revision=source.sha256), label=label)
    local = SplitterConfig(origin="folder", revision=setting.digest(existing_path(source.path)))
    return job_of(setting, local, label=label, source=source.path)


def reward_job(setting: Setting, row: Row, seed: int, *, backbone: Backbone, weights: Job, sae: Job | None) -> Job:
    found = setting.values("reward", row.reward)
    place = plain_values(geometry(row, backbone))
    if row.encoder == "sae":
        place = {"layer": place["layer"]}
    config = validated_config(
        RewardTrainingConfig, f"row {row.name}, reward model", {**found, **place, "encoder": row.encoder, "seed": seed}
    )
    inputs = {"backbone": weights, "preferences": preferences_job(setting), **({"sae": sae} if sae else {})}
    planned = job_of(setting, config, label=f"reward model {row.name}, seed {seed}", inputs=inputs)
    return evenly_shared(planned, batch=config.batch_pairs, field="reward.batch_pairs")


def score_job(setting: Setting, row: Row, seed: int, *, name: BenchmarkName, model: Job, data: Job, epoch: int = 0) -> Job:
    found = scoring_choices(setting, row)
    config = validated_config(ScoringConfig, f"scoring of {row.name} on {name}", {**plain_values(found), "benchmark": name, "epoch": epoch})
    after = f" after epoch {epoch}" if epoch else ""
    return job_of(setting, config, label=f"scores of {row.name}{after} on {name}, seed {seed}", inputs={"model": model, "benchmark": data})


def scoring_choices(setting: Setting, row: Row) -> dict[str, Choice]:
    """The conditions under which a row is scored: a released model's recorded ones stand before the profile's own, `--set` before all."""
    released = setting.profile.released.get(row.name) if setting.source == "released" else None
    if released is None:
        return setting.sourced("scoring")
    found = sourced_values("scoring", protocol=setting.protocol, profile=setting.profile, overrides={})
    chosen = released.chosen
    recorded = {**HARNESS, **chosen.scoring}
    found |= {name: Choice(value=value, source=chosen.source) for name, value in recorded.items()}
    given = setting.overrides.get("scoring", {})
    found |= {name: Choice(value=value, source="--set") for name, value in given.items()}
    if "batches" in given and given["batches"] != "dataset-order" and "batch_rows" not in given:
        found["batch_rows"] = Choice(value=0, source="--set scoring.batches")
    return found


def contexts_job(setting: Setting, row: Row, seed: int, *, model: Job, data: Mapping[BenchmarkName, Job]) -> Job:
    """Activating contexts of a row's latents."""
    found = setting.values("contexts")
    config = validated_config(ContextConfig, f"row {row.name}, contexts", found)
    texts = data[config.texts] if config.texts in ("rewardbench2", "rmbench") else preferences_job(setting)
    return job_of(setting, config, label=f"contexts of {row.name}, seed {seed}", inputs={"model": model, "texts": texts})


def explanation_job(setting: Setting, row: Row, seed: int, inputs: Mapping[str, Job]) -> Job:
    """Explanations of a row's latents. `inputs`: `contexts`, `model`, and those of a control where there is one."""
    found = setting.values("explanation")
    digest = setting.digest(Path(setting.answers)) if setting.answers else ""
    judge = "recorded" if setting.answers else "endpoint" if setting.endpoint else found.get("judge", "endpoint")
    config = validated_config(ExplanationConfig, f"row {row.name}, explanations", {**found, "judge": judge, "answers_digest": digest})
    truth = {"texts": miniature_job(setting)} if config.judge == "planted" else {}
    planned = job_of(setting, config, label=f"explanations of {row.name}, seed {seed}", inputs={**inputs, **truth})
    return replace(planned, locations=setting.answering(planned, recorded=bool(setting.answers)))


def baseline_job(setting: Setting, features: str, name: BenchmarkName, data: Job) -> Job:
    # Beside other systems a baseline sees the pairs that they see; elsewhere all that there are.
    pairs = setting.values("reward")["max_pairs"] if setting.experiment.compared_with else 0
    fields = {**setting.values("baseline"), "benchmark": name, "features": features, "max_pairs": pairs}
    config = validated_config(BaselineConfig, f"baseline {features}", fields)
    inputs = {"preferences": preferences_job(setting), "benchmark": data}
    return job_of(setting, config, label=f"baseline {features} on {name}", inputs=inputs)


def states_job(setting: Setting, row: Row, items: Items, *, backbone: Backbone, weights: Job, data: Job) -> Job:
    """Cached states after a row's layer: pairs as reward training reads them, benchmarks as scoring does."""
    if items == "train":
        found = setting.values("reward")
        given = {name: found[name] for name in ("max_pairs", "max_length", "overlong", "refused_turns", "dtype", "date_string")}
    else:
        found = setting.values("scoring")
        if found["formatting"] != "end-of-turn":
            why = f"scoring.formatting = {found['formatting']!r}: cached states are those of the end of turn"
            raise UsageProblems([f"row {row.name}: {why}; leave such rows out with --rows"])
        given = {name: found[name] for name in ("max_length", "bos", "dtype", "attention", "date_string", "subset", "limit")}
        given["overlong"] = found["truncation"]
    layer = backbone.layers[row.layer].value
    fields = {**setting.values("harvest"), **given, "layer": layer, "items": items}
    config = validated_config(HarvestConfig, f"row {row.name}, states of {items}", fields)
    label = f"states of {items}, {row.slot} layer {layer}"
    return job_of(setting, config, label=label, inputs={"backbone": weights, "items": data})


def head_job(setting: Setting, row: Row, seed: int, *, backbone: Backbone, weights: Job, sae: Job) -> Job:
    """A SparseRM head, or SAFER's score, on cached states of the training pairs."""
    states = states_job(setting, row, "train", backbone=backbone, weights=weights, data=preferences_job(setting))
    inputs = {"states": states, "sae": sae, "backbone": weights}
    layer = backbone.layers[row.layer].value
    # A whole model pools at the end of turn, as every reward model does; heads on other states are scored from the cache alone.
    ends = isinstance(states.config, HarvestConfig) and states.config.pooling == "end_of_turn"
    place = {"layer": layer, **({} if ends else {"whole": False})}
    if row.method == "safer":
        fields = {**setting.values("safer"), **row.sparse, **place}
        safer = validated_config(SaferConfig, f"row {row.name}", fields)
        return job_of(setting, safer, label=f"{row.name}, SAE of seed {seed}", inputs=inputs)
    fields = {**setting.values("sparse", row.sparse), **place, "seed": seed}
    config = validated_config(SparseRMConfig, f"row {row.name}, head", fields)
    return job_of(setting, config, label=f"head {row.name}, seed {seed}", inputs=inputs)


def state_score_job(setting: Setting, row: Row, seed: int, *, name: BenchmarkName, model: Job, states: Job, data: Job) -> Job:
    """Rewards of a head for the cached states of a benchmark."""
    config = validated_config(StateScoringConfig, f"scoring on {name}", {"benchmark": name})
    inputs = {"model": model, "states": states, "benchmark": data}
    return job_of(setting, config, label=f"scores of {row.name} on {name}, seed {seed}", inputs=inputs)
