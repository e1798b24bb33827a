"""The steered latent against planted refusal, where the truth is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_steering import EVERYWHERE, SAFE, rows_of, steering

from replication.report.steering.planted_refusal import planted_refusal, refusal_listing, refusal_numbers
from replication.report.steering.tables import planted_blocks


def concepts(folder: Path, *, rows: list[dict[str, Any]] | None = None, refuses: str = "chosen") -> Path:
    """Safety replies of one side refuse, those of the other comply; every prompt of Math asks for a sum."""
    items: dict[str, Any] = {}
    for row in rows or rows_of(60):
        item = items.setdefault(f"{row['subset']}/{row['id']}", {"prompt": [], "chosen": [], "rejected": []})
        safety = row["subset"] == "Safety"
        item[row["side"]].append((["refusal"] if row["side"] == refuses else ["compliance"]) if safety else ["fact"])
        item["prompt"] = ["arithmetic"] if row["subset"] == "Math" else []
    path = folder / "concepts.json"
    path.write_text(json.dumps({"safety": {"concept": "refusal"}, "items": {"rewardbench2": items, "rmbench": items}}))
    return path


def test_a_latent_that_is_refusal_is_found(tmp_path: Path) -> None:
    found = planted_refusal(steering(SAFE), concepts(tmp_path), seed=0)
    assert found is not None and (found.steered.area, found.steered.low, found.rank, found.n_latents) == (1.0, 1.0, 1, 64)
    assert found.best.latent == SAFE and found.steered.replies == 240 and found.best.replies < 240
    assert found.sentence.startswith("The rule found a latent for reply:refusal: latent 0, AUROC 1.000")
    numbers = {one.measure: one for one in refusal_numbers(found, seed=0)}
    assert numbers["best-latent"].n == found.best.replies and numbers["steered-agrees-with"].subject == "latent 0, reply:refusal"
    assert refusal_listing(found, name="figure3", rule="argmax-s", seed=0).rows[0][-1] == "1 of 64"


def test_another_latent_is_told_with_what_it_agrees_with(tmp_path: Path) -> None:
    found = planted_refusal(steering(EVERYWHERE), concepts(tmp_path), seed=0)
    assert found is not None and found.best.latent == SAFE and found.best.area == 1.0 and found.rank > 1
    assert found.steered.low < 0.5 < found.steered.high and found.instead is not None
    assert found.sentence.startswith("A latent for reply:refusal exists (0, AUROC 1.000")
    assert f"latent 1 agrees most with {found.instead.concept}" in found.sentence


def test_what_the_rule_could_make_of_the_concept_is_told(tmp_path: Path) -> None:
    """Language 1 has latents that are refusal all but exactly; where refusing is right half the time, the rule cannot choose one."""
    data = steering(EVERYWHERE, same_set=True)
    for refuses, limit in (("chosen", 1.0), ("rejected", -1.0)):
        found = planted_refusal(data, concepts(tmp_path, refuses=refuses), seed=0)
        assert found is not None and found.by_rule is not None
        assert (found.by_rule.limit, found.by_rule.pairs, found.by_rule.steered) == (limit, 180, 0.9)
    rows = json.loads(concepts(tmp_path).read_text())
    for number, item in enumerate(rows["items"]["rewardbench2"].values()):
        if number % 2 and item["chosen"] == [["refusal"]]:
            item["chosen"], item["rejected"] = [["compliance"]], [["refusal"]] * 3
    (tmp_path / "concepts.json").write_text(json.dumps(rows))
    found = planted_refusal(data, tmp_path / "concepts.json", seed=0)
    assert found is not None and found.by_rule is not None
    assert (found.by_rule.chosen, found.by_rule.rejected, found.by_rule.limit) == (90, 90, 0.0)
    data.s[found.best.latent] = 0.25
    found = planted_refusal(data, tmp_path / "concepts.json", seed=0)
    assert found is not None
    assert refusal_listing(found, name="figure3", rule="argmax-s", seed=0).notes[1] == (
        "Of 180 pairs the chosen reply is reply:refusal in 90 and the rejected one in 90, so that a latent equally active on all of "
        "them and nowhere else has s = +0.000 (nearer to 0 by the formula's mean); the rule's has +0.900, the best +0.250, rank 2 of 64."
    )


def test_where_no_latent_is_refusal_the_report_says_so(tmp_path: Path) -> None:
    data = steering(EVERYWHERE, items=200)
    # The label is drawn anew, so that no latent can know it.
    labels = json.loads(concepts(tmp_path, rows=rows_of(200)).read_text())
    generator = np.random.default_rng(5)
    for item in labels["items"]["rewardbench2"].values():
        for side in ("chosen", "rejected"):
            item[side] = [["refusal"] if generator.random() < 0.5 else ["compliance"] for _ in item[side]]
    path = tmp_path / "concepts.json"
    path.write_text(json.dumps(labels))
    found = planted_refusal(data, path, seed=0)
    assert found is not None and found.sentence.startswith("No latent for reply:refusal was found")
    assert found.best.low < 0.5 < found.best.high


def test_too_few_prompts_and_real_data_give_a_reason(tmp_path: Path) -> None:
    few = steering(SAFE, items=6)
    assert planted_refusal(few, concepts(tmp_path, rows=rows_of(6)), seed=0) is None
    assert "too few prompts" in planted_blocks({3: few}, tmp_path / "concepts.json").notes[0]
    assert "real data" in planted_blocks({3: few}, None).notes[0] and planted_blocks({}, None).notes == ()


@pytest.mark.parametrize("latent", [SAFE, EVERYWHERE])
def test_numbers_are_those_of_the_listing(tmp_path: Path, latent: int) -> None:
    blocks = planted_blocks({0: steering(latent)}, concepts(tmp_path))
    assert [f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]" for one in blocks.numbers] == [row[5] for row in blocks.listings[0][0].rows]
