"""RM-Bench: style credits, domains and difficulties on small cases by hand."""

from __future__ import annotations

import pytest
from scored_items import rmbench_item

from sarm.metrics.credits import ScoringError
from sarm.metrics.rmbench import rmbench_scores, style_credits


def test_style_credits_of_one_item_by_hand() -> None:
    credits = style_credits([0.0, 2.0, 1.0], [0.0, 1.0, 1.0])
    # Rows chosen: [=, <, <], [>, >, >], [>, =, =].
    assert credits.wins == pytest.approx((1 / 3, 1 / 3, 2 / 3))
    assert credits.ties == (0, 2, 1)


def test_an_rmbench_item_needs_three_and_three() -> None:
    with pytest.raises(ScoringError, match="2 chosen and 3 rejected"):
        style_credits([1.0, 2.0], [0.0, 0.0, 0.0])


def test_rmbench_pools_the_safety_domains_and_averages_four() -> None:
    domains = ("chat", "math", "code", "safety-refuse", "safety-response")
    scores = rmbench_scores([rmbench_item(domain, str(at)) for at, domain in enumerate(domains)])
    assert scores.metrics["safety"].n == 2
    assert scores.require("Overall").value == pytest.approx(4 / 9)
    assert scores.require("easy").value == pytest.approx(2 / 3)
    assert scores.metrics["chat"].ties == 3


def test_a_part_of_rmbench_gives_its_domains_and_no_overall() -> None:
    scores = rmbench_scores([rmbench_item("chat"), rmbench_item("poetry")])
    assert scores.metrics["chat/hard"].value == pytest.approx(1 / 3)
    assert set(scores.missing) == {"math", "code", "safety", "hard", "normal", "easy", "Overall"}
    assert scores.unknown == {"poetry": 1}


def test_rmbench_without_domains_gives_difficulties_over_all_items() -> None:
    scores = rmbench_scores([rmbench_item(""), rmbench_item("")])
    assert set(scores.metrics) == {"hard", "normal", "easy"}
    with pytest.raises(ScoringError, match="1 of 2"):
        rmbench_scores([rmbench_item(""), rmbench_item("chat")])
