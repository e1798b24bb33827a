"""Reward models as Python users ask them: every layout, rewards as jobs give them, parts that sum to the reward, errors in one line."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from authors_checkpoints import RUN, random_sarm, save_authors
from folders import DATA
from reward_model_folders import LAYOUTS, authors, latent_head, saved
from tiny import edit_json, edit_tensors, job_context, read_rows, save_word_tokenizer, write_rows
from tiny_scoring import flat, items, score

from sarm import (
    Conversation,
    EnvironmentProblem,
    LoadedRewardModel,
    Message,
    UsageProblem,
    import_authors_checkpoint,
    load_reward_model,
)
from sarm.checkpoints.backbones import load_truncated_backbone
from sarm.checkpoints.reward_models.layouts import save_reward_model
from sarm.config.score import ConversationScoringConfig
from sarm.jobs.score.conversations import score_conversations
from sarm.reward.models import SARM
from sarm.sae.model import TopKSAE

ENGLISH = DATA / "models" / "english4m"
TWO = {"num_hidden_layers": 2}


def turns(reply: str, prompt: str = "how are you") -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}]


# Words that the small vocabulary of the published layouts has too.
CONVERSATIONS = [turns("good"), turns("bad bad awful the cat ran on a mat"), turns("fine", "how are the two dog and the cat")]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rewards_of_every_layout_are_those_of_each_conversation_alone(layout: str, tmp_path: Path) -> None:
    model = load_reward_model(LAYOUTS[layout](tmp_path))
    found = model.rewards(CONVERSATIONS, batch_tokens=64)
    assert len(set(found.values)) == 3 and found.truncated == (False,) * 3
    tokenizer = model.backbone.conversation_tokenizer
    for conversation, reward, tokens in zip(CONVERSATIONS, found.values, found.tokens, strict=True):
        ids = tokenizer.encode([Message(**turn) for turn in conversation], max_length=999).ids  # type: ignore[arg-type]
        with torch.no_grad():
            alone = model.module(torch.tensor([ids]), torch.tensor([len(ids) - 1])).rewards
        assert (reward, tokens) == (pytest.approx(float(alone), abs=1e-5), len(ids))


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name.startswith(("ours", "authors", "SAFER")) and name != "ours, linear"])
def test_contributions_the_rest_and_the_bias_sum_to_the_reward(layout: str, tmp_path: Path) -> None:
    model = load_reward_model(LAYOUTS[layout](tmp_path))
    rewards = model.rewards(CONVERSATIONS).values
    weights = model.module.score.weight[0].tolist()
    for top in (1, 3, 1000):
        for one, reward in zip(model.explained_rewards(CONVERSATIONS, top=top), rewards, strict=True):
            assert one.reward == reward and one.bias == 0
            assert sum(part.contribution for part in one.latents) + one.rest + one.bias == pytest.approx(reward, abs=1e-5)
            assert len(one.latents) <= top and all(part.activation != 0 for part in one.latents)
            sizes = [abs(part.contribution) for part in one.latents]
            assert sizes == sorted(sizes, reverse=True)
            assert all(part.contribution == pytest.approx(part.activation * part.weight, rel=1e-6) for part in one.latents)
            assert {part.weight for part in one.latents} <= set(weights)
            assert (one.rest == 0) or top != 1000


def test_latents_are_numbered_as_in_the_sae(tmp_path: Path) -> None:
    for layout in ("ours", "SAFER or linear head on latents"):
        model = load_reward_model(LAYOUTS[layout](tmp_path / layout))
        (state,) = model.backbone.conversation_states(CONVERSATIONS[:1], layer=model.layer, positions="last")
        latents = model.sae.encode(state.states).latents[0]
        (explained,) = model.explained_rewards(CONVERSATIONS[:1], top=99)
        assert explained.latents
        for part in explained.latents:
            assert part.activation == pytest.approx(float(latents[part.latent]), abs=1e-5)


@pytest.mark.parametrize(("layout", "width"), [("ours, linear", 0), ("classifier", 0), ("SparseRM", 0), ("mlp on latents", 6)])
def test_a_reward_that_is_not_linear_in_latents_is_not_taken_apart(layout: str, width: int, tmp_path: Path) -> None:
    folder = latent_head(tmp_path, width) if width else LAYOUTS[layout](tmp_path)
    model = load_reward_model(folder)
    with pytest.raises(UsageProblem, match="model: attribution needs a SARM or a linear head on latents; this reward model has none"):
        model.explained_rewards(CONVERSATIONS)
    if not width:
        with pytest.raises(UsageProblem, match="model: this reward model has no SAE"):
            model.sae


def test_rewards_and_parts_are_those_of_the_job(tmp_path: Path) -> None:
    model = saved(tmp_path, random_sarm())
    write_rows(tmp_path, "talk.jsonl", [Conversation(messages=one) for one in CONVERSATIONS])  # type: ignore[arg-type]
    context = job_context(tmp_path, locations={"model": model, "conversations": tmp_path / "talk.jsonl"}, threads=1)
    score_conversations(ConversationScoringConfig(model_digest="", conversations_digest="", attribution=3), context)
    rows = read_rows(context.output / "rewards.jsonl")
    explained = load_reward_model(model).explained_rewards(CONVERSATIONS, top=3)
    assert [row["reward"] for row in rows] == [one.reward for one in explained]
    assert [row["attribution"] for row in rows] == [[part._asdict() for part in one.latents] for one in explained]


def test_rewards_of_benchmark_items_are_those_of_the_scoring_job(tmp_path: Path) -> None:
    model = saved(tmp_path, random_sarm())
    write_rows(tmp_path / "benchmark", "rewardbench2.jsonl", items())
    rows, _ = score(tmp_path / "job", {"model": model, "benchmark": tmp_path / "benchmark"}, batch_tokens=16384)
    found = load_reward_model(model).preference_rewards(items())
    assert flat(rows) == flat([one.model_dump() for one in found])
    assert [one.id for one in found] == [item.id for item in items()]


def test_a_conversation_may_be_given_in_every_form_and_none_may_be_given(tmp_path: Path) -> None:
    model = load_reward_model(saved(tmp_path, random_sarm()))
    messages = [Message(**turn) for turn in CONVERSATIONS[0]]  # type: ignore[arg-type]
    found = model.rewards([CONVERSATIONS[0], messages, tuple(messages), Conversation(messages=tuple(messages))])
    assert len(set(found.values)) == 1
    assert model.rewards([]).values == () and model.explained_rewards([]) == () and model.preference_rewards([]) == ()


def test_long_conversations_lose_their_beginning_and_say_so(tmp_path: Path) -> None:
    model = load_reward_model(saved(tmp_path, random_sarm()))
    found = model.rewards(CONVERSATIONS, max_length=12)
    assert found.tokens == tuple(min(12, count) for count in model.rewards(CONVERSATIONS).tokens)
    assert found.truncated == (False, True, True) or any(found.truncated)


def test_a_conversation_beyond_the_models_positions_is_refused_and_not_given_a_number(tmp_path: Path) -> None:
    model = load_reward_model(saved(tmp_path, random_sarm()))
    long = [CONVERSATIONS[0], turns("good " * 300)]
    for ask in (model.rewards, model.explained_rewards):
        with pytest.raises(UsageProblem, match=r"conversation 2: 3[0-9]+ tokens, but the model has 256 positions; lower max_length to 256"):
            ask(long)
        assert ask(long, max_length=256)


def test_a_run_of_the_authors_that_only_its_name_describes_is_rewritten_once(tmp_path: Path) -> None:
    run = save_authors(tmp_path / RUN.format("TopK"), random_sarm(), {})
    save_word_tokenizer(run)
    with pytest.raises(UsageProblem, match=r"config\.json has no SAE geometry; rewrite it once with sarm\.import_authors_checkpoint"):
        load_reward_model(run)
    import_authors_checkpoint(str(run), str(tmp_path / "ours"))
    assert load_reward_model(tmp_path / "ours").rewards(CONVERSATIONS) == load_reward_model(authors(tmp_path)).rewards(CONVERSATIONS)


def test_half_precision_is_the_backbones_and_rewards_stay_float32(tmp_path: Path) -> None:
    exact = load_reward_model(saved(tmp_path, random_sarm()))
    rough = load_reward_model(str(tmp_path / "model"), dtype=torch.bfloat16)
    assert rough.module.model.dtype == torch.bfloat16 and rough.module.score.weight.dtype == torch.float32
    (one,), (other,) = exact.rewards(CONVERSATIONS[:1]).values, rough.rewards(CONVERSATIONS[:1]).values
    assert one != other and one == pytest.approx(other, abs=0.5)


def test_what_is_given_back_is_frozen(tmp_path: Path) -> None:
    model = load_reward_model(saved(tmp_path, random_sarm()))
    (explained,) = model.explained_rewards(CONVERSATIONS[:1])
    for value, name in ((model, "folder"), (model.rewards(CONVERSATIONS), "values"), (explained, "reward")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, name, None)
    assert repr(model) == f"LoadedRewardModel(folder={tmp_path / 'model'!r})"


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (CONVERSATIONS[0], "a list of conversations is expected, each a list of turns; put a single one into a list"),
        ("how are you", "a list of conversations is expected"),
        (["how are you"], "a list of conversations is expected"),
        ([CONVERSATIONS[0], []], "conversation 2: messages: Tuple should have at least 1 item"),
        ([CONVERSATIONS[0], CONVERSATIONS[0][:1]], "conversation 2: turns: .*the last message must be the assistant's"),
        ([[{"role": "robot", "content": "good"}]], "conversation 1: messages.0.role: Input should be 'system'"),
        ([[{"role": "assistant", "content": None}]], "conversation 1: messages.0.content: Input should be a valid string"),
        ([[{"role": "assistant", "content": "good", "name": "x"}]], "conversation 1: messages.0.name: Extra inputs are not permitted"),
        ([None], "conversation 1: messages: Input should be a valid tuple"),
    ],
)
def test_a_wrong_conversation_is_named_by_its_place(wrong: Any, complaint: str, tmp_path: Path) -> None:
    model = load_reward_model(saved(tmp_path, random_sarm()))
    for ask in (model.rewards, model.explained_rewards):
        with pytest.raises(UsageProblem, match=complaint):
            ask(wrong)


def test_a_reward_that_is_not_finite_is_refused_by_name(tmp_path: Path) -> None:
    folder = saved(tmp_path, random_sarm())
    edit_tensors(folder / "model.safetensors", lambda tensors: tensors["score.weight"].fill_(float("nan")))
    model = load_reward_model(folder)
    for ask in (model.rewards, model.explained_rewards):
        with pytest.raises(UsageProblem, match=r"conversation [123]: the reward is not finite; score in another dtype"):
            ask(CONVERSATIONS)
    with pytest.raises(UsageProblem, match=r"item '.*': the reward is not finite"):
        model.preference_rewards(items())


def test_a_tokenizer_of_another_model_is_told_before_anything_is_computed(tmp_path: Path) -> None:
    folder = LAYOUTS["classifier-gemma2"](tmp_path)
    model = load_reward_model(folder)
    foreign = [CONVERSATIONS[0], turns("green.")]
    complaint = "conversation 2: token [0-9]+, but the model has 40 embeddings .*; its tokenizer is another model's"
    for ask in (model.rewards, lambda talks: model.backbone.conversation_states(talks, layer=1)):
        with pytest.raises(UsageProblem, match=complaint):
            ask(foreign)


def test_turns_that_the_template_refuses_are_named(tmp_path: Path) -> None:
    folder = saved(tmp_path, random_sarm())
    template = (folder / "chat_template.jinja").read_text()
    refusal = "{%- if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{%- endif %}\n"
    (folder / "chat_template.jinja").write_text(refusal + template)
    with pytest.raises(UsageProblem, match="conversation 2: the chat template refuses it: no system turn"):
        load_reward_model(folder).rewards([CONVERSATIONS[0], [{"role": "system", "content": "good"}, *CONVERSATIONS[0]]])


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ("harm", "kind", "complaint"),
    [
        (shutil.rmtree, EnvironmentProblem, "model: no such folder; give the folder of a model"),
        (without("config.json"), EnvironmentProblem, r"model: no config\.json; give the folder of a reward model"),
        (lambda folder: (folder / "config.json").write_text("{"), UsageProblem, r"model/config\.json: not JSON"),
        (lambda folder: edit_json(folder / "config.json", layer=None), UsageProblem, r"model: config\.json has no 'layer'"),
        (without("model.safetensors"), UsageProblem, r"model: no model\.safetensors and no .*; this is not a model folder"),
        (lambda folder: [one.unlink() for one in folder.glob("*t*.j*")], EnvironmentProblem, "model: no tokenizer files; copy"),
    ],
)
def test_a_folder_that_cannot_be_loaded_is_named_with_the_next_step(
    harm: Callable[[Path], Any], kind: type[Exception], complaint: str, tmp_path: Path
) -> None:
    folder = saved(tmp_path, random_sarm())
    harm(folder)
    with pytest.raises(kind, match=complaint):
        load_reward_model(folder)


def test_a_head_without_its_backbone_and_a_tokenizer_without_template_are_told(tmp_path: Path) -> None:
    folder = latent_head(tmp_path)
    (folder / "config.json").unlink()
    with pytest.raises(UsageProblem, match="model: a head alone, which reads cached states; train it with whole = true"):
        load_reward_model(folder)
    plain = saved(tmp_path / "plain", random_sarm())
    (plain / "chat_template.jinja").unlink()
    with pytest.raises(UsageProblem, match=r"model: no chat template; put chat_template\.jinja into the folder"):
        load_reward_model(plain).rewards(CONVERSATIONS)


def test_a_device_or_precision_that_is_not_there_is_told(tmp_path: Path) -> None:
    folder = saved(tmp_path, random_sarm())
    absent = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(EnvironmentProblem, match=f"device = '{absent}': torch sees {torch.cuda.device_count()} CUDA devices"):
        load_reward_model(folder, device=absent)
    with pytest.raises(UsageProblem, match="device = 'gpu' is no device of torch; give 'cpu', 'cuda' or 'cuda:0'"):
        load_reward_model(folder, device="gpu")
    for dtype in (torch.int8, "float32"):
        with pytest.raises(UsageProblem, match=r"is no precision to load in; give one of torch\.float32, torch\.bfloat16, torch\.float16"):
            load_reward_model(folder, dtype=dtype)  # type: ignore[arg-type]


def test_loading_our_own_layouts_tells_no_warning_about_their_model_type(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for layout in ("ours", "ours, imported SAE", "SparseRM"):
        load_reward_model(LAYOUTS[layout](tmp_path / layout))
    assert "to instantiate a model of type" not in caplog.text


@pytest.mark.skipif(not ENGLISH.is_dir(), reason=f"no english4m in {ENGLISH}; set SARM_DATA")
def test_a_sarm_on_a_trained_language_model_is_taken_apart_at_its_real_width(tmp_path: Path) -> None:
    backbone = load_truncated_backbone(ENGLISH, layer=2, dtype=torch.float32)
    sae = TopKSAE(hidden_size=256, n_latents=2048, k=32)
    sae.reset(torch.Generator().manual_seed(0))
    sarm = SARM(backbone, sae)
    torch.nn.init.normal_(sarm.score.weight, generator=torch.Generator().manual_seed(1))
    save_reward_model(tmp_path / "model", sarm, encoder="sae", tokenizer=ENGLISH)
    model: LoadedRewardModel = load_reward_model(tmp_path / "model")
    talks = [turns("Once upon a time there was a very small dog, who lived in a box.", f"Tell me story number {n}.") for n in range(9)]
    talks[4] = turns("No. " * 200, "Why?")
    rewards = model.rewards(talks, batch_tokens=1024).values
    assert len(set(rewards)) == 9
    for one, reward in zip(model.explained_rewards(talks, top=32), rewards, strict=True):
        assert (len(one.latents), one.rest) == (32, 0.0)
        assert sum(part.contribution for part in one.latents) == pytest.approx(reward, abs=1e-4)
