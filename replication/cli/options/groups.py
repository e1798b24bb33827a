"""Options that are written once and shared by commands: a parameter that is a dataclass stands for the options that are its fields."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_args, get_origin, get_type_hints


class Without:
    """Marks a group, `Annotated[Group, Without("field")]`, of which a command lacks some options: these keep their defaults."""

    def __init__(self, *names: str) -> None:
        self.names = names


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """The command as Typer wants it, one parameter an option: each parameter that is a dataclass gives place to its fields."""
    hints = get_type_hints(command, include_extras=True)
    parameters: list[inspect.Parameter] = []
    groups: dict[str, tuple[Callable[..., Any], list[str]]] = {}
    for name, parameter in inspect.signature(command).parameters.items():
        group, left_out = _group(hints[name])
        if group is None:
            parameters.append(parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        options = [_option(group, field) for field in dataclasses.fields(group) if field.name not in left_out]
        groups[name] = group, [option.name for option in options]
        parameters += options

    @functools.wraps(command)
    def expanded(**given: Any) -> None:
        built = {name: group(**{option: given.pop(option) for option in options}) for name, (group, options) in groups.items()}
        command(**given, **built)

    expanded.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    expanded.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return expanded


def _group(hint: Any) -> tuple[type[Any] | None, tuple[str, ...]]:
    """The dataclass that a parameter's type is, with the fields that are left out of it; None where it is an option of its own."""
    kind, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    if not dataclasses.is_dataclass(kind) or not isinstance(kind, type):
        return None, ()
    return kind, tuple(name for mark in marks if isinstance(mark, Without) for name in mark.names)


def _option(group: type[Any], field: dataclasses.Field[Any]) -> inspect.Parameter:
    hint = get_type_hints(group, include_extras=True)[field.name]
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hint)
