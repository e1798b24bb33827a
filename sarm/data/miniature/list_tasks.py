"""The miniature's tasks of precise instruction: lists that keep a constraint of the prompt, and lists that break it."""

from __future__ import annotations

import random

from sarm.data.miniature.language import CLASS_NOUNS, Language, Sentence, enumeration, plural, with_article
from sarm.data.miniature.problems import Problem


def precise_instruction(language: Language, rng: random.Random) -> Problem:
    """A list that must keep a constraint of the prompt: how many, of which classes, or which comes first. Wrong: it is broken."""
    kind = rng.choice(("count", "count", "both", "both", "begin"))
    question, right, wrong = _CONSTRAINTS[kind](language, rng)
    frame = rng.choice(("here: {}.", "{}.", "these: {}."))
    concept = ("enumeration", f"constraint:{kind}")
    return Problem(
        task="precise if",
        key=f"list:{question}",
        question=Sentence(question, ("question", f"asks {kind}")),
        right=((Sentence(frame.format(enumeration(right)), concept),),),
        wrong=tuple((Sentence(frame.format(enumeration(items)), concept),) for items in wrong),
    )


def _counted(language: Language, rng: random.Random) -> tuple[str, list[str], list[list[str]]]:
    """So many members of a class; right and wrong lists have 1 to 4 words alike, so that a length says nothing."""
    noun, n = rng.choice(CLASS_NOUNS), rng.randint(1, 4)
    how = rng.choice(("name", "tell me", "list", "say", "give me"))
    question = f"{how} {rng.choice(('exactly ', ''))}{language.numerals[n]} {plural(noun) if n > 1 else noun}."
    return question, rng.sample(language.members[noun], n), [rng.sample(language.members[noun], m) for m in range(1, 5) if m != n]


def _of_both(language: Language, rng: random.Random) -> tuple[str, list[str], list[list[str]]]:
    """A member of each of two classes; in a wrong list one or both are of another class."""
    first, second, third, fourth = rng.sample(CLASS_NOUNS, 4)
    how = rng.choice(("name", "tell me", "list", "say", "give me"))
    question = f"{how} {with_article(first)} and {with_article(second)}."

    def words(*nouns: str) -> list[str]:
        return [rng.choice(language.members[noun]) for noun in nouns]

    return question, words(first, second), [words(first, third), words(fourth, second), words(third, fourth)]


def _beginning(language: Language, rng: random.Random) -> tuple[str, list[str], list[list[str]]]:
    """Three given words of different classes, that of a given class first; in a wrong list another is first."""
    noun, second, third = rng.sample(CLASS_NOUNS, 3)
    first, *others = (rng.choice(language.members[each]) for each in (noun, second, third))
    given = rng.sample([first, *others], 3)
    question = f"list {enumeration(given)}, but begin with {with_article(noun)}."
    rng.shuffle(others)
    a, b = others
    return question, [first, a, b], [[a, first, b], [b, a, first], [b, first, a]]


_CONSTRAINTS = {"count": _counted, "both": _of_both, "begin": _beginning}
