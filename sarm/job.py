"""A job is a value: a config and the jobs whose outputs it reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

KEY_LENGTH = 12
# How a field of a config says that it came later than the keys that are in people's stores.
ADDED = "added"
# Of a message.
LONGEST_LINE, FIRST_PART, LAST_PART = 1500, 800, 400


def printable(text: str) -> str:
    """A message without what files of others may bring into it: control signs and half surrogates become `?`, line ends stay.

    Of a line without an end the first and the last part are kept: what is wrong, and the next step.
    """
    lines = "".join(sign if sign.isprintable() or sign == "\n" else "?" for sign in text).split("\n")
    return "\n".join(line if len(line) <= LONGEST_LINE else f"{line[:FIRST_PART]} ... {line[-LAST_PART:]}" for line in lines)


class JobError(Exception):
    """A job cannot go on. `exit_code` is the documented one; the message is one line with the next step, fit for a terminal."""

    exit_code = 1

    def __str__(self) -> str:
        return printable(super().__str__())


class UsageProblem(JobError):
    """What was asked for is wrong (data, model, sizes)."""

    exit_code = 2


class IntegrityProblem(JobError):
    """A checksum, revision or schema does not match."""

    exit_code = 6


class EnvironmentProblem(JobError):
    """This machine lacks something: a file, memory, disk, a GPU, the network."""

    exit_code = 7


class Interrupted(JobError):
    """Stopped on request with a checkpoint written; the same command continues."""

    exit_code = 75


def added(default: Any, *, description: str, **constraints: Any) -> Any:
    """A field that joins a config whose keys are in use: at `default`, which is what the code did before, no key moves.

    `constraints` are those of `pydantic.Field`. `default` never changes afterwards: the same key would mean something else.
    """
    return Field(default, description=description, json_schema_extra={ADDED: True}, **constraints)


def is_added(field: FieldInfo) -> bool:
    """Whether a field was made by `added`."""
    return isinstance(field.json_schema_extra, Mapping) and bool(field.json_schema_extra.get(ADDED))


class JobConfig(BaseModel):
    """Everything that can change a number of one job. Its `content` is hashed into the key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ClassVar[str]
    version: ClassVar[int]
    # Whether several processes can share the work of one job, and whether one can spread its model over several GPUs.
    data_parallel: ClassVar[bool] = False
    spreads: ClassVar[bool] = False
    # ZeRO stages, and those with which an optimizer's states can be kept in the host's memory.
    zero_stages: ClassVar[tuple[int, ...]] = (0,)
    offload_stages: ClassVar[tuple[int, ...]] = ()

    def content(self) -> dict[str, Any]:
        """What a key, a request and a manifest hold: all fields as JSON values, but no field that was `added` and is at its default."""
        content = _content(self, self.model_dump(mode="json"))
        assert isinstance(content, dict)
        return content


def _content(value: Any, dumped: Any) -> Any:
    """`dumped` without the added fields at their default of the models that `value` is or holds."""
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        left_out = {name for name, field in fields.items() if is_added(field) and getattr(value, name) == field.default}
        return {name: _content(getattr(value, name), kept) for name, kept in dumped.items() if name not in left_out}
    if isinstance(value, Mapping):
        return {name: _content(inner, kept) for inner, (name, kept) in zip(value.values(), dumped.items(), strict=True)}
    if isinstance(value, list | tuple):
        return [_content(inner, kept) for inner, kept in zip(value, dumped, strict=True)]
    return dumped


def unsuited(config: JobConfig, resources: Resources) -> tuple[str, str] | None:
    """The first field of resources that a kind of work cannot use, and what it can; None where all go together."""
    stage, several, hosted = resources.zero_stage, resources.processes > 1, resources.offload != "none"
    known, needed = (" or ".join(map(str, one)) for one in (config.zero_stages, config.offload_stages))
    rules = (
        (several and not config.data_parallel, "processes", "this kind of work runs in one process"),
        (stage not in config.zero_stages, "zero_stage", f"this kind of work knows zero_stage = {known} alone"),
        (hosted and not config.offload_stages, "offload", "this kind of work has no optimizer"),
        (hosted and stage not in config.offload_stages, "offload", f"this kind of work needs zero_stage = {needed} for it"),
        (hosted and several and not stage, "offload", "several processes need zero_stage = 1 or 2 or 3 for it"),
    )
    return next(((field, why) for broken, field, why in rules if broken), None)


def job_key(*, kind: str, version: int, config: Mapping[str, Any], inputs: Mapping[str, str], attempt: int) -> str:
    """SHA-256 of (kind, version, config as canonical JSON, input keys[, attempt]) in hexadecimal. `inputs` is name -> key."""
    content: dict[str, Any] = {"kind": kind, "version": version, "config": dict(config), "inputs": dict(inputs)}
    if attempt:
        content["attempt"] = attempt
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


class Resources(BaseModel):
    """Hardware and batching of one job. Not hashed: changing it must not change a number (but for rounding)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    nodes: int = Field(default=1, ge=1, description="Machines.")
    processes: int = Field(default=1, ge=1, description="Processes (one per GPU, or CPU ranks) over all nodes.")
    gpus: int = Field(default=0, ge=0, description="GPUs over all nodes; 0 runs on the CPU.")
    threads: int = Field(default=0, ge=0, description="Torch threads per process; 0 takes what the machine has.")
    micro_batch_tokens: int = Field(default=8192, ge=1, description="Padded tokens in one forward/backward pass of training.")
    zero_stage: Literal[0, 1, 2, 3] = Field(default=0, description="DeepSpeed ZeRO stage.")
    offload: Literal["none", "optimizer"] = Field(
        default="none", description="What training keeps in the host's memory: nothing, or Adam's moments and float32 copies."
    )
    activation_checkpointing: bool = Field(default=False, description="Recompute block activations in the backward pass.")
    hours: float = Field(default=24.0, gt=0, description="Wall-clock limit asked of a scheduler, hours.")
    memory_gb: float = Field(default=4.0, gt=0, description="Host memory asked of a scheduler, GB, beside what `offload` keeps there.")
    offload_gb: float = Field(default=0.0, ge=0, description="Host memory that `offload` takes, GB; a plan fills it in.")
    checkpoint_minutes: float = Field(default=15.0, gt=0, description="Longest time between two checkpoints, minutes.")


@dataclass(frozen=True)
class Job:
    """A unit of work.

    `inputs` name other jobs; `resources`, `locations` (name -> path on this machine) and `label` say where, how fast and
    how it is called in a plan, and are not part of the key. `attempt` > 0 is a deliberate repetition (`--fresh`).
    """

    config: JobConfig
    inputs: Mapping[str, Job] = field(default_factory=dict)
    resources: Resources = field(default_factory=Resources)
    locations: Mapping[str, str] = field(default_factory=dict)
    label: str = ""
    attempt: int = 0

    @property
    def kind(self) -> str:
        """The type of work, which is also the folder in the store."""
        return self.config.kind

    @cached_property
    def key(self) -> str:
        """The key of this job: see `job_key`."""
        return job_key(
            kind=self.kind,
            version=self.config.version,
            config=self.config.content(),
            inputs={name: job.key for name, job in self.inputs.items()},
            attempt=self.attempt,
        )

    @property
    def short_key(self) -> str:
        """The first 12 digits of the key: the artifact's folder name."""
        return self.key[:KEY_LENGTH]

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and other.key == self.key


def topological_order(jobs: Iterable[Job]) -> list[Job]:
    """All jobs and their inputs, each once, inputs first; otherwise in the order given."""
    ordered: dict[str, Job] = {}

    def visit(job: Job) -> None:
        if job.key in ordered:
            return
        for _, needed in sorted(job.inputs.items()):
            visit(needed)
        ordered[job.key] = job

    for job in jobs:
        visit(job)
    return list(ordered.values())


class JobRequest(BaseModel):
    """What a job process is told: one job, its inputs by key. Written as JSON by a launcher, read by `sarm.jobs`.

    `config` is the content of the job's config: request, manifest and key hold the same.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    version: int
    key: str
    config: dict[str, Any]
    inputs: dict[str, tuple[str, str]]
    resources: Resources
    locations: dict[str, str]
    label: str
    attempt: int = 0

    @classmethod
    def of(cls, job: Job) -> JobRequest:
        """The request that describes a job."""
        return cls(
            kind=job.kind,
            version=job.config.version,
            key=job.key,
            config=job.config.content(),
            inputs={name: (needed.kind, needed.key) for name, needed in job.inputs.items()},
            resources=job.resources,
            locations=dict(job.locations),
            label=job.label,
            attempt=job.attempt,
        )


@dataclass(frozen=True)
class JobContext:
    """What a job function may touch: read `inputs`, write `output`, keep `checkpoint`, report progress.

    `checkpoint` survives a kill and is not part of the artifact. `progress(done, total, unit, note)` shows advance.
    `stop_requested()` is polled once a step; when true the job writes a checkpoint and raises Interrupted.
    `log(line)` goes to the job's log file.
    """

    inputs: Mapping[str, Path]
    output: Path
    checkpoint: Path
    resources: Resources
    locations: Mapping[str, Path]
    progress: Callable[[int, int, str, str], None]
    stop_requested: Callable[[], bool]
    log: Callable[[str], None]
