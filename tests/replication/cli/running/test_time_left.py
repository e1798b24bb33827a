"""The time left: of one job from its own pace, of all jobs from how far those of a kind kept to the plan."""

from __future__ import annotations

import pytest

from replication.cli.running.time_left import Expected, Pace, Remaining


class Clock:
    """A time that the test sets."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_what_a_checkpoint_had_done_before_does_not_count_as_pace() -> None:
    clock = Clock()
    pace = Pace(clock)
    assert pace.told(done=500, total=600) == (None, None)
    clock.seconds += 10
    assert pace.told(done=505, total=600) == (None, None), "too little is known"
    clock.seconds += 10
    assert pace.told(done=520, total=600) == (1.0, 80.0)


def jobs(**seconds: float) -> dict[str, Expected]:
    """`train_1=100`: a job of that key, whose kind is `train`."""
    return {key: Expected(key.partition("_")[0], expected) for key, expected in seconds.items()}


def test_jobs_take_what_the_plan_says_in_the_proportion_in_which_finished_ones_did() -> None:
    clock = Clock()
    remaining = Remaining(jobs(train_1=100, train_2=300), clock)
    assert remaining.left() is None
    remaining.started("train_1")
    clock.seconds += 50
    remaining.finished("train_1", 50)
    # The first took half of what was expected: so will the second.
    assert remaining.left() == pytest.approx(150)
    remaining.started("train_2")
    clock.seconds += 100
    assert remaining.left() == pytest.approx(50)
    # Now it tells that it is slower.
    remaining.told("train_2", 75)
    clock.seconds += 5
    assert remaining.left() == pytest.approx(70)
    assert Remaining({}, clock).left() is None


def test_a_kind_that_is_slower_than_expected_is_told_by_its_own() -> None:
    """The real example said 76 s of scorings that took 5 minutes, since its trainings had kept to the plan."""
    clock = Clock()
    remaining = Remaining(jobs(train_1=1000, train_2=1000, score_1=10, score_2=10, explain_1=20), clock)
    for key, seconds in (("train_1", 1000), ("score_1", 100)):
        remaining.started(key)
        clock.seconds += seconds
        remaining.finished(key, seconds)
    # Nothing has been explained yet: as far off as all, 1,100 s instead of 1,010.
    assert remaining.left() == pytest.approx(1000 + 100 + 20 * 1100 / 1010)


def test_jobs_go_side_by_side_as_far_as_they_have_and_none_is_cut_in_two() -> None:
    clock = Clock()
    remaining = Remaining(jobs(train_1=100, train_2=100, train_3=100, train_4=100, train_5=100), clock)
    for key in ("train_1", "train_2"):
        remaining.started(key)
    clock.seconds += 100
    for key in ("train_1", "train_2"):
        remaining.finished(key, 100)
    assert remaining.left() == pytest.approx(150)
    for key in ("train_3", "train_4"):
        remaining.finished(key)
    assert remaining.left() == pytest.approx(100)
    remaining.finished("train_5")
    assert remaining.left() == 0


def test_a_job_at_work_tells_of_those_of_its_kind() -> None:
    clock = Clock()
    remaining = Remaining(jobs(train_1=100, train_2=100), clock)
    remaining.started("train_1")
    clock.seconds += 30
    remaining.told("train_1", None)
    assert remaining.left() is None
    remaining.told("train_1", 170)
    assert remaining.left() == pytest.approx(170 + 200)


def test_jobs_in_one_pass_are_one_at_work_and_share_its_time() -> None:
    """SAEs of one backbone are trained in one pass over its states: one process, and its seconds once."""
    clock = Clock()
    remaining = Remaining(jobs(sae_1=50, sae_2=50, sae_3=50, sae_4=50, train_1=200), clock)
    for key in ("sae_1", "sae_2", "sae_3", "sae_4"):
        remaining.started(key, 4)
    clock.seconds += 100
    remaining.told("sae_1", 100)
    assert remaining.left() == pytest.approx(100 + 200)
    clock.seconds += 100
    for key in ("sae_1", "sae_2", "sae_3", "sae_4"):
        remaining.finished(key, 50)
    assert remaining.left() == pytest.approx(200)


def test_what_is_small_beside_all_tells_nothing_yet() -> None:
    clock = Clock()
    remaining = Remaining(jobs(make_1=1, train_1=100), clock)
    remaining.started("make_1")
    clock.seconds += 30
    remaining.finished("make_1", 30)
    assert remaining.left() is None
