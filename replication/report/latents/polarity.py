"""Whether a latent does what its head weight says: fire more in chosen replies where the weight is positive, in rejected ones elsewhere.

Beyond the paper, which shows hand-picked latents. Source: spec of the checks, related systems, section 7, point 7.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from replication.report.statistics import benjamini_hochberg

# Share of false discoveries among the latents that are said to agree.
FALSE_DISCOVERIES = 0.05


class Polarity(NamedTuple):
    """Items in which a latent fires on the side of its weight, and on the other; one-sided p of a sign test, adjusted over all latents.

    `p` and `q` are None where no item tells the sides apart, or the weight is 0.
    """

    agree: int
    against: int
    p: float | None
    q: float | None

    @property
    def holds(self) -> bool:
        """Whether the latent agrees with its weight, at the stated share of false discoveries."""
        return self.q is not None and self.q <= FALSE_DISCOVERIES


def polarities(rows: Sequence[Mapping[str, Any]]) -> list[Polarity]:
    """The polarity of each latent of an `explanations.jsonl`, in order; Benjamini-Hochberg over those that can be tested."""
    counts = [_counts(row) for row in rows]
    p_values = [_sign_test(agree, against) for agree, against in counts]
    tested = [p for p in p_values if p is not None]
    adjusted = iter(benjamini_hochberg(tested) if tested else ())
    q_values = [None if p is None else next(adjusted) for p in p_values]
    return [Polarity(*count, p, q) for count, p, q in zip(counts, p_values, q_values, strict=True)]


def _counts(row: Mapping[str, Any]) -> tuple[int, int]:
    more, less = int(row["polarity"]["chosen_more"]), int(row["polarity"]["rejected_more"])
    weight = float(row["weight"])
    return (more, less) if weight > 0 else (less, more) if weight < 0 else (0, 0)


def _sign_test(agree: int, against: int) -> float | None:
    if not agree + against:
        return None
    # Loaded here: a plan must not wait for scipy.
    from scipy.stats import binomtest  # noqa: PLC0415

    return float(binomtest(agree, agree + against, 0.5, alternative="greater").pvalue)


def summary(found: Sequence[Polarity]) -> str:
    """How many of a group's latents lean the way of their weight, and of how many that is established."""
    told = [one for one in found if one.p is not None and one.agree != one.against]
    if not told:
        return "no item tells"
    return f"{sum(one.agree > one.against for one in told)} of {len(told)} agree, {sum(one.holds for one in told)} beyond chance"


def polarity_text(one: Polarity) -> str:
    """One latent's counts and adjusted p."""
    return "no item tells" if one.q is None else f"{one.agree}:{one.against}, q {one.q:.2g}"
