"""Two files of per-item rewards, item by item: official ones and ours, in every format, with repeated ids and items of one file alone."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scored_items import item, rmbench_item

from replication.report.results.reading import ResultsError
from replication.report.results.score_files import ScoredBenchmark, benchmark_of, read_rewards
from replication.report.statistics import rank_correlation
from replication.report.verdicts.item_formats import ItemsFormat, items_text
from replication.report.verdicts.items import ItemsDiff, items_diff, items_exit_code, margin, outcomes
from sarm.data.preferences import ScoredPreference
from sarm.metrics.rewardbench2 import best_of_n_credits
from sarm.store.json_lines import write_lines

OURS = [
    item("Math", (2.0,), (1.0, 0.5, 0.0), name="a"),
    item("Math", (2.0,), (1.0, 0.5, 0.0), name="b"),
    item("Math", (0.0,), (3.0, 0.5, 0.0), name="b"),
    item("Focus", (1.0,), (1.0, 0.5, 0.0), name="a"),
    item("Ties", (2.0,), (1.0,), name="ref:0"),
    item("Ties", (2.0, 1.5), (1.0,), name="tied:0"),
]
REWARDS = st.lists(st.sampled_from([-math.inf, -1.0, 0.0, 0.5, 1.0, math.inf]), min_size=4, max_size=4)


def compared(ours: list[ScoredPreference], theirs: list[ScoredPreference], benchmark: ScoredBenchmark = "rewardbench2") -> ItemsDiff:
    names = {"experiment": "table1", "row": "sarm-4b", "ours": "score/x", "against": "theirs.json"}
    return items_diff(ours, theirs, benchmark=benchmark, names=names)  # type: ignore[arg-type]


def changed(number: int, chosen: tuple[float, ...], rejected: tuple[float, ...]) -> list[ScoredPreference]:
    one = OURS[number].model_copy(update={"chosen_rewards": chosen, "rejected_rewards": rejected})
    return [one if place == number else other for place, other in enumerate(OURS)]


def official(items: list[ScoredPreference]) -> dict[str, Any]:
    """RewardBench 2's own file of these items."""
    return {
        "id": [one.id for one in items], "subset": [one.subset for one in items], "num_correct": [len(one.chosen_rewards) for one in items],
        "scores": [[[reward] for reward in one.chosen_rewards + one.rejected_rewards] for one in items],
        "results": [None if one.subset == "Ties" else 1.0 for one in items], "text": [["x"] * 4 for _ in items],
        "model": "a/b", "model_type": "Seq. Classifier", "chat_template": "tokenizer",
    }  # fmt: skip


def test_the_same_rewards_agree_everywhere(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.json"
    theirs.write_text(json.dumps(official(OURS), indent=1))
    assert benchmark_of(theirs) == "rewardbench2"
    found = compared(OURS, read_rewards(theirs, "rewardbench2"))
    assert [(one.subset, one.items, one.agree, one.identical, one.correlation) for one in found.subsets] == [
        ("Math", 3, 3, 3, 1.0), ("Focus", 1, 1, 1, 1.0), ("Ties", 2, 2, 2, 1.0), ("all", 6, 6, 6, 1.0),
    ]  # fmt: skip
    assert found.differing == 0 and all(one.ours == one.theirs for one in found.numbers) and found.repeated_ids == (1, 1)
    assert {one.name for one in found.numbers} == {"Math", "Focus", "Ties"} and items_exit_code(found, ("differs", "missing")) == 0


@pytest.mark.parametrize(("number", "chosen", "rejected", "said"), [
    (0, (0.0,), (1.0, 0.5, 0.0), ("right", "wrong")), (0, (1.0,), (1.0, 0.5, 0.0), ("right", "tied")),
    (3, (2.0,), (1.0, 0.5, 0.0), ("tied", "right")),
    (5, (2.0, 0.5), (1.0,), ("right", "wrong")), (5, (2.0, 1.0), (1.0,), ("right", "tied")),
])  # fmt: skip
def test_an_outcome_that_differs_is_named(
    number: int, chosen: tuple[float, ...], rejected: tuple[float, ...], said: tuple[str, str]
) -> None:
    found = compared(OURS, changed(number, chosen, rejected))
    (one,) = found.differences
    assert (one.ours, one.theirs) == said and (one.subset, one.id) == (OURS[number].subset, OURS[number].id)
    assert found.subsets[-1].differ == 1 and items_exit_code(found, ("differs",)) == 3 and items_exit_code(found, ()) == 0


def test_a_repeated_id_is_matched_in_order() -> None:
    (one,) = compared(OURS, changed(2, (4.0,), (3.0, 0.5, 0.0))).differences
    assert (one.id, one.ours, one.theirs) == ("b#2", "wrong", "right")


def numbered(ids: list[int]) -> list[ScoredPreference]:
    """Items whose rewards tell them apart, under these ids."""
    return [item("Factuality", (float(place),), (0.5 + place % 2, -1.0, -2.0), name=str(name)) for place, name in enumerate(ids)]


def test_ids_that_repeat_in_one_file_alone_match_nothing_by_themselves() -> None:
    """The official files' mistake: the first ten items of Factuality are called 30 to 39 (allenai/reward-bench, issue 273)."""
    ours, theirs = numbered(list(range(60))), numbered([*range(30, 40), *range(10, 60)])
    found = compared(ours, theirs)
    assert (found.subsets[-1].items, found.subsets[-1].identical, found.only_ours, found.only_theirs) == (60, 60, (), ())
    assert found.by_order == ("Factuality",) and found.unsure == 0
    assert "Factuality: matched by order alone" in items_text(found, "text")
    # In another order, or with an item fewer, the order says nothing of the ids that repeat: they are left out, and told.
    for other in ([*theirs[:40], *theirs[40:][::-1]], theirs[:-1], [*theirs[10:], *theirs[:10]]):
        found = compared(ours, other)
        assert found.by_order == () and found.unsure == 10 and found.subsets[-1].identical == found.subsets[-1].items
        assert {f"Factuality {name}" for name in range(40)} - {f"Factuality {name}" for name in range(10, 30)} <= set(found.only_ours)
        assert "10 items of ours have an id that repeats differently" in items_text(found, "text")


def test_ids_that_all_repeat_differently_leave_nothing_to_compare() -> None:
    with pytest.raises(ResultsError, match="every id that score/x has too stands in the two files a different number of times"):
        compared(numbered([0, 0, 0]), numbered([0, 0]))


def test_an_order_is_believed_only_where_most_ids_confirm_it_and_nothing_denies_it() -> None:
    """One id that agrees by chance, two that are unlike at one place, or another number of completions, and the odd ids match nothing."""
    ours = numbered(list(range(30)))
    longer = numbered([7, *range(1, 30)])
    longer[0] = longer[0].model_copy(update={"rejected_rewards": (0.5, -1.0)})
    renamed = numbered([7, *range(1, 30)])
    renamed[1] = renamed[1].model_copy(update={"id": "new"})
    for theirs, known in ((numbered([7] * 29 + [29]), 1), (longer, 28), (renamed, 27)):
        found = compared(ours, theirs)
        assert found.by_order == () and found.unsure == 1 and found.subsets[-1].items == found.subsets[-1].identical == known


def test_another_order_of_the_file_changes_nothing_where_ids_are_unique() -> None:
    unique = [one for place, one in enumerate(OURS) if place != 2]
    assert compared(unique, unique[::-1]).subsets[-1].agree == 5


def test_items_of_one_file_alone_are_counted_and_named() -> None:
    found = compared(OURS[:5], [*OURS[1:], item("Math", (1.0,), (0.0,), name="new")])
    assert found.only_ours == ("Math a",) and found.only_theirs == ("Ties tied:0", "Math new") and found.subsets[-1].items == 4
    assert items_exit_code(found, ("differs", "missing")) == 5 and items_exit_code(found, ("differs",)) == 0


def test_other_data_are_refused() -> None:
    with pytest.raises(ResultsError, match="no item of score/x by subset and id") as none:
        compared(OURS, [item("Math", (1.0,), (0.0,), name="z")])
    with pytest.raises(ResultsError, match="Math a: has 1 right and 1 wrong completions, ours 1 and 3") as other:
        compared(OURS, changed(0, (1.0,), (0.0,)))
    assert none.value.exit_code == other.value.exit_code == 6


def test_the_worst_come_first_and_the_rest_is_counted() -> None:
    ours = [item("Math", (float(number + 1),), (0.0,), name=str(number)) for number in range(30)]
    theirs = [item("Math", (0.0,), (0.0 if number == 29 else 1.0,), name=str(number)) for number in range(30)]
    found = compared(ours, theirs)
    assert found.differing == 30 and found.differences[-1].id == "29", "a tie is half as far apart"
    text = items_text(found)
    assert "the worst 20 of 30 differences; all of them with --all" in text and "Math 29" not in text
    assert "Math 29" in items_text(found, everything=True) and "--all" not in items_text(found, everything=True)


def test_rmbench_compares_all_nine_and_takes_files_without_a_domain(tmp_path: Path) -> None:
    ours = [rmbench_item("chat"), rmbench_item("safety-refuse", "1")]
    rows = [{"id": one.id, "domain": one.subset, "score_chosen": [0.0, 2.0, 1.0], "score_rejected": [0.0, 1.0, 1.0]} for one in ours]
    rows[1] |= {"domain": "safety", "score_rejected": [0.0, 1.0, 3.0]}
    path = tmp_path / "theirs.json"
    for names in (("id", "domain"), ("id",)):
        theirs = [{name: value for name, value in row.items() if name in (*names, "score_chosen", "score_rejected")} for row in rows]
        path.write_text(json.dumps(theirs))
        assert benchmark_of(path) == "rmbench"
        found = compared(ours, read_rewards(path, "rmbench"), "rmbench")
        (one,) = found.differences
        assert (one.id, one.ours, one.theirs) == ("1", "4 of 9", "3 of 9") and found.subsets[-1].better_here == 1
        assert [part.subset for part in found.subsets] == (["chat", "safety", "all"] if "domain" in names else ["all"])


def test_ours_on_both_sides(tmp_path: Path) -> None:
    for benchmark, items in (("rewardbench2", OURS), ("rmbench", [rmbench_item("chat")])):
        write_lines(tmp_path / "ours.jsonl", items)
        assert benchmark_of(tmp_path / "ours.jsonl") == benchmark


@given(ours=REWARDS, theirs=REWARDS)
def test_outcomes_are_those_of_the_official_credit(ours: list[float], theirs: list[float]) -> None:
    both = [item("Math", (rewards[0],), tuple(rewards[1:])) for rewards in (ours, theirs)]
    for one, rewards in zip(both, (ours, theirs), strict=True):
        (credit,) = best_of_n_credits([rewards])
        assert outcomes(one, "rewardbench2") == ("right" if credit == 1 else "tied" if credit else "wrong",)
        assert not math.isnan(margin(one, "rewardbench2"))
    found = compared([both[0]], [both[1]])
    assert found.differing == int(outcomes(both[0], "rewardbench2") != outcomes(both[1], "rewardbench2"))
    forms: tuple[ItemsFormat, ...] = ("text", "md", "json", "github")
    assert all(items_text(found, form) for form in forms)


def test_github_and_markdown_escape_what_ids_hold() -> None:
    ours = [item("Math", (1.0,), (0.0,), name="a|b\n::error::%")]
    theirs = [item("Math", (0.0,), (1.0,), name="a|b\n::error::%")]
    found = compared(ours, theirs)
    (line,) = [one for one in items_text(found, "github").splitlines() if one.startswith("::")]
    assert line.startswith("::error title=DIFFERS%3A Math a|b%0A%3A%3Aerror%3A%3A%25::ours right, theirs wrong")
    assert json.loads(items_text(found, "json"))["differences"][0]["id"] == "a|b\n::error::%"
    assert "| Math a\\|b" in items_text(found, "md")


def test_ranks_correlate_or_are_not_defined() -> None:
    assert rank_correlation([1.0, 2.0, math.inf], [10.0, 20.0, 30.0]) == pytest.approx(1.0)
    assert rank_correlation([1.0, 1.0], [1.0, 2.0]) is None and rank_correlation([], []) is None
