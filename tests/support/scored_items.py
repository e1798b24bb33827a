"""Scored items of a benchmark, in one line each."""

from __future__ import annotations

from sarm.data.preferences import ScoredPreference


def item(subset: str, chosen: tuple[float, ...], rejected: tuple[float, ...], *, name: str = "0", source: str = "") -> ScoredPreference:
    """One item with its rewards."""
    return ScoredPreference(id=name, subset=subset, source=source, chosen_rewards=chosen, rejected_rewards=rejected)


def rmbench_item(domain: str, name: str = "0") -> ScoredPreference:
    """An item of RM-Bench whose rewards are the same whatever its domain."""
    return item(domain, (0.0, 2.0, 1.0), (0.0, 1.0, 1.0), name=name)
