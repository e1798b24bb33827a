"""The paper's claims from its own numbers, and from paired items whose truth is known."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from fake_launcher import rewardbench2

from replication.data_folders import published_folder
from replication.report.claims.definitions import Claim, ClaimKind, ClaimResult, load_claims
from replication.report.claims.own import Arms, OwnFound, own_claims, rows_needed
from replication.report.claims.own import judged as judged_among
from replication.report.claims.paired_items import PairingError, rewardbench2_credits
from replication.report.claims.published import across_protocols, published_claims
from replication.report.published import PublishedError, load_published
from replication.report.statistics import range_bound, range_tail
from replication.settings.experiments import EXPERIMENTS
from sarm.metrics.credits import ScoringError
from sarm.metrics.rewardbench2 import rewardbench2_scores


@pytest.fixture(scope="module")
def results() -> dict[str, ClaimResult]:
    return {one.id: one for one in published_claims()}


@pytest.mark.parametrize(
    ("claim", "outcome"),
    [
        ("C1a", "DIRECTION ONLY"),
        ("C1b", "CONTRADICTED"),
        ("C1c", "DIRECTION ONLY"),
        ("C2a", "DIRECTION ONLY"),
        ("C2b", "NOT TESTED"),
        ("C3", "INCONCLUSIVE"),
        ("C4a", "DIRECTION ONLY"),
        ("C4b", "INCONCLUSIVE"),
        ("C5-M", "INCONCLUSIVE"),
        ("C5-k", "INCONCLUSIVE"),
        ("C6", "NOT TESTED"),
        ("C7", "NOT TESTED"),
    ],
)
def test_each_claim_from_published_numbers_alone(results: dict[str, ClaimResult], claim: str, outcome: str) -> None:
    assert results[claim].outcome == outcome, results[claim].detail


def test_best_of_all_models_is_contradicted_by_at_least_the_nine_that_the_cited_table_has(results: dict[str, ClaimResult]) -> None:
    nine = [row.model for row in load_published("leaderboard").rows if row.group.startswith("Above SARM-4B")]
    assert len(nine) == 9 and all(model in results["C1b"].detail for model in nine)


def test_the_power_of_each_comparison_is_given_and_larger_if_paired(results: dict[str, ClaimResult]) -> None:
    for name in ("C1a", "C1c", "C2a", "C3"):
        unpaired, paired = results[name].power_unpaired, results[name].power_paired
        assert unpaired is not None and paired is not None and 0 < unpaired < paired < 1
    # C3 by hand: 2.2 points at a standard error of 2.06 are 1.07 of it, and the two-sided test asks for 1.96.
    effect = results["C3"].effects[0]
    z = effect.estimate / ((effect.high - effect.low) / 2 / 1.96)
    assert z == pytest.approx(1.07, abs=0.03)
    assert results["C3"].power_unpaired == pytest.approx(NormalDist().cdf(z - 1.96), abs=0.001)


def test_defective_rows_take_no_part(results: dict[str, ClaimResult]) -> None:
    assert "dim-32 left out" in results["C5-M"].detail and "layer-28 is defective" in results["C4b"].detail


def test_a_largest_difference_is_counted_among_all_claims_by_the_p_value_of_its_own_bound(results: dict[str, ClaimResult]) -> None:
    """Below 0.05 exactly where the simultaneous bound is within the margin; C5 is not, by published numbers."""
    for name in ("C5-M", "C5-k"):
        found = results[name]
        assert found.p_value is not None and found.p_holm is not None and 0.05 < found.p_value <= found.p_holm
    for rows in (2, 4, 5):
        bound = range_bound(rows, alpha=0.1)
        assert range_tail(bound, rows) == pytest.approx(0.05, abs=1e-4) and range_tail(0.0, rows) == 0.5
        assert range_tail(bound + 0.1, rows) < 0.05 < range_tail(bound - 0.1, rows) < range_tail(-bound, rows) < 1


def test_a_doubtful_value_counts_with_the_weaker_reading(results: dict[str, ClaimResult]) -> None:
    assert "layer-7 to layer-10 +17.12, layer-10 to layer-14 +8.97" in results["C4a"].detail


def test_every_claim_names_rows_that_are_on_file() -> None:
    for claim in load_claims().claims:
        for row in filter(None, (claim.row, claim.against, *claim.rows)):
            assert load_published(claim.table).row(row)


def claim_of(kind: ClaimKind = "difference", *, least: float = 2.0, seeds: int = 3, margin: float = 1.5, **rest: Any) -> Claim:
    given = {"experiment": "table2", "ours": "a", "controls": ("b",)} | rest
    return Claim(
        id="C", says="A is better than B.", place="-", kind=kind, test="bootstrap", least=least, seeds=seeds, margin=margin, **given
    )


def arms(*, seeds: int = 3, seed: int = 0, spread: float = 0.4, **means: float) -> Arms:
    """Rows whose mean credit over the same items lies `means` points above a common one."""
    random = np.random.default_rng(seed)
    found = {}
    for name, mean in means.items():
        credits = [{subset: random.normal(mean / 100, spread, size=300) for subset in ("Math", "Safety", "Ties")} for _ in range(seeds)]
        found[name] = [{subset: dict(enumerate_items(values)) for subset, values in one.items()} for one in credits]
    return found


def enumerate_items(values: Iterable[float]) -> list[tuple[str, float]]:
    return [(str(number), float(value)) for number, value in enumerate(values)]


def judged(claim: Claim, known: Arms, *, analogue: bool = False, resamples: int = 400) -> ClaimResult:
    return own_claims([claim], {"table2": known}, protocol="paper", analogue=analogue, resamples=resamples)["C"]


@pytest.mark.parametrize(("mean", "outcome"), [(8.0, "SUPPORTED"), (-6.0, "CONTRADICTED"), (1.0, "INCONCLUSIVE")])
def test_own_items_decide(mean: float, outcome: str) -> None:
    found = judged(claim_of(), arms(a=mean, b=0.0))
    assert found.outcome == outcome and found.basis == "own results" and "without Ties" in found.detail


def test_one_seed_shows_only_a_direction_and_a_miniature_only_an_analogue() -> None:
    assert judged(claim_of(), arms(seeds=1, a=9.0, b=0.0)).outcome == "DIRECTION ONLY"
    assert judged(claim_of(), arms(a=9.0, b=0.0), analogue=True).outcome == "SUPPORTED-ANALOGUE"
    assert judged(claim_of(), arms(a=-6.0, b=0.0), analogue=True).outcome == "NOT-SUPPORTED-ANALOGUE"


def test_the_p_value_of_a_difference_says_at_five_percent_what_its_interval_does() -> None:
    """Where the interval ends near 0 the two would part if one were one-sided: 30 differences about as large as that."""
    said = []
    for seed in range(30):
        found = judged(claim_of(), arms(seed=seed, a=(1.0, 3.0, 5.0)[seed % 3], b=0.0), resamples=2000)
        (effect,) = found.effects
        assert found.p_value is not None
        if abs(found.p_value - 0.05) > 0.015:
            said.append(found.p_value < 0.05)
            assert said[-1] == (effect.low > 0), found
    assert 5 < sum(said) < len(said) - 5
    # To the wrong side it is evidence of nothing that is claimed, however far.
    assert judged(claim_of(), arms(a=-9.0, b=0.0)).p_value == 1.0


def test_a_claim_must_hold_against_each_of_its_controls() -> None:
    assert judged(claim_of(controls=("b", "c")), arms(a=8.0, b=0.0, c=9.0)).outcome == "CONTRADICTED"
    assert judged(claim_of(controls=("b", "c")), arms(a=8.0, b=0.0, c=0.0)).outcome == "SUPPORTED"


@pytest.mark.parametrize(
    ("kind", "means", "outcome"),
    [
        ("non-inferior", {"a": 0.2, "b": 0.0}, "SUPPORTED"),
        ("non-inferior", {"a": -4.0, "b": 0.0}, "CONTRADICTED"),
        ("non-inferior", {"a": -1.5, "b": 0.0}, "INCONCLUSIVE"),
        ("plateau", {"a": 0.0, "b": 0.1}, "SUPPORTED"),
        ("plateau", {"a": 0.0, "b": 5.0}, "CONTRADICTED"),
        ("plateau", {"a": 0.0, "b": 1.5}, "INCONCLUSIVE"),
        ("steps", {"a": 0.0, "b": 5.0}, "SUPPORTED"),
        ("steps", {"a": 0.0, "b": 0.0}, "CONTRADICTED"),
        ("range", {"a": 0.0, "b": 0.1}, "SUPPORTED"),
        ("range", {"a": 0.0, "b": 5.0}, "CONTRADICTED"),
        ("range", {"a": 0.0, "b": 1.5}, "INCONCLUSIVE"),
    ],
)
def test_each_kind_of_claim_follows_a_known_truth(kind: ClaimKind, means: dict[str, float], outcome: str) -> None:
    rows: dict[str, Any] = {"controls": ("a", "b"), "ours": ""} if kind in ("steps", "range") else {}
    assert judged(claim_of(kind, **rows), arms(spread=0.1, **means)).outcome == outcome


def test_the_rows_of_our_own_that_bear_on_a_claim_are_in_the_registry() -> None:
    for claim in load_claims().claims:
        for row in rows_needed(claim):
            assert EXPERIMENTS[claim.experiment].row(row), f"{claim.id}: {row}"


def test_a_claim_whose_rows_are_not_all_there_has_no_result() -> None:
    assert own_claims([claim_of()], {"table2": arms(a=1.0)}, protocol="paper", analogue=False) == {}


def test_models_that_were_scored_on_other_items_are_not_compared() -> None:
    known = dict(arms(seeds=1, a=1.0, b=0.0))
    short = [{subset: dict(list(credits.items())[1:]) for subset, credits in one.items()} for one in known["b"]]
    with pytest.raises(PairingError, match="one model only") as caught:
        judged(claim_of(), {**known, "b": short})
    assert caught.value.exit_code == 6


def test_credits_of_a_benchmark_average_to_its_scores() -> None:
    items = list(rewardbench2())
    credits, scores = rewardbench2_credits(items), rewardbench2_scores(items)
    for subset, found in credits.items():
        assert sum(found.values()) / len(found) == pytest.approx(scores.require(subset).value)
    with pytest.raises(ScoringError, match="Safety"):
        rewardbench2_credits([item for item in items if item.subset != "Safety"])
    with pytest.raises(ScoringError, match="Ties group 1"):
        rewardbench2_credits([item for item in items if item.id != "ref:1"])


def test_a_true_zero_is_rarely_supported() -> None:
    wrong = [judged(claim_of(), arms(seeds=1, seed=run, a=0.0, b=0.0)).outcome in ("SUPPORTED", "DIRECTION ONLY") for run in range(60)]
    assert sum(wrong) / len(wrong) < 0.08


def test_a_claim_that_flips_between_protocols_depends_on_the_specification() -> None:
    good, bad = judged(claim_of(), arms(a=8.0, b=0.0)), judged(claim_of(), arms(a=-6.0, b=0.0))
    assert across_protocols({"paper": good, "authors": good}) == good
    flipped = across_protocols({"paper": good, "authors": bad})
    assert flipped.outcome == "SPEC-DEPENDENT" and flipped.detail == "paper: SUPPORTED; authors: CONTRADICTED"
    with pytest.raises(ValueError, match="no protocol"):
        across_protocols({})


def test_what_other_claims_and_missing_seeds_take_from_a_verdict_is_no_difference_between_protocols() -> None:
    """A family of 500 claims leaves nothing of a p value, in one protocol; in the other the claim is alone; a third has one seed."""
    known = arms(a=9.0, b=0.0)
    alone, one_seed = judged(claim_of(), known), judged(claim_of(), arms(seeds=1, a=9.0, b=0.0))
    hopeless = {f"C{n}": OwnFound("INCONCLUSIVE", "", 1.0, 3) for n in range(500)}
    family = [claim_of(), *(claim_of().model_copy(update={"id": name}) for name in hopeless)]
    mine = OwnFound("SUPPORTED", alone.detail, max(alone.p_value or 0.0, 0.001), 3)
    among = judged_among(family, {"C": mine, **hopeless}, protocol="paper", analogue=False, alpha=0.05)["C"]
    assert [one.outcome for one in (alone, among, one_seed)] == ["SUPPORTED", "DIRECTION ONLY", "DIRECTION ONLY"]
    assert across_protocols({"paper": alone, "authors": among, "aaai": one_seed}) == alone
    bad = judged(claim_of(), arms(a=-6.0, b=0.0))
    flipped = across_protocols({"paper": among, "authors": bad})
    assert flipped.outcome == "SPEC-DEPENDENT" and "paper: SUPPORTED; authors: CONTRADICTED; each as it stands alone" in flipped.detail


def test_a_wrong_claim_file_names_file_and_key(tmp_path: Path) -> None:
    shutil.copytree(published_folder(), tmp_path / "published")
    file = tmp_path / "published" / "claims.toml"
    file.write_text(file.read_text(encoding="utf-8").replace('kind = "steps"', 'kind = "stairs"'), encoding="utf-8")
    with pytest.raises(PublishedError, match=r"claims\.toml: claim\.\d+\.kind"):
        load_claims(tmp_path / "published")


def test_importing_the_judgement_loads_neither_torch_nor_scipy() -> None:
    modules = ("render.tables", "verdicts.report", "verdicts.diff", "verdicts.diff_formats", "claims.published", "audit.page")
    heavy = ("torch", "scipy", "statsmodels", "numpy", "matplotlib")
    imports = "; ".join(f"import replication.report.{name}" for name in modules)
    code = f"import sys; {imports}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
