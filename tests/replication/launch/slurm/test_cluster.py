"""The generated scripts on a real Slurm: two pretended nodes of this machine (tests/slurm_cluster/cluster.sh)."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from folders import ROOT, SUPPORT
from make_believe_jobs import MeetConfig
from real_slurm import COMMAND, NODES, PATIENCE_SECONDS, count, ended, launch, total, wait

from replication import pipeline
from replication.data_folders import slurm_folder
from replication.launch.local import LocalLauncher
from replication.launch.slurm.calls import Slurm, call, configuration, partitions
from replication.launch.slurm.chain import Bundle
from replication.launch.slurm.records import submissions
from replication.launch.slurm.script import LaunchFolders
from replication.launch.slurm.status import cancel_jobs, mismatches, submission_logs
from replication.launch.slurm.submission import Chain, SlurmLauncher
from replication.plan import steps
from replication.recipes.requested import Chosen, experiments_named, settings_for
from replication.settings.clusters import load_cluster, on_cluster
from replication.settings.profiles import shipped_profiles
from sarm.job import Job, Resources
from sarm.store.artifacts import ArtifactStore

pytestmark = pytest.mark.slow

# One minute is the shortest limit that Slurm keeps; it may warn up to a minute early.
SHORT = NODES.model_copy(update={"max_hours": 1 / 60, "warning_seconds": 10})
# The miniature with every size cut down: what counts here is the way, not the numbers.
TINY = {
    "corpus_documents": 600,
    "training_pairs": 200,
    "evaluation_pairs": 40,
    "benchmark_rows": 12,
    "ties_prompts": 4,
    "rmbench_items": 6,
    "steps": 4,
    "vectors": 24000,
    "batch_vectors": 256,
    "buffer_vectors": 1024,
    "held_out_vectors": 256,
    "epochs": 1,
    # As in the committed script, for its cluster: passes of another size round otherwise, and bytes are compared.
    "micro_batch_tokens": load_cluster("rtx3090").resources["train_sae"]["micro_batch_tokens"],
}
# The commands `slurm ...` hang on the command line, whether it has taken them in or not.
REPLICATE = (
    "import replication.cli.app as cli; from replication.cli.slurm import slurm_app; "
    "any(group.name == 'slurm' for group in cli.app.registered_groups) or cli.app.add_typer(slurm_app, name='slurm'); cli.main()"
)


def chain_of(store: ArtifactStore, job: Job) -> list[int]:
    found: list[int] = json.loads((store.path(job) / "deep" / "chain.json").read_text())
    return found


def expected_chain(seed: int, steps: int) -> list[int]:
    chain = [seed]
    for step in range(steps):
        chain.append((chain[-1] * 31 + step) % 1009)
    return chain


def test_a_chain_with_arrays_runs_and_a_failed_task_stops_only_what_needs_it(store: ArtifactStore) -> None:
    counts = [count(seed, trouble="crash" if seed == 1 else "none") for seed in range(3)]
    sums = [total(job) for job in counts]
    launch(store, *sums)
    ids = {key: one.slurm for key, one in submissions(store).items()}
    assert [ids[job.key].partition("_")[2] for job in (*counts, *sums)] == ["0", "1", "2"] * 2, "two arrays"
    seen = wait(store, ended)
    assert {label: one.state for label, one in seen.items()} == {
        "count 0": "COMPLETED", "count 1": "FAILED", "count 2": "COMPLETED",
        "sum of count 0": "COMPLETED", "sum of count 1": "CANCELLED", "sum of count 2": "COMPLETED",
    }  # fmt: skip
    assert [store.has(job) for job in sums] == [True, False, True]
    script_log = submission_logs(store, ids[counts[1].key])[-1].read_text()
    assert "count 1: ValueError: first line" in script_log and "Traceback" in submission_logs(store, counts[1].key)[0].read_text()
    # Again: the failed one and what needs it, and nothing else.
    notes = launch(store, *sums)
    assert len(notes) == 2 and "ended as FAILED" in notes[0] and "ended as CANCELLED" in notes[1]
    assert wait(store, ended)["sum of count 1"].state == "CANCELLED"


def test_a_time_out_is_requeued_from_its_checkpoint_and_what_waits_goes_on_waiting(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAKE_BELIEVE_SECONDS", "0.25")
    slow = count(4, steps=250)
    launch(store, total(slow), nodes=SHORT)
    seen = wait(store, ended)
    assert [one.state for one in seen.values()] == ["COMPLETED", "COMPLETED"]
    assert chain_of(store, slow) == expected_chain(4, 250), "as if it had never been stopped"
    told = submission_logs(store, slow.key)[0].read_text()
    starts = [int(line.rpartition(" ")[2]) for line in told.splitlines() if "starts at step" in line]
    assert starts[0] == 0 and len(starts) > 1 and starts == sorted(set(starts)), "each start where the last one stopped"
    assert "USR1: stop requested" in submission_logs(store, slow.key)[1].read_text()


def test_a_cancelled_job_keeps_its_checkpoint_does_not_come_back_and_is_resumed_by_the_same_command(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAKE_BELIEVE_SECONDS", "0.2")
    slow, quick = count(5, steps=200), count(6)
    end = total(slow, quick)
    launch(store, end)
    wait(store, lambda seen: seen["count 5"].progress != "" and seen["count 6"].artifact == "present")
    assert "already (RUNNING)" in launch(store, end)[0], "nothing is submitted twice"
    assert len({one.slurm for one in submissions(store).values()}) == 3
    assert [one.label for one in cancel_jobs(store, slow.short_key, Slurm())] == ["count 5"]
    seen = wait(store, ended)
    assert (seen["count 5"].state, seen["sum of count 5"].state) == ("CANCELLED", "CANCELLED")
    assert seen["count 5"].artifact == "interrupted" and "checkpoint" in store.state(slow).reason
    monkeypatch.setenv("MAKE_BELIEVE_SECONDS", "0")
    notes = launch(store, end)
    assert len(notes) == 2 and all("ended as CANCELLED" in note for note in notes)
    wait(store, ended)
    assert store.has(end) and chain_of(store, slow) == expected_chain(5, 200)
    assert launch(store, end) == [], "all is there"


def tiny_profile(folder: Path) -> Path:
    text = shipped_profiles()["mini"].read_text(encoding="utf-8")
    for name, size in TINY.items():
        text, count = re.subn(rf"\b{name} = \d+", f"{name} = {size}", text)
        assert count, f"the mini profile has no {name} any more"
    (folder / "tiny.toml").write_text(text, encoding="utf-8")
    return folder / "tiny.toml"


def environment_with_replicate(folder: Path) -> dict[str, str]:
    """A folder that looks like a virtual environment of this project, also from a checkout that is not installed."""
    bin_ = folder / "environment" / "bin"
    bin_.mkdir(parents=True)
    programs = {"python": '"$@"', "replicate": f'-c "{REPLICATE}" "$@"'}
    for name, arguments in programs.items():
        (bin_ / name).write_text(f"#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments}\n")
        (bin_ / name).chmod(0o755)
    return {**os.environ, "SARM_VENV": str(bin_.parent), "PYTHONPATH": str(ROOT)}


def sbatch(*arguments: str, environment: dict[str, str], folder: Path) -> int:
    """Submit from the checkout, wait for the end, and give the exit code of the script."""
    command = ["sbatch", "--wait", *_small(folder), *arguments]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)
    return done.returncode


def sbatch_and_warn(*arguments: str, environment: dict[str, str], folder: Path, jobs: Path) -> str:
    """Submit, send the batch shell what Slurm sends before the time is over once the work advances, and give the log at the end."""
    done = subprocess.run(["sbatch", *_small(folder), *arguments], env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    task = f"{done.stdout.strip()}_0"
    events = jobs / task / "events.jsonl"
    warned = False
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        told = events.read_text() if events.exists() else ""
        if not warned and '"event": "progress"' in told:
            call(["scancel", "--batch", "--signal=USR1", task])
            warned = True
        if '"event": "done"' in told or '"event": "failed"' in told:
            break
        time.sleep(0.1)
    return "".join(path.read_text() for path in folder.glob("log-*.txt"))


def _small(folder: Path) -> list[str]:
    return ["--parsable", "--mem=1G", "--cpus-per-task=1", f"--output={folder}/log-%x.txt"]


def test_table1_runs_as_a_chain_and_the_same_command_renders_it_and_a_committed_script_does_its_part(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    profile = tiny_profile(tmp_path)
    chosen = Chosen(profile=str(profile), rows="small")
    settings = settings_for(experiments_named(["table1"]), chosen, store, os.environ)
    launcher = SlurmLauncher(command=COMMAND, cluster=NODES, here=LocalLauncher(command=COMMAND), report=lambda text: None)

    def replicate() -> pipeline.Outcome:
        return pipeline.replicate(settings, store, launcher, watch=lambda event: None, rendered=tmp_path / "tables", command=COMMAND)

    first = replicate()
    assert first.code == 0 and not pipeline.measured(first.reports[0])
    arrays = [one.slurm for one in submissions(store).values() if one.kind == "train_reward"]
    assert [one.partition("_")[2] for one in arrays] == ["0", "1"], "reward models follow their SAEs task by task"
    seen = wait(store, ended)
    assert {one.state for one in seen.values()} == {"COMPLETED"}, {label: one.state for label, one in seen.items()}
    again = replicate()
    assert (again.code, again.started) == (0, 0) and pipeline.measured(again.reports[0])
    # The committed script finds the same job in the same store; without its artifact it makes it again.
    sae = next(job for job in steps.plan(settings, store).steps if job.job.kind == "train_sae").job
    before = store.manifest(sae)
    store.path(sae).rename(tmp_path / "moved")
    environment = {**environment_with_replicate(tmp_path), "SARM_STORE": str(store.root), "SARM_PROFILE": str(profile)}
    jobs = store.root / ".slurm" / "jobs"
    log = sbatch_and_warn("--array=0", "slurm/sae_3b.sh", environment=environment, folder=tmp_path, jobs=jobs)
    assert "USR1: stop requested" in log and "stopped at step" in log, log
    assert store.manifest(sae).files["sae.safetensors"] == before.files["sae.safetensors"], "the same bytes as without a stop"


def test_before_fetch_a_committed_script_stops_at_once_and_names_the_command(store: ArtifactStore, tmp_path: Path) -> None:
    environment = {**environment_with_replicate(tmp_path), "SARM_STORE": str(store.root)}
    began = time.monotonic()
    assert sbatch("slurm/sae_8b.sh", environment=environment, folder=tmp_path) == 7
    # Slurm's own start and end take a part of it; the script itself is asked in test_slurm_scripts.
    assert time.monotonic() - began < 15
    assert "run: replicate fetch table1 --profile paper" in (tmp_path / "log-sarm-sae-8b.txt").read_text()


@pytest.mark.parametrize("script", sorted(path.relative_to(slurm_folder()).as_posix() for path in slurm_folder().rglob("*.sh")))
def test_slurm_takes_the_directives_of_a_committed_script(cluster: None, script: str) -> None:
    # Cores are few on our nodes; GPUs, arrays, signals and the rest are as written.
    call(["sbatch", "--test-only", "--cpus-per-task=1", str(slurm_folder() / script)])


@pytest.mark.parametrize(("machines", "ranks"), [(2, 4), (1, 2)])
def test_processes_meet_under_torchrun_and_stop_together(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machines: int, ranks: int
) -> None:
    """The multi-node rehearsal: srun on two slurmd, one torchrun each, two gloo ranks each, which do one job and stop together."""
    # The second node's name stands in no hosts file.
    monkeypatch.setenv("SARM_MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MAKE_BELIEVE_SECONDS", "0.1")
    job = Job(MeetConfig(steps=120), resources=Resources(nodes=machines, processes=ranks, memory_gb=2), label="meeting")
    place = LaunchFolders(
        store=shlex.quote(str(store.root)), python=str(Path(sys.executable).parent), source=shlex.quote(f"{ROOT}:{SUPPORT}")
    )
    texts: list[str] = []

    def submit(name: str, text: str, bundle: Bundle) -> str:
        texts.append(text)
        return "1"

    Chain(NODES, COMMAND, place, "make_believe_jobs:MAKE_BELIEVE").hand_over([on_cluster(job, NODES)], {}, submit)
    (tmp_path / "nodes.sh").write_text(texts[0])
    log = tmp_path / "log.txt"
    command = ["sbatch", "--parsable", f"--output={log}", str(tmp_path / "nodes.sh")]
    number = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    folder = store.root / ".slurm" / "jobs" / number
    warned = False
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end and not store.has(job):
        told = (folder / "events.jsonl").read_text() if (folder / "events.jsonl").exists() else ""
        if not warned and '"event": "progress"' in told:
            # What Slurm sends before the time is over: all stop at one step, and the job is requeued and goes on.
            call(["scancel", "--batch", "--signal=USR1", number])
            warned = True
        time.sleep(0.5)
    said = log.read_text()
    assert store.has(job), said
    assert "stopped at step" in (folder / "events.jsonl").read_text() and "USR1: stop requested" in said
    assert json.loads((store.path(job) / "total.json").read_text()) == {"total": 120.0 * sum(range(1, ranks + 1)), "processes": ranks}


def test_the_descriptions_are_held_against_what_slurm_says(cluster: None) -> None:
    for name in ("a100", "rtx3090"):
        assert mismatches(load_cluster(name), configuration(), partitions()) == []
    other: Sequence[str] = mismatches(NODES.model_copy(update={"gpu_name": "h100"}), configuration(), partitions())
    assert len(other) == 1 and "gpu:a100:4" in other[0]
