"""The keys of table 1 as they stand in people's stores; `held_keys` says when one may move."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
from fake_launcher import commit
from held_keys import hold

from replication.plan.steps import plan, why_never_built
from replication.plan.view import values
from replication.recipes.setting import Setting
from replication.settings.experiments import TABLE1
from replication.settings.profile_files import load_profile
from replication.settings.protocols import PROTOCOLS
from sarm.job import Job, JobConfig, added
from sarm.store.artifacts import ArtifactStore


@pytest.mark.parametrize("name", ["mini", "paper"])
def test_table_1_has_the_keys_that_are_in_people_s_stores(name: str, tmp_path: Path) -> None:
    # The hub's commits are part of a key; a launch pins them first, here to one that never changes.
    pins = {repository: "a" * 40 for repository, _ in load_profile(name, environment={}).unpinned()}
    setting = Setting(experiment=TABLE1, profile=load_profile(name, environment={}, pins=pins), protocol=PROTOCOLS["paper"])
    jobs = values(plan([setting], ArtifactStore(tmp_path)))["jobs"]
    hold([{field: job[field] for field in ("kind", "label", "key")} for job in jobs], f"table1-{name}")


class Before(JobConfig):
    """A kind as it was when the store was filled."""

    kind: ClassVar[str] = "dig"
    version: ClassVar[int] = 1

    depth: int = 3


class After(Before):
    """The same kind with a setting that joined it."""

    lamp: bool = added(False, description="Whether it is lit.")


@pytest.mark.parametrize(
    ("stored", "wanted", "expected"),
    [
        (Before(), After(lamp=True), "values changed: lamp not set -> True"),
        (After(lamp=True), After(), "values changed: lamp True -> not set"),
        (Before(), After(depth=4), "values changed: depth 3 -> 4"),
    ],
)
def test_a_plan_names_the_added_setting_that_differs(stored: JobConfig, wanted: JobConfig, expected: str, tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    commit(Job(stored, label="hole"), store, lambda output: (output / "a").write_text("a"))
    assert why_never_built(Job(wanted, label="hole"), store.entries()) == expected
