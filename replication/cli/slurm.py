"""`replicate slurm`: write the committed scripts, give a script its requests, cancel jobs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from replication.cli.options.declared import DEFAULT_STORE, AllowDirtyOption, StoreOption
from replication.data_folders import slurm_folder
from sarm.job import IntegrityProblem
from sarm.store.artifacts import ArtifactStore

slurm_app = typer.Typer(help="Slurm scripts: write, request, cancel.", no_args_is_help=True, rich_markup_mode=None)


@slurm_app.command("write")
def write(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit code 6 when a script is not what it should be.")] = False,
    folder: Annotated[Path | None, typer.Option("--folder", help="Where; the project's own `slurm` without it.")] = None,
) -> None:
    """Render the scripts of the paper's two clusters."""
    from replication.launch.slurm.committed_scripts import write_scripts  # noqa: PLC0415 - Jinja and the recipes are not needed by --help

    drifted = write_scripts(folder or slurm_folder(), check)
    if check and drifted:
        names = "\n".join(f"{path}: not what the template and the clusters give" for path in drifted)
        raise IntegrityProblem(f"{names}\nwrite them with: replicate slurm write")
    for path in drifted:
        typer.echo(path)
    typer.echo(f"{len(drifted)} scripts written" if drifted else "all scripts are what they should be", err=True)


@slurm_app.command("request")
def request(  # noqa: PLR0917 - one parameter an option, as Typer wants it
    name: Annotated[str, typer.Argument(help="A script's name, for example sae_8b.")],
    task: Annotated[int, typer.Option("--task", min=0, help="Index in the script's array.")] = 0,
    cluster: Annotated[str, typer.Option("--cluster", help="Name or TOML file of the cluster.")] = "a100",
    profile: Annotated[str, typer.Option("--profile", help="As everywhere.")] = "paper",
    allow_dirty: AllowDirtyOption = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """The job requests of a script as JSON; refuses, with the command to run first, where an input is missing."""
    from replication.launch.slurm import committed_scripts  # noqa: PLC0415 - as above

    artifacts = ArtifactStore(store)
    text = committed_scripts.request(
        name, task=task, cluster=cluster, profile=profile, store=artifacts, environment=os.environ, allow_dirty=allow_dirty
    )
    typer.echo(text, nl=False)


@slurm_app.command("cancel")
def cancel(
    job: Annotated[str, typer.Argument(help="First digits of a job's key, or a Slurm id.")],
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """End submitted jobs; a running one writes its checkpoint first, what waits for it is ended by Slurm."""
    from replication.launch.slurm.calls import Slurm  # noqa: PLC0415 - as above
    from replication.launch.slurm.status import cancel_jobs  # noqa: PLC0415 - as above

    ended = cancel_jobs(ArtifactStore(store), job, Slurm())
    for one in ended:
        typer.echo(f"{one.slurm}  {one.kind}/{one.key[:12]}  {one.label}")
    typer.echo(f"{len(ended)} jobs cancelled", err=True)
