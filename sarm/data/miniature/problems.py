"""What a task of the miniature draws: a question with right and wrong answers."""

from __future__ import annotations

from typing import NamedTuple

from sarm.data.miniature.language import Sentence

Answer = tuple[Sentence, ...]


class Problem(NamedTuple):
    """A question with right and wrong answers.

    `key` names what has to be known or done; `right` has one answer (Ties: several), `wrong` at least three. All answers of a
    problem have one sentence frame, so that only the words that matter differ.
    """

    task: str
    key: str
    question: Sentence
    right: tuple[Answer, ...]
    wrong: tuple[Answer, ...]
