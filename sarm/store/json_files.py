"""A file that is one JSON object: settings beside weights, an index, facts in an artifact. Its one reader.

A file that is damaged is refused in one line with its folder, its name and the next step, whatever is wrong with it.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sarm.job import EnvironmentProblem, IntegrityProblem, JobError, UsageProblem
from sarm.store.json_lines import parsed

FETCH_AGAIN = "fetch it again"
MAKE_AGAIN = "it was changed after it was made: run the same command with --fresh"
# What code raises that meets a value of another type than it expects, or of no sensible size.
MISREAD = (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError)


def place_of(path: Path) -> str:
    """How a file is called in a message: by its folder and its name."""
    return f"{path.absolute().parent.name}/{path.name}"


def read_object(path: Path, *, cure: str = FETCH_AGAIN, problem: type[JobError] = UsageProblem) -> dict[str, Any]:
    """The object in a file, UTF-8 with or without its mark.

    Raises `problem` for bytes that are no JSON object or where a key stands twice, EnvironmentProblem for a file that cannot be opened.
    """
    where = place_of(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise EnvironmentProblem(f"{where}: cannot be read ({error.strerror or error}); {cure}") from error
    try:
        value = parsed(content.removeprefix(codecs.BOM_UTF8))
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, ValueError) else "nested too deeply"
        raise problem(f"{where}: not JSON ({reason}); {cure}") from error
    if not isinstance(value, dict):
        raise problem(f"{where}: a JSON object is expected; {cure}")
    return value


def read_facts(path: Path, *keys: str) -> dict[str, Any]:
    """The object in a file of an artifact of ours, which has these keys.

    Raises IntegrityProblem for anything else, EnvironmentProblem for a file that cannot be opened.
    """
    found = read_object(path, cure=MAKE_AGAIN, problem=IntegrityProblem)
    absent = next((key for key in keys if key not in found), None)
    if absent is not None:
        raise IntegrityProblem(f"{place_of(path)}: has no key {absent!r}; {MAKE_AGAIN}")
    return found


@contextmanager
def understood(
    where: str,
    *,
    cure: str = FETCH_AGAIN,
    problem: type[JobError] = UsageProblem,
    also: tuple[type[Exception], ...] = (),
    values: Mapping[str, Any] | None = None,
) -> Iterator[None]:
    """While values of a file are read that somebody else wrote: one that is absent or of another type is `problem`, in one line.

    `where` names the file, `also` what a library raises for such a value, `values` is what the file holds: a library looks its values up
    in tables of its own, and what such a table lacks is no key of the file. What is refused inside with a better word passes.
    """
    try:
        yield
    except JobError:
        raise
    except KeyError as error:
        raise problem(f"{where}: {_what_lacks(error, values or {})}; {cure}") from error
    except Exception as error:
        if not isinstance(error, (*MISREAD, *also)):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise problem(f"{where}: a value cannot be understood ({reason}); {cure}") from error


def _what_lacks(error: KeyError, values: Mapping[str, Any]) -> str:
    """What a KeyError says of a file: a key that it has not, a value that a library's table has not, or a sentence of the library."""
    name = error.args[0] if error.args else ""
    place = place_of_value(values, name)
    if place is not None:
        return f"{place} = {name!r} is not known here"
    if isinstance(name, str) and " " in name:
        return f"a value cannot be understood ({' '.join(name.split())})"
    return f"has no key {error}"


def place_of_value(values: Mapping[str, Any], value: object) -> str | None:
    """The key of a text in nested objects, written with dots; None where no key has it, or where it is itself the name of a key."""
    if not isinstance(value, str) or value in values:
        return None
    for key, found in values.items():
        inside = place_of_value(found, value) if isinstance(found, Mapping) else None
        if found == value or inside is not None:
            return key if inside is None else f"{key}.{inside}"
    return None


@contextmanager
def understood_facts(path: Path, *, also: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """As `understood`, for a file of an artifact of ours."""
    with understood(place_of(path), cure=MAKE_AGAIN, problem=IntegrityProblem, also=also):
        yield
