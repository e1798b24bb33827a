"""Rewards of a user's conversations, with the latents that carry them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import HIDDEN, job_context, llama_config, read_rows, save_word_tokenizer

from sarm.backbone.decoder import truncated_backbone
from sarm.checkpoints.backbones import load_tokenizer
from sarm.checkpoints.reward_models.layouts import load_reward_model, save_reward_model
from sarm.config.score import ConversationScoringConfig
from sarm.data.preferences import Message
from sarm.data.tokens import ConversationTokenizer
from sarm.job import EnvironmentProblem, UsageProblem
from sarm.jobs.score.conversations import score_conversations
from sarm.reward.models import SARM, DenseRewardModel, RewardModel
from sarm.sae.model import TopKSAE

N_LATENTS, K = 24, 4
REPLIES = ("a good dog.", "awful. " * 9, "one two three four five six.")


def model(latents: str = "topk") -> RewardModel:
    torch.manual_seed(0)
    if latents == "none":
        return DenseRewardModel(truncated_backbone(llama_config(), 2, keep_final_norm=True), hidden_size=HIDDEN).eval()
    sae = TopKSAE(hidden_size=HIDDEN, n_latents=N_LATENTS, k=K)
    for parameter in sae.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return SARM(truncated_backbone(llama_config(), 2), sae, latents="topk" if latents == "topk" else "pre_acts").eval()


def turns(reply: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": "tell me about the dog"}, {"role": "assistant", "content": reply}]


def score(folder: Path, *, latents: str = "topk", rows: list[dict[str, Any]] | None = None, **changes: Any) -> list[dict[str, Any]]:
    """Score a file of conversations with a tiny model; returns the rows written."""
    save_word_tokenizer(folder / "words")
    save_reward_model(folder / "model", model(latents), encoder="none" if latents == "none" else "sae", tokenizer=folder / "words")
    rows = [{"messages": turns(reply)} for reply in REPLIES] if rows is None else rows
    (folder / "talk.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    context = job_context(folder, locations={"model": folder / "model", "conversations": folder / "talk.jsonl"}, threads=1)
    score_conversations(ConversationScoringConfig(model_digest="", conversations_digest="", **changes), context)
    return read_rows(context.output / "rewards.jsonl")


def test_rewards_equal_those_of_each_conversation_alone(tmp_path: Path) -> None:
    rows = score(tmp_path)
    ours, tokenizer = load_reward_model(tmp_path / "model"), ConversationTokenizer(load_tokenizer(tmp_path / "model"))
    for row, reply in zip(rows, REPLIES, strict=True):
        ids = tokenizer.encode([Message(**turn) for turn in turns(reply)], max_length=999).ids
        with torch.no_grad():
            assert row["reward"] == pytest.approx(float(ours(torch.tensor([ids]), torch.tensor([len(ids) - 1])).rewards), abs=1e-5)
        assert (row["tokens"], row["truncated"]) == (len(ids), False)
    assert all("attribution" not in row for row in rows)


def test_ids_are_kept_and_absent_ones_are_row_numbers(tmp_path: Path) -> None:
    rows = score(tmp_path, rows=[{"id": "mine", "messages": turns("fine."), "note": "kept out"}, {"messages": turns("bad.")}])
    assert [row["id"] for row in rows] == ["mine", "1"]


@pytest.mark.parametrize("latents", ["topk", "pre_acts"])
def test_contributions_of_all_latents_sum_to_the_reward(tmp_path: Path, latents: str) -> None:
    for row in score(tmp_path, latents=latents, attribution=N_LATENTS):
        shares = row["attribution"]
        assert len(shares) == (K if latents == "topk" else N_LATENTS)
        assert sum(share["contribution"] for share in shares) == pytest.approx(row["reward"], abs=1e-5)
        assert [abs(share["contribution"]) for share in shares] == sorted((abs(share["contribution"]) for share in shares), reverse=True)
        for share in shares:
            assert share["contribution"] == pytest.approx(share["activation"] * share["weight"], abs=1e-6)


def test_attribution_lists_the_top_latents_alone(tmp_path: Path) -> None:
    assert [len(row["attribution"]) for row in score(tmp_path, attribution=2)] == [2, 2, 2]


def test_scalar_model_scores_but_has_no_attribution(tmp_path: Path) -> None:
    assert len(score(tmp_path / "plain", latents="none")) == 3
    with pytest.raises(UsageProblem, match="model: attribution needs a SARM or a linear head on latents; this reward model has none"):
        score(tmp_path / "asked", latents="none", attribution=3)


def test_long_conversations_are_cut_on_the_left_and_say_so(tmp_path: Path) -> None:
    rows = score(tmp_path, max_length=20)
    assert [(row["tokens"], row["truncated"]) for row in rows][1] == (20, True)


def test_missing_file_and_wrong_rows_are_named(tmp_path: Path) -> None:
    config = ConversationScoringConfig(model_digest="", conversations_digest="")
    with pytest.raises(EnvironmentProblem, match=r"talk\.jsonl: no such file; give a JSONL file of conversations"):
        score_conversations(config, job_context(tmp_path, locations={"model": tmp_path, "conversations": tmp_path / "talk.jsonl"}))
    with pytest.raises(UsageProblem, match=r"talk\.jsonl:1: .*the last message must be the assistant's"):
        score(tmp_path / "user-last", rows=[{"messages": turns("x")[:1]}])
    with pytest.raises(UsageProblem, match=r"talk\.jsonl:2: messages: Field required"):
        score(tmp_path / "no-messages", rows=[{"messages": turns("x")}, {"text": "x"}])


GEMMA = "{% for m in messages %}{{ m.role + ' ' + m.content + '<|eot_id|>' + newline }}{% endfor %}"


def test_turns_that_the_template_leaves_out_are_told_with_the_conditions(tmp_path: Path) -> None:
    save_word_tokenizer(tmp_path / "words")
    deaf = "{% set messages = messages | rejectattr('role', 'equalto', 'system') | list %}" + GEMMA.replace("newline", "''")
    (tmp_path / "words" / "chat_template.jinja").write_text(deaf)
    save_reward_model(tmp_path / "model", model(), encoder="sae", tokenizer=tmp_path / "words")
    asked = {"messages": [{"role": "system", "content": "be kind"}, *turns("fine.")]}
    (tmp_path / "talk.jsonl").write_text(json.dumps(asked) + "\n")
    context = job_context(tmp_path, locations={"model": tmp_path / "model", "conversations": tmp_path / "talk.jsonl"})
    score_conversations(ConversationScoringConfig(model_digest="", conversations_digest=""), context)
    assert json.loads((context.output / "conditions.json").read_text())["turns_not_written"] == {"system": 1}


@pytest.mark.parametrize("eos", ["<|eot_id|>", "<|end_of_text|>", None])
@pytest.mark.parametrize("pad", ["<|eot_id|>", "<|end_of_text|>", None])
def test_a_tokenizer_of_somebody_else_is_scored_at_the_end_of_each_row(eos: str | None, pad: str | None, tmp_path: Path) -> None:
    save_word_tokenizer(tmp_path / "words", eos_token=eos, pad_token=pad)
    (tmp_path / "words" / "chat_template.jinja").write_text(GEMMA.replace("newline", "'\n'"))
    save_reward_model(tmp_path / "model", model(), encoder="sae", tokenizer=tmp_path / "words")
    (tmp_path / "talk.jsonl").write_text("".join(json.dumps({"messages": turns(reply)}) + "\n" for reply in REPLIES))
    context = job_context(tmp_path, locations={"model": tmp_path / "model", "conversations": tmp_path / "talk.jsonl"})
    score_conversations(ConversationScoringConfig(model_digest="", conversations_digest=""), context)
    ours, tokenizer = load_reward_model(tmp_path / "model"), load_tokenizer(tmp_path / "model")
    for row, reply in zip(read_rows(context.output / "rewards.jsonl"), REPLIES, strict=True):
        text = "".join(f"{turn['role']} {turn['content']}<|eot_id|>" for turn in turns(reply))
        ids = [0, *tokenizer(text, add_special_tokens=False)["input_ids"]]
        with torch.no_grad():
            alone = float(ours(torch.tensor([ids]), torch.tensor([len(ids) - 1])).rewards)
        assert (row["tokens"], row["reward"]) == (len(ids), pytest.approx(alone, abs=1e-5))
    told = json.loads((context.output / "conditions.json").read_text())
    assert told == {"pooling": "end_of_turn", "end_of_turn": "<|eot_id|>", "eos_token": eos or ""}


def test_the_scored_token_can_be_chosen(tmp_path: Path) -> None:
    rows = [score(tmp_path / name, **changes) for name, changes in {"a": {}, "b": {"end_of_turn": "<|eot_id|>"}}.items()]
    assert rows[0] == rows[1]
    with pytest.raises(UsageProblem, match="no token '<end>' to end a turn; give --end-of-turn TOKEN, or --pooling last-token"):
        score(tmp_path / "c", end_of_turn="<end>")
    assert len(score(tmp_path / "d", pooling="last_token")) == len(REPLIES)


def test_what_is_not_read_of_a_file_is_told_and_another_reply_is_refused(tmp_path: Path) -> None:
    score(tmp_path / "told", rows=[{"id": "mine", "messages": turns("fine."), "persona": "pirate"}, {"messages": turns("bad.")}])
    told = json.loads((tmp_path / "told" / "output" / "conditions.json").read_text())
    assert told["columns_not_read"] == {"persona": 1}
    with pytest.raises(UsageProblem, match=r"talk\.jsonl:1: response: holds text that is not in `messages`"):
        score(tmp_path / "refused", rows=[{"messages": turns("fine."), "response": "some other answer"}])
