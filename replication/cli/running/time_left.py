"""How fast a job goes and how long it and all jobs still take, from what jobs told so far and what the plan expects of the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

# What is known after less than this share of a job, or of all jobs, says nothing of the rest.
LEAST_SHARE = 0.02


class Pace:
    """How fast a job goes: from the first thing that it told, so that what a checkpoint had done before does not count."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._first: tuple[float, float] | None = None

    def told(self, *, done: float, total: float) -> tuple[float | None, float | None]:
        """Units a second and the seconds left; None where too little is known."""
        now = self._now()
        if self._first is None:
            self._first = (now, done)
        began, at = self._first
        if done <= at or now <= began or done - at < LEAST_SHARE * total:
            return None, None
        rate = (done - at) / (now - began)
        return rate, max(total - done, 0.0) / rate


class Expected(NamedTuple):
    """What the plan expects of a job: its kind and its seconds."""

    kind: str
    seconds: float


class _Took(NamedTuple):
    """Seconds that a job took, or will have taken by its own pace, beside what was expected."""

    job: Expected
    seconds: float


class Remaining:
    """How long all jobs still take, as many side by side as there have been.

    A job at work counts by its own pace, any other by how far those of its kind kept to the plan, or all where none of its kind has.
    """

    def __init__(self, expected: Mapping[str, Expected], now: Callable[[], float]) -> None:
        self._open = dict(expected)
        self._total = sum(job.seconds for job in expected.values())
        self._now = now
        self._began: dict[str, float] = {}
        self._together: dict[str, int] = {}
        self._ends: dict[str, float] = {}
        self._took: list[_Took] = []
        self._lanes = 1

    def started(self, key: str, together: int = 1) -> None:
        """A job is at work, in one pass with so many, of which each takes its share of the pass."""
        self._began[key], self._together[key] = self._now(), together
        self._lanes = max(self._lanes, round(sum(1 / self._together[one] for one in self._began)))

    def told(self, key: str, left: float | None) -> None:
        """A job at work will take so many seconds more, and so will those in one pass with it; None: it cannot tell yet."""
        if left is not None and key in self._began:
            self._ends[key] = self._now() + left

    def finished(self, key: str, seconds: float | None = None) -> None:
        """A job is done (`seconds` that it took, or its share of a pass), was there already, failed, or will not run."""
        job = self._open.pop(key, None)
        self._began.pop(key, None)
        self._ends.pop(key, None)
        if job is not None and seconds is not None:
            self._took.append(_Took(job, seconds))

    def left(self) -> float | None:
        """Seconds; None where the plan expects nothing, or while what is known of is too small a share of it."""
        now = self._now()
        spent = {key: (now - began) / self._together[key] for key, began in self._began.items()}
        own = {key: max(end - now, 0.0) / self._together[key] for key, end in self._ends.items()}
        known = [*self._took, *(_Took(self._open[key], own[key] + spent[key]) for key in own if key in self._open)]
        overall = _ratio(known)
        if overall is None or sum(one.job.seconds for one in known) < LEAST_SHARE * self._total:
            return None
        ratios = {kind: _ratio(one for one in known if one.job.kind == kind) for kind in {one.job.kind for one in known}}
        each = []
        for key, job in self._open.items():
            ratio = ratios.get(job.kind)
            planned = job.seconds * (overall if ratio is None else ratio)
            each.append(own[key] if key in own else max(planned - spent.get(key, 0.0), 0.0))
        return max([sum(each) / self._lanes, *each])


def _ratio(known: Iterable[_Took]) -> float | None:
    """Seconds taken for each that was expected; None where nothing was."""
    took, wanted = 0.0, 0.0
    for one in known:
        took, wanted = took + one.seconds, wanted + one.job.seconds
    return took / wanted if wanted else None
