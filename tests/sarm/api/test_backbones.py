"""Hidden states for Python users: equal to transformers' own at every layer, of texts and conversations, on real and on random models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from families import CONFIGS
from folders import DATA
from tiny import HIDDEN, causal_lm, edit_tensors, save_backbone, save_word_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from sarm import EnvironmentProblem, Message, TokenStates, UsageProblem, load_backbone

ENGLISH, STORIES = DATA / "models" / "english4m", DATA / "models" / "stories260K"
TEXTS = ["The cat sat on the mat.", "One two three four five six. " * 3, "Tell me about the dog, you."]
TALKS = [[{"role": "user", "content": text}, {"role": "assistant", "content": "It was a good dog."}] for text in TEXTS]


def states_of_transformers(model: Any, found: TokenStates) -> torch.Tensor:
    """`[tokens, hidden_size]` after a layer, by a forward pass of the row alone. The last entry of the library's own list is normed."""
    kept: list[Any] = []
    handles = [block.register_forward_hook(lambda _, __, output: kept.append(output)) for block in model.model.layers]
    with torch.no_grad():
        output = model(torch.tensor([found.token_ids]), output_hidden_states=True)
    for handle in handles:
        handle.remove()
    after = output.hidden_states[0] if found.layer == 0 else kept[found.layer - 1]
    return (after if torch.is_tensor(after) else after[0]).reshape(-1, model.config.hidden_size)


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen3"])
@pytest.mark.parametrize("layer", [0, 1, 3])
def test_states_are_those_of_transformers_whatever_stands_beside_them(family: str, layer: int, tmp_path: Path) -> None:
    config = CONFIGS[family]
    config.vocab_size = 80
    causal_lm(config).save_pretrained(tmp_path / "lm")
    save_word_tokenizer(tmp_path / "lm")
    backbone = load_backbone(tmp_path / "lm", layer=3)
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "lm", attn_implementation="eager").eval()
    for found in (*backbone.text_states(TEXTS, layer=layer, batch_tokens=20), *backbone.conversation_states(TALKS, layer=layer)):
        assert found.layer == layer and found.states.shape == (len(found.token_ids), HIDDEN) and not found.truncated
        torch.testing.assert_close(found.states, states_of_transformers(whole, found), rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not ENGLISH.is_dir(), reason=f"no english4m in {ENGLISH}; set SARM_DATA")
@pytest.mark.parametrize("layer", [0, 2, 4])
def test_states_of_a_trained_language_model_are_those_of_transformers(layer: int) -> None:
    backbone = load_backbone(ENGLISH, layer=4)
    whole, tokenizer = AutoModelForCausalLM.from_pretrained(ENGLISH).eval(), AutoTokenizer.from_pretrained(ENGLISH)
    texts = ["The cat sat on the mat, café.", *(f"Sentence number {number} says little. " * number for number in range(1, 9))]
    found = backbone.text_states(texts, layer=layer, batch_tokens=256)
    for text, one in zip(texts, found, strict=True):
        assert list(one.token_ids) == [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
        assert list(one.tokens) == tokenizer.convert_ids_to_tokens(list(one.token_ids))
        torch.testing.assert_close(one.states, states_of_transformers(whole, one), rtol=1e-4, atol=1e-4)
    (talk,) = backbone.conversation_states([[{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Ho."}]], layer=layer)
    assert talk.token_ids[-1] == tokenizer.eos_token_id and talk.token_ids.count(tokenizer.bos_token_id) == 1
    torch.testing.assert_close(talk.states, states_of_transformers(whole, talk), rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not STORIES.is_dir(), reason=f"no stories260K in {STORIES}; set SARM_DATA")
def test_a_model_without_a_chat_template_gives_states_of_texts_alone() -> None:
    backbone = load_backbone(STORIES, layer=5)
    (found,) = backbone.text_states(["Once upon a time there was a girl."], layer=5)
    assert found.states.shape == (len(found.tokens), backbone.hidden_size) == (len(found.tokens), 64)
    with pytest.raises(UsageProblem, match=r"stories260K: no chat template; put chat_template\.jinja into the folder"):
        backbone.conversation_states(TALKS, layer=5)


def test_the_last_position_alone_is_the_last_of_all(tmp_path: Path) -> None:
    backbone = load_backbone(save_backbone(tmp_path / "lm"), layer=2)
    for ask, given in ((backbone.text_states, TEXTS), (backbone.conversation_states, TALKS)):
        everything, last = ask(given, layer=1), ask(given, layer=1, positions="last")  # type: ignore[operator]
        for one, other in zip(everything, last, strict=True):
            assert (other.token_ids, other.tokens) == (one.token_ids[-1:], one.tokens[-1:]) and other.states.shape == (1, HIDDEN)
            torch.testing.assert_close(other.states, one.states[-1:], rtol=1e-5, atol=1e-5)


def test_states_can_take_part_in_a_training_of_the_users_and_own_their_memory(tmp_path: Path) -> None:
    backbone = load_backbone(save_backbone(tmp_path / "lm"), layer=2)
    first, second = backbone.text_states(TEXTS[:2], layer=2)
    probe = torch.nn.Linear(HIDDEN, 1)
    probe(first.states).sum().backward()
    assert probe.weight.grad is not None and not first.states.requires_grad
    before = second.states.clone()
    first.states.zero_()
    assert torch.equal(second.states, before)


def test_overlong_texts_lose_their_end_and_conversations_their_beginning(tmp_path: Path) -> None:
    backbone = load_backbone(save_backbone(tmp_path / "lm"), layer=1)
    (text,) = backbone.text_states(TEXTS[:1], layer=1, max_length=4)
    (talk,) = backbone.conversation_states(TALKS[:1], layer=1, max_length=4)
    (whole,) = backbone.conversation_states(TALKS[:1], layer=1)
    assert text.tokens == ("<|begin_of_text|>", "The", "cat", "sat") and text.truncated
    assert talk.token_ids == whole.token_ids[-4:] and talk.truncated and not whole.truncated
    assert backbone.conversation_states([[Message(**turn) for turn in TALKS[0]]], layer=1)[0].token_ids == whole.token_ids
    assert backbone.text_states([], layer=1) == () == backbone.conversation_states([], layer=1)


def test_half_precision_stays(tmp_path: Path) -> None:
    backbone = load_backbone(save_backbone(tmp_path / "lm"), layer=1, dtype=torch.bfloat16)
    assert backbone.text_states(TEXTS[:1], layer=1)[0].states.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"layer": 3}, "lm: layer 3 does not exist; choose 0 to 2, the blocks that are loaded"),
        ({"layer": -1}, "lm: layer -1 does not exist"),
        ({"texts": "The cat"}, "texts: a list of strings is expected; put a single one into a list"),
        ({"texts": ["The cat", None]}, "texts: a list of strings is expected"),
        ({"texts": ["The cat", " \n"]}, "text 2 is empty; leave it out"),
        ({"texts": ["The cat", "cat " * 300]}, "text 2: 301 tokens, but the model has 256 positions; lower max_length to 256"),
    ],
)
def test_a_wrong_question_is_named(changes: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    backbone = load_backbone(save_backbone(tmp_path / "lm"), layer=2)
    with pytest.raises(UsageProblem, match=complaint):
        backbone.text_states(**{"texts": TEXTS, "layer": 1, **changes})


def test_states_that_are_not_finite_are_refused_by_name(tmp_path: Path) -> None:
    folder = save_backbone(tmp_path / "lm")
    edit_tensors(folder / "model.safetensors", lambda tensors: tensors["model.embed_tokens.weight"][11].fill_(float("nan")))
    with pytest.raises(UsageProblem, match="text 2: the model's hidden states are not finite"):
        load_backbone(folder, layer=1).text_states(["Tell me", "on the mat"], layer=1)


def test_a_layer_beyond_the_model_and_an_absent_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="lm: layer 9 does not exist: the model has 4 blocks; choose 1 to 4"):
        load_backbone(save_backbone(tmp_path / "lm"), layer=9)
    with pytest.raises(EnvironmentProblem, match="nowhere: no such folder; give the folder of a model"):
        load_backbone(tmp_path / "nowhere", layer=1)
