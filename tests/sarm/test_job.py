"""Keys of jobs: what a config says of itself, and why a setting that joins later moves no key.

Artifacts are found by key, and some took forty GPU-hours. A key may move only together with the `version` of its kind, in the commit
that changes what the job computes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sarm.job import IntegrityProblem, Job, JobConfig, JobRequest, UsageProblem, added
from sarm.jobs.process.registry import Registry
from sarm.store.manifest import FileRecord, Manifest, RunFacts


class Before(JobConfig):
    """As it was when people filled their stores."""

    kind: ClassVar[str] = "dig"
    version: ClassVar[int] = 1

    depth: int = 3
    tools: tuple[str, ...] = ("spade",)


class After(Before):
    """The same kind a year later."""

    lamp: bool = added(False, description="Whether it is lit.")
    width: float = added(1.5, description="Metres.", gt=0)
    marks: tuple[int, ...] = added((), description="Where to stop.")


class Wall(BaseModel):
    """A part of a config."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    height: int = 2
    colour: str = added("none", description="Of the paint.")


class House(JobConfig):
    """A config with parts."""

    kind: ClassVar[str] = "house"
    version: ClassVar[int] = 1

    front: Wall = Wall()
    sides: tuple[Wall, ...] = (Wall(), Wall(height=3))
    named: dict[str, Wall] = Field(default_factory=lambda: {"back": Wall()})
    floor: Wall = added(Wall(height=0), description="Below.")


REGISTRY = Registry(jobs={"dig": (After, "nowhere:dig"), "house": (House, "nowhere:build")})


def written(job: Job) -> JobRequest:
    """The request as another process reads it."""
    return JobRequest.model_validate_json(JobRequest.of(job).model_dump_json())


def manifest_of(request: JobRequest) -> Manifest:
    from datetime import UTC, datetime

    now = datetime(2026, 1, 2, tzinfo=UTC)
    return Manifest.of(request, {"a": FileRecord(sha256="0" * 64, bytes=1)}, RunFacts(now, now, 1.0, 1))


def test_an_added_field_at_its_default_leaves_the_key_as_it_was() -> None:
    assert Job(After()).key == Job(Before()).key
    assert Job(After(depth=4, lamp=False, width=1.5)).key == Job(Before(depth=4)).key
    below = Job(Before(depth=1)), Job(After(depth=1))
    assert Job(Before(), inputs={"below": below[0]}).key == Job(After(), inputs={"below": below[1]}).key


@pytest.mark.parametrize("change", [{"lamp": True}, {"width": 2.0}, {"marks": (1,)}])
def test_at_another_value_it_gives_another_key(change: dict[str, Any]) -> None:
    keys = {Job(After()).key, Job(After(**change)).key, Job(After(depth=4, **change)).key}
    assert len(keys) == 3


def test_content_names_what_was_there_before_and_what_was_changed() -> None:
    assert After().content() == {"depth": 3, "tools": ["spade"]}
    assert After(marks=(1, 2)).content() == {"depth": 3, "tools": ["spade"], "marks": [1, 2]}
    assert list(After().model_dump()) == ["depth", "tools", "lamp", "width", "marks"]


def test_an_added_field_of_a_part_is_left_out_too() -> None:
    plain = {"front": {"height": 2}, "sides": [{"height": 2}, {"height": 3}], "named": {"back": {"height": 2}}}
    assert House().content() == plain
    painted = House(sides=(Wall(colour="red"),), named={"back": Wall(colour="blue")}, floor=Wall())
    assert painted.content() == {
        **plain, "sides": [{"height": 2, "colour": "red"}], "named": {"back": {"height": 2, "colour": "blue"}}, "floor": {"height": 2}
    }  # fmt: skip


@pytest.mark.parametrize("config", [After(), After(lamp=True, width=0.5), House(), House(front=Wall(colour="red"))])
def test_request_registry_and_manifest_agree_with_the_key(config: JobConfig) -> None:
    job = Job(config, label="it")
    request = written(job)
    assert request.key == job.key and request.config == config.content()
    assert REGISTRY.config_of(request) == config
    manifest = manifest_of(request)
    assert manifest.key_fits and manifest.config == config.content()
    assert Manifest.model_validate_json(manifest.text()).key_fits


def test_a_request_from_before_the_field_is_run_as_it_was_meant() -> None:
    assert REGISTRY.config_of(written(Job(Before(depth=5)))) == After(depth=5)


@pytest.mark.parametrize("change", [{"lamp": False}, {"depth": 3.0}], ids=["an added default", "a number written otherwise"])
def test_a_request_whose_manifest_would_not_fit_its_key_is_refused(change: dict[str, Any]) -> None:
    request = written(Job(After()))
    other = request.model_copy(update={"config": {**request.config, **change}})
    assert not manifest_of(other).key_fits
    with pytest.raises(IntegrityProblem, match=rf"not written as its key counts it \({next(iter(change))}\)"):
        REGISTRY.config_of(other)
    short = request.model_copy(update={"config": {}})
    with pytest.raises(IntegrityProblem, match=r"\(depth, tools\)"):
        REGISTRY.config_of(short)


def test_an_added_field_is_held_to_its_constraints_and_described(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="greater than 0"):
        After(width=0)
    assert After.model_fields["width"].description == "Metres."
    assert json.dumps(After.model_json_schema())


@pytest.mark.parametrize("brought", ["\x1b[31m", "\ud800", "\x00", "\r"])
def test_what_a_file_brings_into_a_message_cannot_reach_the_terminal(brought: str) -> None:
    told = str(UsageProblem(f"a.json: model is {brought}\nb.json: Größe is fine"))
    told.encode("utf-8")
    assert all(sign.isprintable() for line in told.splitlines() for sign in line)
    assert told.splitlines()[1] == "b.json: Größe is fine"


def test_a_line_without_an_end_keeps_what_is_wrong_and_the_next_step() -> None:
    told = str(UsageProblem(f"a.json: type {'x' * 100_000} is unknown; fetch it again\nand b.json"))
    first, second = told.splitlines()
    assert len(first) < 1500 and first.startswith("a.json: type xxx") and first.endswith("xxx is unknown; fetch it again")
    assert second == "and b.json"
