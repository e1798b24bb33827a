"""Items whose worth stands in their completions, a judge that sees it, and the judge's job on them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from chat_server import ChatServer
from tiny import job_context, read_rows, write_rows

from sarm.config.score import JudgeConfig
from sarm.data.preferences import Message, Preference, ScoredPreference
from sarm.job import JobContext
from sarm.jobs.score.judge import judge_benchmark

# What the pretended judge thinks of a completion: the number in it.
WORTH = re.compile(r"worth (\d+)")
SHOWN = re.compile(r"Start of Assistant ([A-D])'s Answer\]\n.*worth (\d+)")


def judged(request: dict[str, Any]) -> str:
    """Names the completion that is worth most, or says what the one completion is worth."""
    text = request["messages"][-1]["content"]
    shown = SHOWN.findall(text)
    if shown:
        return f"A close call.\n[[{max(shown, key=lambda one: int(one[1]))[0]}]]"
    (worth,) = WORTH.findall(text)
    return f"Fair.\n\n{worth}"


def item(subset: str, name: str, chosen: tuple[int, ...], rejected: tuple[int, ...]) -> Preference:
    def texts(side: str, worths: tuple[int, ...]) -> tuple[str, ...]:
        return tuple(f"{side} {name} {place} worth {worth}" for place, worth in enumerate(worths))

    prompt = (Message(role="user", content=f"ask {subset}"),)
    return Preference(id=name, prompt=prompt, chosen=texts("c", chosen), rejected=texts("r", rejected), subset=subset)


ITEMS = [
    item("Math", "0", (9,), (3, 4, 5)),
    item("Math", "1", (2,), (3, 4, 5)),
    item("Safety", "0", (7,), (7, 4, 7)),
    item("Ties", "ref:0", (9,), (2,)),
    item("Ties", "tied:0", (9, 8), (3, 1)),
]


def config(**changes: Any) -> JudgeConfig:
    return JudgeConfig(**{"benchmark": "rewardbench2", "judge": "endpoint", "judge_model": "toy", **changes})


def context_of(folder: Path, server: ChatServer | None, *, items: list[Preference] | None = None, **settings: Any) -> JobContext:
    stop = settings.pop("stop", None)
    name = settings.pop("name", "rewardbench2")
    benchmark = write_rows(folder / "benchmark", f"{name}.jsonl", ITEMS if items is None else items)
    locations = {}
    if server is not None:
        locations["endpoint"] = folder / "endpoint.json"
        locations["endpoint"].write_text(server.settings(**settings).model_dump_json())
    return job_context(folder, inputs={"benchmark": benchmark}, locations=locations, stop=stop)


def outcome(folder: Path, server: ChatServer, **changes: Any) -> tuple[list[dict[str, Any]], list[ScoredPreference], dict[str, Any]]:
    context = context_of(folder, server)
    judge_benchmark(config(**changes), context)
    rewards = [ScoredPreference(**row) for row in read_rows(context.output / "rewards.jsonl")]
    return read_rows(context.output / "judgements.jsonl"), rewards, json.loads((context.output / "conditions.json").read_text())
