"""What was asked for on a command line, read into settings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from replication.data_folders import AUTHORS_REWARDS
from replication.frozen import Frozen
from replication.lock_files import read_pins
from replication.recipes.jobs import hub_weights
from replication.recipes.setting import DEFAULT_STORE, Setting, Source, command_line
from replication.settings.experiments import EXPERIMENTS, Experiment
from replication.settings.model_locations import split_locations, with_locations, with_pins
from replication.settings.model_sizes import Fetched
from replication.settings.overrides import parse_overrides
from replication.settings.profile_files import load_profile
from replication.settings.profiles import Backbone, HubBackbone, Profile, TokenizerChanges
from replication.settings.protocols import PROTOCOLS
from replication.usage_problems import UsageProblems, unknown
from sarm.config.steering import HeadEdit
from sarm.job import Job
from sarm.store.artifacts import ArtifactStore

ALL = "all"


class Chosen(Frozen):
    """What was asked for on the command line, still as text."""

    profile: str = "mini"
    protocol: str = "paper"
    rows: str = ""
    seeds: str = "0"
    assignments: tuple[str, ...] = ()
    source: Source = "train"
    steering: HeadEdit | None = None

    def options(self, store: Path) -> tuple[tuple[str, str], ...]:
        """The options that ask for the same again, `(name, value)` each: the profile, and the others where they are not their defaults."""
        usual = type(self)()
        given = [("--profile", self.profile, ""), ("--protocol", self.protocol, usual.protocol), ("--rows", self.rows, usual.rows)]
        given += [("--seeds", self.seeds, usual.seeds), ("--from", self.source, usual.source)]
        sets = [("--set", one) for one in self.assignments]
        place = [("--store", str(store))] if store.absolute() != DEFAULT_STORE.absolute() else []
        return (*((name, value) for name, value, default in given if value != default), *sets, *place)

    def command(self, command: str, store: Path) -> str:
        """What to type to run a command with the same options."""
        return command_line(command, self.options(store))


def experiments_named(names: Sequence[str]) -> list[Experiment]:
    """The experiments of these names; `all` stands for every one. Raises UsageProblems with the nearest names."""
    wrong = [name for name in names if name != ALL and name not in EXPERIMENTS]
    if wrong:
        raise UsageProblems([problem for name in wrong for problem in unknown("experiment", name, [*EXPERIMENTS, ALL]).problems])
    return list(EXPERIMENTS.values()) if ALL in names else [EXPERIMENTS[name] for name in dict.fromkeys(names)]


def experiment_named(name: str) -> Experiment:
    """The one experiment of a command that takes one. Raises UsageProblems for a wrong name and for `all`, which are several."""
    if name == ALL:
        raise UsageProblems([f"{ALL!r} is several experiments, and this command takes one; valid: {', '.join(EXPERIMENTS)}"])
    if name not in EXPERIMENTS:
        raise unknown("experiment", name, EXPERIMENTS)
    return EXPERIMENTS[name]


def settings_for(
    experiments: Sequence[Experiment], chosen: Chosen, store: ArtifactStore, environment: Mapping[str, str]
) -> list[Setting]:
    """One setting for each experiment. Raises UsageProblems with everything that is wrong with the options at once."""
    seeds, overrides, profile = _read_options(chosen, store, environment)
    # Several rows read the same files: each is looked at once.
    digest = cache(store.fingerprint)
    return [
        Setting(
            experiment=experiment,
            profile=profile,
            protocol=PROTOCOLS[chosen.protocol],
            seeds=seeds,
            rows=chosen.rows,
            overrides=overrides,
            digest=digest,
            authors=authors_rewards(environment),
            options=chosen.options(store.root),
            source=chosen.source,
            stored=store.has,
            steering=chosen.steering,
        )
        for experiment in experiments
    ]


def _read_options(
    chosen: Chosen, store: ArtifactStore, environment: Mapping[str, str]
) -> tuple[tuple[int, ...], dict[str, dict[str, object]], Profile]:
    problems: list[str] = []
    if chosen.protocol not in PROTOCOLS:
        problems += unknown("protocol", chosen.protocol, PROTOCOLS).problems
    places, values = split_locations(chosen.assignments)
    seeds: tuple[int, ...] = ()
    overrides: dict[str, dict[str, object]] = {}
    try:
        seeds = parse_seeds(chosen.seeds)
    except UsageProblems as wrong:
        problems += wrong.problems
    try:
        overrides = parse_overrides(values)
    except UsageProblems as wrong:
        problems += wrong.problems
    try:
        pins = read_pins(store)
        loaded = load_profile(chosen.profile, environment=environment, pins=pins, fetched=fetched_into(store))
        profile = with_pins(with_locations(loaded, places), pins)
    except UsageProblems as wrong:
        problems += wrong.problems
    if problems:
        raise UsageProblems(problems)
    return seeds, overrides, profile


def fetched_into(store: ArtifactStore) -> Fetched:
    """Where a store has the files of a hub model, with the profile's changes to its tokenizer or as it is."""

    def folder(backbone: Backbone) -> Path | None:
        if not isinstance(backbone.source, HubBackbone):
            return None
        jobs = [Job(hub_weights(backbone.source, changes)) for changes in (backbone.tokenizer, TokenizerChanges())]
        return next((store.path(job) for job in jobs if store.has(job)), None)

    return folder


def scoring_assignments(*, subset: str, limit: int, batch_tokens: int) -> tuple[str, ...]:
    """`--subset`, `--limit` and `--batch-tokens` as the assignments of `--set` that they are short for."""
    found = [f"scoring.subset={json.dumps(subset)}"] if subset else []
    found += [f"scoring.limit={limit}"] if limit else []
    # The harness's fixed batches have rows and no tokens: asking for tokens asks for batches by tokens.
    found += [f"scoring.batch_tokens={batch_tokens}", "scoring.batches=similar-lengths", "scoring.batch_rows=0"] if batch_tokens else []
    return tuple(found)


def authors_rewards(environment: Mapping[str, str], folder: Path | None = None) -> str:
    """The authors' own rewards behind Figure 3: in the folder, where one is named, else where `SARM_DATA` has them; empty if nowhere."""
    data = environment.get("SARM_DATA", "")
    named = () if folder is None else (folder / AUTHORS_REWARDS.name, folder / AUTHORS_REWARDS)
    own = (Path(data) / AUTHORS_REWARDS,) if data and folder is None else ()
    return next((str(path) for path in (*named, *own) if path.is_file()), "")


def parse_seeds(text: str) -> tuple[int, ...]:
    """`0,1,2` as numbers, each once. Raises UsageProblems."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() for part in parts):
        raise UsageProblems([f"--seeds {text!r}: expected whole numbers from 0, comma-separated, for example 0,1,2"])
    return tuple(dict.fromkeys(int(part) for part in parts))
