"""The endpoint that explains latents or judges a benchmark: its options, and how a setting comes to know it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from replication.recipes.setting import Setting
from replication.settings.judges import Judging, Mode, judges_matching, judges_named
from replication.settings.profiles import BenchmarkName
from replication.usage_problems import UsageProblems
from sarm.store.artifacts import ArtifactStore

ENDPOINT_FILE = ".endpoint.json"
# Thousands of questions meet more rate limits than a few: eight waits, growing to eight seconds each or as long as Retry-After asks.
RETRIES = 8

KeyOption = Annotated[str, typer.Option("--api-key-env", help="Environment variable with its key; empty for a server without keys.")]
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


@dataclass(frozen=True)
class ExplainerOptions:
    """Who explains latents."""

    api_base: Annotated[str, typer.Option("--api-base", help="OpenAI-compatible endpoint that explains latents, up to /v1.")] = ""
    key_variable: KeyOption = "OPENAI_API_KEY"
    max_cost: Annotated[float, typer.Option("--max-cost", min=0, help="Most US dollars the explanations may cost.")] = 5.0
    answers: AnswersOption = None

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
    max_cost: Annotated[float, typer.Option("--max-cost", min=0, help="Most US dollars of one judge's answers about one benchmark.")] = 5.0
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Most tokens in and out, as --max-cost.")] = 20_000_000
    input_price: Annotated[float, typer.Option("--input-price", min=0, help="US dollars for a million input tokens.")] = 2.5
    output_price: Annotated[float, typer.Option("--output-price", min=0, help="US dollars for a million output tokens.")] = 10.0
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, max=256, help="Most questions under way at once.")] = 4
    request_timeout: Annotated[float, typer.Option("--request-timeout", min=1, help="Longest wait for one answer, seconds.")] = 300.0
    answers: AnswersOption = None

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
        )


def with_endpoint(setting: Setting, endpoint: Endpoint, place: ArtifactStore) -> Setting:
    """The setting with who is asked. The endpoint's settings lie in the store: a job reads them from a file; no key is in it.

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
    file = place.root.resolve() / ENDPOINT_FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    values = {"api_base": endpoint.api_base, "key_variable": endpoint.key_variable, "max_cost": endpoint.max_cost}
    values |= endpoint.limits
    file.write_text(json.dumps(values) + "\n", encoding="utf-8")
    return replace(setting, endpoint=str(file))


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
