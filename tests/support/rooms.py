"""The rooms of the house, level by level: what stands in each folder, on which floor, and which imports run between them.

A room is a file or a folder; an arrow is "one room imports another", counted once a pair however many names are taken.
Imports inside functions and under TYPE_CHECKING count like any other. `python tests/support/rooms.py [ROOT]` prints the levels.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

PACKAGES = ("sarm", "replication")


class Level(NamedTuple):
    """One folder: its rooms by name, the arrows between them, their floors (1 is the ground), and the rooms that stand in a circle."""

    name: str
    rooms: frozenset[str]
    arrows: frozenset[tuple[str, str]]
    floors: Mapping[str, int]
    circle: frozenset[str]


def modules(root: Path) -> dict[str, Path]:
    """Dotted name to file of every module of the two packages; a package is named without `__init__`."""
    found = {}
    for package in PACKAGES:
        for file in sorted((root / package).rglob("*.py")):
            name = ".".join(file.relative_to(root).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = file
    return found


def imported(file: Path, known: Mapping[str, Path]) -> Iterator[str]:
    """Every absolute import of a file; `from a import b` counts as a.b where that is a module."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{file}: a relative import; name the module in full")
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in known else str(node.module)


def imports(root: Path) -> dict[str, frozenset[str]]:
    """Module to the modules of the house that it imports."""
    known = modules(root)
    return {name: frozenset(one for one in imported(file, known) if one in known) - {name} for name, file in known.items()}


def level(name: str, graph: Mapping[str, frozenset[str]]) -> Level:
    """The rooms of one folder and the arrows between them; names of rooms are relative to the folder."""

    def room(module: str) -> str | None:
        inside = module.removeprefix(f"{name}.")
        return None if inside == module else inside.partition(".")[0]

    rooms = frozenset(found for module in graph if (found := room(module)))
    pairs = ((room(module), room(target)) for module, targets in graph.items() for target in targets)
    arrows = frozenset((one, other) for one, other in pairs if one and other and one != other)
    floors: dict[str, int] = {}
    while ready := {
        one for one in rooms - floors.keys() if all(other in floors for start, other in arrows if start == one)
    }:
        floors |= {one: 1 + max((floors[other] for start, other in arrows if start == one), default=0) for one in ready}
    return Level(name, rooms, arrows, floors, rooms - floors.keys())


def levels(root: Path) -> list[Level]:
    """Every folder of the two packages that holds rooms, outermost first."""
    graph = imports(root)
    names = [name for name, file in modules(root).items() if file.name == "__init__.py"]
    return [found for name in names if (found := level(name, graph)).rooms]


def main() -> None:
    """Rooms, floors and arrows of each level."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[2]
    print(f"{'level':32} rooms floors arrows  circle")
    for one in levels(root):
        circle = ", ".join(sorted(one.circle)) or "-"
        print(f"{one.name:32} {len(one.rooms):5} {max(one.floors.values(), default=0):6} {len(one.arrows):6}  {circle}")


if __name__ == "__main__":
    main()
