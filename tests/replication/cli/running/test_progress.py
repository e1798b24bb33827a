"""What is told while jobs run: step, rate, the job's note, the time left; plain where nobody looks at bars."""

from __future__ import annotations

import io
import re
import time
from typing import Any

import pytest
from rich.cells import cell_len

from replication.cli.running.progress import PlainWatch, facts_of, watching
from replication.cli.running.time_left import Expected, Pace, Remaining


class Clock:
    """A time that the test sets."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def event(name: str, key: str = "k", **facts: Any) -> dict[str, Any]:
    return {"event": name, "key": key, "kind": "train_reward", "label": "reward model sarm-4b, seed 0", **facts}


def step(done: int, *, note: str = "loss 0.5312", key: str = "k") -> dict[str, Any]:
    return event("progress", key, done=done, total=600, unit="steps", note=note)


def test_step_rate_note_and_time_left_are_told() -> None:
    clock = Clock()
    pace = Pace(clock)
    assert facts_of(step(0), pace.told(done=0, total=600)) == "0/600 steps, loss 0.5312"
    clock.seconds += 20
    assert facts_of(step(100), pace.told(done=100, total=600)) == "100/600 steps, 5/s, loss 0.5312, 100 s left"
    clock.seconds += 100
    assert facts_of(step(600, note=""), pace.told(done=600, total=600)) == "600/600 steps, 5/s"


def test_less_room_takes_the_rate_then_the_unit_then_the_note() -> None:
    shown = {facts_of(step(100), (5.0, 100.0), width=width) for width in range(8, 60)}
    assert shown == {
        "100/600 steps, 5/s, loss 0.5312, 100 s left", "100/600 steps, loss 0.5312, 100 s left", "100/600, loss 0.5312, 100 s left",
        "100/600, 100 s left", "100/600",
    }  # fmt: skip


def test_plain_lines_tell_start_pace_end_and_what_is_left() -> None:
    clock, stream = Clock(), io.StringIO()
    watch = PlainWatch(2, Remaining({key: Expected("train_reward", 100.0) for key in "kl"}, clock), stream=stream, now=clock)
    watch(event("start"))
    watch(step(0))
    for done in (100, 200, 300):
        clock.seconds += 20
        watch(step(done))
    watch(event("done", seconds=60.0))
    watch(event("waiting", "l", note="another process works on it"))
    watch(event("reused", "l"))
    assert stream.getvalue().splitlines() == [
        "  reward model sarm-4b, seed 0: start",
        "  reward model sarm-4b, seed 0: 100/600 steps, 5/s, loss 0.5312, 100 s left",
        "  reward model sarm-4b, seed 0: 200/600 steps, 5/s, loss 0.5312, 80 s left",
        "  reward model sarm-4b, seed 0: 300/600 steps, 5/s, loss 0.5312, 60 s left",
        "[1/2] reward model sarm-4b, seed 0: done in 60.0 s, about 60 s left",
        "  reward model sarm-4b, seed 0: another process works on it",
        "[2/2] reward model sarm-4b, seed 0: reused",
    ]


def test_labels_that_steer_a_terminal_are_plain() -> None:
    stream = io.StringIO()
    watch = PlainWatch(1, Remaining({}, Clock()), stream=stream)
    watch({**event("start"), "label": "\x1b[2Ja\nb"})
    watch({**step(1, note="\x1b[31m[red]"), "label": "[red]"})
    assert "\x1b" not in stream.getvalue() and len(stream.getvalue().splitlines()) == 1


def followed(stream: io.StringIO) -> str:
    with watching(1, {"k": Expected("train_reward", 10.0)}, stream=stream) as watch:
        watch(event("start"))
        for done in range(0, 601, 50):
            watch(step(done, note="loss 0.5312 [bold]"))
        # Bars are drawn ten times a second.
        time.sleep(0.3)
        watch(event("done", seconds=1.0))
    return stream.getvalue()


def test_bars_stand_on_a_terminal_alone_and_fit_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    seen = followed(Terminal())
    assert "\x1b" in seen and "all jobs" in seen and "1/1" in seen
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen)
    lines = re.split(r"[\r\n]+", plain)
    assert any("0.5312 [bold]" in line and "steps" in line for line in lines)
    assert max(cell_len(line.rstrip()) for line in lines) <= 80
    monkeypatch.setenv("NO_COLOR", "1")
    for stream in (Terminal(), io.StringIO()):
        assert "\x1b" not in followed(stream) and "[1/1] reward model sarm-4b, seed 0: done in 1.0 s" in stream.getvalue()
