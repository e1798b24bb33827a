"""Who explains a latent: a judge that is asked in words, or the miniature's planted concepts."""

from __future__ import annotations

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
from sarm.judges.questions import Question, Usage

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

    def explain(self, subject: Subject) -> Explained:
        """One latent. A question whose answer cannot be read is asked again, at most `max_asks` times in all."""
        reading, asked = Reading(None, None), 0
        for question in self.explanation_questions(subject):
            asked += 1
            reading = parse_answer(self._ask(question), self._config.answer_format)
            if self._readable(reading):
                break
        said: list[bool | None] = [None] * len(subject.candidates)
        if reading.explanation is not None:
            said = [verdict for batch in self.batches(subject) for verdict in self._judge(reading.explanation, batch)]
        return Explained(reading, asked, said, planted=None)

    def explanation_questions(self, subject: Subject) -> list[Question]:
        """The same question once for each time it may be asked."""
        text = explanation_prompt(subject.shown)
        return [Question(EXPLAINER_SYSTEM, text, attempt) for attempt in range(self._config.max_asks)]

    def batches(self, subject: Subject) -> list[list[str]]:
        """The texts of each detection question."""
        texts, size = [candidate.text for candidate in subject.candidates], self._config.detection_batch
        return [texts[start : start + size] for start in range(0, len(texts), size)]

    def pending(self, subject: Subject) -> list[Question]:
        """Questions that are still to be asked if every answer can be read; detection questions with an explanation of usual length."""
        first = self.explanation_questions(subject)[0]
        if first.key not in self._log.answers:
            return [first] + [Question(DETECTOR_SYSTEM, detection_prompt(TYPICAL_EXPLANATION, batch)) for batch in self.batches(subject)]
        explanation = parse_answer(self._log.answers[first.key], self._config.answer_format).explanation or TYPICAL_EXPLANATION
        questions = [Question(DETECTOR_SYSTEM, detection_prompt(explanation, batch)) for batch in self.batches(subject)]
        return [question for question in questions if question.key not in self._log.answers]

    def check(self, more: Usage) -> None:
        """Raise UsageProblem when the rest of the work goes beyond a cap."""
        self._log.check(more, of="all questions of this job")

    def _readable(self, reading: Reading) -> bool:
        if self._config.answer_format == "released":
            return reading.score is not None
        return reading.score is not None and reading.explanation is not None

    def _judge(self, explanation: str, texts: Sequence[str]) -> list[bool | None]:
        prompt = detection_prompt(explanation, texts)
        for attempt in range(self._config.max_asks):
            matches = parse_matches(self._ask(Question(DETECTOR_SYSTEM, prompt, attempt)), len(texts))
            if matches is not None:
                return [place in matches for place in range(len(texts))]
        return [None] * len(texts)

    def _ask(self, question: Question) -> str:
        if self._stop_requested():
            raise Interrupted(f"stopped on request with {len(self._log.answers)} answers kept; the same command continues")
        return self._log.answer(question).text


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
