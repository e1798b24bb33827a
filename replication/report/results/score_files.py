"""A file of per-item rewards, from us or from anyone, to metrics: for `replicate score REWARDS --benchmark NAME`.

Shapes, one object an item, as JSONL or as one JSON list:
ours `{id, subset, chosen_rewards, rejected_rewards}`; flat `{id, subset, num_correct, scores | rewards}`, the correct ones
first; RM-Bench's `{score_chosen, score_rejected, domain}`. Or RewardBench 2's own file of item scores: one object of parallel columns
(`id`, `subset`, `num_correct`, `scores`, `results`, `text`) beside facts of the run (`model`, `model_type`, `chat_template`).
Source: scripts/run_v2.py of allenai/reward-bench @ 05a9005.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

from sarm.data.preferences import DataError, ScoredPreference
from sarm.metrics.credits import BenchmarkScores, ScoringError
from sarm.metrics.rewardbench2 import rewardbench2_scores
from sarm.metrics.rmbench import RMBENCH_DOMAINS, rmbench_scores
from sarm.store.json_lines import LinesError, read_json, read_lines

ScoredBenchmark = Literal["rewardbench2", "rmbench"]
# Columns of the official file that are results or facts, and would make equal rows look different.
OF_NO_ITEM = ("results", "model", "model_type", "chat_template")
SHAPES = "chosen_rewards and rejected_rewards; num_correct and scores; or score_chosen and score_rejected"


class _Line(NamedTuple):
    """An object of the file: what it holds and where it stands (its line, or its place in a JSON list)."""

    path: Path
    number: int
    content: Mapping[str, Any]

    def refuse(self, key: str, problem: str) -> NoReturn:
        """Raise DataError with file, line and key."""
        raise DataError(f"{self.path}:{self.number}: {key}: {problem}")


class FileScores(NamedTuple):
    """Metrics of a file of rewards, and how many of its items have an id that another has."""

    scores: BenchmarkScores
    repeated_ids: int


def score_file(path: Path, benchmark: ScoredBenchmark) -> FileScores:
    """Metrics of a file of rewards. Raises DataError in one line: file, line, key, what is wrong and the next step."""
    items = read_rewards(path, benchmark)
    try:
        found = rewardbench2_scores(items) if benchmark == "rewardbench2" else rmbench_scores(items)
        return FileScores(found, repeated_ids(items))
    except ScoringError as error:
        raise DataError(f"{path}: {error}") from error


def read_rewards(path: Path, benchmark: ScoredBenchmark) -> list[ScoredPreference]:
    """Items in the file's order, checked.

    Raises DataError for NaN, null or text where a reward belongs, counts that do not fit, a missing id, a row that is there
    twice (Ties rows may share an id: they are pooled), and an empty file. Infinite rewards are taken as they are. Published data repeat ids
    (`repeated_ids`), which only Ties reads.
    """
    items: list[ScoredPreference] = []
    seen: dict[tuple[str, str], list[_Line]] = {}
    for line in _lines(path):
        item = _item(line, benchmark)
        if item.id and item.subset != "Ties":
            earlier = seen.setdefault((item.subset, item.id), [])
            same = next((one for one in earlier if one.content == line.content), None)
            if same is not None:
                line.refuse("id", f"{item.id!r} of {item.subset or 'the file'} is already at line {same.number}; give each row once")
            earlier.append(line)
        items.append(item)
    if not items:
        raise DataError(f"{path}: no items; write one JSON object a line")
    return items


def benchmark_of(path: Path) -> ScoredBenchmark:
    """Whose rewards a file holds, by its first item. Raises DataError as `read_rewards`."""
    for line in _lines(path):
        label = str(line.content.get("domain") or line.content.get("subset") or "")
        styled = "score_chosen" in line.content or "score_rejected" in line.content
        return "rmbench" if styled or label.startswith(RMBENCH_DOMAINS) else "rewardbench2"
    raise DataError(f"{path}: no items; write one JSON object a line")


def repeated_ids(items: Iterable[ScoredPreference]) -> int:
    """How many items have an id that an earlier item of their subset has; Ties, whose rows may share one, left out."""
    names = [(item.subset, item.id) for item in items if item.id and item.subset != "Ties"]
    return len(names) - len(set(names))


def _lines(path: Path) -> Iterator[_Line]:
    try:
        columns = _columns(path)
        entries = columns if columns is not None else ((line.number, line.value) for line in read_lines(path))
        for number, content in entries:
            if not isinstance(content, dict):
                raise DataError(f"{path}:{number}: row: is no JSON object; write one object an item with {SHAPES}")
            yield _Line(path, number, content)
    except LinesError as error:
        raise DataError(str(error)) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give a file of rewards") from error


def _columns(path: Path) -> list[tuple[int, dict[str, Any]]] | None:
    """The items of a file that is one object of parallel columns; None for a file of another form."""
    try:
        whole = read_json(path)
    except LinesError:
        return None
    if not isinstance(whole, dict) or not (isinstance(whole.get("id"), list) and isinstance(whole.get("scores"), list)):
        return None
    columns = {name: values for name, values in whole.items() if isinstance(values, list)}
    lengths = {name: len(values) for name, values in columns.items()}
    odd = next((name for name, length in lengths.items() if length != lengths["id"]), None)
    if odd is not None:
        raise DataError(f"{path}: {odd}: has {lengths[odd]} entries beside {lengths['id']} of id; give columns of one length")
    names = [name for name in columns if name not in OF_NO_ITEM]
    return [(place, {name: columns[name][place - 1] for name in names}) for place in range(1, lengths["id"] + 1)]


def _item(line: _Line, benchmark: ScoredBenchmark) -> ScoredPreference:
    row = line.content
    if "chosen_rewards" in row or "rejected_rewards" in row:
        keys = ("chosen_rewards", "rejected_rewards")
        chosen, rejected = (_rewards(line, key) for key in keys)
    elif "score_chosen" in row or "score_rejected" in row:
        keys = ("score_chosen", "score_rejected")
        chosen, rejected = (_rewards(line, key) for key in keys)
    elif "scores" in row or "rewards" in row:
        keys = ("num_correct", "num_correct")
        chosen, rejected = _flat(line, "scores" if "scores" in row else "rewards")
    else:
        line.refuse("row", f"holds no rewards; give {SHAPES}")
    for key, side in zip(keys, (chosen, rejected), strict=True):
        if not side:
            line.refuse(key, "leaves a side without rewards; each item needs chosen and rejected ones")
        if benchmark == "rmbench" and len(side) != 3:
            line.refuse(key, f"gives {len(side)} rewards to a side; RM-Bench has 3 chosen and 3 rejected")
    subset = _label(line, benchmark)
    return ScoredPreference(id=_identifier(line, subset), subset=subset, chosen_rewards=chosen, rejected_rewards=rejected)


def _flat(line: _Line, key: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    rewards = _rewards(line, key)
    correct = line.content.get("num_correct")
    if isinstance(correct, bool) or not isinstance(correct, int) or not 0 < correct < len(rewards):
        line.refuse("num_correct", f"is {correct!r} beside {len(rewards)} rewards; give a whole number from 1 to {len(rewards) - 1}")
    stated = {"total_completions": len(rewards), "num_incorrect": len(rewards) - correct}
    for name, actual in stated.items():
        if line.content.get(name, actual) != actual:
            line.refuse(name, f"is {line.content[name]!r} but there are {actual}; score every completion once")
    return rewards[:correct], rewards[correct:]


def _rewards(line: _Line, key: str) -> tuple[float, ...]:
    values = line.content.get(key)
    if not isinstance(values, list):
        line.refuse(key, f"is {'missing' if values is None else 'not a list'}; give the rewards as a list of numbers")
    return tuple(_reward(line, f"{key}.{position}", value) for position, value in enumerate(values))


def _reward(line: _Line, key: str, value: Any) -> float:
    # A row of an (n, 1) logit array: [[1.5], [0.2]].
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        line.refuse(key, f"is {'null' if value is None else repr(value)[:60]}; a reward is a number, so score this completion again")
    try:
        number = float(value)
    except OverflowError:
        line.refuse(key, "is too large for a float; score this completion again")
    if math.isnan(number):
        line.refuse(key, "is NaN; score this completion again (a half-precision overflow is the usual cause)")
    return number


def _label(line: _Line, benchmark: ScoredBenchmark) -> str:
    """The subset or domain. RM-Bench's per-domain files name none in any item (their `subset` is something else)."""
    if benchmark == "rewardbench2":
        label = line.content.get("subset")
        if not isinstance(label, str) or not label:
            line.refuse("subset", f"is {label!r}; give the item's subset, for example 'Math'")
        return label
    label = line.content.get("domain")
    if label is None:
        ours = line.content.get("subset") if "chosen_rewards" in line.content else None
        return ours if isinstance(ours, str) else ""
    if not isinstance(label, str):
        line.refuse("domain", f"is {label!r}; give {', '.join(RMBENCH_DOMAINS)}, or leave it out of every item")
    return label


def _identifier(line: _Line, subset: str) -> str:
    value = line.content.get("id")
    if isinstance(value, (str, int)) and not isinstance(value, bool) and value != "":
        kind, _, number = str(value).partition(":")
        if subset == "Ties" and not (kind and number.isdigit()):
            line.refuse("id", f"{value!r} is not 'ref:N' or 'tied:N'; a Ties row needs one of these")
        return str(value)
    if value is None and "score_chosen" in line.content:
        return ""
    line.refuse("id", f"is {'missing' if value is None else repr(value)}; give each item its published id")
