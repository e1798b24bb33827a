"""The log of paid answers: what a kill, a full disk or a power cut tears, whose answers are used, and the cap over a run's jobs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from folders import ROOT
from hypothesis import given
from hypothesis import strategies as st

from sarm.job import EnvironmentProblem, IntegrityProblem, Interrupted, UsageProblem
from sarm.judges import answers as answers_module
from sarm.judges.answers import TORN, AnswerLog
from sarm.judges.concurrent_questions import MOST_IN_A_ROW, ask_all
from sarm.judges.questions import CONTEXT, REFUSED, Answer, Question, QuestionFailed, QuestionRefused, QuestionUnheard, Usage
from sarm.judges.recorded import RecordedJudge, read_answers, write_answers
from sarm.judges.settings import EndpointSettings, address_of
from sarm.judges.spending import Spending
from sarm.store.checksums import sha256_of
from sarm.store.json_lines import read_log

HERE = "http://localhost/v1"


def question(number: int) -> Question:
    return Question("", f"question {number}", 50, about=f"item {number}")


class Counting:
    """A judge that answers with the question's words, and counts what it is asked."""

    def __init__(self, *, address: str = HERE) -> None:
        self.asked: list[str] = []
        self.address = address

    def answer(self, question: Question) -> Answer:
        self.asked.append(question.text)
        return Answer(f"\u2028on {question.text}\n", Usage(100, 10), finish="stop", address=self.address, model="toy-1")


class Troubled(Counting):
    """One that refuses some questions and fails at others."""

    def __init__(self, *, refused: tuple[int, ...] = (), failed: tuple[int, ...] = ()) -> None:
        super().__init__()
        self._errors = {question(one).text: QuestionRefused(f"item {one}: no") for one in refused}
        self._errors |= {question(one).text: QuestionFailed(f"item {one}: down") for one in failed}  # type: ignore[misc]

    def answer(self, question: Question) -> Answer:
        if question.text in self._errors:
            raise self._errors[question.text]
        return super().answer(question)


def log_of(judge: Any, path: Path, *, told: list[str] | None = None, spending: Spending | None = None, **caps: Any) -> AnswerLog:
    settings = EndpointSettings(**{"api_base": HERE, **caps})
    return AnswerLog(judge, path, settings=settings, spending=spending, tell=(told if told is not None else []).append)


def filled(path: Path, count: int = 4) -> bytes:
    log = log_of(Counting(), path)
    for number in range(count):
        log.answer(question(number))
    return path.read_bytes()


def test_what_was_answered_is_kept_with_who_said_it_and_how_it_ended(tmp_path: Path) -> None:
    filled(tmp_path / "answers.jsonl")
    counting = Counting()
    log = log_of(counting, tmp_path / "answers.jsonl")
    assert log.answer(question(2)) == Answer("\u2028on question 2\n", Usage(0, 0), finish="stop", address=HERE, model="toy-1")
    assert counting.asked == [] and log.usage == Usage(400, 40) and log.remembered == 4
    assert log.facts([question(0), question(1), question(9)]) == {
        "answered_by": [{"address": HERE, "model": "toy-1", "answers": 2}], "asked_without": {}, "perhaps_cut": 0,
    }  # fmt: skip


@given(st.data())
def test_whatever_is_torn_every_answer_that_is_whole_is_kept(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("log") / "answers.jsonl"
    lines = filled(path).splitlines(keepends=True)
    damage = data.draw(
        st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["nul before", "nul within", "half", "garbage", "other", "utf"])), max_size=3)
    )
    hurt = set()
    for place, kind in damage:
        line = lines[place]
        if kind == "nul before":
            lines[place] = b"\0" * 7 + line
            continue
        hurt.add(place)
        half = len(line) // 2
        lines[place] = {"nul within": line[:half] + b"\0\0" + line[half:], "half": line[:half] + b"\n", "garbage": b"}}{\n",
                        "other": b'{"question": 3, "answer": null}\n', "utf": b"\xff\xfe" + line}[kind]  # fmt: skip
    end = data.draw(st.integers(0, len(lines[-1])))
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:end])
    hurt |= {3} if end < len(lines[-1]) - 1 else set()
    told: list[str] = []
    log = log_of(Counting(), path, told=told)
    assert {one for one in range(4) if question(one).key in log.answers} >= set(range(4)) - hurt
    kept = dict(log.answers)
    for number in range(4):
        log.answer(question(number))
    again = log_of(Counting(), path)
    assert again.answers.keys() == log.answers.keys() and {key: again.answers[key].text for key in kept} == {
        key: answer.text for key, answer in kept.items()
    }
    assert not read_log(path).torn
    aside = path.with_name(path.name + TORN)
    assert aside.exists() == bool(told) and all("set aside" in line and "asked for again" in line for line in told)


def test_a_log_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps({"question": question(0).key, "answer": "9", "input_tokens": 7, "output_tokens": 1}) + "\n")
    log = log_of(Counting(), path)
    assert log.answers[question(0).key] == Answer("9", Usage(7, 1)) and log.usage == Usage(7, 1)
    with pytest.raises(
        UsageProblem, match="1 of 1 kept answers are from an address that was not kept, not from http://localhost/v1; --accept-ans"
    ):
        log.refuse_other_addresses(log.answers)
    log_of(Counting(), path, accept_answers=True).refuse_other_addresses(log.answers)


def test_a_line_that_cannot_be_written_leaves_no_half_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "answers.jsonl"
    whole = filled(path, 1)
    log = log_of(Counting(), path)

    def full(path: Path, row: object) -> None:
        with path.open("ab") as out:
            out.write(b'{"question": "ha')
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken, pytest.raises(OSError, match="No space"):
        broken.setattr(answers_module, "append_line", full)
        log.answer(question(1))
    assert path.read_bytes() == whole and question(1).key not in log.answers
    log.answer(question(1))
    assert len(read_log(path).rows) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://HOST/v1/", "http://host/v1"),
        ("https://host:443/v1", "https://host/v1"),
        ("http://host:80", "http://host"),
        ("http://[::1]:1/v1", "http://[::1]:1/v1/"),
    ],
)
def test_one_address_may_be_written_in_several_ways(one: str, other: str) -> None:
    assert address_of(one) == address_of(other) and address_of(one) != address_of(
        other.replace("http", "https", 1).replace("httpss", "http")
    )


def test_answers_of_another_address_are_used_only_where_that_is_asked_for(tmp_path: Path) -> None:
    path, there = tmp_path / "answers.jsonl", "http://there:8000/v1"
    log_of(Counting(address=there), path, api_base=there).answer(question(0))
    log_of(Counting(), path).answer(question(1))
    log = log_of(Counting(), path)
    log.refuse_other_addresses([question(1).key])
    with pytest.raises(UsageProblem, match=f"1 of 2 kept answers are from {there}, not from {HERE}; --accept-answers") as caught:
        log.refuse_other_addresses(log.answers)
    assert caught.value.exit_code == 2
    told: list[str] = []
    accepting = log_of(Counting(), path, told=told, accept_answers=True)
    accepting.refuse_other_addresses(accepting.answers)
    assert there in told[-1] and accepting.facts([question(0)])["answered_by"][0]["address"] == there


def test_a_question_that_is_refused_or_fails_is_left_until_the_others_are_answered(tmp_path: Path) -> None:
    questions = [question(number) for number in range(8)]

    def ask(judge: Counting, path: Path, **more: Any) -> AnswerLog:
        log = log_of(judge, path)
        ask_all(log, questions, concurrency=1, stop_requested=lambda: False, answered=lambda done: None, **more)
        return log

    for refused, failed, kind in (((1, 4), (), QuestionRefused), ((1,), (4,), QuestionFailed)):
        path = tmp_path / f"{kind.__name__}.jsonl"
        with pytest.raises(kind, match="2 questions have no answer, all others have and are kept: item 1: no; item 4: ") as caught:
            ask(Troubled(refused=refused, failed=failed), path)
        assert ("--refused-questions unread" in str(caught.value)) == (not failed) and len(read_log(path).rows) == 6
        assert len(ask(Counting(), path).answers) == 8
    told_path = tmp_path / "unread.jsonl"
    log = ask(Troubled(refused=(1, 4)), told_path, refused_are_unread=True)
    assert {log.answers[question(one).key].finish for one in (1, 4)} == {REFUSED} and "item 4: no" in log.answers[question(4).key].note
    # Nobody was paid for it: the next attempt asks again.
    assert len(read_log(told_path).rows) == 6
    with pytest.raises(QuestionFailed):
        ask(Troubled(refused=(1,), failed=(4,)), tmp_path / "both.jsonl", refused_are_unread=True)


def test_refusals_in_a_row_end_the_work_since_they_are_no_matter_of_the_questions(tmp_path: Path) -> None:
    judge = Troubled(refused=tuple(range(2, 50)))
    log = log_of(judge, tmp_path / "answers.jsonl")
    asked: list[int] = []
    with pytest.raises(QuestionRefused, match=r"^item 4: no$"):
        ask_all(log, map(question, range(50)), concurrency=1, refused_are_unread=True, stop_requested=lambda: False, answered=asked.append)
    assert len(log.answers) == 2 and asked[-1] == 2 and MOST_IN_A_ROW == 3


def test_what_nobody_read_is_told_not_kept_and_asked_again(tmp_path: Path) -> None:
    class Long(Counting):
        def answer(self, question: Question) -> Answer:
            return Answer("", Usage(0, 0), finish=CONTEXT, address=HERE, note="400: too long")

    told: list[str] = []
    path = tmp_path / "answers.jsonl"
    log = log_of(Long(), path, told=told)
    assert log.answer(question(3)).finish == CONTEXT and question(3).key in log.answers
    assert told == ["item 3: not answered (context; 400: too long); it counts as unread"] and not path.exists()
    log_of(Counting(), path).remember({question(3).key: Answer("", Usage(0, 0), finish=CONTEXT)})
    assert not log_of(Counting(), path).answers


def test_recorded_answers_keep_all_that_makes_an_answer_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "answers.json"
    kept = {question(0).key: Answer("9\u2028", Usage(5, 5), finish="length", address=HERE, model="m", without=("temperature",), note="n"),
            question(1).key: Answer("8", Usage(1, 1))}  # fmt: skip
    write_answers(path, kept)
    assert read_answers(path) == {key: answer._replace(usage=Usage(0, 0)) for key, answer in kept.items()}
    assert RecordedJudge(path, digest=sha256_of(path)).answer(question(0)) == kept[question(0).key]._replace(usage=Usage(0, 0))
    # As earlier versions wrote them, and with the mark that some editors put before a text.
    path.write_text("\ufeff" + json.dumps({question(0).key: "7"}), encoding="utf-8")
    assert read_answers(path) == {question(0).key: Answer("7", Usage(0, 0))}


@pytest.mark.parametrize(
    "content", ['{"a": "1", "a": "2"}', '{"a": {"text": "1"}}', '{"a": ["1"]}', '{"a": "\\ud800"}', "[" * 100_000, "\udcff"]
)
def test_recorded_answers_that_are_not_clear_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "answers.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(UsageProblem, match=r"answers\.json"):
        read_answers(path)


def test_a_cap_holds_for_the_sum_over_the_jobs_of_a_run(tmp_path: Path) -> None:
    run, counting = tmp_path / "run", Counting()

    def job(name: str, **caps: Any) -> AnswerLog:
        return log_of(counting, tmp_path / f"{name}.jsonl", spending=Spending(run / f"{name}.json"), **caps)

    # One question takes 110 tokens, and 53 are reserved for it.
    first, second = job("one", max_tokens=300), job("two", max_tokens=300)
    first.answer(question(0))
    second.answer(question(1))
    second.answer(question(2))
    with pytest.raises(UsageProblem, match=r"383 tokens .* \(220 and \$0.00 of it by this run's other jobs\)") as caught:
        first.answer(question(3))
    assert "for all jobs of a run" in str(caught.value) and len(counting.asked) == 3
    # What a job took in an earlier attempt counts as well, and other runs' jobs do not.
    with pytest.raises(UsageProblem, match="by this run's other jobs"):
        job("three", max_tokens=300).answer(question(4))
    log_of(counting, tmp_path / "four.jsonl", spending=Spending(tmp_path / "other" / "four.json"), max_tokens=300).answer(question(5))
    assert json.loads((run / "one.json").read_text()) == {"input_tokens": 100, "output_tokens": 10}


def test_a_cap_holds_for_threads_of_several_jobs_at_once(tmp_path: Path) -> None:
    run, counting = tmp_path / "run", Counting()
    logs = [log_of(counting, tmp_path / f"{job}.jsonl", spending=Spending(run / f"{job}.json"), max_tokens=2000) for job in range(3)]

    def ask(job: int) -> None:
        with pytest.raises(UsageProblem, match="above the cap"):
            for number in range(100):
                logs[job].answer(question(100 * job + number))

    threads = [threading.Thread(target=ask, args=(job % 3,)) for job in range(3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    # Each answer takes twice what was reserved for it: at most what is under way may go beyond.
    assert 0 < sum(log.usage.input_tokens + log.usage.output_tokens for log in logs) <= 2000 + 3 * 110


@pytest.mark.parametrize(
    ("problem", "counts"),
    [
        (Interrupted("stopped"), True),
        (KeyboardInterrupt(), True),
        (QuestionUnheard("no answer within 600 s"), True),
        (QuestionFailed("500"), False),
        (QuestionRefused("400"), False),
        (EnvironmentProblem("cannot be reached"), False),
    ],
)
def test_a_question_whose_answer_was_never_heard_counts_now_and_at_every_later_attempt(
    problem: BaseException, *, counts: bool, tmp_path: Path
) -> None:
    class Ending(Counting):
        def answer(self, question: Question) -> Answer:
            raise problem

    def log(judge: Counting) -> AnswerLog:
        return log_of(judge, tmp_path / "one.jsonl", spending=Spending(tmp_path / "run" / "one.json"), max_tokens=170)

    # One question takes 110 tokens and 53 are reserved for it: after three lost ones a cap of 170 is reached.
    first = log(Ending())
    for _ in range(2):
        with pytest.raises(type(problem)):
            first.answer(question(0))
    with pytest.raises(type(problem)):
        log(Ending()).answer(question(0))
    last = log(Counting())
    if not counts:
        assert last.answer(question(0)).ended and last.usage == Usage(100, 10)
        return
    with pytest.raises(UsageProblem, match=r"with the next question .* \(159 and \$0.00 of it for questions whose answers were lost\)"):
        last.answer(question(0))
    assert last.usage == Usage(0, 0)


def test_what_a_killed_process_was_asking_counts_and_so_does_what_a_lost_log_held(tmp_path: Path) -> None:
    spent = tmp_path / "run" / "one.json"

    def log(judge: Any) -> AnswerLog:
        return log_of(judge, tmp_path / "one.jsonl", spending=Spending(spent), max_tokens=400)

    log(Counting()).answer(question(0))

    class Killed:
        def answer(self, question: Question) -> Answer:
            (tmp_path / "as-killed.json").write_bytes(spent.read_bytes())
            raise QuestionRefused("not this time")

    with pytest.raises(QuestionRefused):
        log(Killed()).answer(question(1))
    spent.write_bytes((tmp_path / "as-killed.json").read_bytes())
    log(Counting()).answer(question(1))
    assert sum(json.loads(spent.read_text()).values()) == 2 * 110 + 53
    (tmp_path / "one.jsonl").unlink()
    with pytest.raises(UsageProblem, match=r"273 and .* answers were lost"):
        log(Counting()).check(Usage(100, 50), of="all")


@pytest.mark.parametrize("content", [b"", b"\0" * 40, b"{}", b"[1, 2]", b'{"tokens": 3}', b"\xff"])
@pytest.mark.parametrize("whose", ["one", "two"])
def test_a_damaged_file_of_what_was_spent_is_told_and_never_counted_as_nothing(whose: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / f"{whose}.json").write_bytes(content)
    with pytest.raises(IntegrityProblem, match=rf"{whose}\.json: .* delete the file"):
        log_of(Counting(), tmp_path / "one.jsonl", spending=Spending(tmp_path / "one.json")).answer(question(0))


WORKER = """
import sys
from pathlib import Path
from sarm.job import UsageProblem
from sarm.judges.answers import AnswerLog
from sarm.judges.questions import Answer, Question, Usage
from sarm.judges.settings import EndpointSettings
from sarm.judges.spending import Spending

class Exact:
    def answer(self, question):
        return Answer("9", question.estimate(question.longest), address="http://localhost/v1")

name, folder = sys.argv[1], Path(sys.argv[2])
settings = EndpointSettings(api_base="http://localhost/v1", max_tokens=3000)
log = AnswerLog(Exact(), folder / f"{name}.jsonl", settings=settings, spending=Spending(folder / "run" / f"{name}.json"))
try:
    for number in range(1000):
        log.answer(Question("", f"question {name} {number}", 50))
except UsageProblem:
    print(sum(log.usage))
"""


def test_a_cap_holds_for_workers_side_by_side(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WORKER]
    workers = [
        subprocess.Popen([*command, name, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment) for name in ("one", "two")
    ]
    taken = [int(worker.communicate(timeout=300)[0]) for worker in workers]
    assert all(worker.returncode == 0 for worker in workers)
    # What is asked takes what was reserved: the cap is never passed, and reached to within one question of each.
    assert 3000 - 2 * 60 <= sum(taken) <= 3000


@pytest.mark.parametrize("field", ["max_cost", "input_price", "output_price", "timeout_seconds"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_cap_is_without_a_number(field: str, value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        EndpointSettings(**{"api_base": HERE, field: value})
