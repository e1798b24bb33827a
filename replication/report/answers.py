"""What a reader must know of the answers of a judge or an explainer: why some are unread, and who gave them to what."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Why answers are unread, and what they were asked without, in words. Other reasons are the server's own `finish_reason`.
ITS_WORDS = "its words"
WHY = {
    ITS_WORDS: "by their words",
    "length": "cut at their longest",
    "context": "beyond the judge's context",
    "refused": "refused by the endpoint",
    "filtered": "taken by a filter",
    "content_filter": "taken by a filter",
    "wordless": "without a word",
    "thoughts only": "with thoughts alone",
}
WISHES = {"temperature": "a temperature", "system": "a system message (it stands before the question)"}
UNKNOWN_ADDRESS = "an address that was not kept"


def remarks(facts: Mapping[str, Any], artifact: Path) -> list[str]:
    """Remarks on the answers of an artifact, whose `conditions.json` or `summary.json` says `facts`."""
    why = facts.get("unread_because", {})
    reasons = ", ".join(f"{count:,} {WHY.get(reason, f'ended with {reason!r}')}" for reason, count in why.items())
    told = [f"unread: {reasons}" if why.keys() - {ITS_WORDS} else ""]
    addresses = sorted({one["address"] or UNKNOWN_ADDRESS for one in facts.get("answered_by", [])})
    told.append(f"answers from {' and '.join(addresses)}" if len(addresses) > 1 else "")
    without = {wish: count for wish, count in facts.get("asked_without", {}).items() if wish != "max_tokens"}
    told += [f"{count:,} questions asked without {WISHES.get(wish, wish)}, which the endpoint refuses" for wish, count in without.items()]
    cut = facts.get("perhaps_cut", 0)
    told.append(f"of {cut:,} questions the endpoint counted so few tokens that it seems to cut them" if cut else "")
    if "grammar" not in facts:
        answers = f"{artifact.parent.name}/{artifact.name}/answers.json"
        told.append(f"read by an earlier parser, which took ends of scales for ratings; --answers with the store's {answers} reads anew")
    return [one for one in told if one]
