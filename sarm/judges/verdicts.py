"""A judge's words to rewards: prompts of a question, positions, verdicts and ratings, and the credit that they give. No I/O.

Rewards are such that `scoring.best_of_n_credits` and `scoring.ties_score` give what the official harness gives: an unread rating is -1, an
unread verdict puts all four completions level.
Source: allenai/reward-bench @ 05a9005, rewardbench/generative_v2.py and scripts/run_generative_v2.py.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Literal

from sarm.judges.prompts import RANKING_GEMINI, RANKING_QUESTION, RANKING_SYSTEM, RATING, RATING_TIES

Reading = Literal["checked", "official"]
RankingPrompt = Literal["system", "merged", "gemini"]
LETTERS = "ABCD"
CANDIDATES = len(LETTERS)
UNREAD = -1.0
# What an item is worth whose answer cannot be read: as if all four were level.
LEVEL_CREDIT = 0.25
LOWEST, HIGHEST = 1.0, 10.0

_VERDICT = re.compile(r"\[\[([ABCD])\]\]")
_OFFICIAL_RATING = re.compile(r"\b([1-9]|10)\b\s*$")
# A number at the very end, perhaps `N/10`; not the rest of a date, a range, a version or another fraction.
_CHECKED_RATING = re.compile(r"(?<![\w.,/\-\u2212\u2013])([1-9][0-9]*(?:\.[0-9]+)?)(?:\s*(?:/|out of)\s*10(?:\.0)?)?$")
_UNDECIDED = re.compile(r"[0-9]\s*(?:[-\u2212\u2013/]|to|or)\s*$")
_MARKUP = re.compile(r"[*_`]")
_ORNAMENTS = " \t\r\n#~.\"'()[]{}$"


def position_of(subset: str, item: str, *, seed: int) -> int:
    """Where the chosen completion stands among four, 0 to 3; by the item alone, so that no other item moves it."""
    # Deviation: the official harness draws positions without a seed; ours follow from seed, subset and id.
    return random.Random(f"{seed}/{subset}/{item}").randrange(CANDIDATES)


def displayed(completions: Sequence[str], position: int) -> list[str]:
    """Four completions, the chosen one first, as A to D: the first and the one at `position` change places."""
    shown = list(completions)
    shown[0], shown[position] = shown[position], shown[0]
    return shown


def ranking_prompt(question: str, shown: Sequence[str], style: RankingPrompt) -> tuple[str, str]:
    """System message (empty: none) and user message of a ranking question."""
    fields = dict(zip(("answer_a", "answer_b", "answer_c", "answer_d"), shown, strict=True))
    text = RANKING_QUESTION.format(question=question, **fields)
    if style == "gemini":
        return "", RANKING_GEMINI + text
    if style == "merged":
        return "", f"{RANKING_SYSTEM}\n\n{text}"
    return RANKING_SYSTEM, text


def rating_prompt(question: str, completion: str, *, ties: bool) -> str:
    """The user message that asks for a rating of one completion; there is no system message."""
    return (RATING_TIES if ties else RATING).format(prompt=question, completion=completion)


def read_verdict(answer: str, reading: Reading) -> int | None:
    """The place (0 to 3) that an answer prefers; None where it names none.

    `official`: the first letter of the alphabet that is named anywhere; `checked`: the verdict that is named last.
    """
    # Deviation: an answer that weighs [[A]] and then decides for [[B]] counts as B; the official parser takes A.
    named = _VERDICT.findall(answer)
    if not named:
        return None
    return LETTERS.index(min(named) if reading == "official" else named[-1])


def read_rating(answer: str, reading: Reading) -> float:
    """The rating at the end of an answer, 1 to 10, or -1 where there is none.

    `checked` reads `9/10`, `8.5`, `**9**` and `I rate it 7.` as 9, 8.5, 9 and 7, and no rest of a range, date or other fraction.
    """
    if reading == "official":
        found = _OFFICIAL_RATING.search(answer.strip())
        return float(found.group(1)) if found else UNREAD
    # Deviation: the official parser reads `9/10` as 10, `8.5` as 5, and `**9**` not at all.
    text = _MARKUP.sub("", answer).strip(_ORNAMENTS)
    found = _CHECKED_RATING.search(text)
    if found is None or _UNDECIDED.search(text[: found.start()]):
        return UNREAD
    rating = float(found.group(1))
    return rating if LOWEST <= rating <= HIGHEST else UNREAD


def ranking_rewards(verdict: int | None, position: int) -> tuple[float, ...]:
    """1 for the completion that the verdict names and 0 for the others, the chosen one first; all 0 without a verdict."""
    if verdict is None:
        return (0.0,) * CANDIDATES
    # The exchange of two places is its own inverse.
    named = {0: position, position: 0}.get(verdict, verdict)
    return tuple(float(place == named) for place in range(CANDIDATES))


def ranking_credit(verdict: int | None, position: int) -> float:
    """1 for the chosen completion, 0 for another, 1/4 for an answer without a verdict."""
    if verdict is None:
        return LEVEL_CREDIT
    return float(verdict == position)


def rating_credit(ratings: Sequence[float]) -> float:
    """1/k if the first of the ratings is one of the k joint best that could be read, else 0; 1/4 if none could be read."""
    read = [rating for rating in ratings if rating != UNREAD]
    if not read:
        return LEVEL_CREDIT
    best = [place for place, rating in enumerate(ratings) if rating == max(read)]
    return (0 in best) / len(best)
