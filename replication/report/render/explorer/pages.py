"""What the pages of an explorer hold, as plain values that become JSON: the index, a latent's page, an item's page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from replication.report.latents.explorations import Exploration, Row
from replication.report.render.explorer.choice import Extent

BINS = 24
EDITS = (("as it is", 1.0), ("removed", 0.0), ("doubled", 2.0))
SHOWN_CONTEXTS = 8


def index(exploration: Exploration, extent: Extent, *, latents: Sequence[int], items: Sequence[int]) -> dict[str, Any]:
    """What every page needs, with a line for each latent and each item that has a page."""
    facts = exploration.facts
    totals = exploration.latents["fired"][:2].sum(axis=0)
    sums = exploration.latents["contribution"][:2].sum(axis=0)
    completions = max(len(exploration.rows), 1)
    margins = exploration.margins()
    rules = extent.rule(exploration)
    return {
        "key": exploration.key,
        "label": exploration.label,
        "command": f"replicate explore --artifact {exploration.key} --folder DIR",
        "explain": "" if exploration.explanations else exploration.explained_by,
        "benchmark": facts["benchmark"],
        "latents": exploration.n_latents,
        "completions": len(exploration.rows),
        "items": len(exploration.items),
        "never": int((totals == 0).sum()),
        "reads": facts["head_reads"],
        "exact": exploration.exact,
        "constant": facts["constant"],
        "gap": facts.get("largest_gap", 0.0),
        "columns": list(zip(facts["columns"], facts["accuracies"], strict=True)),
        "missing": list(facts["missing"].items()),
        "groups": facts["groups"],
        "histogram": _histogram(exploration),
        "rules": {"latents": rules[0], "items": rules[1], "contributions": extent.contributions},
        "latentRows": [_latent_row(exploration, one, totals[one] / completions, sums[one] / completions) for one in latents],
        "itemRows": [[one, exploration.items[one].id, exploration.items[one].subset, _short(margins[one], 6)] for one in items],
    }


def _latent_row(exploration: Exploration, latent: int, rate: float, mean: float) -> list[Any]:
    """[latent, head weight, firing rate, mean contribution, explanation, score, detection]"""
    said = exploration.explanations.get(latent, {})
    detection = said.get("detection")
    return [
        latent,
        _short(exploration.latents["head"][latent], 6),
        _short(rate, 4),
        _short(mean, 4),
        said.get("explanation") or "",
        said.get("score"),
        _short(detection["balanced_accuracy"], 3) if detection else None,
    ]


def latent_page(exploration: Exploration, latent: int, extent: Extent) -> dict[str, Any]:
    """A latent: where it fires and what it adds there, what its edits do, its neighbours, its contexts, its explanation."""
    arrays = exploration.latents
    counts = np.array([max(group["completions"], 1) for group in exploration.facts["groups"]])
    said = exploration.explanations.get(latent, {})
    contexts = said.get("contexts") or []
    return {
        "latent": latent,
        "fired": [int(one) for one in arrays["fired"][:, latent]],
        "means": [_short(one, 4) for one in arrays["contribution"][:, latent] / counts],
        "neighbours": [
            [int(other), _short(cosine, 3)] for other, cosine in zip(arrays["neighbours"][latent], arrays["cosines"][latent], strict=True)
        ],
        "removed": [_short(one, 6) for one in arrays["removed"][latent]],
        "doubled": [_short(one, 6) for one in arrays["doubled"][latent]],
        "spread": _spread(exploration, latent),
        "histograms": _edited_histograms(exploration, latent),
        "contexts": _contexts(exploration, latent, extent),
        "status": said.get("status", ""),
        "collected": [[one["context"], _short(one["activation"], 4)] for one in contexts[: SHOWN_CONTEXTS if extent.latents else None]],
    }


def _spread(exploration: Exploration, latent: int) -> list[list[float]]:
    """[mean, standard deviation] of the chosen and then of the rejected rewards: as they are, with the latent removed, and doubled.

    Exact for any factor: an edit adds a multiple of the contribution, of which the sums are kept.
    """
    arrays, found = exploration.latents, []
    for _, factor in EDITS:
        line: list[float] = []
        for place, rewards in enumerate(exploration.sides):
            n, added = max(len(rewards), 1), factor - 1
            mean = rewards.sum() / n + added * arrays["contribution"][place, latent] / n
            square = np.square(rewards).sum() + 2 * added * arrays["product"][place, latent] + added**2 * arrays["square"][place, latent]
            line += [_short(mean, 5), _short(math.sqrt(max(square / n - mean**2, 0.0)), 5)]
        found.append(line)
    return found


def _edges(exploration: Exploration) -> np.ndarray:
    """Borders of the bins of all rewards."""
    rewards = exploration.completions["rewards"].astype(np.float64)
    low, high = (float(rewards.min()), float(rewards.max())) if len(rewards) else (0.0, 1.0)
    return np.linspace(low, high if high > low else low + 1.0, BINS + 1)


def _binned(rewards: np.ndarray, edges: np.ndarray) -> list[int]:
    """How many lie in each bin; those beyond the ends in the last one on their side."""
    return [int(count) for count in np.histogram(np.clip(rewards, edges[0], edges[-1]), bins=edges)[0]]


def _histogram(exploration: Exploration) -> dict[str, Any]:
    edges = _edges(exploration)
    chosen, rejected = (_binned(side, edges) for side in exploration.sides)
    return {"low": _short(edges[0], 4), "high": _short(edges[-1], 4), "chosen": chosen, "rejected": rejected}


def _edited_histograms(exploration: Exploration, latent: int) -> list[list[int]]:
    """Chosen and rejected rewards with the latent removed, then doubled, in bins; none where not all contributions are kept."""
    rows, _, contributions = exploration.fires(latent)
    if not len(rows) or not exploration.exact:
        return []
    edges, found = _edges(exploration), []
    for _, factor in EDITS[1:]:
        rewards = exploration.completions["rewards"].astype(np.float64)
        rewards[rows] += (factor - 1) * contributions
        found += [_binned(rewards[numbers], edges) for numbers in exploration.numbers_of_sides]
    return found


def _contexts(exploration: Exploration, latent: int, extent: Extent) -> list[dict[str, Any]]:
    """The items in which the latent is most active, each with the reply of either side in which it is."""
    rows, activations, contributions = exploration.fires(latent)
    here = dict(zip(rows.tolist(), zip(activations.tolist(), contributions.tolist(), strict=True), strict=True))
    order = np.argsort(-np.abs(activations), kind="stable")
    items = list(dict.fromkeys(exploration.rows[int(rows[place])].item for place in order))[: extent.contexts]
    found = []
    for item in items:
        sides = {}
        for side in ("chosen", "rejected"):
            of_side = [row for row in exploration.rows_of[item] if row.side == side]
            best = max(of_side, key=lambda row: (abs(here.get(row.number, (0.0, 0.0))[0]), -row.place))
            activation, contribution = here.get(best.number, (0.0, 0.0))
            text, token = _end(best.text, extent.context_characters), _token(exploration, best.number)
            sides[side] = [best.place, text, token, _short(activation, 4), _short(contribution, 4)]
        found.append({"item": item, "prompt": _end(exploration.items[item].prompt[-1].content, extent.context_characters), **sides})
    return found


def texts_of(exploration: Exploration, item: int) -> dict[str, Any]:
    """The texts of an item, for contexts that only say where they stand."""
    row = exploration.items[item]
    return {"prompt": row.prompt[-1].content, "chosen": list(row.chosen), "rejected": list(row.rejected)}


def item_page(exploration: Exploration, item: int, extent: Extent) -> dict[str, Any]:
    """An item: its prompt and its completions, each with the parts of its reward.

    Of the parts those are given that are among the largest of a completion shown, or of a difference between two; the others are one sum.
    """
    row = exploration.items[item]
    shown = _hardest(exploration, item, extent.sides)
    latents = _needed(exploration, shown, extent.contributions)
    return {
        "item": item,
        "id": row.id,
        "subset": row.subset,
        "prompt": [[message.role, _middle(message.content, extent.text_characters)] for message in row.prompt],
        "completions": [_completion(exploration, one, latents, extent) for one in shown],
        "left": len(exploration.rows_of[item]) - len(shown),
    }


def _hardest(exploration: Exploration, item: int, sides: int) -> list[Row]:
    """The completions shown: of each side all, or those nearest to the other side by reward."""
    rewards, found = exploration.completions["rewards"], []
    for side, sign in (("chosen", 1), ("rejected", -1)):
        rows = [row for row in exploration.rows_of[item] if row.side == side]
        found += sorted(rows, key=lambda row, sign=sign: sign * float(rewards[row.number]))[:sides] if sides else rows  # type: ignore[misc]
    return found


def _needed(exploration: Exploration, shown: Sequence[Row], count: int) -> np.ndarray | None:
    """The latents among the `count` largest parts of a reward, or of a difference chosen minus rejected; None for all."""
    if not count:
        return None
    parts = {row.number: exploration.parts(row.number) for row in shown}
    used = np.unique(np.concatenate([latents for latents, _, _ in parts.values()]))
    dense = {number: _on(used, latents, contributions) for number, (latents, _, contributions) in parts.items()}
    lines = [*dense.values()]
    for chosen in (row for row in shown if row.side == "chosen"):
        lines += [dense[chosen.number] - dense[other.number] for other in shown if other.side == "rejected"]
    kept = [used[np.argsort(-np.abs(line), kind="stable")[:count]] for line in lines]
    return np.unique(np.concatenate(kept)) if kept else used


def _on(used: np.ndarray, latents: np.ndarray, contributions: np.ndarray) -> np.ndarray:
    """Contributions on all of `used`, 0 where a latent is not active."""
    found = np.zeros(len(used))
    found[np.searchsorted(used, latents)] = contributions
    return found


def _completion(exploration: Exploration, row: Row, latents: np.ndarray | None, extent: Extent) -> dict[str, Any]:
    """[latent, activation, contribution] of each part that is given, largest first; `others` of the rest: how many, and their sum."""
    own, activations, contributions = exploration.parts(row.number)
    given = np.isin(own, latents) if latents is not None else np.ones(len(own), dtype=bool)
    order = np.argsort(-np.abs(contributions), kind="stable")
    parts = [[int(own[one]), _float32(activations[one]), _float32(contributions[one])] for one in order if given[one]]
    rest = math.fsum(contributions[~given].tolist()) + float(exploration.completions["rest"][row.number])
    return {
        "side": row.side,
        "place": row.place,
        "text": _middle(row.text, extent.text_characters),
        "reward": _float32(exploration.completions["rewards"][row.number]),
        "cut": bool(exploration.completions["truncated"][row.number]),
        "token": _token(exploration, row.number),
        "parts": parts,
        "others": [int((~given).sum()), rest],
    }


def _token(exploration: Exploration, row: int) -> str:
    """The token at whose end the reward is read."""
    return str(exploration.facts["scored_tokens"][int(exploration.completions["tokens"][row])])


def _float32(value: np.float32) -> float:
    """The shortest number that reads back as the same float32."""
    return float(str(np.float32(value)))


def _short(value: float, digits: int) -> Any:
    """A number with so many significant digits; None where it is not known."""
    number = float(value)
    return float(f"{number:.{digits}g}") if math.isfinite(number) else None


def _end(text: str, characters: int) -> str | None:
    """The end of a text, since there the reward is read; None where texts stand elsewhere."""
    if not characters:
        return None
    return text if len(text) <= characters else f"… {text[-characters:]}"


def _middle(text: str, characters: int) -> str:
    """A text without its middle where it is too long, with how much is left out."""
    if not 0 < characters < len(text):
        return text
    half = characters // 2
    return f"{text[:half]} … [{len(text) - 2 * half:,} characters left out] … {text[-half:]}"
