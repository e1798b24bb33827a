"""Who explains a latent: a judge that is asked in words, or the miniature's planted concepts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sarm.config.latents import ExplanationConfig
from sarm.explain.contexts import ContextEntry, ContextFile, Origin
from sarm.explain.planted import Booleans, PlantedConcepts, PlantedMatch, best_concept, label_matrix, rubric_score
from sarm.explain.prompts import (
    DETECTOR_SYSTEM,
    EXPLAINER_SYSTEM,
    Candidate,
    Reading,
    detection_prompt,
    explanation_prompt,
    parse_answer,
    parse_matches,
)
from sarm.job import Interrupted, UsageProblem
from sarm.judges.answers import AnswerLog
from sarm.judges.questions import UNPAID, WORDS, Answer, Question, Usage

GroupName = Literal["positive", "negative", "listed", "control-positive", "control-negative"]
# For the estimate before the first call.
TYPICAL_EXPLANATION = "x" * 200
TYPICAL_OUTPUT_TOKENS = 80


class Source(NamedTuple):
    """A collection of contexts with the model that it was made with.

    `texts` is the data file's name. `kept` are the contexts that may be shown, `all` also those below the config's own threshold.
    `pool_*` `[contexts, k]`; `head` and `above_threshold` `[n_latents]`, `decoder` `[hidden_size, n_latents]`.
    `polarity` `[2, n_latents]`: items whose chosen replies have the latent more often than the rejected ones, and less often.
    """

    texts: str
    all: ContextFile
    kept: ContextFile
    origins: dict[str, Origin]
    pool: list[tuple[str, str, Origin]]
    pool_indices: Tensor
    pool_values: Tensor
    above_threshold: Tensor
    polarity: Tensor
    head: Tensor
    decoder: Tensor


class Subject(NamedTuple):
    """One latent to explain, the contexts that the explainer sees, and those that are judged with the explanation."""

    source: Source
    group: GroupName
    latent: int
    shown: list[ContextEntry]
    candidates: list[Candidate]


class Explained(NamedTuple):
    """What came of one latent: the last reading, how often it was asked, judgements, and the planted truth where there is one."""

    reading: Reading
    asked: int
    said: list[bool | None]
    planted: PlantedMatch | None


class ChatExplainer:
    """Asks a judge in words: the released prompt, then detection questions."""

    def __init__(self, config: ExplanationConfig, log: AnswerLog, *, stop_requested: Callable[[], bool]) -> None:
        self._config = config
        self._log = log
        self._stop_requested = stop_requested
        # What was asked, by key, also by an earlier attempt; and why answers are unread.
        self.asked: dict[str, Question] = {}
        self._unread: dict[str, str] = {}

    def explain(self, subject: Subject) -> Explained:
        """One latent. A question whose answer cannot be read is asked again, at most `max_asks` times in all."""
        reading, asked = Reading(None, None), 0
        for question in self.explanation_questions(subject):
            asked += 1
            answer = self._ask(question)
            reading = parse_answer(answer.text, self._config.answer_format, ended=answer.ended)
            if self._readable(reading):
                break
            self._note_unread(question, answer)
            if answer.finish in UNPAID:
                break
        said: list[bool | None] = [None] * len(subject.candidates)
        if reading.explanation is not None:
            said = [verdict for batch in self.batches(subject) for verdict in self._judge(reading.explanation, batch, subject)]
        return Explained(reading, asked, said, planted=None)

    def explanation_questions(self, subject: Subject) -> list[Question]:
        """The same question once for each time it may be asked."""
        text = explanation_prompt(subject.shown)
        return [self._question(EXPLAINER_SYSTEM, text, subject, attempt) for attempt in range(self._config.max_asks)]

    def batches(self, subject: Subject) -> list[list[str]]:
        """The texts of each detection question."""
        texts, size = [candidate.text for candidate in subject.candidates], self._config.detection_batch
        return [texts[start : start + size] for start in range(0, len(texts), size)]

    def pending(self, subject: Subject) -> list[Question]:
        """Questions that are still to be asked if every answer can be read; detection questions with an explanation of usual length."""
        first = self.explanation_questions(subject)[0]
        known = self._log.answers.get(first.key)
        explanation = None
        if known is not None:
            explanation = parse_answer(known.text, self._config.answer_format, ended=known.ended).explanation
        texts = [detection_prompt(explanation or TYPICAL_EXPLANATION, batch) for batch in self.batches(subject)]
        questions = [first, *(self._question(DETECTOR_SYSTEM, text, subject, 0) for text in texts)]
        return [question for question in questions if question.key not in self._log.answers]

    def check(self, more: Usage) -> None:
        """Raise UsageProblem when the rest of the work goes beyond a cap."""
        self._log.check(more, of="all questions of this job")

    def unread(self) -> dict[str, Any]:
        """How many answers there are, how many of them could not be read, and why."""
        why = Counter(self._unread.values())
        return {"questions": len(self.asked), "unread": len(self._unread), "unread_because": dict(sorted(why.items()))}

    def _note_unread(self, question: Question, answer: Answer) -> None:
        self._unread[question.key] = WORDS if answer.ended else answer.finish

    def _readable(self, reading: Reading) -> bool:
        if self._config.answer_format == "released":
            return reading.score is not None
        return reading.score is not None and reading.explanation is not None

    def _judge(self, explanation: str, texts: Sequence[str], subject: Subject) -> list[bool | None]:
        prompt = detection_prompt(explanation, texts)
        for attempt in range(self._config.max_asks):
            question = self._question(DETECTOR_SYSTEM, prompt, subject, attempt)
            answer = self._ask(question)
            matches = parse_matches(answer.text, len(texts), ended=answer.ended)
            if matches is not None:
                return [place in matches for place in range(len(texts))]
            self._note_unread(question, answer)
            if answer.finish in UNPAID:
                break
        return [None] * len(texts)

    def _question(self, system: str, text: str, subject: Subject, attempt: int) -> Question:
        return Question(system, text, self._config.max_output_tokens, attempt, about=f"latent {subject.latent} ({subject.group})")

    def _ask(self, question: Question) -> Answer:
        if self._stop_requested():
            raise Interrupted(f"stopped on request with {len(self._log.answers)} answers kept; the same command continues")
        self.asked[question.key] = question
        return self._log.answer(question)


class PoolLabels(NamedTuple):
    """The concepts of a source's texts, their names, and which context of the pool carries which, `[contexts, names]`."""

    concepts: PlantedConcepts
    names: list[str]
    carried: Booleans


class PlantedExplainer:
    """Answers with the miniature's truth: the concept that fits best on the pool's explain half, the rubric on the shown contexts.

    `raw` is what a miniature's `concepts.json` holds.
    """

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self._raw = raw
        self._labels: dict[int, PoolLabels] = {}

    def explain(self, subject: Subject) -> Explained:
        """One latent. Raises UsageProblem when the contexts were collected from other texts."""
        try:
            return self._explain(subject)
        except KeyError as error:
            raise UsageProblem(f"concepts.json knows no {error}; give the miniature from which the contexts were collected") from error

    def _pool_labels(self, source: Source) -> PoolLabels:
        if id(source) not in self._labels:
            concepts = PlantedConcepts(self._raw, source.texts)
            self._labels[id(source)] = PoolLabels(concepts, *label_matrix([concepts.of(text, origin) for text, _, origin in source.pool]))
        return self._labels[id(source)]

    def _explain(self, subject: Subject) -> Explained:
        source = subject.source
        concepts, names, carried = self._pool_labels(source)
        activations = torch.where(source.pool_indices == subject.latent, source.pool_values, 0).sum(dim=-1).double().numpy()
        held_out = np.array([origin.half == "held-out" for _, _, origin in source.pool], dtype=np.bool_)
        match = best_concept(names, carried, activations, held_out=held_out, threshold=source.all.threshold)
        if match is None:
            return Explained(Reading(None, None), 1, [None] * len(subject.candidates), planted=None)
        fits = [match.concept in concepts.of(entry.context, source.origins[entry.context]) for entry in subject.shown]
        pool = {text: origin for text, _, origin in reversed(source.pool)}
        said: list[bool | None] = []
        for candidate in subject.candidates:
            origin = source.origins[candidate.text] if candidate.kind == "activating" else pool[candidate.text]
            said.append(match.concept in concepts.of(candidate.text, origin))
        return Explained(Reading(match.concept, rubric_score(fits)), 1, said, planted=match)
