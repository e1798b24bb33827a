"""Pictures in the page: the files that lie beside the tables, inside the page as images that can run nothing."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from replication.frozen import Frozen
from replication.report.cells import Report
from replication.report.render.parts.addresses import address, titled
from replication.report.render.sections import Section, filled

SVG = "{http://www.w3.org/2000/svg}"
# A larger file is left beside the tables: the page must stay one that can be sent.
LARGEST = 600_000
# Of all pictures in the page together, as they stand in it.
MOST_CHARACTERS = 1_200_000


class Shown(Frozen):
    """A picture as the page needs it."""

    name: str
    title: str
    says: str
    source: str


class Group(Frozen):
    """The pictures of one report."""

    address: str
    title: str
    pictures: tuple[Shown, ...]


def shown(file: Path, *, title: str = "") -> Shown | None:
    """An SVG with its own title and description; None where it is not there, too large or no SVG."""
    try:
        content = file.read_bytes()
        root = ElementTree.fromstring(content)
    except (OSError, ElementTree.ParseError):
        return None
    if len(content) > LARGEST or root.tag != f"{SVG}svg":
        return None
    found = root.findtext(f"{SVG}title") or title or file.stem
    says = root.findtext(f"{SVG}desc") or f"{found}; its numbers stand in the tables."
    # The page says these words itself.
    content = re.sub(rb'<desc id="description">.*?</desc>', b"", content, count=1, flags=re.DOTALL)
    return Shown(name=file.name, title=found, says=says, source=f"data:image/svg+xml;base64,{base64.b64encode(content).decode()}")


def pictures(reports: Sequence[Report], found: Mapping[str, Sequence[Shown]]) -> Section:
    """The pictures of each report (by its address), as far as the page has room; what is not there is said."""
    groups, without, room = [], [], MOST_CHARACTERS
    left: list[str] = []
    for one in reports:
        every, kept = found.get(address(one), ()), []
        for picture in every:
            if len(picture.source) > room:
                left.append(f"{picture.name} of {titled(one)}")
                continue
            room -= len(picture.source)
            kept.append(picture)
        groups += [Group(address=f"pictures-{address(one)}", title=titled(one), pictures=tuple(kept))] if kept else []
        without += [] if every else [titled(one)]
    html = filled("pictures", groups=groups, without=without, left=left)
    return Section(anchor="pictures", title="Pictures", html=html)
