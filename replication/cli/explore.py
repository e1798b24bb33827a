"""The latent explorer: what each latent is and does on a benchmark, what each reward is made of.

Exit codes as of every command; 5 where the model is not in the store yet.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast, get_args

import typer

from replication.cli.options.declared import DEFAULT_STORE, MISSING_RESULTS, ExperimentOptions, StoreOption, typed_command
from replication.cli.options.groups import Without
from replication.cli.options.idle import refuse_idle
from replication.recipes.explorations import ModelFolder, Shape, exploration_jobs, file_exploration, folder_exploration
from replication.recipes.jobs import BROUGHT_IN
from replication.recipes.requested import Chosen, experiment_named, settings_for
from replication.recipes.setting import Setting
from replication.settings.profiles import BenchmarkName
from replication.usage_problems import UsageProblems
from sarm.job import Job
from sarm.store.artifacts import ArtifactStore

if TYPE_CHECKING:
    from sarm.store.manifest import Manifest

NAMES: tuple[BenchmarkName, ...] = get_args(BenchmarkName)
# What this command makes itself: everything else is a training that somebody must have asked for.
MADE_HERE = (*BROUGHT_IN, "make_miniature", "explore_latents")


@dataclass(frozen=True)
class WhichOptions:
    """Which model is explored on which benchmark, beside the row."""

    model: Annotated[Path | None, typer.Option("--model", help="Folder of a reward model, in place of a row.")] = None
    artifact: Annotated[str, typer.Option("--artifact", help="Key of what has been explored before, in place of a row.")] = ""
    experiment: Annotated[str, typer.Option("--experiment", help="Whose row.")] = "table1"
    benchmark: Annotated[str, typer.Option("--benchmark", help=f"{', '.join(NAMES)} of the profile; with --model also a file.")] = ""
    shape: Annotated[
        Literal["pairs", "rewardbench2", "rmbench"], typer.Option("--shape", help="What a file of --benchmark holds.")
    ] = "pairs"
    end_of_turn: Annotated[str, typer.Option("--end-of-turn", help="With --model: token that ends a turn, where it is not eos.")] = ""
    pooling: Annotated[
        Literal["end-of-turn", "last-token"], typer.Option("--pooling", help="With --model: the last turn's end, or the template's last.")
    ] = "end-of-turn"
    gpus: Annotated[int, typer.Option("--gpus", min=0, help="With --model: GPUs to use; 0 runs on the CPU.")] = 0

    def problems(self, row: str) -> list[str]:
        """What does not go together, or is not there."""
        given = [name for name, value in (("ROW", row), ("--model", self.model), ("--artifact", self.artifact)) if value]
        found = []
        if len(given) != 1:
            found.append(f"{' and '.join(given) or 'nothing'} given: name one of a ROW of {self.experiment}, --model DIR or --artifact KEY")
        if self.model is not None and not self.model.is_dir():
            found.append(f"--model {self.model} is no folder")
        if self.benchmark and self.benchmark not in NAMES and self.model is None:
            found.append(f"--benchmark {self.benchmark}: a row is explored on a benchmark of the profile: {', '.join(NAMES)}")
        elif self.benchmark and self.benchmark not in NAMES and not Path(self.benchmark).is_file():
            found.append(f"--benchmark {self.benchmark}: neither a file nor one of {', '.join(NAMES)}")
        if self.end_of_turn and self.pooling == "last-token":
            found.append("--end-of-turn names the token that is scored, and --pooling last-token asks for another; give one of them")
        return found


def explore(
    context: typer.Context,
    *,
    row: Annotated[str, typer.Argument(help="Rows with latents: as --rows of the other commands.")] = "",
    which: WhichOptions,
    asked: Annotated[ExperimentOptions, Without("rows")],
    explanations: Annotated[
        Path | None, typer.Option("--explanations", help="With --folder: an explain_latents artifact, where the store knows none.")
    ] = None,
    folder: Annotated[Path | None, typer.Option("--folder", help="Also write everything there, as pages that open from disk.")] = None,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Latents and rewards of a SARM on a benchmark, for the report and for a folder of pages. Answered from the store where it is there."""
    problems = which.problems(row)
    if explanations is not None and not (explanations / "explanations.jsonl").is_file():
        problems.append(f"--explanations {explanations} holds no explanations.jsonl; give the folder of an explain_latents artifact")
    if explanations is not None and folder is None:
        problems.append("--explanations is read only with --folder: the report takes what the store has")
    if problems:
        raise UsageProblems(problems)
    _refuse_idle(context, which)
    artifacts = ArtifactStore(store)
    if which.artifact:
        found = [_known(artifacts, which.artifact)]
    else:
        jobs = _jobs(row, which, asked, artifacts)
        _run(jobs, artifacts, train=_chosen(row, asked).command(which.experiment, artifacts.root))
        found = [artifacts.manifest(job) for job in jobs]
    for manifest in found:
        _tell(artifacts, manifest)
    if folder is not None:
        _write_folders(artifacts, found, folder, explanations)


def _refuse_idle(context: typer.Context, which: WhichOptions) -> None:
    """Raises UsageProblems for options that nothing reads for a model named in this way."""
    if which.artifact:
        refuse_idle(context, "with --artifact: it was explored before", but=("artifact", "folder", "explanations"))
    elif which.model is None:
        refuse_idle(context, "with a ROW: its profile says it", only=("shape", "end_of_turn", "pooling", "gpus"))
    elif which.benchmark not in ("", *NAMES):
        idle = ("experiment", *(one.name for one in dataclasses.fields(ExperimentOptions)))
        refuse_idle(context, "where --model is explored on a file", only=idle)
    else:
        refuse_idle(context, "with --model on a benchmark of the profile", only=("shape", "experiment", "seeds"))


def _jobs(row: str, which: WhichOptions, asked: ExperimentOptions, artifacts: ArtifactStore) -> list[Job]:
    """What is to be explored. Raises UsageProblems."""
    file = which.benchmark not in ("", *NAMES)
    model = None
    if which.model is not None:
        place = which.model.resolve()
        pooling: Literal["end_of_turn", "last_token"] = "last_token" if which.pooling == "last-token" else "end_of_turn"
        model = ModelFolder(place, artifacts.fingerprint(place), end_of_turn=which.end_of_turn, pooling=pooling)
        if file:
            source = Path(which.benchmark).resolve()
            return [file_exploration(model, source, cast(Shape, which.shape), digest=artifacts.fingerprint, gpus=which.gpus)]
    setting = _setting(row, which.experiment, asked, artifacts)
    benchmark = cast(BenchmarkName, which.benchmark or next(iter(setting.profile.benchmarks), "rewardbench2"))
    return [folder_exploration(setting, model, benchmark, gpus=which.gpus)] if model is not None else exploration_jobs(setting, benchmark)


def _setting(row: str, experiment: str, asked: ExperimentOptions, artifacts: ArtifactStore) -> Setting:
    from replication.plan import steps  # noqa: PLC0415 - not needed by --help

    (setting,) = settings_for([experiment_named(experiment)], _chosen(row, asked), artifacts, os.environ)
    if row:
        steps.refuse_unpinned([setting])
    return setting


def _chosen(row: str, asked: ExperimentOptions) -> Chosen:
    return asked.chosen.model_copy(update={"rows": row})


def _run(jobs: Sequence[Job], artifacts: ArtifactStore, *, train: str) -> None:
    """Do what is missing of the jobs; ends with code 5 where a model would first have to be trained, with the launcher's on failure."""
    from replication.cli.running.progress import watching  # noqa: PLC0415 - not needed by --help
    from replication.launch.local import LocalLauncher  # noqa: PLC0415 - as above

    todo = list({one.key: one for job in jobs for one in _missing(job, artifacts)}.values())
    lacking = [one.label for one in todo if one.kind not in MADE_HERE]
    if lacking:
        typer.echo(f"replicate: not in the store: {lacking[-1]}; run: {train}", err=True)
        raise typer.Exit(MISSING_RESULTS)
    if not todo:
        return
    with watching(len(todo)) as watch:
        code = LocalLauncher(command=typed_command()).launch(todo, artifacts, watch)
    if code:
        raise typer.Exit(code)


def _missing(job: Job, artifacts: ArtifactStore) -> list[Job]:
    """The job with those of its inputs that it needs, unless the store has it; inputs first."""
    if artifacts.has(job):
        return []
    return [*(one for needed in job.inputs.values() for one in _missing(needed, artifacts)), job]


def _known(artifacts: ArtifactStore, key: str) -> Manifest:
    """The one artifact of that key. Raises UsageProblems, IntegrityProblem where it is damaged."""
    from replication.report.latents.explorations import called, explorations_of, find_exploration  # noqa: PLC0415 - numpy is not needed by --help

    known = explorations_of(artifacts)
    found = [one for one in known if one.key.startswith(key)]
    if len(found) != 1:
        listed = "; ".join(f"{one.short_key} {called(one)}" for one in known) or "none; run: replicate explore ROW"
        raise UsageProblems([f"--artifact {key}: {len(found)} of the explored models have a key that begins so; there are: {listed}"])
    find_exploration(artifacts, found[0])
    return found[0]


def _tell(artifacts: ArtifactStore, manifest: Manifest) -> None:
    """What there is now, in one line on stdout."""
    from replication.report.latents.explorations import called  # noqa: PLC0415 - numpy is not needed by --help
    from sarm.store.json_files import read_facts  # noqa: PLC0415 - as above

    facts = read_facts(artifacts.path(manifest) / "exploration.json", "n_latents", "never_fired", "items", "completions")
    latents = f"{facts['n_latents']:,} latents, of which {facts['never_fired']:,} never fire"
    read = f"{facts['items']:,} items with {facts['completions']:,} completions"
    typer.echo(f"{called(manifest)}: {latents}; {read}; artifact {manifest.kind}/{manifest.short_key}")


def _write_folders(artifacts: ArtifactStore, found: Sequence[Manifest], folder: Path, explanations: Path | None) -> None:
    """One folder, or one below it for each where there are several."""
    from replication.report.latents.explorations import opened  # noqa: PLC0415 - numpy is not needed by --help
    from replication.report.render.explorer.folder import write_folder  # noqa: PLC0415 - as above

    for manifest in found:
        place = folder if len(found) == 1 else folder / manifest.short_key
        page = write_folder(opened(artifacts, manifest, explanations), place)
        typer.echo(f"pages: {page} (open it in a browser)", err=True)


COMMANDS: Mapping[str, Callable[..., None]] = {"explore": explore}
