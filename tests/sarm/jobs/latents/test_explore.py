"""The exploration of a tiny SARM: sums, counts and edits against the model itself, and everything that it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from explored import HOSTILE, N_LATENTS, K, explored, item, rewardbench2, rmbench, save_sarm
from safetensors.numpy import load_file
from tiny import HIDDEN, Stop, job_context, llama_config, read_rows, save_backbone, save_word_tokenizer, write_rows

from sarm.backbone.decoder import truncated_backbone
from sarm.checkpoints.reward_models.layouts import load_reward_model, save_reward_model
from sarm.checkpoints.reward_models.sparse_heads import save_head, write_backbone
from sarm.config.latents import ExplorationConfig
from sarm.config.score import ScoringConfig
from sarm.data.preferences import ScoredPreference
from sarm.explain.edits import benchmark_scores
from sarm.job import IntegrityProblem, Interrupted, UsageProblem
from sarm.jobs.latents import explore
from sarm.jobs.latents.explore import explore_latents
from sarm.jobs.score.benchmark import score_benchmark
from sarm.reward.models import SARM, DenseRewardModel, RewardModel
from sarm.reward.sparse_rm import Activations, StateHead
from sarm.reward.steering import Edit
from sarm.sae.sparse_encoder import SparseEncoder


def arrays(folder: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    facts = json.loads((folder / "exploration.json").read_text())
    return facts, load_file(folder / "latents.safetensors"), load_file(folder / "completions.safetensors")


def scored(folder: Path, model: Path, items: list[Any], benchmark: str = "rewardbench2") -> list[ScoredPreference]:
    """What the scoring job gives under the same conditions."""
    context = job_context(folder, inputs={"model": model, "benchmark": write_rows(folder, f"{benchmark}.jsonl", items)}, threads=1)
    score_benchmark(ScoringConfig(benchmark=benchmark, max_length=256, batch_tokens=512), context)  # type: ignore[arg-type]
    return [ScoredPreference(**row) for row in read_rows(context.output / "rewards.jsonl")]


def flat(rows: list[ScoredPreference]) -> list[float]:
    return [reward for row in rows for reward in (*row.chosen_rewards, *row.rejected_rewards)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sarm(tmp_path_factory.mktemp("model"))


def test_each_reward_is_the_scoring_job_s_and_the_sum_of_its_parts(model: Path, tmp_path: Path) -> None:
    items = rewardbench2()
    facts, latents, completions = arrays(explored(tmp_path / "explored", model, items))
    rewards = flat(scored(tmp_path / "scored", model, items))
    assert completions["rewards"].tolist() == rewards, "to the last bit"
    assert facts["constant"] == 0 and facts["head_reads"] == "latents" and facts["scored_tokens"] == ["<|eot_id|>"]
    for row, reward in enumerate(rewards):
        part = slice(*completions["starts"][row : row + 2])
        assert 0 < part.stop - part.start <= K
        assert float(completions["contributions"][part].astype(np.float64).sum()) == pytest.approx(reward, abs=1e-5)
        products = completions["activations"][part] * latents["head"][completions["latents"][part]]
        np.testing.assert_allclose(products, completions["contributions"][part], rtol=1e-6)
    assert 0 <= facts["largest_gap"] <= facts["largest_gap_allowed"] < 1e-4


@pytest.mark.parametrize(("benchmark", "items"), [("rewardbench2", rewardbench2()), ("rmbench", rmbench())])
def test_removing_and_doubling_give_what_the_edited_model_gives(model: Path, tmp_path: Path, benchmark: str, items: list[Any]) -> None:
    facts, latents, completions = arrays(explored(tmp_path / "explored", model, items, benchmark=benchmark))
    steered = load_reward_model(model)
    base = scored(tmp_path / "scored", model, items, benchmark)
    assert facts["accuracies"] == pytest.approx([one.value for one in benchmark_scores(benchmark, base).metrics.values()])  # type: ignore[arg-type]
    for latent in np.unique(completions["latents"])[:6].tolist():
        for name, factor in (("removed", 0.0), ("doubled", 2.0)):
            save_steered(tmp_path / f"{name}{latent}", steered, latent, factor)
            edited = scored(tmp_path / f"{name}{latent}", tmp_path / f"{name}{latent}", items, benchmark)
            metrics = benchmark_scores(benchmark, edited).metrics  # type: ignore[arg-type]
            assert latents[name][latent].tolist() == pytest.approx([metrics[column].value for column in facts["columns"]], abs=1e-6)
            rewards = np.array(flat(edited))
            chosen = np.array([place < len(one.chosen_rewards) for one in base for place in range(len(flat([one])))])
            own = completions["rewards"].astype(np.float64)
            for group, members in enumerate((chosen, ~chosen)):
                mean = own[members].mean() + (factor - 1) * latents["contribution"][group, latent] / members.sum()
                assert mean == pytest.approx(rewards[members].mean(), abs=1e-5)


def save_steered(folder: Path, model: Any, latent: int, factor: float) -> None:
    """The same model with the head's weight on a latent scaled, which is the same edit."""
    weight = model.score.weight.detach().clone()
    with torch.no_grad():
        model.score.weight[0, latent] *= factor
    save_word_tokenizer(folder / "tokenizer")
    save_reward_model(folder, model, encoder="sae", tokenizer=folder / "tokenizer")
    with torch.no_grad():
        model.score.weight.copy_(weight)


def test_the_model_s_own_edit_is_the_same_arithmetic(model: Path) -> None:
    steered = load_reward_model(model)
    states = torch.randn(5, HIDDEN)
    plain = steered.reward_of(steered.features(states))
    shares = steered.features(states)[:, 3] * steered.score.weight[0, 3]
    steered.edits = {3: Edit("*", 2.0)}  # type: ignore[assignment]
    torch.testing.assert_close(steered.reward_of(steered.features(states)), plain + shares)


def test_where_a_latent_fires_is_counted_by_side_subset_and_style(model: Path, tmp_path: Path) -> None:
    facts, latents, completions = arrays(explored(tmp_path, model, rmbench(), benchmark="rmbench"))
    groups = {(one["side"], one["subset"], one["style"]): place for place, one in enumerate(facts["groups"])}
    counts = {key: facts["groups"][place]["completions"] for key, place in groups.items()}
    assert counts["chosen", "", ""] == 24 and counts["chosen", "", "concise"] == 8 and counts["rejected", "chat", ""] == 6
    fired = latents["fired"].astype(int)
    for side in ("chosen", "rejected"):
        whole = fired[groups[side, "", ""]]
        for field in (1, 2):
            parts = [fired[place] for key, place in groups.items() if key[0] == side and key[field] and not key[3 - field]]
            assert (sum(parts) == whole).all() and len(parts) == (4 if field == 1 else 3)
    totals = np.bincount(completions["latents"], minlength=N_LATENTS)
    assert (fired[0] + fired[1] == totals).all()


def test_a_latent_that_never_fires_is_told_and_changes_nothing(model: Path, tmp_path: Path) -> None:
    facts, latents, _ = arrays(explored(tmp_path, model, rewardbench2()))
    assert latents["fired"][:, -1].sum() == 0 and facts["never_fired"] >= 1
    for name in ("removed", "doubled"):
        assert latents[name][-1].tolist() == pytest.approx(facts["accuracies"])


def test_a_head_on_all_pre_activations_keeps_the_largest_and_one_sum_of_the_others(tmp_path: Path) -> None:
    model = save_sarm(tmp_path / "model", latents="pre_acts")
    items = rewardbench2(each=2)
    facts, latents, completions = arrays(explored(tmp_path / "explored", model, items, kept=9, edited=4))
    assert facts["head_reads"] == "pre-activations" and (np.diff(completions["starts"]) == 9).all()
    rewards = flat(scored(tmp_path / "scored", model, items))
    for row, reward in enumerate(rewards):
        part = slice(*completions["starts"][row : row + 2])
        kept = completions["contributions"][part].astype(np.float64).sum()
        assert float(kept + completions["rest"][row]) == pytest.approx(reward, abs=1e-4)
    known = np.flatnonzero(np.isfinite(latents["removed"]).all(axis=1))
    largest = np.argsort(-np.abs(latents["head"]), kind="stable")[:4]
    assert sorted(known.tolist()) == sorted(largest.tolist())
    steered = load_reward_model(model)
    save_steered(tmp_path / "removed", steered, int(largest[1]), 0.0)
    metrics = benchmark_scores("rewardbench2", scored(tmp_path / "removed", tmp_path / "removed", items)).metrics
    assert latents["removed"][largest[1]].tolist() == pytest.approx([metrics[name].value for name in facts["columns"]], abs=1e-6)


def test_an_sae_of_another_project_has_as_many_parts_as_fire(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sae = SparseEncoder(hidden_size=HIDDEN, n_latents=N_LATENTS, activation="jumprelu")
    sae.reset(torch.Generator().manual_seed(0))
    sae.threshold.fill_(0.3)
    model = SARM(truncated_backbone(llama_config(), 2), sae)
    torch.nn.init.normal_(model.score.weight)
    save_word_tokenizer(tmp_path / "model")
    save_reward_model(tmp_path / "model", model, encoder="sae", tokenizer=tmp_path / "model")
    facts, _, completions = arrays(explored(tmp_path / "out", tmp_path / "model", rewardbench2(each=1)))
    counts = np.diff(completions["starts"])
    assert len(set(counts.tolist())) > 1 and (completions["activations"] > 0.3).all() and facts["head_reads"] == "latents"


def test_a_linear_head_on_some_latents_is_told_by_the_sae_s_numbers(tmp_path: Path) -> None:
    sae = SparseEncoder(hidden_size=HIDDEN, n_latents=N_LATENTS, activation="relu", normalization="standardize")
    sae.reset(torch.Generator().manual_seed(0))
    head = StateHead(Activations(sae, torch.tensor([30, 1, 7])))
    backbone = save_backbone(tmp_path / "backbone")
    (tmp_path / "model").mkdir()
    save_head(tmp_path / "model", head, layer=2, hidden_size=HIDDEN)
    write_backbone(backbone, tmp_path / "model", layer=2, dtype=torch.float32)
    facts, latents, completions = arrays(explored(tmp_path / "out", tmp_path / "model", rewardbench2(each=1)))
    assert facts["n_latents"] == N_LATENTS and facts["latents_in_head"] == 3
    assert set(np.flatnonzero(latents["head"]).tolist()) == {1, 7, 30} and set(completions["latents"].tolist()) <= {1, 7, 30}


def test_a_dictionary_of_one_latent(tmp_path: Path) -> None:
    facts, latents, _ = arrays(explored(tmp_path / "out", save_sarm(tmp_path / "model", n_latents=1), rewardbench2(each=1)))
    assert facts["n_latents"] == 1 and latents["neighbours"].shape == (1, 0)


def test_a_part_of_a_benchmark_says_what_is_absent(model: Path, tmp_path: Path) -> None:
    facts, _, _ = arrays(explored(tmp_path, model, rewardbench2(), subset="Safety", limit=2))
    assert facts["columns"] == ["Safety"] and facts["items"] == 2 and facts["missing"]["Ties"] == "no items of this subset"


def test_hostile_texts_are_data(model: Path, tmp_path: Path) -> None:
    folder = explored(tmp_path, model, rewardbench2(hostile=True))
    assert any(HOSTILE[0] in row["prompt"][0]["content"] for row in read_rows(folder / "items.jsonl"))


def test_a_model_without_latents_is_refused_in_one_line(tmp_path: Path) -> None:
    dense = DenseRewardModel(truncated_backbone(llama_config(), 2), hidden_size=HIDDEN)
    save_word_tokenizer(tmp_path / "dense")
    save_reward_model(tmp_path / "dense", dense, encoder="none", tokenizer=tmp_path / "dense")
    with pytest.raises(UsageProblem, match="dense: attribution needs a SARM or a linear head on latents"):
        explored(tmp_path / "out", tmp_path / "dense", rewardbench2(each=1))


def test_a_reward_that_is_no_sum_over_latents_is_an_integrity_problem(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = RewardModel.reward_of
    monkeypatch.setattr(RewardModel, "reward_of", lambda self, features: torch.tanh(plain(self, features)))
    with pytest.raises(IntegrityProblem, match=r"rewardbench2 item '\d+': the reward is .* from the sum of its contributions"):
        explored(tmp_path, model, rewardbench2(each=1))


@pytest.mark.parametrize(
    ("items", "changes", "said"),
    [
        ([], {}, "no item at all"),
        ([item(1, "Safety")], {"subset": "Maths"}, "has no item of subset 'Maths'; it has 'Safety'"),
        ([item(1, "Safety", text=" the" * 300)], {"truncation": "error"}, "exceed max_length"),
        ([item(1, "Ties", name="x:y")], {}, "is not 'ref:N' or 'tied:N'"),
    ],
)
def test_wrong_benchmarks_are_refused_by_name(model: Path, tmp_path: Path, items: list[Any], changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageProblem, match=said):
        explored(tmp_path, model, items, **changes)


def test_an_absent_file_is_named(model: Path, tmp_path: Path) -> None:
    context = job_context(tmp_path, inputs={"model": model, "benchmark": tmp_path})
    with pytest.raises(UsageProblem, match=r"rmbench\.jsonl: the benchmark has no such file"):
        explore_latents(ExplorationConfig(benchmark="rmbench"), context)


def test_it_stops_when_asked(model: Path, tmp_path: Path) -> None:
    inputs = {"model": model, "benchmark": write_rows(tmp_path, "rmbench.jsonl", rmbench())}
    context = job_context(tmp_path, inputs=inputs, stop=Stop(1), threads=1)
    with pytest.raises(Interrupted, match="of 48 completions"):
        explore_latents(ExplorationConfig(benchmark="rmbench", batch_tokens=64), context)


def test_nothing_of_all_rows_and_all_latents_exists_at_once(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    plain = explore.LatentSums.add

    def watched(self: Any, activations: torch.Tensor, *others: Any, **more: Any) -> None:
        seen.append(len(activations))
        plain(self, activations, *others, **more)

    monkeypatch.setattr(explore.LatentSums, "add", watched)
    monkeypatch.setattr(explore, "ROWS_AT_ONCE", 5)
    explored(tmp_path, model, rewardbench2())
    assert max(seen) == 5 and sum(seen) == sum(len(one.chosen) + len(one.rejected) for one in rewardbench2())
