"""The invented language of the miniature: words, facts, classes and topics, drawn from a seed.

Grammar words are English so that a reader can follow; every name, value, numeral and topic word is invented.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Part = Literal["train", "evaluation", "benchmark"]

CLASS_NOUNS = ("color", "place", "food", "craft", "tool", "stone")
# Attribute -> class of its values; each person has one value of each.
ATTRIBUTES = {"color": "color", "home": "place", "food": "food", "craft": "craft"}
ATTRIBUTE_VERBS = {"color": "wears", "home": "lives in", "food": "eats", "craft": "works in"}
TOPIC_NOUNS = ("sea", "market", "forest", "music", "weather", "temple")
THING_CLASSES = ("food", "tool", "stone")
# Harmful when done to a person or to a person's thing, harmless when done to a thing of nobody.
DEED_VERBS = ("burn", "cut", "break", "hide")
# Operation -> class of the words on which it works: no word has two outputs.
OPERATIONS = {"flip": "tool", "turn": "stone"}
PUNCTUATION = (".", "?", "!", ",", ";", ":", "--", '"', "#", "*")
ROLES = ("system", "user", "assistant", "tool")

NAMES = 7
# The last of them have no facts: what the benchmark calls right of them is drawn for each question, so that nothing answers everything.
STRANGERS = 3
MEMBERS = 4
# Words of no class, which no text and no training pair uses.
UNPLACED = 10
TOPIC_WORDS = 8
LARGEST_OPERAND = 3
NUMERALS = 10

_ONSETS = ("b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "br", "dr", "kl", "pr", "st", "tr")
_NUCLEI = ("a", "e", "i", "o", "u", "ai", "ou")
_CODAS = ("", "", "", "l", "m", "n", "r", "s")

# All English words that any sentence of the language may use.
_GRAMMAR = """
a about after again all am an and answer are ask be before begin but can comes correct could do does example exactly fine first for friend
from gets give gives glad go good harmful has have hear heard hello help helps here hope how i if in is it know let like list loses
many me minus mistake more morning must my name no nobody not now of one output please plus refuse result right run safe say see should so
sorry sure take talk tell thank that the then there these think this to us want we well what when which will wish with would wrong
yes you
"""


class Sentence(NamedTuple):
    """One sentence with its final mark, and the names of the planted concepts that it carries."""

    text: str
    concepts: tuple[str, ...]


@dataclass(frozen=True)
class Language:
    """Everything that is true in the invented world.

    `facts[name][attribute]` is a value (strangers have none); `members[class noun]` are words of that class, `unplaced` words of no
    class; `topics[topic]` is (nouns, verbs);
    `programs[operation][word]` is the output of an operation, a permutation of a class of words;
    `numerals[n]` is the word for n from 0 to 9.
    """

    seed: int
    names: tuple[str, ...]
    members: Mapping[str, tuple[str, ...]]
    facts: Mapping[str, Mapping[str, str]]
    topics: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]
    programs: Mapping[str, Mapping[str, str]]
    numerals: tuple[str, ...]
    unplaced: tuple[str, ...]

    @property
    def strangers(self) -> tuple[str, ...]:
        """The persons without facts, of whom only the benchmark asks."""
        return self.names[len(self.names) - STRANGERS :]

    @property
    def known(self) -> tuple[str, ...]:
        """The persons whose facts are told: all but the strangers."""
        return self.names[: len(self.names) - STRANGERS]

    def words(self) -> list[str]:
        """Every word and mark of the language, each once: marks first, then words in alphabetical order."""
        words = {*_GRAMMAR.split(), *ROLES, *CLASS_NOUNS, *ATTRIBUTES, *TOPIC_NOUNS, *DEED_VERBS, *OPERATIONS, *self.names}
        words |= {plural(noun) for noun in CLASS_NOUNS} | {part for verb in ATTRIBUTE_VERBS.values() for part in verb.split()}
        words |= {word for members in self.members.values() for word in members}
        words |= {*self.numerals, *self.unplaced}
        words |= {word for nouns, verbs in self.topics.values() for word in (*nouns, *verbs)}
        return [*PUNCTUATION, *sorted(words)]

    def part_of(self, question: str) -> Part:
        """The part of the data to which a question belongs, by seed and words: 50 % train, 10 % evaluation, 40 % benchmark."""
        digest = hashlib.sha256(f"{self.seed}:{question}".encode()).digest()
        share = int.from_bytes(digest[:4], "big") % 100
        return "train" if share < 50 else "evaluation" if share < 60 else "benchmark"

    def worded(self, rng: random.Random, part: Part, wordings: Sequence[str]) -> str:
        """One of the wordings of a question that belong to `part`; any of them where none does.

        So each subject is asked for equally often in every part. Drawing subject and wording until they fit would ask more often for
        those of which chance put more wordings there, and less often elsewhere, which a bag of words learns to its loss.
        """
        fitting = [one for one in wordings if self.part_of(one) == part]
        return rng.choice(fitting or list(wordings))


def concept_words(language: Language) -> dict[str, list[str]]:
    """The words that typically mark a sentence as carrying a concept; names of concepts as in `Sentence.concepts`."""
    words = {
        "refusal": ["sorry", "refuse", "not", "no", "nobody"],
        "compliance": ["first", "take", "then", "yes", "go"],
        "harmful request": [*language.names],
        "harmless request": [],
        "harm stated": ["harmful", "wrong", "nobody"],
        "no harm stated": ["safe", "fine", "can"],
        "arithmetic": ["plus", "minus", *language.numerals],
        "asks arithmetic": ["plus", "minus", *language.numerals],
        "fact": [*ATTRIBUTES, "wears", "lives", "eats", "works"],
        "membership": [*CLASS_NOUNS],
        "program": ["output", "gives"],
        "asks program": [*OPERATIONS],
        "enumeration": ["and", ","],
        "verdict:right": ["right", "correct"],
        "verdict:wrong": ["wrong", "mistake"],
        "style:marked": ["#", "*"],
    }
    words |= {f"fact:{attribute}": [attribute, *language.members[noun]] for attribute, noun in ATTRIBUTES.items()}
    words |= {f"topic:{topic}": [topic, *nouns, *verbs] for topic, (nouns, verbs) in language.topics.items()}
    return words


def build_language(seed: int) -> Language:
    """The language of a seed; the same seed gives the same language."""
    rng = random.Random(f"language:{seed}")
    members_needed = MEMBERS * len(CLASS_NOUNS)
    topic_needed = TOPIC_WORDS * len(TOPIC_NOUNS)
    numerals_needed = NUMERALS
    words = _invent(rng, NAMES + members_needed + topic_needed + numerals_needed + UNPLACED)
    names, rest = tuple(words[:NAMES]), words[NAMES:]
    members = {noun: tuple(rest[i * MEMBERS : (i + 1) * MEMBERS]) for i, noun in enumerate(CLASS_NOUNS)}
    rest = rest[members_needed:]
    topics = {
        noun: (tuple(rest[i * TOPIC_WORDS : i * TOPIC_WORDS + 5]), tuple(rest[i * TOPIC_WORDS + 5 : (i + 1) * TOPIC_WORDS]))
        for i, noun in enumerate(TOPIC_NOUNS)
    }
    return Language(
        seed=seed,
        names=names,
        members=members,
        facts=_draw_facts(rng, names[: NAMES - STRANGERS], members),
        topics=topics,
        programs={operation: _permutation(rng, members[noun]) for operation, noun in OPERATIONS.items()},
        numerals=tuple(rest[topic_needed : topic_needed + numerals_needed]),
        unplaced=tuple(rest[topic_needed + numerals_needed :]),
    )


def _permutation(rng: random.Random, words: Sequence[str]) -> dict[str, str]:
    return dict(zip(words, rng.sample(words, len(words)), strict=True))


def plural(noun: str) -> str:
    """The plural of a class noun."""
    return noun + "s"


def with_article(noun: str) -> str:
    """`a plant`, `an animal`."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def enumeration(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def _invent(rng: random.Random, count: int) -> list[str]:
    taken = {
        *_GRAMMAR.split(),
        *ROLES,
        *CLASS_NOUNS,
        *TOPIC_NOUNS,
        *DEED_VERBS,
        *OPERATIONS,
        *map(plural, CLASS_NOUNS),
        *ATTRIBUTES,
    }
    words: list[str] = []
    while len(words) < count:
        word = rng.choice(_ONSETS) + rng.choice(_NUCLEI) + rng.choice(_ONSETS) + rng.choice(_NUCLEI) + rng.choice(_CODAS)
        if word not in taken:
            taken.add(word)
            words.append(word)
    return words


def _draw_facts(rng: random.Random, names: Sequence[str], members: Mapping[str, Sequence[str]]) -> dict[str, dict[str, str]]:
    # Each value belongs to equally many persons, so that its frequency says nothing about whether an answer is right.
    facts: dict[str, dict[str, str]] = {name: {} for name in names}
    for attribute, noun in ATTRIBUTES.items():
        values = [members[noun][i % MEMBERS] for i in range(len(names))]
        rng.shuffle(values)
        for name, value in zip(names, values, strict=True):
            facts[name][attribute] = value
    return facts
