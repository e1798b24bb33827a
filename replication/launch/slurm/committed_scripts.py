"""The scripts in the folder `slurm`: generated, committed, and each a whole stage of a table.

Revisions are not known when they are written, so they hold no request: at its start a script asks `replicate slurm request` for it,
which reads the store's lock file, looks whether all inputs are there, and says what to run first where they are not.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import Field

from replication.frozen import Frozen
from replication.launch.slurm.chain import groups
from replication.launch.slurm.script import LaunchFolders, Script, indices, render
from replication.plan.machine import machine_of
from replication.plan.refusals import refuse
from replication.plan.steps import Plan, ordered, plan, refuse_unpinned
from replication.plan.tasks import Task, tasks_of
from replication.recipes.jobs import BROUGHT_IN
from replication.recipes.jobs_needed import recipe
from replication.recipes.requested import Chosen, experiments_named, settings_for
from replication.recipes.setting import Setting
from replication.settings.clusters import Cluster, load_cluster
from replication.usage_problems import UsageProblems, unknown
from sarm.job import EnvironmentProblem, Job, JobRequest
from sarm.store.artifacts import ArtifactStore, MissingArtifact

PROFILE = "paper"
PAPERS = "rtx3090"
NOWHERE = Path(os.devnull) / "no-store"


class Stage(Frozen):
    """One script: the jobs of one kind that rows of an experiment need."""

    name: str = Field(description="File name without suffix.")
    title: str
    experiment: str
    kind: str
    rows: str = Field(default="", description="As --rows.")
    cluster: str = Field(description="What the paper used, where it says so. SAEs also have a form for A100s, in slurm/a100.")
    then: str = Field(default="", description="The script that follows.")


STAGES: tuple[Stage, ...] = (
    Stage(
        name="sae_3b", title="SAEs of SARM-1B and SARM-2B (Table 1)", experiment="table1", kind="train_sae",
        rows="small", cluster=PAPERS, then="reward_3b",
    ),
    Stage(
        name="sae_8b", title="SAE of SARM-4B (Table 1)", experiment="table1", kind="train_sae",
        rows="large", cluster=PAPERS, then="reward_8b",
    ),
    Stage(
        name="reward_3b", title="Reward models SARM-1B and SARM-2B (Table 1)", experiment="table1", kind="train_reward",
        rows="small", cluster="a100", then="score",
    ),
    Stage(
        name="reward_8b", title="Reward model SARM-4B (Table 1)", experiment="table1", kind="train_reward",
        rows="large", cluster="a100", then="score",
    ),
    Stage(name="score", title="Benchmark rewards of all models of Table 1", experiment="table1", kind="score_benchmark", cluster="a100"),
    Stage(
        name="ablation_sae_8b", title="SAEs of the ablations (Table 2)", experiment="table2", kind="train_sae",
        cluster=PAPERS, then="ablation_reward_8b",
    ),
    Stage(
        name="ablation_reward_8b", title="Reward models of the ablations (Table 2)", experiment="table2", kind="train_reward",
        cluster="a100", then="ablation_score",
    ),
    Stage(name="ablation_score", title="Benchmark rewards of Table 2", experiment="table2", kind="score_benchmark", cluster="a100"),
    Stage(
        name="sweep_3b", title="SAEs of the sweeps over layer, width and k (Table 3)", experiment="table3", kind="train_sae",
        cluster=PAPERS, then="sweep_reward_3b",
    ),
    Stage(
        name="sweep_reward_3b", title="Reward models of the sweeps (Table 3)", experiment="table3", kind="train_reward",
        cluster="a100", then="sweep_score",
    ),
    Stage(name="sweep_score", title="Benchmark rewards of Table 3", experiment="table3", kind="score_benchmark", cluster="a100"),
)


def write_scripts(folder: Path, check: bool) -> list[Path]:
    """Write every script below `folder`; gives the files that were not what they should be. With `check` nothing is written.

    A script there that no stage knows is drift as well; it is never removed. Raises UsageProblems, OSError.
    """
    texts = {folder / name: text for name, text in committed_scripts().items()}
    strays = [path for path in sorted(folder.rglob("*.sh")) if path not in texts]
    drifted = [path for path, text in texts.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    for path in () if check else drifted:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(texts[path], encoding="utf-8")
        path.chmod(0o755)
    return drifted + strays


def committed_scripts() -> dict[str, str]:
    """Relative path -> text of every script."""
    found = {}
    for stage in STAGES:
        found[f"{stage.name}.sh"] = _text(stage, load_cluster(stage.cluster), f"slurm/{stage.name}.sh")
        if stage.cluster == PAPERS:
            found[f"a100/{stage.name}.sh"] = _text(stage, load_cluster("a100"), f"slurm/a100/{stage.name}.sh")
    return found


def request(
    name: str, *, task: int, cluster: str, profile: str, store: ArtifactStore, environment: Mapping[str, str], allow_dirty: bool = False
) -> str:
    """The requests of one task of a script as a JSON list, for `python -m sarm.jobs`.

    Raises UsageProblems for an unknown name or task, EnvironmentProblem or MissingArtifact that name the command to run first,
    and what `refusals` refuses of this task.
    """
    stage, where = stage_named(name), load_cluster(cluster)
    setting = _setting(stage, profile, store, environment)
    refuse_unpinned([setting])
    planned = plan([setting], store, where)
    tasks = _tasks(stage, planned, where)
    if task not in range(len(tasks)):
        raise UsageProblems([f"{name} has {len(tasks)} tasks with profile {profile}, no task {task}"])
    _refuse_missing(stage, tasks[task], setting, store)
    steps = tuple(step for step in planned.steps if step.job in tasks[task].jobs)
    refuse(replace(planned, steps=steps), machine_of(where), allow_dirty=allow_dirty)
    requests = [JobRequest.of(job).model_dump_json() for job in tasks[task].jobs]
    return "[\n" + ",\n".join(requests) + "\n]\n"


def stage_named(name: str) -> Stage:
    """The stage of a script. Raises UsageProblems with the nearest name."""
    found = {stage.name: stage for stage in STAGES}
    if name not in found:
        raise unknown("script", name, found)
    return found[name]


def _setting(stage: Stage, profile: str, store: ArtifactStore, environment: Mapping[str, str]) -> Setting:
    (setting,) = settings_for(experiments_named([stage.experiment]), Chosen(profile=profile, rows=stage.rows), store, environment)
    return setting


def _jobs(stage: Stage, setting: Setting) -> list[Job]:
    return [job for job in ordered(recipe(setting).jobs) if job.kind == stage.kind]


def _tasks(stage: Stage, planned: Plan, cluster: Cluster) -> list[Task]:
    return tasks_of([step.job for step in planned.steps if step.job.kind == stage.kind], cluster)


def _refuse_missing(stage: Stage, task: Task, setting: Setting, store: ArtifactStore) -> None:
    """Raises for the first input that is not there. Before torch is imported, and with no network: within a second."""
    for needed in dict.fromkeys(needed for job in task.jobs for needed in job.inputs.values()):
        if store.has(needed):
            continue
        where = f"{needed.label or needed.kind} ({needed.kind}/{needed.short_key}) is not in the store {store.root}"
        if needed.kind in BROUGHT_IN:
            raise EnvironmentProblem(f"{where}; run on the login node: {setting.fetch}")
        raise MissingArtifact(f"{where}; run first: {_maker(needed, stage, setting)}")


def _maker(needed: Job, stage: Stage, setting: Setting) -> str:
    for other in STAGES:
        if (other.experiment, other.kind) != (stage.experiment, needed.kind):
            continue
        (whole,) = [setting] if other.rows == stage.rows else [_with_rows(setting, other.rows)]
        if needed in _jobs(other, whole):
            return f"sbatch slurm/{other.name}.sh"
    return setting.run


def _with_rows(setting: Setting, rows: str) -> Setting:
    return Setting(experiment=setting.experiment, profile=setting.profile, protocol=setting.protocol, rows=rows, digest=setting.digest)


def _text(stage: Stage, cluster: Cluster, path: str) -> str:
    nothing = ArtifactStore(NOWHERE)
    tasks = _tasks(stage, plan([_setting(stage, PROFILE, nothing, {})], nothing, cluster), cluster)
    ((needs, members),) = groups(tasks, cluster)
    array = len(members) > 1
    which = f'{stage.name} --cluster {cluster.name} --profile "${{SARM_PROFILE:-{PROFILE}}}" --store "$SARM_STORE"'
    script = Script(
        name=f"sarm-{stage.name.replace('_', '-')}",
        about=_about(stage, cluster, members, path),
        ask=needs,
        command=f"replicate fetch {stage.experiment} --profile {PROFILE}",
        array=indices(range(len(members))) if array else "",
        resolver=which + (' --task "$SLURM_ARRAY_TASK_ID"' if array else ""),
    )
    return render(script, cluster, LaunchFolders())


def _about(stage: Stage, cluster: Cluster, tasks: Sequence[Task], path: str) -> tuple[str, ...]:
    before = f"replicate fetch {stage.experiment} --profile {PROFILE}   (on the login node, with network)"
    makers = [f"sbatch slurm/{other.name}.sh" for other in STAGES if other.then == stage.name]
    rows = f" --rows {stage.rows}" if stage.rows else ""
    lines = [
        f"{stage.title}, on {cluster.summary}.",
        "",
        f"  once:    {before}",
        *(f"  before:  {maker}" for maker in makers),
        f"  this:    sbatch {path}   (account and partition: -A, -p, or SBATCH_ACCOUNT, SBATCH_PARTITION)",
        *([f"  then:    sbatch slurm/{stage.then}.sh"] if stage.then else []),
        "",
        f"The jobs, with every value and its key: replicate plan {stage.experiment} --profile {PROFILE}{rows} --json",
    ]
    for index, task in enumerate(tasks):
        lines += [f"  {f'task {index}: ' if len(tasks) > 1 else ''}{job.label}" for job in task.jobs]
    lines += ["Written by `replicate slurm write` from slurm/template.sh.j2 and slurm/clusters; changes here are lost."]
    return tuple(lines)
