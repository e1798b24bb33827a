"""The published numbers: strings as printed, with their place, rounding rule, item counts and errata."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import Field, ValidationError, model_validator

from replication.data_folders import published_folder
from replication.frozen import Frozen
from replication.report.counts import Grain, Interval, Rounding, achievable_counts, interval_of

NUMBER = re.compile(r"-?\d+(\.\d+)?")
Unit = Literal["percent", "fraction", "GPU-hours", "reward"]
Origin = Literal["paper-ours", "paper-baseline", "control"]
Model = TypeVar("Model", bound=Frozen)


class PublishedError(ValueError):
    """A file of published numbers that cannot be trusted: names the file, the key and what is wrong."""

    exit_code = 2


class Erratum(Frozen):
    """A doubt about a printed value; the value itself stays as printed."""

    row: str
    column: str = Field(description="A column, or * for the whole row.")
    kind: Literal["granularity", "mean", "duplicate", "double-rounding", "label"]
    evidence: str
    suspected_value: str = Field(description="What was probably meant; empty where nothing can be inferred.")


class Statement(Frozen):
    """A number that the running text repeats from the table."""

    row: str
    column: str
    printed: str
    place: str


class Superlative(Frozen):
    """A place where the paper says that a cell is the best."""

    row: str
    column: str
    scope: Literal["table", "group", "board"] = Field(description="Best of the table, of its block, or of all models of the leaderboard.")
    place: str


class PublishedRow(Frozen):
    """A printed line of a table."""

    name: str = Field(description="A stable identifier, ours.")
    label: str = Field(description="As printed.")
    size: str = ""
    group: str = ""
    origin: Origin
    grain: Grain | None = Field(default=None, description="Halves for scalar reward models, twelfths for judges that rate.")
    model: str = Field(default="", description="Identifier on the public leaderboard.")
    dated: str = Field(default="", description="ISO date by which the row was public, where known.")
    note: str = ""
    cited: Mapping[str, str] = Field(default={}, description="Columns where RewardBench 2's own paper (Table 3) prints another value.")
    unread: tuple[str, ...] = Field(default=(), description="Columns whose value our source of the paper does not give.")
    same_as: tuple[str, ...] = Field(default=(), description="Other rows (table/row) that are meant to be the same model.")
    cells: Mapping[str, str]


class PublishedTable(Frozen):
    """One file of `tables/published`."""

    schema_version: Literal[1] = Field(alias="schema")
    name: str
    title: str
    place: str = Field(description="Where in the source.")
    source: str
    not_comparable: str = Field(default="", description="Why no run of ours can be judged by this file; empty where it can.")
    held_out: Mapping[str, str] = Field(default={}, description="Column -> source of held-out pairs of ours that is closest to it.")
    unit: Unit
    decimals: int
    column_decimals: Mapping[str, int] = {}
    rounding: Rounding
    overall_is_mean: bool = Field(description="Whether Overall is the unweighted mean of the other columns.")
    columns: tuple[str, ...]
    n: Mapping[str, int] = Field(default={}, description="Items a column; for Ties prompts, whose score is no count.")
    rows: tuple[PublishedRow, ...] = Field(alias="row")
    errata: tuple[Erratum, ...] = Field(default=(), alias="erratum")
    statements: tuple[Statement, ...] = Field(default=(), alias="statement")
    superlatives: tuple[Superlative, ...] = Field(default=(), alias="superlative")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = [*_row_problems(self), *_reference_problems(self)]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def row(self, name: str) -> PublishedRow:
        """A row by its identifier. Raises PublishedError with the nearest name."""
        for row in self.rows:
            if row.name == name:
                return row
        raise PublishedError(f"{self.name}: no row {name!r}{_nearest(name, [row.name for row in self.rows])}")

    def printed(self, row: str, column: str) -> str | None:
        """A value in the table's display unit (fractions as percent, all digits kept); None where there is no such cell."""
        value = next((one.cells.get(column) for one in self.rows if one.name == row), None)
        if value is None or self.unit != "fraction":
            return value
        return str(Decimal(value).scaleb(2))

    def interval(self, row: str, column: str) -> Interval:
        """The exact values that print as this cell, in the display unit. Raises PublishedError where there is no such cell."""
        printed = self.printed(row, column)
        if printed is None:
            raise PublishedError(f"{self.name}: no cell {row}/{column}")
        return interval_of(printed, rounding=self.rounding)

    def counts(self, row: str, column: str, *, grain: Grain | None = None) -> tuple[Fraction, ...]:
        """The counts out of n that print as this cell; empty for columns without items (Ties, Overall) and for impossible cells."""
        chosen = grain or self.row(row).grain
        if chosen is None or column not in countable_columns(self):
            return ()
        return achievable_counts(self.interval(row, column), n=self.n[column], grain=chosen)

    def erratum(self, row: str, column: str) -> Erratum | None:
        """The doubt about a cell or its whole row, if one is on file."""
        return next((one for one in self.errata if one.row == row and one.column in (column, "*")), None)


def countable_columns(table: PublishedTable) -> tuple[str, ...]:
    """The columns whose values are counts out of n: all subsets but Ties, and not Overall."""
    return tuple(column for column in table.columns if column in table.n and column not in ("Overall", "Ties"))


def _nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f" (nearest: {close[0]})" if close else ""


def _row_problems(table: PublishedTable) -> list[str]:
    problems = []
    names = [row.name for row in table.rows]
    problems += [f"row {name}: appears twice" for name in sorted({name for name in names if names.count(name) > 1})]
    for row in table.rows:
        for column in table.columns:
            if column not in row.cells and column not in row.unread:
                problems.append(f"row {row.name}, {column}: no value")
        for column, printed in row.cells.items():
            if column not in table.columns:
                problems.append(f"row {row.name}, {column}: unknown column{_nearest(column, list(table.columns))}")
            elif not NUMBER.fullmatch(printed):
                problems.append(f"row {row.name}, {column}: {printed!r} is not a number")
            elif len(printed.partition(".")[2]) != table.column_decimals.get(column, table.decimals):
                problems.append(
                    f"row {row.name}, {column}: {printed!r} has not {table.column_decimals.get(column, table.decimals)} decimals"
                )
    return problems


def _reference_problems(table: PublishedTable) -> list[str]:
    rows, columns = {row.name for row in table.rows}, {*table.columns, "*"}
    problems = []
    references: list[tuple[str, Erratum | Statement | Superlative]] = [("erratum", one) for one in table.errata]
    references += [("statement", one) for one in table.statements]
    references += [("superlative", one) for one in table.superlatives]
    for kind, one in references:
        if one.row not in rows:
            problems.append(f"{kind}: unknown row {one.row!r}{_nearest(one.row, sorted(rows))}")
        if one.column not in columns:
            problems.append(f"{kind} of {one.row}: unknown column {one.column!r}{_nearest(one.column, list(table.columns))}")
    problems += [f"n.{column}: unknown column" for column in table.n if column not in table.columns]
    problems += [f"n.{column}: {size} is not positive" for column, size in table.n.items() if size <= 0]
    return problems


def _message(error: ValidationError, data: dict[str, Any]) -> str:
    lines = []
    for one in error.errors():
        place = [str(part) for part in one["loc"]]
        if len(place) > 1 and place[0] == "row" and place[1].isdigit():
            place[:2] = [f"row {data['row'][int(place[1])].get('name', place[1])}"]
        lines.append(f"{'.'.join(place)}: {one['msg']}" if place else one["msg"].removeprefix("Value error, "))
    return "; ".join(lines)


def published_names(folder: Path | None = None) -> tuple[str, ...]:
    """The tables on file, by name; `claims` is no table."""
    files = (folder or published_folder()).glob("*.toml")
    return tuple(sorted(file.stem for file in files if file.stem not in ("claims", "margins")))


def load_published(name: str, folder: Path | None = None) -> PublishedTable:
    """One published table by its file name without suffix. Raises PublishedError with file and key."""
    where = folder or published_folder()
    file = where / f"{name}.toml"
    if not file.is_file():
        raise PublishedError(f"{file}: no such published table{_nearest(name, list(published_names(where)))}")
    return read_published(file, PublishedTable)


def read_published(file: Path, model: type[Model]) -> Model:
    """A file of published data as a model. Raises PublishedError with file and key."""
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8-sig"))
        return model.model_validate(data)
    except FileNotFoundError as error:
        raise PublishedError(f"{file}: no such file") from error
    except tomllib.TOMLDecodeError as error:
        raise PublishedError(f"{file}: {error}") from error
    except ValidationError as error:
        raise PublishedError(f"{file}: {_message(error, data)}") from error
