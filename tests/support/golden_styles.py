"""RM-Bench results of the goldens, checked against ours: the official file and the authors' copy of the function have one shape."""

from __future__ import annotations

import pytest
from golden_scores import Case, assert_close, number

from sarm.data.preferences import ScoredPreference
from sarm.metrics.credits import ScoringError
from sarm.metrics.rmbench import rmbench_scores

NAMES = {"hard_acc": "hard", "normal_acc": "normal", "easy_acc": "easy", "total_avg_acc": "Overall"}


def check_rmbench(results: list[Case], expected: Case) -> None:
    """Domains, difficulties and total; the first item decides whether the file has domains."""
    items = rmbench_items(results, with_domain=bool(results) and "domain" in results[0])
    if "error" in expected:
        with pytest.raises(ScoringError):
            rmbench_scores(items, nan="count").require("Overall")
        return
    scores = rmbench_scores(items, nan="count")
    for key, value in expected.items():
        if key != "per_domain":
            assert_close(scores.require(NAMES.get(key, key)).value, value, key)
    for domain, accuracies in expected.get("per_domain", {}).items():
        for key, value in accuracies.items():
            assert_close(scores.require(f"{domain}/{NAMES[key]}").value, value, f"{domain} {key}")


def rmbench_items(results: list[Case], *, with_domain: bool) -> list[ScoredPreference]:
    """Results in our shape."""
    return [
        ScoredPreference(
            id=str(position),
            subset=result["domain"] if with_domain else "",
            chosen_rewards=tuple(number(score) for score in result["score_chosen"]),
            rejected_rewards=tuple(number(score) for score in result["score_rejected"]),
        )
        for position, result in enumerate(results)
    ]
