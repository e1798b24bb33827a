"""Size of the report page and seconds to make it at the paper's size: seven tables with pictures, and 65,536 explored latents.

    .venv/bin/python benchmarks/report_page.py [--seeds 3] [--latents 65536] [--rounds 3] [--keep FOLDER]

Numbers are invented near the printed ones, texts are random words (which compress worse than language): what is measured is the page.
Measured rows are those of the registry. Drawing happens once, when a table is made; the page is made anew by each `replicate report`.
"""

from __future__ import annotations

import argparse
import gzip
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from replication.report.cells import Cell, Listing, Measurement, Provenance, Report, Row, Table, Verdict
from replication.report.claims.published import published_claims
from replication.report.latents.explorations import Exploration
from replication.report.published import load_published
from replication.report.render.explorer.embedded import explorer_section
from replication.report.render.page import page
from replication.report.render.parts.addresses import address
from replication.report.render.parts.shown_pictures import shown
from replication.report.render.pictures.drawn import draw, draw_claims
from replication.settings.experiments import EXPERIMENTS, Experiment
from sarm.data.preferences import Message, Preference

LARGEST_MB = 5.0
VERDICTS: tuple[Verdict, ...] = ("EQUIVALENT", "CONSISTENT", "INCONCLUSIVE", "DIFFERS")
RMBENCH = ("Overall", "chat", "math", "code", "safety", "hard", "normal", "easy")
REASON = "difference -0.42 [-1.91, +1.07], margin 1.5, 3 seeds; 14 seeds would decide if the difference stays"
RULE = "Retrained: EQUIVALENT within 1.5 points by two one-sided tests, DIFFERS where the difference excludes that margin"
# RewardBench 2: items and replies of each subset, and the k of SARM-4B.
ITEMS = {"Factuality": (475, 4), "Precise IF": (160, 4), "Math": (183, 4), "Safety": (450, 4), "Focus": (495, 4), "Ties": (102, 9)}
ACTIVE, NEIGHBOURS = 192, 8


class Inventor:
    """Rows, cells and artifacts of one experiment."""

    def __init__(self, experiment: Experiment, seeds: int) -> None:
        self.experiment, self.seeds, self.draw = experiment, seeds, random.Random(experiment.name)

    def key(self) -> str:
        """As of an artifact."""
        return f"{self.draw.getrandbits(48):012x}"

    def cell(self, column: str, near: str | None, n: int, artifacts: tuple[str, ...]) -> Cell:
        """A measured cell near a printed value."""
        values = tuple(min(max(float(near or 70) + self.draw.gauss(0, 1.5), 0), 100) for _ in range(self.seeds))
        several = values if len(values) > 1 else ()
        ours = Measurement(value=statistics.fmean(values), n=n, standard_error=1.1, per_seed=several, artifacts=artifacts)
        return Cell(column=column, ours=ours, published=near, verdict=self.draw.choice(VERDICTS), reason=REASON)

    def table(self, name: str, title: str, columns: Sequence[str], published: str = "") -> Table:
        """The registry's rows measured, the others of the published file quoted."""
        printed = load_published(published) if published else None
        ours = {row.name: row for row in self.experiment.rows}
        quoted = [row.name for row in printed.rows] if printed and not self.experiment.compared_with else []
        names = dict.fromkeys([*quoted, *ours])
        rows = []
        for one in names:
            artifacts = tuple(f"score_benchmark/{self.key()}" for _ in range(self.seeds))
            known = {column: printed.printed(one, column) for column in columns} if printed else dict.fromkeys(columns)
            cells = [
                self.cell(column, near, 500, artifacts) if one in ours else Cell(column=column, published=near, verdict="PUBLISHED ONLY")
                for column, near in known.items()
            ]
            rows.append(Row(name=one, label=one, group="as printed", origin="paper-ours", note="as many vectors", cells=tuple(cells)))
        rules = dict.fromkeys(columns, RULE) if printed else {}
        return Table(name=name, title=title, columns=tuple(columns), rows=tuple(rows), rules=rules)

    def listing(self, name: str, rows: int) -> Listing:
        """Latents with texts of ninety signs."""
        texts = tuple((str(one), f"{1 / (one + 1):.2e}", words(self.draw, 90), words(self.draw, 90)) for one in range(rows))
        columns = ("latent", "weight", "explanation", "context")
        return Listing(name=name, title=name, columns=columns, rows=texts, numeric=columns[:2])

    def report(self) -> Report:
        """The experiment's tables or listings, with an artifact for each row, seed and kind of work."""
        one = self.experiment
        tables = []
        if one.product == "scores":
            tables = [
                self.table(one.published, one.title, one.columns, one.published),
                self.table(f"{one.name}-rmbench", "RM-Bench", RMBENCH),
                self.table(f"{one.name}-pairs", "Held-out pairs", ("All pairs",)),
            ]
        listings = [self.listing(f"latents, seed {seed}", 60) for seed in range(self.seeds)] if not tables else [self.listing("near", 20)]
        made = [
            Provenance(kind=kind, key=self.key(), label=f"{kind} {row.name}, seed {seed}", seconds=3600, gpus=8, code="f" * 40)
            for row in one.rows
            for seed in range(self.seeds)
            for kind in ("train_sae", "train_reward", "score_benchmark", "score_benchmark", "score_benchmark")
        ]
        seeds = ",".join(map(str, range(self.seeds)))
        return Report(
            experiment=one.name, title=one.title, profile="paper", protocol="paper", seeds=tuple(range(self.seeds)), comparable=True,
            tables=tuple(tables), listings=tuple(listings), provenance=tuple(made), deviations=(words(self.draw, 120),) * 12,
            command=f"replicate {one.name} --profile paper --seeds {seeds}",
        )  # fmt: skip


def words(draw: random.Random, signs: int) -> str:
    """Words of random letters."""
    found = ""
    while len(found) < signs:
        found += "".join(draw.choices("etaoinshrdlucmfwypvbgk", k=draw.randint(2, 9))) + " "
    return found[:signs]


def benchmark_items(draw: random.Random) -> list[Preference]:
    """As many items and replies as RewardBench 2 has, of texts of a usual length."""
    return [
        Preference(
            id=str(place), subset=subset, prompt=(Message(role="user", content=words(draw, 400)),), chosen=(words(draw, 1500),),
            rejected=tuple(words(draw, 1500) for _ in range(replies - 1)),
        )
        for subset, (count, replies) in ITEMS.items()
        for place in range(count)
    ]  # fmt: skip


def explored(latents: int) -> Exploration:
    """RewardBench 2 as an exploration of a model with so many latents would have it."""
    draw, numbers = random.Random(0), np.random.default_rng(0)
    items = benchmark_items(draw)
    rows, active = sum(1 + len(one.rejected) for one in items), min(ACTIVE, latents)
    head = numbers.normal(0, 0.01, latents).astype(np.float32)
    # Some latents fire nearly everywhere and most hardly ever, as in dictionaries that were trained.
    own = np.sort(np.stack([_without_repeats(numbers, latents, active) for _ in range(rows)]), axis=1).astype(np.int32)
    activations = numbers.exponential(1.0, own.shape).astype(np.float32)
    contributions = activations * head[own]
    groups: list[dict[str, Any]] = [
        {"side": side, "subset": subset, "style": "", "completions": rows // 2}
        for subset in ("", *ITEMS)
        for side in ("chosen", "rejected")
    ]
    fired = np.tile(np.bincount(own.ravel(), minlength=latents).astype(np.int32), (len(groups), 1))
    sums = numbers.normal(0, 1, (len(groups), latents))
    columns = ["Overall", *ITEMS]
    facts = {
        "benchmark": "rewardbench2", "head_reads": "latents", "groups": groups, "columns": columns, "accuracies": [73.0] * len(columns),
        "missing": {}, "constant": 0.0, "scored_tokens": ["<|eot_id|>"],
    }  # fmt: skip
    of_latents: dict[str, np.ndarray] = {
        "head": head, "fired": fired, "contribution": sums, "square": np.abs(sums), "product": sums,
        "neighbours": numbers.integers(0, latents, (latents, NEIGHBOURS)), "cosines": numbers.random((latents, NEIGHBOURS)),
        "removed": 73 + sums[: len(columns)].T, "doubled": 73 - sums[: len(columns)].T,
    }  # fmt: skip
    of_completions: dict[str, np.ndarray] = {
        "rewards": contributions.sum(axis=1), "truncated": np.zeros(rows, dtype=np.uint8), "tokens": np.zeros(rows, dtype=np.int32),
        "rest": np.zeros(rows), "starts": np.arange(rows + 1) * active, "latents": own.ravel(), "activations": activations.ravel(),
        "contributions": contributions.ravel(),
    }  # fmt: skip
    explanations = {
        int(one): {"status": "explained", "explanation": words(draw, 80), "score": 4, "detection": {"balanced_accuracy": 0.8}}
        for one in np.argsort(-np.abs(head))[:100]
    }
    return Exploration("0123456789ab", "exploration of sarm-4b, seed 0", facts, items, of_latents, of_completions, explanations)


def _without_repeats(numbers: np.random.Generator, latents: int, active: int) -> np.ndarray:
    often = np.unique((latents * numbers.random(3 * active) ** 3).astype(np.int64))
    return numbers.permutation(often)[:active] if len(often) >= active else numbers.permutation(latents)[:active]


def seconds(work: Callable[[], object]) -> float:
    """Processor seconds of this process: the machine has other work."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Draw, make the page, and print what both took and weigh."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--latents", type=int, default=65_536, help="0: no explorer in the page")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="leave page and pictures in this folder")
    return measured(parser.parse_args(arguments))


def measured(options: argparse.Namespace) -> dict[str, float]:
    """What was printed: seconds of the processor, and megabytes."""
    reports = [Inventor(one, options.seeds).report() for one in EXPERIMENTS.values()]
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)

        def drawn() -> dict[str, list[Any]]:
            return {address(one): [shown(path) for path in draw(one, folder) if path.suffix == ".svg"] for one in reports}

        drawing = seconds(drawn)
        pictures = drawn()
        draw_claims(published_claims(), {}, folder)
        forest = shown(folder / "claims.svg")
        extra, exploring = [], 0.0
        if options.latents:
            exploration = explored(options.latents)
            exploring = seconds(lambda: extra.append(explorer_section([exploration])))
        texts: list[str] = []
        made = [seconds(lambda: texts.append(page(reports, extra=extra, drawn=pictures, forest=forest))) for _ in range(options.rounds)]
        if options.keep:
            (folder / "report.html").write_text(texts[0], encoding="utf-8")
    assert len(set(texts)) == 1, "the same tables gave two pages"
    content = texts[0].encode()
    found = {
        "reports": len(reports), "cells": sum(len(row.cells) for one in reports for table in one.tables for row in table.rows),
        "drawing, s": drawing, "explorer, s": exploring, "page, s": statistics.median(made), "page, MB": len(content) / 1e6,
        "of it explorer, MB": sum(len(one.html.encode()) for one in extra) / 1e6,
        "of it pictures, MB": sum(len(one.source) for group in pictures.values() for one in group) / 1e6,
        "gzip, MB": len(gzip.compress(content)) / 1e6,
    }  # fmt: skip
    for name, value in found.items():
        print(f"{name:20} {value:10.2f}")
    assert found["page, MB"] < LARGEST_MB, f"the page is larger than {LARGEST_MB} MB"
    return {name: float(value) for name, value in found.items()}


if __name__ == "__main__":
    main()
