"""A report is made anew only where something that it rests on has changed: artifacts, settings, our code, published numbers.

Its stamp is one checksum over all of that. It lies beside the tables with the checksum of every file that was written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import sarm
from replication.data_folders import PACKAGE, published_folder, templates_folder
from replication.recipes.jobs_needed import Recipe
from replication.report.cells import Report
from sarm.job import topological_order
from sarm.store.artifacts import ArtifactStore
from sarm.store.checksums import sha256_of
from sarm.store.whole_files import write_whole

# What computes or draws a number, beside our own code.
PACKAGES = ("numpy", "scipy", "statsmodels", "matplotlib", "jinja2", "pydantic")
FIGURES = ("png", "svg", "pdf")
# The ground floor that we stand on: what the other tower shares with us (tests/test_layers.py).
SHARED_ROOMS = (".", "config", "store", "metrics")


class KeptReport(NamedTuple):
    """A report that need not be made again, its tables and its results."""

    report: Report
    files: tuple[Path, ...]
    results: tuple[Path, ...]


def stamp(recipe: Recipe, store: ArtifactStore, *, command: str) -> str:
    """SHA-256 over everything that the report of a recipe depends on."""
    digest = hashlib.sha256()
    # The command only says how gaps would be filled: a whole report of `table1` is also that of `all`.
    gaps = [command] if any(not store.has(job) for job in recipe.jobs) else []
    for line in (*gaps, *_setting(recipe), *_artifacts(recipe, store), *_versions(), *_sources()):
        digest.update(line.encode() + b"\0")
    return digest.hexdigest()


def kept_report(folder: Path, experiment: str, expected: str) -> KeptReport | None:
    """What an earlier run has left with this stamp; None where anything is missing or changed."""
    try:
        known = json.loads(_file(folder, experiment).read_text(encoding="utf-8"))
        if known["stamp"] != expected or any(sha256_of(folder / name) != digest for name, digest in known["sha256"].items()):
            return None
        report = Report.model_validate_json((folder / f"{experiment}.json").read_text(encoding="utf-8"))
        return KeptReport(report, *(tuple(folder / name for name in known[part]) for part in ("files", "results")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # A stamp that cannot be read is no stamp: the report is made anew.
        return None


def keep_report(folder: Path, experiment: str, found: str, *, files: Sequence[Path], results: Sequence[Path]) -> None:
    """Leave a stamp for what was just written, figures included."""
    figures = [path for suffix in FIGURES for path in sorted(folder.glob(f"{experiment}*.{suffix}"))]
    names = {part: [path.relative_to(folder).as_posix() for path in paths] for part, paths in (("files", files), ("results", results))}
    digests = {path.relative_to(folder).as_posix(): sha256_of(path) for path in (*files, *results, *figures)}
    write_whole(_file(folder, experiment), json.dumps({"stamp": found, **names, "sha256": digests}, indent=1) + "\n")


def _file(folder: Path, experiment: str) -> Path:
    # Hidden and without the suffix of a table: other commands gather a folder's JSON files.
    return folder / f".{experiment}.stamp"


def _setting(recipe: Recipe) -> Iterator[str]:
    setting = recipe.setting
    yield from (one.model_dump_json() for one in (setting.experiment, setting.profile, setting.protocol))
    yield json.dumps([setting.seeds, setting.rows, setting.overrides, setting.attempt], sort_keys=True, default=str)
    yield sha256_of(Path(setting.authors)) if setting.authors else "no rewards of the authors"
    yield from (f"{one.row.name} {one.seed}: {one.missing}" for one in recipe.trainings)


def _artifacts(recipe: Recipe, store: ArtifactStore) -> Iterator[str]:
    for job in topological_order(recipe.jobs):
        state = store.state(job)
        content = store.manifest(job).model_dump_json() if state.status == "present" else state.reason
        yield f"{job.kind} {job.key} {job.label} {state.status} {content}"


def _versions() -> Iterator[str]:
    for name in PACKAGES:
        yield f"{name} {metadata.version(name)}"


def _sources() -> Iterator[str]:
    """Our own code that decides and shows, the ground floor that it stands on, published numbers and templates."""
    ground = Path(sarm.__file__).parent
    rooms = ((ground / room, "*.py") for room in SHARED_ROOMS)
    folders = ((PACKAGE, "**/*.py"), (PACKAGE, "**/*.json"), (ground, "*.py"), (ground / "data", "preferences.py"), *rooms)
    for folder, pattern in (*folders, (published_folder(), "*"), (templates_folder(), "*")):
        for path in sorted(folder.glob(pattern)):
            if path.is_file():
                yield f"{path.relative_to(folder).as_posix()} {hashlib.sha256(path.read_bytes()).hexdigest()}"
