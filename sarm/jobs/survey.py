"""`python -m sarm.jobs.survey`: a look at a model, pairs, texts and perhaps a benchmark of a user's own, for `replicate init`.

Reads paths as a JSON object on stdin and writes what it found as one on stdout: no job, no artifact. What is no model, no pairs and so
on is told as `{"problem": ..., "code": ...}`. Of long files the first rows are read.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import pyarrow
import torch
from pydantic import ValidationError

from sarm.backbone.decoder import positions_of
from sarm.checkpoints.backbones import empty_backbone, load_config, load_tokenizer
from sarm.checkpoints.config_files import read_model_settings
from sarm.checkpoints.tensors import TensorFolder
from sarm.data.pairs import conversation
from sarm.data.preferences import DataError, Preference
from sarm.data.row_files import local_rows
from sarm.data.sources import (
    READ_COLUMNS,
    DivergingHistories,
    EmptyPrompt,
    NoReply,
    Place,
    Row,
    is_evaluation,
    preference_pair,
    rewardbench2_preference,
    rmbench_preference,
    unread_columns,
)
from sarm.data.splitters import splitter
from sarm.data.tokens import ConversationTokenizer, TokenizerProblem
from sarm.job import EnvironmentProblem, JobError, UsageProblem, printable

ROWS, ENCODED, DOCUMENTS = 2000, 200, 200
# In the order in which they are looked for; the first is what a profile takes without being told.
TEXT_COLUMNS = ("text", "content", "document", "body", "raw_content", "article", "passage")
CONVERTERS: Mapping[str, Callable[[Row, Place], Preference]] = {
    "rewardbench2": rewardbench2_preference,
    "rmbench": rmbench_preference,
}


class Sample(NamedTuple):
    """The first rows of a file or folder with their places, and about how many there are in all."""

    total: int
    rows: list[tuple[Place, Row]]


def survey(paths: Mapping[str, str]) -> dict[str, Any]:
    """What there is: `machine`, `model`, `pairs`, `text`, and with a path of that name `benchmark`. Raises JobError."""
    model, tokenizer = look_at_model(Path(paths["model"]))
    found = {
        "machine": look_at_machine(),
        "model": model,
        "pairs": look_at_pairs(Path(paths["pairs"]), tokenizer),
        "text": look_at_text(Path(paths["text"]), tokenizer),
    }
    return {**found, "benchmark": look_at_benchmark(Path(paths["benchmark"]))} if paths.get("benchmark") else found


def look_at_machine() -> dict[str, Any]:
    """The GPUs that torch can use here, and whether they compute in bfloat16."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {"gpus": gpus, "bfloat16": bool(gpus and torch.cuda.is_bf16_supported(including_emulation=False))}


def look_at_model(folder: Path) -> tuple[dict[str, Any], ConversationTokenizer]:
    """Positions, and the tokens that end turns and fill rows. Raises JobError for what no backbone can be."""
    if not (folder / "config.json").is_file():
        raise UsageProblem(f"--model {folder}: holds no config.json; give a folder in Hugging Face layout")
    read_model_settings(folder)
    config = load_config(folder)
    try:
        empty_backbone(config, 1, dtype=torch.float32, what=folder.name)
    except UsageProblem as problem:
        why = str(problem).removeprefix(f"{folder.name}: ")
        raise UsageProblem(f"{folder.name}/config.json: model_type {config.model_type!r}: {why}; give a decoder such as Llama") from problem
    # Raises where there are no safetensors, or pickles alone.
    if not TensorFolder(folder).names:
        raise UsageProblem(f"{folder.name}: its safetensors files hold no tensor; fetch them again")
    tokenizer = _tokenizer(folder)
    pad, end = tokenizer.tokenizer.pad_token_id, tokenizer.end_of_turn_id
    facts = {
        "model_type": config.model_type,
        "positions": positions_of(config) or 0,
        "end_of_turn": tokenizer.end_of_turn_text,
        "eos": tokenizer.tokenizer.eos_token or "",
        "pad": tokenizer.tokenizer.pad_token or "",
        "pad_is_its_own": pad is not None and pad != end,
    }
    return facts, tokenizer


def _tokenizer(folder: Path) -> ConversationTokenizer:
    try:
        return ConversationTokenizer(load_tokenizer(folder))
    except TokenizerProblem as problem:
        if "no chat template" not in str(problem):
            raise
        raise UsageProblem(
            f"{folder.name}/tokenizer_config.json: no chat_template, so nobody knows what a conversation looks like to the model; put "
            "chat_template.jinja into the folder, or write a profile that brings one (examples/real-stories.toml)"
        ) from problem


def look_at_pairs(path: Path, tokenizer: ConversationTokenizer) -> dict[str, Any]:
    """How the pairs are written down, how long they are, which are held out. Raises DataError for a row that is no pair."""
    sample = _sample(path, "--pairs")
    kept: list[Preference] = []
    left, unread, forms = Counter[str](), Counter[str](), Counter[str]()
    for place, row in sample.rows:
        _need_columns(row, place, ("chosen", "rejected"))
        try:
            pair = _understood(preference_pair, row, place)
            unread.update(unread_columns(row, pair, place, shape="pairs", text_column=""))
        except (EmptyPrompt, NoReply, DivergingHistories) as reason:
            left[type(reason).__name__] += 1
            continue
        forms[_form(row)] += 1
        kept.append(pair)
    if not kept:
        raise DataError(f"--pairs {path}: none of the first {len(sample.rows)} rows is a pair with a prompt and two replies; mend the file")
    held_out = sum(is_evaluation(pair) for pair in kept)
    if held_out in (0, len(kept)):
        why = "none is" if not held_out else "all are"
        raise DataError(f"--pairs {path}: of {len(kept)} pairs {why} held out by the hash of the prompt; give pairs with more prompts")
    sides = [conversation(pair.prompt, reply) for pair in kept[:ENCODED] for reply in (pair.chosen[0], pair.rejected[0])]
    lengths = [len(row.ids) for row in tokenizer.encode_many(sides, max_length=sys.maxsize, names=["--pairs"] * len(sides))]
    return {
        "rows": sample.total,
        "looked_at": len(sample.rows),
        "kept": len(kept),
        "held_out": held_out,
        "form": forms.most_common(1)[0][0],
        "skip_prompts": bool(left["EmptyPrompt"]),
        "left_out": dict(left),
        "not_read": dict(unread),
        "tokens_per_pair": max(1, round(2 * fmean(lengths))),
        "longest": max(lengths),
    }


def _form(row: Row) -> str:
    """How a pair is written down, in words."""
    replies = "text" if isinstance(row.get("chosen"), str) else "messages"
    if row.get("prompt") is None:
        return "chosen and rejected are whole conversations"
    prompt = "text" if isinstance(row["prompt"], str) else "messages"
    return f"prompt ({prompt}), chosen and rejected ({replies})"


def look_at_text(path: Path, tokenizer: ConversationTokenizer) -> dict[str, Any]:
    """The column of the text, and how many sentences and tokens a document has."""
    sample = _sample(path, "--text")
    column = _text_column(sample.rows[0][1], sample.rows[0][0])
    texts = [text for _, row in sample.rows if isinstance(text := row.get(column), str) and text.strip()]
    if not texts:
        raise DataError(f"--text {path}: {column}: holds no text in the first {len(sample.rows)} rows; name another file")
    split = splitter("nupunkt")
    sentences = [sentence.strip() for text in texts[:DOCUMENTS] for sentence in split(text) if sentence.strip()]
    lengths = [len(ids) for ids in tokenizer.tokenizer(sentences, add_special_tokens=False)["input_ids"]]
    return {
        "rows": sample.total,
        "looked_at": len(sample.rows),
        "column": column,
        "sentences_per_document": len(sentences) / min(len(texts), DOCUMENTS),
        "tokens_per_sentence": fmean(lengths),
    }


def _text_column(row: Row, place: Place) -> str:
    """The column that holds running text: one of the usual names, or the only one with text."""
    named = [name for name in TEXT_COLUMNS if isinstance(row.get(name), str)]
    alone = [str(name) for name, value in row.items() if isinstance(value, str)]
    if named or len(alone) == 1:
        return (named or alone)[0]
    there = ", ".join(sorted(map(str, row))) or "none"
    raise DataError(f"{place.file}:{place.row}: text: no column of running text is recognised among: {there}; name it `text`")


def look_at_benchmark(path: Path) -> dict[str, Any]:
    """Which benchmark a file or folder holds, its subsets and completions. Raises DataError for neither."""
    name, items, completions, subsets = "", 0, 0, Counter[str]()
    with _reading("--benchmark", path):
        for place, row in local_rows(path).rows:
            _need_columns(row, place, ("chosen", "rejected"))
            name = name or _benchmark_of(row, place)
            item = _understood(CONVERTERS[name], row, place)
            items += 1
            subsets[item.subset] += 1
            completions += len(item.chosen) + len(item.rejected)
    if not items:
        raise DataError(f"--benchmark {path}: holds no row; give items with {', '.join(READ_COLUMNS['rewardbench2'][:5])}")
    return {"name": name, "items": items, "subsets": dict(subsets), "completions": completions}


def _benchmark_of(row: Row, place: Place) -> str:
    """The benchmark that reads a row. Raises DataError with why the first does not where none does."""
    refused = ""
    for name, convert in CONVERTERS.items():
        try:
            _understood(convert, row, place)
            return name
        except DataError as problem:
            refused = refused or str(problem)
    raise DataError(f"--benchmark: neither RewardBench 2 nor RM-Bench: {refused}")


def _understood(convert: Callable[[Row, Place], Preference], row: Row, place: Place) -> Preference:
    """The row in our shape. Raises DataError for values that it cannot have."""
    try:
        return convert(row, place)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{place.file}:{place.row}: {where}: {first['msg']}; mend the row or remove it") from error


@contextmanager
def _reading(option: str, path: Path) -> Iterator[None]:
    """While a file is read: what no reader understands is refused by option and path."""
    try:
        yield
    except (pyarrow.ArrowException, UnicodeError, OSError) as error:
        reason = printable((str(error).splitlines() or [type(error).__name__])[0])
        # A damaged Parquet file gives an OSError of pyarrow's own, without the number that one of the system has.
        if isinstance(error, OSError) and error.errno is not None:
            raise EnvironmentProblem(f"{option} {path}: cannot be read ({error.strerror}); put it where it can") from error
        raise DataError(f"{option} {path}: {reason}; save it as UTF-8 JSONL or as Parquet") from error


def _sample(path: Path, option: str) -> Sample:
    """The first rows. Raises DataError for a file without any."""
    with _reading(option, path):
        source = local_rows(path)
        rows = list(islice(source.rows, ROWS))
    if not rows:
        raise DataError(f"{option} {path}: holds no row; give JSONL or Parquet")
    return Sample(max(source.total, len(rows)) if len(rows) == ROWS else len(rows), rows)


def _need_columns(row: Row, place: Place, needed: Sequence[str]) -> None:
    if not any(name in row for name in needed):
        there = ", ".join(sorted(map(str, row))) or "none"
        names = " and ".join(f"`{name}`" for name in needed)
        raise DataError(f"{place.file}:{place.row}: {needed[0]}: no such column among: {there}; name the columns {names}")


def answer(text: str) -> dict[str, Any]:
    """What was found, or what is wrong with what was given, for one request."""
    try:
        return survey(json.loads(text))
    except JobError as problem:
        return {"problem": str(problem), "code": problem.exit_code}


def main() -> None:
    """Answer one request; what libraries print goes to stderr."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    print(json.dumps(answer(sys.stdin.read())), file=out, flush=True)


if __name__ == "__main__":
    main()
