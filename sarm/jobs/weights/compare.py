"""Two checkpoints, tensor by tensor: which differ, by how much, and whether the SAE was frozen between them.

Writes `comparison.json`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from sarm.checkpoints.tensors import TensorFolder, read_tensor_file
from sarm.config.weights import WeightComparisonConfig
from sarm.job import Interrupted, JobContext, UsageProblem

Status = Literal["equal", "equal after rounding", "differs", "other shape", "only in first", "only in second"]
SAEVerdict = Literal["frozen", "frozen up to rounding", "trained", "no SAE to compare"]

BLOCK = re.compile(r"(?:model\.)?layers\.(\d+)\.")
EMBEDDINGS = ("embed_tokens.weight", "lm_head.weight")
# Elements compared at once: three such pieces in float64 are 400 MB.
PIECE = 2**24


class TensorDifference(NamedTuple):
    """One tensor. Squares are sums over elements; `changed` counts elements. All 0 where only one side can be read."""

    name: str
    group: str
    status: Status
    elements: int = 0
    changed: int = 0
    max_abs: float = 0.0
    square_difference: float = 0.0
    square_first: float = 0.0
    dtypes: tuple[str, ...] = ()

    @property
    def relative(self) -> float | None:
        """Frobenius norm of the difference over that of the first; None where the first is all 0."""
        return relative_norm(self.square_difference, self.square_first)


class TensorSource:
    """A checkpoint folder's tensors, or those of an SAE artifact under the names that they have in a reward model."""

    def __init__(self, folder: Path) -> None:
        sae = folder / "sae.safetensors"
        self._sae = {f"sae.{name}": tensor for name, tensor in read_tensor_file(sae).items()} if sae.exists() else {}
        self._folder = None if self._sae else TensorFolder(folder)

    @property
    def names(self) -> set[str]:
        """Names of all tensors."""
        return self._folder.names if self._folder else set(self._sae)

    def tensor(self, name: str) -> Tensor:
        """One tensor, read now."""
        found = dict(self._sae)
        if self._folder:
            self._folder.read([(name, name)], found.__setitem__)
        return found[name]


def compare_weights(config: WeightComparisonConfig, context: JobContext) -> None:
    """Locations `first` and `second`, folders of checkpoints. Writes `comparison.json`.

    Raises UsageProblem for a folder without safetensors, for two folders that share no tensor and for values that are not finite.
    """
    folders = {name: context.locations[name] for name in ("first", "second")}
    first, second = TensorSource(folders["first"]), TensorSource(folders["second"])
    if not first.names & second.names:
        raise UsageProblem(f"{folders['first'].name} and {folders['second'].name} have no tensor of the same name; nothing to compare")
    found = []
    names = sorted(first.names | second.names, key=natural_order)
    for difference in differences(first, second, names):
        found.append(difference)
        context.progress(len(found), len(names), "tensors", difference.group)
        if context.stop_requested():
            raise Interrupted("stopped while comparing; the same command starts this step again")
    facts = {
        **{name: folder.name for name, folder in folders.items()},
        **config.model_dump(mode="json"),
        "sae": sae_statement(found),
        "groups": summary(found),
        "tensors": [row(difference) for difference in found],
    }
    (context.output / "comparison.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def differences(first: TensorSource, second: TensorSource, names: Sequence[str]) -> Iterator[TensorDifference]:
    """Each name's difference, one pair of tensors in memory at a time."""
    for name in names:
        if name not in second.names:
            yield TensorDifference(name, group_of(name), "only in first")
        elif name not in first.names:
            yield TensorDifference(name, group_of(name), "only in second")
        else:
            yield difference_of(name, first.tensor(name), second.tensor(name))


def difference_of(name: str, first: Tensor, second: Tensor) -> TensorDifference:
    """How two tensors of one name differ, computed in float64 piece by piece. Raises UsageProblem for values that are not finite.

    Of different precisions, they count as equal after rounding if the finer one, rounded, is the coarser one.
    """
    dtypes = tuple(str(tensor.dtype).removeprefix("torch.") for tensor in (first, second))
    if first.shape != second.shape:
        return TensorDifference(name, group_of(name), "other shape", dtypes=dtypes)
    changed, max_abs, square, square_first = 0, 0.0, 0.0, 0.0
    for one, other in zip(first.flatten().split(PIECE), second.flatten().split(PIECE), strict=True):
        wide = one.double()
        gap = (other.double() - wide).abs()
        if len(gap) and not bool(gap.isfinite().all()):
            raise UsageProblem(f"tensor {name!r} has values that are not finite; is the checkpoint damaged?")
        changed += int((gap > 0).sum())
        max_abs = max(max_abs, float(gap.max()) if len(gap) else 0.0)
        square += float(gap.square().sum())
        square_first += float(wide.square().sum())
    status: Status = "equal"
    if changed:
        status = "equal after rounding" if _rounds_to(first, second) else "differs"
    return TensorDifference(name, group_of(name), status, first.numel(), changed, max_abs, square, square_first, dtypes)


def _rounds_to(first: Tensor, second: Tensor) -> bool:
    if first.dtype == second.dtype or not (first.is_floating_point() and second.is_floating_point()):
        return False
    coarse, fine = sorted((first, second), key=lambda tensor: -torch.finfo(tensor.dtype).eps)
    return torch.equal(fine.to(coarse.dtype), coarse)


def group_of(name: str) -> str:
    """`embeddings`, `block N` (from 0), `final norm`, the SAE's own name, `score`, or `other`."""
    if found := BLOCK.match(name):
        return f"block {found[1]}"
    if name.endswith(EMBEDDINGS):
        return "embeddings"
    if name.startswith("sae."):
        return name
    if name in ("model.norm.weight", "norm.weight"):
        return "final norm"
    return "score" if name.startswith("score.") else "other"


def natural_order(name: str) -> tuple[Any, ...]:
    """Sorts `layers.10` after `layers.9`."""
    return tuple((1, int(part)) if part.isdigit() else (0, part) for part in name.split("."))


def relative_norm(square_difference: float, square_first: float) -> float | None:
    """Root of the ratio of two sums of squares; None where the second is 0."""
    return math.sqrt(square_difference / square_first) if square_first else None


def summary(found: Sequence[TensorDifference]) -> list[dict[str, Any]]:
    """One row for each group, in the order of first appearance."""
    groups: dict[str, list[TensorDifference]] = {}
    for difference in found:
        groups.setdefault(difference.group, []).append(difference)
    return [
        {
            "group": group,
            "tensors": len(members),
            "not_equal": sum(member.status != "equal" for member in members),
            "elements": sum(member.elements for member in members),
            "changed_elements": sum(member.changed for member in members),
            "max_abs": max(member.max_abs for member in members),
            "relative_frobenius": relative_norm(
                sum(member.square_difference for member in members), sum(member.square_first for member in members)
            ),
        }
        for group, members in groups.items()
    ]


def sae_statement(found: Sequence[TensorDifference]) -> dict[str, Any]:
    """Whether the SAE was frozen, in a word and in a sentence, with the tensors that say so."""
    both = [difference for difference in found if difference.name.startswith("sae.") and not difference.status.startswith("only")]
    lone = [difference.name for difference in found if difference.name.startswith("sae.") and difference.status.startswith("only")]
    changed = [difference for difference in both if difference.status in ("differs", "other shape")]
    rounded = [difference for difference in both if difference.status == "equal after rounding"]
    verdict: SAEVerdict
    if not both:
        verdict, sentence = "no SAE to compare", "At most one of the two has an SAE, so nothing can be said about it."
    elif changed:
        largest = max(changed, key=lambda difference: difference.relative or 0.0)
        size = f"{largest.relative:.3g} of its norm" if largest.relative is not None else f"up to {largest.max_abs:.3g} from all 0"
        verdict = "trained"
        sentence = f"The SAE was not frozen: {len(changed)} of {len(both)} tensors differ, most of all {largest.name} ({size})."
    elif rounded:
        verdict, sentence = "frozen up to rounding", f"The SAE was frozen: its {len(both)} tensors differ only by the files' precision."
    else:
        verdict, sentence = "frozen", f"The SAE was frozen: its {len(both)} tensors are equal, bit for bit in value."
    return {"verdict": verdict, "sentence": sentence, "changed": [entry.name for entry in changed], "only_in_one": lone}


def row(difference: TensorDifference) -> Mapping[str, Any]:
    """One tensor's entry of the file; numbers only where both sides could be compared."""
    entry: dict[str, Any] = {"name": difference.name, "group": difference.group, "status": difference.status}
    if difference.dtypes:
        entry["dtypes"] = list(difference.dtypes)
    if difference.elements:
        entry |= {
            "elements": difference.elements,
            "changed_elements": difference.changed,
            "max_abs": difference.max_abs,
            "relative_frobenius": difference.relative,
        }
    return entry
