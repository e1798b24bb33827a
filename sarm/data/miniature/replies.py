"""The styles in which a reply is given, and the running text of the miniature's corpus."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Literal

from sarm.data.miniature.language import (
    ATTRIBUTE_VERBS,
    ATTRIBUTES,
    CLASS_NOUNS,
    LARGEST_OPERAND,
    OPERATIONS,
    TOPIC_NOUNS,
    Language,
    Sentence,
    with_article,
)
from sarm.data.miniature.person_tasks import fact_sentence
from sarm.data.miniature.planted_tasks import TASKS, draw_deed, draw_problem, program_sentence, topic_sentence
from sarm.data.miniature.problems import Answer, Problem

Style = Literal["concise", "plain", "marked"]
STYLES: tuple[Style, ...] = ("concise", "plain", "marked")

GREETINGS = ("", "", "hello.", "good morning.", "please help.", "my friend.", "hear me.", "well.")
OPENERS = ("here it is.", "i think so.", "i am glad.", "well, hear this.", "let me see.", "good.")
CLOSERS = ("i hope it helps.", "ask me again.", "i am sure.", "that is all.", "thank you.", "go well.")
# Most answers in running text are concise.
LESSON_STYLES = (0.8, 0.1, 0.1)
# Questions of one lesson.
EXCHANGES = 4
RIGHT_IN_LESSONS = 0.9
# A document about a person repeats its facts in this many sentences at most.
_ARTICLE_SENTENCES = 6


def styled(rng: random.Random, answer: Answer, style: Style) -> Answer:
    """An answer in a style: alone (`concise`), between an opener and a closer (`plain`), or with heading and bullet marks (`marked`)."""
    if style == "concise":
        return answer
    opener = Sentence(rng.choice(OPENERS), ("style:opener",))
    closer = Sentence(rng.choice(CLOSERS), ("style:closer",))
    whole = (opener, *answer, closer)
    if style == "plain":
        return whole
    marks = ("#", *("*" for _ in whole[1:]))
    return tuple(Sentence(f"{mark} {text}", (*concepts, "style:marked")) for mark, (text, concepts) in zip(marks, whole, strict=True))


def joined(sentences: Sequence[Sentence]) -> str:
    """Sentences as one running text."""
    return " ".join(sentence.text for sentence in sentences)


def greeted(rng: random.Random, question: Sentence) -> Answer:
    """A question, perhaps after a greeting."""
    greeting = rng.choice(GREETINGS)
    return (Sentence(greeting, ("greeting",)), question) if greeting else (question,)


def article(language: Language, rng: random.Random) -> Answer:
    """A text about one person: its facts in changing words."""
    name = rng.choice(language.known)
    sentences: list[Sentence] = []
    while len(sentences) < _ARTICLE_SENTENCES:
        attribute, second = rng.sample(list(ATTRIBUTES), 2)
        value = language.facts[name][attribute]
        if rng.random() < 0.3:
            other = language.facts[name][second]
            text = f"the {attribute} of {name} is {value}, and {name} {ATTRIBUTE_VERBS[second]} {other}."
            sentences.append(Sentence(text, ("fact", f"fact:{attribute}", f"fact:{second}")))
        else:
            sentences.append(fact_sentence(name, attribute, value, frame=rng.randrange(2)))
    return tuple(sentences)


def drill(language: Language, rng: random.Random) -> Answer:
    """A page of sums and differences, and of the order of the numerals."""
    word = language.numerals
    sentences: list[Sentence] = []
    for _ in range(6):
        a, b = rng.randint(0, LARGEST_OPERAND), rng.randint(0, LARGEST_OPERAND)
        n = rng.randrange(len(word))
        texts = (
            f"{word[a]} plus {word[b]} is {word[a + b]}.",
            f"{word[max(a, b)]} minus {word[min(a, b)]} is {word[abs(a - b)]}.",
            f"{word[(n + 1) % len(word)]} comes after {word[n]}.",
        )
        sentences.append(Sentence(rng.choice(texts), ("arithmetic",)))
    return tuple(sentences)


def manual(language: Language, rng: random.Random) -> Answer:
    """What programs put out."""
    sentences = []
    for _ in range(5):
        operation = rng.choice(list(OPERATIONS))
        word, output = rng.choice(list(language.programs[operation].items()))
        sentences.append(program_sentence(operation, word, output, rng.randrange(2)))
    return tuple(sentences)


def catalogue(language: Language, rng: random.Random) -> Answer:
    """Members of classes."""
    noun = rng.choice(CLASS_NOUNS)
    kind = with_article(noun)
    sentences = []
    for word in rng.sample(language.members[noun], len(language.members[noun])):
        frames = (f"{word} is {kind}.", f"{kind} is for example {word}.", f"is {word} {kind}? yes, it is.")
        sentences.append(Sentence(rng.choice(frames), ("membership",)))
    return tuple(sentences)


def scene(language: Language, rng: random.Random) -> Answer:
    """A text on one topic."""
    topic = rng.choice(TOPIC_NOUNS)
    head = Sentence(rng.choice((f"this is about the {topic}.", f"let us talk about the {topic}.")), (f"topic:{topic}",))
    body = (head, *(topic_sentence(language, rng, topic) for _ in range(4)))
    # An exclamation only ends a text: some splitters do not split after `!` before a small letter.
    return (*body, Sentence(f"what a good {topic}!", (f"topic:{topic}",))) if rng.random() < 0.5 else body


def customs(language: Language, rng: random.Random) -> Answer:
    """What one may do and what does harm."""
    sentences = []
    for _ in range(5):
        deed = draw_deed(language, rng, harmful=rng.random() < 0.5)
        if deed.harmful:
            frames, concept = (f"it is harmful to {deed.text}.", f"nobody should {deed.text}; it is wrong."), "harm stated"
        else:
            frames, concept = (f"it is safe to {deed.text}.", f"you can {deed.text}; it is fine."), "no harm stated"
        sentences.append(Sentence(rng.choice(frames), (concept,)))
    return tuple(sentences)


def lesson(language: Language, rng: random.Random) -> Answer:
    """Questions, answers and verdicts at school, from problems of the training part only."""
    sentences: list[Sentence] = []
    for _ in range(EXCHANGES):
        problem = draw_problem(rng.choice(list(TASKS)), language, rng, "train")
        sentences += _exchange(rng, problem)
    return tuple(sentences)


def _exchange(rng: random.Random, problem: Problem) -> list[Sentence]:
    """A question, an answer and whether it is right."""
    is_right = rng.random() < RIGHT_IN_LESSONS
    answer = styled(rng, rng.choice(problem.right if is_right else problem.wrong), rng.choices(STYLES, LESSON_STYLES)[0])
    if is_right:
        verdict = Sentence(rng.choice(("that is right.", "that is correct.")), ("verdict:right",))
    else:
        verdict = Sentence(rng.choice(("that is wrong.", "that is a mistake.")), ("verdict:wrong",))
    return [problem.question, *answer, verdict]


DOCUMENTS: dict[str, tuple[float, Callable[[Language, random.Random], Answer]]] = {
    "article": (0.22, article),
    "drill": (0.10, drill),
    "catalogue": (0.07, catalogue),
    "manual": (0.08, manual),
    "scene": (0.05, scene),
    "customs": (0.06, customs),
    "lesson": (0.42, lesson),
}


def draw_document(language: Language, rng: random.Random) -> tuple[str, Answer]:
    """A document of the corpus and its kind."""
    kind = rng.choices(list(DOCUMENTS), weights=[weight for weight, _ in DOCUMENTS.values()])[0]
    return kind, DOCUMENTS[kind][1](language, rng)
