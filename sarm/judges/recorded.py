"""Recorded answers: the file `answers.json` that a job leaves, and a judge that answers out of one."""

from __future__ import annotations

import codecs
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from sarm.job import EnvironmentProblem, IntegrityProblem, UsageProblem
from sarm.judges.questions import Answer, Question, Usage
from sarm.store.checksums import sha256_of
from sarm.store.json_lines import parsed
from sarm.store.whole_files import write_whole


class Kept(BaseModel):
    """An answer as it is kept. Earlier versions kept nothing but its text: what is not known is empty."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    answer: str
    input_tokens: int = 0
    output_tokens: int = 0
    finish: str = ""
    address: str = ""
    model: str = ""
    without: tuple[str, ...] = ()
    note: str = ""

    def taken(self) -> Answer:
        """As an answer."""
        usage = Usage(self.input_tokens, self.output_tokens)
        return Answer(self.answer, usage, self.finish, self.address, self.model, self.without, self.note)


_RECORDED: TypeAdapter[dict[str, Kept | str]] = TypeAdapter(dict[str, Kept | str])


def facts_of(answer: Answer) -> dict[str, Any]:
    """An answer as values of JSON, without its tokens and without what is empty."""
    facts = {"answer": answer.text, **answer._asdict()}
    return {name: value for name, value in facts.items() if name not in ("text", "usage") and (value or name == "answer")}


def write_answers(path: Path, answers: Mapping[str, Answer]) -> None:
    """Writes answers (question key -> answer), by key."""
    rows = {key: facts_of(answer) for key, answer in sorted(answers.items())}
    write_whole(path, json.dumps(rows, ensure_ascii=False, indent=1) + "\n")


def read_answers(path: Path) -> dict[str, Answer]:
    """Answers of a file by question key, also where it holds nothing but their texts. Raises UsageProblem for anything else."""
    try:
        raw = parsed(path.read_bytes().removeprefix(codecs.BOM_UTF8))
        rows = _RECORDED.validate_python(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = str(first["loc"][0])[:12] if first["loc"] else "file"
        raise UsageProblem(f"{path.name}: {place}: recorded answers are one JSON object of question key to answer") from error
    except (ValueError, RecursionError) as error:
        raise UsageProblem(f"{path.name}: not JSON that can be used ({error}); give the answers.json that a run has left") from error
    return {key: Answer(row, Usage(0, 0)) if isinstance(row, str) else row.taken() for key, row in rows.items()}


class RecordedJudge:
    """Answers out of a file, as `answers.json` of an earlier run."""

    def __init__(self, path: Path, *, digest: str) -> None:
        if not path.is_file():
            raise EnvironmentProblem(f"{path.name}: no such file of recorded answers")
        if sha256_of(path) != digest:
            raise IntegrityProblem(f"{path.name}: the recorded answers are not those of digest {digest[:12]}; give the file that was meant")
        self._name = path.name
        self._answers = read_answers(path)

    def answer(self, question: Question) -> Answer:
        """The recorded answer. Raises UsageProblem when the question was not recorded."""
        if question.key not in self._answers:
            first = question.text.strip().splitlines()[0][:60] if question.text.strip() else ""
            raise UsageProblem(
                f"{self._name} has no answer to question {question.key[:12]} ({first!r}, asked {question.attempt} times before); "
                "record it at an endpoint with the same contexts and settings"
            )
        return self._answers[question.key]._replace(usage=Usage(0, 0))
