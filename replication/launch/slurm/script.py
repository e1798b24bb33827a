"""The text of a batch script, from the template `slurm/template.sh.j2`. Pure: nothing is submitted and nothing is asked."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from replication.data_folders import slurm_folder
from replication.settings.clusters import Cluster, SlurmNeeds
from sarm.job import JobRequest

DEFAULT_REGISTRY = "sarm.jobs.process.registry:REGISTRY"
_HERE = '"$PWD"'


@dataclass(frozen=True)
class LaunchFolders:
    """Where a script finds store and code: bash words. `python` is the folder of the interpreter, `source` that of the package.

    Empty words are left out.
    """

    store: str = '"${SARM_STORE:-$PWD/artifacts}"'
    python: str = '"${SARM_VENV:-$PWD/.venv}/bin"'
    source: str = ""


@dataclass(frozen=True)
class Script:
    """What one script does: the requests of each task by its index, or the `replicate slurm request` arguments that name them.

    `array` is Slurm's list of indices, empty for a single task (whose index is 0). `about` are the comment lines at the top.
    `command` is what a user types to build a missing input.
    """

    name: str
    about: tuple[str, ...]
    ask: SlurmNeeds
    command: str
    array: str = ""
    requests: Mapping[int, Sequence[JobRequest]] = field(default_factory=dict)
    resolver: str = ""
    registry: str = DEFAULT_REGISTRY


def render(script: Script, cluster: Cluster, folders: LaunchFolders) -> str:
    """The script's text, with a newline at its end."""
    environment = Environment(
        loader=FileSystemLoader(slurm_folder()),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    return environment.get_template("template.sh.j2").render(
        # A label with a line break must not become a directive.
        about=[" ".join(line.splitlines()) for line in script.about],
        name=script.name,
        array=script.array + (f"%{cluster.array_limit}" if script.array and cluster.array_limit else ""),
        ask=script.ask,
        cluster=cluster,
        gpu_type=f"{cluster.gpu_name}:" if cluster.gpu_name else "",
        memory=_memory(cluster, script.ask),
        output="slurm-%x-%A_%a.out" if script.array else "slurm-%x-%j.out",
        store=folders.store,
        site=" and ".join(name for name, lines in (("modules", cluster.modules), ("setup", cluster.setup)) if lines),
        setting_up=_setting_up(cluster, folders),
        environment=[f"export {name}={shlex.quote(value)}" for name, value in cluster.environment.items()],
        in_image=_in_image(cluster),
        requests={index: _lines(requests) for index, requests in script.requests.items()},
        resolver=script.resolver,
        command=shlex.quote(script.command),
        options=f" --registry {script.registry}" if script.registry != DEFAULT_REGISTRY else "",
    )


def indices(numbers: Sequence[int]) -> str:
    """Slurm's form of array indices: `0-12`, or `0,2,5` where there are gaps."""
    if len(numbers) > 1 and list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]}-{numbers[-1]}"
    return ",".join(str(number) for number in numbers)


def _lines(requests: Sequence[JobRequest]) -> list[str]:
    """JSON, one request a line: long, but one can see where each begins."""
    texts = [request.model_dump_json() for request in requests]
    return ["[", *(text + ("," if number < len(texts) else "") for number, text in enumerate(texts, start=1)), "]"]


def _memory(cluster: Cluster, ask: SlurmNeeds) -> str:
    """The option that asks for host memory; empty where a site grants it by itself."""
    if cluster.memory_flag == "none":
        return ""
    if cluster.memory_flag == "mem":
        return f"--mem={ask.memory_gb}G"
    return f"--mem-per-cpu={math.ceil(1024 * ask.memory_gb / ask.cpus)}M"


def _setting_up(cluster: Cluster, folders: LaunchFolders) -> list[str]:
    lines = [f"module load {' '.join(shlex.quote(module) for module in cluster.modules)}"] if cluster.modules else []
    if cluster.container.kind == "none":
        lines += [f'export PATH={folders.python}:"$PATH"'] if folders.python else []
        lines += [f'export PYTHONPATH={folders.source}"${{PYTHONPATH:+:$PYTHONPATH}}"'] if folders.source else []
    else:
        # The code of the checkout, of which the image may hold an older copy.
        lines += [f"export APPTAINERENV_PYTHONPATH={folders.source or _HERE}"]
    return [*lines, *cluster.setup]


def _in_image(cluster: Cluster) -> str:
    """The words before a program that runs inside the cluster's container."""
    container = cluster.container
    if container.kind == "none":
        return ""
    # Double quotes only: the words also stand inside a singly quoted command.
    binds = " ".join(f'--bind "{folder}"' for folder in ("$PWD", "$APPTAINERENV_PYTHONPATH", "$SARM_STORE", *container.binds))
    return f'apptainer exec --nv {binds} "{container.image}" '


def launch_folders(store: Path, python: Path, source: Path) -> LaunchFolders:
    """The folders of a script that a launcher writes: absolute ones."""
    return LaunchFolders(store=shlex.quote(str(store)), python=shlex.quote(str(python)), source=shlex.quote(str(source)))
