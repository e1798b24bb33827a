"""Files of rewards in three shapes, and the one line with which a broken one is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from replication.report.results.score_files import ScoredBenchmark, read_rewards, score_file
from sarm.data.preferences import DataError, ScoredPreference
from sarm.metrics.rewardbench2 import REWARDBENCH2_SUBSETS
from sarm.store.json_lines import write_lines

Row = dict[str, Any]


def written(folder: Path, *rows: Row | str) -> Path:
    path = folder / "rewards.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8")
    return path


def flat(**changes: Any) -> Row:
    return {"id": "0", "subset": "Math", "num_correct": 1, "scores": [2.0, 1.0, 0.5, 0.25], **changes}


def styled(**changes: Any) -> Row:
    return {"score_chosen": [3.0, 3.0, 3.0], "score_rejected": [1.0, 2.0, 4.0], "domain": "chat", **changes}


def test_our_own_file_is_scored(tmp_path: Path) -> None:
    items = [ScoredPreference(id=str(at), subset="Math", chosen_rewards=(1.0,), rejected_rewards=(float(at),)) for at in range(3)]
    path = tmp_path / "rewards.jsonl"
    write_lines(path, items)
    assert score_file(path, "rewardbench2").scores.metrics["Math"].correct == 1.5


def test_a_whole_benchmark_in_the_flat_shape_gives_overall(tmp_path: Path) -> None:
    rows = [flat(id=str(at), subset=subset) for subset in REWARDBENCH2_SUBSETS[:5] for at in range(2)]
    rows += [flat(id=f"{kind}:0", subset="Ties", num_correct=count) for kind, count in (("ref", 1), ("tied", 2))]
    assert score_file(written(tmp_path, *rows), "rewardbench2").scores.require("Overall").value > 0.8


def test_rewards_may_be_nested_and_counts_stated(tmp_path: Path) -> None:
    row = flat(rewards=[[2.0], [1.0], [0.0]], num_correct=2, total_completions=3, num_incorrect=1)
    del row["scores"]
    (item,) = read_rewards(written(tmp_path, row), "rewardbench2")
    assert (item.chosen_rewards, item.rejected_rewards) == ((2.0, 1.0), (0.0,))


def test_rmbench_results_are_a_list_or_lines_with_or_without_domains(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps([styled(), styled(domain="code")], indent=1), encoding="utf-8")
    scores = score_file(path, "rmbench").scores
    assert scores.metrics["chat/easy"].value == 1.0 and "Overall" in scores.missing
    plain = {key: value for key, value in styled(subset="alpacaeval").items() if key != "domain"}
    assert set(score_file(written(tmp_path, plain, plain), "rmbench").scores.metrics) == {"hard", "normal", "easy"}


def test_unknown_labels_are_counted(tmp_path: Path) -> None:
    assert score_file(written(tmp_path, styled(), styled(domain="poetry")), "rmbench").scores.unknown == {"poetry": 1}


def test_ties_rows_may_share_an_id(tmp_path: Path) -> None:
    rows = [flat(id="tied:0", subset="Ties", num_correct=2)] * 2 + [flat(id="ref:0", subset="Ties")]
    assert score_file(written(tmp_path, *rows), "rewardbench2").scores.metrics["Ties"].n == 3


BROKEN: list[tuple[str, Row | str, ScoredBenchmark, str]] = [
    ("NaN", flat(scores=[float("nan"), 1.0]), "rewardbench2", "scores.0: is NaN"),
    ("null", flat(scores=[1.0, None]), "rewardbench2", "scores.1: is null"),
    ("text", flat(scores=[1.0, "0.5"]), "rewardbench2", "scores.1: is '0.5'"),
    ("truth", flat(scores=[1.0, True]), "rewardbench2", "scores.1: is True"),
    ("two labels", flat(scores=[[1.0, 2.0], [0.0, 1.0]]), "rewardbench2", r"scores.0: is \[1.0, 2.0\]"),
    (
        "huge",
        '{"id": "0", "subset": "Math", "num_correct": 1, "scores": [1' + "0" * 400 + ", 0]}",
        "rewardbench2",
        "scores.0: is too large",
    ),
    ("no list", flat(scores=1.0), "rewardbench2", "scores: is not a list"),
    ("no id", flat(id=None), "rewardbench2", "id: is missing"),
    ("ties id", flat(subset="Ties"), "rewardbench2", "id: '0' is not"),
    ("no subset", flat(subset=None), "rewardbench2", "subset: is None"),
    ("no count", flat(num_correct=None), "rewardbench2", "num_correct: is None"),
    ("count too large", flat(num_correct=4), "rewardbench2", "num_correct: is 4 beside 4"),
    ("count as text", flat(num_correct="1"), "rewardbench2", "num_correct: is '1'"),
    ("wrong total", flat(total_completions=5), "rewardbench2", "total_completions: is 5 but there are 4"),
    ("one side", {"id": "0", "subset": "Math", "chosen_rewards": [1.0]}, "rewardbench2", "rejected_rewards: is missing"),
    (
        "empty side",
        {"id": "0", "subset": "Math", "chosen_rewards": [], "rejected_rewards": [1.0]},
        "rewardbench2",
        "chosen_rewards: leaves",
    ),
    ("no rewards", {"id": "0", "subset": "Math"}, "rewardbench2", "row: holds no rewards"),
    ("no object", "[1.0]"[1:4], "rewardbench2", "row: is no JSON object"),
    ("no JSON", "{'id': 0}", "rewardbench2", "is no JSON"),
    ("two styles", styled(score_chosen=[1.0, 2.0]), "rmbench", "score_chosen: gives 2"),
    ("domain as number", styled(domain=3), "rmbench", "domain: is 3"),
    ("id as list", styled(id=[3]), "rmbench", "id: is"),
]


@pytest.mark.parametrize(("row", "benchmark", "message"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_a_broken_item_is_refused_in_one_line_with_file_line_and_key(
    tmp_path: Path, row: Row | str, benchmark: ScoredBenchmark, message: str
) -> None:
    good = flat(id="good") if benchmark == "rewardbench2" else styled()
    path = written(tmp_path, good, row)
    with pytest.raises(DataError, match=message) as caught:
        score_file(path, benchmark)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_one_object_is_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "whole.json"
    path.write_text('{"items": [\n{"id": "a"}\n], "model": "m"}', encoding="utf-8")
    with pytest.raises(DataError, match=r"whole\.json: is one JSON object \(keys: items, model\); write one object an item, one a line"):
        score_file(path, "rewardbench2")


SIDED = {"id": "0", "subset": "Math", "chosen_rewards": [2.0], "rejected_rewards": [1.0, 0.5, 0.25]}
STYLED = {"score_chosen": [2.0], "score_rejected": [1.0, 0.5, 0.25]}
SAME_TWICE: dict[str, Row] = {
    "sides and scores": {**SIDED, **flat()},
    "sides and scores without a count": {**SIDED, "scores": [2.0, 1.0, 0.5, 0.25]},
    "sides and nested rewards": {**SIDED, "num_correct": 1, "rewards": [[2], [1], [0.5], [0.25]]},
    "two kinds of sides": {**SIDED, **STYLED},
    "scores and rewards": flat(rewards=[2, 1, 0.5, 0.25]),
    "the other form is null": {**SIDED, "scores": None, "num_correct": None},
    "counts are NaN, as data frames have them": {**SIDED, "num_correct": float("nan"), "total_completions": float("nan")},
    "the other form is of texts": {**SIDED, "scores": ["good", "bad"]},
    "the other form is of objects": flat(rewards=[{"helpful": 3}, {"helpful": 1}]),
    "the first form is of objects": flat(scores=[{"helpful": 3}, {"helpful": 1}], rewards=[2.0, 1.0, 0.5, 0.25]),
    "the other form is one number": {**SIDED, "rewards": 0.5},
}


@pytest.mark.parametrize("row", SAME_TWICE.values(), ids=SAME_TWICE)
def test_rewards_may_be_said_twice_alike(tmp_path: Path, row: Row) -> None:
    (item,) = read_rewards(written(tmp_path, row), "rewardbench2")
    assert (item.chosen_rewards, item.rejected_rewards) == ((2.0,), (1.0, 0.5, 0.25))


SAID_OTHERWISE: dict[str, tuple[Row, ScoredBenchmark, str]] = {
    "sides and scores": ({**SIDED, **flat(scores=[1.0, 2.0, 0.5, 0.25])}, "rewardbench2", "scores: says other rewards than chosen_rewards"),
    "sides and scores of another count": ({**SIDED, **flat(num_correct=2)}, "rewardbench2", "scores: says other rewards"),
    "sides and rewards without a count": ({**SIDED, "rewards": [0.0, 1.0]}, "rewardbench2", "rewards: says other rewards"),
    "two kinds of sides": ({**SIDED, **STYLED, "score_chosen": [0.0]}, "rewardbench2", "score_chosen: says other rewards"),
    "scores and rewards": (flat(rewards=[0.0, 1.0, 1.0, 1.0]), "rewardbench2", "rewards: says other rewards than scores"),
    "half a form": ({**SIDED, "score_rejected": [1.0, 0.5, 0.25]}, "rewardbench2", "score_chosen: is missing"),
    "a null in the other form": ({**SIDED, "scores": [2.0, 1.0, 0.5, None]}, "rewardbench2", "scores.3: is null"),
    "a null in the first form": ({**SIDED, "chosen_rewards": [None], "scores": [2.0, 1.0]}, "rewardbench2", "chosen_rewards.0: is null"),
    "of RM-Bench": ({**styled(), "rewards": [3.0, 3.0, 3.0, 1.0, 2.0, 5.0]}, "rmbench", "rewards: says other rewards than score_chosen"),
    "sides and a count": ({**SIDED, "num_correct": 2}, "rewardbench2", "num_correct: is 2 but there are 1"),
    "sides and a total": ({**SIDED, "total_completions": 5}, "rewardbench2", "total_completions: is 5 but there are 4"),
}


@pytest.mark.parametrize(("row", "benchmark", "said"), SAID_OTHERWISE.values(), ids=SAID_OTHERWISE)
def test_neither_of_two_forms_is_taken_where_they_say_different_rewards(
    tmp_path: Path, row: Row, benchmark: ScoredBenchmark, said: str
) -> None:
    with pytest.raises(DataError, match=f":1: {said}") as caught:
        score_file(written(tmp_path, row), benchmark)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["reference:1", "Ref:1", "REF:1", "tie:1", "tied:", ":1", "tied:x", "tied:-1", "tied:²", "tied:1:2", 1])
def test_a_ties_row_is_ref_or_tied_and_nothing_that_would_be_scored_as_one(tmp_path: Path, name: object) -> None:
    with pytest.raises(DataError, match=r":1: id: .* is not 'ref:N' or 'tied:N'"):
        score_file(written(tmp_path, flat(id=name, subset="Ties")), "rewardbench2")


@pytest.mark.parametrize(("stated", "note"), [
    ((0.0, 1.0, 0.5), "1 items state by `results` another credit than their rewards give; first line 1, Math '0': 0.0, its rewards give 1"),
    ((1, True, 1.0), r"1 items state .* give \(1 of them exact ties, which .*\); first line 3, Focus '2': 1.0, its rewards give 0.5"),
    ((1.0, 0.333333, 10**400), "2 items state .*; first line 2, Math '1': 0.333333, its rewards give 1"),
    ((1.0, 1.0, 0.5), ""), ((1, True, 0.5004), ""), ((None, float("nan"), "right"), ""), (({}, [], 0.5), ""),
], ids=["wrong", "by older scripts", "two", "right", "whole and rounded", "nothing", "no credits"])  # fmt: skip
@pytest.mark.parametrize("columns", [True, False], ids=["columns", "lines"])
def test_results_that_the_rewards_deny_are_told(tmp_path: Path, stated: tuple[object, ...], note: str, columns: bool) -> None:
    rows = [flat(), flat(id="1"), flat(id="2", subset="Focus", scores=[1.0, 1.0, 0.0, 0.0]), flat(id="ref:0", subset="Ties")]
    results = [*stated, 0.25]
    path = written(tmp_path, *(row | {"results": said} for row, said in zip(rows, results, strict=True)))
    if columns:
        path.write_text(json.dumps({**official(rows), "results": results}), encoding="utf-8")
    found = score_file(path, "rewardbench2")
    assert found.scores.metrics["Math"].correct == 2.0
    assert len(found.notes) == bool(note) and all(re.match(note, one) for one in found.notes)


def test_completions_that_the_benchmark_has_not_are_counted_and_told(tmp_path: Path) -> None:
    rows = [flat(id=str(at), scores=[2.0, 1.0]) for at in range(3)]
    rows += [flat(id="3"), flat(id="4", num_correct=2), flat(id="a", subset="other", scores=[1.0, 0.0]), flat(id="ref:0", subset="Ties")]
    found = score_file(written(tmp_path, *rows), "rewardbench2")
    why = "the benchmark has 1 and 3, so this is not its number"
    assert found.notes == (
        f"3 items of Math have 1 right and 1 wrong completions; {why}", f"1 items of Math have 2 right and 2 wrong completions; {why}",
    )  # fmt: skip
    assert score_file(written(tmp_path, styled()), "rmbench").notes == ()


def test_rows_that_differ_in_results_alone_are_one_row_twice(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=":2: id: '0' of Math is already at line 1"):
        score_file(written(tmp_path, flat(results=1.0), flat(results=None)), "rewardbench2")


def test_a_row_that_is_there_twice_is_refused_and_an_id_alone_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r":2: id: '0' of Math is already at line 1"):
        score_file(written(tmp_path, flat(), flat()), "rewardbench2")
    found = score_file(written(tmp_path, flat(), flat(scores=[0.0, 1.0]), flat(text=["other"])), "rewardbench2")
    assert found.repeated_ids == 2 and found.scores.metrics["Math"].n == 3
    assert len(read_rewards(written(tmp_path, flat(), flat(subset="Focus")), "rewardbench2")) == 2


def official(rows: list[Row]) -> Row:
    """Rows as RewardBench 2's script writes them: parallel columns, each score a list of one number, results beside them."""
    columns = {name: [row[name] for row in rows] for name in ("id", "subset", "num_correct")}
    scores = [[[score] for score in row["scores"]] for row in rows]
    texts = [["text"] * len(row["scores"]) for row in rows]
    results = [None if row["subset"] == "Ties" else float(row["scores"][0] == max(row["scores"])) for row in rows]
    facts = {"model": "m", "model_type": "Seq. Classifier", "chat_template": None}
    return {**columns, "scores": scores, "text": texts, "results": results, **facts}


@pytest.mark.parametrize("indent", [None, 4], ids=["one line", "indented"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "with mark"])
def test_the_official_file_of_item_scores_gives_the_numbers_of_its_items(tmp_path: Path, indent: int | None, mark: str) -> None:
    rows = [flat(id=str(at), subset=subset, scores=[float(at), 0.5, 0.25, 0.0]) for subset in REWARDBENCH2_SUBSETS[:5] for at in range(3)]
    rows += [flat(id="1", subset="Factuality", scores=[0.0, 0.5, 0.25, 0.1])]
    rows += [flat(id=f"{kind}:{at}", subset="Ties", num_correct=count) for at in range(2) for kind, count in (("ref", 1), ("tied", 2))]
    path = tmp_path / "official.json"
    path.write_text(mark + json.dumps(official(rows), indent=indent), encoding="utf-8")
    found = score_file(path, "rewardbench2")
    assert found.scores.metrics == score_file(written(tmp_path, *rows), "rewardbench2").scores.metrics
    assert found.repeated_ids == 1 and found.scores.metrics["Factuality"].n == 4
    assert found.scores.metrics["Factuality"].correct == sum(official(rows)["results"][:3])


@pytest.mark.parametrize(("change", "said"), [
    ({"scores": [[[1.0]]]}, "scores: has 1 entries beside 2 of id"),
    ({"scores": [[[1.0], [None]], [[1.0], [0.0]]]}, ":1: scores.1: is null"),
    ({"num_correct": [1, 2]}, ":2: num_correct: is 2 beside 2"),
], ids=["length", "null", "count"])  # fmt: skip
def test_a_broken_official_file_is_refused_in_one_line(tmp_path: Path, change: Row, said: str) -> None:
    path = tmp_path / "official.json"
    rows = [flat(id=name, scores=[1.0, 0.0]) for name in "01"]
    path.write_text(json.dumps({**official(rows), **change}), encoding="utf-8")
    with pytest.raises(DataError, match=said) as caught:
        score_file(path, "rewardbench2")
    assert "\n" not in str(caught.value)


def test_missing_and_empty_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        score_file(tmp_path / "absent.jsonl", "rmbench")
    with pytest.raises(DataError, match="no items"):
        score_file(written(tmp_path), "rmbench")
    binary = tmp_path / "binary.jsonl"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="not UTF-8"):
        score_file(binary, "rmbench")


def test_what_scoring_refuses_names_the_file(tmp_path: Path) -> None:
    rows = [flat(id="tied:0", subset="Ties"), flat(id="ref:0", subset="Ties")]
    with pytest.raises(DataError, match=r"rewards\.jsonl: Ties row 'tied:0' has one correct answer"):
        score_file(written(tmp_path, *rows), "rewardbench2")
