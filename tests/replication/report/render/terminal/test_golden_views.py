"""What a user sees of each experiment at 80, 100 and 160 columns, held whole (SARM_UPDATE_GOLDEN=1 writes the files anew).

The reports are those of `fixtures/make_report_fixtures.py`: their numbers are invented, no training made them.
"""

from __future__ import annotations

import os
import re

import pytest
from folders import FIXTURES, GOLDEN
from rich.cells import cell_len

from replication.report.cells import Report
from replication.report.render.terminal.printing import plain_text
from replication.report.render.terminal.short_names import NAMES
from replication.settings.experiments import EXPERIMENTS

WIDTHS = (80, 100, 160)
NAMES_OF_REPORTS = ("table1", "table1-judged", "table2", "table3", "table4", "figure3", "features", "related")
LINES = {"table1": 65, "table1-judged": 65}


def report(name: str) -> Report:
    return Report.model_validate_json((FIXTURES / "reports" / f"{name}.json").read_text(encoding="utf-8"))


def parts(text: str) -> set[str]:
    """Words, hyphenated ones in their parts: between these lines may break."""
    return {part for word in text.split() for part in re.split(r"(?<=\w[-/_])(?=\w)", word)}


def test_every_experiment_has_its_report() -> None:
    assert {name.partition("-")[0] for name in NAMES_OF_REPORTS} == set(EXPERIMENTS)
    assert all("invented" in report(name).title for name in NAMES_OF_REPORTS)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", NAMES_OF_REPORTS)
def test_the_short_view_is_the_golden_one(name: str, width: int) -> None:
    text = plain_text(report(name), width=width, command="replicate EXPERIMENT --full")
    path = GOLDEN / "terminal" / f"{name}-{width}.txt"
    if os.environ.get("SARM_UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8", newline="\n")
    assert text == path.read_text(encoding="utf-8")
    assert max(map(cell_len, text.splitlines())) <= width
    assert name not in LINES or len(text.splitlines()) <= LINES[name]


@pytest.mark.parametrize("name", ["table1", "figure3"])
def test_the_whole_view_is_the_golden_one(name: str) -> None:
    text = plain_text(report(name), width=80, full=True)
    path = GOLDEN / "terminal" / f"{name}-80-full.txt"
    if os.environ.get("SARM_UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8", newline="\n")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [60, *WIDTHS])
@pytest.mark.parametrize("name", NAMES_OF_REPORTS)
def test_the_whole_view_keeps_to_its_width_and_holds_every_word(name: str, width: int) -> None:
    one = report(name)
    text = plain_text(one, width=width, full=True)
    assert max(map(cell_len, text.splitlines())) <= width
    shown = parts(text)
    for table in one.tables:
        for told in (*table.columns, *table.notes, *(f"{row.label} {row.size} {row.group} {row.note}" for row in table.rows)):
            assert parts(told) <= shown, told
    for listing in one.listings:
        for told in (*listing.columns, *listing.notes, *(text for row in listing.rows for text in row)):
            assert parts(told) <= shown, told
    for told in (one.title, one.why_not_comparable, *one.notes, *one.deviations):
        assert parts(told) <= shown, told


def test_names_of_models_stand_whole_or_shortened_as_the_list_says() -> None:
    """The old view printed `ArmoRM-Lla` and `Factualit`; each model now has one line, with a name of the list or its own."""
    for width in WIDTHS:
        lines = plain_text(report("table1"), width=width).splitlines()
        first = {line.split("  ")[0].strip() for line in lines}
        for row in report("table1").tables[0].rows:
            whole = f"{row.label} {row.size}".strip()
            assert {whole, NAMES.get(row.label, row.label)} & first, (width, row.label)


def test_a_shorter_name_stands_for_one_model_and_for_one_that_there_is() -> None:
    labels = {row.label for name in NAMES_OF_REPORTS for table in report(name).tables for row in table.rows}
    assert not NAMES.keys() - labels, "names that no table has any more"
    shown = [NAMES.get(label, label) for label in labels if label != "SparseRM: top-K directions, margin loss"]
    assert len(set(shown)) == len(shown)


@pytest.mark.parametrize("name", NAMES_OF_REPORTS)
def test_what_is_left_out_is_counted_with_the_command_that_shows_it(name: str) -> None:
    text = plain_text(report(name), command=f"replicate {name} --full")
    assert "Not shown: " in text and f"All of it: replicate {name} --full" in text
    notes = re.search(r"(\d+) notes?", " ".join(text.split()))
    one = report(name)
    held = len(one.notes) + sum(len(listing.notes) for listing in one.listings if "-overlap-" not in listing.name)
    held += sum(len(table.notes) + sum(bool(row.note) for row in table.rows) for table in one.tables)
    assert notes is not None and int(notes.group(1)) == held
