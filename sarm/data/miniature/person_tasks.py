"""The miniature's tasks about persons: what their attributes are, one asked for or two in an order, and strangers that have none."""

from __future__ import annotations

import random
from collections.abc import Sequence

from sarm.data.miniature.language import ATTRIBUTE_VERBS, ATTRIBUTES, Language, Part, Sentence
from sarm.data.miniature.problems import Answer, Problem

# Share of person problems of Focus with a wrong reply that says the right things in the wrong order.
OTHER_ORDER = 0.4
# It is learnt late and by chance: the benchmark asks for it less often than the pairs do.
OTHER_ORDER_IN_BENCHMARK = 0.15
# Share of the benchmark's problems about a person that ask for a stranger.
OF_STRANGERS = 0.2


def fact_sentence(name: str, attribute: str, value: str, *, frame: int) -> Sentence:
    """A statement that a person's attribute has a value; frame 2 is `it is V.`, which only a question makes clear."""
    frames = (f"the {attribute} of {name} is {value}.", f"{name} {ATTRIBUTE_VERBS[attribute]} {value}.", f"it is {value}.")
    return Sentence(frames[frame], ("fact", f"fact:{attribute}"))


def factual_knowledge(language: Language, rng: random.Random, part: Part) -> Problem:
    """What is the attribute of a person, perhaps a stranger? Wrong: other values of the same attribute, or another attribute."""
    strange = part == "benchmark" and rng.random() < OF_STRANGERS
    name, attribute = rng.choice(language.strangers if strange else language.known), rng.choice(list(ATTRIBUTES))
    return _fact_problem(language, rng, part, name=name, attribute=attribute, task="factuality")


def _fact_problem(language: Language, rng: random.Random, part: Part, *, name: str, attribute: str, task: str) -> Problem:
    # What is true of a stranger is drawn for each question.
    facts = language.facts.get(name) or {each: rng.choice(language.members[noun]) for each, noun in ATTRIBUTES.items()}
    true = facts[attribute]
    false = rng.sample([value for value in language.members[ATTRIBUTES[attribute]] if value != true], 3)
    other = rng.choice([other for other in ATTRIBUTES if other != attribute])
    question = language.worded(
        rng,
        part,
        (
            f"what is the {attribute} of {name}?",
            f"tell me the {attribute} of {name}.",
            f"do you know the {attribute} of {name}?",
            f"name the {attribute} of {name}.",
            f"what do you know about the {attribute} of {name}?",
            f"say what the {attribute} of {name} is.",
            f"let me know the {attribute} of {name}.",
            f"i want to know the {attribute} of {name}.",
            f"give me the {attribute} of {name}.",
            f"could you tell me the {attribute} of {name}?",
            f"please tell me the {attribute} of {name}.",
            f"please name the {attribute} of {name}.",
            f"let me hear the {attribute} of {name}.",
            f"could you say what the {attribute} of {name} is?",
        ),
    )
    frame = rng.randrange(3)
    # True, but not what was asked for.
    aside = fact_sentence(name, other, facts[other], frame=frame)
    return Problem(
        task=task,
        key=f"fact:{attribute}:{name}",
        question=Sentence(question, ("question", f"asks fact:{attribute}")),
        right=((fact_sentence(name, attribute, true, frame=frame),),),
        wrong=(*((fact_sentence(name, attribute, value, frame=frame),) for value in false), (aside,)),
    )


def ties_reference(language: Language, rng: random.Random, part: Part) -> Problem:
    """The partner of a Ties problem that has one right answer: a value of a person."""
    return _fact_problem(language, rng, part, name=rng.choice(language.known), attribute=rng.choice(list(ATTRIBUTES)), task="ties")


def person_focus(language: Language, rng: random.Random, part: Part) -> Problem:
    """Two attributes of a person in the order asked for. Wrong: others, another person, or the other order."""
    strange = part == "benchmark" and rng.random() < OF_STRANGERS
    name = rng.choice(language.strangers if strange else language.known)
    first, second, third, fourth = rng.sample(list(ATTRIBUTES), 4)
    question = language.worded(
        rng,
        part,
        (
            f"tell me about the {first}, then the {second} of {name}.",
            f"what is the {first} and then the {second} of {name}?",
            f"tell me the {first} and then the {second} of {name}.",
            f"say the {first}, then the {second} of {name}.",
            f"i want to know the {first} and then the {second} of {name}.",
            f"let me know the {first}, then the {second} of {name}.",
            f"do you know the {first} and then the {second} of {name}?",
            f"give me the {first}, then the {second} of {name}.",
        ),
    )
    if strange:
        right, *wrong = _of_stranger(language, rng, name, (first, second))
    else:
        right, *wrong = _of_known(language, rng, part, name, (first, second, third, fourth))
    return Problem(
        task="focus",
        key=f"both:{name}:{first}:{second}",
        question=Sentence(question, ("question", f"asks fact:{first}", f"asks fact:{second}")),
        right=(right,),
        wrong=tuple(wrong),
    )


def _of_known(language: Language, rng: random.Random, part: Part, name: str, order: Sequence[str]) -> tuple[Answer, ...]:
    """The right reply and three wrong ones; the first two of four attributes are those asked for."""
    first, second, third, fourth = order
    other, another = rng.sample([each for each in language.known if each != name], 2)
    frame = rng.randrange(2)

    def says(who: str, *attributes: str) -> Answer:
        return tuple(fact_sentence(who, attribute, language.facts[who][attribute], frame=frame) for attribute in attributes)

    share = OTHER_ORDER_IN_BENCHMARK if part == "benchmark" else OTHER_ORDER
    third_reply = says(name, second, first) if rng.random() < share else says(another, fourth, third)
    return says(name, first, second), says(name, third, fourth), says(other, third, fourth), third_reply


def _of_stranger(language: Language, rng: random.Random, name: str, asked: Sequence[str]) -> tuple[Answer, ...]:
    """Four replies about a stranger, the first of them right by chance: all say the attributes asked for, with other values."""
    frame = rng.randrange(2)
    drawn = [rng.sample(language.members[ATTRIBUTES[attribute]], 4) for attribute in asked]
    return tuple(
        tuple(fact_sentence(name, attribute, value, frame=frame) for attribute, value in zip(asked, values, strict=True))
        for values in zip(*drawn, strict=True)
    )
