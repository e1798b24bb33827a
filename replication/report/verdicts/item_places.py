"""Which item of one file is which of another: by subset and id, and what to do where an id is no identity."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from replication.report.results.score_files import ScoredBenchmark
from sarm.data.preferences import ScoredPreference
from sarm.metrics.rmbench import RMBENCH_DOMAINS


class Place(NamedTuple):
    """Which item: its subset, its id, and which of those with that id, from 1, in the file's order."""

    subset: str
    id: str
    number: int

    @property
    def text(self) -> str:
        """The id, with a count where it is not the first of that id."""
        shown = self.id or "item"
        return shown if self.id and self.number == 1 else f"{shown}#{self.number}"

    @property
    def whole(self) -> str:
        """Subset and id."""
        return f"{self.subset} {self.text}".strip()


Placed = dict[Place, ScoredPreference]
_Item = tuple[Place, ScoredPreference]


class Matched(NamedTuple):
    """The items that both files have, and those of one alone, by our places where there is one of ours."""

    pairs: tuple[tuple[Place, ScoredPreference, ScoredPreference], ...]
    only_ours: tuple[Place, ...]
    only_theirs: tuple[Place, ...]
    by_order: tuple[str, ...]
    unsure: int
    our_places: tuple[Place, ...]


def match_items(ours: Sequence[ScoredPreference], theirs: Sequence[ScoredPreference], *, benchmark: ScoredBenchmark) -> Matched:
    """Items matched by subset and id, equal ids in the files' order.

    An id that stands in the two files a different number of times, in one more than once, is no identity: 179 of the 188 official
    files of RewardBench 2 call the first ten items of Factuality 30 to 39 (allenai/reward-bench, issue 273). Such a subset is matched
    by its order where all other ids stand at equal places, and are half of it or more (`by_order`); else these items (`unsure` of ours)
    count for each file alone.
    """
    named = all(item.subset for item in (*ours, *theirs))
    mine, others = (_placed(items, benchmark, named=named) for items in (ours, theirs))
    by_order, unsure = [], set()
    for subset in dict.fromkeys(place.subset for place in mine):
        here, there = ([place for place in found if place.subset == subset] for found in (mine, others))
        doubtful = _no_identities(here, there)
        if doubtful and _same_order([(place, mine[place]) for place in here], [(place, others[place]) for place in there], doubtful):
            moved = dict(zip(there, here, strict=True))
            others = {moved.get(place, place): item for place, item in others.items()}
            by_order.append(subset)
        elif doubtful:
            unsure |= {place for place in (*here, *there) if place.id in doubtful}
    both = [place for place in mine if place in others and place not in unsure]
    return Matched(
        pairs=tuple((place, mine[place], others[place]) for place in both),
        only_ours=tuple(place for place in mine if place not in others or place in unsure),
        only_theirs=tuple(place for place in others if place not in mine or place in unsure),
        by_order=tuple(by_order),
        unsure=sum(place in mine and place._replace(number=1) in others for place in unsure),
        our_places=tuple(mine),
    )


def _no_identities(here: Sequence[Place], there: Sequence[Place]) -> set[str]:
    mine, others = Counter(place.id for place in here), Counter(place.id for place in there)
    return {name for name in mine.keys() | others.keys() if mine[name] != others[name] and max(mine[name], others[name]) > 1}


def _same_order(here: Sequence[_Item], there: Sequence[_Item], doubtful: set[str]) -> bool:
    """Whether two files have a subset in one order: half of the ids or more tell an item and stand at equal places, and at all other
    places one id is doubtful and both items have as many completions.
    """
    if len(here) != len(there):
        return False
    known = {place.id for place, _ in here} & {place.id for place, _ in there} - doubtful
    equal = 0
    for (mine, ours), (other, theirs) in zip(here, there, strict=True):
        if mine.id == other.id and mine.id in known:
            equal += 1
        elif {mine.id, other.id} & known or not {mine.id, other.id} & doubtful or _counts(ours) != _counts(theirs):
            return False
    return 2 * equal >= len(here)


def _counts(item: ScoredPreference) -> tuple[int, int]:
    return len(item.chosen_rewards), len(item.rejected_rewards)


def _placed(items: Sequence[ScoredPreference], benchmark: ScoredBenchmark, *, named: bool) -> Placed:
    """Items by their place. Where a file names no subset (RM-Bench's domain files), none is looked at in either."""
    seen: Counter[tuple[str, str]] = Counter()
    found = {}
    for item in items:
        subset = _domain(item.subset) if benchmark == "rmbench" else item.subset
        name = (subset if named else "", item.id)
        seen[name] += 1
        found[Place(*name, seen[name])] = item
    return found


def _domain(subset: str) -> str:
    return next((one for one in RMBENCH_DOMAINS if subset.startswith(one)), subset)
