"""What sites demand and what environments carry along, on a real Slurm: memory options, setup lines, exports, other jobs' numbers."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from folders import ROOT, SUPPORT
from make_believe_jobs import MeetConfig
from real_slurm import NODES, count, ended, launch, wait

from replication.launch.slurm.calls import call, configuration
from replication.launch.slurm.records import submissions
from replication.launch.slurm.status import submission_logs
from sarm.job import EnvironmentProblem, Job, Resources
from sarm.store.artifacts import ArtifactStore

pytestmark = pytest.mark.slow


def meeting(processes: int = 2, nodes: int = 1) -> Job:
    return Job(MeetConfig(steps=2), resources=Resources(nodes=nodes, processes=processes, memory_gb=1), label="meeting")


def said(store: ArtifactStore, job: Job) -> str:
    return "".join(path.read_text() for path in submission_logs(store, job.key))


def done(store: ArtifactStore, job: Job) -> None:
    """Wait for the end, which must be a good one."""
    seen = wait(store, ended)
    assert [one.state for one in seen.values()] == ["COMPLETED"] and store.has(job), said(store, job)


def from_inside_an_allocation(*options: str) -> dict[str, str]:
    """What a real allocation sets in the shell that runs inside it."""
    found = subprocess.run(["salloc", "--quiet", *options, "env", "-0"], capture_output=True, text=True, check=True)
    pairs = (entry.partition("=") for entry in found.stdout.split("\0"))
    return {name: value for name, _, value in pairs if name.startswith(("SLURM_", "SBATCH_")) and name != "SLURM_CONF"}


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_sites_default_to_export_nothing_does_not_take_the_step_what_it_needs(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch, nodes: int
) -> None:
    monkeypatch.setenv("SBATCH_EXPORT", "NONE")
    # What these tests give by their own shell, and the name of the second node, which stands in no hosts file.
    needed = {"PYTHONPATH": f"{ROOT}:{SUPPORT}", "SARM_MASTER_ADDR": "127.0.0.1"}
    job = meeting(nodes=nodes)
    launch(store, job, nodes=NODES.model_copy(update={"environment": needed}))
    done(store, job)


@pytest.mark.parametrize("by_hand", [False, True], ids=["by the launcher", "by sbatch"])
def test_a_job_that_is_submitted_from_inside_another_has_its_own_numbers(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch, by_hand: bool
) -> None:
    outer = from_inside_an_allocation("--ntasks=2", "--mem-per-cpu=50", "--gres=gpu:a100:1")
    assert outer["SLURM_MEM_PER_CPU"] == "50" and outer["SLURM_NTASKS"] == "2"
    for name, value in {**outer, "SLURM_CPU_BIND": "mask_cpu:0x800000", "SLURM_RESTART_COUNT": "8"}.items():
        monkeypatch.setenv(name, value)
    job = meeting()
    launch(store, job)
    if by_hand:
        # The same script, as one submits a committed one: Slurm hands the shell's variables on.
        number = submissions(store)[job.key].slurm
        call(["scancel", number])
        wait(store, ended)
        script = next((store.root / ".slurm" / "scripts").glob("*.sh"))
        log = store.root / "by-hand.txt"
        command = ["sbatch", "--wait", f"--output={log}", str(script)]
        code = subprocess.run(command, check=False, capture_output=True).returncode
        assert code == 0 and store.has(job), log.read_text()
    else:
        done(store, job)


def test_setup_lines_run_as_sites_expect(store: ArtifactStore, tmp_path: Path) -> None:
    site = tmp_path / "conda.sh"
    site.write_text('false\nPS1="$PS1 and $NO_SUCH_VARIABLE"\nconda() { false; export FOUND="$1 $2"; }\n')
    lines = (f". {site}", "conda activate x", 'if [[ $FOUND != "activate x" ]]; then', "  false", "fi", "cat /dev/null | grep -q x | cat")
    job = meeting()
    launch(store, job, nodes=NODES.model_copy(update={"setup": lines}))
    done(store, job)


def test_a_failing_setup_line_is_told_and_nothing_runs(store: ArtifactStore) -> None:
    job = count(0)
    launch(store, job, nodes=NODES.model_copy(update={"setup": ("true", "conda-is-not-here activate x", "touch never")}))
    seen = wait(store, ended)
    assert [one.state for one in seen.values()] == ["FAILED"] and not store.has(job)
    line = "conda-is-not-here activate x: exit code 127; mend setup in the file of cluster pretended"
    assert line in said(store, job), said(store, job)
    assert "ExitCode=7:0" in call(["scontrol", "show", "job", submissions(store)[job.key].slurm])


@pytest.mark.parametrize(("flag", "options", "asked"), [
    ("mem", (), "MinMemoryNode=1G"), ("mem-per-cpu", (), "MinMemoryCPU=512M"), ("none", ("--mem-per-cpu=99",), "MinMemoryCPU=99M"),
])  # fmt: skip
def test_memory_is_asked_for_as_the_site_wants_it(store: ArtifactStore, flag: str, options: tuple[str, ...], asked: str) -> None:
    job = meeting()
    launch(store, job, nodes=NODES.model_copy(update={"memory_flag": flag, "options": options}))
    done(store, job)
    shown = call(["scontrol", "show", "job", submissions(store)[job.key].slurm])
    assert re.search(rf"\b{asked}\b", shown), shown


def test_a_site_that_grants_memory_and_forbids_to_ask_takes_the_script_that_does_not(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "lua" not in configuration()["JobSubmitPlugins"]:
        pytest.skip("this Slurm has no job_submit/lua, with which the site is pretended")
    monkeypatch.setenv("SBATCH_PARTITION", "granted")
    for flag in ("mem", "mem-per-cpu"):
        with pytest.raises(EnvironmentProblem, match="memory comes with the cores here"):
            launch(store, meeting(), nodes=NODES.model_copy(update={"memory_flag": flag}))
    job = meeting()
    launch(store, job, nodes=NODES.model_copy(update={"memory_flag": "none"}))
    done(store, job)
    shown = call(["scontrol", "show", "job", submissions(store)[job.key].slurm])
    assert "MinMemoryCPU=300M" in shown and "Partition=granted" in shown, shown
