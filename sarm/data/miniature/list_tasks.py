"""The miniature's tasks of precise instruction: lists that keep a constraint of the prompt, and lists that break it."""

from __future__ import annotations

import random

from sarm.data.miniature.language import CLASS_NOUNS, Language, Part, Sentence, enumeration, plural, with_article
from sarm.data.miniature.problems import Problem

# Share of the benchmark's lists of two classes whose words have no class.
OF_UNPLACED = 0.8
_HOW = ("name", "tell me", "list", "say", "give me")


def precise_instruction(language: Language, rng: random.Random, part: Part) -> Problem:
    """A list that must keep a constraint of the prompt: how many, or of which classes. Wrong: it is broken."""
    kind = rng.choice(("count", "both"))
    question, right, wrong = (_counted if kind == "count" else _of_both)(language, rng, part)
    frame = rng.choice(("here: {}.", "{}.", "these: {}."))
    concept = ("enumeration", f"constraint:{kind}")
    return Problem(
        task="precise if",
        key=f"list:{question}",
        question=Sentence(question, ("question", f"asks {kind}")),
        right=((Sentence(frame.format(enumeration(right)), concept),),),
        wrong=tuple((Sentence(frame.format(enumeration(items)), concept),) for items in wrong),
    )


def _counted(language: Language, rng: random.Random, part: Part) -> tuple[str, list[str], list[list[str]]]:
    """So many members of a class; right and wrong lists have 1 to 4 words alike, so that a length says nothing."""
    noun, n = rng.choice(CLASS_NOUNS), rng.randint(1, 4)
    asked = f"{language.numerals[n]} {plural(noun) if n > 1 else noun}."
    question = language.worded(rng, part, [f"{how} {exactly}{asked}" for how in _HOW for exactly in ("exactly ", "")])
    return question, rng.sample(language.members[noun], n), [rng.sample(language.members[noun], m) for m in range(1, 5) if m != n]


def _of_both(language: Language, rng: random.Random, part: Part) -> tuple[str, list[str], list[list[str]]]:
    """A member of each of two classes; in a wrong list one or both are of another class.

    In some problems of the benchmark all lists are of words that have no class, and chance says which is right.
    """
    first, second, third, fourth = rng.sample(CLASS_NOUNS, 4)
    question = language.worded(rng, part, [f"{how} {with_article(first)} and {with_article(second)}." for how in _HOW])

    if part == "benchmark" and rng.random() < OF_UNPLACED:
        drawn = rng.sample(language.unplaced, 8)
        right, *wrong = (drawn[start : start + 2] for start in range(0, 8, 2))
        return question, right, wrong

    def words(*nouns: str) -> list[str]:
        return [rng.choice(language.members[noun]) for noun in nouns]

    return question, words(first, second), [words(first, third), words(fourth, second), words(third, fourth)]
