"""The paper's claims from its own numbers, and from paired items whose truth is known."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from replication.data_folders import published_folder
from replication.report.claim_file import Claim, ClaimResult, load_claims
from replication.report.claims import across_protocols, own_claim, published_claims
from replication.report.published import PublishedError, load_published


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
    assert results["C3"].power_unpaired == pytest.approx(0.28, abs=0.02)


def test_defective_rows_take_no_part(results: dict[str, ClaimResult]) -> None:
    assert "dim-32 left out" in results["C5-M"].detail and "layer-28 is defective" in results["C4b"].detail


def test_a_doubtful_value_counts_with_the_weaker_reading(results: dict[str, ClaimResult]) -> None:
    assert "layer-7 to layer-10 +17.12, layer-10 to layer-14 +8.97" in results["C4a"].detail


def test_every_claim_names_rows_that_are_on_file() -> None:
    for claim in load_claims().claims:
        for row in filter(None, (claim.row, claim.against, *claim.rows)):
            assert load_published(claim.table).row(row)


def claim_of(least: float = 2.0, seeds: int = 3) -> Claim:
    return Claim(id="C", says="A is better than B.", place="-", kind="difference", test="bootstrap", least=least, seeds=seeds)


def items(mean: float, *, seed: int = 0) -> dict[str, list[float]]:
    random = np.random.default_rng(seed)
    return {name: random.normal(mean / 100, 0.4, size=400).tolist() for name in ("Math", "Safety", "Ties")}


@pytest.mark.parametrize(("mean", "outcome"), [(8.0, "SUPPORTED"), (-6.0, "CONTRADICTED"), (1.0, "INCONCLUSIVE")])
def test_own_items_decide(mean: float, outcome: str) -> None:
    assert own_claim(claim_of(), items(mean), seeds=3, analogue=False, resamples=500).outcome == outcome


def test_one_seed_shows_only_a_direction_and_a_miniature_only_an_analogue() -> None:
    assert own_claim(claim_of(), items(8.0), seeds=1, analogue=False, resamples=500).outcome == "DIRECTION ONLY"
    assert own_claim(claim_of(), items(8.0), seeds=3, analogue=True, resamples=500).outcome == "SUPPORTED-ANALOGUE"
    assert own_claim(claim_of(), items(-6.0), seeds=3, analogue=True, resamples=500).outcome == "NOT-SUPPORTED-ANALOGUE"


def test_a_true_zero_is_rarely_supported() -> None:
    wrong = [
        own_claim(claim_of(), items(0.0, seed=run), seeds=3, analogue=False, resamples=200).outcome == "SUPPORTED" for run in range(150)
    ]
    assert sum(wrong) / len(wrong) < 0.05


def test_a_claim_that_flips_between_protocols_depends_on_the_specification() -> None:
    good = own_claim(claim_of(), items(8.0), seeds=3, analogue=False, resamples=300)
    bad = own_claim(claim_of(), items(-6.0), seeds=3, analogue=False, resamples=300)
    assert across_protocols({"paper": good, "authors": good}) == good
    flipped = across_protocols({"paper": good, "authors": bad})
    assert flipped.outcome == "SPEC-DEPENDENT" and flipped.detail == "paper: SUPPORTED; authors: CONTRADICTED"
    with pytest.raises(ValueError, match="no protocol"):
        across_protocols({})


def test_a_wrong_claim_file_names_file_and_key(tmp_path: Path) -> None:
    shutil.copytree(published_folder(), tmp_path / "published")
    file = tmp_path / "published" / "claims.toml"
    file.write_text(file.read_text(encoding="utf-8").replace('kind = "steps"', 'kind = "stairs"'), encoding="utf-8")
    with pytest.raises(PublishedError, match=r"claims\.toml: claim\.\d+\.kind"):
        load_claims(tmp_path / "published")


def test_importing_the_judgement_loads_neither_torch_nor_scipy() -> None:
    modules = "tables, verdicts, diff, diff_formats, claims, audit_page"
    heavy = ("torch", "scipy", "statsmodels", "numpy", "matplotlib")
    code = f"import sys; from replication.report import {modules}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
