"""The command that a report names: what a shell takes, with nothing in it that is the default."""

from __future__ import annotations

from pathlib import Path

import pytest
from folders import ROOT

from replication.cli.running.runs import COMMANDS
from replication.recipes.jobs_needed import recipe
from replication.recipes.requested import Chosen, settings_for
from replication.report.provenance.framing import command_of
from replication.report.results.judges import not_asked
from replication.settings.experiments import EXPERIMENTS, Experiment, ablation, ablation_names, sweep
from sarm.store.artifacts import ArtifactStore


@pytest.mark.parametrize(
    ("experiment", "chosen", "command"),
    [
        (EXPERIMENTS["table1"], Chosen(), "replicate table1"),
        (
            EXPERIMENTS["table2"],
            Chosen(protocol="authors", seeds="0,1", rows="sarm-*"),
            "replicate table2 --protocol authors --rows 'sarm-*' --seeds 0,1",
        ),
        (sweep("k", ()), Chosen(), "replicate sweep --axis k"),
        (sweep("k", (48, 96)), Chosen(seeds="1"), "replicate sweep --axis k --values 48,96 --seeds 1"),
        (ablation(ablation_names()[0]), Chosen(), f"replicate ablation --name {ablation_names()[0]}"),
        (
            EXPERIMENTS["table1"],
            Chosen(source="released", assignments=("scoring.limit=3", "scoring.dtype=float32")),
            "replicate table1 --from released --set scoring.limit=3 --set scoring.dtype=float32",
        ),
    ],
)
def test_the_command_of_a_setting(experiment: Experiment, chosen: Chosen, command: str, tmp_path: Path) -> None:
    (setting,) = settings_for([experiment], chosen, ArtifactStore(tmp_path), {})
    assert command_of(setting) == command


def test_a_report_s_command_holds_no_place_of_this_machine(tmp_path: Path) -> None:
    profile = tmp_path / "own.toml"
    profile.write_text((ROOT / "replication" / "profiles" / "mini.toml").read_text(encoding="utf-8"), encoding="utf-8")
    chosen = Chosen(profile=str(profile), assignments=(f"released.mine.path={tmp_path}", "reward.epochs=1"))
    (setting,) = settings_for([EXPERIMENTS["table1"]], chosen, ArtifactStore(tmp_path / "store"), {})
    assert command_of(setting) == "replicate table1 --profile own.toml --set reward.epochs=1"
    assert str(tmp_path) not in not_asked(recipe(setting))


@pytest.mark.parametrize("part", [ablation(ablation_names()[0]), sweep("k", (48,))], ids=lambda one: one.name)
def test_what_is_named_for_a_part_of_a_table_are_commands_that_there_are(part: Experiment, tmp_path: Path) -> None:
    """An ablation and a sweep stand in no registry: `replicate sweep-k` and `replicate fetch sweep-k` would be no commands."""
    (setting,) = settings_for([part], Chosen(), ArtifactStore(tmp_path), {})
    assert setting.fetch.split()[:3] == ["replicate", "fetch", part.whole] and part.whole in EXPERIMENTS
    word, option, value, *_ = setting.run.removeprefix("replicate ").split()
    assert word in COMMANDS and (option, value) in {("--name", ablation_names()[0]), ("--axis", "k")}
