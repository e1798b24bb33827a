"""The explorer's part of the report: pages of the chosen latents and items as compressed data that a script shows."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from replication.data_folders import templates_folder
from replication.report.cells import Report
from replication.report.latents.explorations import KIND, Exploration, explorations_of, opened, unexplored
from replication.report.render.explorer.choice import REPORT, Extent, items_in_turn, latents_by_weight
from replication.report.render.explorer.pages import index, item_page, latent_page
from replication.report.render.sections import Section, filled
from sarm.job import IntegrityProblem, JobError
from sarm.store.artifacts import ArtifactStore

ANCHOR = "explorer"
TITLE = "Latent explorer"
# All explorers of one report together, as they stand in the file: the whole stays under 5 MB.
MOST_CHARACTERS = 3_000_000
LARGEST_SHOWN = 20
SMALLER = REPORT._replace(items=24, contexts=1, context_characters=160, text_characters=600)


class Block(NamedTuple):
    """One explored model in the page; `data` is gzip in base64, `largest` are the first lines of the list of latents."""

    key: str
    label: str
    command: str
    data: str
    largest: list[list[Any]]


def explorer_of(store: ArtifactStore, reports: Sequence[Report]) -> tuple[Section, list[JobError]]:
    """What a store has explored, the newest first, with the commands for the models of these reports that it has not.

    What cannot be read is told in its place, and given beside the section.
    """
    told = [f"{one}; replicate verify lists what is damaged" for one in store.unlisted(KIND)]
    problems: list[JobError] = [IntegrityProblem(line) for line in told]

    def readable() -> Iterator[Exploration]:
        for one in explorations_of(store):
            try:
                yield opened(store, one)
            except JobError as problem:
                problems.append(problem)
                told.append(f"{one.label[:1].upper()}{one.label[1:]}, explore_latents/{one.short_key}: {problem}")

    return explorer_section(readable(), waiting=unexplored(store, reports), unread=told), problems


def explorer_section(
    explorations: Iterable[Exploration],
    *,
    waiting: Sequence[tuple[str, str]] = (),
    unread: Sequence[str] = (),
    most: int = MOST_CHARACTERS,
) -> Section:
    """The explored models: those that fit into `most` characters, in the order given; of the others the command that writes a folder.

    `waiting` are (label, command) of models that the report rests on; `unread` are lines on what could not be read, looked at last.
    """
    blocks: list[Block] = []
    left: list[tuple[str, str]] = []
    constants = False
    for one in explorations:
        room = most - sum(len(block.data) for block in blocks)
        block = next((made for extent in (REPORT, SMALLER) if len((made := _block(one, extent)).data) <= room), None)
        if block is None:
            left.append((one.label, f"replicate explore --artifact {one.key} --folder DIR"))
            continue
        constants = constants or bool(one.facts["constant"])
        blocks.append(block)
    html = filled("explorer", blocks=blocks, left=left, unexplored=waiting, unread=unread, constants=constants, **_code())
    return Section(anchor=ANCHOR, title=TITLE, html=html)


def _code() -> dict[str, str]:
    """Script and style, which stand in the page once."""
    return {kind: (templates_folder() / "explorer" / f"explorer.{kind}").read_text(encoding="utf-8") for kind in ("css", "js")}


def _block(exploration: Exploration, extent: Extent) -> Block:
    latents, items = latents_by_weight(exploration, extent.latents), items_in_turn(exploration, extent.items)
    found = index(exploration, extent, latents=latents, items=items)
    content = {
        "index": found,
        "latents": [latent_page(exploration, one, extent) for one in latents],
        "items": [item_page(exploration, one, extent) for one in items],
    }
    largest = [[*row[:4], row[4].encode("utf-8", "replace").decode(), *row[5:]] for row in found["latentRows"][:LARGEST_SHOWN]]
    return Block(exploration.key, exploration.label, found["command"], packed(content), largest)


def packed(content: Any) -> str:
    """A value as JSON, compressed, in base64; the same bytes for the same value."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode("ascii"), mtime=0)).decode("ascii")
