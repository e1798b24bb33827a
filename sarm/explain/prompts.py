"""Explaining a latent: prompts, how answers are read, and detection of contexts by an explanation. No I/O. Source: interpret.py."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field
from statsmodels.stats.proportion import proportion_confint

from sarm.explain.contexts import ContextEntry
from sarm.judges.grammar.labels import Label
from sarm.judges.grammar.lists import named_list
from sarm.judges.grammar.numbers import named_value
from sarm.judges.grammar.scales import Scale
from sarm.judges.grammar.sentences import named_text

AnswerFormat = Literal["checked", "released"]

EXPLAINER_SYSTEM = "You are an assistant that analyses latent semantics."
# Quoted from the released code, src/interpret.py:28-60 of schrieffer-z/sarm.
# Deviation: the paper's appendix (Auto Interpretation Prompt Design) prints the same sentences under three headings (Background, Task
# description, Question); the released prompt has no headings, and one line for each context.
EXPLANATION_HEAD = """\
We are analyzing the activation levels of features in a language model, where each feature activates certain sequence at the end of it.
Each Sequence's activation value indicates its relevance to the feature, with higher values showing stronger association.
Your task is to give this feature a monosemanticity score based on the following scoring rubric:
Activation Consistency
5: Clear pattern with no deviating examples
4: Clear pattern with one or two deviating examples
3: Clear overall pattern but quite a few examples not fitting that pattern
2: Broad consistent theme but lacking structure
1: No discernible pattern
Consider the following activations for a feature in the language model.

"""
EXPLANATION_TAIL = """\
Provide your response in the following fixed format:
Explanation: [Your brief explanation]
Score: [5/4/3/2/1]
Now provide your two-line answer.
"""

DETECTOR_SYSTEM = "You are an assistant that checks descriptions of features of a language model."
DETECTION_HEAD = """\
A feature of a language model is described like this:
{explanation}

The feature is active at the end of some of the following texts and not at the end of others. Decide from the description alone.

"""
DETECTION_TAIL = """\
Name the texts at whose end the feature is active, in one line of this fixed format, with commas between the numbers:
Matches: [numbers, or none]
"""

_EXPLANATION = re.compile(r"Explanation:\s*(.*?)(?:\n|$)", re.DOTALL)
_SCORE = re.compile(r"Score:\s*(-?\d+)")
_RUBRIC_SCORE = Label(strong=("score",), modifiers=("monosemanticity", "activation", "consistency", "rubric"))
_ONE_TO_FIVE = Scale(lowest=1, highest=5, parts=False)
_MATCHES = Label(strong=("match(?:es)?",))


class Reading(NamedTuple):
    """What an answer says; None for what it does not say."""

    explanation: str | None
    score: int | None


def explanation_prompt(contexts: Sequence[ContextEntry]) -> str:
    """The released prompt for some contexts, strongest first."""
    shown = "".join(f"Activation: {entry.activation} | Context: {entry.context}\n\n" for entry in contexts)
    return EXPLANATION_HEAD + shown + EXPLANATION_TAIL


def parse_released(text: str) -> Reading:
    """Explanation and score as the released code reads them: no brackets, any whole number. Source: interpret.py:10-17."""
    explanation, score = _EXPLANATION.search(text), _SCORE.search(text)
    return Reading(explanation[1].strip() if explanation else None, int(score[1]) if score else None)


def parse_checked(text: str, *, ended: bool = True) -> Reading:
    """Explanation and score of 1 to 5, each the last that is given; neither from a thought or an answer that was cut before its end.

    Deviation: `Score: [4]`, the form that the prompt asks for, is read, and a score outside the rubric is none; the released code
    reads neither as such (ledger row 34b). It also takes the first label, though it be thought aloud.
    """
    if not ended:
        return Reading(None, None)
    score = named_value(text, _RUBRIC_SCORE, _ONE_TO_FIVE, alone=False)
    return Reading(named_text(text, "explanation", before="score"), None if score is None else int(score))


def parse_answer(text: str, answer_format: AnswerFormat, *, ended: bool = True) -> Reading:
    """An answer in one of the two readings."""
    return parse_checked(text, ended=ended) if answer_format == "checked" else parse_released(text)


def detection_prompt(explanation: str, texts: Sequence[str]) -> str:
    """Which of the texts fit an explanation. Source: our own; the task is EleutherAI's detection (arXiv 2410.13928)."""
    numbered = "".join(f"{number}. {' '.join(text.split())}\n" for number, text in enumerate(texts, start=1))
    return DETECTION_HEAD.format(explanation=explanation) + numbered + "\n" + DETECTION_TAIL


def parse_matches(text: str, count: int, *, ended: bool = True) -> frozenset[int] | None:
    """Places (from 0) of the texts that an answer names, or None when it cannot be read or names a text that is not there."""
    numbers = named_list(text, _MATCHES) if ended else None
    if numbers is None or not set(numbers) <= set(range(1, count + 1)):
        return None
    return frozenset(number - 1 for number in numbers)


NegativeKind = Literal["nearest", "same-token", "random"]


class Candidate(NamedTuple):
    """A context to be judged: its text, whether it activates the latent, and how it was chosen."""

    text: str
    kind: Literal["activating"] | NegativeKind


def choose_negatives(
    texts: Sequence[str], *, similarity: Sequence[float], same_token: Sequence[bool], count: int, hard_fraction: float, rng: random.Random
) -> list[Candidate]:
    """At most `count` contexts out of those that do not activate a latent.

    First the share `hard_fraction` with the largest similarity, then a draw of those that end with a token of the latent, then of
    the others.
    """
    nearest = sorted(range(len(texts)), key=lambda place: (-similarity[place], texts[place]))[: round(hard_fraction * count)]
    rest = [place for place in range(len(texts)) if place not in set(nearest)]
    rng.shuffle(rest)
    rest.sort(key=lambda place: not same_token[place])
    drawn = rest[: count - len(nearest)]
    hard = [Candidate(texts[place], "nearest") for place in nearest]
    return hard + [Candidate(texts[place], "same-token" if same_token[place] else "random") for place in drawn]


def choose_by_weight(weights: Mapping[int, float], *, positive: int, negative: int) -> tuple[list[int], list[int]]:
    """Of latents with their head weights: the `positive` largest above 0, and the `negative` smallest below 0, strongest first."""
    order = sorted(weights, key=lambda latent: (-weights[latent], latent))
    above = [latent for latent in order if weights[latent] > 0][:positive]
    below = [latent for latent in reversed(order) if weights[latent] < 0][:negative]
    return above, below


class DetectionScore(BaseModel):
    """How well an explanation tells activating contexts from others."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    positives: int = Field(description="Activating contexts that were judged.")
    negatives: int = Field(description="Other contexts that were judged.")
    hard_negatives: int = Field(description="Of these, those nearest to the decoder column.")
    true_positives: int
    true_negatives: int
    hard_true_negatives: int
    unanswered: int = Field(description="Contexts of questions whose answer could not be read; counted nowhere else.")
    balanced_accuracy: float = Field(description="Mean of the shares of activating and of other contexts that were told rightly.")
    low: float = Field(description="Lower end of its 95 % interval.")
    high: float = Field(description="Upper end of it.")


def detection_score(candidates: Sequence[Candidate], said: Sequence[bool | None]) -> DetectionScore | None:
    """The score of judgements `said` (None: unanswered); None when one of the two kinds has none."""
    judged = [(candidate.kind, bool(verdict)) for candidate, verdict in zip(candidates, said, strict=True) if verdict is not None]
    positives = [verdict for kind, verdict in judged if kind == "activating"]
    negatives = [not verdict for kind, verdict in judged if kind != "activating"]
    hard = [not verdict for kind, verdict in judged if kind == "nearest"]
    if not positives or not negatives:
        return None
    low, high = balanced_interval(sum(positives), len(positives), sum(negatives), len(negatives))
    return DetectionScore(
        positives=len(positives),
        negatives=len(negatives),
        hard_negatives=len(hard),
        true_positives=sum(positives),
        true_negatives=sum(negatives),
        hard_true_negatives=sum(hard),
        unanswered=len(said) - len(judged),
        balanced_accuracy=(sum(positives) / len(positives) + sum(negatives) / len(negatives)) / 2,
        low=low,
        high=high,
    )


def balanced_interval(hits: int, positives: int, rejections: int, negatives: int) -> tuple[float, float]:
    """95 % interval of the mean of two shares, from the Wilson interval of each.

    The distances of the two limits from their shares add in squares (Newcombe's method for two independent proportions).
    """
    center, below, above = 0.0, 0.0, 0.0
    for count, total in ((hits, positives), (rejections, negatives)):
        low, high = proportion_confint(count, total, method="wilson")
        share = count / total
        center += share / 2
        below += ((share - low) / 2) ** 2
        above += ((high - share) / 2) ** 2
    return max(0.0, float(center - below**0.5)), min(1.0, float(center + above**0.5))
