"""How far a scoring is, by its tokens."""

from __future__ import annotations

import re
from pathlib import Path

import sarm.jobs
from sarm.data.tokens import token_budget_batches
from sarm.scoring.progress import ScoredTokens
from tests.support.tiny import Stop


def test_a_third_of_the_tokens_is_a_third_of_the_work_however_few_rows_it_is() -> None:
    """The real example told 11 minutes where 3 were left: its longest rows went first, and rows were counted."""
    rows = [[0] * length for length in (10,) * 90 + (300,) * 6]
    heard = Stop()
    scored = ScoredTokens(rows, heard.progress, called="completions", of="rewardbench2")
    batches = token_budget_batches([len(row) for row in rows], 600)
    for indices in batches:
        scored.add(indices)
    assert [note[0] for note in heard.notes[:3]] == [600, 1200, 1800], "the two longest, the next two, and all six"
    assert heard.notes[2] == (1800, 2700, "tokens", "6 of 96 completions of rewardbench2")
    assert heard.notes[-1] == (2700, 2700, "tokens", "96 of 96 completions of rewardbench2")


def test_what_was_scored_before_counts_and_is_not_told() -> None:
    heard = Stop()
    scored = ScoredTokens([[1], [1, 2], [1, 2, 3]], heard.progress, called="replies")
    scored.skip([2])
    assert heard.notes == [] and (scored.tokens, scored.rows) == (3, 1)
    scored.add([0, 1])
    assert heard.notes == [(6, 6, "tokens", "3 of 3 replies")]


def test_every_job_that_scores_by_length_tells_tokens() -> None:
    """Rows say little of the time left where the longest go first."""
    texts = {path: path.read_text(encoding="utf-8") for path in Path(sarm.jobs.__file__).parent.rglob("*.py")}
    scoring = {path for path, text in texts.items() if re.search(r"\b(score_rows|score_batch|conversation_rewards)\(", text)}
    assert len(scoring) >= 5
    assert not [path.name for path in sorted(scoring) if "ScoredTokens(" not in texts[path]]
