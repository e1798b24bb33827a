"""What an artifact of `explore_latents` holds, and which explanations the store has of the same model."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from replication.report.cells import Report
from sarm.data.preferences import Preference, read_jsonl
from sarm.job import IntegrityProblem
from sarm.store.artifacts import ArtifactStore
from sarm.store.json_files import read_facts, understood_facts
from sarm.store.json_lines import read_lines
from sarm.store.manifest import Manifest

KIND = "explore_latents"
WITH_LATENTS = ("sae", "random_sae")
# How a recipe calls the training of a row.
MODEL_LABEL = re.compile(r"reward model (?P<row>\S+), seed (?P<seed>\d+)")
EXPLAINED_BY = "replicate features"
OF_LATENTS = ("head", "fired", "contribution", "square", "product", "neighbours", "cosines", "removed", "doubled")
OF_COMPLETIONS = ("rewards", "truncated", "tokens", "rest", "starts", "latents", "activations", "contributions")
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Row:
    """A completion: its row in the arrays, its item, side, place on that side, and text."""

    number: int
    item: int
    side: str
    place: int
    text: str


@dataclass(frozen=True)
class Exploration:
    """An artifact as read. `latents` and `completions` hold the arrays that `explore_latents` says; `explanations` is latent -> line."""

    key: str
    label: str
    facts: Mapping[str, Any]
    items: Sequence[Preference]
    latents: Arrays
    completions: Arrays
    explanations: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    explained_by: str = EXPLAINED_BY

    @property
    def n_latents(self) -> int:
        """Width of the dictionary."""
        return len(self.latents["head"])

    @property
    def exact(self) -> bool:
        """Whether every contribution of every completion is kept; else, for heads on all pre-activations, the largest."""
        return bool(self.facts["head_reads"] == "latents")

    @cached_property
    def rows(self) -> list[Row]:
        """All completions, each item's chosen, then its rejected."""
        found: list[Row] = []
        for index, item in enumerate(self.items):
            for side, texts in (("chosen", item.chosen), ("rejected", item.rejected)):
                found += [Row(len(found) + place, index, side, place, text) for place, text in enumerate(texts)]
        return found

    @cached_property
    def rows_of(self) -> list[list[Row]]:
        """The completions of each item."""
        found: list[list[Row]] = [[] for _ in self.items]
        for row in self.rows:
            found[row.item].append(row)
        return found

    @cached_property
    def numbers_of_sides(self) -> tuple[np.ndarray, np.ndarray]:
        """The rows of the chosen and of the rejected completions."""
        chosen = np.array([row.side == "chosen" for row in self.rows], dtype=bool)
        return np.flatnonzero(chosen), np.flatnonzero(~chosen)

    @cached_property
    def sides(self) -> tuple[np.ndarray, np.ndarray]:
        """The rewards of the chosen and of the rejected completions, in float64."""
        chosen, rejected = (self.completions["rewards"][numbers].astype(np.float64) for numbers in self.numbers_of_sides)
        return chosen, rejected

    @cached_property
    def _by_latent(self) -> tuple[np.ndarray, np.ndarray]:
        """Places of the parts, latent by latent, and where each latent's begin, `[n_latents + 1]`."""
        latents = self.completions["latents"]
        order = np.argsort(latents, kind="stable")
        return order, np.searchsorted(latents[order], np.arange(self.n_latents + 1))

    @cached_property
    def _row_of_part(self) -> np.ndarray:
        return np.repeat(np.arange(len(self.rows)), np.diff(self.completions["starts"]))

    def parts(self, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Latents, activations and contributions of a completion."""
        part = slice(*self.completions["starts"][row : row + 2])
        return tuple(self.completions[name][part] for name in ("latents", "activations", "contributions"))  # type: ignore[return-value]

    def fires(self, latent: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The completions in which a latent is kept: rows, activations, contributions."""
        order, begins = self._by_latent
        part = order[begins[latent] : begins[latent + 1]]
        return self._row_of_part[part], self.completions["activations"][part], self.completions["contributions"][part]

    def margins(self) -> np.ndarray:
        """Of each item the lowest chosen reward minus the highest rejected one."""
        rewards = self.completions["rewards"].astype(np.float64)
        found = []
        for rows in self.rows_of:
            lowest = min(rewards[row.number] for row in rows if row.side == "chosen")
            found.append(lowest - max(rewards[row.number] for row in rows if row.side == "rejected"))
        return np.array(found, dtype=np.float64)


def read_exploration(folder: Path, *, key: str, label: str, explanations: Mapping[int, Mapping[str, Any]]) -> Exploration:
    """The artifact in a folder. Raises IntegrityProblem or UsageProblem that names the file for one that is not what it should be."""
    facts = read_facts(folder / "exploration.json", "head_reads", "groups", "columns", "accuracies", "missing", "constant", "scored_tokens")
    arrays = []
    for name, wanted in (("latents", OF_LATENTS), ("completions", OF_COMPLETIONS)):
        path = folder / f"{name}.safetensors"
        with understood_facts(path, also=(SafetensorError, OSError)):
            held = load_file(path)
            arrays.append({one: held[one] for one in wanted})
    items = list(read_jsonl(folder / "items.jsonl", Preference))
    found = Exploration(key, label, facts, items, arrays[0], arrays[1], explanations)
    wrong = _misfit(found)
    if wrong:
        raise IntegrityProblem(f"{folder.name}: {wrong}; take the artifact away and explore the model again")
    return found


def _misfit(one: Exploration) -> str:
    """The first thing that does not fit in an artifact whose files belong to different ones or were edited; empty where all does."""
    latents, completions, rows = one.latents, one.completions, len(one.rows)
    groups, columns, width = len(one.facts["groups"]), len(one.facts["columns"]), one.n_latents
    parts = len(completions["latents"])
    shapes = {
        **{name: (latents[name], (groups, width)) for name in ("fired", "contribution", "square", "product")},
        **{name: (latents[name], (width, columns)) for name in ("removed", "doubled")},
        **{name: (latents[name], (width, latents["cosines"].shape[-1])) for name in ("neighbours", "cosines")},
        **{name: (completions[name], (rows,)) for name in ("rewards", "truncated", "tokens", "rest")},
        **{name: (completions[name], (parts,)) for name in ("activations", "contributions")},
        "starts": (completions["starts"], (rows + 1,)),
    }
    for name, (array, shape) in shapes.items():
        if array.shape != shape:
            return f"{name} is {list(array.shape)} where items and facts ask for {list(shape)}"
    starts, numbers, tokens = completions["starts"], completions["latents"], completions["tokens"]
    if starts[0] != 0 or starts[-1] != parts or (np.diff(starts) < 0).any():
        return "starts do not cut the latents of completions"
    if parts and not (numbers.min() >= 0 and numbers.max() < width):
        return f"a completion has a latent beyond the {width} of the head"
    if rows and not (tokens.min() >= 0 and tokens.max() < len(one.facts["scored_tokens"])):
        return "a completion's token is not among the scored tokens"
    return ""


def explorations_of(store: ArtifactStore) -> list[Manifest]:
    """The explored models of a store, the newest first, whole or not: `opened` tells."""
    return sorted((one for one in store.entries() if one.kind == KIND), key=lambda one: (one.ended, one.key), reverse=True)


def unexplored(store: ArtifactStore, reports: Sequence[Report]) -> list[tuple[str, str]]:
    """(label, command) of each reward model with latents that these reports rest on and that nobody has explored."""
    explored = {one.inputs["model"][1] for one in explorations_of(store) if "model" in one.inputs and store.has(one)}
    trained = {one.short_key: one for one in store.entries() if one.kind == "train_reward" and one.config.get("encoder") in WITH_LATENTS}
    found: dict[str, tuple[str, str]] = {}
    for report in reports:
        for one in report.provenance:
            named = MODEL_LABEL.fullmatch(one.label)
            if one.kind == "train_reward" and named and one.key in trained and trained[one.key].key not in explored:
                options = ["--profile", report.profile]
                options += ["--protocol", report.protocol] if report.protocol != "paper" else []
                options += ["--seeds", named["seed"]] if named["seed"] != "0" else []
                options += ["--experiment", report.experiment] if report.experiment != "table1" else []
                found.setdefault(one.key, (one.label, shlex.join(["replicate", "explore", named["row"], *options])))
    return list(found.values())


def called(manifest: Manifest) -> str:
    """How an explored model is called; a miniature's numbers must never be taken for the paper's."""
    invented = any(kind == "make_miniature" for kind, _ in manifest.inputs.values())
    return f"{manifest.label} (a miniature)" if invented else manifest.label


def find_exploration(store: ArtifactStore, manifest: Manifest) -> Path:
    """The folder of one of `explorations_of`. Raises IntegrityProblem where it is damaged."""
    return store.find(KIND, manifest.key, label=manifest.label, command="replicate explore with the options that made it")


def opened(store: ArtifactStore, manifest: Manifest, explained: Path | None = None) -> Exploration:
    """One of `explorations_of`, with the explanations in `explained`, or else those that the store has of the same model.

    Raises IntegrityProblem for an artifact, of latents or of their explanations, that is not what it was when it was written.
    """
    place = find_exploration(store, manifest)
    folder = explained or _explained(store, manifest)
    lines = [row for _, row in read_lines(folder / "explanations.jsonl")] if folder is not None else []
    # Latents of the control are those of another model.
    explanations = {int(row["latent"]): row for row in lines if not str(row["group"]).startswith("control")}
    found = read_exploration(place, key=manifest.short_key, label=called(manifest), explanations=explanations)
    if "model" in manifest.inputs:
        return found
    # The model of a folder is no row, so that no command explains its latents; those of an equal model can be named.
    return replace(found, explained_by=f"replicate explore --artifact {found.key} --explanations ARTIFACT --folder DIR")


def _explained(store: ArtifactStore, manifest: Manifest) -> Path | None:
    """The newest artifact that explains the latents of the explored model. Raises IntegrityProblem where that one is damaged."""
    model = manifest.inputs.get("model")
    others = [one for one in store.entries() if one.kind == "explain_latents" and model is not None and one.inputs.get("model") == model]
    newest = max(others, key=lambda one: one.ended, default=None)
    return store.find(newest.kind, newest.key, label=newest.label, command=EXPLAINED_BY) if newest is not None else None
