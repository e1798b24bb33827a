"""How far a scoring is: in tokens, since the longest rows go first and the number of rows says little of the time left."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence


class ScoredTokens:
    """Tells `context.progress` the tokens scored so far and, as its note, of how many rows they are."""

    def __init__(self, rows: Sequence[Sequence[int]], tell: Callable[[int, int, str, str], None], *, called: str, of: str = "") -> None:
        self._lengths = [len(row) for row in rows]
        self._total = sum(self._lengths)
        self._tell, self._called, self._of = tell, called, f" of {of}" if of else ""
        self.tokens, self.rows = 0, 0

    def skip(self, indices: Iterable[int]) -> None:
        """Rows that were scored before: counted, not told."""
        for index in indices:
            self.tokens += self._lengths[index]
            self.rows += 1

    def add(self, indices: Iterable[int]) -> None:
        """These rows are scored now, by their places."""
        self.skip(indices)
        self._tell(self.tokens, self._total, "tokens", f"{self.rows:,} of {len(self._lengths):,} {self._called}{self._of}")
