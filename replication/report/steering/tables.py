"""Figure 3 in words and numbers: strata, selection rules, dose curve, checks, the authors' own rewards, as blocks of a report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from replication.report.cells import Listing, PlantedNumber, Provenance, Report
from replication.report.steering.authors_figure import authors_checks, authors_listing, read_authors
from replication.report.steering.check import Check, signed
from replication.report.steering.checks import CLAIM_CHECKS, checks, claim_holds, how_many
from replication.report.steering.controls import cruder_means, dose_curve, standardised
from replication.report.steering.experiment import STRATA, STRATUM_NAMES, Steering, prompt_kinds, read_steering
from replication.report.steering.planted_refusal import planted_refusal, refusal_listing, refusal_numbers
from replication.report.steering.selection import RULES

NAME = "figure3"
TITLE = "Rewards before and after steering one latent"
# By whether a steering file was given.
TITLES = {False: TITLE.lower(), True: "rewards before and after the edit of a steering file"}
DASH = "—"
D_IS = "mean shift over the standard deviation of the stratum's rewards before"
# Latents of a steering file that a sentence names, and that a block lists.
NAMED, LISTED = 5, 40


class SteeringRun(NamedTuple):
    """One seed's artifact of `steer_rewards`, or why there is none."""

    seed: int
    folder: Path | None
    missing: str = ""


class Figure3(NamedTuple):
    """The report, and for each seed that has run what its figure is drawn from and its checks."""

    report: Report
    data: dict[int, Steering]
    checks: dict[int, list[Check]]


def figure3_report(
    runs: Sequence[SteeringRun],
    *,
    profile: str,
    protocol: str,
    why_not_comparable: str,
    concepts: Path | None = None,
    authors: Path | None = None,
    extra: Sequence[Listing] = (),
    deviations: Sequence[str] = (),
    provenance: Sequence[Provenance] = (),
    notes: Sequence[str] = (),
) -> Figure3:
    """Everything that `replicate figure3` prints.

    `concepts` is a miniature's `concepts.json` (its labels split S7 and say what the latent is), `authors` the file of the authors'
    rewards; without them their parts say so. `extra` are further blocks. Raises what `read_steering` and `read_authors` raise.
    """
    data: dict[int, Steering] = {}
    for run in runs:
        if run.folder is not None:
            found = read_steering(run.folder)
            kinds = prompt_kinds(concepts, str(found.facts["target"])) if concepts else {}
            data[run.seed] = replace(found, kinds=kinds)
    tested = {seed: checks(one, seed=seed) for seed, one in data.items()}
    planted = planted_blocks(data, concepts)
    listings = [one for seed in data for one in (*planted.listings.get(seed, ()), *steering_tables(data[seed], tested[seed], seed=seed))]
    if len(data) > 1:
        listings.insert(0, over_seeds(tested))
    listings += [*extra, *(authors_blocks(authors) if authors else ())]
    gaps = [f"seed {run.seed}: {run.missing or 'not yet run'}" for run in runs if run.folder is None]
    own = [] if authors else ["The authors' rewards are not at hand (SARM_DATA), so they are not shown."]
    report = Report(
        experiment=NAME, title=_title(data), profile=profile, protocol=protocol, seeds=tuple(run.seed for run in runs),
        comparable=not why_not_comparable, why_not_comparable=why_not_comparable, tables=(), listings=tuple(listings),
        deviations=tuple(deviations), provenance=tuple(provenance), planted=planted.numbers,
        notes=(*notes, *_claims(data, tested), *planted.notes, *gaps, *own),
    )  # fmt: skip
    return Figure3(report=report, data=data, checks=tested)


def _title(data: dict[int, Steering]) -> str:
    return f"Figure 3: {TITLES[any(one.from_file for one in data.values())]}"


class PlantedBlocks(NamedTuple):
    """What a miniature's labels say of the steered latents: blocks by seed, numbers, sentences."""

    listings: dict[int, tuple[Listing, ...]]
    numbers: tuple[PlantedNumber, ...]
    notes: tuple[str, ...]


def planted_blocks(data: dict[int, Steering], concepts: Path | None) -> PlantedBlocks:
    """Each seed's latent against the planted concept, or why it cannot be compared."""
    if concepts is None:
        why = ("Planted concept: not measured, real data have no labels of what a reply carries.",) if data else ()
        return PlantedBlocks({}, (), why)
    listings: dict[int, tuple[Listing, ...]] = {}
    numbers: list[PlantedNumber] = []
    notes = []
    for seed, one in data.items():
        if one.from_file:
            notes.append(f"seed {seed}: planted concept: not measured, the edit is a steering file's and stands for no concept.")
            continue
        found = planted_refusal(one, concepts, seed=seed)
        if found is None:
            notes.append(f"seed {seed}: planted concept: not measured, too few prompts of a half carry or lack it.")
            continue
        listings[seed] = (refusal_listing(found, name=NAME, rule=str(one.facts["rule"]), seed=seed),)
        numbers += refusal_numbers(found, seed=seed)
        notes.append(f"seed {seed}: {found.sentence}")
    return PlantedBlocks(listings, tuple(numbers), tuple(notes))


def _claims(data: dict[int, Steering], tested: dict[int, list[Check]]) -> list[str]:
    files = [
        f"seed {seed}: edited by a steering file, {edit_text(one)}: the paper's claim is about the latent that its rule chooses, and is "
        "not tested here; what asks how a latent was chosen (S1, S2, S8 to S12) is left out."
        for seed, one in data.items()
        if one.from_file
    ]
    chosen = {seed: found for seed, found in tested.items() if not data[seed].from_file}
    return [*files, *(f"seed {seed}: {how_many(found)} Here: {claim_holds(found)}." for seed, found in chosen.items())]


def edit_text(data: Steering) -> str:
    """A file's edit in words: the latents that change the head most, and how many more there are."""
    order = sorted(data.edit, key=lambda latent: (-abs((data.edit[latent] - 1) * data.head[latent]), latent))
    shown = ", ".join(f"latent {latent} times {data.edit[latent]:g}" for latent in order[:NAMED])
    return shown + (f" and {len(order) - NAMED} more" if len(order) > NAMED else "")


def steering_tables(data: Steering, found: Sequence[Check], *, seed: int) -> tuple[Listing, ...]:
    """The blocks of one artifact: rewards by stratum, rules or a file's latents, dose curve, cruder means, checks."""
    what = "the steering file's edit" if data.from_file else "the steered latent"
    tested = checks_listing(found, name=f"{NAME}-checks-seed{seed}", title=f"Checks of {what}, seed {seed}")
    if data.from_file:
        return rewards_listing(data, seed=seed), edit_listing(data, seed=seed), dose_listing(data, seed=seed), tested
    return (
        rewards_listing(data, seed=seed),
        rules_listing(data, seed=seed),
        dose_listing(data, seed=seed),
        means_listing(data, seed=seed),
        tested,
    )


def edit_listing(data: Steering, *, seed: int) -> Listing:
    """What each latent of a steering file does alone, the one that moves T most first."""
    rows = []
    for latent, factor in data.edit.items():
        d = standardised(data, data.shift(latent, factor))
        active = int((data.target.activation(latent)[data.strata["T"]] != 0).sum())
        numbers = (_number(float(data.head[latent]), sign=True), str(active), *(_number(d[name], sign=True) for name in STRATA))
        rows.append((abs(d["T"]) if math.isfinite(d["T"]) else 0.0, latent, (str(latent), f"{factor:g}", *numbers)))
    shown = [row for _, _, row in sorted(rows, key=lambda one: (-one[0], one[1]))]
    columns = ("latent", "factor", "w", "active on T", *(f"d on {name}" for name in STRATA))
    more = (f"the {LISTED} of {len(shown)} that move T most",) if len(shown) > LISTED else ()
    return Listing(
        name=f"{NAME}-edit-seed{seed}", title=f"The steering file's latents, each alone, seed {seed}", columns=columns, numeric=columns,
        rows=tuple(shown[:LISTED]), notes=("rewards are linear in latents, so the shifts add up to that of the whole edit", *more),
    )  # fmt: skip


def rewards_listing(data: Steering, *, seed: int) -> Listing:
    """Rewards before and after in each stratum."""
    facts = data.facts
    d = standardised(data, data.change)
    rows = []
    for name in STRATA:
        mask = data.strata[name]
        on = mask & data.touched
        before, change = data.rewards[mask], data.change[mask]
        rows.append(
            (
                name, STRATUM_NAMES[name], str(int(mask.sum())), str(int(on.sum())), _number(float(before.mean())),
                _number(float((before + change).mean())), _number(float(change.mean()), sign=True),
                _number(float(data.change[on].mean()) if on.any() else math.nan, sign=True), _number(d[name], sign=True),
            )
        )  # fmt: skip
    columns = ("stratum", "replies", "n", "active", "before", "after", "shift", "where active", "d")
    chosen = (
        f"latent {data.latent}, chosen by {facts['rule']} on {facts['selection']} {facts['subset']!r}; tested on {facts['target']}; "
        f"factor {data.multiplier:g} (the paper does not state its own)"
    )
    given = f"edited by a steering file: {edit_text(data)}; tested on {facts['target']}; active: any of its latents is"
    forced = facts.get("trained_on", "topk") != "topk"
    put_in = ("TopK is put in for steering; the head was trained on pre-activations: not the rewards of the tables",) if forced else ()
    on_target = data.selects_on_target and not data.from_file
    same = ("choice and test share their prompts, as in the preprint: see the cross-fitted checks",) if on_target else ()
    return Listing(
        name=f"{NAME}-rewards-seed{seed}", title=f"Rewards before and after, seed {seed}", columns=columns, numeric=columns[2:],
        rows=tuple(rows),
        notes=(given if data.from_file else chosen, *same, *put_in, f"d: {D_IS}"),
    )  # fmt: skip


def rules_listing(data: Steering, *, seed: int) -> Listing:
    """What each of the three selection rules chooses, and what it does at the same factor."""
    rows = []
    for rule in RULES:
        latent = data.facts["rules"].get(rule)
        if latent is None:
            rows.append((rule, "none", *[DASH] * 6))
            continue
        change = data.shift(latent, data.multiplier)
        d = standardised(data, change)
        active = int((data.target.activation(latent)[data.strata["T"]] != 0).sum())
        rows.append(
            (rule, str(latent), _number(float(data.s[latent])), _number(float(data.t[latent]), sign=True),
             _number(float(data.head[latent]), sign=True), str(active), _number(d["T"], sign=True), _number(d["C2"], sign=True))
        )  # fmt: skip
    columns = ("rule", "latent", "s", "t", "w", "active on T", "d on T", "d on C2")
    return Listing(
        name=f"{NAME}-rules-seed{seed}", title=f"The three selection rules at factor {data.multiplier:g}, seed {seed}", columns=columns,
        numeric=columns[1:], rows=tuple(rows),
        notes=(
            f"t is the score s on the complement, normalised alike (the authors keep the plain sum); bound on |t|: {data.facts['bound']:g}",
            "none: no latent within the rule is more active on chosen than on rejected replies",
        ),
    )  # fmt: skip


def dose_listing(data: Steering, *, seed: int) -> Listing:
    """The dose curve: standardised shifts and subset scores for each factor."""
    curve = dose_curve(data)
    names = tuple(curve[0].accuracies)
    rows = tuple(
        (
            f"{dose.multiplier:g}",
            *(_number(dose.shifts[name], sign=True) for name in STRATA),
            *(_number(dose.accuracies[name], digits=1) for name in names),
        )
        for dose in curve
    )
    columns = ("multiple" if data.from_file else "factor", *(f"d {name}" for name in STRATA), *names)
    notes = ("multiple 1 is the file's edit, 0 the model as trained",) if data.from_file else ()
    title = f"Dose curve, seed {seed}"
    return Listing(name=f"{NAME}-dose-seed{seed}", title=title, columns=columns, numeric=columns, rows=rows, notes=notes)


def means_listing(data: Steering, *, seed: int) -> Listing:
    """S12 in full: the edit beside cruder means with the same mean shift on T."""
    columns = ("means", "shift T", "d T", "d C1", "d C2", "d C3", "concept", "worst other", "margin")
    rows = []
    for one in cruder_means(data):
        shifts = [_number(one.shifts[name], sign=True) for name in STRATA]
        points = [_number(value, sign=True, digits=1) for value in (one.concept_points, one.worst_other)]
        rows.append((one.name, _number(one.mean_t, sign=True), *shifts, *points, _number(one.margin, sign=True)))
    return Listing(
        name=f"{NAME}-means-seed{seed}", title=f"Cruder means at the same mean shift on T, seed {seed}", columns=columns,
        numeric=columns[1:], rows=tuple(rows),
        notes=(
            "fitted and tested on the target itself, so the mean differences are favoured; points of accuracy; "
            "margin: chosen minus best rejected",
        ),
    )  # fmt: skip


def checks_listing(found: Sequence[Check], *, name: str, title: str, notes: tuple[str, ...] = ()) -> Listing:
    """Checks as a block of text."""
    rows = tuple((check.name, check.question, check.finding, check.outcome) for check in found)
    return Listing(name=name, title=title, columns=("check", "question", "found", "outcome"), rows=rows, notes=notes)


def over_seeds(tested: dict[int, list[Check]]) -> Listing:
    """The outcome of each check for each seed."""
    names = list(dict.fromkeys(check.name for found in tested.values() for check in found if check.outcome in ("pass", "fail")))
    outcomes = {seed: {check.name: check.outcome for check in found} for seed, found in tested.items()}
    rows = [(name, *(outcomes[seed].get(name, DASH) for seed in tested)) for name in names]
    columns = ("check", *(f"seed {seed}" for seed in tested))
    if not all(name in outcomes[seed] for seed in tested for name in CLAIM_CHECKS):
        return Listing(name=f"{NAME}-seeds", title="Outcomes over seeds", columns=columns, rows=tuple(rows))
    rows.append(("claim", *(claim_holds(found) for found in tested.values())))
    note = "claim: S3, S5, S6 and S8 all pass; S3 and S5 cross-fitted where the latent was chosen on the target"
    return Listing(name=f"{NAME}-seeds", title="Outcomes over seeds", columns=columns, rows=tuple(rows), notes=(note,))


def authors_blocks(path: Path) -> tuple[Listing, Listing]:
    """The authors' own rewards: their numbers against those on file, and the checks that rewards alone allow."""
    figure = read_authors(path)
    title = "Checks S2 to S5 on the authors' rewards"
    notes = ("The complement has one answer a prompt; strata, margins and other latents cannot be told from rewards alone.",)
    return authors_listing(figure), checks_listing(authors_checks(figure), name=f"{NAME}-authors-checks", title=title, notes=notes)


def _number(value: float, *, digits: int = 3, sign: bool = False) -> str:
    """A number, or a dash where there is none."""
    if not np.isfinite(value):
        return DASH
    text = signed(value, digits)
    return text if sign else text.removeprefix("+")
