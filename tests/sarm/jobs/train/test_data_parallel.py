"""Training in two real processes over gloo: the weights of one process, exact resume, and what is refused."""

from __future__ import annotations

import json
import shutil
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from folders import SUPPORT
from group_jobs import GivenConfig
from safetensors.torch import load_file
from tiny import HIDDEN, TEXTS, learnable_pairs, read_rows, save_backbone, write_corpus, write_rows

from replication.launch.local import LocalLauncher
from sarm.checkpoints.reward_models.layouts import load_reward_model
from sarm.checkpoints.saes.files import save_sae
from sarm.config.train import RewardTrainingConfig, SAETrainingConfig
from sarm.job import Job, Resources
from sarm.sae.model import TopKSAE
from sarm.store.artifacts import ArtifactStore

COMMAND = "replicate table1 --profile mini"
Events = list[dict[str, Any]]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Job]:
    folder = tmp_path_factory.mktemp("inputs")
    sae = TopKSAE(hidden_size=HIDDEN, n_latents=32, k=4)
    sae.reset(torch.Generator().manual_seed(0))
    sae.normalize_decoder()
    (folder / "sae").mkdir()
    save_sae(folder / "sae", sae, layer=2)
    save_backbone(folder / "backbone")
    write_rows(folder / "preferences", "train.jsonl", learnable_pairs(24))
    write_corpus(folder / "corpus", TEXTS, times=50)
    names = ("backbone", "sae", "preferences", "corpus")
    return {name: Job(GivenConfig(name=name), locations={"source": str(folder / name)}) for name in names}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArtifactStore:
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return ArtifactStore(tmp_path / "store")


def reward_job(inputs: dict[str, Job], resources: dict[str, Any], **changes: Any) -> Job:
    # The head starts away from zero, since Adam turns the sign of a vanishing gradient into a whole step.
    values = {"layer": 2, "batch_pairs": 4, "epochs": 1, "learning_rate": 1e-3, "max_length": 64, "head_init": "normal", **changes}
    needs = {"threads": 1, "micro_batch_tokens": 60, "checkpoint_minutes": 1e-6, **resources}
    needed = ("backbone", "preferences", *(["sae"] if values.get("encoder", "sae") == "sae" else []))
    own = {name: inputs[name] for name in needed}
    return Job(RewardTrainingConfig(**values), inputs=own, resources=Resources(**needs), label="reward model")


def sae_job(inputs: dict[str, Job], resources: dict[str, Any], **changes: Any) -> Job:
    sizes = {"layer": 2, "n_latents": 32, "k": 4, "vectors": 320, "batch_vectors": 16, "buffer_vectors": 128, "held_out_vectors": 40}
    needs = {"threads": 1, "micro_batch_tokens": 256, "checkpoint_minutes": 60.0, **resources}
    own = {name: inputs[name] for name in ("backbone", "corpus")}
    config = SAETrainingConfig(**{**sizes, "learning_rate": 1e-3, **changes})
    return Job(config, inputs=own, resources=Resources(**needs), label=f"SAE of layer {config.layer}")


def run(store: ArtifactStore, jobs: Sequence[Job], watch: Callable[[dict[str, Any]], None] = lambda event: None) -> tuple[int, str]:
    """Exit code and report."""
    reports: list[str] = []
    plan = list({one.key: one for job in jobs for one in (*job.inputs.values(), job)}.values())
    plan.sort(key=lambda job: job.kind != "given")
    launcher = LocalLauncher(command=COMMAND, report=reports.append, registry="group_jobs:WITH_GIVEN")
    return launcher.launch(plan, store, watch), "".join(reports)


def apart(one: Path, other: Path, name: str = "model.safetensors") -> float:
    """The largest difference between two files of weights."""
    first, second = load_file(one / name), load_file(other / name)
    assert first.keys() == second.keys()
    return max(float((first[key].float() - second[key].float()).abs().max()) for key in first)


def stop_at(step: int, stop: Callable[[], None]) -> Callable[[dict[str, Any]], None]:
    told = threading.Event()

    def watch(event: dict[str, Any]) -> None:
        if event["event"] == "progress" and event["done"] >= step and not told.is_set():
            told.set()
            stop()

    return watch


def first_step(events: Events) -> int:
    return min(event["done"] for event in events if event["event"] == "progress")


@pytest.mark.slow
def test_two_processes_give_the_weights_of_one_with_every_zero_stage(
    store: ArtifactStore, tmp_path: Path, inputs: dict[str, Job], record_property: Callable[[str, object], None]
) -> None:
    sae = {"sae_trains": True, "reconstruction_weight": 1.0, "reconstruction_reaches_backbone": True}
    whole = {"encoder": "none", "selection": "validation", "validation_fraction": 0.3, "batch_pairs": 2}
    cases: list[tuple[int, dict[str, Any]]] = [(0, {}), (1, {"encoder": "linear", "n_latents": 32}), (2, sae), (3, whole), (3, sae)]

    def jobs(**resources: Any) -> list[Job]:
        found = []
        for seed, (stage, changes) in enumerate(cases):
            own = {**resources, "zero_stage": stage, "activation_checkpointing": stage == 3} if resources else {}
            found.append(reward_job(inputs, own, seed=seed, **changes))
        return found

    alone = ArtifactStore(tmp_path / "alone")
    assert run(alone, jobs()) == (0, "")
    assert run(store, jobs(processes=2)) == (0, "")
    for (stage, _), job in zip(cases, jobs(), strict=True):
        difference = apart(alone.path(job), store.path(job))
        record_property(f"zero_{stage}", difference)
        steps = json.loads((store.path(job) / "training.json").read_text())["steps"]
        print(f"ZeRO {stage}, {steps} steps: max |w2 - w1| = {difference:.2e}")
        # Rounding; one step of Adam moves a weight by 1e-3.
        assert difference < 2e-6, stage
        rows, others = (read_rows(one.path(job) / "metrics.jsonl") for one in (alone, store))
        assert len(rows) == len(others)
        for row, other in zip(rows, others, strict=True):
            assert row == pytest.approx(other, rel=1e-4)
        assert (alone.path(job) / "training.json").read_text() == (store.path(job) / "training.json").read_text()
        model = load_reward_model(store.path(job))
        start = load_file(Path(inputs["backbone"].locations["source"]) / "model.safetensors")["model.embed_tokens.weight"]
        assert model.layer == 2
        assert float((model.model.get_parameter("embed_tokens.weight").detach() - start).abs().max()) > 1e-3, "they all learned something"


@pytest.mark.slow
def test_a_stopped_run_of_two_processes_goes_on_bit_for_bit_and_on_one_from_a_universal_checkpoint(
    store: ArtifactStore, tmp_path: Path, inputs: dict[str, Job]
) -> None:
    def job(processes: int, stage: int) -> Job:
        return reward_job(inputs, {"processes": processes, "zero_stage": stage, "checkpoint_minutes": 60.0}, epochs=20)

    whole = ArtifactStore(tmp_path / "whole")
    assert run(whole, [job(2, 2)])[0] == 0
    code, report = run(store, [job(2, 2)], stop_at(3, lambda: signal.raise_signal(signal.SIGTERM)))
    assert code == 75 and "stopped at step" in report and store.state(job(2, 2)).reason == "stopped with a checkpoint"
    staging = store.root / ".staging" / "train_reward"
    assert len(list(staging.glob("*/*/checkpoint/step-*"))) == 1, "older ones are pruned"
    # Another way of training is refused with the values that continue it.
    code, report = run(store, [job(1, 0)])
    assert code == 2 and "--set resources.train_reward.processes=2 --set resources.train_reward.zero_stage=2" in report
    shutil.copytree(store.root, tmp_path / "copy")
    events: Events = []
    assert run(store, [job(2, 2)], events.append)[0] == 0 and first_step(events) > 3
    assert apart(whole.path(job(2, 2)), store.path(job(2, 2))) == 0.0
    for name in ("model.safetensors", "metrics.jsonl", "training.json"):
        assert (whole.path(job(2, 2)) / name).read_bytes() == (store.path(job(2, 2)) / name).read_bytes(), name
    copy = ArtifactStore(tmp_path / "copy")
    events.clear()
    code, report = run(copy, [job(1, 2)], events.append)
    assert code == 0, report
    difference = apart(whole.path(job(1, 2)), copy.path(job(1, 2)))
    print(f"universal checkpoint, 2 -> 1 processes, ZeRO 2: max |w - w'| = {difference:.2e}")
    assert first_step(events) > 3 and difference < 5e-5


@pytest.mark.slow
def test_killed_at_any_moment_at_most_one_interval_is_lost(store: ArtifactStore, tmp_path: Path, inputs: dict[str, Job]) -> None:
    def on(processes: int) -> Job:
        # Rates of their own for head and blocks, which a universal checkpoint must not mix up.
        return reward_job(inputs, {"processes": processes, "zero_stage": 3}, epochs=4, head_learning_rate=1e-2)

    job = on(2)
    whole = ArtifactStore(tmp_path / "whole")
    assert run(whole, [job])[0] == 0

    def kill() -> None:
        for child in psutil.Process().children(recursive=True):
            child.kill()

    assert run(store, [job], stop_at(7, kill))[0] != 0
    assert not store.has(job)
    shutil.copytree(store.root, tmp_path / "copy")
    copy = ArtifactStore(tmp_path / "copy")
    assert run(copy, [on(1)])[0] == 0
    difference = apart(whole.path(job), copy.path(job))
    print(f"universal checkpoint, 2 -> 1 processes, ZeRO 3: max |w - w'| = {difference:.2e}")
    assert difference < 5e-6
    events: Events = []
    assert run(store, [job], events.append)[0] == 0
    # A checkpoint after each step: the one after step 6 was there before step 7 was told.
    assert first_step(events) >= 7
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (whole.path(job) / name).read_bytes() == (store.path(job) / name).read_bytes(), name


@pytest.mark.slow
def test_saes_of_two_processes_are_those_of_one_with_every_zero_stage(store: ArtifactStore, tmp_path: Path, inputs: dict[str, Job]) -> None:
    def jobs(**resources: Any) -> list[Job]:
        changes: list[dict[str, Any]] = [{}, {"layer": 3, "k": 2}, *({"seed": stage, "standardize": stage != 3} for stage in (1, 2, 3))]
        revived = {"auxk_weight": 0.1, "dead_after_vectors": 32, "seed": 4, "unit_norm_every": 3}
        stages = zip([*changes, revived], [0, 0, 1, 2, 3, 3], strict=True)
        return [sae_job(inputs, {**resources, "zero_stage": stage if resources else 0}, **one) for one, stage in stages]

    alone = ArtifactStore(tmp_path / "alone")
    assert run(alone, jobs()) == (0, "")
    assert run(store, jobs(processes=2)) == (0, "")
    for stage, job in zip([0, 0, 1, 2, 3, 3], jobs(), strict=True):
        difference = apart(alone.path(job), store.path(job), "sae.safetensors")
        print(f"{job.label}, ZeRO {stage}: max |w2 - w1| = {difference:.2e}")
        assert difference < 1e-5
        rows, others = (read_rows(one.path(job) / "metrics.jsonl") for one in (alone, store))
        assert len(rows) == len(others) == 3 and rows[-1] == pytest.approx(others[-1], rel=1e-4) and rows[-1]["loss"] < rows[0]["loss"]
        quality, other = (json.loads((one.path(job) / "quality.json").read_text()) for one in (alone, store))
        assert quality == pytest.approx(other, rel=1e-3)
        norms = load_file(store.path(job) / "sae.safetensors")["decoder.weight"].norm(dim=0)
        torch.testing.assert_close(norms, torch.ones(32))


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "then"), [(0, 1), (1, 2)])
def test_a_stopped_sae_goes_on(store: ArtifactStore, tmp_path: Path, inputs: dict[str, Job], stage: int, then: int) -> None:
    """On as many processes bit for bit; without ZeRO on another number from the same checkpoint, up to rounding."""

    def job(processes: int) -> Job:
        return sae_job(inputs, {"processes": processes, "zero_stage": stage}, vectors=16 * 600)

    whole = ArtifactStore(tmp_path / "whole")
    assert run(whole, [job(2)]) == (0, "")
    code, report = run(store, [job(2)], stop_at(5 * 16, lambda: signal.raise_signal(signal.SIGINT)))
    assert code == 75 and "stopped at step" in report
    events: Events = []
    assert run(store, [job(then)], events.append)[0] == 0
    assert first_step(events) > 5 * 16
    difference = apart(whole.path(job(2)), store.path(job(2)), "sae.safetensors")
    print(f"SAE, ZeRO {stage}, 2 -> {then} processes: max |w - w'| = {difference:.2e}")
    assert difference == 0.0 if then == 2 else difference < 1e-2


@pytest.mark.slow
def test_states_in_the_host_s_memory_train_the_same_models(store: ArtifactStore, tmp_path: Path, inputs: dict[str, Job]) -> None:
    """Offload in one process without ZeRO bit for bit; in two with every stage, and of an SAE, up to rounding."""

    def jobs(**resources: Any) -> list[Job]:
        stages = (1, 2, 3) if resources else (0, 0, 0)
        rewards = [reward_job(inputs, {**resources, "zero_stage": stage}, seed=seed) for seed, stage in enumerate(stages)]
        return [*rewards, sae_job(inputs, {**resources, "zero_stage": stages[1]})]

    alone, hosted = ArtifactStore(tmp_path / "alone"), ArtifactStore(tmp_path / "hosted")
    assert run(alone, jobs()) == (0, "")
    assert run(store, jobs(processes=2, offload="optimizer")) == (0, "")
    (first, *_), own = jobs(), reward_job(inputs, {"offload": "optimizer"}, seed=0)
    assert run(hosted, [own]) == (0, "") and own.key == first.key
    assert (hosted.path(first) / "model.safetensors").read_bytes() == (alone.path(first) / "model.safetensors").read_bytes()
    for stage, job in zip((1, 2, 3, 2), jobs(), strict=True):
        difference = apart(alone.path(job), store.path(job), "sae.safetensors" if job.kind == "train_sae" else "model.safetensors")
        print(f"{job.label}, ZeRO {stage}, offload: max |w2 - w1| = {difference:.2e}")
        assert difference < (1e-5 if job.kind == "train_sae" else 2e-6)


@pytest.mark.slow
def test_a_stopped_run_goes_on_with_its_states_in_the_host(store: ArtifactStore, tmp_path: Path, inputs: dict[str, Job]) -> None:
    def job(offload: str) -> Job:
        return reward_job(inputs, {"processes": 2, "zero_stage": 2, "checkpoint_minutes": 60.0, "offload": offload}, epochs=20)

    whole = ArtifactStore(tmp_path / "whole")
    assert run(whole, [job("none")])[0] == 0
    code, report = run(store, [job("none")], stop_at(3, lambda: signal.raise_signal(signal.SIGTERM)))
    assert code == 75 and "stopped at step" in report
    events: Events = []
    code, report = run(store, [job("optimizer")], events.append)
    assert code == 0, report
    difference = apart(whole.path(job("none")), store.path(job("none")))
    print(f"ZeRO 2, from the card to the host: max |w - w'| = {difference:.2e}")
    assert first_step(events) > 3 and difference < 5e-5


def test_an_sae_without_zero_keeps_no_states_in_the_host(store: ArtifactStore, inputs: dict[str, Job]) -> None:
    code, report = run(store, [sae_job(inputs, {"offload": "optimizer"})])
    assert code == 2 and "resources.train_sae.offload = optimizer: this kind of work needs zero_stage = 1 or 2 or 3 for it" in report


def test_checkpoint_of_another_way_is_named_in_the_refusal(tmp_path: Path) -> None:
    from sarm.engine.checkpointer import Checkpoint
    from sarm.engine.update import refuse_layout
    from sarm.job import UsageProblem

    saved = Checkpoint(step=4, tensors={}, facts={}, layout="plain", processes=1)
    refuse_layout(saved, "plain", kind="train_reward")
    with pytest.raises(UsageProblem, match=r"step 4 was written without DeepSpeed by 1 processes.*processes=1 .*zero_stage=0"):
        refuse_layout(saved, "zero-2", kind="train_reward")
    assert json.dumps(saved.facts) == "{}"
