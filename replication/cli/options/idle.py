"""Options that were typed where they have no effect: what nothing reads is refused, as if it had been a mistake."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import typer

from replication.usage_problems import UsageProblems

# Where things lie and what is not to happen: these promise nothing of the result, and are kept where nothing happens.
HARMLESS = frozenset({"store", "help", "yes", "offline"})


def typed(context: typer.Context, name: str) -> bool:
    """Whether an option of the current command, by its parameter's name, was typed."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def refuse_idle(context: typer.Context, why: str, *, but: Collection[str] = (), only: Sequence[str] | None = None) -> None:
    """Raises UsageProblems, one line an option that was typed, for all but those of these parameters' names (or, given `only`, for these).

    `why` follows "has no meaning"; the lines are in the order in which the command declares its options.
    """
    idle = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name
        and (only is None or parameter.name in only)
        and parameter.name not in HARMLESS
        and parameter.name not in but
        and typed(context, parameter.name)
    ]
    if idle:
        raise UsageProblems([f"{option} has no meaning {why}" for option in idle])
