"""Descriptions of clusters: what a node has and how its Slurm wants to be asked. Account and partition stay outside."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator

from replication.data_folders import slurm_folder
from replication.frozen import Frozen
from replication.settings.toml_files import read_toml
from replication.usage_problems import UsageProblems, nearest
from sarm.job import Job, Resources

# Whose they are differs from user to user, and the command line or SBATCH_ACCOUNT and the like override no #SBATCH line.
PERSONAL = ("account", "partition", "qos", "mail-user", "reservation")
MEMORY = ("mem", "mem-per-cpu", "mem-per-gpu")
# What every script says itself, and the field that changes it. sbatch would take the last of two, or refuse both on the day of the launch.
WRITTEN: Mapping[str, str] = {
    **dict.fromkeys(("gpus", "gpus-per-node", "gpus-per-task", "gpus-per-socket"), "resources.<kind>.gpus and gpu_flag"),
    **dict.fromkeys(("cpus-per-task", "cpus-per-gpu"), "cpus_per_gpu and cpus_without_gpu"),
    **dict.fromkeys(("nodes", "ntasks", "ntasks-per-node", "ntasks-per-gpu", "tres-per-task"), "resources.<kind>.nodes and processes"),
    **dict.fromkeys(("requeue", "no-requeue"), "requeue"),
    "time": "max_hours", "constraint": "constraint", "signal": "warning_seconds",
    **dict.fromkeys(("array", "dependency", "export", "job-name", "open-mode", "output", "wait"), ""),
}  # fmt: skip
VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Container(Frozen):
    """An image that holds Python and the project."""

    kind: Literal["none", "apptainer"] = Field(default="none", description="`none`: the virtual environment of the host.")
    image: str = Field(default="", description="Path of the image file; ${VARIABLES} expand when the job starts.")
    binds: tuple[str, ...] = Field(default=(), description="Further folders to show inside; the store and the working folder always are.")


class Cluster(Frozen):
    """What a generated script has to know of a cluster. Changing it never changes a number."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", description="Folder of the generated scripts.")
    summary: str = Field(description="One line.")
    gpu_name: str = Field(default="", description="Type in `sinfo -o %G`; empty where GPUs have no type.")
    gpu_flag: Literal["gres", "gpus-per-node"] = Field(description="How GPUs are asked for.")
    memory_flag: Literal["mem", "mem-per-cpu", "none"] = Field(
        default="mem", description="How host memory is asked for; `none` where a site grants it with the cores or GPUs and forbids to ask."
    )
    gpu_memory_gb: float = Field(gt=0, description="Memory of one GPU, GB.")
    gpu_tflops: float = Field(default=0.0, ge=0, description="Dense bfloat16 peak of one GPU, TFLOP/s, for estimates; 0 where unknown.")
    gpus_per_node: int = Field(ge=1, description="GPUs of one node.")
    cpus_per_gpu: int = Field(ge=1, description="Cores asked for with each GPU.")
    cpus_without_gpu: int = Field(default=4, ge=1, description="Cores of a job without a GPU, for each of its processes.")
    memory_per_node_gb: float = Field(gt=0, description="Host memory that a job may ask of one node, GB.")
    max_hours: float = Field(gt=0, description="Longest time that the partition grants; longer work is requeued from its checkpoint.")
    warning_seconds: int = Field(default=300, ge=10, description="How long before the end a job is asked to write its checkpoint.")
    requeue: bool = Field(default=True, description="Whether a stopped job with a checkpoint requeues itself (JobRequeue of the cluster).")
    max_restarts: int = Field(default=8, ge=0, description="Requeues of one job at most.")
    array_limit: int = Field(default=0, ge=0, description="Tasks of an array that may run at once; 0 is no limit.")
    saes_per_task: int = Field(default=1, ge=1, description="SAEs that one task trains in one pass over the same text.")
    constraint: str = Field(default="", description="`--constraint`, for example gpu80.")
    options: tuple[str, ...] = Field(default=(), description="Further #SBATCH options such as --exclusive.")
    modules: tuple[str, ...] = Field(default=(), description="`module load` of these.")
    setup: tuple[str, ...] = Field(default=(), description="Lines of bash before the job, such as the activation of an environment.")
    environment: Mapping[str, str] = Field(default_factory=dict, description="Variables to export.")
    container: Container = Container()
    resources: Mapping[str, Mapping[str, Any]] = Field(
        default_factory=dict, description="Fields of Resources, for each kind of job, that replace the profile's here."
    )

    @field_validator("options")
    @classmethod
    def _fit_what_is_written(cls, options: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        for option in options:
            for name in _names(option):
                if name in PERSONAL:
                    raise ValueError(f"{option!r}: give no account, partition or qos; those are SBATCH_ACCOUNT and the like")
                problem = _conflict(name, info.data)
                if problem:
                    raise ValueError(f"{option!r}: {problem}")
        return options

    @field_validator("environment")
    @classmethod
    def _names_are_names(cls, environment: Mapping[str, str]) -> Mapping[str, str]:
        for name in environment:
            if not VARIABLE_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name of a variable")
        return environment

    @field_validator("resources")
    @classmethod
    def _fields_of_resources(cls, resources: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
        for kind, fields in resources.items():
            for name in fields:
                if name.endswith("dtype") or name.startswith(("fp8", "float8")):
                    raise ValueError(
                        f"{kind}.{name}: a cluster decides where and how fast, not in which precision, and no Ampere card has fp8 "
                        "(A100, RTX 3090; Hopper ones do); set the section's dtype, bfloat16 at best"
                    )
                if name not in Resources.model_fields:
                    raise ValueError(f"{kind}.{name}: no such field; {nearest(name, Resources.model_fields)}")
            Resources.model_validate(dict(fields))
        return resources


@dataclass(frozen=True)
class SlurmNeeds:
    """What one task asks of Slurm: nodes; GPUs, processes, cores and memory (GB) of each node; wall-clock minutes."""

    nodes: int
    gpus: int
    processes: int
    cpus: int
    memory_gb: int
    minutes: int

    @property
    def time(self) -> str:
        """The wall-clock limit as Slurm writes it, D-HH:MM:SS."""
        days, rest = divmod(self.minutes, 24 * 60)
        return f"{days}-{rest // 60:02d}:{rest % 60:02d}:00" if days else f"{rest // 60:02d}:{rest % 60:02d}:00"


def on_cluster(job: Job, cluster: Cluster) -> Job:
    """The same job with the resources that it has on a cluster; its key stays."""
    changed = cluster.resources.get(job.kind, {})
    resources = Resources.model_validate({**job.resources.model_dump(), **changed})
    nodes = max(resources.nodes, math.ceil(resources.gpus / cluster.gpus_per_node))
    return replace(job, resources=resources.model_copy(update={"nodes": nodes}))


def yielding_to_overrides(cluster: Cluster, overrides: Mapping[str, Mapping[str, Any]]) -> Cluster:
    """The cluster without what `--set resources.[<kind>.]<field>` says otherwise: the option of a command wins over a file."""
    general = overrides.get("resources", {})
    kept = {
        kind: {name: value for name, value in fields.items() if name not in {**general, **overrides.get(f"resources.{kind}", {})}}
        for kind, fields in cluster.resources.items()
    }
    return cluster.model_copy(update={"resources": kept})


def slurm_needs(job: Job, cluster: Cluster) -> SlurmNeeds:
    """What a job that is `on_cluster` asks for. Raises UsageProblems when it cannot be had there."""
    needs, label = job.resources, job.label or job.kind
    problems = []
    spread = job.config.spreads and needs.processes == 1
    if needs.gpus and needs.gpus != needs.processes and not spread:
        problems.append(f"{label}: {needs.gpus} GPUs, {needs.processes} processes; they must be equal: set resources.{job.kind}.processes")
    if needs.processes % needs.nodes:
        problems.append(f"{label}: {needs.processes} processes do not divide over {needs.nodes} nodes of {cluster.name}")
    memory = math.ceil((needs.memory_gb + needs.offload_gb) / needs.nodes)
    if memory > cluster.memory_per_node_gb:
        problems.append(f"{label}: {memory} GB of host memory a node, {cluster.name} has {cluster.memory_per_node_gb:g}")
    if problems:
        raise UsageProblems(problems)
    processes, gpus = needs.processes // needs.nodes, needs.gpus // needs.nodes
    return SlurmNeeds(
        nodes=needs.nodes,
        gpus=gpus,
        processes=processes,
        cpus=gpus * cluster.cpus_per_gpu if gpus else processes * cluster.cpus_without_gpu,
        memory_gb=memory,
        minutes=math.ceil(60 * min(needs.hours, cluster.max_hours)),
    )


def _names(option: str) -> list[str]:
    """The options of one line, in full: sbatch takes any beginning of a name that fits one alone."""
    try:
        words = shlex.split(option)
    except ValueError as error:
        raise ValueError(f"{option!r}: {error}") from error
    given = [word for word in words if word.startswith("-")]
    if len(option.splitlines()) != 1 or not option.startswith("--") or any(not word.startswith("--") for word in given):
        raise ValueError(f"{option!r}: give long options on one line; account, partition and qos are SBATCH_ACCOUNT and the like")
    names = [word.removeprefix("--").partition("=")[0] for word in given]
    known = (*MEMORY, *PERSONAL, *WRITTEN, "gres")
    return [name if name in known else next((one for one in known if one.startswith(name)), name) for name in names]


def _conflict(name: str, fields: Mapping[str, Any]) -> str:
    """Why a cluster with these fields cannot have an option as well; empty where it can."""
    if name in MEMORY:
        asked = fields.get("memory_flag", "none")
        return "" if asked == "none" else f"memory_flag = {asked!r} asks for memory already; set memory_flag = 'none' or leave this out"
    if name == "gres":
        asked = fields.get("gpu_flag", "")
        return "sbatch would forget the GPUs, which are asked for as gres; set gpu_flag = 'gpus-per-node'" if asked == "gres" else ""
    if name not in WRITTEN:
        return ""
    return f"every script says --{name} itself; " + (f"set {WRITTEN[name]}" if WRITTEN[name] else "leave it out")


def shipped_clusters() -> dict[str, Path]:
    """Name -> file of each description that comes with the package."""
    return {path.stem: path for path in sorted((slurm_folder() / "clusters").glob("*.toml"))}


def load_cluster(name_or_file: str) -> Cluster:
    """The cluster of that name or TOML file. Raises UsageProblems with one line for each mistake: file, key, what."""
    path, content = read_toml("cluster", name_or_file, shipped_clusters())
    try:
        return Cluster.model_validate(content)
    except ValidationError as error:
        raise UsageProblems([f"{path}: {_in_words(dict(one))}" for one in error.errors()]) from error


def _in_words(error: Mapping[str, Any]) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        known = Container.model_fields if error["loc"][0] == "container" else Cluster.model_fields
        return f"{key}: unknown key; {nearest(str(error['loc'][-1]), known)}"
    if error["type"] == "missing":
        return f"{key}: missing; this key is required"
    return f"{key}: {str(error['msg']).removeprefix('Value error, ')}"
