"""A file of per-item rewards, from us or from anyone, to metrics: for `replicate score REWARDS --benchmark NAME`.

Shapes, one object an item, as JSONL or as one JSON list:
ours `{id, subset, chosen_rewards, rejected_rewards}`; flat `{id, subset, num_correct, scores | rewards}`, the correct ones
first; RM-Bench's `{score_chosen, score_rejected, domain}`. Or RewardBench 2's own file of item scores: one object of parallel columns
(`id`, `subset`, `num_correct`, `scores`, `results`, `text`) beside facts of the run (`model`, `model_type`, `chat_template`).
A row says its rewards once, or the same twice. `results`, what the official script made of them, is compared and never scored.
Source: scripts/run_v2.py of allenai/reward-bench @ 05a9005.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

from sarm.data.preferences import DataError, ScoredPreference
from sarm.job import printable
from sarm.metrics.credits import BenchmarkScores, ScoringError
from sarm.metrics.rewardbench2 import REWARDBENCH2_SUBSETS, best_of_n_credits, rewardbench2_scores
from sarm.metrics.rmbench import RMBENCH_DOMAINS, rmbench_scores
from sarm.store.json_lines import LinesError, read_json, read_lines

ScoredBenchmark = Literal["rewardbench2", "rmbench"]
# Columns of the official file that are facts of the run, and would make equal rows look different.
OF_NO_ITEM = ("model", "model_type", "chat_template")
# What follows from the rewards.
RESULTS = "results"
# Keys of the better and the worse rewards; in a flat row the same list holds both.
FORMS = (("chosen_rewards", "rejected_rewards"), ("score_chosen", "score_rejected"), ("scores", "scores"), ("rewards", "rewards"))
# How many right and wrong completions each item of RewardBench 2 has, outside Ties. Source: its dataset card.
BEST_OF = (1, 3)
TIES_ID = re.compile(r"(ref|tied):[0-9]+")
SHAPES = "chosen_rewards and rejected_rewards; num_correct and scores; or score_chosen and score_rejected"


class _Line(NamedTuple):
    """An object of the file: what it holds and where it stands (its line, or its place in a JSON list)."""

    path: Path
    number: int
    content: Mapping[str, Any]

    def same_item(self, other: _Line) -> bool:
        """Whether all is equal but what was made of it."""
        return _without_results(self.content) == _without_results(other.content)

    def refuse(self, key: str, problem: str) -> NoReturn:
        """Raise DataError with file, line and key."""
        raise DataError(f"{self.path}:{self.number}: {key}: {problem}")


def _without_results(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != RESULTS}


Sides = tuple[tuple[float, ...], tuple[float, ...]]


class FileScores(NamedTuple):
    """Metrics of a file of rewards, how many of its items have an id that another has, and what else is odd about it, a line each."""

    scores: BenchmarkScores
    repeated_ids: int
    notes: tuple[str, ...] = ()


class RewardsRead(NamedTuple):
    """Items in the file's order, and what is odd about them, a line each."""

    items: list[ScoredPreference]
    notes: tuple[str, ...]


def score_file(path: Path, benchmark: ScoredBenchmark) -> FileScores:
    """Metrics of a file of rewards. Raises DataError in one line: file, line, key, what is wrong and the next step."""
    items, notes = read_noted(path, benchmark)
    try:
        found = rewardbench2_scores(items) if benchmark == "rewardbench2" else rmbench_scores(items)
        return FileScores(found, repeated_ids(items), notes)
    except ScoringError as error:
        raise DataError(f"{path}: {error}") from error


def read_rewards(path: Path, benchmark: ScoredBenchmark) -> list[ScoredPreference]:
    """Items in the file's order, checked. Raises DataError as `read_noted`."""
    return read_noted(path, benchmark).items


def read_noted(path: Path, benchmark: ScoredBenchmark) -> RewardsRead:
    """Items in the file's order, checked, and notes: counts of completions that the benchmark has not, `results` that the rewards deny.

    Raises DataError for NaN, null or text where a reward belongs, two forms of rewards in a row that say different ones, counts that do not
    fit, a missing id, a row that is there twice (Ties rows may share an id: they are pooled), and an empty file. Infinite rewards are taken
    as they are. Published data repeat ids (`repeated_ids`), which only Ties reads.
    """
    items: list[ScoredPreference] = []
    seen: dict[tuple[str, str], list[_Line]] = {}
    stated: list[tuple[_Line, ScoredPreference]] = []
    for line in _lines(path):
        item = _item(line, benchmark)
        if item.id and item.subset != "Ties":
            earlier = seen.setdefault((item.subset, item.id), [])
            same = next((one for one in earlier if one.same_item(line)), None)
            if same is not None:
                line.refuse("id", f"{item.id!r} of {item.subset or 'the file'} is already at line {same.number}; give each row once")
            earlier.append(line)
        if not _is_nothing(line.content.get(RESULTS)):
            stated.append((line, item))
        items.append(item)
    if not items:
        raise DataError(f"{path}: no items; write one JSON object a line")
    return RewardsRead(items, (*_other_counts(items), *_denied(stated)) if benchmark == "rewardbench2" else ())


def _other_counts(items: Iterable[ScoredPreference]) -> Iterator[str]:
    """Among fewer completions the right one is above all others more easily, so a number of such items is another than the official one."""
    best_of_n = [item for item in items if item.subset in REWARDBENCH2_SUBSETS and item.subset != "Ties"]
    found = Counter((item.subset, len(item.chosen_rewards), len(item.rejected_rewards)) for item in best_of_n)
    for (subset, right, wrong), count in found.items():
        if (right, wrong) != BEST_OF:
            official = f"the benchmark has {BEST_OF[0]} and {BEST_OF[1]}, so this is not its number"
            yield f"{count:,} items of {subset} have {right} right and {wrong} wrong completions; {official}"


def _denied(stated: Iterable[tuple[_Line, ScoredPreference]]) -> Iterator[str]:
    """Items whose `results` are another credit than the official one of their rewards."""
    found = []
    for line, item in stated:
        said = line.content[RESULTS]
        if item.subset == "Ties" or item.subset not in REWARDBENCH2_SUBSETS or not isinstance(said, (int, float)):
            continue
        (credit,) = best_of_n_credits([item.chosen_rewards + item.rejected_rewards])
        # A third is printed with as many digits as a tool likes.
        if not credit - 0.001 <= said <= credit + 0.001:
            found.append((f"line {line.number}, {item.subset} {item.id!r}: {said!s:.20}, its rewards give {credit:.3g}", 0 < credit < 1))
    if found:
        ties = sum(tied for _, tied in found)
        older = f" ({ties:,} of them exact ties, which scripts of before June 2025 credit otherwise)" if ties else ""
        said = f"{len(found):,} items state by `results` another credit than their rewards give{older}"
        yield f"{said}; first {found[0][0]}; the rewards are scored"


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
        whole = _object(path)
        if whole is not None:
            keys = ", ".join(printable(str(key)) for key in list(whole)[:5]) or "none"
            raise DataError(f"{path}: is one JSON object (keys: {keys}); write one object an item, one a line, with {SHAPES}") from error
        raise DataError(str(error)) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give a file of rewards") from error


def _object(path: Path) -> dict[str, Any] | None:
    """The whole file where it is one JSON object."""
    try:
        whole = read_json(path)
    except LinesError:
        return None
    return whole if isinstance(whole, dict) else None


def _columns(path: Path) -> list[tuple[int, dict[str, Any]]] | None:
    """The items of a file that is one object of parallel columns; None for a file of another form."""
    whole = _object(path)
    if whole is None or not (isinstance(whole.get("id"), list) and isinstance(whole.get("scores"), list)):
        return None
    columns = {name: values for name, values in whole.items() if isinstance(values, list)}
    lengths = {name: len(values) for name, values in columns.items()}
    odd = next((name for name, length in lengths.items() if length != lengths["id"]), None)
    if odd is not None:
        raise DataError(f"{path}: {odd}: has {lengths[odd]} entries beside {lengths['id']} of id; give columns of one length")
    names = [name for name in columns if name not in OF_NO_ITEM]
    return [(place, {name: columns[name][place - 1] for name in names}) for place in range(1, lengths["id"] + 1)]


def _item(line: _Line, benchmark: ScoredBenchmark) -> ScoredPreference:
    keys, (chosen, rejected) = _sides(line)
    for key, side in zip(keys, (chosen, rejected), strict=True):
        if not side:
            line.refuse(key, "leaves a side without rewards; each item needs chosen and rejected ones")
        if benchmark == "rmbench" and len(side) != 3:
            line.refuse(key, f"gives {len(side)} rewards to a side; RM-Bench has 3 chosen and 3 rejected")
    if benchmark == "rewardbench2":
        _refuse_other_counts(line, len(chosen), len(rejected))
    subset = _label(line, benchmark)
    return ScoredPreference(id=_identifier(line, subset), subset=subset, chosen_rewards=chosen, rejected_rewards=rejected)


def _sides(line: _Line) -> tuple[tuple[str, str], Sides]:
    """The rewards of a row and the keys that say how many are of which side. Refuses two forms that say different ones."""
    row = line.content
    present = [keys for keys in FORMS if any(key in row for key in keys)]
    lists = [keys for keys in present if any(isinstance(row.get(key), list) for key in keys)]
    # Where none can be rewards, the first is refused below.
    forms = [keys for keys in lists if _may_be_rewards(row, keys)] or lists or present
    if not forms:
        line.refuse("row", f"holds no rewards; give {SHAPES}")
    first, *others = forms
    sides = _form(line, first)
    for keys in others:
        if _form(line, keys, beside=sides) != sides:
            line.refuse(keys[0], f"says other rewards than {first[0]} of the same row; give one of the two forms")
    return (("num_correct", "num_correct") if first[0] == first[1] else first), sides


def _may_be_rewards(row: Mapping[str, Any], keys: tuple[str, str]) -> bool:
    """Other tools have lists of texts or objects under such names (ratings by aspect)."""
    values = [value for key in keys if isinstance(row.get(key), list) for value in row[key]]
    others = [isinstance(value, (str, dict)) or (isinstance(value, list) and len(value) != 1) for value in values]
    return not others or not all(others)


def _form(line: _Line, keys: tuple[str, str], *, beside: Sides | None = None) -> Sides:
    """The rewards that one form gives. A flat one without a count, beside another form, is cut as that one is."""
    if keys[0] != keys[1]:
        return _rewards(line, keys[0]), _rewards(line, keys[1])
    rewards = _rewards(line, keys[0])
    correct = line.content.get("num_correct")
    if beside is not None and correct is None:
        correct = len(beside[0])
    elif isinstance(correct, bool) or not isinstance(correct, int) or not 0 < correct < len(rewards):
        line.refuse("num_correct", f"is {correct!r} beside {len(rewards)} rewards; give a whole number from 1 to {len(rewards) - 1}")
    return rewards[:correct], rewards[correct:]


def _refuse_other_counts(line: _Line, right: int, wrong: int) -> None:
    """Refuses counts of the benchmark that say other sides than the rewards."""
    for name, actual in {"num_correct": right, "num_incorrect": wrong, "total_completions": right + wrong}.items():
        said = line.content.get(name)
        if not _is_nothing(said) and said != actual:
            line.refuse(name, f"is {said!r} but there are {actual}; score every completion once")


def _is_nothing(value: object) -> bool:
    """None, or NaN, with which data frames fill in what a row lacks."""
    return value is None or (isinstance(value, float) and math.isnan(value))


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
        # The official script takes any other kind for "tied", so a reference by another name would be scored as one of the answers.
        if subset == "Ties" and TIES_ID.fullmatch(str(value)) is None:
            line.refuse("id", f"{value!r} is not 'ref:N' or 'tied:N'; a Ties row needs one of these")
        return str(value)
    if value is None and "score_chosen" in line.content:
        return ""
    line.refuse("id", f"is {'missing' if value is None else repr(value)}; give each item its published id")
