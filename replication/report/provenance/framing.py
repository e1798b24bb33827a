"""What all reports have in common: settings, conditions, deviations, inputs, provenance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from replication.recipes.jobs import scoring_choices
from replication.recipes.jobs_needed import Recipe
from replication.recipes.setting import Setting, command_line
from replication.report.cells import Listing, Provenance, Report, Table
from replication.report.provenance.circumstances import circumstances
from replication.report.provenance.comparable import why_not_comparable
from replication.report.provenance.data_counts import data_counts
from replication.report.provenance.inputs import inputs_of
from replication.settings.model_locations import split_locations
from replication.settings.value_sources import replacements
from sarm.job import Job, topological_order
from sarm.store.artifacts import ArtifactStore

# What a reader must know of how a released model was scored.
CONDITIONS = ("formatting", "dtype", "max_length", "truncation", "bos", "batches", "batch_rows", "attention")


def framed(recipe: Recipe, store: ArtifactStore, *, tables: Sequence[Table] = (), listings: Sequence[Listing] = ()) -> Report:
    """What all reports have in common around these blocks: settings, deviations, inputs, provenance."""
    setting = recipe.setting
    why_not = why_not_comparable(setting)
    counts = data_counts(recipe, store)
    replaced = replacements(protocol=setting.protocol, profile=setting.profile, overrides=setting.overrides)
    return Report(
        experiment=setting.experiment.name,
        title=setting.experiment.title,
        profile=setting.profile.name,
        protocol=setting.protocol.name,
        seeds=setting.seeds,
        regime="evaluation" if setting.source == "released" else "retrained",
        comparable=not why_not,
        why_not_comparable=why_not,
        tables=tuple(tables),
        listings=(*listings, *([counts] if counts else [])),
        deviations=tuple(f"{one.text} ({one.where})" for one in setting.deviations),
        provenance=_provenance(recipe, store),
        circumstances=circumstances(recipe, store),
        inputs=inputs_of(recipe, store),
        command=command_of(setting),
        notes=_conditions(recipe) or tuple(f"Instead of protocol {setting.protocol.name}: {line}" for line in replaced),
    )


def command_of(setting: Setting) -> str:
    """The command of a setting, as a shell takes it; without what the command line does anyway.

    Reports are passed on and committed, so it holds no place of this machine: of a profile's path the file alone, no store, no model's.
    """
    given = [(name, Path(value).name if name == "--profile" else value) for name, value in setting.options]
    places = split_locations([value for name, value in given if name == "--set"])[0]
    told = [one for one in given if one != ("--profile", "mini") and one[1] not in places]
    return command_line(setting.experiment.typed, told, without=("--store",))


def _conditions(recipe: Recipe) -> tuple[str, ...]:
    """How each released model was scored, and where that is recorded; empty where we train."""
    setting = recipe.setting
    if setting.source != "released":
        return ()
    found = []
    for row in (training.row for training in recipe.trainings if training.model is not None):
        resolved = scoring_choices(setting, row)
        told = ", ".join(f"{name} {resolved[name].value}" for name in CONDITIONS)
        changed = [name for name in CONDITIONS if resolved[name].source == "--set"]
        found.append(f"{row.name}: {told}; {resolved['formatting'].source}" + (f"; --set: {', '.join(changed)}" if changed else ""))
    return tuple(f"Conditions of {line}" for line in found)


def _provenance(recipe: Recipe, store: ArtifactStore) -> tuple[Provenance, ...]:
    return tuple(_origin(job, store) for job in topological_order(recipe.jobs) if store.has(job))


def _origin(job: Job, store: ArtifactStore) -> Provenance:
    manifest = store.manifest(job)
    code = manifest.code.commit + ("+dirty" if manifest.code.dirty else "")
    gpus = int(manifest.resources.get("gpus", 0))
    return Provenance(kind=job.kind, key=job.short_key, label=job.label, seconds=manifest.seconds, gpus=gpus, code=code)
