"""Batch scripts: their text, and what they do when they run without Slurm."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from folders import GOLDEN, ROOT, SUPPORT
from make_believe_jobs import CountConfig
from slurm_samples import MAKE_BELIEVE, SMALL, chain_text, count, spread

from replication.data_folders import slurm_folder
from replication.launch.slurm.committed_scripts import STAGES, committed_scripts, request, write_scripts
from replication.launch.slurm.script import LaunchFolders
from replication.settings.clusters import Container
from replication.usage_problems import UsageProblems
from sarm.config.weights import WeightsConfig
from sarm.job import EnvironmentProblem, Job, JobRequest
from sarm.store.artifacts import ArtifactStore, MissingArtifact

SCRIPTS = GOLDEN / "slurm"


# --- text -------------------------------------------------------------------------------------------------------------------


GOLDENS = {
    "single.sh": ([count(0)], SMALL),
    "array.sh": ([count(0, gpus=1), count(1, gpus=1)], SMALL.model_copy(update={"array_limit": 4, "requeue": False})),
    "processes.sh": ([count(0, gpus=2, processes=2)], SMALL),
    "spread.sh": ([spread(gpus=2)], SMALL),
    "nodes.sh": ([count(0, gpus=4, processes=4)], SMALL.model_copy(update={"gpu_name": "a100", "gpu_flag": "gpus-per-node"})),
    "container.sh": (
        [count(0, gpus=1)],
        SMALL.model_copy(
            update={
                "container": Container(kind="apptainer", image="${SARM_IMAGE:?}", binds=("/scratch",)),
                "modules": ("apptainer/1.3",),
                "setup": ("ulimit -c 0",),
                "environment": {"NCCL_P2P_DISABLE": "1"},
                "constraint": "gpu80",
                "options": ("--exclusive",),
            }
        ),
    ),
}


@pytest.mark.parametrize("name", GOLDENS)
def test_a_launched_script_is_the_golden_one(name: str) -> None:
    text = chain_text(*GOLDENS[name])
    if os.environ.get("SARM_WRITE_GOLDEN"):
        SCRIPTS.mkdir(parents=True, exist_ok=True)
        (SCRIPTS / name).write_text(text, encoding="utf-8")
    assert text == (SCRIPTS / name).read_text(encoding="utf-8"), "if the change is meant: SARM_WRITE_GOLDEN=1 pytest this file"


def test_the_committed_scripts_are_what_the_template_gives() -> None:
    assert write_scripts(slurm_folder(), check=True) == [], "run: replicate slurm write"


def test_check_names_what_drifted_and_write_mends_it(tmp_path: Path) -> None:
    assert len(write_scripts(tmp_path, check=False)) == len(committed_scripts())
    assert write_scripts(tmp_path, check=True) == []
    (tmp_path / "sae_8b.sh").write_text("#!/bin/sh\n")
    (tmp_path / "a100" / "sae_8b.sh").unlink()
    (tmp_path / "own.sh").write_text("#!/bin/sh\n")
    drifted = [tmp_path / "sae_8b.sh", tmp_path / "a100" / "sae_8b.sh", tmp_path / "own.sh"]
    assert write_scripts(tmp_path, check=True) == drifted
    assert (tmp_path / "sae_8b.sh").read_text() == "#!/bin/sh\n", "--check writes nothing"
    write_scripts(tmp_path, check=False)
    assert write_scripts(tmp_path, check=True) == [tmp_path / "own.sh"], "what is not ours is told and left alone"


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing() -> None:
    scripts = [*slurm_folder().rglob("*.sh"), *SCRIPTS.glob("*.sh"), ROOT / "tests" / "slurm_cluster" / "cluster.sh"]
    done = subprocess.run(["shellcheck", *map(str, scripts)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_script_is_what_the_issue_asks_for() -> None:
    texts = committed_scripts()
    assert {"sae_3b.sh", "sae_8b.sh", "a100/sae_8b.sh", "reward_3b.sh", "reward_8b.sh", "score.sh", "sweep_3b.sh"} <= set(texts)
    for name, text in texts.items():
        directives = [line for line in text.splitlines() if line.startswith("#SBATCH")]
        assert not [line for line in directives if "account" in line or "partition" in line or "qos" in line], name
        assert "--open-mode=append" in text and "--signal=B:USR1@" in text
        assert ("torchrun --nnodes" in text) == ("reward" in name), "torchrun only where there are several processes"
    assert "gpu:rtx3090:1" in texts["sae_8b.sh"] and "gpu:a100:1" in texts["a100/sae_8b.sh"] and "gpu:a100:4" in texts["reward_8b.sh"]
    assert "#SBATCH --array=0-12" in texts["sweep_3b.sh"], "layer 14, width 16, k 144 is one SAE of all three axes"


def test_a_prompt_inside_a_request_cannot_leave_its_quotes() -> None:
    nasty = "REQUEST\n$(touch /tmp/x) `y` '\""
    weights = WeightsConfig(origin="hub", repository="a/b", revision="c", chat_template=nasty)
    text = chain_text([Job(weights, label="nasty\n#SBATCH --account=x")], SMALL)
    lines = text.splitlines()
    body = "\n".join(lines[lines.index("""cat > "$job_dir/request.json" << 'REQUEST'""") + 1 : lines.index("REQUEST")])
    assert JobRequest.model_validate(json.loads(body)[0]).config["chat_template"] == nasty
    assert not [line for line in lines if line.startswith("#SBATCH") and "account" in line]


# --- what a script does -----------------------------------------------------------------------------------------------------

# Stands for the job process: waits for the stop file where it is told to, writes its state, ends.
PYTHON = """#!/bin/bash
touch "$SARM_STORE/started"
if [[ $WAITS ]]; then until [[ -e $SARM_STOP_FILE ]]; do sleep 0.05; done; fi
if [[ $STATE ]]; then echo "{\\"state\\": \\"$STATE\\", \\"code\\": $CODE}" > "$SARM_STATE_FILE"; fi
if [[ $CODE == 9 ]]; then kill -9 $$; fi
exit "$CODE"
"""
SCONTROL = '#!/bin/bash\necho "$@" >> "$SARM_STORE/asked"\n[[ ! $NO_REQUEUE ]]\n'


def run_script(tmp_path: Path, *, array: bool = False, send: signal.Signals | None = None, **environment: str) -> tuple[int, str]:
    """Run a generated script without Slurm; its exit code and what it asked of scontrol."""
    for name, text in (("python", PYTHON), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    jobs = [count(0), count(1)] if array else [count(0)]
    text = chain_text(jobs, SMALL, LaunchFolders(store=str(tmp_path), python=str(tmp_path)))
    (tmp_path / "script.sh").write_text(text)
    slurm = {"SLURM_JOB_ID": "12", **({"SLURM_ARRAY_JOB_ID": "11", "SLURM_ARRAY_TASK_ID": "1"} if array else {})}
    switches = {"WAITS": "1" if send else "", "NO_REQUEUE": "", "STATE": "", "CODE": "0"}
    child = subprocess.Popen(["bash", str(tmp_path / "script.sh")], env={**os.environ, **slurm, **switches, **environment}, cwd=tmp_path)
    while not (tmp_path / "started").exists():
        assert child.poll() is None
        time.sleep(0.02)
    if send:
        # Twice: Slurm may repeat itself, and each signal ends a `wait`.
        child.send_signal(send)
        child.send_signal(send)
    code = child.wait(timeout=30)
    asked = tmp_path / "asked"
    return code, asked.read_text().strip() if asked.exists() else ""


@pytest.mark.parametrize(
    ("state", "code", "wanted"),
    [("done", "0", 0), ("failed", "2", 2), ("failed", "0", 1), ("", "1", 1), ("running", "9", 137), ("done", "1", 0)],
)
def test_a_scripts_exit_code_is_that_of_the_work(tmp_path: Path, state: str, code: str, wanted: int) -> None:
    # The state file counts: torchrun gives 1 for everything, srun may fail after all is done.
    assert run_script(tmp_path, STATE=state, CODE=code) == (wanted, "")


def test_a_warning_and_a_checkpoint_lead_to_a_requeue(tmp_path: Path) -> None:
    assert run_script(tmp_path, send=signal.SIGUSR1, STATE="checkpointed", CODE="75") == (0, "requeue 12")


def test_a_task_of_an_array_requeues_itself_alone(tmp_path: Path) -> None:
    assert run_script(tmp_path, array=True, send=signal.SIGUSR1, STATE="checkpointed", CODE="1") == (0, "requeue 11_1")
    request_ = json.loads((tmp_path / ".slurm" / "jobs" / "11_1" / "request.json").read_text())
    assert [one["label"] for one in request_] == ["count 1"]


@pytest.mark.parametrize(
    ("send", "state", "environment"),
    [
        (signal.SIGTERM, "checkpointed", {}),
        (signal.SIGUSR1, "interrupted", {}),
        (signal.SIGUSR1, "checkpointed", {"SLURM_RESTART_COUNT": "8"}),
    ],
    ids=["cancelled", "nothing kept", "too often"],
)
def test_nothing_else_does(tmp_path: Path, send: signal.Signals, state: str, environment: dict[str, str]) -> None:
    assert run_script(tmp_path, send=send, STATE=state, CODE="75", **environment) == (75, "")


def test_where_requeue_fails_the_script_says_75(tmp_path: Path) -> None:
    code, asked = run_script(tmp_path, send=signal.SIGUSR1, STATE="checkpointed", CODE="75", NO_REQUEUE="1")
    assert (code, asked) == (75, "requeue 12")


def run_setup(tmp_path: Path, *setup: str, modules: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run a script whose cluster has setup lines; the job's process says what it finds."""
    (tmp_path / "python").write_text('#!/bin/bash\necho "FOUND=$FOUND" >&2\necho \'{"state": "done"}\' > "$SARM_STATE_FILE"\n')
    (tmp_path / "python").chmod(0o755)
    cluster = SMALL.model_copy(update={"setup": setup, "modules": modules})
    (tmp_path / "script.sh").write_text(chain_text([count(0)], cluster, LaunchFolders(store=str(tmp_path), python=str(tmp_path))))
    environment = {**os.environ, "SLURM_JOB_ID": "12"}
    return subprocess.run(
        ["bash", str(tmp_path / "script.sh")], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=30
    )


@pytest.mark.parametrize("lines", [
    ('export FOUND="yes$NO_SUCH_VARIABLE"',),
    (". ./site.sh",),
    ('if [[ "$NO_SUCH_VARIABLE" ]]; then', "  FOUND=no", "fi", "export FOUND=yes"),
    ("[[ -d /no/such/folder ]] && export FOUND=no", "export FOUND=yes"),
    ("activate() { false; export FOUND=$1; }", "activate yes"),
    ("grep -q x /dev/null || export FOUND=yes",),
    ("grep x /dev/null | cat", "export FOUND=yes"),
    ("set -e; set -u", "export FOUND=yes"),
], ids=["unset variable", "a sourced file", "several lines", "a list", "a function", "or", "a pipe", "its own options"])  # fmt: skip
def test_setup_lines_run_without_our_strictness(tmp_path: Path, lines: tuple[str, ...]) -> None:
    (tmp_path / "site.sh").write_text('grep -q x /dev/null\nfalse\nexport FOUND="yes$NO_SUCH_VARIABLE"\n')
    done = run_setup(tmp_path, *lines)
    assert (done.returncode, "FOUND=yes" in done.stderr) == (0, True), done.stderr


@pytest.mark.parametrize(("lines", "told"), [
    (("conda-is-not-here activate x",), "conda-is-not-here activate x: exit code 127; mend setup in the file of cluster small"),
    (("export FOUND=yes", "false"), "false: exit code 1; mend setup in the file of cluster small"),
    ((". ./ends-badly.sh",), "exit code 3; mend setup in the file of cluster small"),
])  # fmt: skip
def test_a_setup_line_that_fails_ends_the_job_in_one_line(tmp_path: Path, lines: tuple[str, ...], told: str) -> None:
    (tmp_path / "ends-badly.sh").write_text("return 3\n")
    done = run_setup(tmp_path, *lines)
    assert done.returncode == 7 and told in done.stderr.splitlines()[-1] and "FOUND" not in done.stderr


def test_a_module_that_cannot_be_loaded_is_told_the_same_way(tmp_path: Path) -> None:
    done = run_setup(tmp_path, "true", modules=("cuda/12",))
    assert done.returncode == 7 and "module load cuda/12: exit code 127; mend modules and setup in" in done.stderr


def test_our_strictness_is_back_after_the_setup(tmp_path: Path) -> None:
    run_setup(tmp_path, "true")
    text = (tmp_path / "script.sh").read_text()
    site, rest = text.partition("trap - ERR\n")[::2]
    assert rest.startswith("set -euo pipefail\n") and site.rstrip().endswith("true")


def test_a_script_that_slurm_did_not_start_says_so(tmp_path: Path) -> None:
    done = subprocess.run(["bash", str(slurm_folder() / "sae_8b.sh")], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode and "submit this script with sbatch" in done.stderr and not list(tmp_path.iterdir())


def job_process(tmp_path: Path, job: Job, **environment: str) -> dict[str, Any]:
    """The state file after `python -m sarm.jobs` has run a job; a step takes a tenth of a second and the stop file is there from step 2."""
    (tmp_path / "request.json").write_text(JobRequest.of(job).model_dump_json())
    paths = os.pathsep.join([str(SUPPORT), str(ROOT)])
    told = {"SARM_STATE_FILE": str(tmp_path / "state.json"), "SARM_STOP_FILE": str(tmp_path / "stop"), "MAKE_BELIEVE_SECONDS": "0.1"}
    arguments = [str(tmp_path / "request.json"), "--store", str(tmp_path / "store"), "--registry", MAKE_BELIEVE]
    command = [sys.executable, "-m", "sarm.jobs", *arguments]
    child = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths, **told, **environment}, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for line in child.stdout:
        event = json.loads(line)
        if event["event"] == "progress" and event["done"] >= 2:
            (tmp_path / "stop").touch()
    child.wait(timeout=30)
    found: dict[str, Any] = json.loads((tmp_path / "state.json").read_text()) if (tmp_path / "state.json").exists() else {}
    return found


def test_the_job_process_tells_its_state(tmp_path: Path) -> None:
    long = Job(CountConfig(steps=60))
    assert job_process(tmp_path, long) == {"state": "checkpointed", "code": 75}
    # The stop file is there from the start now: nothing new is kept, although an old checkpoint lies there.
    assert job_process(tmp_path, long) == {"state": "interrupted", "code": 75}
    (tmp_path / "stop").unlink()
    assert job_process(tmp_path, Job(CountConfig(trouble="usage"))) == {"state": "failed", "code": 2}
    assert job_process(tmp_path, Job(CountConfig(steps=1))) == {"state": "done", "code": 0}


def test_of_several_processes_the_first_tells_the_state(tmp_path: Path) -> None:
    assert job_process(tmp_path, Job(CountConfig(steps=1)), RANK="1") == {}


# --- the requests of committed scripts --------------------------------------------------------------------------------------


def test_before_fetch_a_script_gets_no_request_but_the_command_to_run(tmp_path: Path) -> None:
    for stage in STAGES:
        with pytest.raises(EnvironmentProblem, match=f"run: replicate fetch {stage.experiment} --profile paper"):
            request(stage.name, task=0, cluster=stage.cluster, profile="paper", store=ArtifactStore(tmp_path), environment={})


def test_pinned_and_not_fetched_or_not_trained_names_the_command_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ArtifactStore(tmp_path)

    def asked(name: str) -> str:
        return request(name, task=0, cluster="a100", profile="mini", store=store, environment={})

    with pytest.raises(MissingArtifact, match="run first: replicate table1 --profile mini"):
        asked("sae_8b")
    monkeypatch.setattr(store, "has", lambda job: job.kind not in ("train_sae", "train_reward"))
    assert [one["kind"] for one in json.loads(asked("sae_8b"))] == ["train_sae"]
    assert [one["kind"] for one in json.loads(asked("sae_3b"))] == ["train_sae"] * 2, "four SAEs share a task on A100s"
    with pytest.raises(MissingArtifact, match=r"run first: sbatch slurm/sae_8b\.sh"):
        asked("reward_8b")
    with pytest.raises(MissingArtifact, match=r"run first: sbatch slurm/reward_3b\.sh"):
        asked("score")
    monkeypatch.setattr(store, "has", lambda job: False)
    (tmp_path / "revisions.json").write_text(json.dumps(dict.fromkeys(_repositories(), "c" * 40)))
    with pytest.raises(EnvironmentProblem, match="login node: replicate fetch table1 --profile paper"):
        request("sae_8b", task=0, cluster="rtx3090", profile="paper", store=store, environment={})


def _repositories() -> list[str]:
    from replication.settings.profile_files import load_profile

    return [repository for repository, _ in load_profile("paper", environment={}).unpinned()]


def test_an_unknown_script_or_task_is_told_with_the_nearest_name(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    with pytest.raises(UsageProblems, match="did you mean 'sae_8b'"):
        request("sae_8", task=0, cluster="a100", profile="mini", store=store, environment={})
    with pytest.raises(UsageProblems, match="has 1 tasks"):
        request("sae_8b", task=1, cluster="a100", profile="mini", store=store, environment={})
