"""The miniature's planted concepts as ground truth for explanations: which concept a latent stands for, and how purely. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from sklearn.metrics import roc_auc_score

from sarm.explain.contexts import Origin

Booleans = npt.NDArray[np.bool_]

_SPECIAL = re.compile(r"<\|[^|]*\|>")
_SENTENCE_END = re.compile(r"(?<=[.?!])\s+")
_MARK = re.compile(r"^[#*] ")
MARKED = "style:marked"
# Every sentence of these concepts is listed in `concepts.json`, so that an unlisted sentence carries none of them.
LISTED = frozenset({"style:opener", "style:closer", MARKED})
# Shares of the shown contexts that carry the concept, in the words of the rubric: our own reading of it.
QUITE_A_FEW, BROADLY = 0.7, 0.5


class PlantedMatch(BaseModel):
    """The concept that fits a latent best, chosen on the explain half; all numbers are of the held-out half of the pool.

    A number that one half cannot give (no context fires, or all carry the concept) is None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    concept: str = Field(description="`sentence:`, `reply:` or `prompt:` and the planted concept: what carries it.")
    chosen_with: float = Field(description="Balanced accuracy on the explain half, by which it was chosen.")
    contexts: int = Field(description="Contexts of the held-out half.")
    firing: int = Field(description="Of these, those that activate the latent above the threshold.")
    base_rate: float | None = Field(description="Share of contexts that carry the concept.")
    purity: float | None = Field(description="Share of firing contexts that carry it.")
    recall: float | None = Field(description="Share of contexts carrying it that fire.")
    f1: float | None = Field(description="Harmonic mean of the two.")
    balanced_accuracy: float | None = Field(description="Mean of purity and of the share of silent contexts that do not carry it.")
    auc: float | None = Field(description="Area under the curve of the activation as a score for the concept.")


class PlantedConcepts:
    """Which concepts a context carries, from `concepts.json`; `file` is the name of its data file in `items`."""

    def __init__(self, raw: Mapping[str, Any], file: str) -> None:
        self._sentences = {row["text"]: frozenset(row["concepts"]) for row in raw["sentences"]}
        self._items: Mapping[str, Any] = raw["items"][file]

    def of(self, text: str, origin: Origin) -> frozenset[str]:
        """Names such as `sentence:refusal`, `reply:refusal`, `prompt:harmful request`."""
        item = self._items[origin.item]
        reply = frozenset(item[origin.side][origin.place])
        scopes = (("sentence", self._last_sentence(text, reply)), ("reply", reply), ("prompt", item["prompt"]))
        return frozenset(f"{scope}:{concept}" for scope, concepts in scopes for concept in concepts)

    def _last_sentence(self, text: str, reply: frozenset[str]) -> frozenset[str]:
        """Concepts of the last sentence: as listed, or else those of the reply's unlisted sentences, which share them."""
        sentence = _SENTENCE_END.split(_SPECIAL.sub("", text).strip())[-1]
        if sentence in self._sentences:
            return self._sentences[sentence]
        bare = _MARK.sub("", sentence)
        marked = frozenset({MARKED}) if bare != sentence else frozenset()
        return self._sentences.get(bare, reply - LISTED) | marked


def label_matrix(labels: Sequence[frozenset[str]]) -> tuple[list[str], Booleans]:
    """All names in order, and `[contexts, names]`: which context carries which."""
    names = sorted(frozenset().union(*labels))
    columns = {name: column for column, name in enumerate(names)}
    carried = np.zeros((len(labels), len(names)), dtype=np.bool_)
    for row, found in enumerate(labels):
        carried[row, [columns[name] for name in found]] = True
    return names, carried


def best_concept(
    names: Sequence[str], carried: Booleans, activations: npt.NDArray[np.float64], *, held_out: Booleans, threshold: float
) -> PlantedMatch | None:
    """The concept of largest balanced accuracy as a prediction of firing.

    Shapes: carried `[contexts, names]`, activations and held_out `[contexts]`. None when nothing or everything fires in the explain half.
    """
    fires = activations > threshold
    explain = ~held_out
    if not fires[explain].any() or fires[explain].all() or not len(names):
        return None
    hits = carried[explain & fires].mean(axis=0)
    rejections = 1 - carried[explain & ~fires].mean(axis=0)
    accuracies = (hits + rejections) / 2
    best = int(accuracies.argmax())
    return _match(names[best], float(accuracies[best]), carried[held_out, best], activations[held_out], fires[held_out])


def _match(concept: str, chosen_with: float, carried: Booleans, activations: npt.NDArray[np.float64], fires: Booleans) -> PlantedMatch:
    both = int((carried & fires).sum())
    purity, recall = _share(both, int(fires.sum())), _share(both, int(carried.sum()))
    silent = _share(int((~carried & ~fires).sum()), int((~fires).sum()))
    two_kinds = bool(carried.any()) and not bool(carried.all())
    return PlantedMatch(
        concept=concept,
        chosen_with=chosen_with,
        contexts=len(carried),
        firing=int(fires.sum()),
        base_rate=_share(int(carried.sum()), len(carried)),
        purity=purity,
        recall=recall,
        f1=_share(2 * both, int(fires.sum()) + int(carried.sum())),
        balanced_accuracy=None if purity is None or silent is None else (purity + silent) / 2,
        auc=float(roc_auc_score(carried, activations)) if two_kinds else None,
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def rubric_score(carried: Sequence[bool]) -> int:
    """The paper's 1 to 5 for contexts of which some carry the concept: the rubric's words, with numbers of our own for the vague ones."""
    deviating = len(carried) - sum(carried)
    if deviating == 0:
        return 5
    if deviating <= 2:
        return 4
    share = sum(carried) / len(carried)
    return 3 if share >= QUITE_A_FEW else 2 if share >= BROADLY else 1
