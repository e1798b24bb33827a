"""Several processes share a benchmark's batches: the rewards are those of one, bit for bit, and what was kept is nobody's alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from folders import SUPPORT
from group_jobs import GivenConfig
from threads_as_processes import together
from tiny import Stop, job_context, save_word_tokenizer, write_rows
from tiny_scoring import items, tiny_sarm

from replication.launch.local import LocalLauncher
from sarm.checkpoints.backbones import load_tokenizer
from sarm.checkpoints.reward_models.layouts import load_reward_model, save_reward_model
from sarm.config.score import ScoringConfig
from sarm.data.tokens import ConversationTokenizer
from sarm.engine.group import ProcessGroup
from sarm.job import Interrupted, Job, Resources
from sarm.jobs.score.benchmark import Batches, all_rewards
from sarm.scoring.completions import encode_completions
from sarm.store.artifacts import ArtifactStore

WAYS: dict[str, dict[str, Any]] = {
    "similar-lengths": {"batch_tokens": 64},
    "dataset-order": {"batches": "dataset-order", "batch_rows": 4},
    "shared-prompts": {"batches": "shared-prompts", "batch_tokens": 40},
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    save_word_tokenizer(folder / "words")
    save_reward_model(folder / "model", tiny_sarm(), encoder="sae", tokenizer=folder / "words")
    return {"model": folder / "model", "benchmark": write_rows(folder / "benchmark", "rewardbench2.jsonl", items())}


def shared(inputs: dict[str, Path], folder: Path, way: str, stop: Stop | None = None) -> Callable[[ProcessGroup], list[float]]:
    """The scoring of one process of a group; only the first one hears `stop`."""
    config = ScoringConfig(benchmark="rewardbench2", **WAYS[way])
    tokenizer = ConversationTokenizer(load_tokenizer(inputs["model"]))
    rows = encode_completions(items(), tokenizer, max_length=config.max_length, overlong="left", name="rewardbench2")
    batches, model = Batches(config, items(), [row.ids for row in rows]), load_reward_model(inputs["model"])
    assert batches.count > 4

    def work(group: ProcessGroup) -> list[float]:
        context = job_context(folder, inputs=inputs, stop=stop if group.is_first else None, threads=1)
        return all_rewards(model, batches, tokenizer.pad_id, context, group)

    return work


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("processes", [2, 3])
def test_every_process_has_the_rewards_of_one(inputs: dict[str, Path], tmp_path: Path, way: str, processes: int) -> None:
    (alone,) = together(1, shared(inputs, tmp_path / "alone", way))
    found = together(processes, shared(inputs, tmp_path / "shared", way))
    assert found == [alone] * processes and len(alone) == 43
    names = sorted(path.name for path in (tmp_path / "shared" / "checkpoint").iterdir())
    assert names == [*(f"rewards.partial.{rank}.jsonl" for rank in range(1, processes)), "rewards.partial.jsonl"]


@pytest.mark.parametrize(("first", "then"), [(2, 2), (3, 1), (1, 2), (2, 3)])
def test_a_stop_that_one_hears_stops_all_and_any_number_goes_on(inputs: dict[str, Path], tmp_path: Path, first: int, then: int) -> None:
    (alone,) = together(1, shared(inputs, tmp_path / "alone", "similar-lengths"))
    stopped = together(first, shared(inputs, tmp_path / "cut", "similar-lengths", Stop(after=2)))
    assert all(isinstance(one, Interrupted) for one in stopped)
    kept = sorted((tmp_path / "cut" / "checkpoint").iterdir())
    assert sum(len(path.read_text().splitlines()) for path in kept) == 2 * first and len(kept) == first
    # A kill in the middle of a line, of whichever process: that batch is done again.
    kept[-1].write_text(kept[-1].read_text()[:-20])
    again = together(then, shared(inputs, tmp_path / "cut", "similar-lengths"))
    assert again == [alone] * then


@pytest.mark.slow
def test_two_processes_over_gloo_write_the_bytes_of_one(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    given = {name: Job(GivenConfig(name=name), locations={"source": str(folder)}) for name, folder in inputs.items()}

    def jobs(processes: int) -> list[Job]:
        needs = Resources(processes=processes, threads=1)
        configs = {name: ScoringConfig(benchmark="rewardbench2", **way) for name, way in WAYS.items()}
        return [Job(config, inputs=given, resources=needs, label=name) for name, config in configs.items()]

    stores = {processes: ArtifactStore(tmp_path / str(processes)) for processes in (1, 2)}
    for processes, store in stores.items():
        reports: list[str] = []
        launcher = LocalLauncher(command="replicate table1", report=reports.append, registry="group_jobs:WITH_GIVEN")
        assert launcher.launch([*given.values(), *jobs(processes)], store, lambda event: None) == 0, reports
    for one, other in zip(jobs(1), jobs(2), strict=True):
        assert one.key == other.key, "where it runs is no part of a key"
        for name in ("rewards.jsonl", "conditions.json"):
            assert (stores[1].path(one) / name).read_bytes() == (stores[2].path(other) / name).read_bytes(), (one.label, name)
