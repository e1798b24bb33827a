"""Steering artifacts in which the truth is known: planted latents, strata and rewards, written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from replication.report.steering.experiment import Completions, Floats, Steering

SAFE, EVERYWHERE, SILENT, NEGATIVE = 0, 1, 2, 3
N_LATENTS = 64
K = 12
SUBSETS = ("Safety", "Math", "Focus", "Factuality", "Precise IF")


def rows_of(items_per_subset: int, *, ties: int = 0) -> list[dict[str, Any]]:
    """RewardBench-2-shaped completions: one chosen and three rejected an item; `ties` prompts with a ref and a tied row."""
    rows: list[dict[str, Any]] = []
    kinds = [(subset, str(number), 1, 3) for subset in SUBSETS for number in range(items_per_subset)]
    kinds += [("Ties", f"{kind}:{number}", good, 3) for number in range(ties) for kind, good in (("ref", 1), ("tied", 3))]
    for item, (subset, name, good, bad) in enumerate(kinds):
        for side, count, pairs in (("chosen", good, bad), ("rejected", bad, good)):
            for place in range(count):
                rows.append(
                    {"item": item, "id": name, "subset": subset, "side": side, "place": place, "pairs": pairs, "prompt": f"p{item}"}
                )
    return rows


def completions(rows: Sequence[dict[str, Any]], dense: Floats, *, concept: str = "safety") -> Completions:
    """Completions from dense latents `[n, N_LATENTS]`, of which the K largest in size are kept."""
    indices = np.argsort(-np.abs(dense), axis=1, kind="stable")[:, :K].astype(np.int32)
    return Completions(rows, indices, np.take_along_axis(dense, indices.astype(np.int64), axis=1), concept)


def dense_latents(rows: Sequence[dict[str, Any]], *, seed: int = 0, share: float = 1.0) -> Floats:
    """SAFE fires on the concept's chosen replies alone (a `share` of them), EVERYWHERE everywhere; SILENT and NEGATIVE are 0;
    all others fire at random in a tenth of the completions."""
    generator = np.random.default_rng(seed)
    dense = np.where(generator.random((len(rows), N_LATENTS)) < 0.1, generator.exponential(1.0, (len(rows), N_LATENTS)), 0.0)
    on_t = np.array([row["subset"].lower().startswith("safety") and row["side"] == "chosen" for row in rows])
    dense[:, SAFE] = np.where(on_t & (generator.random(len(rows)) < share), 1.0 + generator.random(len(rows)), 0.0)
    dense[:, EVERYWHERE] = 1.0 + generator.random(len(rows))
    dense[:, [SILENT, NEGATIVE]] = 0.0
    return dense


def steering(
    latent: int,
    *,
    items: int = 60,
    ties: int = 0,
    share: float = 1.0,
    multiplier: float = 3.0,
    same_set: bool = False,
    seed: int = 0,
    head: Floats | None = None,
    facts: dict[str, Any] | None = None,
    dense: Floats | None = None,
) -> Steering:
    """A steering artifact in which `latent` was edited; rewards are exactly the head times the latents."""
    rows = rows_of(items, ties=ties)
    target = completions(rows, dense_latents(rows, seed=seed, share=share) if dense is None else dense)
    selection = target if same_set else completions(rows, dense_latents(rows, seed=seed + 1, share=share))
    if head is None:
        head = np.random.default_rng(7).normal(0, 0.3, N_LATENTS)
        head[[SAFE, EVERYWHERE, SILENT, NEGATIVE]] = (0.6, 0.5, 0.4, -0.4)
    rewards = (head[target.indices] * target.values).sum(axis=1)
    change = (multiplier - 1) * head[latent] * target.activation(latent)
    s = np.zeros(N_LATENTS)
    s[latent] = 0.9
    known = {
        "selection": "rewardbench2" if same_set else "rmbench", "target": "rewardbench2", "subset": "safety", "rule": "argmax-s",
        "bound": 0.1, "multiplier": multiplier, "dtype": "float32", "latent": latent,
        "rules": {"argmax-s": latent, "argmax-s-bounded-t": SAFE, "s-minus-t": None}, **(facts or {}),
    }  # fmt: skip
    states = np.random.default_rng(seed).normal(size=(len(rows), 8))
    states[:, 0] += 2 * np.array([row["side"] == "chosen" and row["subset"] == "Safety" for row in rows])
    return Steering(
        facts=known, target=target, selection=selection, rewards=rewards, steered_rewards=rewards + change, identity_rewards=rewards.copy(),
        states=states, head=head, s=s, t=np.zeros(N_LATENTS),
    )  # fmt: skip
