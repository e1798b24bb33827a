"""What a launch refuses before anything starts: too large, impossible, or not to be repeated; each in one line with the next step."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_launcher import FakeLauncher
from folders import ROOT
from typer.testing import CliRunner

from replication.cli.app import app
from replication.plan import refusals
from replication.plan.machine import Card, Machine, machine_of, seen, this_machine
from replication.plan.refusals import problems, refuse
from replication.plan.steps import Plan, plan
from replication.plan.view import values, work_lines
from replication.recipes.setting import Setting
from replication.settings import clusters
from replication.settings.clusters import Cluster, load_cluster, yielding_to_overrides
from replication.settings.experiments import EXPERIMENTS, TABLE1
from replication.settings.overrides import parse_overrides
from replication.settings.profile_files import load_profile
from replication.settings.profiles import HubBackbone, Profile
from replication.settings.protocols import PROTOCOLS
from replication.usage_problems import UsageProblems
from sarm.job import EnvironmentProblem, IntegrityProblem, UsageProblem
from sarm.store.artifacts import ArtifactStore
from sarm.store.manifest import CodeState

CLEAN = CodeState(commit="0" * 40, dirty=False)
DIRTY = CodeState(commit="0" * 40, dirty=True)
LARGE = Machine("a large one", 8, 1000.0, 4000.0)


def paper(*, pinned: bool = True) -> Profile:
    pins = {repository: "a" * 40 for repository, _ in load_profile("paper", environment={}).unpinned()}
    return load_profile("paper", environment={}, pins=pins if pinned else {})


def planned(tmp_path: Path, *assignments: str, rows: str = "sarm-4b", cluster: Cluster | None = None, pinned: bool = True) -> Plan:
    setting = Setting(
        experiment=TABLE1,
        profile=paper(pinned=pinned),
        protocol=PROTOCOLS["paper"],
        rows=rows,
        overrides=parse_overrides(assignments),
    )
    return plan([setting], ArtifactStore(tmp_path / "none"), cluster)


def told(work: Plan, machine: Machine | None, code: CodeState = CLEAN) -> list[str]:
    return [str(problem) for problem in problems(work, machine, allow_dirty=False, code=code)]


# --- memory ------------------------------------------------------------------------------------------------------------------


def test_zero_1_of_4_billion_parameters_does_not_fit_24_gb_and_what_fits_is_named(tmp_path: Path) -> None:
    cluster = yielding_to_overrides(load_cluster("rtx3090"), {"resources.train_reward": {"zero_stage": 1, "processes": 8, "gpus": 8}})
    ask = ("resources.train_reward.zero_stage=1", "resources.train_reward.processes=8", "resources.train_reward.gpus=8")
    (problem,) = told(planned(tmp_path, *ask, cluster=cluster), machine_of(cluster))
    assert problem.startswith("reward model sarm-4b, seed 0: needs ") and "rtx3090 has 24" in problem and "\n" not in problem
    assert "weights 8.0, gradients 8.0, optimizer 6.0" in problem
    assert "--set resources.train_reward.zero_stage=2" in problem
    followed = (ask[1], ask[2], "resources.train_reward.zero_stage=2")
    assert told(planned(tmp_path, *followed, cluster=cluster), machine_of(cluster)) == []


def test_one_80_gb_card_holds_the_8b_reward_model_without_zero_and_a_40_gb_card_does_not(tmp_path: Path) -> None:
    alone = ("resources.train_reward.zero_stage=0", "resources.train_reward.processes=1", "resources.train_reward.gpus=1")
    large = load_cluster("a100")
    assert told(planned(tmp_path, *alone, cluster=large), machine_of(large)) == []
    small = large.model_copy(update={"gpu_memory_gb": 40.0})
    (problem,) = told(planned(tmp_path, *alone, cluster=small), machine_of(small))
    more = ("processes=4", "gpus=4", "zero_stage=1")
    assert "a100 has 40; it fits with " + " ".join(f"--set resources.train_reward.{one}" for one in more) in problem
    followed = tuple(f"resources.train_reward.{one}" for one in more)
    assert told(planned(tmp_path, *followed, cluster=small), machine_of(small)) == []


ONE_CARD = ("resources.train_reward.processes=1", "resources.train_reward.gpus=1")


@pytest.mark.parametrize("recompute", ["true", "false"])
def test_8b_at_stage_2_on_one_80_gb_card_is_refused_and_what_fits_is_named_in_order(tmp_path: Path, recompute: str) -> None:
    """Source: gpu.md section 1: out of memory in the optimizer step, with and without recomputation."""
    ask = (*ONE_CARD, f"resources.train_reward.activation_checkpointing={recompute}", "resources.train_reward.micro_batch_tokens=11200")
    work = planned(tmp_path, *ask)
    apart = "fits with --set reward.moments=bfloat16 --set resources.train_reward.zero_stage=0"
    begun = "needs 89.9 GB a GPU in the optimizer step (weights 8.0, gradients 8.0, optimizer 48.2, update 24.1, sae 1.1, other 0.5)"
    # More cards where there may be more, else one card without ZeRO, else the host's help.
    again = "" if recompute == "true" else " --set resources.train_reward.activation_checkpointing=true"
    for machine, fitting in (
        (machine_of(load_cluster("a100")), "--set resources.train_reward.processes=2 --set resources.train_reward.gpus=2"),
        (Machine("one card", 1, 80.0, 400.0), f"--set resources.train_reward.zero_stage=0{again}"),
        (Machine("a small card", 1, 30.0, 400.0), f"--set resources.train_reward.offload=optimizer{again}"),
    ):
        (problem,) = told(work, machine)
        assert (begun if recompute == "true" else "needs 97.0 GB a GPU in the backward pass") in problem
        assert f"has {machine.gpu_memory_gb:.0f}; it fits with {fitting} (or the same in the cluster's file)" in problem
        assert (f"; another job, with another key and other numbers, {apart}" in problem) == (machine.gpu_memory_gb == 80.0)
        options = [one for one in fitting.split() if one != "--set"]
        assert told(planned(tmp_path, *ask, *options), machine) == []


def test_offload_is_refused_where_the_host_is_too_small_and_a_scheduler_is_asked_for_it(tmp_path: Path) -> None:
    own = ("resources.train_reward.memory_gb=64", "resources.train_sae.micro_batch_tokens=16384")
    ask = (*ONE_CARD, "resources.train_reward.offload=optimizer", *own)
    work = planned(tmp_path, *ask)
    (step,) = [one for one in work.steps if one.job.kind == "train_reward"]
    assert step.cost.memory_gb < 24 and step.job.resources.offload_gb == step.cost.memory.host == pytest.approx(81.35, abs=0.01)
    assert told(work, Machine("enough", 1, 24.0, 128.0)) == []
    (problem,) = told(work, Machine("little", 1, 24.0, 64.0))
    assert "offload keeps 81 GB in a host's memory, little has 64; " in problem
    asked = clusters.slurm_needs(clusters.on_cluster(step.job, load_cluster("a100")), load_cluster("a100"))
    assert asked.memory_gb == 64 + 82, "beside what was asked for"


def test_a_card_that_another_program_uses_is_told_at_the_start(tmp_path: Path) -> None:
    work = planned(tmp_path, *ONE_CARD, "resources.train_reward.zero_stage=0")
    idle = Machine("this machine", 2, 85.0, 500.0, (84.0, 10.0))
    assert told(work, idle) == [], "it takes the first"
    (problem,) = told(work, idle._replace(free_gb=(40.0, 84.0)))
    assert problem.startswith("reward model sarm-4b, seed 0: needs 69.3 GB a GPU, but of a GPU's 85 only 40 are free: ")
    assert "CUDA_VISIBLE_DEVICES" in problem and EnvironmentProblem.exit_code == 7
    with pytest.raises(EnvironmentProblem):
        refuse(work, idle._replace(free_gb=(40.0, 84.0)), allow_dirty=True)


def released(tmp_path: Path, *assignments: str, rows: str, cluster: Cluster) -> Plan:
    names = [model.source.repository for model in paper().released.values() if isinstance(model.source, HubBackbone)]
    names += [repository for repository, _ in paper(pinned=False).unpinned()]
    profile = load_profile("paper", environment={}, pins=dict.fromkeys(names, "a" * 40))
    fields: dict[str, Any] = {"experiment": TABLE1, "profile": profile, "protocol": PROTOCOLS["paper"], "source": "released", "rows": rows}
    return plan([Setting(**fields, overrides=parse_overrides(assignments))], ArtifactStore(tmp_path / "none"), cluster)


def test_released_models_are_planned_and_have_no_further_seed(tmp_path: Path) -> None:
    planned = released(tmp_path, rows="sarm-4b", cluster=load_cluster("a100"))
    lines = work_lines(planned)
    assert lines and not any("further seed" in line for line in lines)
    assert values(planned)["each_further_seed"]["flops"] == 0 and values(planned)["jobs"]


@pytest.mark.parametrize(
    ("rows", "cluster", "gpus"),
    [("*70b*", "a100", 2), ("*70b*", "rtx3090", 7), ("*27b*", "rtx3090", 3), ("*27b*", "a100", 1), ("sarm-4b", "rtx3090", 1)],
)
def test_a_model_that_is_larger_than_a_card_is_spread_over_as_many_as_it_needs(
    tmp_path: Path, rows: str, cluster: str, gpus: int
) -> None:
    where = load_cluster(cluster)
    refused = told(released(tmp_path, rows=rows, cluster=where), machine_of(where))
    hint = f"it fits with --set resources.score_benchmark.gpus={gpus} (or the same in the cluster's file)"
    assert all(hint in line for line in refused) and len(refused) == (2 if gpus > 1 else 0)
    fitting = released(tmp_path, f"resources.score_benchmark.gpus={gpus}", rows=rows, cluster=where)
    assert told(fitting, machine_of(where)) == []
    for step in fitting.steps:
        if step.job.kind == "score_benchmark":
            asked = clusters.slurm_needs(step.job, where)
            assert (asked.gpus, asked.processes, asked.nodes, asked.cpus) == (gpus, 1, 1, gpus * where.cpus_per_gpu)
            assert step.cost.memory_gb < where.gpu_memory_gb and step.cost.flops > 0


def test_a_model_whose_share_of_a_node_does_not_fit_is_refused_and_training_is_not_spread(tmp_path: Path) -> None:
    small = load_cluster("a100").model_copy(update={"gpu_memory_gb": 24.0})
    refused = told(released(tmp_path, rows="*70b*", cluster=small), machine_of(small))
    assert len(refused) == 2 and all("lower the batch_tokens of its section" in line for line in refused)
    where = load_cluster("a100")
    work = planned(tmp_path, "resources.train_reward.processes=1", cluster=where)
    (job,) = [step.job for step in work.steps if step.job.kind == "train_reward"]
    with pytest.raises(UsageProblems, match="4 GPUs, 1 processes; they must be equal"):
        clusters.slurm_needs(job, where)


@pytest.mark.parametrize(
    ("visible", "names"),
    [(None, "abc"), ("2,0", "ca"), ("GPU-2", "c"), ("", ""), ("1,7,0", "b"), ("MIG-1", ""), ("GPU-", "")],
)
def test_only_visible_cards_count(visible: str | None, names: str) -> None:
    """As CUDA reads its variable: in its order, up to the first entry that names no one card."""
    found = [Card(name, 80.0, 79.0, f"GPU-{number}") for number, name in enumerate("abc")]
    assert "".join(card.name for card in seen(found, visible)) == names


def test_an_sae_that_does_not_fit_is_told_of_bfloat16_moments_apart(tmp_path: Path) -> None:
    cluster = load_cluster("rtx3090").model_copy(update={"gpu_memory_gb": 21.0})
    (problem,) = [line for line in told(planned(tmp_path, cluster=cluster), machine_of(cluster)) if line.startswith("SAE")]
    assert "it fits with --set resources.train_sae.micro_batch_tokens=" in problem
    assert problem.endswith("; another job, with another key and other numbers, fits with --set sae.moments=bfloat16")


def test_without_checkpointing_a_long_pair_does_not_fit_and_checkpointing_is_proposed(tmp_path: Path) -> None:
    cluster = load_cluster("rtx3090").model_copy(update={"gpu_memory_gb": 30.0, "memory_per_node_gb": 512.0, "resources": {}})
    work = planned(tmp_path, "resources.train_reward.activation_checkpointing=false", cluster=cluster)
    (problem,) = told(work, machine_of(cluster))
    assert "activation_checkpointing=true" in problem


def test_too_many_saes_in_one_pass_do_not_fit_a_24_gb_card(tmp_path: Path) -> None:
    cluster = load_cluster("rtx3090").model_copy(update={"saes_per_task": 3})
    work = planned(tmp_path, "sae.batch_vectors=32768", rows="sarm-4b", cluster=cluster)
    (problem,) = [line for line in told(work, machine_of(cluster)) if line.startswith("SAE")]
    assert "take a larger card" in problem and "saes_per_task" in problem


def test_what_set_says_wins_over_a_cluster_s_file() -> None:
    cluster = load_cluster("rtx3090")
    given = yielding_to_overrides(cluster, parse_overrides(["resources.train_reward.zero_stage=1"]))
    own = cluster.resources["train_reward"]
    assert own["zero_stage"] == 3 and given.resources["train_reward"] == {name: own[name] for name in own if name != "zero_stage"}
    given = yielding_to_overrides(cluster, parse_overrides(["resources.processes=4", "resources.gpus=4"]))
    assert given.resources["train_reward"] == {name: own[name] for name in own if name not in ("processes", "gpus")}


@pytest.mark.parametrize("cluster", ["a100", "rtx3090"])
def test_everything_the_paper_trains_fits_the_shipped_clusters(cluster: str, tmp_path: Path) -> None:
    where = load_cluster(cluster)
    for experiment in EXPERIMENTS.values():
        setting = Setting(experiment=experiment, profile=paper(), protocol=PROTOCOLS["paper"])
        assert told(plan([setting], ArtifactStore(tmp_path), where), machine_of(where)) == []


def test_saes_of_the_paper_fit_the_24_gb_cards_that_it_used(tmp_path: Path) -> None:
    where = load_cluster("rtx3090")
    assert not [line for line in told(planned(tmp_path, rows="*", cluster=where), machine_of(where)) if line.startswith("SAE")]


def test_a_host_without_gpus_is_told_so_and_one_with_little_memory_too(tmp_path: Path) -> None:
    bare = Machine("this machine", 0, 0.0, 64.0)
    lines = told(planned(tmp_path), bare)
    assert any("reward model sarm-4b, seed 0: needs 4 GPUs, this machine has no GPU; use --launcher slurm" in line for line in lines)
    mini = Setting(experiment=TABLE1, profile=load_profile("mini", environment={}), protocol=PROTOCOLS["paper"])
    work = plan([mini], ArtifactStore(tmp_path))
    assert told(work, bare) == []
    assert all("a process" in line for line in told(work, bare._replace(memory_gb=0.3))) and told(work, bare._replace(memory_gb=0.3))
    assert this_machine().memory_gb > 0.5


def test_what_is_done_is_not_refused(tmp_path: Path) -> None:
    setting = Setting(experiment=TABLE1, profile=paper(), protocol=PROTOCOLS["paper"], rows="sarm-4b")
    store = ArtifactStore(tmp_path)
    FakeLauncher().launch(plan([setting], store).todo, store, lambda event: None)
    assert told(plan([setting], store), Machine("a toy", 0, 0.0, 0.1), DIRTY) == []


# --- what cannot run or be repeated ------------------------------------------------------------------------------------------


def test_a_batch_that_a_cluster_s_processes_cannot_share_is_refused(tmp_path: Path) -> None:
    resources = {"train_reward": {"processes": 3, "gpus": 3, "zero_stage": 3}}
    cluster = load_cluster("a100").model_copy(update={"resources": resources})
    work = planned(tmp_path, cluster=cluster)
    assert told(work, machine_of(cluster)) == [
        "reward.batch_pairs = 8 is not a multiple of resources.train_reward.processes = 3; choose a batch that divides"
    ]
    with pytest.raises(UsageProblem):
        refuse(work, machine_of(cluster), allow_dirty=True)


@pytest.mark.parametrize("revision", ["unknown", "main", "v1.0", "abc123", "A" * 40])
def test_a_revision_that_is_no_commit_is_refused(revision: str, tmp_path: Path) -> None:
    profile = paper()
    backbone = profile.backbones["large"]
    source = backbone.source.model_copy(update={"revision": revision})
    changed = {**profile.backbones, "large": backbone.model_copy(update={"source": source})}
    setting = Setting(experiment=TABLE1, profile=profile.model_copy(update={"backbones": changed}), protocol=PROTOCOLS["paper"])
    work = plan([setting], ArtifactStore(tmp_path))
    (problem,) = told(work, LARGE)
    assert "revisions are not pinned (meta-llama/Llama-3.1-8B-Instruct); run: replicate fetch table1 --profile paper" in problem
    with pytest.raises(EnvironmentProblem):
        refuse(work, LARGE, allow_dirty=True)


def test_a_dirty_tree_is_refused_at_the_paper_s_scale_alone(tmp_path: Path) -> None:
    (problem,) = told(planned(tmp_path), LARGE, DIRTY)
    assert "--allow-dirty" in problem and "+dirty" in problem and "commit them" in problem
    assert not problems(planned(tmp_path), LARGE, allow_dirty=True, code=DIRTY)
    mini = Setting(experiment=TABLE1, profile=load_profile("mini", environment={}), protocol=PROTOCOLS["paper"])
    assert not problems(plan([mini], ArtifactStore(tmp_path)), LARGE, allow_dirty=False, code=DIRTY)


@pytest.mark.parametrize("value", ["fp8", "float8_e4m3fn", "torch.float8_e5m2"])
def test_fp8_is_refused_with_the_cards_that_lack_it(value: str, tmp_path: Path) -> None:
    for section in ("reward.dtype", "scoring.dtype", "sae.backbone_dtype"):
        with pytest.raises(UsageProblems, match=r"Ampere cards \(A100, RTX 3090\) have no fp8, .*Hopper.*use bfloat16") as caught:
            parse_overrides([f"{section}={value}"])
        assert len(caught.value.problems) == 1
    file = tmp_path / "mine.toml"
    text = (ROOT / "replication" / "profiles" / "mini.toml").read_text(encoding="utf-8")
    assert 'dtype = "float32"' in text
    file.write_text(text.replace('dtype = "float32"', f'dtype = "{value}"', 1), encoding="utf-8")
    with pytest.raises(UsageProblems, match="fp8"):
        load_profile(str(file), environment={})


def test_a_cluster_file_cannot_ask_for_fp8(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    text = (ROOT / "slurm" / "clusters" / "a100.toml").read_text(encoding="utf-8")
    file.write_text(text + '\n[resources.train_reward]\nfp8 = true\n', encoding="utf-8")
    with pytest.raises(UsageProblems, match=r"train_reward\.fp8: .*Ampere"):
        load_cluster(str(file))


@pytest.mark.parametrize(("resources", "said"), [
    ({"gpus": 4, "processes": 2, "zero_stage": 2}, "4 GPUs, 2 processes; they must be equal"),
    ({"memory_gb": 5000}, "5000 GB of host memory a node, a100 has"),
])  # fmt: skip
def test_what_slurm_could_not_be_asked_for_is_told_before_it_is_asked(tmp_path: Path, resources: dict[str, int], said: str) -> None:
    cluster = load_cluster("a100")
    asked = cluster.resources.get("train_reward", {}) | resources
    cluster = cluster.model_copy(update={"resources": cluster.resources | {"train_reward": asked}})
    with pytest.raises(UsageProblem, match=said):
        refuse(planned(tmp_path, cluster=cluster), machine_of(cluster), allow_dirty=True)


def test_several_problems_are_told_at_once_and_the_worst_gives_the_code(tmp_path: Path) -> None:
    resources = {"train_reward": {"processes": 3, "gpus": 3, "zero_stage": 0}}
    cluster = load_cluster("rtx3090").model_copy(update={"resources": resources})
    work = planned(tmp_path, cluster=cluster, pinned=False)
    with pytest.raises(UsageProblem) as caught:
        refuse(work, machine_of(cluster), allow_dirty=True)
    lines = str(caught.value).splitlines()
    assert "does not" not in lines[0] and "not a multiple" in lines[0]
    assert any("rtx3090 has 24" in line for line in lines) and any("not pinned" in line for line in lines)
    assert [IntegrityProblem.exit_code, EnvironmentProblem.exit_code, UsageProblem.exit_code] == [6, 7, 2]


def test_offline_with_something_to_fetch_names_the_command(tmp_path: Path) -> None:
    expected = r"text corpus \(prepare_data/.*\) is not in the store; .*replicate fetch table1 --profile paper"
    with pytest.raises(EnvironmentProblem, match=expected):
        refuse(planned(tmp_path), LARGE, allow_dirty=True, offline=True)


# --- through the command line ------------------------------------------------------------------------------------------------


def pinned_store(tmp_path: Path) -> Path:
    store = tmp_path / "store"
    store.mkdir()
    pins = {repository: "a" * 40 for repository, _ in load_profile("paper", environment={}).unpinned()}
    (store / "revisions.json").write_text(json.dumps(pins), encoding="utf-8")
    return store


@pytest.mark.parametrize("launcher", ["local", "slurm", "print"])
def test_no_launcher_starts_what_does_not_fit(launcher: str, tmp_path: Path) -> None:
    ask = ["--set", "resources.train_reward.zero_stage=1", "--rows", "sarm-4b", "--allow-dirty", "--cluster", "rtx3090"]
    command = [sys.executable, "-m", "replication.cli", "table1", "--profile", "paper", "--launcher", launcher, *ask]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SARM_STORE": str(pinned_store(tmp_path))}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment, timeout=60)
    assert done.returncode == 7, done.stderr
    assert ("rtx3090 has 24" if launcher != "local" else "this machine has") in done.stderr and "Traceback" not in done.stderr
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == ["revisions.json"] and not done.stdout


def test_the_plan_shows_what_a_launch_would_refuse(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "replication.cli", "plan", "table1", "--profile", "paper", "--cluster", "rtx3090"]
    command += ["--set", "resources.train_reward.zero_stage=1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SARM_STORE": str(pinned_store(tmp_path))}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment, timeout=60)
    assert done.returncode == 0 and re.search(r"a launch refuses: reward model sarm-4b, seed 0: needs 2\d\.\d GB a GPU", done.stderr)


def test_the_plan_allows_changed_code_as_a_launch_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "code_state", lambda: DIRTY)
    store = str(pinned_store(tmp_path))
    for allowed, environment in (([], {}), (["--allow-dirty"], {}), ([], {"SARM_ALLOW_DIRTY": "1"})):
        command = ["plan", "table1", "--profile", "paper", *allowed, "--store", store]
        done = CliRunner().invoke(app, command, env={"SARM_ALLOW_DIRTY": None, **environment})
        assert done.exit_code == 0 and ("changes that are in no commit" in done.stderr) is not bool(allowed or environment)
