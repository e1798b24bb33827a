"""`replicate init`: a profile for a model, pairs and texts of one's own that runs as it is."""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from replication.cli.fetch import hub_model, pinned, plain_weights
from replication.cli.options.declared import DEFAULT_STORE, StoreOption
from replication.lock_files import read_pins
from replication.settings.profiles import HubBackbone, shipped_profiles
from replication.usage_problems import UsageProblems
from sarm.job import EnvironmentProblem, UsageProblem
from sarm.store.artifacts import ArtifactStore
from sarm.store.whole_files import whole_file

if TYPE_CHECKING:
    from replication.own_profile.findings import Findings
    from replication.plan.steps import Plan


class Places(NamedTuple):
    """Where everything is that the profile is about: `data` is pairs, text, perhaps benchmark; `source` a hub model, None for a folder."""

    model: Path
    source: HubBackbone | None
    data: Mapping[str, Path]
    out: Path


def init(  # noqa: PLR0917 - one parameter an option, as Typer wants it
    model: Annotated[str, typer.Option("--model", help="Folder of a Llama in Hugging Face layout, or OWNER/NAME of a fetched hub model.")],
    pairs: Annotated[Path, typer.Option("--pairs", help="Preference pairs, JSONL or Parquet: chosen and rejected, perhaps prompt.")],
    text: Annotated[Path, typer.Option("--text", help="Running text for the SAEs, JSONL or Parquet.")],
    benchmark: Annotated[Path | None, typer.Option("--benchmark", help="Items in the shape of RewardBench 2 or RM-Bench.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The profile; <model's name>.toml here without it.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a profile that is there.")] = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """A commented profile for your own model and data, which runs as it is. Says what a run will cost; starts nothing."""
    from replication.own_profile.findings import look  # noqa: PLC0415 - not needed by --help
    from replication.plan.view import summary  # noqa: PLC0415 - as above

    artifacts = ArtifactStore(store)
    data = {"pairs": pairs, "text": text, **({"benchmark": benchmark} if benchmark else {})}
    places = _places(model, data, out, artifacts)
    _refuse_unwritable(places.out, force=force)
    found = look(model=places.model, pairs=pairs, text=text, benchmark=benchmark)
    try:
        with whole_file(places.out) as partial:
            planned, batch_tokens, exports = _fitting(places, found, partial, artifacts)
    except OSError as error:
        raise EnvironmentProblem(f"--out {places.out}: cannot be written ({error.strerror or error}); name another folder") from error
    typer.echo(str(places.out))
    lines = [*summary(planned), f"batches of {batch_tokens} tokens; {_hardware(found)}"]
    lines += [f"before any command with it: export {shlex.quote(f'{name}={value}')}" for name, value in exports.items()]
    for line in (*lines, f"next: replicate table1 --profile {shlex.quote(str(places.out))}"):
        typer.echo(line, err=True)


def _places(model: str, data: Mapping[str, Path], out: Path | None, artifacts: ArtifactStore) -> Places:
    """Raises UsageProblems with everything that is not there, EnvironmentProblem for a hub model that is not fetched."""
    missing = [f"--{what} {path} does not exist" for what, path in data.items() if not path.exists()]
    folder, source = Path(model), None
    if not folder.is_dir():
        try:
            source = hub_model(model) if not folder.exists() else None
        except UsageProblems as wrong:
            missing += wrong.problems
        if folder.exists():
            missing.append(f"--model {model} is a file; give the folder that holds its config.json")
    if missing:
        raise UsageProblems(missing)
    if source is not None:
        source = pinned(source, read_pins(artifacts))
        job = plain_weights(source)
        if not artifacts.has(job):
            command = f"replicate fetch --model {shlex.quote(model)}"
            raise EnvironmentProblem(f"--model {model}: no folder here, nor a model in the store; run: {command}")
        folder = artifacts.path(job)
    name = _slug(source.repository.rpartition("/")[2] if source else folder.resolve().name)
    return Places(folder, source, data, out or Path(f"{name}.toml"))


def _refuse_unwritable(out: Path, *, force: bool) -> None:
    if out.is_dir() or out.suffix != ".toml":
        raise UsageProblem(f"--out {out}: a profile is a file that ends with .toml")
    if out.exists() and not force:
        raise UsageProblem(f"--out {out}: exists; give --force to replace it, or another --out")
    if not out.absolute().parent.is_dir():
        raise UsageProblem(f"--out {out}: there is no folder {out.parent}; make it first")
    try:
        # Tried and not asked: permissions do not tell of read-only file systems, nor of root.
        with tempfile.TemporaryFile(dir=out.absolute().parent):
            pass
    except OSError as error:
        place, why = out.absolute().parent, error.strerror or error
        raise EnvironmentProblem(f"--out {out}: folder {place} cannot be written to ({why}); name another folder") from error


def _fitting(places: Places, found: Findings, partial: Path, artifacts: ArtifactStore) -> tuple[Plan, int, dict[str, str]]:
    """Write the profile with the largest batches that fit this machine; gives the plan of Table 1, the batches, the variables to set."""
    from replication.own_profile.training import pass_sizes  # noqa: PLC0415 - not needed by --help
    from replication.plan import machine, refusals  # noqa: PLC0415 - as above

    here = machine.this_machine(os.environ.get("CUDA_VISIBLE_DEVICES"))
    for batch_tokens in pass_sizes(found.machine.gpus):
        text, exports = _written(places, found, batch_tokens=batch_tokens, partial=partial)
        partial.write_text(text, encoding="utf-8")
        planned = _planned(places, partial, artifacts, exports)
        problems = [problem for step in planned.steps for problem in refusals.step_problems(step, planned, here)]
        if not problems:
            break
    for problem in dict.fromkeys(str(problem) for problem in problems):
        typer.echo(f"warning: a launch here refuses: {problem}", err=True)
    return planned, batch_tokens, exports


def _written(places: Places, found: Findings, *, batch_tokens: int, partial: Path) -> tuple[str, dict[str, str]]:
    """The profile's text, and the variables that name what it must not."""
    from replication.own_profile import paths, profile_text, shares, training  # noqa: PLC0415 - not needed by --help
    from replication.settings.model_sizes import CONFIG, shape_in  # noqa: PLC0415 - as above
    from replication.settings.profile_files import load_profile  # noqa: PLC0415 - as above

    reader = paths.Reader.of(partial.parent, os.environ)
    given = {**({} if places.source else {"model": places.model}), **places.data}
    names = {what: paths.named(path, reader, variable=f"REPLICATE_{what.upper()}") for what, path in given.items()}
    shape = shape_in(places.model / CONFIG)
    paper = load_profile("paper", environment={}).backbones
    about = profile_text.Given(
        name=_profile_name(places.out),
        file=shlex.quote(places.out.name),
        model=places.source.repository if places.source else places.model.resolve().name,
        source=places.source or names["model"].text,
        pairs=names["pairs"].text,
        text=names["text"].text,
        benchmark=names["benchmark"].text if "benchmark" in names else "",
        shape=shape,
        paper=paper,
        shares={slot: shares.counterparts(one, shape) for slot, one in paper.items()},
    )
    sized = training.sizes(found, shape, batch_tokens=batch_tokens)
    text = profile_text.profile_text(about, found, sized, training.resources(found, batch_tokens=batch_tokens))
    return text, {one.variable: str(given[what].absolute()) for what, one in names.items() if one.variable}


def _planned(places: Places, partial: Path, artifacts: ArtifactStore, exports: Mapping[str, str]) -> Plan:
    from replication.plan.steps import plan  # noqa: PLC0415 - not needed by --help
    from replication.recipes.requested import Chosen, experiments_named, settings_for  # noqa: PLC0415 - as above

    # Under the name of the file that is being written, which messages about it would show.
    try:
        chosen = Chosen(profile=str(partial))
        return plan(settings_for(experiments_named(["table1"]), chosen, artifacts, {**os.environ, **exports}), artifacts)
    except UsageProblem as problem:
        raise UsageProblem(str(problem).replace(str(partial), str(places.out))) from problem


def _profile_name(out: Path) -> str:
    """What its tables' folder is called; never that of a profile that comes with the package."""
    name = _slug(out.stem)
    return f"own-{name}" if name in shipped_profiles() else name


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "own"


def _hardware(found: Findings) -> str:
    if not found.machine.gpus:
        return "no GPU here: float32 on the CPU"
    return f"{found.machine.gpus} GPUs here, " + ("bfloat16" if found.machine.bfloat16 else "without bfloat16: float32")


COMMANDS: Mapping[str, Callable[..., None]] = {"init": init}
