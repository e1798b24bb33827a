"""The endpoint that explains latents or judges a benchmark: its options, and how a setting comes to know it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import typer
from pydantic import ValidationError

from replication.recipes.jobs_needed import Recipe
from replication.recipes.setting import Setting
from replication.report.answers import UNKNOWN_ADDRESS
from replication.settings.judges import Judging, Mode, judges_matching, judges_named
from replication.settings.profiles import BenchmarkName
from replication.usage_problems import UsageProblems
from sarm.job import Job
from sarm.judges.settings import EndpointSettings
from sarm.store.artifacts import ArtifactStore
from sarm.store.json_files import read_facts, understood_facts
from sarm.store.whole_files import write_whole

# In the store: the settings of every run that asks, under a name that follows from what they say, and beside them what each run has spent.
ENDPOINT_FOLDER = ".endpoints"
NAME_LENGTH = 16
# Which file of an artifact says who gave its answers.
WHO_ANSWERED = {"judge_benchmark": "conditions.json", "explain_latents": "summary.json"}
# Thousands of questions meet more rate limits than a few: eight waits, growing to eight seconds each or as long as Retry-After asks.
RETRIES = 8

KeyOption = Annotated[str, typer.Option("--api-key-env", help="Environment variable with its key; empty for a server without keys.")]
AcceptOption = Annotated[
    bool, typer.Option("--accept-answers", help="Use kept answers that another address gave, or that do not say which.")
]
RefusedOption = Annotated[
    Literal["stop", "unread"], typer.Option("--refused-questions", help="What the endpoint refuses: stop after the others, or unread.")
]
AnswersOption = Annotated[Path | None, typer.Option("--answers", help="Recorded answers (answers.json of an earlier run) instead.")]


@dataclass(frozen=True)
class Endpoint:
    """Who explains latents or judges a benchmark, as asked for on the command line; `api_base` and `answers` empty for nobody.

    `judges` are NAME or NAME=MODEL, `judge_model` renames the only one; `limits` are further fields of `EndpointSettings`.
    """

    api_base: str = ""
    key_variable: str = "OPENAI_API_KEY"
    max_cost: float = 5.0
    answers: Path | None = None
    judges: tuple[str, ...] = ()
    judge_model: str = ""
    modes: tuple[Mode, ...] = ("ranking",)
    benchmarks: tuple[BenchmarkName, ...] = ("rewardbench2",)
    limits: Mapping[str, float] = field(default_factory=dict)
    accept_answers: bool = False
    refused: Literal["stop", "unread"] = "stop"

    @property
    def settings(self) -> EndpointSettings:
        """How it is reached and how far it may be used. Raises UsageProblems with every option that is wrong, without its value."""
        more = {"accept_answers": self.accept_answers, "refused": self.refused, **self.limits}
        try:
            return EndpointSettings.model_validate(
                {"api_base": self.api_base, "key_variable": self.key_variable, "max_cost": self.max_cost, **more}
            )
        except ValidationError as error:
            # A URL that is refused for the password in it must not be told.
            options = {"timeout_seconds": "request_timeout", "key_variable": "api_key_env"}
            names = [str(entry["loc"][0]) if entry["loc"] else "options" for entry in error.errors()]
            said = [f"--{options.get(name, name).replace('_', '-')}" for name in names]
            raise UsageProblems([f"{name}: {entry['msg']}" for name, entry in zip(said, error.errors(), strict=True)]) from None


@dataclass(frozen=True)
class ExplainerOptions:
    """Who explains latents."""

    api_base: Annotated[str, typer.Option("--api-base", help="OpenAI-compatible endpoint that explains latents, up to /v1.")] = ""
    key_variable: KeyOption = "OPENAI_API_KEY"
    max_cost: Annotated[float, typer.Option("--max-cost", min=0, help="Most US dollars the explanations may cost, all together.")] = 5.0
    answers: AnswersOption = None
    accept_answers: AcceptOption = False
    refused: RefusedOption = "stop"

    @property
    def endpoint(self) -> Endpoint:
        """The same as an endpoint."""
        return Endpoint(**vars(self))


@dataclass(frozen=True)
class JudgeOptions:
    """Who judges a benchmark, and how far it may go."""

    judge: Annotated[list[str] | None, typer.Option("--judge", help="NAME of a judge's row, or NAME=MODEL; repeatable.")] = None
    judge_model: Annotated[str, typer.Option("--judge-model", help="What the endpoint calls the one judge that is asked.")] = ""
    judge_mode: Annotated[
        Literal["ranking", "rating", "both"], typer.Option("--judge-mode", help="Name the best of four, rate each 1 to 10, or both.")
    ] = "ranking"
    judge_benchmark: Annotated[
        Literal["rewardbench2", "rmbench", "both"], typer.Option("--judge-benchmark", help="What judges are asked about.")
    ] = "rewardbench2"
    api_base: Annotated[str, typer.Option("--api-base", help="OpenAI-compatible endpoint that judges, up to /v1.")] = ""
    key_variable: KeyOption = "OPENAI_API_KEY"
    max_cost: Annotated[float, typer.Option("--max-cost", min=0, help="Most US dollars of all judges' answers together.")] = 5.0
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Most tokens in and out, as --max-cost.")] = 20_000_000
    input_price: Annotated[float, typer.Option("--input-price", min=0, help="US dollars for a million input tokens.")] = 2.5
    output_price: Annotated[float, typer.Option("--output-price", min=0, help="US dollars for a million output tokens.")] = 10.0
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, max=256, help="Most questions under way at once.")] = 4
    request_timeout: Annotated[float, typer.Option("--request-timeout", min=1, help="Longest wait for one answer, seconds.")] = 300.0
    answers: AnswersOption = None
    accept_answers: AcceptOption = False
    refused: RefusedOption = "stop"

    @property
    def endpoint(self) -> Endpoint:
        """The same as an endpoint."""
        return Endpoint(
            api_base=self.api_base,
            key_variable=self.key_variable,
            max_cost=self.max_cost,
            answers=self.answers,
            judges=tuple(self.judge or ()),
            judge_model=self.judge_model,
            modes=("ranking", "rating") if self.judge_mode == "both" else (self.judge_mode,),
            benchmarks=("rewardbench2", "rmbench") if self.judge_benchmark == "both" else (self.judge_benchmark,),
            limits={
                "max_tokens": self.max_tokens,
                "input_price": self.input_price,
                "output_price": self.output_price,
                "concurrency": self.concurrency,
                "timeout_seconds": self.request_timeout,
                "retries": RETRIES,
            },
            accept_answers=self.accept_answers,
            refused=self.refused,
        )


def with_endpoint(setting: Setting, endpoint: Endpoint, artifacts: ArtifactStore, *, run: str) -> Setting:
    """The setting with who is asked. The endpoint's settings lie in the store: a job reads them from a file; no key is in it.

    `run` says in words what is asked for: what the jobs of one and the same run spend is counted together, however often it is begun.
    Raises UsageProblems for options that do not go together and for answers that are not there.
    """
    setting = replace(setting, judging=_judging(setting, endpoint)) if setting.experiment.judges else setting
    if endpoint.api_base and endpoint.answers:
        raise UsageProblems(["--api-base and --answers exclude each other: ask an endpoint, or read what one has answered"])
    if endpoint.answers:
        if not endpoint.answers.is_file():
            raise UsageProblems([f"--answers {endpoint.answers} does not exist"])
        return replace(setting, answers=str(endpoint.answers.resolve()))
    if not endpoint.api_base:
        return setting
    text = endpoint.settings.model_dump_json() + "\n"
    folder = artifacts.root.resolve() / ENDPOINT_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{_name(text)}.json"
    if not file.exists():
        write_whole(file, text)
    asked = [run, endpoint.settings.address, *endpoint.judges, endpoint.judge_model, *endpoint.modes, *endpoint.benchmarks]
    return replace(setting, endpoint=str(file), spending=str(folder / _name(json.dumps(asked))))


def _name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:NAME_LENGTH]


def refuse_other_addresses(recipes: Iterable[Recipe], endpoint: Endpoint, artifacts: ArtifactStore) -> None:
    """Raise UsageProblems where what is asked for is there already, but was answered by another address than the one that is named."""
    if not endpoint.api_base or endpoint.accept_answers:
        return
    address = endpoint.settings.address
    problems = []
    for job in (one for found in recipes for one in _asked_of_an_endpoint(found)):
        others = _addresses(job, artifacts) - {address}
        if others:
            problems.append(
                f"{job.label}: is there, with answers from {' and '.join(sorted(others))}, not from {address}; --accept-answers takes it "
                "as it is, without --api-base it is shown as what it is, --fresh asks anew"
            )
    if problems:
        raise UsageProblems(problems)


def _asked_of_an_endpoint(recipe: Recipe) -> list[Job]:
    jobs = [job for judged in recipe.judges if judged.asked for job in judged.jobs]
    jobs += [training.explanation for training in recipe.trainings if training.explanation is not None]
    return [job for job in jobs if "endpoint" in job.locations]


def _addresses(job: Job, artifacts: ArtifactStore) -> set[str]:
    """Who gave the answers of an artifact; nobody where it is not there."""
    path = artifacts.path(job) / WHO_ANSWERED[job.kind]
    if not artifacts.has(job) or not path.is_file():
        return set()
    by = read_facts(path).get("answered_by", [{"address": ""}])
    with understood_facts(path):
        return {one["address"] or UNKNOWN_ADDRESS for one in by}


def _judging(setting: Setting, endpoint: Endpoint) -> Judging:
    """The judges of `--judge`, or where an endpoint is given those that `--rows` names. Raises UsageProblems."""
    registered = setting.experiment.judges
    reachable = bool(endpoint.api_base or endpoint.answers)
    asked = judges_named(endpoint.judges, registered) or judges_matching(setting.rows, registered)
    problems = []
    if reachable and not asked:
        names = ", ".join(row.name for row in registered)
        problems.append(f"an endpoint or answers without a judge; give --judge NAME ({names}) or --judge NAME=MODEL for one of your own")
    if len(asked) != 1 and endpoint.judge_model:
        problems.append(f"--judge-model {endpoint.judge_model}: {len(asked)} judges are asked; name each with --judge NAME=MODEL")
    if len(asked) > 1 and endpoint.answers:
        problems.append(f"--answers {endpoint.answers.name}: the answers are of one judge, {len(asked)} are asked; name one with --judge")
    if problems:
        raise UsageProblems(problems)
    if endpoint.judge_model:
        asked = tuple(row.model_copy(update={"model": endpoint.judge_model}) for row in asked)
    return Judging(asked=asked, modes=endpoint.modes, benchmarks=endpoint.benchmarks)
