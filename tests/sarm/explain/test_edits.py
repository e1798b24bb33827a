"""Accuracies after an edit are those that the benchmark's own metric gives for the edited rewards."""

from __future__ import annotations

import random
from typing import Literal

import fake_launcher
import pytest

from sarm.data.preferences import ScoredPreference
from sarm.explain.edits import EditedAccuracies, benchmark_scores
from sarm.metrics.credits import ScoringError

Name = Literal["rewardbench2", "rmbench", "evaluation"]
ROWS = {"rewardbench2": fake_launcher.rewardbench2, "rmbench": fake_launcher.rmbench, "evaluation": fake_launcher.pairs}


def noisy(benchmark: Name, rng: random.Random) -> list[ScoredPreference]:
    """Items with rewards among a few values, so that exact ties occur."""
    found = []
    for item in ROWS[benchmark]():
        sides = [tuple(rng.choice((-1.0, 0.0, 0.5, 2.0)) for _ in side) for side in (item.chosen_rewards, item.rejected_rewards)]
        found.append(item.model_copy(update={"chosen_rewards": sides[0], "rejected_rewards": sides[1]}))
    return found


@pytest.mark.parametrize("benchmark", ROWS)
def test_changed_items_give_what_the_metric_gives_for_all(benchmark: Name) -> None:
    rng = random.Random(0)
    for _ in range(40):
        items, edited = noisy(benchmark, rng), noisy(benchmark, rng)
        places = rng.sample(range(len(items)), rng.randint(0, len(items)))
        changed = {place: (edited[place].chosen_rewards, edited[place].rejected_rewards) for place in places}
        accuracies = EditedAccuracies(benchmark, items)
        whole = benchmark_scores(benchmark, [edited[place] if place in changed else item for place, item in enumerate(items)])
        assert dict(zip(accuracies.columns, accuracies.after(changed), strict=True)) == pytest.approx(
            {name: metric.value for name, metric in whole.metrics.items()}
        )
        assert accuracies.after({}) == pytest.approx(accuracies.base)


@pytest.mark.parametrize("benchmark", ["rewardbench2", "rmbench"])
def test_a_benchmark_with_absent_subsets_has_the_others_and_says_which_are_not_there(benchmark: Name) -> None:
    items = [item for item in ROWS[benchmark]() if item.subset not in ("Ties", "Math", "math")]
    accuracies = EditedAccuracies(benchmark, items)
    assert "Overall" not in accuracies.columns and "missing: " in accuracies.missing["Overall"]
    last = len(items) - 1
    lower = tuple(-9.0 for _ in items[last].chosen_rewards)
    whole = EditedAccuracies(benchmark, [*items[:-1], items[last].model_copy(update={"chosen_rewards": lower})]).base
    assert accuracies.after({last: (lower, items[last].rejected_rewards)}) == pytest.approx(whole)
    assert whole != accuracies.base


def test_items_without_any_domain_have_levels_alone() -> None:
    items = [item.model_copy(update={"subset": ""}) for item in fake_launcher.rmbench()]
    accuracies = EditedAccuracies("rmbench", items)
    assert accuracies.columns == ("hard", "normal", "easy")
    after = accuracies.after({0: ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))})
    assert after == pytest.approx([1 - 1 / len(items)] * 3)


def test_pairs_are_pairs() -> None:
    with pytest.raises(ScoringError, match="is not a pair: 1 chosen, 2 rejected"):
        EditedAccuracies("evaluation", [ScoredPreference(id="a", chosen_rewards=(1,), rejected_rewards=(0, 0))])
