"""The manifest of an artifact: what it is, what it was made from, by which code and on what machine."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

from sarm.job import KEY_LENGTH, JobRequest, job_key

MANIFEST_NAME = "manifest.json"

PACKAGES = (
    "accelerate",
    "datasets",
    "deepspeed",
    "huggingface_hub",
    "numpy",
    "pydantic",
    "nupunkt",
    "safetensors",
    "scikit-learn",
    "tokenizers",
    "torch",
    "transformers",
)


class FileRecord(BaseModel):
    """One file of an artifact: its checksum and its size in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    bytes: int


class CodeState(BaseModel):
    """The git commit of the checkout that the package lies in (`unknown` without one), and whether it had changes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    commit: str
    dirty: bool


class Hardware(BaseModel):
    """The machine, without its name. `processor` is empty where nothing tells, `threads` 0 without torch; so are both in artifacts of
    before they were noted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    machine: str
    cpus: int
    platform: str
    gpus: tuple[str, ...]
    processor: str = ""
    threads: int = 0


@dataclass(frozen=True)
class RunFacts:
    """What was measured while a job ran: UTC times, seconds of work, bytes at the peak, names of GPUs in use."""

    started: datetime
    ended: datetime
    seconds: float
    peak_memory_bytes: int
    peak_gpu_memory_bytes: int = 0
    gpus: tuple[str, ...] = ()


class Manifest(BaseModel):
    """What an artifact says of itself. `inputs` is name -> (kind, key); `files` is relative path -> record; times are ISO 8601 UTC."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    version: int
    key: str
    label: str
    attempt: int
    config: dict[str, Any]
    inputs: dict[str, tuple[str, str]]
    files: dict[str, FileRecord]
    code: CodeState
    packages: dict[str, str]
    hardware: Hardware
    resources: dict[str, Any]
    seconds: float
    peak_memory_bytes: int
    peak_gpu_memory_bytes: int
    started: str
    ended: str

    @field_validator("files")
    @classmethod
    def _files_lie_inside(cls, files: dict[str, FileRecord]) -> dict[str, FileRecord]:
        for name in files:
            if not is_inside(name) or name == MANIFEST_NAME:
                raise ValueError(f"file name {name!r} is not a relative path inside the artifact")
        return files

    @property
    def short_key(self) -> str:
        """The artifact's folder name."""
        return self.key[:KEY_LENGTH]

    @property
    def bytes(self) -> int:
        """Total size of the files."""
        return sum(record.bytes for record in self.files.values())

    @property
    def key_fits(self) -> bool:
        """Whether the key is the one that the other fields give."""
        inputs = {name: key for name, (_, key) in self.inputs.items()}
        return self.key == job_key(kind=self.kind, version=self.version, config=self.config, inputs=inputs, attempt=self.attempt)

    def text(self) -> str:
        """The manifest as the JSON that is written to disk."""
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def of(cls, request: JobRequest, files: Mapping[str, FileRecord], facts: RunFacts) -> Manifest:
        """The manifest of a finished request. Locations stay out: they hold paths of this machine."""
        return cls(
            **request.model_dump(exclude={"locations", "resources"}),
            files=dict(files),
            code=code_state(),
            packages=package_versions(),
            hardware=hardware(facts.gpus),
            resources=request.resources.model_dump(mode="json"),
            seconds=round(facts.seconds, 3),
            peak_memory_bytes=facts.peak_memory_bytes,
            peak_gpu_memory_bytes=facts.peak_gpu_memory_bytes,
            started=facts.started.astimezone(UTC).isoformat(timespec="seconds"),
            ended=facts.ended.astimezone(UTC).isoformat(timespec="seconds"),
        )


def is_inside(name: str) -> bool:
    """Whether a POSIX name is relative, in its shortest form, and does not leave its folder."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and path.as_posix() == name and "\0" not in name


def code_state() -> CodeState:
    """Commit and dirtiness of the checkout around this package."""
    package = Path(__file__).resolve().parents[1]
    unknown = CodeState(commit="unknown", dirty=False)
    # An installed copy inside a virtual environment may lie in the checkout of something else.
    if "site-packages" in package.parts:
        return unknown
    try:
        commit = _git(package, "rev-parse", "HEAD")
        changes = _git(package, "status", "--porcelain", "--", str(package), str(package.parent / "replication"))
    except (OSError, subprocess.SubprocessError):
        return unknown
    return CodeState(commit=commit, dirty=bool(changes))


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that can change a number, without importing them."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def hardware(gpus: tuple[str, ...]) -> Hardware:
    """This machine, without its name, and the threads that torch computes with in this process."""
    torch = sys.modules.get("torch")
    return Hardware(
        machine=platform.machine(), cpus=os.cpu_count() or 1, platform=platform.platform(), gpus=gpus, processor=processor_name(),
        threads=torch.get_num_threads() if torch else 0,
    )  # fmt: skip


def processor_name(facts: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's model and, where torch is loaded, the instructions that it uses: on others the same job rounds otherwise."""
    try:
        lines = facts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())
    torch = sys.modules.get("torch")
    return ", ".join(filter(None, (name, torch.backends.cpu.get_cpu_capability() if torch else "")))
