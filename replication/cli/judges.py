"""Options with which a run command asks judges, added to a command that knows nothing of them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_type_hints

import typer

from replication.cli.runs import AnswersOption, Endpoint, KeyOption

ModeName = Literal["ranking", "rating", "both"]
BenchmarkChoice = Literal["rewardbench2", "rmbench", "both"]

JudgeOption = Annotated[list[str] | None, typer.Option("--judge", help="NAME of a judge's row, or NAME=MODEL; repeatable.")]
ModelOption = Annotated[str, typer.Option("--judge-model", help="What the endpoint calls the one judge that is asked.")]
ModeOption = Annotated[ModeName, typer.Option("--judge-mode", help="Name the best of four, rate each 1 to 10, or both.")]
BenchmarkOption = Annotated[BenchmarkChoice, typer.Option("--judge-benchmark", help="What judges are asked about.")]
BaseOption = Annotated[str, typer.Option("--api-base", help="OpenAI-compatible endpoint that judges, up to /v1.")]
CostOption = Annotated[float, typer.Option("--max-cost", min=0, help="Most US dollars of one judge's answers about one benchmark.")]
TokensOption = Annotated[int, typer.Option("--max-tokens", min=1, help="Most tokens in and out, as --max-cost.")]
InputPriceOption = Annotated[float, typer.Option("--input-price", min=0, help="US dollars for a million input tokens.")]
OutputPriceOption = Annotated[float, typer.Option("--output-price", min=0, help="US dollars for a million output tokens.")]
ConcurrencyOption = Annotated[int, typer.Option("--concurrency", min=1, max=256, help="Most questions under way at once.")]
TimeoutOption = Annotated[float, typer.Option("--request-timeout", min=1, help="Longest wait for one answer, seconds.")]
# Thousands of questions meet more rate limits than a few: eight waits, growing to eight seconds each or as long as Retry-After asks.
RETRIES = 8


def judge_options(  # noqa: PLR0917 - one parameter an option, as Typer wants it
    judge: JudgeOption = None,
    judge_model: ModelOption = "",
    judge_mode: ModeOption = "ranking",
    judge_benchmark: BenchmarkOption = "rewardbench2",
    api_base: BaseOption = "",
    key_variable: KeyOption = "OPENAI_API_KEY",
    max_cost: CostOption = 5.0,
    max_tokens: TokensOption = 20_000_000,
    input_price: InputPriceOption = 2.5,
    output_price: OutputPriceOption = 10.0,
    concurrency: ConcurrencyOption = 4,
    request_timeout: TimeoutOption = 300.0,
    answers: AnswersOption = None,
) -> Endpoint:
    """Who is asked, as the options say."""
    return Endpoint(
        api_base=api_base,
        key_variable=key_variable,
        max_cost=max_cost,
        answers=answers,
        judges=tuple(judge or ()),
        judge_model=judge_model,
        modes=("ranking", "rating") if judge_mode == "both" else (judge_mode,),
        benchmarks=("rewardbench2", "rmbench") if judge_benchmark == "both" else (judge_benchmark,),
        limits={
            "max_tokens": max_tokens,
            "input_price": input_price,
            "output_price": output_price,
            "concurrency": concurrency,
            "timeout_seconds": request_timeout,
            "retries": RETRIES,
        },
    )


def with_judges(command: Callable[..., None]) -> Callable[..., None]:
    """The command, whose first parameter is its context, with the options of `judge_options`: an Endpoint in `context.obj`."""
    own, more = inspect.signature(command), inspect.signature(judge_options)

    @functools.wraps(command)
    def asked(context: typer.Context, **given: Any) -> None:
        context.obj = judge_options(**{name: given.pop(name) for name in more.parameters})
        command(context, **given)

    hints = {**get_type_hints(judge_options, include_extras=True), **get_type_hints(command, include_extras=True)}
    parameters = [
        one.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY if name != "context" else one.kind)
        for name, one in {**own.parameters, **more.parameters}.items()
    ]
    asked.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    asked.__annotations__ = {name: hints[name] for name in (*own.parameters, *more.parameters)}
    return asked
