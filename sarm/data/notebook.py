"""How the objects of the public Python face look in a notebook: small HTML without script and style, and data frames.

Every text is escaped; what cannot be shown becomes `?`, long texts and long tables are shortened and say so. Pure text in, text out.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sarm.job import printable

if TYPE_CHECKING:
    import pandas

LONGEST_TEXT = 300
LONGEST_WORD = 60
MOST_ROWS = 30
MOST_COLUMNS = 12


def shown(value: object) -> str:
    """One value as escaped text: floats with five significant digits, tuples by their members, None as a dash."""
    if value is None:
        return "—"
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, tuple | list):
        return html.escape(_short(", ".join(str(one) for one in value)))
    return html.escape(_short(str(value)))


def _short(text: str) -> str:
    words = [word if len(word) <= LONGEST_WORD else f"{word[:LONGEST_WORD]}…" for word in printable(text[: 4 * LONGEST_TEXT]).split()]
    line = " ".join(words)
    if len(line) <= LONGEST_TEXT and len(text) <= 4 * LONGEST_TEXT:
        return line
    return f"{line[:LONGEST_TEXT].rpartition(' ')[0] or line[:LONGEST_TEXT]} … ({len(text):,} signs)"


def table(title: str, columns: Mapping[str, Sequence[object]], *, note: str = "") -> str:
    """A titled table, column by column. Directions of writing are kept apart cell by cell."""
    names = list(columns)[:MOST_COLUMNS]
    length = max((len(values) for values in columns.values()), default=0)
    head = "".join(f"<th>{shown(name)}</th>" for name in names)
    rows = [
        "<tr>" + "".join(f'<td dir="auto">{shown(columns[name][place])}</td>' for name in names) + "</tr>"
        for place in range(min(length, MOST_ROWS))
    ]
    more = [f"{length - MOST_ROWS:,} more rows"] if length > MOST_ROWS else []
    more += [f"{len(columns) - MOST_COLUMNS:,} more columns"] if len(columns) > MOST_COLUMNS else []
    said = "; ".join(shown(one) for one in (note, *more) if one)
    return (
        f"<table><caption>{shown(title)}</caption><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        + (f"<p>{said}</p>" if said else "")
    )


def facts(title: str, named: Mapping[str, object]) -> str:
    """A titled list of names and values."""
    rows = "".join(f'<tr><th scope="row">{shown(name)}</th><td dir="auto">{shown(value)}</td></tr>' for name, value in named.items())
    return f"<table><caption>{shown(title)}</caption><tbody>{rows}</tbody></table>"


def frame(columns: Mapping[str, Sequence[Any]]) -> pandas.DataFrame:
    """A pandas data frame of these columns."""
    # Loaded here: nobody who asks for rewards alone waits for pandas.
    import pandas  # noqa: PLC0415

    return pandas.DataFrame({name: list(values) for name, values in columns.items()})


def by_field(rows: Sequence[tuple[Any, ...]], names: Sequence[str]) -> dict[str, list[Any]]:
    """Rows as columns."""
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}
