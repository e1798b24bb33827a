"""The miniature measured: how well its models do, how far seeds and machines lie apart, and which planted faults the diff finds.

    python benchmarks/miniature.py --seeds 0,1,2,3,4 --languages 0,1,2 --machines     all but the faults; hours on two cores
    python benchmarks/miniature.py --seeds 0 --languages 0 --faults                   planted faults alone beside one table
    python benchmarks/miniature.py --seeds 0 --languages 0 --machines --only GPU --against tables/mini/table1.results.json
    python benchmarks/miniature.py --results reference/miniature ...     the same from results files that are there: trains nothing

A language is `miniature.seed`, with a store of its own below --store: seeds share its backbones, and a second call computes only
what is missing. Each variant of --machines and each fault has a store of its own. The code is 1 if a bound breaks or a fault is not found.

--keep copies results files, the items that each model gets right and what the stores say of claims into a folder without the stores;
--results reads such a folder, so that what is measured need not be trained in one go, nor on one machine.
Results of other jobs than today's (other sizes, another version of a stage) are refused. Variants and faults that are not there are told.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import miniature_claims
import miniature_faults
import miniature_machines
from miniature_runs import (
    SARMS,
    SCALAR,
    SURFACE,
    Run,
    measured,
    miniature_folder,
    per_seed,
    read_elsewhere,
    shared_prompts,
)
from miniature_tables import language_facts, levels, random_ties, spread, surface

from replication.report.cells import Report
from replication.report.verdicts.diff import load_results

# A row of Table 1 that is only quoted: with it alone the language and the baselines are made, and nothing is trained.
QUOTED = "gpt-4o"


def numbers(text: str) -> list[int]:
    """`0,1,2` as numbers."""
    return [int(part) for part in text.split(",")]


def parse_options(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=numbers, default=[0], help="seeds of SAE and reward training, comma-separated")
    parser.add_argument("--languages", type=numbers, default=[0], help="values of miniature.seed, comma-separated")
    parser.add_argument("--machines", action="store_true", help="also what stands for another machine, first language and seed")
    parser.add_argument("--faults", action="store_true", help="also planted faults, first language and seed")
    parser.add_argument("--only", action="append", default=[], help="with --machines or --faults: with this in its name; repeatable")
    parser.add_argument("--against", type=Path, help="results of Table 1, run elsewhere, in place of a base of our own")
    parser.add_argument("--results", type=Path, help="folder of results files, laid out as --store, to read instead of training")
    parser.add_argument("--without-levels", action="store_true", help="neither levels nor spread: only what else is asked for")
    parser.add_argument("--keep", type=Path, help="folder to copy results into, for --results; several calls fill it together")
    parser.add_argument("--claims", default="", help="experiments to run whole before the claims are read, e.g. table2,table3,figure3")
    parser.add_argument("--profile", default="mini", help="mini, or a TOML file of your own")
    parser.add_argument("--set", action="append", default=[], dest="sets", help="SECTION.FIELD=VALUE for every run; repeatable")
    parser.add_argument("--store", type=Path, default=Path("artifacts/miniature"), help="folder of all stores and tables")
    parser.add_argument("--workers", type=int, default=0, help="processes side by side; 0: as the profile says")
    parser.add_argument("--out", type=Path, help="also write all numbers and bounds as JSON")
    options = parser.parse_args(words)
    if options.only and options.machines == options.faults:
        parser.error("--only goes with one of --machines and --faults")
    if options.keep is not None and options.results is not None:
        parser.error("--keep goes with what is trained, not with --results")
    return options


def run_of(options: argparse.Namespace, language: int) -> Run:
    """The plain run in a language's store."""
    place = options.store.resolve() / f"language-{language}"
    profile = str(Path(options.profile).resolve()) if options.profile.endswith(".toml") else options.profile
    sets = (f"miniature.seed={language}", *options.sets)
    return Run(store=place / "store", out=place / "tables", profile=profile, sets=sets, workers=options.workers)


def read_of(options: argparse.Namespace, language: int) -> Run:
    """The same, read from --results; the store of --store is for the language alone."""
    run = run_of(options, language)
    return replace(run, out=options.results.resolve() / f"language-{language}" / "tables", read=True)


class Measurements:
    """What was found so far: texts for the page, numbers for --out, and which bounds hold."""

    def __init__(self, out: Path | None) -> None:
        self.out = out
        self.sections: list[tuple[str, str]] = []
        self.holds: dict[str, bool] = {}
        self.numbers: dict[str, Any] = {}

    def add(self, title: str, text: str, holds: dict[str, bool] | None = None) -> None:
        """Show a section as soon as it is there, and keep it."""
        self.sections.append((title, text))
        self.holds |= holds or {}
        print(f"\n### {title}\n\n{text}\n", flush=True)
        if self.out is not None:
            whole = {"numbers": self.numbers, "holds": self.holds, "sections": dict(self.sections)}
            self.out.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


def trained_here(run: Run, seeds: Sequence[int]) -> dict[str, dict[str, tuple[float, ...]]]:
    """Model -> column -> a number for each seed, after training what is missing."""
    reports = {"table1": run.whole_table("table1", seeds), "table2": run.whole_table("table2", seeds, rows=SCALAR)}
    return {
        model: {column: per_seed(one) for column, one in measured(reports["table2" if model == SCALAR else "table1"], model).items()}
        for model in (SCALAR, *SARMS, *SURFACE)
    }


def table1_of(options: argparse.Namespace, language: int) -> Report | None:
    """Table 1 of a language over just the seeds asked for, trained here or read; None where no one file holds them."""
    run = run_of(options, language) if options.results is None else read_of(options, language)
    reports = (load_results(path) for path in sorted(run.out.rglob("table1.results.json")))
    return next((report for report in reports if list(report.seeds) == options.seeds), None)


def levels_and_spread(options: argparse.Namespace, kept: Measurements) -> None:
    """Train all seeds of all languages, or read what was trained elsewhere; after each language its levels, in the end all of them."""
    found: dict[int, dict[str, dict[str, tuple[float, ...]]]] = {}
    ties, shared = {}, {}
    for language in options.languages:
        run = run_of(options, language)
        if options.results is not None:
            found[language] = read_elsewhere(read_of(options, language), options.seeds)
            own = measured(run.whole_table("table1", options.seeds[:1], rows=QUOTED), SURFACE[0])["Overall"]
            if found[language][SURFACE[0]]["Overall"] != per_seed(own):
                raise SystemExit(f"{options.results}/language-{language}: {SURFACE[0]} scores otherwise there: results of another language")
        else:
            found[language] = trained_here(run, options.seeds)
        folder = miniature_folder(run.store)
        ties[language], shared[language] = random_ties(folder), shared_prompts(folder)
        print(levels({language: found[language]}, ties)[0], flush=True)
        kept.numbers["levels"] = found
    kept.numbers["random ties"] = {language: one._asdict() for language, one in ties.items()}
    kept.add(f"Levels, mean over seeds {options.seeds}", *levels(found, ties))
    kept.add("What the surface gives away", *surface(found))
    kept.add("The language", *language_facts(ties, shared))
    kept.add("Standard deviation over seeds [95 % interval]", *spread(found))
    if len(options.seeds) > 1:
        whole = {language: report for language in options.languages if (report := table1_of(options, language)) is not None}
        split = [str(language) for language in options.languages if language not in whole]
        told = [miniature_machines.dispersions_of_seeds(whole)]
        told += [f"Not told of languages {', '.join(split)}: no one file holds just these seeds."] if split else []
        kept.add("Variance over seeds, beside that of machines", "\n\n".join(told))


def claims(options: argparse.Namespace, kept: Measurements) -> None:
    """The paper's claims in every language, as far as its results bear on them."""
    found, twice = {}, []
    for language in options.languages:
        run = run_of(options, language) if options.results is None else read_of(options, language)
        if not run.read:
            for experiment in filter(None, options.claims.split(",")):
                run.whole_table(experiment, options.seeds)
            miniature_claims.write_verdicts(run, options.seeds)
        found[language] = miniature_claims.claims_of(run, options.seeds)
        twice += [f"Trained again, language {language}: {line}." for line in miniature_claims.trained_again(run.out)]
    kept.numbers["claims"] = {language: [one.model_dump() for one in known.values()] for language, (known, _) in found.items()}
    kept.add(f"Claims of the paper over seeds {options.seeds}", "\n\n".join([miniature_claims.table(found, options.seeds), *twice]))


def base_of(options: argparse.Namespace) -> tuple[Run, Path]:
    """The plain run of the first language, and the results of its first seed (or --against)."""
    language, seed = options.languages[0], options.seeds[0]
    run = run_of(options, language) if options.results is None else read_of(options, language)
    run = replace(run, out=run.out.parent / "base")
    if options.against is not None and (options.machines or run.read):
        return run, options.against.resolve()
    run.whole_table("table1", [seed])
    return run, run.results("table1")


def main(words: Sequence[str] | None = None) -> int:
    """Measure what was asked for; 1 if a bound is broken or a fault not found."""
    options = parse_options(words)
    kept = Measurements(options.out)
    # One variant or fault alone is a question of its own, asked on other machines too.
    if not options.only:
        if not options.without_levels:
            levels_and_spread(options, kept)
        claims(options, kept)
    if options.machines or options.faults:
        run, base = base_of(options)
        folder = run.out.parent
        if options.machines:
            texts, holds = miniature_machines.measure(
                run, folder / "machines", options.seeds[0], base=base, only=options.only
            )
            kept.add("Another machine minus the base, points", "\n\n".join(texts), holds)
        if options.faults:
            if run.read:
                # How much the fault that cuts must cut follows from the language's conversations, which no results file has.
                run_of(options, options.languages[0]).whole_table("table1", options.seeds[:1], rows=QUOTED)
            kept.add("Planted faults", *miniature_faults.measure(run, folder / "faults", options.seeds[0], base=base, only=options.only))
    for language in options.languages if options.keep is not None else ():
        name = f"language-{language}"
        written = miniature_claims.keep(options.store.resolve() / name, options.keep.resolve() / name)
        print(f"kept {len(written)} files in {options.keep / name}")
    broken = [name for name, holds in kept.holds.items() if not holds]
    lines = [f"{len(kept.holds) - len(broken)} of {len(kept.holds)} bounds hold.", *(f"- NOT: {name}" for name in broken)]
    kept.add("Bounds", "\n".join(lines))
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
