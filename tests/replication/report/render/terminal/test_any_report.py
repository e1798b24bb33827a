"""Views of reports with any names, any numbers of columns and texts that mean harm: no line too wide, no word cut, nothing that steers."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from replication.report.cells import Cell, Listing, Measurement, Report, Row, Table, Verdict
from replication.report.render.terminal.accuracy_grid import MARKS
from replication.report.render.terminal.printing import on_terminal, plain_text
from replication.terminal.console import console_for

VERDICTS: tuple[Verdict, ...] = ("MATCH", "EQUIVALENT", "CONSISTENT", "INCONCLUSIVE", "DIFFERS", "DEFECTIVE", "NOT COMPARABLE", "MISSING")
# Words that no other text of a view has, so that each part that is shown can be looked up.
WORD = st.from_regex(r"[A-Z][a-z]{1,9}q", fullmatch=True)
NAME = st.lists(WORD, min_size=1, max_size=4).flatmap(lambda words: st.sampled_from([" ".join(words), "-".join(words)]))
HOSTILE = (
    "[bold red]markup[/] <script>alert(1)</script>", "\x1b[2J\x1b]0;title\x07", "\u202eevil\u2066", "x" * 5000, "a\u0301" * 400,
    "日本語" * 90, "{{ 7 * 7 }} %s {0}", "line\nend\r\x00", "שלום " * 60, "",
)  # fmt: skip


def cell(column: str, value: float, verdict: Verdict) -> Cell:
    ours = None if verdict == "MISSING" else Measurement(value=value, n=100, standard_error=value / 50)
    return Cell(column=column, ours=ours, published=f"{value:.1f}", verdict=verdict, reason="why")


@st.composite
def reports(draw: st.DrawFn) -> Report:
    columns = draw(st.lists(NAME, min_size=1, max_size=9, unique=True))
    labels = draw(st.lists(NAME, min_size=1, max_size=6, unique=True))
    rows = []
    for number, label in enumerate(labels):
        cells = tuple(cell(column, draw(st.floats(0, 100)), draw(st.sampled_from(VERDICTS))) for column in columns)
        if draw(st.booleans()):
            cells = tuple(one.model_copy(update={"ours": None, "verdict": "PUBLISHED ONLY", "reason": ""}) for one in cells)
        rows.append(Row(name=f"r{number}", label=label, group=draw(st.sampled_from(["", "One", "Two"])), origin="paper-ours", cells=cells))
    listing = Listing(name="l", title="A listing", columns=tuple(columns), rows=(tuple(labels[0] for _ in columns),))
    return report_of(Table(name="t", title="A table", columns=tuple(columns), rows=tuple(rows)), listing)


def report_of(table: Table, *listings: Listing) -> Report:
    head = {"experiment": "table1", "title": "A report", "profile": "p", "protocol": "paper", "seeds": (0,), "comparable": True}
    return Report(**head, tables=(table,), listings=listings)


@settings(max_examples=60, deadline=None)
@given(reports(), st.integers(40, 200), st.booleans())
def test_no_line_is_too_wide_and_no_word_of_a_name_is_cut(report: Report, width: int, full: bool) -> None:
    text = plain_text(report, width=width, command="replicate table1 --full", full=full)
    assert max(map(cell_len, text.splitlines())) <= width
    table = report.tables[0]
    known = {word for name in (*table.columns, *(row.label for row in table.rows)) for word in re.split(r"[ -]", name)}
    pieces = re.findall(r"[A-Z][a-z]+q?(?=…)|[A-Z][a-z]*q\b", text)
    assert pieces and set(pieces) <= known, set(pieces) - known


@settings(max_examples=40, deadline=None)
@given(reports(), st.integers(60, 200))
def test_every_row_of_ours_has_its_verdict_and_every_column_is_shown_or_named(report: Report, width: int) -> None:
    text = plain_text(report, width=width, command="c")
    joined = re.sub(r"[\s-]+", " ", text)
    table = report.tables[0]
    for row in table.rows:
        verdicts = {one.verdict for one in row.cells} - {"MISSING", "PUBLISHED ONLY"}
        if len(verdicts) > 1:
            assert "by cell" in text and all(MARKS[one] in text for one in verdicts)
    for column in table.columns:
        assert all(word in joined for word in re.split(r"[ -]", column))


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("width", [40, 80, 160])
@pytest.mark.parametrize("text", HOSTILE)
def test_text_that_means_harm_is_shown_as_text(text: str, width: int, full: bool) -> None:
    row = Row(name="r", label=text, group=text, note=text, size=text, origin="paper-ours", cells=(cell(text, 1.0, "DIFFERS"),))
    listing = Listing(name="l", title=text, columns=(text, "b"), rows=((text, text),) * 3, notes=(text,))
    report = report_of(Table(name="t", title=text, columns=(text,), rows=(row,), notes=(text,)), listing)
    report = report.model_copy(update={"title": text, "notes": (text,), "comparable": False, "why_not_comparable": text})
    shown = plain_text(report, width=width, command="c", full=full)
    assert max(map(cell_len, shown.splitlines())) <= width
    assert all(line.isprintable() for line in shown.splitlines())
    assert len(shown) < 100_000


def test_markup_is_never_taken_for_a_style() -> None:
    row = Row(name="r", label="[red]R[/red]", origin="paper-ours", cells=(cell("[b]c[/b]", 1.0, "MATCH"),))
    text = plain_text(report_of(Table(name="t", title="T", columns=("[b]c[/b]",), rows=(row,))), command="c")
    assert "[red]R[/red]" in text and "[b]c[/b]" in text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("full", [False, True])
def test_colour_only_on_a_terminal_and_never_with_no_color(monkeypatch: pytest.MonkeyPatch, full: bool) -> None:
    row = Row(name="r", label="R", origin="paper-ours", cells=(cell("c", 1.0, "DIFFERS"),))
    report = report_of(Table(name="t", title="T", columns=("c",), rows=(row,)))
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    written = {}
    for name, stream, no_color in (("terminal", Terminal(), ""), ("quiet", Terminal(), "1"), ("pipe", io.StringIO(), "")):
        monkeypatch.setenv("NO_COLOR", no_color)
        console = console_for(stream)
        console.print(on_terminal(report, width=console.width, command="c", full=full))
        written[name] = stream.getvalue()
    assert "\x1b[" in written["terminal"] and "\x1b" not in written["quiet"] + written["pipe"]


@pytest.mark.parametrize(("columns", "width"), [("", 80), ("132", 132), ("7", 40), ("many", 80), ("9999999", 80)])
def test_a_pipe_has_eighty_columns_or_as_many_as_columns_says(monkeypatch: pytest.MonkeyPatch, columns: str, width: int) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert console_for(io.StringIO()).width == width
