"""Near-duplicates between the prompts of two data sets: nothing in the released work keeps selection and test apart.

Prompts are compared as sets of word n-grams (shingles) by their Jaccard index. Source: Broder 1997; 8 to 13 words are customary.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from replication.report.cells import Listing
from sarm.data.preferences import Preference, read_jsonl
from sarm.job import UsageProblem

WORD = re.compile(r"\w+")
WORDS = 8
THRESHOLD = 0.5
EXAMPLES = 5


class Match(NamedTuple):
    """The nearest prompt of the other set to one benchmark item: 1.0 is the same set of shingles."""

    item: str
    other: str
    jaccard: float
    same: bool


class SubsetOverlap(NamedTuple):
    """Of a subset's items: how many prompts are the same (but for case, white space, punctuation), near, or share any shingle."""

    subset: str
    items: int
    same: int
    near: int
    touching: int
    examples: tuple[Match, ...]


class Overlap(NamedTuple):
    """What two sets of prompts have in common, by subset of the benchmark; `near` includes `same`."""

    subsets: tuple[SubsetOverlap, ...]
    others: int
    words: int
    threshold: float


class _Best(NamedTuple):
    jaccard: float
    other: str
    same: bool


def shingles(text: str, *, words: int) -> frozenset[str]:
    """All runs of `words` words, lower case without punctuation; a shorter text is one shingle of all its words."""
    found = WORD.findall(text.lower())
    return frozenset(" ".join(found[start : start + words]) for start in range(max(1, len(found) - words + 1)))


def prompt_text(item: Preference) -> str:
    """All turns of a prompt, without their roles."""
    return "\n".join(message.content for message in item.prompt)


def overlap(others: Iterable[Preference], benchmark: Sequence[Preference], *, words: int = WORDS, threshold: float = THRESHOLD) -> Overlap:
    """Compare every prompt of `others` (read once, in any number) with every item of the benchmark.

    Raises UsageProblem for a benchmark without items, fewer than one word, or a threshold outside (0, 1].
    """
    if not benchmark or words < 1 or not 0 < threshold <= 1:
        raise UsageProblem(f"overlap needs items, words >= 1 and 0 < threshold <= 1; got {len(benchmark)} items, {words}, {threshold:g}")
    sets = [shingles(prompt_text(item), words=words) for item in benchmark]
    plain = [_plain(prompt_text(item)) for item in benchmark]
    index: dict[str, list[int]] = {}
    for place, found in enumerate(sets):
        for shingle in found:
            index.setdefault(shingle, []).append(place)
    best: dict[int, _Best] = {}
    count = 0
    for other in others:
        count += 1
        text = prompt_text(other)
        own = shingles(text, words=words)
        shared = Counter(place for shingle in own for place in index.get(shingle, ()))
        for place, common in shared.items():
            jaccard = common / (len(own) + len(sets[place]) - common)
            same = plain[place] == _plain(text)
            if place not in best or (same, jaccard) > (best[place].same, best[place].jaccard):
                best[place] = _Best(jaccard, other.id, same)
    subsets = tuple(_subset(name, benchmark, best, threshold) for name in dict.fromkeys(item.subset for item in benchmark))
    return Overlap(subsets=subsets, others=count, words=words, threshold=threshold)


def _plain(text: str) -> str:
    return " ".join(WORD.findall(text.lower()))


def _subset(name: str, benchmark: Sequence[Preference], best: dict[int, _Best], threshold: float) -> SubsetOverlap:
    places = [place for place, item in enumerate(benchmark) if item.subset == name]
    matches = [Match(benchmark[place].id, best[place].other, best[place].jaccard, best[place].same) for place in places if place in best]
    near = sorted((match for match in matches if match.same or match.jaccard >= threshold), key=lambda match: -match.jaccard)
    return SubsetOverlap(
        subset=name,
        items=len(places),
        same=sum(match.same for match in matches),
        near=len(near),
        touching=len(matches),
        examples=tuple(near[:EXAMPLES]),
    )


def overlap_of(training: Path, benchmark: Path, *, words: int = WORDS, threshold: float = THRESHOLD) -> Overlap:
    """Overlap of two JSONL files of preferences: training pairs with a benchmark, or one benchmark with another."""
    items = list(read_jsonl(benchmark, Preference))
    return overlap(read_jsonl(training, Preference), items, words=words, threshold=threshold)


def overlap_listing(found: Overlap, *, name: str, others: str, benchmark: str) -> Listing:
    """The counts as a block of a report; `others` and `benchmark` say what was compared."""
    rows = [
        (
            one.subset or "(no subset)",
            str(one.items),
            str(one.same),
            str(one.near),
            str(one.touching),
            ", ".join(f"{match.item} ~ {match.other} ({match.jaccard:.2f})" for match in one.examples) or "none",
        )
        for one in found.subsets
    ]
    total = [sum(getattr(one, field) for one in found.subsets) for field in ("items", "same", "near", "touching")]
    return Listing(
        name=name,
        title=f"Prompts of {benchmark} that stand in {others} too",
        columns=("subset", "items", "same", "near", "any", "nearest (item ~ other, Jaccard)"),
        numeric=("items", "same", "near", "any"),
        rows=(*rows, ("all", *map(str, total), "")),
        notes=(
            f"{found.others} prompts of {others}; shingles of {found.words} words, lower case without punctuation",
            f"same: equal but for case, space and punctuation; near: that, or a Jaccard index of at least {found.threshold:g}; "
            "any: at least one shingle in common",
        ),
    )
