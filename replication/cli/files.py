"""Commands on files and finished results: render, score, reward, compare-weights, audit."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from replication.cli.options.declared import (
    DEFAULT_STORE,
    MISSING_RESULTS,
    ExperimentArgument,
    ExperimentOptions,
    FullOption,
    JsonOption,
    SteerOption,
    StoreOption,
    typed_command,
)
from replication.cli.row_files import STANDARD_INPUT, readable, refuse_other_suffix, write_rows
from replication.recipes.requested import experiment_named, settings_for
from replication.settings.steering_files import read_steering_file
from replication.usage_problems import UsageProblems
from sarm.config.score import ConversationScoringConfig
from sarm.config.weights import WeightComparisonConfig
from sarm.job import Job, Resources, printable
from sarm.metrics.credits import BenchmarkScores, Metric
from sarm.store.artifacts import ArtifactStore
from sarm.store.checksums import fingerprint
from sarm.store.json_files import read_facts
from sarm.store.json_lines import read_lines

# What `replicate reward` tells of a file, by key of its conditions: names with their counts.
NOT_READ = {
    "columns_not_read": "columns and keys of messages not read, with the rows that hold them",
    "turns_not_written": "turns that the chat template leaves out or changes, by role",
}

OutOption = Annotated[Path | None, typer.Option("--out", help="Write to FILE.jsonl, FILE.csv or FILE.parquet.")]


def render(
    *,
    experiment: ExperimentArgument,
    output_format: Annotated[
        Literal["md", "text", "tex", "html", "csv", "json"], typer.Option("--format", help="Format on stdout; text is the terminal's.")
    ] = "md",
    full: FullOption = False,
    asked: ExperimentOptions,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """A table from what the store has, on stdout. Starts nothing; exit code 5 when nothing of it was measured."""
    if full and output_format != "text":
        raise UsageProblems([f"--full has a meaning with --format text alone: {output_format} is whole anyway"])
    from replication import pipeline  # noqa: PLC0415 - rendering and statistics are not needed by --help
    from replication.cli.running import closing  # noqa: PLC0415 - as above
    from replication.recipes.jobs_needed import recipe  # noqa: PLC0415 - as above
    from replication.report.render.tables import as_text  # noqa: PLC0415 - as above

    artifacts = ArtifactStore(store)
    (setting,) = settings_for([experiment_named(experiment)], asked.chosen, artifacts, os.environ)
    command = asked.chosen.command(experiment, store)
    report = pipeline.report(recipe(setting), artifacts, command=command)
    if output_format == "text":
        closing.show([report], full=full)
    else:
        typer.echo(as_text(report, output_format), nl=False)
    if not pipeline.measured(report):
        typer.echo(f"replicate: nothing of {experiment} was measured yet; run: {command}", err=True)
        raise typer.Exit(MISSING_RESULTS)


def score(
    rewards: Annotated[Path, typer.Argument(help="Per-item rewards, JSONL; - reads standard input.")],
    benchmark: Annotated[Literal["rewardbench2", "rmbench"], typer.Option("--benchmark", help="Whose metrics.")],
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Metrics of a file of per-item rewards, ours or anyone's."""
    from replication.report.results.score_files import score_file  # noqa: PLC0415 - not needed by --help

    refuse_other_suffix(out)
    with readable(rewards) as path:
        scores, repeated, notes = score_file(path, benchmark)
    if as_json:
        content = {
            "benchmark": benchmark,
            "metrics": {name: metric._asdict() for name, metric in scores.metrics.items()},
            "missing": dict(scores.missing),
            "unknown": dict(scores.unknown),
            "repeated_ids": repeated,
            "notes": list(notes),
        }
        typer.echo(json.dumps(content, indent=2))
    elif out is None:
        for name, metric in scores.metrics.items():
            typer.echo(_metric_line(name, metric))
        for name, reason in scores.missing.items():
            typer.echo(f"{name:<16}{'-':>8}  {reason}")
    if out is not None:
        write_rows(out, _metric_rows(scores))
    for label, count in scores.unknown.items():
        typer.echo(f"warning: {count} items of {label!r} belong to no known subset and are left out", err=True)
    if repeated:
        typer.echo(f"note: {repeated} items have an id that another item of their subset has; each is scored by itself", err=True)
    for note in notes:
        typer.echo(f"note: {note}", err=True)
    if not scores.metrics:
        raise typer.Exit(MISSING_RESULTS)


def _metric_rows(scores: BenchmarkScores) -> list[dict[str, Any]]:
    """One row a metric; what is missing has its reason, what belongs to no subset its count."""
    none: dict[str, Any] = {**dict.fromkeys(Metric._fields), "missing": ""}
    measured = [{**none, **metric._asdict(), "name": name} for name, metric in scores.metrics.items()]
    missing = [{**none, "name": name, "missing": reason} for name, reason in scores.missing.items()]
    why = "belongs to no known subset and is left out"
    return [*measured, *missing, *({**none, "name": label, "n": count, "missing": why} for label, count in scores.unknown.items())]


def _metric_line(name: str, metric: Metric) -> str:
    error = f" ± {100 * metric.standard_error:.2f}" if metric.standard_error is not None else ""
    ties = f"  {metric.ties} ties" if metric.ties else ""
    return f"{name:<16}{100 * metric.value:>8.2f}{error}  n {metric.n}{ties}"


def reward(  # noqa: PLR0917 - one parameter an option, as Typer wants it
    model: Annotated[Path, typer.Option("--model", help="Folder of a reward model.")],
    conversations: Annotated[Path, typer.Option("--input", help="Conversations, JSONL: {id, messages}; - reads standard input.")],
    attribution: Annotated[bool, typer.Option("--attribution", help="Also the top latents and what they contribute.")] = False,
    top: Annotated[int, typer.Option("--top", min=1, help="Latents to list with --attribution.")] = 10,
    max_length: Annotated[int, typer.Option("--max-length", min=2, help="Longest conversation, tokens.")] = 4096,
    end_of_turn: Annotated[str, typer.Option("--end-of-turn", help="Token that ends a turn, where it is not the tokenizer's eos.")] = "",
    pooling: Annotated[
        Literal["end-of-turn", "last-token"], typer.Option("--pooling", help="Scored token: the last turn's end, or the template's last.")
    ] = "end-of-turn",
    steer: SteerOption = None,
    gpus: Annotated[int, typer.Option("--gpus", min=0, help="GPUs to use; 0 runs on the CPU.")] = 0,
    out: OutOption = None,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """A reward for each conversation, as JSONL on stdout or in a file. Runs as a job, so the same call again is answered from the store."""
    given = {"--model": model} | ({"--input": conversations} if conversations != STANDARD_INPUT else {})
    missing = [f"{option} {path} does not exist" for option, path in given.items() if not path.exists()]
    if end_of_turn and pooling == "last-token":
        missing.append("--end-of-turn names the token that is scored, and --pooling last-token asks for another; give one of them")
    if missing:
        raise UsageProblems(missing)
    refuse_other_suffix(out)
    artifacts = ArtifactStore(store)
    with readable(conversations) as source:
        config = ConversationScoringConfig(
            model_digest=artifacts.fingerprint(model.resolve()),
            conversations_digest=fingerprint(source.resolve()),
            attribution=top if attribution else 0,
            max_length=max_length,
            end_of_turn=end_of_turn,
            pooling="last_token" if pooling == "last-token" else "end_of_turn",
            steering=read_steering_file(steer) if steer is not None else None,
        )
        locations = {"model": str(model.resolve()), "conversations": str(source.resolve())}
        job = Job(config=config, resources=Resources(gpus=gpus), locations=locations, label=f"rewards of {source.name}")
        run_alone(job, artifacts)
    _give(artifacts.path(job) / "rewards.jsonl", out)
    _tell_conditions(artifacts.path(job) / "conditions.json", asked=end_of_turn)


def _give(rewards: Path, out: Path | None) -> None:
    """Rewards of an artifact on stdout, or in a file of the format that its suffix says."""
    if out is None:
        typer.echo(rewards.read_text(encoding="utf-8"), nl=False)
        return
    write_rows(out, [line.value for line in read_lines(rewards)])
    typer.echo(f"rewards: {out}", err=True)


def _tell_conditions(path: Path, *, asked: str) -> None:
    """Say which token was scored where neither the tokenizer's eos nor an option names it, and what the file holds that was not read.

    A result of before has no such file.
    """
    facts = read_facts(path) if path.is_file() else {}
    ends, eos = facts.get("end_of_turn"), facts.get("eos_token")
    if ends and ends not in (eos, asked):
        why = f"with which the chat template closes replies (eos is {eos or 'not set'})"
        typer.echo(f"note: scored at {ends}, {why}; --end-of-turn or --pooling name another token", err=True)
    for key, what in NOT_READ.items():
        if facts.get(key):
            told = ", ".join(f"{printable(' '.join(name.split()))} ({count})" for name, count in facts[key].items())
            typer.echo(f"note: {what}: {told}", err=True)


def compare_weights(
    first: Annotated[Path, typer.Argument(help="Folder of the earlier checkpoint.")],
    second: Annotated[Path, typer.Argument(help="Folder of the later one.")],
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Which tensors differ between two checkpoints and by how much, and whether the SAE was frozen between them. JSON on stdout."""
    missing = [f"{path} does not exist" for path in (first, second) if not path.exists()]
    if missing:
        raise UsageProblems(missing)
    artifacts = ArtifactStore(store)
    config = WeightComparisonConfig(
        first_digest=artifacts.fingerprint(first.resolve()), second_digest=artifacts.fingerprint(second.resolve())
    )
    locations = {"first": str(first.resolve()), "second": str(second.resolve())}
    run_alone(Job(config=config, locations=locations, label=f"weights of {first.name} and {second.name}"), artifacts)
    typer.echo((artifacts.path(Job(config=config)) / "comparison.json").read_text(encoding="utf-8"), nl=False)


def run_alone(job: Job, artifacts: ArtifactStore) -> None:
    """Run one job unless the store has it; exits with the launcher's code when it fails."""
    from replication.cli.running.progress import watching  # noqa: PLC0415 - as above
    from replication.launch.local import LocalLauncher  # noqa: PLC0415 - not needed by --help

    if artifacts.has(job):
        return
    with watching(1) as watch:
        code = LocalLauncher(command=typed_command()).launch([job], artifacts, watch)
    if code:
        raise typer.Exit(code)


def audit(as_json: JsonOption = False) -> None:
    """Consistency of the paper's own numbers. Arithmetic on printed digits: no model, no GPU."""
    from replication.report.audit.consistency import audit_findings  # noqa: PLC0415 - not needed by --help
    from replication.report.audit.page import audit_text  # noqa: PLC0415 - as above
    from replication.terminal.console import console_for  # noqa: PLC0415 - as above

    found = audit_findings()
    if as_json:
        typer.echo(json.dumps([one.model_dump() for one in found], indent=2))
    else:
        typer.echo(audit_text(found, width=console_for(sys.stdout).width).rstrip())


COMMANDS: Mapping[str, Callable[..., None]] = {
    "render": render,
    "score": score,
    "reward": reward,
    "compare-weights": compare_weights,
    "audit": audit,
}
