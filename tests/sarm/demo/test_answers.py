"""The model behind the page: rewards as `replicate reward` gives them, parts that sum to them, edits as the head's linearity says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from asked_models import PROMPT, REPLIES, write_dense, write_explanations, write_sarm
from pydantic import ValidationError
from reward_model_folders import LAYOUTS, saved
from tiny import HIDDEN, job_context, llama_config, read_rows

from sarm.backbone.decoder import truncated_backbone
from sarm.config.score import ConversationScoringConfig
from sarm.demo.answers import REMEMBERED, Asked, AskedModel, Edited
from sarm.demo.explanations import read_explanations
from sarm.job import EnvironmentProblem, IntegrityProblem, UsageProblem
from sarm.jobs.score.conversations import score_conversations
from sarm.reward.models import SARM
from sarm.sae.model import TopKSAE


def opened(folder: Path, **options: Any) -> AskedModel:
    return AskedModel(folder, **{"device": torch.device("cpu"), "max_length": 200, **options})


def scored(folder: Path, model: Path, **changes: Any) -> list[float]:
    """Rewards of both replies by the job of `replicate reward`."""
    turns = [[{"role": "user", "content": PROMPT}, {"role": "assistant", "content": reply}] for reply in REPLIES]
    (folder / "talk.jsonl").write_text("".join(json.dumps({"messages": one}) + "\n" for one in turns))
    context = job_context(folder / "job", locations={"model": model, "conversations": folder / "talk.jsonl"}, threads=1)
    score_conversations(ConversationScoringConfig(model_digest="", conversations_digest="", **changes), context)
    return [row["reward"] for row in read_rows(context.output / "rewards.jsonl")]


def parts(one: dict[str, Any]) -> float:
    return sum(bar["contribution"] for bar in one["bars"]) + one["rest"] + one["bias"]


@pytest.mark.parametrize("latents", ["topk", "pre_acts"])
def test_rewards_are_those_of_the_command_and_their_parts_sum_to_them(tmp_path: Path, latents: str) -> None:
    folder = write_sarm(tmp_path / "model", latents)
    told = opened(folder).score(Asked(prompt=PROMPT, answers=REPLIES))
    for one, reward in zip(told["answers"], scored(tmp_path, folder), strict=True):
        assert one["reward"] == pytest.approx(reward, abs=1e-5) and one["unscaled"] == one["reward"]
        assert parts(one) == pytest.approx(one["reward"], abs=1e-5)
        assert len(one["bars"]) == (4 if latents == "topk" else 12) and one["others"] == (0 if latents == "topk" else 12)
    gap = told["difference"]
    assert gap["reward"] == told["answers"][0]["reward"] - told["answers"][1]["reward"]
    assert sum(bar["first"] - bar["second"] for bar in gap["bars"]) + gap["rest"] == pytest.approx(gap["reward"], abs=1e-5)


def test_a_factor_changes_a_reward_by_its_latents_part_and_the_file_gives_the_same_by_the_command(tmp_path: Path) -> None:
    folder = write_sarm(tmp_path / "model")
    model = opened(folder)
    first = model.score(Asked(prompt=PROMPT, answers=REPLIES))["answers"]
    bar = first[0]["bars"][0]
    for factor in (2.0, 0.0, -1.5):
        again = model.score(Asked(prompt=PROMPT, answers=REPLIES, factors={bar["latent"]: factor}))["answers"]
        assert again[0]["reward"] - first[0]["reward"] == pytest.approx((factor - 1) * bar["contribution"], abs=1e-5)
        assert again[0]["unscaled"] == first[0]["reward"] and parts(again[0]) == pytest.approx(again[0]["reward"], abs=1e-5)
    assert model.score(Asked(prompt=PROMPT, answers=REPLIES))["answers"] == first, "the head is as it was"
    edit = model.steering_file(Edited(factors={bar["latent"]: -1.5, 3: 1.0})).edit
    assert edit.factors == {bar["latent"]: -1.5}
    steered = scored(tmp_path, folder, steering=edit)
    assert steered == pytest.approx([one["reward"] for one in again], abs=1e-5)


def test_a_latent_that_does_not_fire_changes_nothing_and_is_shown(tmp_path: Path) -> None:
    model = opened(write_sarm(tmp_path / "model"))
    plain = model.score(Asked(prompt=PROMPT, answers=REPLIES[:1]))["answers"][0]
    silent = next(latent for latent in range(24) if latent not in {bar["latent"] for bar in plain["bars"]})
    told = model.score(Asked(prompt=PROMPT, answers=REPLIES[:1], factors={silent: 9.0}))
    assert "difference" not in told
    assert told["answers"][0]["reward"] == plain["reward"]
    assert [bar["activation"] for bar in told["answers"][0]["bars"] if bar["latent"] == silent] == [0.0]


def test_a_model_without_latents_gives_rewards_alone(tmp_path: Path) -> None:
    folder = write_dense(tmp_path / "model")
    model = opened(folder)
    assert model.facts["n_latents"] is None
    told = model.score(Asked(prompt=PROMPT, answers=REPLIES))
    assert [one["reward"] for one in told["answers"]] == pytest.approx(scored(tmp_path, folder), abs=1e-5)
    assert told.keys() == {"answers"} and told["answers"][0].keys() == {"reward", "unscaled", "tokens"}
    with pytest.raises(UsageProblem, match="has no latents to scale"):
        model.score(Asked(prompt=PROMPT, answers=REPLIES, factors={1: 2.0}))
    with pytest.raises(UsageProblem, match="has no latents to scale"):
        model.steering_file(Edited(factors={1: 2.0}))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_answers_with_its_latents_or_without(tmp_path: Path, layout: str) -> None:
    told = opened(LAYOUTS[layout](tmp_path)).score(Asked(prompt="how are you", answers=("good", "bad bad")))
    has_latents = layout.startswith(("ours", "authors", "SAFER")) and layout != "ours, linear"
    for one in told["answers"]:
        assert ("bars" in one) == has_latents
        assert not has_latents or parts(one) == pytest.approx(one["reward"], abs=1e-4)


@pytest.mark.parametrize(
    ("prompt", "answers", "message"),
    [
        (" \n", ("good",), "the prompt is empty"),
        (PROMPT, ("",), "answer A is empty"),
        (PROMPT, ("good", "\t"), "answer B is empty"),
        (PROMPT, ("good " * 300,), r"answer A: 3\d\d tokens with the prompt, and at most 200 are read; .*--max-length"),
    ],
)
def test_texts_that_cannot_be_scored_are_refused_in_one_line(tmp_path: Path, prompt: str, answers: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageProblem, match=message):
        opened(write_sarm(tmp_path / "model")).score(Asked(prompt=prompt, answers=answers))


def test_latents_that_are_not_there_and_edits_that_change_nothing_are_refused(tmp_path: Path) -> None:
    model = opened(write_sarm(tmp_path / "model"))
    with pytest.raises(UsageProblem, match="latent 24: the head does not read it"):
        model.score(Asked(prompt=PROMPT, answers=REPLIES, factors={24: 2.0}))
    with pytest.raises(UsageProblem, match="there is no edit to save"):
        model.steering_file(Edited(factors={3: 1.0}))
    for factor in (float("nan"), float("inf"), 1e6, "2", True):
        with pytest.raises(ValidationError):
            Asked(prompt=PROMPT, answers=REPLIES, factors={3: factor})  # type: ignore[dict-item]


def test_the_last_conversations_are_remembered_and_no_more(tmp_path: Path) -> None:
    model = opened(write_sarm(tmp_path / "model"))
    for number in range(REMEMBERED + 3):
        model.score(Asked(prompt=PROMPT, answers=("dog " * (1 + number),)))
    assert len(model._remembered) == REMEMBERED


def test_explanations_stand_beside_their_latents_and_those_of_another_model_are_refused(tmp_path: Path) -> None:
    folder = write_sarm(tmp_path / "model")
    bars = opened(folder).score(Asked(prompt=PROMPT, answers=REPLIES[:1]))["answers"][0]["bars"]
    own = write_explanations(tmp_path / "explained", {bars[0]["latent"]: bars[0]["weight"]})
    model = opened(folder, explanations=read_explanations(own))
    again = model.score(Asked(prompt=PROMPT, answers=REPLIES[:1]))["answers"][0]["bars"]
    assert [bar["explanation"] for bar in again[:2]] == [f"says that something is a {bars[0]['latent']}", ""]
    assert model.facts["explained"] == 1
    for weights in ({bars[0]["latent"]: bars[0]["weight"] + 0.1}, {77: 0.5}):
        with pytest.raises(IntegrityProblem, match="made for another model than model"):
            opened(folder, explanations=read_explanations(write_explanations(tmp_path / "other", weights)))
    with pytest.raises(EnvironmentProblem, match=r"no explanations\.jsonl there"):
        read_explanations(tmp_path)
    (tmp_path / "other" / "explanations.jsonl").write_text('{"latent": 3}\n')
    with pytest.raises(IntegrityProblem, match="has no key 'explanation'"):
        read_explanations(tmp_path / "other")


def test_a_head_of_65536_latents_is_answered_with_a_short_list(tmp_path: Path) -> None:
    torch.manual_seed(7)
    sae = TopKSAE(hidden_size=HIDDEN, n_latents=65_536, k=192)
    wide = SARM(truncated_backbone(llama_config(), 2), sae, latents="pre_acts").eval()
    model = opened(saved(tmp_path, wide))
    told = model.score(Asked(prompt=PROMPT, answers=REPLIES, factors={65_535: 2.0}))
    for one in told["answers"]:
        assert len(one["bars"]) in (12, 13) and len(one["bars"]) + one["others"] > 60_000
        assert parts(one) == pytest.approx(one["reward"], abs=1e-3)
    assert len(json.dumps(told)) < 20_000
