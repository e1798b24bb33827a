"""A command that a message names asks for what the user asked for: every option of it, as typed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Annotated, get_args

import pytest
import typer
from folders import ROOT
from typer.testing import CliRunner

from replication.cli.options.declared import DEFAULT_STORE, ExperimentOptions, PaperOptions, StoreOption
from replication.cli.options.groups import Without, grouped
from replication.recipes.requested import Chosen, settings_for
from replication.recipes.setting import Source
from replication.settings.experiments import EXPERIMENTS
from replication.settings.protocols import PROTOCOLS
from sarm.store.artifacts import ArtifactStore

ALL_AT_ONCE = Chosen(
    profile="paper", protocol="authors", rows="sarm-*,3B", seeds="3,4", source="released",
    assignments=("reward.epochs=1", "sae.learning_rate=0.001"),
)
ONE_EACH = [
    Chosen(), Chosen(profile="my profile.toml"), Chosen(protocol="authors"), Chosen(rows="sarm-*"), Chosen(seeds="1,2"),
    Chosen(assignments=('scoring.subset="Math"',)), Chosen(source="released"), ALL_AT_ONCE,
]  # fmt: skip


def understood(command: str, group: type[ExperimentOptions], *left_out: str) -> tuple[Chosen, Path]:
    """What a run command (or `fetch`) takes from such a line, and its store."""
    found: list[tuple[Chosen, Path]] = []
    app = typer.Typer()

    def take(*, names: Annotated[list[str], typer.Argument()], asked: ExperimentOptions, store: StoreOption = DEFAULT_STORE) -> None:
        assert names == ["table1"]
        found.append((asked.chosen, store))

    take.__annotations__["asked"] = Annotated[group, Without(*left_out)]
    app.command()(grouped(take))
    word, *arguments = shlex.split(command)
    done = CliRunner().invoke(app, [one for one in arguments if one != "fetch"], env={"SARM_STORE": ""})
    assert word == "replicate" and done.exit_code == 0, done.output
    return found[0]


def test_every_choice_is_asked_alone_somewhere() -> None:
    """A field that comes later stands in these examples too, or has no option of this group."""
    usual = Chosen()
    alone = {name for one in ONE_EACH for name in Chosen.model_fields if getattr(one, name) != getattr(usual, name)}
    assert alone == set(Chosen.model_fields) - {"steering"}
    assert {one.source for one in ONE_EACH} == set(get_args(Source)) and {one.protocol for one in ONE_EACH} < set(PROTOCOLS)


@pytest.mark.parametrize("chosen", ONE_EACH, ids=str)
@pytest.mark.parametrize("store", [DEFAULT_STORE, Path("/scratch/my store")], ids=str)
def test_a_named_command_asks_for_the_same_again(chosen: Chosen, store: Path) -> None:
    assert understood(chosen.command("table1", store), ExperimentOptions) == (chosen, store)


def test_a_setting_names_the_command_that_fetches_for_it_and_leaves_out_what_fetch_does_not_take(tmp_path: Path) -> None:
    (setting,) = settings_for([EXPERIMENTS["table1"]], ALL_AT_ONCE, ArtifactStore(tmp_path), {})
    assert understood(setting.fetch, PaperOptions, "seeds") == (ALL_AT_ONCE.model_copy(update={"seeds": "0"}), tmp_path)
    assert understood(setting.command("table1"), ExperimentOptions) == (ALL_AT_ONCE, tmp_path)


def test_the_store_that_is_used_anyway_is_not_named() -> None:
    (setting,) = settings_for([EXPERIMENTS["table1"]], Chosen(), ArtifactStore(DEFAULT_STORE), {})
    assert setting.run == "replicate table1 --profile mini"


def test_no_message_puts_such_a_command_together_by_itself() -> None:
    """A profile that `init` has just written, and the scripts that a cluster fills in, have no options yet."""
    own = {"cli/init.py", "own_profile/profile_text.py", "launch/slurm/committed_scripts.py"}
    room = ROOT / "replication"
    put_together = re.compile(r"replicate [^\"\n]*--profile \{")
    found = {str(path.relative_to(room)) for path in room.rglob("*.py") if put_together.search(path.read_text(encoding="utf-8"))}
    assert found == own
