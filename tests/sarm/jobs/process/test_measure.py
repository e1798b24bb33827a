"""What a job cost: all its runs count, those that were stopped or killed too."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sarm.jobs.process import measure
from sarm.jobs.process.measure import Spent

EARLIER = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def noted(path: Path, seconds: float) -> Path:
    path.write_text(json.dumps({"began": EARLIER.isoformat(), "seconds": seconds}), encoding="utf-8")
    return path


def test_a_run_goes_on_counting_where_the_last_one_ended(tmp_path: Path) -> None:
    path = noted(tmp_path / "spent.json", 100.0)
    spent = Spent([path])
    time.sleep(0.05)
    spent.end()
    began, seconds = spent.of(path)
    assert began == EARLIER and 100.05 <= seconds < 110.0
    time.sleep(0.05)
    assert spent.of(path) == (began, seconds), "what comes after its end is not counted"
    assert json.loads(path.read_text("utf-8")) == {"began": EARLIER.isoformat(), "seconds": pytest.approx(seconds, abs=1e-3)}


def test_jobs_that_share_a_pass_bear_equal_parts_beside_what_each_spent_before(tmp_path: Path) -> None:
    known, new = noted(tmp_path / "spent.json", 7.0), tmp_path / "other.json"
    before = datetime.now(UTC)
    spent = Spent([known, new])
    time.sleep(0.1)
    spent.end()
    (_, of_known), (began, of_new) = spent.of(known), spent.of(new)
    assert before <= began <= datetime.now(UTC) and 0.05 <= of_new < 5.0 and of_known - 7.0 == pytest.approx(of_new)


def test_a_killed_run_has_noted_what_it_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "NOTED_SECONDS", 0.02)
    path = tmp_path / "spent.json"
    spent = Spent([path])
    deadline = time.monotonic() + 10
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert json.loads(path.read_text("utf-8"))["seconds"] >= 0.02
    spent.end()


@pytest.mark.parametrize("last_words", ["", "{", "[]", '{"seconds": 3}', '{"began": "yesterday", "seconds": 3}'])
def test_what_cannot_be_read_counts_nothing_and_stops_nobody(tmp_path: Path, last_words: str) -> None:
    path = tmp_path / "spent.json"
    path.write_text(last_words, encoding="utf-8")
    spent = Spent([path])
    spent.end()
    assert spent.of(path)[1] < 5.0


def test_a_folder_that_another_process_took_stays_gone(tmp_path: Path) -> None:
    path = tmp_path / "taken" / "spent.json"
    spent = Spent([path])
    spent.end()
    assert not path.parent.exists()
