"""Several mistakes told at once, each in one line, each with the nearest valid name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from sarm.job import UsageProblem

SHORT_LIST = 12


class UsageProblems(UsageProblem):
    """All that is wrong with what was asked for; one line a problem."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def nearest(name: str, valid: Iterable[str]) -> str:
    """A hint that names the nearest valid names, or all of them when there are few."""
    names = sorted(set(valid))
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(repr(one) for one in close)}?"
    if len(names) <= SHORT_LIST:
        return f"valid: {', '.join(names) or 'none'}"
    return f"valid: {', '.join(names[:SHORT_LIST])}, ..."


def unknown(what: str, name: str, valid: Iterable[str]) -> UsageProblems:
    """The problem of one unknown name."""
    return UsageProblems([f"unknown {what} {name!r}; {nearest(name, valid)}"])
