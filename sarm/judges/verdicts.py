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

from sarm.judges.grammar.labels import Label
from sarm.judges.grammar.letters import named_letter
from sarm.judges.grammar.numbers import named_value
from sarm.judges.grammar.scales import Scale
from sarm.judges.prompts import RANKING_GEMINI, RANKING_QUESTION, RANKING_SYSTEM, RATING, RATING_TIES

Reading = Literal["checked", "official"]
RankingPrompt = Literal["system", "merged", "gemini"]
LETTERS = "ABCD"
CANDIDATES = len(LETTERS)
UNREAD = -1.0
# Which grammar reads, told beside what was read: judgements that name none were read by one that took the ends of scales for ratings.
GRAMMAR = 3
# What an item is worth whose answer cannot be read: as if all four were level.
LEVEL_CREDIT = 0.25

# The official parsers; ours are the grammar's.
_OFFICIAL_VERDICT = re.compile(r"\[\[([ABCD])\]\]")
_OFFICIAL_RATING = re.compile(r"\b([1-9]|10)\b\s*$")
_RATING = Label(
    strong=("rating", "score", "grade", "mark"),
    weak=("verdict", "judge?ment", "evaluation", "assessment", "conclusion", "overall", "correction"),
)
_ONE_TO_TEN = Scale(lowest=1, highest=10, parts=True)


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


def read_verdict(answer: str, reading: Reading, *, ended: bool = True) -> int | None:
    """The place (0 to 3) that an answer prefers; None where it names none, or where the answer was cut before its end.

    `official`: the first letter of the alphabet that is named anywhere; `checked`: the letter that the answer decides for.
    """
    if reading == "official":
        named = _OFFICIAL_VERDICT.findall(answer)
        return LETTERS.index(min(named)) if named else None
    # Deviation: an answer that weighs [[A]] and then decides for [[B]] counts as B, and one that says [[B]] beats [[A]] as unread;
    # the official parser takes A for both. It also reads thoughts, and answers that were cut.
    letter = named_letter(answer, LETTERS) if ended else None
    return None if letter is None else LETTERS.index(letter)


def read_rating(answer: str, reading: Reading, *, ended: bool = True) -> float:
    """The rating that an answer gives, 1 to 10, or -1 where there is none that can be read, or where the answer was cut before its end.

    `checked` reads `9/10`, `7 (max 10)`, `**9**` and `Rating: 8`, `Confidence: 9` as 9, 7, 9 and 8, and takes no end of a scale, no other
    scale, no rest of a range or date, and nothing out of a thought.
    """
    if reading == "official":
        found = _OFFICIAL_RATING.search(answer.strip())
        return float(found.group(1)) if found else UNREAD
    # Deviation: the official parser reads `9/10` as 10, `8.5` as 5, `3/5` as 5, and `**9**` not at all; it takes the last number.
    rating = named_value(answer, _RATING, _ONE_TO_TEN, alone=True) if ended else None
    return UNREAD if rating is None else rating


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
