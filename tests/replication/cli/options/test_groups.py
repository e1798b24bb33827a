"""Options that are written once and shared: what a command shows, and what it is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from replication.cli.options.groups import Without, grouped


@dataclass(frozen=True)
class Size:
    """A group."""

    width: Annotated[int, typer.Option("--width", min=1, help="How wide.")] = 3
    names: Annotated[list[str] | None, typer.Option("--name", help="How it is called.")] = None
    depth: Annotated[int, typer.Option("--depth", help="How deep.")] = 5


@dataclass(frozen=True)
class WideSize(Size):
    """The group with another default."""

    width: Annotated[int, typer.Option("--width", min=1, help="How wide.")] = 30


def tell(context: typer.Context, *, thing: Annotated[str, typer.Argument()], size: Size, last: bool = False) -> None:
    """Tell what was given."""
    source = context.get_parameter_source("width")
    typer.echo(f"{thing} {size} {last} {source.name if source else ''}")


def tell_flat(*, size: Annotated[WideSize, Without("depth")]) -> None:
    """Tell what was given."""
    typer.echo(str(size))


def said(command: object, *arguments: str) -> str:
    app = typer.Typer()
    app.command()(grouped(command))  # type: ignore[arg-type]
    return CliRunner().invoke(app, arguments).output


def test_a_group_stands_for_its_options_in_their_order() -> None:
    text = said(tell, "--help")
    assert sorted(["--width", "--name", "--depth", "--last"], key=text.index) == ["--width", "--name", "--depth", "--last"]
    assert "--size" not in text


def test_a_group_is_built_from_what_was_typed_and_its_defaults() -> None:
    assert said(tell, "box", "--width", "7", "--name", "a", "--name", "b") == f"box {Size(7, ['a', 'b'], 5)} False COMMANDLINE\n"
    assert said(tell, "box", "--last") == f"box {Size()} True DEFAULT\n"
    assert "Invalid value for '--width'" in said(tell, "box", "--width", "0")


def test_options_that_a_command_lacks_keep_their_defaults() -> None:
    assert said(tell_flat) == f"{WideSize(30, None, 5)}\n"
    assert "No such option" in said(tell_flat, "--depth", "2")


def test_an_option_given_twice_is_refused_when_the_command_is_made() -> None:
    def twice(*, width: int = 1, size: Size) -> None: ...

    twice.__annotations__ = {"width": int, "size": Size, "return": None}
    with pytest.raises(ValueError, match="duplicate parameter name"):
        grouped(twice)
