"""Which latents and items of an exploration get pages, and how long their texts are, by stated rules."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from replication.report.latents.explorations import Exploration


class Extent(NamedTuple):
    """How much is shown; 0 is without limit. `sides` are completions of one side of an item.

    A context without limit holds no text of its own: it says where the whole text stands.
    """

    latents: int
    items: int
    sides: int
    contributions: int
    contexts: int
    context_characters: int
    text_characters: int

    def rule(self, exploration: Exploration) -> tuple[str, str]:
        """What is shown of the latents and of the items, in words."""
        total, items = exploration.n_latents, len(exploration.items)
        latents = f"the {self.latents} of {total:,} with the largest head weights" if 0 < self.latents < total else f"all {total:,}"
        if not 0 < self.items < items:
            return latents, f"all {items:,}"
        return latents, (
            f"{self.items} of {items:,}: from each subset in turn the one that is most wrong (lowest margin of the lowest chosen over the "
            "highest rejected reward), the one nearest to a tie, and the one that is most right, and again"
        )


REPORT = Extent(latents=500, items=60, sides=3, contributions=20, contexts=3, context_characters=240, text_characters=1200)
WHOLE = Extent(latents=0, items=0, sides=0, contributions=0, contexts=20, context_characters=0, text_characters=0)


def latents_by_weight(exploration: Exploration, count: int) -> list[int]:
    """The latents with the largest absolute head weights, largest first, the lower number at a tie; all for 0."""
    order = np.argsort(-np.abs(exploration.latents["head"]), kind="stable")
    return [int(latent) for latent in (order[:count] if count else order)]


def items_in_turn(exploration: Exploration, count: int) -> list[int]:
    """The items that `Extent.rule` names, in the order in which they are taken; all in their own order for 0 or where they are fewer."""
    items = exploration.items
    if not 0 < count < len(items):
        return list(range(len(items)))
    margins = exploration.margins()
    queues = []
    for subset in dict.fromkeys(item.subset for item in items):
        places = [place for place, item in enumerate(items) if item.subset == subset]
        lowest = sorted(places, key=lambda place: (margins[place], place))
        nearest = sorted(places, key=lambda place: (abs(margins[place]), place))
        queues.append((lowest, nearest, lowest[::-1]))
    taken: dict[int, None] = {}
    turn = 0
    while len(taken) < count:
        for orders in queues:
            fresh = next((place for place in orders[turn % 3] if place not in taken), None)
            if fresh is not None and len(taken) < count:
                taken[fresh] = None
        turn += 1
    return list(taken)
