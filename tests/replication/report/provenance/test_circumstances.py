"""A report says on what machine and with what resources its work was done, each value that was met."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from fake_launcher import FakeLauncher

from replication.pipeline import replicate
from replication.recipes.setting import Setting
from replication.report.provenance.circumstances import found_in
from replication.report.render.page import page
from replication.report.render.terminal.printing import plain_text
from replication.settings.experiments import TABLE1
from replication.settings.profile_files import load_profile
from replication.settings.protocols import PROTOCOLS
from sarm.store.artifacts import ArtifactStore


def test_a_report_says_machine_threads_packages_and_resources_of_what_a_model_computed(tmp_path: Path) -> None:
    setting = Setting(experiment=TABLE1, profile=load_profile("mini", environment={}), protocol=PROTOCOLS["paper"])
    store = ArtifactStore(tmp_path / "store")
    made = replicate(
        [replace(setting, rows="sarm-1b")], store, FakeLauncher(), watch=lambda event: None, rendered=tmp_path / "out", command="c"
    )
    found = {one.what: one.values for one in made.reports[0].circumstances}
    trained = [one for one in store.entries() if one.kind == "train_sae"]
    tokens = str(trained[0].resources["micro_batch_tokens"])
    assert found["train_sae: tokens of a pass"] == (tokens,)
    assert found["train_reward: processes"] == ("1",) and found["torch"] == (trained[0].packages["torch"],)
    assert found["threads"] == (str(torch.get_num_threads()),) and "score_benchmark: tokens of a pass" not in found
    assert "processes" not in made.reports[0].computed_with
    told = f": tokens of a pass {tokens}"
    assert told in plain_text(made.reports[0], full=True).replace("\n", " ") and f"train_sae{told}" in page(made.reports)
    texts = {path.suffix: path.read_text(encoding="utf-8") for path in made.files}
    assert all("Computed with: " in texts[suffix] and told in texts[suffix] for suffix in (".md", ".html", ".tex"))


def test_each_value_is_told_once_and_what_an_artifact_does_not_say_is_left_out(tmp_path: Path) -> None:
    setting = Setting(experiment=TABLE1, profile=load_profile("mini", environment={}), protocol=PROTOCOLS["paper"])
    store = ArtifactStore(tmp_path / "store")
    replicate([setting], store, FakeLauncher(), watch=lambda event: None, rendered=tmp_path / "out", command="c")
    one = next(one for one in store.entries() if one.kind == "train_reward")
    assert one.hardware.threads == torch.get_num_threads()
    other, older = (
        one.model_copy(update={"hardware": one.hardware.model_copy(update=changed)})
        for changed in ({"threads": 7, "processor": "another"}, {"threads": 0, "processor": "", "gpus": ("H100", "H100")})
    )
    found = {told.what: told.values for told in found_in([one, other, one, older])}
    assert set(found["threads"]) == {"7", str(one.hardware.threads)} and set(found["processor"]) == {"another", one.hardware.processor}
    assert found["GPU"] == ("H100",)
