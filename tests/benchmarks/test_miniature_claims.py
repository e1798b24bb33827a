"""What is kept of a language decides its claims as the rewards themselves do, and nothing else is taken for it."""

from __future__ import annotations

import importlib
import json
import random
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from scored_items import item

from replication.report.claims.definitions import load_claims
from replication.report.claims.own import own_claims
from replication.report.claims.paired_items import rewardbench2_credits
from replication.report.results.model import RewardFile
from replication.report.results.score_files import read_rewards
from sarm.data.preferences import ScoredPreference
from sarm.store.checksums import sha256_of

SUBSETS = ("Factuality", "Precise IF", "Math", "Safety", "Focus")


def benchmark(skill: float, seed: int) -> list[ScoredPreference]:
    """Sixty items a subset, of which a model of that skill gets about that share right."""
    draw = random.Random(f"{skill} {seed}")
    rows = [
        item(subset, (1.0,), (0.0 if draw.random() < skill else 2.0, 0.0, -1.0), name=f"{subset}-{number}")
        for subset in SUBSETS
        for number in range(60)
    ]
    for number in range(20):
        gap = 1.0 if draw.random() < skill else -1.0
        rows += [item("Ties", (gap,), (0.0,), name=f"ref:{number}"), item("Ties", (gap, gap + 0.1), (0.0,), name=f"tied:{number}")]
    return rows


def results_of(folder: Path, experiment: str, models: Mapping[str, float], seeds: tuple[int, ...]) -> Path:
    """A results file's rewards with the files that they name; what else stands in one is no matter here."""
    recipes = importlib.import_module("miniature_claims").recipes_of(run_in(folder), seeds)
    # No claim is about Table 1, but what it trains is in Table 2 as well.
    rewards, of_row = [], recipes[experiment if experiment in recipes else "table2"].of_row
    for model, skill in models.items():
        for training in of_row(model):
            seed, job = training.seed, training.scores["rewardbench2"]
            path = folder / experiment / f"{model}-{seed}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(row.model_dump_json() + "\n" for row in benchmark(skill, seed)))
            rewards.append(
                RewardFile(
                    model=model, seed=seed, benchmark="rewardbench2", file=f"{experiment}/{path.name}", sha256=sha256_of(path), items=340,
                    artifact=f"{job.kind}/{job.short_key}",
                )
            )  # fmt: skip
    path = folder / f"{experiment}.results.json"
    path.write_text(json.dumps({"seeds": seeds, "rewards": [one.model_dump() for one in rewards]}))
    return path


@pytest.fixture
def miniature_claims(monkeypatch: pytest.MonkeyPatch, benchmarks_are_found: None) -> Any:
    """The module, for results files that have seeds and rewards alone."""
    module = importlib.import_module("miniature_claims")

    def read(path: Path) -> Any:
        content = json.loads(path.read_text())
        rewards = [RewardFile(**one) for one in content["rewards"]]
        return SimpleNamespace(experiment=path.name.partition(".")[0], seeds=tuple(content["seeds"]), rewards=rewards)

    monkeypatch.setattr(module, "read_results", read)
    return module


def run_in(folder: Path) -> Any:
    return importlib.import_module("miniature_runs").Run(store=folder / "store", out=folder / "tables", profile="mini", read=True)


MODELS = {"sarm-4b": 0.8, "scalar-full": 0.85, "scalar-trunc": 0.5, "random-init": 0.4, "token-level": 0.8}


def test_kept_credits_decide_claims_as_the_rewards_do(tmp_path: Path, miniature_claims: Any) -> None:
    here, kept = tmp_path / "language-0", tmp_path / "kept"
    for seeds in ((0, 1), (2,)):
        results_of(here / "tables" / f"run-{seeds[0]}", "table2", MODELS, seeds)
    miniature_claims.keep(here, kept)
    found, lacking = miniature_claims.claims_of(run_in(kept), [2, 0, 1])
    rewards = {
        name: [rewardbench2_credits(read_rewards(next(here.rglob(f"{name}-{seed}.jsonl")), "rewardbench2")) for seed in (2, 0, 1)]
        for name in MODELS
    }
    assert found == own_claims(load_claims().claims, {"table2": rewards}, protocol="paper", analogue=True)
    assert set(found) == {"C1c", "C2a"} and found["C2a"].outcome == "SUPPORTED-ANALOGUE"
    # C3 has one of its two controls.
    assert {"C3: table2 (token-level-matched)", "C6: figure3", "C4a: table3 (layer-7, layer-10, layer-14)"} < set(lacking)
    assert not list(kept.rglob("*.jsonl"))
    text = miniature_claims.table({0: (found, lacking)}, [2, 0, 1])
    assert "| C2a | 0 | SUPPORTED-ANALOGUE | over random-init +" in text and "language 0, C6: figure3" in text


def test_a_seed_that_is_not_there_leaves_its_claims_open(tmp_path: Path, miniature_claims: Any) -> None:
    results_of(tmp_path / "tables" / "a", "table2", MODELS, (0, 1))
    found, lacking = miniature_claims.claims_of(run_in(tmp_path), [0, 1, 2])
    assert found == {} and "C2a: table2 (sarm-4b, random-init)" in lacking


def test_credits_of_other_rewards_are_refused(tmp_path: Path, miniature_claims: Any) -> None:
    path = results_of(tmp_path / "here" / "tables" / "a", "table2", {"sarm-4b": 0.5}, (0,))
    miniature_claims.keep(tmp_path / "here", tmp_path / "kept")
    kept = next((tmp_path / "kept").rglob("table2.results.json"))
    assert miniature_claims.credits_of(kept) == miniature_claims.credits_of(path)
    content = json.loads(kept.read_text())
    content["rewards"][0]["sha256"] = "0" * 64
    kept.write_text(json.dumps(content))
    with pytest.raises(SystemExit, match=r"no credits of sarm-4b, seed 0, from the rewards"):
        miniature_claims.credits_of(kept)
    next((tmp_path / "kept").rglob("*.credits.json")).unlink()
    assert miniature_claims.credits_of(kept) == {}
    next(path.parent.rglob("*.jsonl")).write_text("")
    with pytest.raises(SystemExit, match=r"not the rewards that the results file describes"):
        miniature_claims.credits_of(path)


def folders(kept: Path) -> list[str]:
    return sorted(path.parent.name for path in kept.rglob("*.results.json"))


def test_keeping_loses_nothing(tmp_path: Path, miniature_claims: Any) -> None:
    here, kept = tmp_path / "here", tmp_path / "kept"
    results_of(here / "tables" / "mini", "table2", MODELS, (0,))
    results_of(here / "store" / "x", "table2", MODELS, (0,))
    for _ in range(2):
        assert len(miniature_claims.keep(here, kept)) == 2 and folders(kept) == ["seeds-0"]
    # Other rows and other seeds stand beside what is there; more rows replace it.
    results_of(here / "tables" / "mini", "table2", {"token-level-matched": 0.8}, (0,))
    miniature_claims.keep(here, kept)
    results_of(here / "tables" / "mini", "table2", MODELS, (1,))
    miniature_claims.keep(here, kept)
    assert folders(kept) == ["seeds-0", "seeds-0.2", "seeds-1"]
    assert "C3" in miniature_claims.claims_of(run_in(kept), [0])[0]
    # Another number of the same scoring is no second opinion.
    results_of(here / "tables" / "mini", "table2", MODELS | {"sarm-4b": 0.7}, (1, 2))
    miniature_claims.keep(here, kept)
    with pytest.raises(SystemExit, match=r"score_benchmark/[0-9a-f]{12}: another file has other credits"):
        miniature_claims.claims_of(run_in(kept), [0, 1, 2])


def test_a_model_that_was_trained_again_for_another_table_is_told_and_each_claim_rests_on_its_own(
    tmp_path: Path, miniature_claims: Any
) -> None:
    """The scoring has one name, its job, in both tables; the models differ, as they may from one machine to another."""
    scored = {**MODELS, "sarm-4b": 0.9}
    results_of(tmp_path / "tables" / "a", "table1", {"sarm-4b": 0.5}, (0,))
    results_of(tmp_path / "tables" / "a", "table2", scored, (0,))
    known = miniature_claims.credits_by_experiment(tmp_path / "tables")
    (artifact,) = known["table1"]
    assert known["table2"][artifact] != known["table1"][artifact]
    assert miniature_claims.credits_for("table2", known)[artifact] == known["table2"][artifact]
    assert miniature_claims.trained_again(tmp_path / "tables") == ["sarm-4b, seed 0, of table1 differs from sarm-4b, seed 0, of table2"]
    alone = {name: one for name, one in known.items() if name != "table2"}
    assert miniature_claims.credits_for("table2", alone) == known["table1"]
    assert artifact not in miniature_claims.credits_for("table3", known)
    results_of(tmp_path / "tables" / "a", "table1", {"sarm-4b": 0.9}, (0,))
    assert miniature_claims.trained_again(tmp_path / "tables") == []


def test_what_tells_how_a_damaged_store_ended_is_kept_where_it_is_read(tmp_path: Path, miniature_claims: Any) -> None:
    place = Path("faults", "one", "tables", miniature_claims.WHERE)
    (tmp_path / "here" / place).parent.mkdir(parents=True)
    (tmp_path / "here" / place).write_text('"diff"')
    assert miniature_claims.keep(tmp_path / "here", tmp_path / "kept") == [tmp_path / "kept" / place]
    assert (tmp_path / "kept" / place).read_text() == '"diff"'


def test_what_another_table_scored_and_another_session_judged_counts(tmp_path: Path, miniature_claims: Any) -> None:
    """SARM-4B stands in Tables 1 and 2, and is one scoring; verdicts over the same seeds are put together, of others kept apart."""
    here, kept = tmp_path / "here", tmp_path / "kept"
    results_of(here / "tables" / "a", "table1", {"sarm-4b": 0.8}, (0,))
    results_of(here / "tables" / "b", "table2", {"random-init": 0.4}, (0,))
    verdicts = here / "tables" / miniature_claims.VERDICTS
    for seeds, name in (([0], "C6"), ([0], "C7"), ([0, 1], "C6"), ([0], "")):
        verdicts.write_text(json.dumps({"seeds": seeds, "claims": {name: {}} if name else {}}))
        miniature_claims.keep(here, kept)
    for seeds, names in (([0], ["C6", "C7"]), ([0, 1], ["C6"])):
        path = kept / "tables" / miniature_claims.folder_of(seeds) / miniature_claims.VERDICTS
        assert list(json.loads(path.read_text())["claims"]) == names
        path.unlink()
    assert set(miniature_claims.claims_of(run_in(kept), [0])[0]) == {"C2a"}


def test_a_store_s_verdicts_are_kept_with_their_jobs_and_not_taken_for_other_seeds(tmp_path: Path, miniature_claims: Any) -> None:
    run = run_in(tmp_path)
    miniature_claims.write_verdicts(run, [0])
    path = run.out / miniature_claims.VERDICTS
    assert json.loads(path.read_text()) == {"seeds": [0], "claims": {}}
    jobs = miniature_claims.job_keys(next(one for one in load_claims().claims if one.id == "C6"), miniature_claims.recipes_of(run, [0]))
    found = {"outcome": "INCONCLUSIVE", "detail": "passed: S3 0/1", "p_value": None, "seeds": 1, "effects": []}
    content = {"seeds": [0], "claims": {"C6": {"jobs": list(jobs), "found": found}}}
    path.write_text(json.dumps(content))
    claims, lacking = miniature_claims.claims_of(run, [0])
    assert claims["C6"].outcome == "NOT-SUPPORTED-ANALOGUE" and "C7: features" in lacking and not [one for one in lacking if "C6" in one]
    assert miniature_claims.claims_of(run, [1])[0] == {}
    # Laid out as --keep does it.
    kept = run.out / miniature_claims.folder_of([0]) / miniature_claims.VERDICTS
    kept.parent.mkdir()
    path.rename(kept)
    assert miniature_claims.claims_of(run, [0])[0] == claims
    content["claims"]["C6"]["jobs"] = ["0" * 64]  # type: ignore[index]
    kept.write_text(json.dumps(content))
    with pytest.raises(SystemExit, match=r"claim C6 rests on other jobs than today's figure3"):
        miniature_claims.claims_of(run, [0])
