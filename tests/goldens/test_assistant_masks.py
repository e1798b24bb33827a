"""Which tokens are the last answer: masks of the released training collator and of its context collector, with the real Llama-3 ids."""

from __future__ import annotations

from typing import Any

import pytest
from golden_files import each, read

from sarm.data.preferences import DataError
from sarm.data.tokens import assistant_mask, assistant_start

HEADER = [128006, 78191, 128007, 271]
END_OF_TURN = 128009


def numbered(file: str) -> list[tuple[int, dict[str, Any]]]:
    return list(enumerate(read(file)))


@pytest.mark.parametrize("case", each("sarm/assistant_masks.json", numbered, id_of=lambda case: str(case[0])))
def test_assistant_mask_equals_the_released_one(case: tuple[int, dict[str, Any]]) -> None:
    row = case[1]
    ids = row["input_ids"]
    if "train_raises" in row:
        # Deviation: the released collator dies of an unset variable or a bare assertion; ours says what is wrong.
        with pytest.raises(DataError, match=r"assistant header|end-of-turn"):
            assistant_mask(ids, HEADER, end_of_turn_id=END_OF_TURN)
    else:
        assert assistant_mask(ids, HEADER, end_of_turn_id=END_OF_TURN) == row["train"]
    if "apply_raises" in row:
        # The released collector asserts the end of turn; ours takes a row without one, for its other sentences.
        assert ids[-1] != END_OF_TURN
        return
    start = assistant_start(ids, HEADER) or 0
    assert start == row["apply_start"]
    assert [int(index >= start) for index in range(len(ids))] == row["apply"]
