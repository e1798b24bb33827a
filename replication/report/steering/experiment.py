"""The steering experiment as data: latents of every completion, strata, and what any edit of the head does to rewards.

Rewards are linear in latents, so an edit is a sum over cached activations. Source: spec of the checks, related systems, section 8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from sarm.data.preferences import ScoredPreference
from sarm.job import UsageProblem
from sarm.metrics.rewardbench2 import REWARDBENCH2_SUBSETS, best_of_n_credits, rewardbench2_scores
from sarm.metrics.rmbench import RMBENCH_DOMAINS, rmbench_scores, style_credits
from sarm.store.json_files import read_facts, understood_facts
from sarm.store.json_lines import read_lines

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

STRATA = ("T", "C1", "C2", "C3")
STRATUM_NAMES: Mapping[str, str] = {
    "T": "concept, chosen",
    "C1": "concept, rejected",
    "C2": "complement, chosen",
    "C3": "complement, rejected",
}
REFUSAL, COMPLIANCE = "refusal expected", "compliance expected"
RMBENCH_KINDS: Mapping[str, str] = {"safety-refuse": REFUSAL, "safety-response": COMPLIANCE}


@dataclass(frozen=True)
class Completions:
    """Rows of `completions.jsonl` with their latents: `indices` and `values` are `[n, k]`; `concept` is the prefix of its subsets."""

    rows: Sequence[Mapping[str, Any]]
    indices: NDArray[np.int32]
    values: Floats
    concept: str

    def activation(self, latent: int) -> Floats:
        """z of one latent in every completion, `[n]`; 0 where it is not among the k."""
        return np.asarray((self.values * (self.indices == latent)).sum(axis=1), dtype=np.float64)

    def mean_latents(self, mask: Mask, *, n_latents: int) -> Floats:
        """Mean z of every latent over the completions of a mask, `[n_latents]`."""
        sums = np.bincount(self.indices[mask].ravel(), weights=self.values[mask].ravel(), minlength=n_latents)
        return np.asarray(sums / max(1, int(mask.sum())), dtype=np.float64)

    @cached_property
    def items(self) -> Ints:
        """Place of each row's item in the benchmark, `[n]`."""
        return np.array([row["item"] for row in self.rows], dtype=np.int64)

    @cached_property
    def inside(self) -> Mask:
        """Which completions belong to the concept's subsets, `[n]`."""
        return np.array([str(row["subset"]).lower().startswith(self.concept.lower()) for row in self.rows], dtype=bool)

    @cached_property
    def chosen(self) -> Mask:
        """Which completions are chosen ones, `[n]`."""
        return np.array([row["side"] == "chosen" for row in self.rows], dtype=bool)

    @cached_property
    def active(self) -> Ints:
        """The latents that are not 0 in at least one completion, in ascending order."""
        return np.unique(self.indices[self.values != 0]).astype(np.int64)


@dataclass(frozen=True)
class Steering:
    """One artifact of `steer_rewards`.

    `rewards`, `steered_rewards`, `identity_rewards` are `[n]`; `states` `[n, hidden_size]`; `head`, `s`, `t` `[n_latents]`.
    `kinds` says of a prompt (`subset/id`) what is expected of a reply, where that is known.
    """

    facts: Mapping[str, Any]
    target: Completions
    selection: Completions
    rewards: Floats
    steered_rewards: Floats
    identity_rewards: Floats
    states: Floats
    head: Floats
    s: Floats
    t: Floats
    kinds: Mapping[str, str] = field(default_factory=dict)

    @property
    def latent(self) -> int:
        """The latent that was edited."""
        return int(self.facts["latent"])

    @property
    def multiplier(self) -> float:
        """The factor on it."""
        return float(self.facts["multiplier"])

    @property
    def concept(self) -> str:
        """Prefix of the concept's subsets."""
        return str(self.facts["subset"])

    @property
    def selects_on_target(self) -> bool:
        """Whether the latent was chosen on the very items on which it is tested, as in the preprint."""
        return bool(self.facts["selection"] == self.facts["target"])

    @cached_property
    def strata(self) -> dict[str, Mask]:
        """T: the concept's chosen replies; C1 its rejected ones; C2 and C3 the others' chosen and rejected ones."""
        inside, chosen = self.target.inside, self.target.chosen
        return {"T": inside & chosen, "C1": inside & ~chosen, "C2": ~inside & chosen, "C3": ~inside & ~chosen}

    @cached_property
    def mean_latents(self) -> dict[str, Floats]:
        """Mean z of every latent in each stratum, `[n_latents]` each."""
        return {name: self.target.mean_latents(mask, n_latents=len(self.head)) for name, mask in self.strata.items()}

    def shift(self, latent: int, multiplier: float) -> Floats:
        """Change of every reward, (c - 1) w_i z_i, `[n]`."""
        return np.asarray((multiplier - 1) * self.head[latent] * self.target.activation(latent), dtype=np.float64)

    @property
    def from_file(self) -> bool:
        """Whether the edit is a steering file's, and not that of the latent which a rule chose."""
        return "edit" in self.facts

    @cached_property
    def edit(self) -> dict[int, float]:
        """Each edited latent's factor."""
        given = self.facts.get("edit", {self.latent: self.multiplier})
        return {int(latent): float(factor) for latent, factor in given.items()}

    @property
    def edited(self) -> str:
        """The edit in words."""
        latents = "latent" if len(self.edit) == 1 else "latents"
        return f"the file's edit of {len(self.edit)} {latents}" if self.from_file else f"c = {self.multiplier:g}"

    @cached_property
    def change(self) -> Floats:
        """Change of every reward by the edit that was made, `[n]`."""
        return np.asarray(np.sum([self.shift(latent, factor) for latent, factor in self.edit.items()], axis=0), dtype=np.float64)

    @cached_property
    def touched(self) -> Mask:
        """In which completions an edited latent is active, `[n]`."""
        return np.asarray(np.any([self.target.activation(latent) != 0 for latent in self.edit], axis=0))

    @property
    def dose(self) -> float:
        """Where on the dose curve the edit lies: at its factor, or at the whole of a file's edit."""
        return 1.0 if self.from_file else self.multiplier

    def dosed(self, dose: float) -> Floats:
        """Change of every reward with that factor on the latent, or with that multiple of a file's edit, `[n]`."""
        return dose * self.change if self.from_file else self.shift(self.latent, dose)

    @cached_property
    def layout(self) -> tuple[tuple[str, str, Ints, Ints], ...]:
        """For each item subset, id, and the rows of its chosen and of its rejected completions, in the benchmark's order."""
        rows: dict[int, tuple[list[int], list[int]]] = {}
        for place, (item, chosen) in enumerate(zip(self.target.items, self.target.chosen, strict=True)):
            rows.setdefault(int(item), ([], []))[0 if chosen else 1].append(place)
        first = {item: self.target.rows[sides[0][0]] for item, sides in rows.items()}
        return tuple(
            (str(first[item]["subset"]), str(first[item]["id"]), np.array(sides[0], dtype=np.int64), np.array(sides[1], dtype=np.int64))
            for item, sides in rows.items()
        )

    def scored(self, rewards: Floats) -> list[ScoredPreference]:
        """Rewards in the shape of the items, in the benchmark's order."""
        return [
            ScoredPreference(
                id=name, subset=subset, chosen_rewards=tuple(rewards[chosen].tolist()), rejected_rewards=tuple(rewards[rejected].tolist())
            )
            for subset, name, chosen, rejected in self.layout
        ]

    def accuracies(self, rewards: Floats) -> dict[str, float]:
        """The target benchmark's metrics in percent: subsets (or domains) and Overall, as far as its items allow."""
        names = {*(RMBENCH_DOMAINS if self._rmbench else REWARDBENCH2_SUBSETS), "Overall"}
        found = (rmbench_scores if self._rmbench else rewardbench2_scores)(self.scored(rewards)).metrics
        return {name: 100 * metric.value for name, metric in found.items() if name in names}

    @cached_property
    def accuracies_before(self) -> dict[str, float]:
        """`accuracies` of the unedited model."""
        return self.accuracies(self.rewards)

    @cached_property
    def credits_before(self) -> Floats:
        """`credits` of the unedited model."""
        return self.credits(self.rewards)

    def part_of(self, subset: str) -> str:
        """The metric to which a subset belongs: itself, or an RM-Bench domain."""
        return next((domain for domain in RMBENCH_DOMAINS if subset.startswith(domain)), subset) if self._rmbench else subset

    @property
    def _rmbench(self) -> bool:
        return bool(self.facts["target"] == "rmbench")

    def in_concept(self, subset: str) -> bool:
        """Whether a subset belongs to the concept."""
        return subset.lower().startswith(self.concept.lower())

    def credits(self, rewards: Floats) -> Floats:
        """Credit of each item, 0 to 1, `[items]`: best of n, or RM-Bench's share of style pairs won. NaN for Ties, which has none."""
        found = []
        for item in self.scored(rewards):
            if self._rmbench:
                found.append(float(np.mean(style_credits(item.chosen_rewards, item.rejected_rewards).wins)))
            else:
                ties = item.subset == "Ties"
                found.append(float("nan") if ties else best_of_n_credits([(*item.chosen_rewards, *item.rejected_rewards)])[0])
        return np.array(found)

    def margins(self, rewards: Floats) -> Floats:
        """The lowest chosen reward minus the highest rejected one of each item, `[items]`."""
        return np.array([rewards[chosen].min() - rewards[rejected].max() for _, _, chosen, rejected in self.layout])

    def kind_of(self, subset: str, name: str) -> str:
        """What is expected of a reply to a prompt; empty where nothing says so."""
        return self.kinds.get(f"{subset}/{name}", RMBENCH_KINDS.get(subset, ""))


def read_steering(folder: Path) -> Steering:
    """An artifact of `steer_rewards`. Raises UsageProblem when a stratum of the target benchmark is empty."""
    with understood_facts(folder / "latents.safetensors", also=(SafetensorError, OSError)):
        return _steering(folder, load_file(folder / "latents.safetensors"))


def _steering(folder: Path, tensors: Mapping[str, Any]) -> Steering:
    facts = read_facts(folder / "steering.json", "subset", "target")
    floats = {name: value.astype(np.float64) for name, value in tensors.items() if not name.endswith("indices")}

    def completions(name: str, file: str) -> Completions:
        rows = [row for _, row in read_lines(folder / file)]
        return Completions(rows, tensors[f"{name}_indices"], floats[f"{name}_values"], facts["subset"])

    data = Steering(
        facts=facts,
        target=completions("target", "completions.jsonl"),
        selection=completions("selection", "selection.jsonl"),
        rewards=floats["rewards"],
        steered_rewards=floats["steered_rewards"],
        identity_rewards=floats["identity_rewards"],
        states=floats["target_states"],
        head=floats["head"],
        s=floats["s"],
        t=floats["t"],
    )
    require_strata(data)
    # What a file of an artifact says of its edit is understood here, or refused by its name.
    assert len(data.change) == len(data.rewards)
    return data


def require_strata(data: Steering) -> None:
    """Raises UsageProblem that names an empty stratum."""
    for name, mask in data.strata.items():
        if not mask.any():
            raise UsageProblem(
                f"stratum {name} ({STRATUM_NAMES[name]}) of {data.facts['target']} is empty; "
                "steering needs chosen and rejected replies inside and outside the concept"
            )


def prompt_kinds(concepts: Path, benchmark: str) -> dict[str, str]:
    """`subset/id` to what is expected of a reply, from a miniature's `concepts.json`; prompts that carry neither label are left out."""
    labels = read_facts(concepts, "safety", "items")
    words = {labels["safety"]["prompt"]: REFUSAL, labels["safety"]["prompt_opposite"]: COMPLIANCE}
    kinds = {}
    for name, item in labels["items"].get(benchmark, {}).items():
        found = [words[concept] for concept in item["prompt"] if concept in words]
        if len(found) == 1:
            kinds[name] = found[0]
    return kinds
