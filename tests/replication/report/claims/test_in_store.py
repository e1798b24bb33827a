"""Claims on steering and on explanations from what the store has, and what happens where protocols differ."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from explained_store import explained_store
from fake_launcher import FakeLauncher, commit
from synthetic_steering import EVERYWHERE, SAFE, SILENT, steering

from replication.plan.steps import ordered
from replication.recipes.jobs_needed import Recipe, recipe
from replication.recipes.setting import Setting
from replication.report.claims import in_store
from replication.report.claims.definitions import ClaimFile, ClaimResult, load_claims
from replication.report.claims.in_store import ClaimsInStore
from replication.report.claims.own import OwnFound
from replication.report.steering import experiment
from replication.settings.experiments import EXPERIMENTS
from replication.settings.profile_files import load_profile
from replication.settings.protocols import PROTOCOLS
from sarm.store.artifacts import ArtifactStore


def only(claim: str) -> ClaimFile:
    file = load_claims()
    return file.model_copy(update={"claims": tuple(one for one in file.claims if one.id == claim)})


def figure3(protocol: str = "paper", seeds: tuple[int, ...] = (0, 1, 2)) -> Recipe:
    profile = load_profile("mini", environment={})
    return recipe(Setting(experiment=EXPERIMENTS["figure3"], profile=profile, protocol=PROTOCOLS[protocol], seeds=seeds))


def steered_store(folder: Path, *recipes: Recipe) -> ArtifactStore:
    """A store with (empty) steering artifacts of every seed."""
    store = ArtifactStore(folder)
    for one in recipes:
        for training in one.trainings:
            assert training.steering is not None
            commit(training.steering, store, lambda output: (output / "steering.json").write_text("{}"))
    return store


def steer(monkeypatch: pytest.MonkeyPatch, latent: int) -> None:
    data = steering(latent, ties=4)
    monkeypatch.setattr(experiment, "read_steering", lambda folder: data)


def c6(store: ArtifactStore, *, analogue: bool = False) -> ClaimResult:
    (found,) = ClaimsInStore(only("C6"), store).results({"paper": {"figure3": figure3()}}, analogue=analogue)["C6"]
    return found


def test_steering_follows_the_planted_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = steered_store(tmp_path, figure3())
    steer(monkeypatch, SAFE)
    found = c6(store)
    assert "S3 3/3" in found.detail and "3 seeds" in found.detail
    assert found.outcome == ("SUPPORTED" if all(f"{name} 3/3" in found.detail for name in ("S5", "S6", "S8")) else "DIRECTION ONLY")
    assert c6(store, analogue=True).outcome.endswith("-ANALOGUE")
    # A latent that fires everywhere moves the concept's answers too, and all others with them.
    steer(monkeypatch, EVERYWHERE)
    assert c6(store).outcome in ("DIRECTION ONLY", "INCONCLUSIVE") and "S5 0/3" in c6(store).detail
    steer(monkeypatch, SILENT)
    assert c6(store).outcome in ("CONTRADICTED", "INCONCLUSIVE") and "S3 0/3" in c6(store).detail


def test_steering_needs_every_seed(tmp_path: Path) -> None:
    store = steered_store(tmp_path, figure3(seeds=(0, 1)))
    claimed = ClaimsInStore(only("C6"), store)
    assert claimed.results({"paper": {"figure3": figure3()}}, analogue=True) == {}
    assert claimed.missing({"figure3": figure3()}) == {"figure3": ["its results for claim C6"]}


def test_explanations_are_held_against_the_frozen_random_encoder(tmp_path: Path) -> None:
    made, store = explained_store(tmp_path, seeds=(0, 1, 2))
    (found,) = ClaimsInStore(only("C7"), store).results({"paper": {"features": made}}, analogue=False)["C7"]
    assert found.outcome == "SUPPORTED" and found.detail.startswith("detection +25.00 [") and "3 seeds" in found.detail
    one, store = explained_store(tmp_path / "one", seeds=(0,))
    (single,) = ClaimsInStore(only("C7"), store).results({"paper": {"features": one}}, analogue=False)["C7"]
    assert single.outcome == "INCONCLUSIVE" and "of one latent, which tells no interval; 1 seed" in single.detail and not single.effects


def test_a_claim_that_flips_between_protocols_is_reported_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    protocols = {name: {"figure3": figure3(name)} for name in ("paper", "aaai", "authors")}
    store = steered_store(tmp_path, *(one["figure3"] for one in protocols.values()))
    of_paper = {store.path(one.steering) for one in protocols["paper"]["figure3"].trainings if one.steering is not None}
    good, bad = steering(SAFE, ties=4), steering(SILENT)
    monkeypatch.setattr(experiment, "read_steering", lambda folder: good if folder in of_paper else bad)
    found = ClaimsInStore(only("C6"), store).results(protocols, analogue=False)["C6"]
    assert [one.protocol for one in found] == ["paper", "aaai", "authors", "paper, aaai, authors"]
    assert found[-1].outcome == "SPEC-DEPENDENT" and found[-1].detail.startswith(f"paper: {found[0].outcome}; aaai: {found[1].outcome}")


def test_the_same_jobs_are_one_result_under_both_names(tmp_path: Path) -> None:
    base = Setting(experiment=EXPERIMENTS["table2"], profile=load_profile("mini", environment={}), protocol=PROTOCOLS["paper"])
    tables = {name: {"table2": recipe(replace(base, protocol=PROTOCOLS[name]))} for name in ("paper", "aaai")}
    store = ArtifactStore(tmp_path)
    FakeLauncher().launch(ordered(tables["paper"]["table2"].jobs), store, lambda event: None)
    (found,) = ClaimsInStore(only("C2b"), store).results(tables, analogue=True)["C2b"]
    assert found.protocol == "paper, aaai"


def test_a_control_that_differs_in_more_than_the_claim_says_decides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under `authors` the pretrained encoder is trained on and has no TopK, which a random one cannot share."""
    profile = load_profile("mini", environment={})
    tables = {
        name: {"table2": recipe(Setting(experiment=EXPERIMENTS["table2"], profile=profile, protocol=PROTOCOLS[name], seeds=(0, 1, 2)))}
        for name in ("paper", "authors")
    }
    held = OwnFound("SUPPORTED", "over random-init-matched +9.00 [+8.00, +10.00]", 0.001, 3)
    monkeypatch.setattr(in_store, "evaluated", lambda *_, **__: held)
    by_protocol = {one.protocol: one for one in ClaimsInStore(only("C2b"), ArtifactStore(tmp_path)).results(tables, analogue=False)["C2b"]}
    assert by_protocol["paper"].outcome == "SUPPORTED"
    assert by_protocol["authors"].outcome == "INCONCLUSIVE" and by_protocol["authors"].p_value is None
    assert "the rows differ in latents, reconstruction_weight, sae_trains too" in by_protocol["authors"].detail
    # The authors' own control is compared as they did, whatever it differs in.
    assert ClaimsInStore(only("C2a"), ArtifactStore(tmp_path)).results(tables, analogue=False)["C2a"][-1].outcome == "SUPPORTED"
