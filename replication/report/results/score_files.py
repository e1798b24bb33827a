"""A file of per-item rewards, from us or from anyone, to metrics: for `replicate score REWARDS --benchmark NAME`.

Shapes, one object an item, as JSONL or as one JSON list:
ours `{id, subset, chosen_rewards, rejected_rewards}`; flat `{id, subset, num_correct, scores | rewards}`, the correct ones
first; RM-Bench's `{score_chosen, score_rejected, domain}`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

from sarm.data.preferences import DataError, ScoredPreference
from sarm.metrics.credits import BenchmarkScores, ScoringError
from sarm.metrics.rewardbench2 import rewardbench2_scores
from sarm.metrics.rmbench import RMBENCH_DOMAINS, rmbench_scores

ScoredBenchmark = Literal["rewardbench2", "rmbench"]
SHAPES = "chosen_rewards and rejected_rewards; num_correct and scores; or score_chosen and score_rejected"


class _Line(NamedTuple):
    """An object of the file: what it holds and where it stands (its line, or its place in a JSON list)."""

    path: Path
    number: int
    content: Mapping[str, Any]

    def refuse(self, key: str, problem: str) -> NoReturn:
        """Raise DataError with file, line and key."""
        raise DataError(f"{self.path}:{self.number}: {key}: {problem}")


def score_file(path: Path, benchmark: ScoredBenchmark) -> BenchmarkScores:
    """Metrics of a file of rewards. Raises DataError in one line: file, line, key, what is wrong and the next step."""
    items = read_rewards(path, benchmark)
    try:
        return rewardbench2_scores(items) if benchmark == "rewardbench2" else rmbench_scores(items)
    except ScoringError as error:
        raise DataError(f"{path}: {error}") from error


def read_rewards(path: Path, benchmark: ScoredBenchmark) -> list[ScoredPreference]:
    """Items in the file's order, checked.

    Raises DataError for NaN, null or text where a reward belongs, counts that do not fit, a missing id, an id that is there
    twice (Ties rows may share one: they are pooled), and an empty file. Infinite rewards are taken as they are.
    """
    items: list[ScoredPreference] = []
    seen: dict[tuple[str, str], int] = {}
    for line in _lines(path):
        item = _item(line, benchmark)
        if item.id and item.subset != "Ties":
            first = seen.setdefault((item.subset, item.id), line.number)
            if first != line.number:
                line.refuse("id", f"{item.id!r} of {item.subset or 'the file'} is already at line {first}; give each item its own id")
        items.append(item)
    if not items:
        raise DataError(f"{path}: no items; write one JSON object a line")
    return items


def _lines(path: Path) -> Iterator[_Line]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise DataError(
            f"{path}: cannot be read ({getattr(error, 'strerror', None) or 'not UTF-8'}); give a JSONL file of rewards"
        ) from error
    entries: Iterable[tuple[int, Any]]
    if text.lstrip().startswith("["):
        entries = enumerate(_parsed(path, 1, text), start=1)
    else:
        entries = ((number, _parsed(path, number, line)) for number, line in enumerate(text.split("\n"), start=1) if line.strip())
    for number, content in entries:
        if not isinstance(content, dict):
            raise DataError(f"{path}:{number}: row: is no JSON object; write one object an item with {SHAPES}")
        yield _Line(path, number, content)


def _parsed(path: Path, number: int, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{number + error.lineno - 1}: row: {error.msg}; mend the JSON") from error


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
