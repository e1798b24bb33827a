"""What a report says of what was read: data sets, and turns that chat templates did not write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_launcher import commit

from replication.recipes.jobs_needed import recipe
from replication.recipes.requested import Chosen, settings_for
from replication.report.provenance.data_counts import FACTS, data_counts
from replication.settings.experiments import EXPERIMENTS
from sarm.job import topological_order
from sarm.store.artifacts import ArtifactStore


@pytest.mark.parametrize("kind", sorted(set(FACTS) - {"prepare_data"}))
def test_turns_that_a_template_left_out_stand_under_the_table(tmp_path: Path, kind: str) -> None:
    store = ArtifactStore(tmp_path)
    (setting,) = settings_for([EXPERIMENTS["related"]], Chosen(), store, {})
    made = recipe(setting)
    job, other = [one for one in topological_order(made.jobs) if one.kind == kind][:2]
    commit(other, store, lambda output: (output / FACTS[kind]).write_text("{}", encoding="utf-8"))
    assert data_counts(made, store) is None
    told = {"turns_not_written": {"assistant": 2, "system": 120}}
    commit(job, store, lambda output: (output / FACTS[kind]).write_text(json.dumps(told), encoding="utf-8"))
    listing = data_counts(made, store)
    assert listing is not None
    words = "turns, with each reply, that the chat template leaves out or changes: assistant (2), system (120)"
    assert listing.rows == ((job.label, "", "", "", words),)
