"""The cost model against the specification's figures, and what a plan says of the whole paper."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import pytest
from fake_launcher import FakeLauncher
from folders import ROOT

from replication.plan.calibration import compared
from replication.plan.cost import Cost, Estimator, shared_passes
from replication.plan.memory import training_states
from replication.plan.sizes import block_bytes, kept_bytes, layer_parameters, truncated_parameters
from replication.plan.steps import Plan, plan
from replication.plan.totals import added_cost, further_seed, stages, work_of
from replication.plan.training_memory import reward_memory, sae_memory
from replication.plan.view import memory_lines, summary, values
from replication.recipes.jobs_needed import recipe
from replication.recipes.setting import Setting
from replication.settings.clusters import load_cluster
from replication.settings.experiments import EXPERIMENTS, RELATED, TABLE1, TABLE2, TABLE3
from replication.settings.overrides import parse_overrides
from replication.settings.profile_files import load_profile
from replication.settings.protocols import PROTOCOLS
from sarm.config.train import RewardTrainingConfig, SAETrainingConfig
from sarm.config.weights import WeightsConfig
from sarm.job import Job, Resources
from sarm.store.artifacts import ArtifactStore


def setting(profile: str, experiment: str = "table1", **changes: object) -> Setting:
    made = Setting(experiment=EXPERIMENTS[experiment], profile=load_profile(profile, environment={}), protocol=PROTOCOLS["paper"])
    return replace(made, **changes)  # type: ignore[arg-type]


def whole_paper(tmp_path: Path, cluster: str = "", **changes: object) -> Plan:
    settings = [setting("paper", name, **changes) for name in EXPERIMENTS]
    return plan(settings, ArtifactStore(tmp_path / "none"), load_cluster(cluster) if cluster else None)


# --- memory ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpus", "stage", "printed"),
    [
        *[(1, 1, 64.2), (2, 1, 40.1), (4, 1, 28.1), (8, 1, 22.1)],
        *[(1, 2, 64.2), (2, 2, 36.1), (4, 2, 22.1), (8, 2, 15.1)],
        *[(1, 3, 64.2), (2, 3, 32.1), (4, 3, 16.1), (8, 3, 8.0), (8, 0, 64.2)],
    ],
)
def test_states_of_4_015_billion_parameters_are_the_table_s(gpus: int, stage: Literal[0, 1, 2, 3], printed: float) -> None:
    """Source: reward-training.md section 4, Memory (decimal GB). Without ZeRO nothing is shared, whatever the number of cards."""
    large = load_profile("paper", environment={}).backbones["large"].shape
    parameters = truncated_parameters(large, 16)
    assert parameters == pytest.approx(4.015e9, rel=1e-3)
    resources = Resources(processes=gpus, gpus=gpus, zero_stage=stage)
    assert training_states(parameters, dtype="bfloat16", resources=resources).total == pytest.approx(printed, abs=0.1)


def test_activations_and_layers_are_the_specification_s() -> None:
    """Source: the same: 218.10 M weights a layer, about 3 MB a token kept, 0.13 MB and one block (170 to 200 kB) when checkpointed.

    Counted from the code a block keeps 213 kB: keys and values are repeated for every query head where the kernel wants that.
    """
    large = load_profile("paper", environment={}).backbones["large"].shape
    assert layer_parameters(large) == pytest.approx(218.10e6, rel=1e-3)
    block = block_bytes(large, width=2)
    assert block == 2 * (4 * 4096 + 2 * 2 * 4096) + 2 * (4 * 4096 + 4 * 14336) == pytest.approx(213e3, rel=1e-3)
    # Of the last block every token needs keys and values alone.
    assert kept_bytes(large, layers=16, width=2, checkpointed=False, trimmed=True) == pytest.approx(3.0e6, rel=0.1)
    assert kept_bytes(large, layers=16, width=2, checkpointed=False) == 16 * block
    assert kept_bytes(large, layers=16, width=2, checkpointed=True) == 16 * 2 * 4096 + block


def test_float32_states_take_as_much_as_mixed_ones_and_are_shared_as_well() -> None:
    one = training_states(1e9, dtype="float32", resources=Resources())
    assert (one.weights, one.gradients, one.optimizer) == (4.0, 4.0, 8.0)
    two = training_states(1e9, dtype="float32", resources=Resources(processes=2, zero_stage=2))
    assert (two.weights, two.gradients, two.optimizer) == (4.0, 2.0, 4.0)


def test_a_frozen_backbone_has_no_states_and_a_trained_sae_has() -> None:
    large = load_profile("paper", environment={}).backbones["large"].shape
    encoder, base = 4096 * 65536, RewardTrainingConfig(dtype="bfloat16", layer=16)
    frozen = reward_memory(
        base.model_copy(update={"backbone_trains": False}), large, Resources(gpus=1), encoder=encoder, pair_tokens=1400
    )
    assert frozen.weights == pytest.approx(8.03, abs=0.01) and frozen.optimizer == frozen.gradients == frozen.update == 0.0
    trained = reward_memory(base.model_copy(update={"sae_trains": True}), large, Resources(gpus=1), encoder=encoder, pair_tokens=1400)
    assert trained.sae == 0.0 and trained.optimizer == pytest.approx(12 * (4.015 + 0.537), rel=0.01)


def test_saes_of_one_pass_share_the_backbone_and_add_up() -> None:
    """Source: sae-training.md section 5: 8.6 GB of float32 parameters, gradients and moments for the 8B's SAE, 4.8 GB for the 3B's."""
    shapes = {name: one.shape for name, one in load_profile("paper", environment={}).backbones.items()}
    large = SAETrainingConfig(layer=16, n_latents=65536, k=192, vectors=10**6, backbone_dtype="bfloat16")
    small = SAETrainingConfig(layer=14, n_latents=49152, k=144, vectors=10**6, backbone_dtype="bfloat16")
    assert sae_memory([large], shapes["large"], Resources(gpus=1)).sae == pytest.approx(8.6, abs=0.05)
    one = sae_memory([small], shapes["small"], Resources(gpus=1))
    assert one.sae == pytest.approx(4.8, abs=0.05)
    shared = sae_memory([small], shapes["small"], Resources(gpus=2, processes=2, zero_stage=1))
    # The SAE, the engine's copy and the workspace's gradients, 4 bytes each; half of moments and float32 copy.
    assert shared.sae == pytest.approx(one.sae * (3 * 4 + 12 / 2) / 16)
    deeper = small.model_copy(update={"layer": 21})
    both = sae_memory([small, deeper], shapes["small"], Resources(gpus=1))
    # Weights and moments of each; gradients lie in a workspace in which they take turns.
    assert both.sae == pytest.approx(one.sae * (2 * 12 + 4) / 16)
    assert both.weights == sae_memory([deeper], shapes["small"], Resources(gpus=1)).weights


def test_the_estimate_of_the_8b_reward_model_is_the_specification_s() -> None:
    """Source: reward-training.md section 4: 9.20e18 FLOP and 20.5 A100-hours at 40 % with full checkpointing; 22.1 GB under ZeRO-2 on 4."""
    found = recipe(setting("paper", rows="sarm-4b"))
    model = found.trainings[0].model
    assert model is not None
    cost = Estimator.of(found).cost(model)
    assert cost.flops == pytest.approx(9.2e18, rel=0.03)
    assert cost.gpu_hours("A100") == pytest.approx(20.5, rel=0.03)
    assert cost.memory.weights + cost.memory.gradients + cost.memory.optimizer == pytest.approx(22.1, abs=0.1)
    assert cost.memory.moment == "the optimizer step" and cost.memory.update == pytest.approx(6 * 4.015 / 4, rel=0.01)
    assert cost.memory.sae == pytest.approx(2 * 0.537, abs=0.01), "encoder and decoder are loaded"


# --- the whole paper ---------------------------------------------------------------------------------------------------------


def test_the_whole_paper_is_21_rows_16_trainings_and_15_saes(tmp_path: Path) -> None:
    """Source: issue text; Tables 1 to 3 have 3 + 3 + 15 of them; some are the same model."""
    work = work_of(whole_paper(tmp_path))
    assert (work.printed.rows, work.printed.trainings, work.printed.saes) == (21, 16, 15)
    # One pass for the 3B backbone's 13 SAEs, one for the 8B's sentences, one for its every token.
    assert work.printed.passes == 3
    controls = {row.name for one in (TABLE1, TABLE2, TABLE3, RELATED) for row in one.rows if row.control}
    assert work.added.rows == len(controls) == work.added.trainings and work.added.saes == work.added.passes == 1


def test_counts_follow_the_registry(tmp_path: Path) -> None:
    fewer = TABLE3.model_copy(update={"rows": tuple(row for row in TABLE3.rows if row.axis != "k")})
    settings = [setting("paper"), replace(setting("paper"), experiment=fewer)]
    work = work_of(plan(settings, ArtifactStore(tmp_path / "none")))
    assert work.printed.rows == 3 + 10 and work.printed.trainings == 3 + 7 and work.added.rows == 0


def test_a_cluster_that_trains_fewer_saes_together_reads_the_text_more_often(tmp_path: Path) -> None:
    here, four, one = (whole_paper(tmp_path, name) for name in ("", "a100", "rtx3090"))
    assert [work_of(each).printed.passes for each in (here, four, one)] == [3, 4 + 2, 15]
    sae_flops = [next(stage.cost.flops for stage in stages(each) if stage.kind == "train_sae") for each in (here, four, one)]
    assert sae_flops[0] < sae_flops[1] < sae_flops[2]


def test_a_further_seed_repeats_what_a_seed_changes_and_nothing_is_downloaded_again(tmp_path: Path) -> None:
    planned = whole_paper(tmp_path)
    seed = further_seed(planned)
    # The frozen backbone's states of a text are the same for every seed.
    once = ("prepare_data", "fetch_weights", "harvest_states")
    trained = sum((stage.cost for stage in stages(planned) if stage.kind not in once), Cost())
    assert seed.download_gb == 0.0 and seed.flops == pytest.approx(trained.flops, rel=1e-6)
    twice = whole_paper(tmp_path, seeds=(0, 1))
    shared = sum(stage.cost.flops for stage in stages(planned) if stage.kind in once)
    assert sum(step.cost.flops for step in twice.steps) == pytest.approx(2 * seed.flops + shared, rel=1e-6)
    assert work_of(twice).printed.trainings == 2 * 16 and work_of(twice).printed.rows == 21


def test_weights_of_a_folder_take_their_room_again_since_they_are_copied(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"0" * 3_000_000)
    estimator = Estimator.of(recipe(setting("paper")))
    job = Job(WeightsConfig(origin="folder", revision="0" * 64), locations={"source": str(tmp_path)})
    assert estimator.cost(job).disk_gb == pytest.approx(0.003) and estimator.cost(job).download_gb == 0


def test_controls_are_counted_apart(tmp_path: Path) -> None:
    planned = whole_paper(tmp_path)
    models = [step for step in planned.steps if step.job.kind == "train_reward" and "scalar" in step.job.label]
    assert len(models) == 2 and added_cost(planned).flops > sum(step.cost.flops for step in models)
    assert added_cost(plan([setting("paper")], ArtifactStore(tmp_path / "none"))).flops == 0


def test_downloads_name_every_hub_source_once(tmp_path: Path) -> None:
    planned = whole_paper(tmp_path)
    sources = {source.repository: source.download_gb for source, _ in setting("paper").profile.hub_sources()}
    assert len(sources) == 6 and all(size > 0 for size in sources.values())
    assert planned.cost.download_gb == pytest.approx(sum(sources.values()))
    # 16-bit weights of 3,212,749,824 and 8,030,261,248 parameters.
    assert sources["meta-llama/Llama-3.1-8B-Instruct"] == pytest.approx(16.06, abs=0.005)
    assert sources["meta-llama/Llama-3.2-3B-Instruct"] == pytest.approx(6.43, abs=0.005)
    told = " ".join(planned.warnings)
    assert told.count("is gated") == 2 and "meta-llama/Llama-3.1-8B-Instruct is gated" in told


def test_downloads_of_unknown_size_are_not_told_as_none(tmp_path: Path) -> None:
    """The paper's sources say how large they are, published models do not."""
    paper = whole_paper(tmp_path)
    assert " ".join(summary(paper)).endswith(f"; {paper.cost.download_gb:.0f} GB of downloads")
    released = plan([setting("paper", rows="sarm-4b", source="released")], ArtifactStore(tmp_path))
    (told,) = [line for line in summary(released) if "downloads" in line]
    assert told.endswith(" GB of downloads, 1 download of unknown size") and "; 0 GB" not in told
    assert not any("download" in line for line in summary(plan([setting("mini")], ArtifactStore(tmp_path))))


def test_json_of_a_plan_holds_every_part_of_the_memory_and_the_cluster_s_hours(tmp_path: Path) -> None:
    content = values(whole_paper(tmp_path, "a100"))
    reward = next(job for job in content["jobs"] if job["label"].startswith("reward model sarm-4b"))
    parts = {name: value for name, value in reward["cost"]["memory"].items() if name not in ("moment", "host")}
    assert set(parts) == {"weights", "gradients", "optimizer", "update", "activations", "sae", "buffers", "other"}
    assert reward["cost"]["memory"]["moment"] == "the optimizer step" and reward["cost"]["memory"]["host"] == 0.0
    assert reward["cost"]["memory_gb"] == pytest.approx(sum(parts.values()))
    assert reward["cost"]["gpu_hours"] == {"a100": pytest.approx(20.5, rel=0.03)} and content["gpu_memory_gb"] == 80.0
    assert content["work"]["printed"]["saes"] == 15 and content["each_further_seed"]["flops"] > 0
    json.dumps(content)


def test_the_largest_process_of_each_stage_is_told_part_by_part(tmp_path: Path) -> None:
    lines = memory_lines(whole_paper(tmp_path, "a100"))
    reward = next(line for line in lines if line.startswith("largest train_reward"))
    assert "53.0 of 80 GB a card in the optimizer step (weights 15.0, gradients 3.8, optimizer 22.5, update 11.3, other 0.5)" in reward
    assert "scalar-full" in reward and any(line.startswith("largest train_sae") and ", sae " in line for line in lines)


def test_a_pass_is_shared_only_by_saes_that_differ_in_layer_width_and_k(tmp_path: Path) -> None:
    jobs = [step.job for step in whole_paper(tmp_path).steps]
    sizes = sorted(len(group) for group in shared_passes(jobs))
    assert sizes == [1, 1, 1, 13]
    for group in shared_passes(jobs):
        assert len({job.inputs["backbone"].key for job in group}) == 1


# --- predicted and measured --------------------------------------------------------------------------------------------------


def test_predictions_stand_beside_the_manifests(tmp_path: Path) -> None:
    mini = setting("mini", overrides=parse_overrides(["resources.train_sae.threads=1"]))
    store = ArtifactStore(tmp_path)
    assert compared(plan([mini], store), store) == []
    FakeLauncher().launch(plan([mini], store).todo, store, lambda event: None)
    found = {one.kind: one for one in compared(plan([mini], store), store)}
    assert found["train_sae"].jobs == 3 and found["score_benchmark"].jobs == 9
    # The fake launcher's manifests say 0.1 s each.
    assert found["train_sae"].measured_seconds == pytest.approx(0.3)
    assert found["train_sae"].ratio == pytest.approx(0.3 / found["train_sae"].predicted_seconds)


def test_a_job_is_compared_by_the_threads_that_it_had_and_by_those_that_are_told_where_it_notes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)

    def predicted(*, noted: int, told: int) -> float:
        backends = SimpleNamespace(cpu=SimpleNamespace(get_cpu_capability=lambda: "AVX2"))
        store = ArtifactStore(tmp_path / str(noted))
        with monkeypatch.context() as here:
            here.setitem(sys.modules, "torch", SimpleNamespace(get_num_threads=lambda: noted, backends=backends))
            FakeLauncher().launch(plan([setting("mini")], store).todo, store, lambda event: None)
        found = {one.kind: one for one in compared(plan([setting("mini")], store), store, threads=told)}
        return found["train_reward"].predicted_seconds

    assert predicted(noted=0, told=1) > predicted(noted=0, told=2) > predicted(noted=0, told=0)
    assert predicted(noted=1, told=2) == predicted(noted=1, told=0) == predicted(noted=0, told=1)


def test_plan_on_a_cluster_answers_quickly_and_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from replication.cli.app import app\n"
        f"sys.argv = ['replicate', 'plan', 'all', '--profile', 'paper', '--cluster', 'a100', '--store', {str(tmp_path)!r}]\n"
        "try: app()\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stderr
    assert re.search(r"21 rows, 16 different trainings of reward models, 15 SAEs", done.stdout)
