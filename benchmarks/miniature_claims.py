"""The paper's claims in one language: from credits of items that are kept beside results files, and from what a store says of the others.

A store is large and goes with its machine; what a claim about accuracies needs of it is which items each model gets right.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Final

from miniature_faults import WHERE
from miniature_runs import Run, joined, markdown

from replication.recipes.jobs_needed import Recipe, recipe
from replication.recipes.requested import Chosen, experiments_named, settings_for
from replication.report.claims.definitions import ClaimResult, Effect, load_claims
from replication.report.claims.in_store import ClaimsInStore, job_keys
from replication.report.claims.own import Arms, OwnFound, evaluated, judged, rows_needed
from replication.report.claims.paired_items import Credits, rewardbench2_credits
from replication.report.results.model import RewardFile
from replication.report.results.reading import read_results
from replication.report.results.score_files import read_rewards
from sarm.store.artifacts import ArtifactStore
from sarm.store.checksums import sha256_of

RESULTS, CREDITS, VERDICTS = ".results.json", ".credits.json", "claims.json"
BENCHMARK: Final = "rewardbench2"
# Kinds of claims that no credits of items tell.
IN_STORE = ("steering", "detection")

# Artifact of a scoring, kind/key -> credits.
ByArtifact = dict[str, Credits]


def credits_of(results: Path) -> ByArtifact:
    """The credits of every scoring that a results file names: from the file kept beside it, else from the rewards themselves.

    Nothing where neither is there. Raises SystemExit where either is of other rewards than the results file describes.
    """
    files = [one for one in read_results(results).rewards if one.benchmark == BENCHMARK and one.seed is not None]
    path = results.with_name(results.name.replace(RESULTS, CREDITS))
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    found: ByArtifact = {}
    for one in files:
        rewards = results.parent / one.file
        if kept is None and not rewards.exists():
            continue
        found[one.artifact] = _kept_credits(path, kept, one) if kept is not None else _credits_of_rewards(rewards, one)
    return found


def _kept_credits(path: Path, kept: Mapping[str, Any], one: RewardFile) -> Credits:
    own = kept["credits"].get(one.artifact)
    if own is None or own["rewards"] != one.sha256:
        raise SystemExit(f"{path}: no credits of {one.model}, seed {one.seed}, from the rewards that the results file describes")
    return {subset: dict(zip(kept["items"][subset], values, strict=True)) for subset, values in own["subsets"].items()}


def _credits_of_rewards(path: Path, one: RewardFile) -> Credits:
    if sha256_of(path) != one.sha256:
        raise SystemExit(f"{path}: not the rewards that the results file describes")
    return rewardbench2_credits(read_rewards(path, BENCHMARK))


def write_credits(results: Path, target: Path) -> None:
    """Keep the credits of a results file's models, by the order of the items' names. Raises SystemExit where models saw other items."""
    items: dict[str, list[str]] = {}
    content: dict[str, dict[str, Any]] = {}
    sums = {one.artifact: one.sha256 for one in read_results(results).rewards}
    for artifact, credits in credits_of(results).items():
        for subset, values in credits.items():
            if items.setdefault(subset, list(values)) != list(values):
                raise SystemExit(f"{results}: {artifact}: other items of {subset} than another model's")
        subsets = {subset: [short(value) for value in values.values()] for subset, values in credits.items()}
        content[artifact] = {"rewards": sums[artifact], "subsets": subsets}
    text = json.dumps({"items": items, "credits": content}, separators=(",", ":"))
    # A line for each model and seed: a later measurement changes its own lines alone.
    target.write_text(text.replace('{"rewards"', '\n{"rewards"') + "\n", encoding="utf-8")


def short(value: float) -> float | int:
    """1 for 1.0: nearly all are 0 or 1."""
    return int(value) if value.is_integer() else value


def keep(folder: Path, target: Path) -> list[Path]:
    """Copy what --results reads of one language; tables into folders named for their seeds, a further one for other rows of the same.

    Gives what was written.
    """
    written = []
    for path in sorted([*folder.rglob(f"*{RESULTS}"), *folder.rglob(WHERE)]):
        place = path.relative_to(folder)
        if "store" in place.parts or "tree" in place.parts:
            continue
        is_table = place.parts[0] == "tables"
        copy = _without_loss(path, target / "tables") if is_table else target / place
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        written.append(copy)
        if is_table and credits_of(path):
            credits = copy.with_name(copy.name.replace(RESULTS, CREDITS))
            write_credits(path, credits)
            written.append(credits)
    return written + _keep_verdicts(folder / "tables" / VERDICTS, target / "tables")


def folder_of(seeds: Sequence[int]) -> str:
    """`seeds-0-1`: what is kept of these seeds lies in a folder of this name."""
    return f"seeds-{joined(seeds).replace(',', '-')}"


def _without_loss(path: Path, folder: Path) -> Path:
    """Where a table's results go: over results that rest on no scoring but its own, else into a further folder."""
    found = read_results(path)
    own, name = {one.artifact for one in found.rewards}, folder_of(found.seeds)
    places = (folder / (name if number == 1 else f"{name}.{number}") / path.name for number in count(1))
    return next(copy for copy in places if not copy.is_file() or {one.artifact for one in read_results(copy).rewards} <= own)


def _keep_verdicts(path: Path, tables: Path) -> list[Path]:
    """What a store said of claims, beside what another said of others with the same seeds."""
    own = _verdicts_in(path)
    if not own["claims"]:
        return []
    target = tables / folder_of(own["seeds"]) / VERDICTS
    own["claims"] = {**_verdicts_in(target)["claims"], **own["claims"]}
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(own, indent=1) + "\n", encoding="utf-8")
    return [target]


def _verdicts_in(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"seeds": [], "claims": {}}  # type: ignore[no-any-return]


def recipes_of(run: Run, seeds: Sequence[int]) -> dict[str, Recipe]:
    """The recipes of the experiments whose results bear on a claim."""
    names = [claim.experiment for claim in load_claims().claims if claim.experiment]
    chosen = Chosen(profile=run.profile, seeds=joined(seeds), assignments=run.sets)
    settings = settings_for(experiments_named(names), chosen, ArtifactStore(run.store), {})
    return {setting.experiment.name: recipe(setting) for setting in settings}


def write_verdicts(run: Run, seeds: Sequence[int]) -> None:
    """What the store says of the claims that credits do not tell, with the jobs that it rests on."""
    file, recipes, found = load_claims(), recipes_of(run, seeds), {}
    in_store = ClaimsInStore(file, ArtifactStore(run.store))
    for claim in file.claims:
        own = in_store.evaluation(claim, recipes) if claim.kind in IN_STORE else None
        if own is not None:
            effects = [one.model_dump() for one in own.effects]
            found[claim.id] = {"jobs": job_keys(claim, recipes), "found": {**own._asdict(), "effects": effects}}
    run.out.mkdir(parents=True, exist_ok=True)
    (run.out / VERDICTS).write_text(json.dumps({"seeds": list(seeds), "claims": found}, indent=1) + "\n", encoding="utf-8")


def verdicts_of(run: Run, recipes: Mapping[str, Recipe], seeds: Sequence[int]) -> dict[str, OwnFound]:
    """What was kept of them, by claim; nothing for other seeds. Raises SystemExit where it rests on other jobs than today's."""
    places = (run.out / folder_of(seeds) / VERDICTS, run.out / VERDICTS)
    path = next((one for one in places if one.is_file()), places[-1])
    kept = _verdicts_in(path)
    if kept["seeds"] != list(seeds):
        return {}
    claims, found = {claim.id: claim for claim in load_claims().claims}, {}
    for name, one in kept["claims"].items():
        if tuple(one["jobs"]) != job_keys(claims[name], recipes):
            raise SystemExit(f"{path}: claim {name} rests on other jobs than today's {claims[name].experiment}; run it anew")
        effects = tuple(Effect.model_validate(effect) for effect in one["found"]["effects"])
        found[name] = OwnFound(**{**one["found"], "effects": effects})
    return found


def arms_of(made: Recipe, known: ByArtifact) -> Arms:
    """Row -> credits of the recipe's seeds in order, of rows that have all of them: what another table scored is the same scoring."""
    rows = {}
    for name in dict.fromkeys(one.row.name for one in made.trainings):
        jobs = [one.scores.get(BENCHMARK) for one in made.of_row(name)]
        credits = [known.get(f"{job.kind}/{job.short_key}") if job is not None else None for job in jobs]
        if all(one is not None for one in credits):
            rows[name] = tuple(one for one in credits if one is not None)
    return rows


def credits_by_experiment(folder: Path) -> dict[str, ByArtifact]:
    """Experiment -> the credits of every scoring that its results in a folder name.

    Raises SystemExit where two files of one experiment say different things of one.
    """
    known: dict[str, ByArtifact] = {}
    for path in sorted(folder.rglob(f"*{RESULTS}")):
        own = known.setdefault(read_results(path).experiment, {})
        for artifact, credits in credits_of(path).items():
            if own.setdefault(artifact, credits) != credits:
                raise SystemExit(f"{path}: {artifact}: another file has other credits")
    return known


def credits_for(experiment: str, known: Mapping[str, ByArtifact]) -> ByArtifact:
    """What a claim of an experiment rests on: its own credits, so that it compares models of one table, then those of others.

    A scoring that the experiment's own results lack, and of which others say different things, is left out.
    """
    others: dict[str, list[Credits]] = {}
    for credits in known.values():
        for artifact, values in credits.items():
            others.setdefault(artifact, []).append(values)
    agreed = {artifact: found[0] for artifact, found in others.items() if all(one == found[0] for one in found)}
    return {**agreed, **known.get(experiment, {})}


def trained_again(folder: Path) -> list[str]:
    """A line for each model of which two experiments have different trainings: one job, run twice, that did not give the same."""
    names: dict[tuple[str, str], str] = {}
    for path in sorted(folder.rglob(f"*{RESULTS}")):
        report = read_results(path)
        names |= {(report.experiment, one.artifact): f"{one.model}, seed {one.seed}, of {report.experiment}" for one in report.rewards}
    trainings: dict[str, list[tuple[Credits, list[str]]]] = {}
    for experiment, found in credits_by_experiment(folder).items():
        for artifact, credits in found.items():
            known = trainings.setdefault(artifact, [])
            places = next((places for other, places in known if other == credits), None)
            if places is None:
                known.append((credits, places := []))
            places.append(names[experiment, artifact])
    return [" differs from ".join(" and ".join(places) for _, places in found) for found in trainings.values() if len(found) > 1]


def claims_of(run: Run, seeds: Sequence[int]) -> tuple[dict[str, ClaimResult], list[str]]:
    """The verdicts that what is in `run.out` allows, Holm-adjusted over them, by claim; and a line for each that it does not."""
    file, recipes, known = load_claims(), recipes_of(run, seeds), credits_by_experiment(run.out)
    own = [claim for claim in file.claims if claim.experiment]
    verdicts = verdicts_of(run, recipes, seeds)
    arms = {name: arms_of(made, credits_for(name, known)) for name, made in recipes.items()}
    found, lacking = dict(verdicts), []
    for claim in own:
        rows = arms[claim.experiment]
        one = None if claim.kind in IN_STORE else evaluated(claim, rows, alpha=file.alpha)
        if one is not None:
            found[claim.id] = one
        elif claim.id not in found:
            missing = ", ".join(row for row in rows_needed(claim) if row not in rows)
            lacking.append(f"{claim.id}: {claim.experiment}{f' ({missing})' if missing else ''}")
    return judged(file.claims, found, protocol="paper", analogue=True, alpha=file.alpha), lacking


def table(by_language: Mapping[int, tuple[Mapping[str, ClaimResult], Sequence[str]]], seeds: Sequence[int]) -> str:
    """Each claim's outcome in each language, with its numbers; then what was not measured."""
    rows, missing = [], []
    for language, (found, lacking) in by_language.items():
        rows += [[one.id, str(language), one.outcome, one.detail.replace("|", "/")] for one in found.values()]
        missing += [f"language {language}, {line}" for line in lacking]
    parts = [markdown(["claim", "language", "outcome", "numbers"], sorted(rows))] if rows else []
    parts += [f"Not measured with seeds {joined(seeds)}: {'; '.join(missing)}."] if missing else []
    return "\n\n".join(parts)
