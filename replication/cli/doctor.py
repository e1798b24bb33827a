"""What this machine has: Python, packages, torch and its GPU, compiler, memory, disk and its file system, hub, tokens, Slurm.

Nothing is changed: what is tried out on the store's file system is gone afterwards.

torch is asked in a process of its own, since the CLI never imports it; the hub gets one short request without a token.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import urllib.error
import urllib.request
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
from pydantic import Field

from replication.frozen import Frozen
from replication.launch.slurm.calls import configuration, partitions
from replication.launch.slurm.status import mismatches
from replication.plan.machine import cards
from replication.settings.clusters import Cluster
from sarm.job import EnvironmentProblem
from sarm.judges.loopback import host_of, is_loopback
from sarm.store.file_system import shortcomings

PACKAGES = ("transformers", "datasets", "deepspeed", "accelerate", "huggingface_hub", "safetensors")
NEEDED_FREE_GB = 2.0
NEEDED_MEMORY_GB = 2.0
TORCH_SECONDS = 120
HUB_SECONDS = 5.0
# Says what torch is and can do as one line of JSON.
TORCH = """
import json, torch
from sarm.backbone.varlen import WAYS, form_for, installed_form
cuda = torch.cuda.is_available()
nccl = torch.distributed.is_available() and torch.distributed.is_nccl_available()
gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())] if cuda else []
print(json.dumps({
    "version": torch.__version__,
    "cuda": torch.version.cuda or "",
    "gpus": gpus,
    "bf16": bool(cuda and torch.cuda.is_bf16_supported(including_emulation=False)),
    "nccl": ".".join(map(str, torch.cuda.nccl.version())) if cuda and nccl else "",
    "gloo": torch.distributed.is_available() and torch.distributed.is_gloo_available(),
    "threads": torch.get_num_threads(),
    "attention": WAYS[form_for(torch.device("cuda" if cuda else "cpu"), torch.bfloat16)],
    "attention_on_a_gpu": WAYS[installed_form()],
}))
"""


class Finding(Frozen):
    """One thing that was looked at."""

    name: str
    found: str
    fine: bool = Field(description="Whether what was asked for (the miniature here, or the cluster) can run with it.")
    hint: str = ""


def examine(store: Path, cluster: Cluster | None = None, environment: Mapping[str, str] | None = None) -> list[Finding]:
    """All findings; `store` is where artifacts would lie. With a cluster its description is compared with Slurm."""
    variables = os.environ if environment is None else environment
    found = [Finding(name="python", found=platform.python_version(), fine=True)]
    found += _torch() + [_package(name) for name in PACKAGES]
    found += [*_compiler(), Finding(name="cores", found=str(os.cpu_count() or 1), fine=True), _memory()]
    found += [_disk(store), *_file_system(store), _driver()]
    found += [_hub(variables), *_tokens(variables)]
    return found + (_cluster(cluster) if cluster is not None else [_slurm()])


def _torch() -> list[Finding]:
    try:
        done = subprocess.run([sys.executable, "-c", TORCH], capture_output=True, text=True, check=True, timeout=TORCH_SECONDS)
        facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no message"])[-1]
        return [Finding(name="torch", found=last, fine=False, hint="pip install . -c constraints.txt")]
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError) as error:
        return [Finding(name="torch", found=f"does not answer ({type(error).__name__})", fine=False, hint="try python -c 'import torch'")]
    gpus = ", ".join(dict.fromkeys(facts["gpus"]))
    cuda = f"{facts['cuda']}, {len(facts['gpus'])} x {gpus}" if gpus else f"{facts['cuda'] or 'not in this torch'}, no GPU in reach"
    return [
        Finding(name="torch", found=f"{facts['version']}, {facts['threads']} threads", fine=True),
        Finding(name="cuda", found=cuda, fine=True, hint="" if gpus else "mini runs on the CPU; paper needs GPUs"),
        Finding(name="bf16", found="yes" if facts["bf16"] else "no GPU with it here", fine=not gpus or facts["bf16"]),
        Finding(name="nccl", found=facts["nccl"] or "not without CUDA", fine=not gpus or bool(facts["nccl"])),
        Finding(name="gloo", found="yes" if facts["gloo"] else "no", fine=bool(facts["gloo"])),
        _attention(here=facts["attention"], on_a_gpu=facts["attention_on_a_gpu"], gpu=bool(gpus)),
    ]


def _attention(*, here: str, on_a_gpu: str, gpu: bool) -> Finding:
    """Which way the installed torch offers for packed rows of tokens in bfloat16."""
    hint = "" if gpu or here == on_a_gpu else f"on a GPU: {on_a_gpu}"
    if "kernel" not in on_a_gpu:
        hint = "torch 2.10 and later have one kernel for a whole row on a GPU"
    return Finding(name="packed attention", found=here, fine=True, hint=hint)


def _package(name: str) -> Finding:
    try:
        return Finding(name=name, found=metadata.version(name), fine=True)
    except metadata.PackageNotFoundError:
        return Finding(name=name, found="not installed", fine=False, hint="pip install . -c constraints.txt")


def _compiler() -> list[Finding]:
    """What DeepSpeed and Triton build kernels with on a GPU; on the CPU nothing is compiled."""
    found = [(tool, shutil.which(tool) or "") for tool in ("g++", "ninja", "nvcc")]
    header = Path(sysconfig.get_path("include")) / "Python.h"
    hints = {"g++": "only kernels on a GPU need it", "ninja": "pip install ninja; only kernels on a GPU need it", "nvcc": "as above"}
    tools = [Finding(name=tool, found="found" if where else "none", fine=True, hint="" if where else hints[tool]) for tool, where in found]
    has = header.is_file()
    hint = "" if has else "the python3-dev package; Triton on a GPU needs it"
    return [*tools, Finding(name="Python.h", found="found" if has else "none", fine=True, hint=hint)]


def _memory() -> Finding:
    free = psutil.virtual_memory().available / 1e9
    hint = "" if free >= NEEDED_MEMORY_GB else f"the miniature needs {NEEDED_MEMORY_GB:.0f} GB"
    return Finding(name="memory", found=f"{free:.1f} GB available", fine=not hint, hint=hint)


def _disk(store: Path) -> Finding:
    folder = next(parent for parent in (store, *store.parents) if parent.is_dir())
    free = shutil.disk_usage(folder).free / 1e9
    hint = "" if free >= NEEDED_FREE_GB else "replicate store gc, or another --store"
    return Finding(name="disk", found=f"{free:.1f} GB free for the store", fine=not hint, hint=hint)


def _file_system(store: Path) -> list[Finding]:
    """What the store needs of its file system and does not get there, tried out in a folder that is gone afterwards."""
    folder = next(parent for parent in (store, *store.parents) if parent.is_dir())
    found = shortcomings(folder)
    if not found:
        return [Finding(name="store", found="its file system flushes, renames and claims as needed", fine=True)]
    return [Finding(name="store", found=f"{folder}: {one.problem}", fine=one.bearable, hint=one.consequence) for one in found]


def _driver() -> Finding:
    try:
        found = cards()
    except (OSError, subprocess.SubprocessError) as error:
        return Finding(name="driver", found=f"nvidia-smi fails ({type(error).__name__})", fine=False, hint="mend or reload the driver")
    free = [f", {card.free_gb:.0f} free" if card.free_gb is not None else "" for card in found]
    told = "; ".join(f"{card.name}, {card.memory_gb:.0f} GB{left}" for card, left in zip(found, free, strict=True))
    return Finding(name="driver", found=told or "no NVIDIA driver", fine=True)


def _hub(environment: Mapping[str, str]) -> Finding:
    """One request without a token; what is fetched already needs no hub, so that its absence is no failure."""
    from huggingface_hub import constants  # noqa: PLC0415 - takes longer than all else here

    if environment.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return Finding(name="hub", found="switched off (HF_HUB_OFFLINE)", fine=True, hint="replicate fetch needs it")
    endpoint = environment.get("HF_ENDPOINT") or constants.ENDPOINT
    try:
        with _opener(endpoint).open(urllib.request.Request(endpoint, method="HEAD"), timeout=HUB_SECONDS) as answer:
            return Finding(name="hub", found=f"{endpoint} answers ({answer.status})", fine=True)
    except urllib.error.HTTPError as error:
        return Finding(name="hub", found=f"{endpoint} answers ({error.code})", fine=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        told = f"{endpoint} is out of reach ({type(reason).__name__})"
        return Finding(name="hub", found=told, fine=True, hint="offline: run replicate fetch on a machine with a network")


def _opener(url: str) -> urllib.request.OpenerDirector:
    """What asks a hub: through the proxies of the environment, but never where the hub is this machine."""
    return urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if is_loopback(host_of(url)) else []))


def _tokens(environment: Mapping[str, str]) -> list[Finding]:
    """Whether tokens are there; they are never read out."""
    from huggingface_hub import constants  # noqa: PLC0415 - as above

    names = {"HF_TOKEN": "gated models need it", "OPENAI_API_KEY": "explanations by an endpoint need it"}
    found = []
    for name, hint in names.items():
        place = "set" if environment.get(name) else ""
        if name == "HF_TOKEN" and not place and Path(constants.HF_TOKEN_PATH).is_file():
            place = "kept by huggingface_hub"
        found.append(Finding(name=name, found=place or "not set", fine=True, hint="" if place else hint))
    return found


def _slurm() -> Finding:
    return Finding(name="slurm", found="sbatch found" if shutil.which("sbatch") else "no sbatch", fine=True)


def _cluster(cluster: Cluster) -> list[Finding]:
    """The description against `scontrol show config` and `sinfo`."""
    fix = f"correct the cluster's file ({cluster.name})"
    try:
        wrong = mismatches(cluster, configuration(), partitions())
    except EnvironmentProblem as problem:
        return [Finding(name="slurm", found=str(problem), fine=False)]
    about = f"{cluster.name}: {cluster.summary}"
    if not wrong:
        return [Finding(name="slurm", found=f"{about}; as described", fine=True)]
    return [Finding(name="slurm", found=one, fine=False, hint=fix) for one in wrong]
