"""docs/miniature.md shows what the files in reference/miniature say: it is written by hand from the measurement's output."""

from __future__ import annotations

import importlib
import json
import math
import re
from typing import Any

from folders import ROOT


def script(name: str) -> Any:
    return importlib.import_module(name)


def test_the_page_shows_what_the_kept_results_files_say() -> None:
    runs, tables = script("miniature_runs"), script("miniature_tables")
    page = (ROOT / "docs" / "miniature.md").read_text(encoding="utf-8")
    folders = sorted((ROOT / "reference" / "miniature").glob("language-*"))
    assert folders
    whole = {int(one.name.removeprefix("language-")): runs.load_results(next(one.glob("tables/*/table1.results.json"))) for one in folders}
    assert not [line for line in script("miniature_machines").dispersions_of_seeds(whole).splitlines() if line not in page]
    for folder in folders:
        language = int(folder.name.removeprefix("language-"))
        seeds = runs.load_results(next(folder.glob("tables/*/table1.results.json"))).seeds
        run = runs.Run(store=folder, out=folder / "tables", profile="mini", sets=(f"miniature.seed={language}",), read=True)
        found = {language: runs.read_elsewhere(run, seeds)}
        levels, _ = tables.levels(found, {language: tables.Simulated(math.nan, math.nan)})
        spread, _ = tables.spread(found)
        # Ties above random, the last cell, wants the language's own items.
        shown = [line.rpartition(" | ")[0] for line in levels.splitlines()[2:]] + spread.splitlines()[2:]
        assert len(shown) == 8 and not [line for line in shown if line not in page]


def test_the_page_shows_what_the_diff_says_of_the_kept_faults() -> None:
    runs, faults = script("miniature_runs"), script("miniature_faults")
    page = (ROOT / "docs" / "miniature.md").read_text(encoding="utf-8")
    folder = ROOT / "reference" / "miniature" / "language-0"
    run = runs.Run(store=folder, out=folder / "base", profile="mini", sets=("miniature.seed=0",), read=True)
    base = ROOT / "reference" / "mini" / "table1.results.json"
    kept = [fault for fault in faults.FAULTS if faults.run_of(fault, run, folder / "faults").has("table1") and not fault.cuts]
    assert kept
    text, _ = faults.table([faults.tried(fault, run, folder / "faults", 0, base) for fault in kept])
    assert not [line for line in text.splitlines()[2:] if line not in page]


def test_the_page_shows_how_far_the_kept_machines_are_from_the_reference() -> None:
    runs, machines = script("miniature_runs"), script("miniature_machines")
    page = (ROOT / "docs" / "miniature.md").read_text(encoding="utf-8")
    folder = ROOT / "reference" / "miniature" / "language-0"
    run = runs.Run(store=folder, out=folder / "base", profile="mini", sets=("miniature.seed=0",), read=True)
    texts, holds = machines.measure(run, folder / "machines", 0, base=ROOT / "reference" / "mini" / "table1.results.json")
    rows = [line for text in texts[:2] for line in text.splitlines() if line]
    assert len(rows) > 8 and holds and not [row for row in rows if row not in page]


def test_the_page_shows_which_latent_was_steered_and_which_knows_refusal_best() -> None:
    page = (ROOT / "docs" / "miniature.md").read_text(encoding="utf-8")
    paths = sorted((ROOT / "reference" / "miniature").glob("language-*/tables/seeds-0-1-2-3-4/figure3.results.json"))
    told = 0
    for path in paths:
        language = path.relative_to(ROOT / "reference" / "miniature").parts[0].removeprefix("language-")
        report = script("miniature_runs").load_results(path)
        found = {(one.seed, one.measure): one for one in report.planted}
        assert {seed for seed, _ in found} == set(report.seeds)
        for seed in report.seeds:
            steered, best, other = (found[seed, name] for name in ("steered-latent", "best-latent", "steered-agrees-with"))
            latents = [one.subject.partition(",")[0].removeprefix("latent ") for one in (steered, best)]
            line = next(line for line in page.splitlines() if line.startswith(f"| {language} | {seed} | {latents[0]} | "))
            for one in (steered, best):
                assert f"{one.value:.2f}" in line and f"[{one.low:.2f}, {one.high:.2f}]" in line, (language, seed, one.measure)
            assert f"{latents[1]}, " in line and f"{other.value:.2f} |" in line
            # What was kept before the report told of the pairs does not say it.
            notes = " ".join(next(one.notes for one in report.listings if one.name == f"figure3-planted-seed{seed}"))
            number = r"([\d,]*\d)"
            pairs = re.search(f"Of {number} pairs the chosen reply is reply:refusal in {number} and the rejected one in {number}", notes)
            assert pairs is None or f"| {language} | {pairs[1]} | {pairs[2]} | {pairs[3]} |" in page
            told += pairs is not None
    assert told, "of one language at least"


def test_the_page_shows_how_well_latents_know_planted_concepts() -> None:
    page = " ".join((ROOT / "docs" / "miniature.md").read_text(encoding="utf-8").split())
    paths = sorted((ROOT / "reference" / "miniature").glob("language-*/tables/seeds-0-1-2-3-4/features.results.json"))
    reports = [script("miniature_runs").load_results(path) for path in paths]
    for report in reports:
        for one in report.planted:
            if one.measure == "recovery-difference" and one.seed is None:
                assert f"{one.value:+.2f} [{one.low:+.2f}, {one.high:+.2f}]" in page, one.subject
    # The whole of it is shown of language 0.
    found = {(one.measure, one.subject, one.seed): one for one in reports[0].planted}
    for subject in ("sentence", "reply"):
        own = found["recovery", subject, None]
        assert f"{own.value:.2f} [{own.low:.2f}, {own.high:.2f}]" in page and f"({found['recovery', subject, 0].n}" in page, subject
        assert f"{found['recovery-random', subject, None].value:.2f}" in page
    for seed in reports[0].seeds:
        cells = []
        for subject in ("pretrained", "frozen random"):
            one, other = found["names", subject, seed], found["names-by-one-name", subject, seed]
            cells += [f"{100 * one.value:.1f} % [{100 * one.low:.1f}, {100 * one.high:.1f}]", f"{100 * other.value:.0f} %"]
        assert f"| {seed} | {' | '.join(cells)} |" in page


def test_the_page_shows_what_the_kept_files_say_of_the_papers_claims() -> None:
    runs, claims = script("miniature_runs"), script("miniature_claims")
    page = (ROOT / "docs" / "miniature.md").read_text(encoding="utf-8")
    shown = []
    for folder in sorted((ROOT / "reference" / "miniature").glob("language-*")):
        language = int(folder.name.removeprefix("language-"))
        run = runs.Run(store=folder, out=folder / "tables", profile="mini", sets=(f"miniature.seed={language}",), read=True)
        found, lacking = claims.claims_of(run, range(5))
        assert {*found, *(line.partition(":")[0] for line in lacking)} == {one.id for one in claims.load_claims().claims if one.experiment}
        shown += claims.table({language: (found, [])}, range(5)).splitlines()[2:]
    assert shown and not [line for line in shown if line not in page]
    assert {line for line in page.splitlines() if re.match(r"\| C\d", line)} == set(shown)


def test_what_is_kept_names_no_place_of_a_machine() -> None:
    files = sorted((ROOT / "reference").rglob("*.results.json"))
    assert files
    for path in files:
        command = json.loads(path.read_text(encoding="utf-8"))["command"]
        assert not re.search(r"(^|[\s=:'\"])[/~]", command), path
