"""What Slurm's commands see of our environment: nothing of another job, nothing that would hide jobs of ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replication.launch.slurm.calls import Slurm, call
from replication.launch.slurm.environment import KEPT, for_slurm

# Names as Slurm 22.05 sets them in an allocation, and families as later versions do.
FOREIGN = (
    "SLURM_JOB_ID", "SLURM_JOBID", "SLURM_MEM_PER_CPU", "SLURM_MEM_PER_NODE", "SLURM_MEM_PER_GPU", "SLURM_NTASKS", "SLURM_NPROCS",
    "SLURM_CPU_BIND", "SLURM_EXPORT_ENV", "SLURM_RESTART_COUNT", "SLURM_ARRAY_TASK_ID", "SLURM_TRES_PER_TASK", "SLURM_CLUSTER_NAME",
    "SLURM_WORKING_CLUSTER", "SLURM_CONF_OUT", "SBATCH_MEM_BIND_TYPE", "SBATCH_CPU_BIND", "SBATCH_WAIT", "SBATCH_JOB_NAME",
    "SBATCH_ARRAY_INX", "SQUEUE_PARTITION", "SQUEUE_NAMES", "SACCT_FORMAT", "SCANCEL_NAME", "SINFO_FORMAT",
)  # fmt: skip
THEIRS = (
    "PATH", "HOME", "SBATCH_ACCOUNT", "SBATCH_PARTITION", "SBATCH_QOS", "SBATCH_EXPORT", "SBATCH_TIMELIMIT", "MYSLURM_X", "SLURMX",
    "SARM_STORE",
)  # fmt: skip
WORDS = st.text(alphabet="ABCDEFGHIJKLMNOPQRSTUVWXYZ_", min_size=1, max_size=20)


@pytest.mark.parametrize("name", FOREIGN)
def test_what_belongs_to_another_job_or_hides_ours_is_left_out(name: str) -> None:
    assert for_slurm({name: "1", "PATH": "/bin"}) == {"PATH": "/bin"}


@pytest.mark.parametrize("name", [*sorted(KEPT), *THEIRS, "SLURM_SACK_JWKS"])
def test_what_leads_to_the_controller_and_what_the_user_asks_stays(name: str) -> None:
    assert for_slurm({name: "value"}) == {name: "value"}


@given(word=WORDS)
def test_a_variable_of_slurm_that_nobody_knows_yet_is_another_jobs(word: str) -> None:
    name = f"SLURM_{word}"
    assert (for_slurm({name: "1"}) == {}) == (name not in KEPT and not name.startswith("SLURM_SACK_"))


@given(words=st.dictionaries(WORDS.filter(lambda word: not word.startswith("S")), st.text(max_size=5)))
def test_everything_else_is_handed_on_as_it_is(words: dict[str, str]) -> None:
    assert for_slurm(words) == words


@pytest.mark.parametrize("command", ["sbatch", "squeue", "scancel", "sacct", "scontrol", "sinfo"])
def test_every_command_of_slurm_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    (tmp_path / command).write_text("#!/bin/bash\nenv\n")
    (tmp_path / command).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name in FOREIGN:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    monkeypatch.setenv("SBATCH_ACCOUNT", "mine")
    seen = {line.partition("=")[0] for line in call([command]).splitlines()}
    assert not seen & set(FOREIGN) and {"SLURM_CONF", "SBATCH_ACCOUNT"} <= seen


def test_a_filter_of_the_users_squeue_does_not_hide_our_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "squeue").write_text('#!/bin/bash\n[[ $SQUEUE_PARTITION ]] || echo "101|RUNNING|None|train"\n')
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SQUEUE_PARTITION", "debug")
    assert Slurm().states(["101"])["101"].live
