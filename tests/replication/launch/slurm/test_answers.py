"""What Slurm and the sites around it answer: ids among other lines, states that are not known, jobs that are held."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replication.launch.slurm import calls
from replication.launch.slurm.calls import ENDED, UNKNOWN, Slurm, SlurmState
from sarm.job import EnvironmentProblem


def answering(monkeypatch: pytest.MonkeyPatch, text: str, known: dict[str, str] | None = None) -> Slurm:
    """A Slurm whose sbatch answers so, and whose squeue knows these ids by these names."""
    listed = "".join(f"{number}|PENDING|Priority|{name}\n" for number, name in (known or {}).items())
    monkeypatch.setattr(calls, "call", lambda command: text if command[0] == "sbatch" else listed if command[0] == "squeue" else "")
    return Slurm()


@pytest.mark.parametrize("text", [
    "12345\n",
    "12345;cluster-a\n",
    "12345\nProject xyz: 97 % of its hours are used\n",
    "Welcome to the cluster\n\n12345\nbye\n",
    "97\n12345;cluster.b\n",
    "12345;cluster_c\n97\n",
    "  12345  \n12345\n",
    "Submitted batch job 12345\n",
    "Submitted batch job 12345 on cluster a\n97\n",
], ids=["plain", "cluster", "words after it", "words around it", "a number before it", "a number after it", "twice", "not parsable",
        "not parsable, on a cluster"])  # fmt: skip
def test_the_id_is_found_among_a_sites_own_lines(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    assert answering(monkeypatch, text).submit(Path("train.sh"), options=()) == "12345"


def test_two_bare_numbers_are_told_apart_by_the_jobs_name(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"97": "someone-elses", "12345": "train"}
    assert answering(monkeypatch, "12345\n97\n", known).submit(Path("train.sh"), options=()) == "12345"
    assert answering(monkeypatch, "97\n12345\n", {"12345": "train"}).submit(Path("train.sh"), options=()) == "12345"


@pytest.mark.parametrize("text", ["", "Submitted\n", "no\n", "12345 97\n", "1\n2\n"])
def test_an_answer_without_one_id_is_refused_and_says_that_the_job_may_wait(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    with pytest.raises(EnvironmentProblem, match=r"cannot tell the job's id from its answer .*it may have been submitted: see squeue"):
        answering(monkeypatch, text).submit(Path("train.sh"), options=())


@given(state=st.from_regex(r"[A-Z_]{2,16}", fullmatch=True))
def test_only_states_that_are_known_to_be_an_end_are_one(state: str) -> None:
    assert SlurmState(state).live == (state not in ENDED and state != UNKNOWN)


@pytest.mark.parametrize("state", ["RESV_DEL_HOLD", "EXPEDITING", "UPDATE_DB", "POWER_UP_NODE", "PREEMPTED", "REVOKED", "PENDING"])
def test_states_of_other_sites_and_versions_are_alive(state: str) -> None:
    assert SlurmState(state).live


@pytest.mark.parametrize(("state", "reason", "held"), [
    ("PENDING", "JobHeldUser", True), ("PENDING", "JobHeldAdmin", True), ("PENDING", "launch failed requeued held", True),
    ("REQUEUE_HOLD", "", True), ("RESV_DEL_HOLD", "", True), ("PENDING", "Priority", False), ("PENDING", "Dependency", False),
    ("FAILED", "JobHeldUser", False),
])  # fmt: skip
def test_a_held_job_is_told_as_such(state: str, reason: str, held: bool) -> None:
    assert SlurmState(state, reason).held == held
