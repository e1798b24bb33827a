"""The report page: what it may load, which sections it has, what a cell opens to, and that it executes nothing that it shows."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from swept_report import invented

from replication.report.cells import Listing, Report
from replication.report.claims.published import published_claims
from replication.report.render.page import page
from replication.report.render.parts.addresses import address
from replication.report.render.parts.front import LETTERS
from replication.report.render.parts.records import distinct
from replication.report.render.parts.shown_pictures import MOST_CHARACTERS, Shown, shown
from replication.report.render.parts.tables import command_of, facts_of
from replication.report.render.pictures.drawn import draw
from replication.report.render.sections import Section
from replication.report.render.view import MEANING

COLOURS = ("--ink", "--paper", "--muted", "--line", "--accent", "--good", "--warn", "--bad")
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
SECTIONS = ("front", "tables", "pictures", "claims", "audit", "protocols", "provenance", "costs")
HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)> \u202e\u05d0 ' + "w" * 300


class Checker(HTMLParser):
    """Collects addresses, targets and what would run; fails on an element that is closed without being open."""

    VOID = ("meta", "link", "br", "img", "hr", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.scripts = 0
        self.handlers: list[str] = []
        self.sources: list[str] = []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        facts = dict(attrs)
        self.ids += [facts["id"]] if facts.get("id") else []  # type: ignore[list-item]
        self.targets += [str(facts[name]).removeprefix("#") for name in ("href", "popovertarget") if facts.get(name)]
        self.sources += [str(facts["src"])] if "src" in facts else []
        self.handlers += [name for name in facts if name.startswith("on")]
        self.scripts += tag == "script" and "type" not in facts
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, (tag, self.open[-3:])
        self.open.pop()


def full(**changed: Any) -> Report:
    report = invented("table1", rows=3, command="replicate table1 --profile paper --seeds 0,1,2", **changed)
    (table,) = report.tables
    return report.model_copy(update={"tables": (table.model_copy(update={"rules": {"Math": "a margin of 5 points"}}),)})


def test_the_page_loads_nothing_and_has_its_colours_for_light_dark_and_print() -> None:
    text = page([])
    assert f'<meta http-equiv="Content-Security-Policy" content="{POLICY}' in text
    assert all(text.count(f"{name}:") == 3 for name in COLOURS), "one value each for light, dark and print"


def test_every_section_is_there_and_every_link_and_button_leads_somewhere() -> None:
    found = Checker(page([full(), invented("table3")]))
    assert [one for one in found.ids if one in SECTIONS] == list(SECTIONS)
    assert len(set(found.ids)) == len(found.ids) and set(found.targets) <= set(found.ids)
    assert {f"claim-{claim.id}" for claim in published_claims()} <= set(found.ids)


def test_a_section_of_another_room_stands_after_the_claims_as_it_is() -> None:
    text = page([], extra=[Section(anchor="latents", title="Latents <b>", html="<p>an <em>own</em> page</p>")])
    assert text.index('<section id="claims"') < text.index('<section id="latents"') < text.index('<section id="audit"')
    assert "<p>an <em>own</em> page</p>" in text and "Latents &lt;b&gt;" in text and "Latents <b>" not in text


def test_two_sections_of_one_address_are_refused() -> None:
    with pytest.raises(ValueError, match="address audit"):
        page([], extra=[Section(anchor="audit", title="mine", html="")])


def test_without_a_table_the_page_says_what_to_run() -> None:
    text = page([])
    assert "No table was rendered yet" in text and "No picture was drawn yet" in text and "Nothing was computed" in text
    empty = invented("table1", tables=())
    assert "has listings and no cell to judge" in page([empty])
    nothing = invented("table2", seeds=())
    assert "no number of ours" in page([nothing]) and "No picture lies beside" in page([nothing])


def test_a_cell_opens_to_what_is_known_of_it() -> None:
    report = full()
    (table,) = report.tables
    row = table.rows[0]
    facts = [(fact.name, fact.text) for fact in facts_of(report, table, row, row.cells[3])]
    assert [name for name, _ in facts] == [
        *("verdict", "why", "ours", "n", "95 % interval", "95 % interval", "seeds", "artifact", "artifact", "artifact"),
        *("paper", "rule", "command"),
    ]
    told = dict(facts)
    assert told["n"].startswith("183 items, ") and told["artifact"] == "score_benchmark/000000000002"
    assert told["rule"] == "a margin of 5 points" and told["command"] == f"{report.command} --rows {row.name}"
    assert told["95 % interval"].endswith("of the mean over seeds") and len(told["seeds"].split(", ")) == 3
    text = page([report])
    assert text.count('<button class="open"') == 3 * 7 and '<button class="open"' not in page([invented("table1", seeds=())])
    held = json.loads(text.partition('class="facts">')[2].partition("</script>")[0])
    cell = [held["texts"][place] for place in held["cells"][3]]
    assert list(zip(cell[::2], cell[1::2], strict=True)) == facts and len(held["cells"]) == 3 * 7
    assert len(set(held["texts"])) == len(held["texts"]), "each text once"


@pytest.mark.parametrize("experiment", ["ablation-random", "sweep-k"])
def test_a_command_that_takes_no_rows_is_left_as_it_is(experiment: str) -> None:
    report = full().model_copy(update={"experiment": experiment})
    row = report.tables[0].rows[0]
    assert command_of(report, row) == report.command
    control = row.model_copy(update={"origin": "control"})
    assert command_of(full(), control) == report.command


def test_verdicts_are_told_by_letters_and_words_and_not_by_colour_alone() -> None:
    assert LETTERS.keys() == MEANING.keys() and len(set(LETTERS.values())) == len(LETTERS)
    text = page([full()])
    row = re.search(r'role="img" aria-label="([^"]+)"', text)
    assert row is not None and row[1].startswith("Overall ") and row[1].count(",") == 6


def test_hostile_texts_are_shown_and_never_run() -> None:
    report = full(title=HOSTILE, notes=(HOSTILE,), deviations=(HOSTILE,), why_not_comparable=HOSTILE, comparable=False, profile=HOSTILE)
    (table,) = report.tables
    row = table.rows[0].model_copy(update={"label": HOSTILE, "note": HOSTILE, "size": HOSTILE, "group": HOSTILE})
    cells = tuple(cell.model_copy(update={"column": f"{cell.column}{HOSTILE}", "reason": HOSTILE}) for cell in row.cells)
    table = table.model_copy(
        update={
            "title": HOSTILE, "columns": tuple(cell.column for cell in cells), "rows": (row.model_copy(update={"cells": cells}),),
            "notes": (HOSTILE,), "rules": {cells[0].column: HOSTILE},
        }
    )  # fmt: skip
    listing = Listing(name="l", title=HOSTILE, columns=(HOSTILE, "b"), rows=((HOSTILE, "1"),) * 20, notes=(HOSTILE,))
    text = page([report.model_copy(update={"tables": (table,), "listings": (listing,), "command": HOSTILE})])
    found = Checker(text)
    assert found.scripts == 1 and not found.handlers and not found.sources and "&lt;script&gt;alert(1)" in text


def test_pictures_come_into_the_page_as_images_with_their_words(tmp_path: Path) -> None:
    report = full()
    svg, _ = draw(report, tmp_path)
    picture = shown(svg)
    assert picture is not None and "Percent with 95 % intervals" in picture.says
    text = page([report], drawn={address(report): [picture]}, forest=picture)
    assert Checker(text).sources == [picture.source] * 2 and picture.source.startswith("data:image/svg+xml;base64,")
    assert "No picture lies beside" not in text


def test_pictures_for_which_the_page_has_no_room_are_named() -> None:
    large = Shown(name="figure3-seed2.svg", title="t", says="s", source="data:" + "x" * (MOST_CHARACTERS - 100))
    text = page([full()], drawn={address(full()): [large, large.model_copy(update={"name": "b.svg"})]})
    assert text.count('src="data:') == 1 and "Beside the tables alone" in text and "b.svg of" in text


TOO_LARGE = f"<svg xmlns='http://www.w3.org/2000/svg'>{' ' * 700_000}</svg>"


@pytest.mark.parametrize("content", ["", "no svg", "<html><script>1</script></html>", TOO_LARGE])
def test_what_is_no_picture_is_left_out(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.svg").write_text(content)
    assert shown(tmp_path / "a.svg") is None and shown(tmp_path / "none.svg") is None


def test_costs_count_an_artifact_that_two_reports_share_once() -> None:
    one = full()
    reports = [one, invented("table2", provenance=(one.provenance[0].model_copy(update={"gpus": 2}),))]
    assert len(distinct(reports)) == 1 and distinct(reports)[0].gpus == 2
    text = page(reports)
    assert "all, each artifact once</td><td>1</td>" in text and f"{12.34 / 3600:.3f}" in text
