"""What the doctor finds: what is there, what is missing with the next step, and never a token."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from folders import ROOT
from hub_server import Hub, serving

from replication.cli import doctor
from replication.cli.doctor import Finding, examine
from replication.plan.machine import cards, this_machine
from replication.settings.clusters import load_cluster
from sarm.job import EnvironmentProblem
from sarm.store.file_system import Shortcoming

OFFLINE = {"HF_HUB_OFFLINE": "1"}
RUNS, GROUPED = "a call for each run of one length", "one kernel, grouped heads"
LATER = "torch 2.10 and later have one kernel for a whole row on a GPU"
ATTENTION = {"attention": RUNS, "attention_on_a_gpu": GROUPED}


@pytest.fixture(autouse=True)
def torch_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The child that imports torch is asked in one test alone; here it says what a CPU has."""
    answer = {"version": "0", "cuda": "", "gpus": [], "bf16": False, "nccl": "", "gloo": True, "threads": 1, **ATTENTION}
    monkeypatch.setattr(doctor, "TORCH", f"print({json.dumps(json.dumps(answer))})")


def found(tmp_path: Path, environment: Mapping[str, str] = OFFLINE) -> dict[str, Finding]:
    return {one.name: one for one in examine(tmp_path / "store", environment=environment)}


def test_everything_is_looked_at(tmp_path: Path) -> None:
    names = set(found(tmp_path))
    assert {"python", "torch", "cuda", "bf16", "nccl", "gloo", "deepspeed", "g++", "ninja", "Python.h", "memory", "disk"} <= names
    assert {"driver", "hub", "HF_TOKEN", "slurm"} <= names and not (tmp_path / "store").exists()


def test_a_torch_that_cannot_be_imported_is_told_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "TORCH", "import no_such_torch")
    torch = found(tmp_path)["torch"]
    assert not torch.fine and "No module named 'no_such_torch'" in torch.found and "pip install" in torch.hint


def test_a_gpu_without_bf16_or_nccl_is_not_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = {"version": "2", "cuda": "12.6", "gpus": ["Old GPU"] * 2, "bf16": False, "nccl": "", "gloo": True, "threads": 8}
    answer |= ATTENTION
    monkeypatch.setattr(doctor, "TORCH", f"print({json.dumps(json.dumps(answer))})")
    seen = found(tmp_path)
    assert seen["cuda"].found == "12.6, 2 x Old GPU" and not seen["bf16"].fine and not seen["nccl"].fine


@pytest.mark.parametrize(
    ("facts", "hint"),
    [
        ({"gpus": [], "attention": RUNS, "attention_on_a_gpu": GROUPED}, f"on a GPU: {GROUPED}"),
        ({"gpus": [], "attention": RUNS, "attention_on_a_gpu": RUNS}, LATER),
        ({"gpus": ["H100"], "attention": GROUPED, "attention_on_a_gpu": GROUPED}, ""),
        ({"gpus": ["H100"], "attention": RUNS, "attention_on_a_gpu": RUNS}, LATER),
        ({"gpus": ["Old GPU"], "attention": RUNS, "attention_on_a_gpu": GROUPED}, ""),
    ],
)
def test_the_way_of_packed_attention_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facts: dict[str, Any], hint: str
) -> None:
    answer = {"version": "2", "cuda": "12.6", "bf16": True, "nccl": "2", "gloo": True, "threads": 8, **facts}
    monkeypatch.setattr(doctor, "TORCH", f"print({json.dumps(json.dumps(answer))})")
    seen = found(tmp_path)["packed attention"]
    assert (seen.found, seen.hint, seen.fine) == (facts["attention"], hint, True)


def test_the_hub_answers_is_out_of_reach_or_switched_off(tmp_path: Path) -> None:
    with serving(Hub()) as hub:
        assert found(tmp_path, {"HF_ENDPOINT": hub.endpoint})["hub"].found == f"{hub.endpoint} answers (404)"
        assert [method for method, _, _ in hub.requests] == ["HEAD"]
    began = time.monotonic()
    gone = found(tmp_path, {"HF_ENDPOINT": hub.endpoint})["hub"]
    assert "out of reach (ConnectionRefusedError)" in gone.found and "replicate fetch" in gone.hint and gone.fine
    assert time.monotonic() - began < doctor.HUB_SECONDS + 5
    assert "switched off" in found(tmp_path)["hub"].found


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_a_hub_of_this_machine_is_asked_through_no_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with serving(Hub()) as hub, serving(Hub()) as proxy:
        for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(variable, proxy.endpoint)
        for variable in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(variable, raising=False)
        endpoint = hub.endpoint.replace("127.0.0.1", name)
        assert found(tmp_path, {"HF_ENDPOINT": endpoint})["hub"].found == f"{endpoint} answers (404)"
        assert len(hub.requests) == 1 and proxy.requests == []
        found(tmp_path, {"HF_ENDPOINT": "http://hub.invalid"})
        assert len(proxy.requests) == 1, "another host goes through the proxy, as before"


def test_what_the_stores_file_system_cannot_do_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(tmp_path)["store"].found == "its file system flushes, renames and claims as needed"
    assert found(tmp_path)["store"].fine
    lacks = [Shortcoming("no folder can be flushed", "bear it", bearable=True), Shortcoming("no claim is one", "go away", bearable=False)]
    monkeypatch.setattr(doctor, "shortcomings", lambda folder: lacks)
    told = [one for one in examine(tmp_path / "store", environment=OFFLINE) if one.name == "store"]
    assert [(one.fine, one.hint) for one in told] == [(True, "bear it"), (False, "go away")] and str(tmp_path) in told[0].found


def test_tokens_are_seen_and_never_said(tmp_path: Path) -> None:
    secret = "a-token-that-nobody-may-read"
    seen = found(tmp_path, {**OFFLINE, "HF_TOKEN": secret, "OPENAI_API_KEY": secret})
    assert seen["HF_TOKEN"].found == seen["OPENAI_API_KEY"].found == "set"
    assert secret not in json.dumps([one.model_dump() for one in seen.values()])
    assert found(tmp_path)["OPENAI_API_KEY"].found == "not set"


def test_a_cluster_is_compared_with_its_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = load_cluster("a100")
    monkeypatch.setattr(doctor, "configuration", lambda: {"JobRequeue": "1", "PreemptMode": "OFF"})
    monkeypatch.setattr(doctor, "partitions", lambda: [("gpu*", "gpu:a100:4", "2-00:00:00")])
    assert [one.fine for one in examine(tmp_path, cluster, OFFLINE) if one.name == "slurm"] == [True]
    monkeypatch.setattr(doctor, "partitions", lambda: [("gpu*", "gpu:v100:4", "1-00:00:00")])
    wrong = [one for one in examine(tmp_path, cluster, OFFLINE) if one.name == "slurm"]
    assert len(wrong) == 2 and not any(one.fine for one in wrong) and "gpu:v100:4" in wrong[0].found and "a100" in wrong[0].hint

    def silent() -> dict[str, str]:
        raise EnvironmentProblem("scontrol is not here; use --launcher slurm on a login node of the cluster")

    monkeypatch.setattr(doctor, "configuration", silent)
    (problem,) = [one for one in examine(tmp_path, cluster, OFFLINE) if one.name == "slurm"]
    assert not problem.fine and "login node" in problem.found


def test_cards_are_what_nvidia_smi_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    lines = ("NVIDIA A100-SXM4-80GB, 81920, 61035, GPU-1a2b", "NVIDIA GeForce RTX 3090, 24576, [N/A], GPU-3c4d")
    tool.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines), encoding="utf-8")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    large, small = cards()
    assert (large.name, small.name) == ("NVIDIA A100-SXM4-80GB", "NVIDIA GeForce RTX 3090")
    assert large.memory_gb == pytest.approx(85.9, abs=0.1) and small.memory_gb == pytest.approx(25.8, abs=0.1)
    assert large.free_gb == pytest.approx(64.0, abs=0.1) and small.free_gb is None and (large.uuid, small.uuid) == ("GPU-1a2b", "GPU-3c4d")
    assert found(tmp_path)["driver"].found == "NVIDIA A100-SXM4-80GB, 86 GB, 64 free; NVIDIA GeForce RTX 3090, 26 GB"
    # Of one card it is not told what is free: then of none.
    assert this_machine().gpus == 2 and this_machine().free_gb == () and this_machine("0").free_gb == (large.free_gb,)
    tool.write_text("#!/bin/sh\nexit 9\n", encoding="utf-8")
    assert not found(tmp_path)["driver"].fine
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    assert cards() == []


def command(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **OFFLINE, "PYTHONPATH": str(ROOT), "SARM_STORE": str(tmp_path / "store"), "HF_TOKEN": "not-to-be-seen"}
    line = [sys.executable, "-m", "replication.cli", "doctor", *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment, timeout=120)


@pytest.mark.slow
def test_the_command_ends_with_0_or_7(tmp_path: Path) -> None:
    done = command(tmp_path)
    assert done.returncode == 0, done.stdout
    assert "not-to-be-seen" not in done.stdout + done.stderr and "ok  torch" in done.stdout
    assert RUNS in done.stdout and "packed attention" in done.stdout
    lacking = command(tmp_path, "--cluster", "a100", "--json")
    slurm = next(one for one in json.loads(lacking.stdout) if one["name"] == "slurm")
    if slurm["fine"]:
        pytest.skip("this host is a login node with such A100s")
    assert lacking.returncode == 7
