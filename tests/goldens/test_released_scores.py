"""The authors' copies of the benchmarks' scoring functions, in `sarm/eval_scores.json`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from golden_files import each, read
from golden_scores import Case, assert_close, number, scores_of
from golden_styles import check_rmbench

from sarm.metrics.credits import split_scores
from sarm.metrics.rewardbench2 import best_of_n_credits
from sarm.metrics.rmbench import style_credits
from sarm.metrics.ties import TiesRow, ties_score


def check_rm_bench(block: Case) -> None:
    """With and without domains; one-element lists change nothing."""
    check_rmbench(block["inputs"], block["output"])
    plain = [{key: value for key, value in item.items() if key != "domain"} for item in block["inputs"]]
    check_rmbench(plain, block["output_without_domain"])
    for item in block["inputs"]:
        chosen, rejected = ([number(score) for score in item[key]] for key in ("score_chosen", "score_rejected"))
        assert style_credits([[score] for score in chosen], [[score] for score in rejected]) == style_credits(chosen, rejected)


def check_ties(block: Case) -> None:
    rows = [TiesRow(row["id"], row["num_correct"], scores_of(row, nested=False)) for row in block["inputs"]]
    assert_close(ties_score(rows).overall, block["overall_score"], "overall_score")


def check_best_of_n(block: Case) -> None:
    credits = best_of_n_credits(split_scores([number(score) for score in block["scores"]], block["total_completions"]))
    assert len(credits) == len(block["results"])
    for position, (ours, theirs) in enumerate(zip(credits, block["results"], strict=True)):
        assert_close(ours, theirs, f"credit {position}")


CHECKS: dict[str, Callable[[Case], None]] = {"rm_bench": check_rm_bench, "rb2_ties": check_ties, "rb2_best_of_n": check_best_of_n}


@pytest.mark.parametrize("name", each("sarm/eval_scores.json", read))
def test_benchmark_scores_equal_the_released_code(name: str) -> None:
    assert name in CHECKS, f"unknown golden block {name!r}; add a check"
    CHECKS[name](read("sarm/eval_scores.json")[name])
