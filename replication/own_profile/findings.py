"""What `python -m sarm.jobs.survey` finds out about a user's model and data, asked in a process of its own: only there is torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, ValidationError

import sarm
from replication.frozen import Frozen
from sarm.job import EnvironmentProblem, IntegrityProblem, JobError, UsageProblem

PROBLEMS: Mapping[int, type[JobError]] = {one.exit_code: one for one in (UsageProblem, IntegrityProblem, EnvironmentProblem)}
MODULE = "sarm.jobs.survey"


class MachineFacts(Frozen):
    """What torch can use here."""

    gpus: int
    bfloat16: bool


class ModelFacts(Frozen):
    """Of the model beside the sizes in its `config.json`."""

    model_type: str
    positions: int = Field(description="Longest sequence; 0 where it does not say.")
    end_of_turn: str = Field(description="Token with which the chat template closes a reply.")
    eos: str
    pad: str
    pad_is_its_own: bool = Field(description="Whether there is a pad token that ends no turn.")


class PairFacts(Frozen):
    """Of the pairs. Counts but `rows` are of the rows that were looked at."""

    rows: int = Field(description="Rows of the file, about.")
    looked_at: int
    kept: int
    held_out: int
    form: str
    skip_prompts: bool = Field(description="Whether rows have empty prompts.")
    left_out: Mapping[str, int]
    not_read: Mapping[str, int] = Field(description="Column -> rows in which it holds something that is not read.")
    tokens_per_pair: int
    longest: int = Field(description="Tokens of the longest conversation.")


class TextFacts(Frozen):
    """Of the texts."""

    rows: int = Field(description="Documents of the file, about.")
    looked_at: int
    column: str
    sentences_per_document: float
    tokens_per_sentence: float


class BenchmarkFacts(Frozen):
    """Of a benchmark, all of it."""

    name: str
    items: int
    subsets: Mapping[str, int]
    completions: int


class Findings(Frozen):
    """All that a profile is made from."""

    machine: MachineFacts
    model: ModelFacts
    pairs: PairFacts
    text: TextFacts
    benchmark: BenchmarkFacts | None = None


def look(*, model: Path, pairs: Path, text: Path, benchmark: Path | None) -> Findings:
    """What the survey says. Raises the JobError that it found, or EnvironmentProblem where its process failed."""
    paths = {"model": model, "pairs": pairs, "text": text, **({"benchmark": benchmark} if benchmark else {})}
    request = json.dumps({name: str(path.absolute()) for name, path in paths.items()})
    done = subprocess.run(
        [sys.executable, "-m", MODULE], input=request, capture_output=True, text=True, check=False, env=_environment()
    )
    try:
        found = json.loads(done.stdout)
        if "problem" in found:
            raise PROBLEMS.get(found["code"], JobError)(found["problem"])
        return Findings.model_validate(found)
    except (ValueError, ValidationError, TypeError) as error:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise EnvironmentProblem(f"the look at model and data failed: {last}; see what this machine lacks: replicate doctor") from error


def _environment() -> dict[str, str]:
    # The child must run the same code as we do, also from a checkout that is not installed; and nothing here may ask the hub.
    source = str(Path(sarm.__file__).resolve().parent.parent)
    paths = [source, *filter(None, [os.environ.get("PYTHONPATH", "")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
