"""The command that a report names: what a shell takes, with nothing in it that is the default."""

from __future__ import annotations

import pytest

from replication.recipes.setting import Setting
from replication.report.provenance.framing import command_of
from replication.settings.experiments import EXPERIMENTS, Experiment, ablation, ablation_names, sweep
from replication.settings.profile_files import load_profile
from replication.settings.protocols import PROTOCOLS


def setting(experiment: Experiment, **changed: object) -> Setting:
    facts = {"profile": load_profile("mini", environment={}), "protocol": PROTOCOLS["paper"]} | changed
    return Setting(experiment=experiment, **facts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "command"),
    [
        (setting(EXPERIMENTS["table1"]), "replicate table1"),
        (
            setting(EXPERIMENTS["table2"], protocol=PROTOCOLS["authors"], seeds=(0, 1), rows="sarm-*"),
            "replicate table2 --protocol authors --rows 'sarm-*' --seeds 0,1",
        ),
        (setting(sweep("k", ())), "replicate sweep --axis k"),
        (setting(ablation(ablation_names()[0])), f"replicate ablation --name {ablation_names()[0]}"),
        (
            setting(EXPERIMENTS["table1"], source="released", overrides={"scoring": {"limit": 3, "dtype": "float32"}}),
            "replicate table1 --from released --set scoring.limit=3 --set scoring.dtype=float32",
        ),
    ],
)
def test_the_command_of_a_setting(given: Setting, command: str) -> None:
    assert command_of(given) == command
