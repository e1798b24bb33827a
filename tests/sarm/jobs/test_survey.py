"""The look at a user's model and data: what it finds, and one line with file, key and next step for what it cannot use."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from own_input import own_input, raw_pairs, write
from tiny import edit_json

from sarm.checkpoints.backbones import load_tokenizer
from sarm.data.tokens import ConversationTokenizer
from sarm.job import JobError
from sarm.jobs.survey import answer, look_at_benchmark, look_at_pairs, look_at_text

Found = dict[str, Any]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return own_input(tmp_path_factory.mktemp("own"))


def look(paths: dict[str, Path], **changes: Path) -> Found:
    return answer(json.dumps({name: str(path) for name, path in {**paths, **changes}.items()}))


def test_everything_is_found(whole: dict[str, Path]) -> None:
    found = look(whole)
    assert found["model"]["end_of_turn"] == found["model"]["eos"] == "<|eot_id|>" and found["model"]["positions"] == 256
    assert found["model"]["pad_is_its_own"] is True
    assert (found["pairs"]["rows"], found["pairs"]["kept"]) == (96, 96) and 0 < found["pairs"]["held_out"] < 96
    assert found["pairs"]["form"] == "prompt (text), chosen and rejected (text)" and found["pairs"]["tokens_per_pair"] > 10
    assert found["text"]["column"] == "text" and found["text"]["rows"] == 160 and 2 < found["text"]["sentences_per_document"] < 5
    assert found["benchmark"] == {"name": "rewardbench2", "items": 6, "subsets": {"Focus": 3, "Safety": 3}, "completions": 24}


def conversations(row: dict[str, Any]) -> dict[str, Any]:
    question = {"role": "user", "content": row["prompt"]}
    sides = {side: [question, {"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")}
    return {**sides, "chosen_score": 4.5, "rejected_score": 1, "margin": 3.5}


def spoken(row: dict[str, Any]) -> dict[str, Any]:
    sides = conversations(row)
    names = {"user": "human", "assistant": "gpt"}
    return {side: [{"from": names[one["role"]], "value": one["content"]} for one in sides[side]] for side in ("chosen", "rejected")}


def scored(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "prompt": [{"role": "user", "content": row["prompt"]}], "score_chosen": 8.0, "score_rejected": 2.0}


@pytest.mark.parametrize("shape", [conversations, spoken, scored, lambda row: row])
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_pairs_are_recognised_in_every_common_form(
    shape: Callable[[dict[str, Any]], dict[str, Any]], suffix: str, whole: dict[str, Path], tmp_path: Path
) -> None:
    rows = [shape(row) for row in raw_pairs()]
    path = tmp_path / f"pairs.{suffix}"
    if suffix == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        write(path, rows)
    expected, found = look(whole), look(whole, pairs=path)
    assert "problem" not in found, found
    # Numbers of other tools are told and not read.
    numbers = {name for name, value in rows[0].items() if isinstance(value, float | int)}
    assert set(found["pairs"]["not_read"]) == numbers
    assert {**found["pairs"], "form": "", "not_read": {}} == {**expected["pairs"], "form": "", "not_read": {}}


def test_an_end_of_turn_that_is_not_eos_and_a_pad_that_is_no_pad_are_seen(whole: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(whole["model"], tmp_path / "model")
    edit_json(tmp_path / "model" / "tokenizer_config.json", eos_token="<|end_of_text|>", pad_token="<|eot_id|>")
    found = look(whole, model=tmp_path / "model")["model"]
    assert (found["end_of_turn"], found["eos"], found["pad_is_its_own"]) == ("<|eot_id|>", "<|end_of_text|>", False)


def test_the_column_of_a_text_is_the_usual_name_or_the_only_text(whole: dict[str, Path], tmp_path: Path) -> None:
    rows = [{"id": 1, "content": "A cat sat. It ran."}] * 20
    assert look(whole, text=write(tmp_path / "one.jsonl", rows))["text"]["column"] == "content"
    rows = [{"n": 1, "odd": "A cat sat."}] * 20
    assert look(whole, text=write(tmp_path / "two.jsonl", rows))["text"]["column"] == "odd"


def rm_bench(count: int = 4) -> list[dict[str, Any]]:
    sides = {side: [f"the dog is {word}."] * 3 for side, word in (("chosen", "good"), ("rejected", "bad"))}
    return [{"id": str(number), "prompt": "tell me", "domain": "chat", **sides} for number in range(count)]


def test_rm_bench_is_told_from_rewardbench_2(whole: dict[str, Path], tmp_path: Path) -> None:
    found = look(whole, benchmark=write(tmp_path / "items.jsonl", rm_bench()))["benchmark"]
    assert found == {"name": "rmbench", "items": 4, "subsets": {"chat": 4}, "completions": 24}


def test_only_empty_prompts_ask_for_their_option(whole: dict[str, Path], tmp_path: Path) -> None:
    rows = [{**raw_pairs()[0], "prompt": ""}, *raw_pairs()]
    found = look(whole, pairs=write(tmp_path / "pairs.jsonl", rows))["pairs"]
    assert found["skip_prompts"] is True and found["left_out"] == {"EmptyPrompt": 1} and found["kept"] == 96


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def edited(name: str, **changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / name, **changes)


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def bert(folder: Path) -> None:
    edit_json(folder / "config.json", model_type="bert", architectures=["BertModel"])


@pytest.mark.parametrize(
    ("damage", "words", "code"),
    [
        (without("config.json"), ("holds no config.json", "Hugging Face layout"), 2),
        (bert, ("config.json: model_type 'bert'", "give a decoder such as Llama"), 2),
        (edited("config.json", model_type="nobody-knows"), ("model_type 'nobody-knows' is not known",), 2),
        (without("chat_template.jinja"), ("tokenizer_config.json: no chat_template", "put chat_template.jinja into the folder"), 2),
        (without("tokenizer.json"), ("tokenizer",), 2),
        (pickled, ("safetensors",), 2),
        (lambda folder: (folder / "config.json").write_text("{"), ("config.json: not JSON",), 2),
    ],
)
def test_a_model_that_cannot_be_used_is_refused_in_one_line(
    damage: Callable[[Path], None], words: tuple[str, ...], code: int, whole: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(whole["model"], tmp_path / "model")
    damage(tmp_path / "model")
    found = look(whole, model=tmp_path / "model")
    assert set(found) == {"problem", "code"} and "\n" not in found["problem"], found
    assert all(word in found["problem"] for word in words), found
    assert found["code"] == code


PAIRS: list[tuple[list[Any], str]] = [
    ([], "holds no row"),
    ([{"question": "a", "answer": "b"}], r":1: chosen: no such column among: answer, question; name the columns `chosen` and `rejected`"),
    ([{"chosen": "a", "rejected": "b"}], "prompt: is missing"),
    ([{"prompt": "", "chosen": "a", "rejected": "b"}], "none of the first 1 rows is a pair"),
    ([raw_pairs()[0]] * 3, "held out by the hash of the prompt; give pairs with more prompts"),
    ([3, 4], "is no object with keys"),
]


@pytest.mark.parametrize(("rows", "words"), PAIRS)
def test_pairs_that_are_none_are_refused_in_one_line(rows: list[Any], words: str, whole: dict[str, Path], tmp_path: Path) -> None:
    found = look(whole, pairs=write(tmp_path / "pairs.jsonl", rows))
    assert words in found["problem"] and "pairs.jsonl" in found["problem"] and found["code"] == 2 and "\n" not in found["problem"]


@pytest.mark.parametrize(
    ("option", "content", "words"),
    [
        ("text", b"", "holds no row"),
        ("text", b'{"a": "x", "b": "y"}\n', "text: no column of running text is recognised among: a, b"),
        ("text", b'{"text": "  "}\n', "holds no text"),
        ("text", b"\xff\xfe\x00", "UTF-8"),
        ("text", b"not json\n", "is no JSON"),
        ("benchmark", b"", "holds no row"),
        ("benchmark", b'{"prompt": "a", "chosen": "x", "rejected": "y"}\n', "neither RewardBench 2 nor RM-Bench: "),
        ("benchmark", b'{"a": 1}\n', "no such column among: a"),
        ("pairs", b"PAR1 torn", "--pairs "),
    ],
)
def test_files_that_hold_something_else_are_refused_in_one_line(
    option: str, content: bytes, words: str, whole: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / ("data.parquet" if content.startswith(b"PAR1") else "data.jsonl")
    path.write_bytes(content)
    found = look(whole, **{option: path})
    assert words in found["problem"] and path.name in found["problem"], found
    assert found["code"] == 2 and "\n" not in found["problem"], found


TEXT = st.text(max_size=5)
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT)
JSON = st.recursive(LEAVES, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)), max_leaves=6)
KEYS = st.sampled_from(["role", "content", "from", "value", "name"])
MESSAGE = st.dictionaries(KEYS, st.one_of(JSON, st.sampled_from(["user", "assistant"])))
SIDE = st.one_of(JSON, st.lists(MESSAGE, max_size=3), TEXT)
ROW = st.one_of(JSON, st.dictionaries(st.sampled_from(["prompt", "chosen", "rejected", "id", "subset", "text", "domain"]), SIDE))


@settings(max_examples=60)
@given(rows=st.lists(ROW, max_size=3), option=st.sampled_from(["pairs", "text", "benchmark"]))
def test_whatever_rows_hold_is_found_or_refused_in_one_line(
    rows: list[Any], option: str, whole: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = write(tmp_path_factory.mktemp("hostile") / "rows.jsonl", rows)
    look_at = {"pairs": look_at_pairs, "text": look_at_text}.get(option)
    try:
        found = look_at(path, opened(whole["model"])) if look_at else look_at_benchmark(path)
        assert found
    except JobError as problem:
        assert "\n" not in str(problem) and problem.exit_code == 2 and "rows.jsonl" in str(problem)


@cache
def opened(folder: Path) -> ConversationTokenizer:
    return ConversationTokenizer(load_tokenizer(folder))
