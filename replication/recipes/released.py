"""Models that others trained: which rows of a table they fill, where they come from, and where stage 2 begins in place of stage 1."""

from __future__ import annotations

from pathlib import Path

from replication.recipes.jobs import existing_path, hub_weights, job_of, validated_config
from replication.recipes.setting import Setting
from replication.settings.experiments import Row
from replication.settings.profiles import Backbone, HubBackbone, HubSource, Profile, Start, TokenizerChanges
from replication.settings.value_sources import geometry
from replication.usage_problems import UsageProblems
from sarm.config.weights import ImportedSAEConfig, WeightsConfig
from sarm.job import Job


def rows_of_others(setting: Setting) -> tuple[Row, ...]:
    """A row for each released model of the profile that the registry does not train; none where the table has no place for them."""
    if setting.source != "released" or not setting.experiment.released:
        return ()
    ours = {row.name for row in setting.experiment.rows}
    return tuple(
        Row(name=name, slot="large", layer=1, encoder="none", trained_by_others=True, label=model.label)
        for name, model in setting.profile.released.items()
        if name not in ours
    )


def conditions_note(setting: Setting, name: str) -> str:
    """Where the conditions are recorded under which a released model is scored."""
    model = setting.profile.released.get(name)
    if model is None:
        return ""
    return f"conditions {model.conditions}: {model.chosen.source}" if model.conditions else f"conditions: {model.chosen.source}"


def released_job(setting: Setting, row: Row) -> Job | None:
    """The job that brings in the released model of a row; None where the profile names none."""
    model = setting.profile.released.get(row.name)
    return _weights(setting, model.source, model.tokenizer, label=f"released {row.name}") if model is not None else None


def why_not_released(setting: Setting, row: Row) -> str:
    """Why a row has no released model."""
    return (
        f"no released checkpoint of {row.name} is known to profile {setting.profile.name}; "
        f"name one with --set released.{row.name}.path=FOLDER or train the row"
    )


def _weights(setting: Setting, source: HubBackbone | object, tokenizer: TokenizerChanges, *, label: str) -> Job:
    if isinstance(source, HubBackbone):
        return job_of(setting, hub_weights(source, tokenizer), label=label)
    path = str(getattr(source, "path", ""))
    folder = WeightsConfig(origin="folder", revision=setting.digest(existing_path(path)), **tokenizer.model_dump())
    return job_of(setting, folder, label=label, source=path)


def start_of(profile: Profile, row: Row) -> Start | None:
    """The start that replaces stage 1 of a row; None where stage 1 is run or the row has no pretrained SAE."""
    start = profile.starts.get(row.slot)
    return start if start is not None and start.use and row.encoder == "sae" else None


def why_no_start(row: Row) -> str:
    """Why a start cannot stand for a row's own SAE; empty where it can."""
    if row.sae or row.same_text:
        return f"row {row.name} asks for an SAE trained otherwise; the profile's start in slot {row.slot} gives one SAE for all"
    return ""


def start_jobs(setting: Setting, row: Row, backbone: Backbone, start: Start, weights: Job) -> tuple[Job, Job]:
    """(backbone, SAE) of a row: both out of one checkpoint, or the slot's own backbone with another project's SAE.

    Raises UsageProblems where the row's SAE lies in a folder that does not exist.
    """
    layer = geometry(row, backbone)["layer"].value
    place = {"layer": layer, "hidden_size": backbone.sizes.hidden_size, "stated_layer": start.layer, "file": start.file}
    label = f"SAE {row.slot} layer {layer}, imported"
    if start.layout == "checkpoint":
        if start.file:
            raise UsageProblems([f"starts.{row.slot}.file = {start.file!r} does not go with layout = checkpoint; leave it out"])
        whole = _weights(setting, start.source, TokenizerChanges(), label=f"start {row.slot}: backbone and SAE")
        config = validated_config(ImportedSAEConfig, f"row {row.name}, start", {**place, "origin": "checkpoint", "layout": "checkpoint"})
        return whole, job_of(setting, config, label=label, inputs={"checkpoint": whole})
    if isinstance(start.source, HubBackbone):
        fields = {"origin": "hub", "repository": start.source.repository, "revision": start.source.revision}
        return weights, job_of(setting, _imported(row, {**place, **fields, "layout": start.layout}), label=label)
    digest = setting.digest(existing_path(start.source.path))
    config = _imported(row, {**place, "origin": "folder", "revision": digest, "layout": start.layout})
    return weights, job_of(setting, config, label=label, source=str(Path(start.source.path)))


def _imported(row: Row, fields: dict[str, object]) -> ImportedSAEConfig:
    return validated_config(ImportedSAEConfig, f"row {row.name}, start", fields)


def hub_sources_for(setting: Setting, rows: tuple[Row, ...]) -> list[HubSource]:
    """What the rows need from the hub."""
    if setting.source == "released":
        return setting.profile.sources_for_released([row.name for row in rows])
    return setting.profile.hub_sources()
