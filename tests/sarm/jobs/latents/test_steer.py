"""The steering job on a tiny SARM: its numbers against a plain recomputation, and everything that it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import HIDDEN, WORDS, edit_tensors, job_context, llama_config, save_word_tokenizer, write_rows

from replication.report.steering.checks import checks
from replication.report.steering.experiment import Steering, read_steering
from replication.report.steering.selection import RULES, choose, feature_scores, item_sums
from replication.report.steering.tables import rewards_listing
from sarm.backbone.decoder import truncated_backbone
from sarm.checkpoints.backbones import load_tokenizer
from sarm.checkpoints.reward_models.layouts import load_reward_model, save_reward_model
from sarm.config.latents import SteeringConfig
from sarm.data.pairs import conversation
from sarm.data.preferences import Message, Preference
from sarm.data.tokens import ConversationTokenizer
from sarm.job import UsageProblem
from sarm.jobs.latents.steer import pairs_with, steer_rewards
from sarm.reward.models import SARM, DenseRewardModel
from sarm.reward.steering import feature_scores as torch_feature_scores
from sarm.reward.steering import select_latents
from sarm.sae.model import TopKSAE
from sarm.scoring.completions import Completion, completions_of, encode_completions, reply_of

M, K = 40, 6


def save_model(folder: Path, *, latents: str = "topk", seed: int = 0) -> Path:
    """A random SARM of two blocks with a head of both signs."""
    torch.manual_seed(seed)
    sae = TopKSAE(hidden_size=HIDDEN, n_latents=M, k=K)
    sae.reset(torch.Generator().manual_seed(seed))
    model = SARM(truncated_backbone(llama_config(), 2), sae, latents=latents)  # type: ignore[arg-type]
    torch.nn.init.normal_(model.score.weight)
    save_word_tokenizer(folder)
    save_reward_model(folder, model, encoder="sae", tokenizer=folder)
    return folder


def item(number: int, subset: str, *, chosen: int = 1, rejected: int = 3, name: str = "") -> Preference:
    words = [WORDS[(number * 7 + 3 * place) % 30] for place in range(8)]
    prompt = (Message(role="user", content=f"tell me about the {words[0]} {words[1]} {number % 5 * 'very '}"),)
    ends = ["good"] * chosen + ["bad"] * rejected
    replies = [f"the {words[place]} is {words[(place + 3) % 8]} and {end}." for place, end in enumerate(ends)]
    better, worse = tuple(replies[:chosen]), tuple(replies[chosen:])
    return Preference(id=name or str(number), prompt=prompt, chosen=better, rejected=worse, subset=subset)


def rewardbench2() -> list[Preference]:
    kinds = (("ref", 1), ("tied", 3))
    ties = [item(60 + n, "Ties", chosen=count, rejected=3, name=f"{kind}:{n}") for n in range(3) for kind, count in kinds]
    return [item(n, subset) for n, subset in enumerate(["Safety"] * 8 + ["Math"] * 6 + ["Focus"] * 6)] + ties


def rmbench() -> list[Preference]:
    subsets = ["safety-refuse"] * 5 + ["safety-response"] * 5 + ["math"] * 5 + ["chat"] * 5
    return [item(100 + n, subset, chosen=3, rejected=3) for n, subset in enumerate(subsets)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("steer")
    write_rows(root / "data", "rewardbench2.jsonl", rewardbench2())
    write_rows(root / "data", "rmbench.jsonl", rmbench())
    return {"model": save_model(root / "model"), "selection": root / "data", "target": root / "data"}


def steer_job(folders: dict[str, Path], where: Path, **changes: Any) -> Path:
    context = job_context(where, inputs=folders)
    steer_rewards(SteeringConfig(**{"selection": "rmbench", "bound": 0.9, **changes}), context)
    return context.output


@pytest.fixture(scope="module")
def artifact(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return steer_job(folders, tmp_path_factory.mktemp("job"), multiplier=3.0)


@pytest.fixture(scope="module")
def data(artifact: Path) -> Steering:
    return read_steering(artifact)


def dense(model_folder: Path, items: list[Preference]) -> tuple[SARM, torch.Tensor, torch.Tensor]:
    """Latents `[n, M]` and rewards `[n]` one conversation at a time."""
    model = load_reward_model(model_folder)
    assert isinstance(model, SARM)
    tokenizer = ConversationTokenizer(load_tokenizer(model_folder))
    latents, rewards = [], []
    for completion in completions_of(items):
        turns = conversation(items[completion.item].prompt, reply_of(items, completion))
        ids = tokenizer.encode_many([turns], max_length=256, overlong="left", names=["x"])[0].ids
        with torch.inference_mode():
            output = model(torch.tensor([ids]), torch.tensor([len(ids) - 1]))
        assert output.features is not None
        latents.append(output.features[0])
        rewards.append(output.rewards[0])
    return model, torch.stack(latents), torch.stack(rewards)


def test_feature_scores_are_those_of_all_pairs_written_out(folders: dict[str, Path], artifact: Path) -> None:
    items = rmbench()
    _, latents, _ = dense(folders["model"], items)
    place = {completion: row for row, completion in enumerate(completions_of(items))}
    written = load_file(artifact / "latents.safetensors")
    scores = []
    for inside in (True, False):
        chosen, rejected = [], []
        for number, one in enumerate(items):
            if one.subset.startswith("safety") == inside:
                for style in range(3):
                    chosen.append(latents[place[Completion(number, "chosen", style)]])
                    rejected.append(latents[place[Completion(number, "rejected", style)]])
        scores.append(torch_feature_scores(torch.stack(chosen), torch.stack(rejected)))
    torch.testing.assert_close(written["s"], scores[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(written["t"], scores[1], rtol=1e-4, atol=1e-5)
    facts = json.loads((artifact / "steering.json").read_text())
    found = select_latents(written["s"], written["t"], bound=0.9)
    assert facts["rules"] == {"argmax-s": found.argmax_s, "argmax-s-bounded-t": found.bounded, "s-minus-t": found.s_minus_t}
    assert facts["latent"] == found.argmax_s


def test_steered_rewards_are_those_of_a_scaled_head(folders: dict[str, Path], artifact: Path) -> None:
    model, _, rewards = dense(folders["model"], rewardbench2())
    written = load_file(artifact / "latents.safetensors")
    latent = json.loads((artifact / "steering.json").read_text())["latent"]
    torch.testing.assert_close(written["rewards"], rewards, rtol=1e-4, atol=1e-5)
    assert torch.equal(written["identity_rewards"], written["rewards"])
    dense_again = torch.zeros(len(rewards), M).scatter_(1, written["target_indices"].long(), written["target_values"])
    with torch.no_grad():
        model.score.weight[0, latent] *= 3.0
        torch.testing.assert_close(written["steered_rewards"], dense_again @ model.score.weight[0], rtol=1e-4, atol=1e-5)
    assert not torch.equal(written["steered_rewards"], written["rewards"])


def test_the_report_recomputes_scores_and_choices_of_the_job(data: Steering) -> None:
    sums = item_sums(data.selection, n_latents=M)
    s, t = feature_scores(sums, np.ones(len(sums.inside), dtype=bool))
    np.testing.assert_allclose(s, data.s[sums.columns], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(t, data.t[sums.columns], rtol=1e-5, atol=1e-6)
    for rule in RULES:
        assert choose(s, t, sums.columns, rule=rule, bound=0.9, n_latents=M) == data.facts["rules"][rule]


def test_the_checks_of_a_real_artifact_begin_with_a_true_identity(data: Steering) -> None:
    found = {check.name: check for check in checks(data)}
    assert found["S0"].outcome == "pass"
    assert {"S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8", "S9", "S10", "S11", "S12"} <= set(found)


def test_one_benchmark_for_both_is_scored_once_and_gives_the_same_latents(folders: dict[str, Path], tmp_path: Path) -> None:
    context = job_context(tmp_path, inputs=folders)
    steer_rewards(SteeringConfig(selection="rewardbench2", multiplier=2.0), context)
    both = read_steering(context.output)
    assert both.selects_on_target
    assert np.array_equal(both.selection.values, both.target.values)


def test_pairs_of_an_item_follow_its_benchmark() -> None:
    style, plain = item(0, "math", chosen=3, rejected=3), item(0, "Math")
    assert [pairs_with(style, one, benchmark="rmbench") for one in completions_of([style])] == [1] * 6
    assert [pairs_with(style, one, benchmark="rewardbench2") for one in completions_of([style])] == [3] * 6
    assert [pairs_with(plain, one, benchmark="rewardbench2") for one in completions_of([plain])] == [3, 1, 1, 1]


def test_completions_are_encoded_in_the_order_in_which_they_are_named(folders: dict[str, Path]) -> None:
    items = [item(1, "Safety"), item(2, "Ties", chosen=2, rejected=1)]
    tokenizer = ConversationTokenizer(load_tokenizer(folders["model"]))
    found = completions_of(items)
    assert [(one.item, one.side, one.place) for one in found] == [
        (0, "chosen", 0), (0, "rejected", 0), (0, "rejected", 1), (0, "rejected", 2),
        (1, "chosen", 0), (1, "chosen", 1), (1, "rejected", 0),
    ]  # fmt: skip
    rows = encode_completions(items, tokenizer, max_length=256, overlong="left", name="rewardbench2")
    alone = [conversation(items[one.item].prompt, reply_of(items, one)) for one in found]
    assert [row.ids for row in rows] == [tokenizer.encode_many([one], max_length=256, overlong="left", names=["x"])[0].ids for one in alone]


@pytest.mark.parametrize(("subset", "message"), [
    ("nonsense", "the selection set is empty: no item of rmbench lies in subset 'nonsense'; it has: chat, math"),
    ("", "no item of rmbench lies outside subset ''"),
])  # fmt: skip
def test_an_empty_selection_or_complement_is_refused(folders: dict[str, Path], tmp_path: Path, subset: str, message: str) -> None:
    with pytest.raises(UsageProblem) as problem:
        steer_job(folders, tmp_path, subset=subset)
    assert message in str(problem.value)


def test_a_reward_that_is_not_finite_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    save_model(tmp_path / "model")
    edit_tensors(tmp_path / "model" / "model.safetensors", lambda tensors: tensors["score.weight"].fill_(float("nan")))
    with pytest.raises(UsageProblem, match="item '0' of subset 'Safety': the reward is not finite"):
        steer_job({**folders, "model": tmp_path / "model"}, tmp_path / "job")


def test_a_target_without_the_concept_is_refused_before_anything_is_scored(folders: dict[str, Path], tmp_path: Path) -> None:
    write_rows(tmp_path / "data", "rewardbench2.jsonl", [item(n, "Math") for n in range(3)])
    with pytest.raises(UsageProblem, match="the target set is empty: no item of rewardbench2 lies in subset 'safety'; it has: Math"):
        steer_job({**folders, "target": tmp_path / "data"}, tmp_path / "job")


def test_a_set_that_prefers_nothing_gives_no_latent(folders: dict[str, Path], tmp_path: Path) -> None:
    prompt = (Message(role="user", content="how are you"),)
    same = [
        Preference(id=subset, prompt=prompt, chosen=("a cat.",), rejected=("a cat.",), subset=subset)
        for subset in ("safety-refuse", "math")
    ]
    write_rows(tmp_path / "data", "rmbench.jsonl", same)
    with pytest.raises(UsageProblem, match=r"rule 'argmax-s' finds no latent .* choose another rule, bound or selection set"):
        steer_job({**folders, "selection": tmp_path / "data"}, tmp_path / "job")


def test_a_model_without_topk_latents_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    save_model(tmp_path / "wo", latents="pre_acts")
    dense_model = DenseRewardModel(truncated_backbone(llama_config(), 2, keep_final_norm=True), hidden_size=HIDDEN)
    save_word_tokenizer(tmp_path / "dense")
    save_reward_model(tmp_path / "dense", dense_model, encoder="none", tokenizer=tmp_path / "dense")
    for name, advice in (("wo", "set steering.latents=topk"), ("dense", "has no SAE")):
        with pytest.raises(UsageProblem, match=f"steering needs a SARM with TopK latents.*{advice}"):
            steer_job({**folders, "model": tmp_path / name}, tmp_path / "job")
    with pytest.raises(UsageProblem, match="has no SAE"):
        steer_job({**folders, "model": tmp_path / "dense"}, tmp_path / "job", latents="topk")


def test_topk_put_in_for_steering_is_the_topk_model(folders: dict[str, Path], artifact: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "wo", latents="pre_acts")
    forced = steer_job({**folders, "model": tmp_path / "wo"}, tmp_path / "job", multiplier=3.0, latents="topk")
    own, found = (load_file(where / "latents.safetensors") for where in (artifact, forced))
    assert own.keys() == found.keys() and all(torch.equal(own[name], found[name]) for name in own)
    facts = [json.loads((where / "steering.json").read_text()) for where in (artifact, forced)]
    assert [one["trained_on"] for one in facts] == ["topk", "pre_acts"]
    notes = [rewards_listing(read_steering(where), seed=0).notes for where in (artifact, forced)]
    assert [any("TopK is put in" in note for note in one) for one in notes] == [False, True]
