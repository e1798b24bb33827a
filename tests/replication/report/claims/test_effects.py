"""The effects of claims from our own items: the numbers that the tests used, and where each claim begins to hold."""

from __future__ import annotations

import random

import pytest

from replication.report.claims.definitions import Claim, ClaimResult, load_claims
from replication.report.claims.own import own_claims, rows_needed

SUBSETS = ("Factuality", "Math", "Ties")


Found = dict[str, tuple[Claim, ClaimResult]]


def credits(row: str, seed: int) -> dict[str, dict[str, float]]:
    draw = random.Random(f"{row} {seed}")
    share = 0.4 + 0.4 * random.Random(row).random()
    return {subset: {str(item): float(draw.random() < share) for item in range(60)} for subset in SUBSETS}


@pytest.fixture(scope="module")
def found() -> Found:
    claims = [claim for claim in load_claims().claims if rows_needed(claim)]
    rows: dict[str, dict] = {claim.experiment: {} for claim in claims}
    for claim in claims:
        rows[claim.experiment] |= {row: [credits(row, seed) for seed in (0, 1)] for row in rows_needed(claim)}
    results = own_claims(claims, rows, protocol="paper", analogue=False, resamples=200)
    return {claim.id: (claim, results[claim.id]) for claim in claims}


def test_every_claim_about_rows_has_effects_whose_numbers_its_words_give(found: Found) -> None:
    assert {"C1c", "C2a", "C3", "C4a", "C4b", "C5-M", "C5-k"} <= found.keys()
    for claim, result in found.values():
        assert result.effects, claim.id
        for effect in result.effects:
            assert effect.low <= effect.estimate <= effect.high or claim.kind == "range"
            shown = f"{effect.estimate:.2f}" if claim.kind == "range" else f"{effect.estimate:+.2f} [{effect.low:+.2f}, {effect.high:+.2f}]"
            assert shown in result.detail, (claim.id, result.detail)


@pytest.mark.parametrize(
    ("name", "above", "below"),
    [("C1c", -1.5, None), ("C2a", 2.6, None), ("C4a", 5.0, None), ("C4b", -2.5, 2.5), ("C5-M", None, 2.5)],
)
def test_an_effect_says_where_the_claim_begins_to_hold(found: Found, name: str, above: float | None, below: float | None) -> None:
    assert {(effect.above, effect.below) for effect in found[name][1].effects} == {(above, below)}


def test_a_largest_difference_is_tested_by_the_pair_that_is_worst_as_its_bound_is(found: Found) -> None:
    for name in ("C5-M", "C5-k"):
        claim, result = found[name]
        (effect,) = result.effects
        assert result.p_value is not None and result.p_holm is not None and result.p_holm >= result.p_value
        assert (result.p_value <= 0.05) == (effect.high <= claim.margin) and result.p_value > 0.05


def test_rows_that_are_the_same_differ_by_nothing() -> None:
    claim = next(one for one in load_claims().claims if one.id == "C5-M")
    same = {row: [credits("one", seed) for seed in (0, 1)] for row in rows_needed(claim)}
    alone = own_claims([claim], {claim.experiment: same}, protocol="paper", analogue=False, resamples=200)[claim.id]
    assert alone.p_value == 0.0 and alone.effects[0].high == 0.0


def test_the_outcome_is_what_the_effects_say(found: Found) -> None:
    for claim, result in found.values():
        outside = [one for one in result.effects if one.below is not None and one.low > one.below]
        inside = all(
            (one.above is None or one.low > one.above) and (one.below is None or one.high <= one.below) for one in result.effects
        )
        if result.outcome == "SUPPORTED":
            assert inside, claim.id
        if claim.kind == "plateau" and outside:
            assert result.outcome == "CONTRADICTED"
