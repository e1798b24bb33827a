"""The options that commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from replication.recipes.setting import Source
from replication.settings.protocols import PROTOCOLS

ProfileOption = Annotated[str, typer.Option("--profile", help="mini, paper, or a TOML file of your own.")]
ProtocolOption = Annotated[str, typer.Option("--protocol", help=f"Which specification of the method: {', '.join(PROTOCOLS)}.")]
RowsOption = Annotated[str, typer.Option("--rows", help="Only these rows: globs on names, small or large, or 3B / 8B; comma-separated.")]
SeedsOption = Annotated[str, typer.Option("--seeds", help="Seeds of SAE and reward training, comma-separated.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="SECTION.FIELD=VALUE, for example reward.epochs=1; repeatable.")]
StoreOption = Annotated[Path, typer.Option("--store", envvar="SARM_STORE", help="Folder of the artifacts.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output on stdout.")]
SubsetOption = Annotated[str, typer.Option("--subset", help="Score only this subset; never comparable. Short for scoring.subset.")]
LimitOption = Annotated[int, typer.Option("--limit", min=0, help="Score only the first so many items; never comparable.")]
BatchTokensOption = Annotated[int, typer.Option("--batch-tokens", min=0, help="Padded tokens of one pass of scoring; 0 as configured.")]
FROM_HELP = "train what is missing, or score released checkpoints."
FromOption = Annotated[Source, typer.Option("--from", help=FROM_HELP)]
FreshOption = Annotated[bool, typer.Option("--fresh", help="A new attempt beside the old artifacts.")]
AllowDirtyOption = Annotated[
    bool, typer.Option("--allow-dirty", envvar="SARM_ALLOW_DIRTY", help="Run at the paper's scale with code that is in no commit.")
]
DEFAULT_STORE = Path("artifacts")


