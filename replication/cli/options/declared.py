"""Every option that more than one command has, written once. Those that go together are a dataclass (`option_groups.grouped`)."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from replication.recipes.requested import Chosen, scoring_assignments
from replication.recipes.setting import DEFAULT_STORE, Source
from replication.settings.protocols import PROTOCOLS

RENDERED = Path("tables") / "rendered"
MISSING_RESULTS = 5

ProfileOption = Annotated[str, typer.Option("--profile", help="mini, paper, or a TOML file of your own.")]
ProtocolOption = Annotated[str, typer.Option("--protocol", help=f"Which specification of the method: {', '.join(PROTOCOLS)}.")]
RowsOption = Annotated[str, typer.Option("--rows", help="Only these rows: globs on names, small or large, or 3B / 8B; comma-separated.")]
SeedsOption = Annotated[str, typer.Option("--seeds", help="Seeds of SAE and reward training, comma-separated.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="SECTION.FIELD=VALUE, for example reward.epochs=1; repeatable.")]
FromOption = Annotated[Source, typer.Option("--from", help="train what is missing, or score released checkpoints.")]
FreshOption = Annotated[bool, typer.Option("--fresh", help="A new attempt beside the old artifacts.")]
StoreOption = Annotated[Path, typer.Option("--store", envvar="SARM_STORE", help="Folder of the artifacts.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output on stdout.")]
SteerOption = Annotated[
    Path | None, typer.Option("--steer", help="Scale the head's weights on some latents: a steering file, saved by replicate demo.")
]
AllowDirtyOption = Annotated[
    bool, typer.Option("--allow-dirty", envvar="SARM_ALLOW_DIRTY", help="Run at the paper's scale with code that is in no commit.")
]
ExperimentArgument = Annotated[str, typer.Argument(help="Name of an experiment.")]
ExperimentsArgument = Annotated[list[str], typer.Argument(help="Names of experiments, or all.")]

FullOption = Annotated[bool, typer.Option("--full", help="Print all that a table holds: each cell's verdict and reason, every note.")]
LauncherName = Literal["local", "slurm", "print"]


@dataclass(frozen=True)
class ExperimentOptions:
    """What of an experiment is asked for, at which scale, by which method."""

    profile: ProfileOption = "mini"
    protocol: ProtocolOption = "paper"
    rows: RowsOption = ""
    seeds: SeedsOption = "0"
    assignments: SetOption = None
    source: FromOption = "train"

    @property
    def chosen(self) -> Chosen:
        """The same, as the recipes take it."""
        return Chosen(**{**vars(self), "assignments": tuple(self.assignments or ())})


@dataclass(frozen=True)
class PaperOptions(ExperimentOptions):
    """As above, for what is done at the paper's scale."""

    profile: ProfileOption = "paper"


@dataclass(frozen=True)
class PartOptions:
    """Score less than everything, or in other batches."""

    subset: Annotated[str, typer.Option("--subset", help="Score only this subset; never comparable. Short for scoring.subset.")] = ""
    limit: Annotated[int, typer.Option("--limit", min=0, help="Score only the first so many items; never comparable.")] = 0
    batch_tokens: Annotated[
        int, typer.Option("--batch-tokens", min=0, help="Padded tokens of one pass of scoring; 0 as configured.")
    ] = 0

    @property
    def assignments(self) -> tuple[str, ...]:
        """What they are short for."""
        return scoring_assignments(subset=self.subset, limit=self.limit, batch_tokens=self.batch_tokens)


@dataclass(frozen=True)
class RunOptions:
    """How and where jobs run, what tables are made from, and where all of it lies."""

    fresh: FreshOption = False
    keep_going: Annotated[bool, typer.Option("--keep-going", help="After a failure go on with jobs that do not need it.")] = False
    offline: Annotated[bool, typer.Option("--offline", help="Never ask the hub: what fetch has not brought is refused.")] = False
    launcher: Annotated[LauncherName, typer.Option("--launcher", help="Run here, submit to Slurm, or print the scripts.")] = "local"
    cluster: Annotated[str, typer.Option("--cluster", help="a100, rtx3090, or a TOML file of your own; for slurm and print.")] = "a100"
    yes: Annotated[bool, typer.Option("--yes", help="Start long runs without asking.")] = False
    workers: Annotated[int, typer.Option("--workers", min=0, help="Local processes side by side; 0: as the profile says.")] = 0
    allow_dirty: AllowDirtyOption = False
    source: Annotated[
        Literal["train", "released", "scores"],
        typer.Option(
            "--from", help="train what is missing, score released checkpoints, or rebuild the tables from per-item rewards alone."
        ),
    ] = "train"
    scores: Annotated[
        Path | None,
        typer.Option("--scores", help="With --from scores: folder of <experiment>.results.json; for figure3 the authors' rewards."),
    ] = None
    store: StoreOption = DEFAULT_STORE
    out: Annotated[Path, typer.Option("--out", help="Rendered tables go to a folder of the profile's name below this one.")] = RENDERED
    full: FullOption = False


def typed_command() -> str:
    """What the user typed, to be shown as the command that resumes."""
    return shlex.join(["replicate", *sys.argv[1:]])


def whole_command() -> str:
    """What shows all of what the typed command prints in short; nothing is computed anew for it."""
    kept = [argument for argument in sys.argv[1:] if argument not in ("--fresh", "--full")]
    return shlex.join(["replicate", *kept, "--full"])
