"""Clusters, chains, and submission against a pretended Slurm (sbatch, squeue, scancel on PATH)."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fake_launcher import commit
from make_believe_jobs import CountConfig
from pydantic import ValidationError
from slurm_samples import COMMAND, MAKE_BELIEVE, SMALL, count, sae, total

from replication.data_folders import slurm_folder
from replication.launch.interface import Watch
from replication.launch.slurm.calls import Slurm, SlurmState, call
from replication.launch.slurm.chain import bundles
from replication.launch.slurm.records import record, submissions
from replication.launch.slurm.script import indices
from replication.launch.slurm.status import cancel_jobs, hours_of, job_statuses, mismatches, submission_logs
from replication.launch.slurm.submission import PrintLauncher, SlurmLauncher
from replication.launch.status import logs_of, status_lines, store_status
from replication.plan.tasks import Task, tasks_of
from replication.recipes.jobs_needed import recipe
from replication.recipes.setting import Setting
from replication.settings.clusters import Cluster, load_cluster, on_cluster, shipped_clusters, slurm_needs
from replication.settings.experiments import EXPERIMENTS
from replication.settings.profile_files import load_profile
from replication.settings.protocols import PROTOCOLS
from replication.usage_problems import UsageProblems
from sarm.config.weights import WeightsConfig
from sarm.job import EnvironmentProblem, Job, Resources, topological_order
from sarm.store.artifacts import ArtifactStore, MissingArtifact

# --- clusters ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(shipped_clusters()))
def test_a_shipped_cluster_has_room_for_every_job_of_the_papers_profile(name: str) -> None:
    cluster = load_cluster(name)
    for experiment in EXPERIMENTS.values():
        made = recipe(Setting(experiment=experiment, profile=load_profile("paper", environment={}), protocol=PROTOCOLS["paper"]))
        for job in topological_order(made.jobs):
            assert slurm_needs(on_cluster(job, cluster), cluster).memory_gb <= cluster.memory_per_node_gb, job.label


@pytest.mark.parametrize("name", ["a100", "rtx3090"])
def test_a_shipped_cluster_loads(name: str) -> None:
    assert load_cluster(name).name == name and name in shipped_clusters()


def test_mistakes_in_a_cluster_file_are_told_together_with_the_nearest_names(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    text = (slurm_folder() / "clusters" / "a100.toml").read_text().replace("gpus_per_node", "gpus_per_nodes")
    file.write_text(text + '\n[resources.train_sae]\nzero_stages = 2\n[container]\nkind = "docker"\n')
    with pytest.raises(UsageProblems) as caught:
        load_cluster(str(file))
    told = "\n".join(caught.value.problems)
    assert "gpus_per_nodes: unknown key; did you mean 'gpus_per_node'" in told and "gpus_per_node: missing" in told
    assert "train_sae.zero_stages: no such field; did you mean 'zero_stage'" in told and "container.kind" in told
    assert all(problem.startswith(str(file)) for problem in caught.value.problems)
    for wrong in ("a10", str(tmp_path / "absent.toml")):
        with pytest.raises(UsageProblems):
            load_cluster(wrong)


@pytest.mark.parametrize("option", ["--account=me", "-A me", "--partition=gpu", "--qos high"])
def test_account_and_partition_stay_outside(option: str) -> None:
    with pytest.raises(ValidationError, match="SBATCH_ACCOUNT"):
        Cluster.model_validate({**SMALL.model_dump(), "options": [option]})


def test_what_a_job_asks_for() -> None:
    asked = slurm_needs(on_cluster(count(0, gpus=4, processes=4), SMALL), SMALL)
    assert (asked.nodes, asked.gpus, asked.processes, asked.cpus, asked.memory_gb, asked.time) == (2, 2, 2, 4, 1, "01:00:00")
    long = Job(CountConfig(), resources=Resources(hours=100, memory_gb=1))
    assert slurm_needs(on_cluster(long, SMALL), SMALL).time == "02:00:00", "no longer than the partition grants: it requeues itself"
    assert slurm_needs(on_cluster(long, SMALL.model_copy(update={"max_hours": 30.5})), SMALL).minutes == 120
    changed = SMALL.model_copy(update={"resources": {"count": {"micro_batch_tokens": 7}}})
    assert on_cluster(long, changed).resources.micro_batch_tokens == 7 and on_cluster(long, changed).key == long.key


def test_what_the_cluster_does_not_have_is_refused_in_all_points() -> None:
    for job in (
        Job(CountConfig(), resources=Resources(memory_gb=9)),
        count(0, gpus=2, processes=1),
        count(0, gpus=3, processes=3),
    ):
        with pytest.raises(UsageProblems):
            slurm_needs(on_cluster(job, SMALL), SMALL)


# --- chains -----------------------------------------------------------------------------------------------------------------


def test_indices_are_ranges_or_lists() -> None:
    assert indices([0, 1, 2]) == "0-2" and indices([0, 2, 5]) == "0,2,5" and indices([4]) == "4"


def test_tasks_that_wait_for_the_same_become_one_array() -> None:
    first, others = count(0), [total([count(0)], factor) for factor in (1, 2, 3)]
    (bundle,) = bundles([Task((job,)) for job in others], {first.key: "7"})
    assert list(bundle.tasks) == [0, 1, 2] and bundle.dependencies == "afterok:7"
    assert bundle.ids("9") == {job.key: f"9_{index}" for index, job in enumerate(others)}


def test_tasks_that_each_wait_for_one_task_of_an_array_take_its_indices() -> None:
    shared, upstream = count(9), [count(seed) for seed in range(4)]
    ids = {job.key: f"5_{index}" for index, job in enumerate(upstream)} | {shared.key: "3"}
    tasks = [Task((total([shared, upstream[index]]),)) for index in (3, 0, 1)]
    (bundle,) = bundles(tasks, ids)
    assert list(bundle.tasks) == [0, 1, 3] and bundle.dependencies == "afterok:3,aftercorr:5"
    # Two benchmarks for each model: two arrays, since one index can stand only once in each.
    twice = [Task((total([job], factor),)) for job in upstream for factor in (1, 2)]
    assert [(list(one.tasks), one.dependencies) for one in bundles(twice, ids)] == [([0, 1, 2, 3], "aftercorr:5")] * 2


def test_one_task_that_waits_for_an_array_task_or_for_several_is_no_array() -> None:
    upstream = [count(seed) for seed in range(2)]
    ids = {job.key: f"5_{index}" for index, job in enumerate(upstream)}
    (alone,) = bundles([Task((total([upstream[1]]),))], ids)
    (both,) = bundles([Task((total(upstream),))], ids)
    assert (alone.array, alone.dependencies) == (False, "afterok:5_1") and both.dependencies == "afterok:5_0:5_1"
    assert bundles([Task((total(upstream),))], {})[0].dependencies == "", "what is done is not waited for"


def test_saes_over_the_same_text_share_a_task_up_to_the_limit_of_the_cluster() -> None:
    jobs = [sae(1), sae(2), sae(3), sae(1, seed=1)]
    labels = [[job.label for job in task.jobs] for task in tasks_of(jobs, SMALL.model_copy(update={"saes_per_task": 2}))]
    assert labels == [["SAE 1 0", "SAE 2 0"], ["SAE 3 0"], ["SAE 1 1"]]
    assert len(tasks_of(jobs, SMALL)) == 4


# --- submission -------------------------------------------------------------------------------------------------------------

SBATCH = """#!/bin/bash
if [[ -e "$FAKE/refuse" ]]; then echo "sbatch: error: Invalid account" >&2; exit 1; fi
number=$(( $(cat "$FAKE/number" 2> /dev/null || echo 100) + 1 ))
echo "$number" > "$FAKE/number"
printf '%s|' "$number" "${@:1:$#-1}" >> "$FAKE/calls"
basename "${@: -1}" .sh >> "$FAKE/calls"
echo "$number"
"""
FAKES = {
    "sbatch": SBATCH,
    "squeue": '#!/bin/bash\n[[ ! -e "$FAKE/down" ]] || { echo "squeue: error: Unable to contact slurm controller" >&2; exit 1; }\n'
    'cat "$FAKE/queue" 2> /dev/null || true\n',
    "sacct": '#!/bin/bash\necho "Slurm accounting storage is disabled" >&2; exit 1\n',
    "scancel": '#!/bin/bash\necho "$@" >> "$FAKE/cancelled"\n',
}


class Here:
    """A local launcher that makes the artifacts it is asked for appear in `done`."""

    def __init__(self) -> None:
        self.labels: list[str] = []
        self.code = 0

    def launch(self, plan: Sequence[Job], store: ArtifactStore, watch: Watch) -> int:
        self.labels += [job.label for job in plan]
        return self.code


class Fake:
    """A pretended Slurm and a launcher that uses it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store, self.here = folder, ArtifactStore(folder / "store"), Here()
        self.events: list[dict[str, Any]] = []
        self.reports: list[str] = []

    def launch(self, *ends: Job) -> int:
        launcher = SlurmLauncher(
            command=COMMAND, cluster=SMALL, here=self.here, report=self.reports.append, registry=MAKE_BELIEVE
        )
        return launcher.launch(topological_order(ends), self.store, self.events.append)

    def submitted(self) -> list[list[str]]:
        """[id, options..., name] of each sbatch."""
        path = self.folder / "calls"
        return [line.split("|") for line in path.read_text().splitlines()] if path.exists() else []

    def queue(self, *lines: str) -> None:
        names = {call_[0]: call_[-1] for call_ in self.submitted()}
        text = "".join(f"{line}|{names.get(line.split('|')[0].split('_')[0], 'other')}\n" for line in lines)
        (self.folder / "queue").write_text(text)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    for name, text in FAKES.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE", str(tmp_path))
    return Fake(tmp_path)


def options(calls: Sequence[Sequence[str]]) -> list[str]:
    return [",".join(one.removeprefix("--dependency=") for one in call_ if one.startswith("--dependency")) for call_ in calls]


def test_a_chain_is_submitted_with_arrays_and_dependencies(fake: Fake) -> None:
    counts = [count(seed) for seed in range(3)]
    end = total([total([job], 2) for job in counts], 5)
    assert fake.launch(end) == 0
    first, second, last = fake.submitted()
    assert options([first, second, last]) == ["", "aftercorr:101", "afterok:102_0:102_1:102_2"]
    assert all("--kill-on-invalid-dep=yes" in one for one in (first, second, last))
    text = (fake.store.root / ".slurm" / "scripts" / f"{first[-1]}.sh").read_text()
    assert "#SBATCH --array=0-2" in text and f"export SARM_STORE={fake.store.root}" in text
    assert submissions(fake.store)[counts[1].key].slurm == "101_1"
    assert [event["event"] for event in fake.events] == ["waiting"] * 7 and "Slurm job 103" in fake.events[-1]["note"]
    assert "7 jobs submitted to small in 3 scripts, 0 were under way already" in fake.reports[0] and COMMAND in fake.reports[0]


def test_again_submits_only_what_is_missing_wired_to_what_lives(fake: Fake) -> None:
    counts = [count(seed) for seed in range(3)]
    end = total(counts)
    fake.launch(end)
    fake.queue("101_0|RUNNING|None", "101_1|PENDING|Resources", "101_2|FAILED|NonZeroExitCode", "102|CANCELLED|DependencyNeverSatisfied")
    fake.launch(end)
    again = fake.submitted()[2:]
    assert len(again) == 2, "the failed count and the sum"
    assert options(again) == ["", "afterok:101_0:101_1:103"]
    notes = {event["label"]: event["note"] for event in fake.events[4:]}
    assert "already (RUNNING)" in notes["count 0"] and "its last one, 101_2, ended as FAILED" in notes["count 2"]
    fake.queue("101_0|RUNNING|None", "101_1|RUNNING|None", "103|RUNNING|None", "104|PENDING|Dependency")
    fake.launch(end)
    assert len(fake.submitted()) == 4, "all live: nothing to do"


def test_what_waits_for_a_failed_job_is_cancelled_and_submitted_again(fake: Fake) -> None:
    end = total([count(0)])
    fake.launch(end)
    fake.queue("101|FAILED|NonZeroExitCode", "102|PENDING|DependencyNeverSatisfied")
    fake.launch(end)
    assert (fake.folder / "cancelled").read_text().split() == ["102"]
    assert options(fake.submitted()[2:]) == ["", "afterok:103"]


def test_a_number_that_belongs_to_another_job_by_now_is_not_ours(fake: Fake) -> None:
    fake.launch(count(0))
    (fake.folder / "queue").write_text("101|RUNNING|None|someone-elses\n")
    fake.launch(count(0))
    assert len(fake.submitted()) == 2


def test_slurm_that_does_not_answer_is_no_reason_to_submit_twice(fake: Fake) -> None:
    fake.launch(count(0))
    (fake.folder / "down").touch()
    with pytest.raises(EnvironmentProblem, match=r"squeue failed: .*Unable to contact"):
        fake.launch(count(0))
    assert len(fake.submitted()) == 1


def test_a_refused_submission_keeps_what_was_submitted_before(fake: Fake) -> None:
    fake.launch(count(0))
    fake.queue("101|RUNNING|None")
    (fake.folder / "refuse").touch()
    with pytest.raises(EnvironmentProblem, match=r"sbatch failed: .*Invalid account"):
        fake.launch(total([count(0)]))
    (fake.folder / "refuse").unlink()
    fake.launch(total([count(0)]))
    assert options(fake.submitted()) == ["", "afterok:101"]


def test_what_needs_the_network_runs_here_first_and_its_failure_submits_nothing(fake: Fake) -> None:
    weights = Job(WeightsConfig(origin="hub", repository="a/b", revision="c"), label="weights")
    plan = total([weights, count(0)])
    fake.here.code = 7
    assert fake.launch(plan) == 7 and fake.submitted() == []
    fake.here.code = 0
    assert fake.launch(plan) == 0
    assert fake.here.labels == ["weights", "weights"] and options(fake.submitted()) == ["", "afterok:101"]


def test_what_cannot_run_is_refused_before_anything_starts(fake: Fake) -> None:
    weights = Job(WeightsConfig(origin="hub", repository="a/b", revision="c"), label="weights")
    with pytest.raises(UsageProblems, match="GB of host memory"):
        fake.launch(weights, count(0), Job(CountConfig(seed=5), resources=Resources(memory_gb=9)))
    assert fake.here.labels == [] and fake.submitted() == []


def test_the_print_launcher_prints_and_touches_nothing(fake: Fake) -> None:
    written: list[str] = []
    launcher = PrintLauncher(command=COMMAND, cluster=SMALL, write=written.append, registry=MAKE_BELIEVE)
    assert launcher.launch(topological_order([total([count(0)])]), fake.store, print) == 0
    assert "#### 2: sbatch --kill-on-invalid-dep=yes --dependency=afterok:1 sarm-sum-" in "".join(written)
    assert not fake.store.root.exists() and fake.submitted() == []


def test_status_logs_and_cancel_read_slurm_and_the_store(fake: Fake) -> None:
    counts = [count(seed) for seed in range(2)]
    fake.launch(total(counts))
    fake.queue("101_0|RUNNING|None", "101_1|PENDING|Resources", "102|PENDING|Dependency")
    events = fake.store.root / ".slurm" / "jobs" / "101_0" / "events.jsonl"
    events.parent.mkdir(parents=True)
    events.write_text(json.dumps({"event": "progress", "key": counts[0].key, "done": 3, "total": 9, "unit": "steps"}) + "\nhalf a li")
    seen = job_statuses(fake.store, Slurm())
    assert [(one.slurm, one.state, one.artifact, one.progress) for one in seen] == [
        ("101_0", "RUNNING", "missing", "3/9 steps"),
        ("101_1", "PENDING", "missing", ""),
        ("102", "PENDING", "missing", ""),
    ]
    assert submission_logs(fake.store, counts[0].short_key) == []
    Path(seen[0].log).write_text("hello\n")
    assert submission_logs(fake.store, "101_0") == [Path(seen[0].log)]
    assert [one.slurm for one in cancel_jobs(fake.store, "101", Slurm())] == ["101_0", "101_1"]
    assert (fake.folder / "cancelled").read_text().split() == ["101_0", "101_1"]
    with pytest.raises(MissingArtifact, match="replicate status"):
        cancel_jobs(fake.store, "ffff", Slurm())
    with pytest.raises(UsageProblems):
        submission_logs(fake.store, "")


def test_the_standing_is_that_of_slurm_and_of_the_store(fake: Fake) -> None:
    counts = [count(seed) for seed in range(2)]
    fake.launch(total(counts))
    fake.queue("101_0|RUNNING|None", "101_1|PENDING|Resources", "102|PENDING|Dependency")
    found = store_status(fake.store, Slurm())
    assert found.silent == "" and [one.slurm for one in found.submitted] == ["101_0", "101_1", "102"]
    told = status_lines(found)
    assert told[0].startswith("running ") and "101_0" in told[0] and counts[0].short_key in told[0]
    assert "pending (Resources)" in told[1] and told[-2] == "3 jobs submitted to Slurm, 0 of them in the store"
    assert told[-1] == "0 artifacts done, 0 unfinished"
    commit(counts[0], fake.store, lambda output: (output / "sum.txt").write_text("1"))
    told = status_lines(store_status(fake.store, Slurm()))
    assert not any("101_0" in line for line in told) and "1 of them in the store" in told[-2]


def test_a_silent_slurm_leaves_what_the_store_knows(fake: Fake) -> None:
    fake.launch(count(0))
    (fake.folder / "down").touch()
    found = store_status(fake.store, Slurm())
    assert "Unable to contact" in found.silent and found.submitted == () and status_lines(found) == ["0 artifacts done, 0 unfinished"]


def test_without_submissions_slurm_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert store_status(ArtifactStore(tmp_path / "store"), Slurm()).silent == ""


def test_work_that_failed_is_told_apart_from_work_that_was_stopped(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    for key, failure in (("a" * 64, "out of memory:\n ask for more"), ("b" * 64, "")):
        folder = store.staging.slot("train_sae", key) / "free-0"
        folder.mkdir(parents=True)
        (folder / "failure.txt").write_text(failure, encoding="utf-8")
    told = status_lines(store_status(store, Slurm()))
    assert [line.split()[0] for line in told[:2]] == ["failed", "interrupted"]
    assert told[0].endswith("train_sae, no checkpoint yet: out of memory: ask for more") and told[1].endswith("no checkpoint yet")


def test_logs_are_found_by_key_and_by_slurm_id(fake: Fake) -> None:
    one = count(0)
    fake.launch(one)
    with pytest.raises(MissingArtifact, match="replicate status"):
        logs_of(fake.store, one.short_key)
    script = Path(job_statuses(fake.store, Slurm())[0].log)
    script.write_text("from the script\n")
    assert logs_of(fake.store, "101") == logs_of(fake.store, one.key[:6]) == [script]
    commit(one, fake.store, lambda output: (output / "sum.txt").write_text("1"))
    own = fake.store.log(one)
    own.parent.mkdir(exist_ok=True)
    own.write_text("from the job\n")
    assert logs_of(fake.store, f"{one.kind}/{one.short_key}") == logs_of(fake.store, "101") == [own, script]
    with pytest.raises(MissingArtifact):
        logs_of(fake.store, "ffffff")


def test_a_half_line_in_the_records_costs_only_itself(fake: Fake) -> None:
    fake.launch(count(0))
    path = fake.store.root / ".slurm" / "submissions.jsonl"
    with path.open("a") as out:
        out.write('{"key": "half')
    record(fake.store, [submissions(fake.store)[count(0).key].model_copy(update={"key": "k", "slurm": "9"})])
    assert {one.slurm for one in submissions(fake.store).values()} == {"101", "9"}


def test_a_missing_command_is_an_environment_problem() -> None:
    with pytest.raises(EnvironmentProblem, match="login node"):
        call(["no-such-slurm-command"])
    assert not SlurmState("UNKNOWN").live and not SlurmState("PENDING", "DependencyNeverSatisfied").live


def test_what_the_description_says_and_slurm_does_not() -> None:
    cluster = SMALL.model_copy(update={"gpu_name": "a100", "max_hours": 48.0})
    found = mismatches(cluster, {"JobRequeue": "0", "PreemptMode": "CANCEL"}, [("gpu*", "gpu:v100:4", "1-00:00:00")])
    assert len(found) == 4 and "gpu:v100:4" in found[2] and "gives 24" in found[3]
    assert mismatches(cluster, {"JobRequeue": "1", "PreemptMode": "OFF"}, [("all", "gpu:a100:4(S:0)", "infinite")]) == []
    assert [hours_of(one) for one in ("2-12:00:00", "01:30:00", "30:00", "30", "infinite")] == [60.0, 1.5, 0.5, 0.5, 0.0]
