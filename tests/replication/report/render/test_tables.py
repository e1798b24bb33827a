"""Tables as files; golden files are compared whole (SARM_UPDATE_GOLDEN=1 writes them anew)."""

from __future__ import annotations

import csv
import io
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from folders import GOLDEN

from replication.report.cells import Cell, Measurement, Provenance, Report, Row, Table
from replication.report.published import load_published
from replication.report.render.tables import CSV_COLUMNS, Format, as_text, render
from replication.report.render.terminal.printing import plain_text

COLUMNS = ("Overall", "Factuality", "Precise IF", "Math", "Safety", "Focus", "Ties")
SCALE = "The miniature has another backbone and other data than the paper."


def measured(*, column: str, value: float, n: int, error: float | None, published: str | None, **rest: Any) -> Cell:
    ours = Measurement(
        value=value, n=n, correct=value * n / 100, standard_error=error, per_seed=(value,), artifacts=("score_benchmark/0123456789ab",)
    )
    return Cell(column=column, ours=ours, published=published, **rest)


def baseline(name: str) -> Row:
    row, board = load_published("table1").row(name), load_published("leaderboard")
    cells = tuple(
        Cell(column=column, published=row.cells[column], reference=board.printed(name, column), verdict="PUBLISHED ONLY")
        for column in COLUMNS
    )
    return Row(name=name, label=row.label, size=row.size, group=row.group, origin="paper-baseline", cells=cells)


def own_row() -> Row:
    table = load_published("table1")
    verdicts = ("MATCH", "EQUIVALENT", "CONSISTENT", "INCONCLUSIVE", "DIFFERS", "DEFECTIVE")
    reasons = (
        "counts agree",
        "TOST passes",
        "in the interval",
        "5 seeds would decide",
        "5.0 points below the margin",
        "no count of 495 prints so",
    )
    cells = [
        measured(
            column=column, value=float(table.row("sarm-4b").cells[column]) + 0.04, n=table.n[column], error=1.25,
            published=table.row("sarm-4b").cells[column], reference=load_published("leaderboard").printed("sarm-4b", column),
            verdict=verdict, reason=reason,
        )
        for column, verdict, reason in zip(COLUMNS, verdicts, reasons, strict=False)
    ]  # fmt: skip
    missing = Cell(column="Ties", published="79.6", verdict="MISSING", reason="score_benchmark/0123456789ab not yet run: replicate table1")
    return Row(name="sarm-4b", label="SARM-4B", size="4.2B", group="SARM", origin="paper-ours", cells=(*cells, missing))


def control_row() -> Row:
    cells = tuple(
        measured(column=column, value=50.0, n=16, error=None, published=None, verdict="NOT COMPARABLE", reason=SCALE) for column in COLUMNS
    )
    return Row(
        name="shuffled", label="Shuffled & <biased>_100%", group="Controls", origin="control", note="Ours | not the paper's.", cells=cells
    )


@pytest.fixture
def report() -> Report:
    table = Table(
        name="table1", title="Reward models on RewardBench 2", columns=COLUMNS, notes=("Ties has no items.",),
        rows=(baseline("armorm-llama3-8b-v0.1"), baseline("gpt-4.1"), own_row(), control_row()),
    )  # fmt: skip
    provenance = Provenance(
        kind="score_benchmark", key="0123456789ab", label="sarm-4b on RewardBench 2", seconds=12.34, code="abc1234+dirty"
    )
    return Report(
        experiment="table1", title="Reward models on RewardBench 2", profile="mini", protocol="paper", seeds=(0, 1, 2), comparable=False,
        why_not_comparable=SCALE, tables=(table,), deviations=("A latent bias exists, as in the released code.",),
        provenance=(provenance,), notes=("Identity of the weights is claimed, not proven.",),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["md", "tex", "html", "csv"])
def test_the_file_is_the_golden_one(report: Report, name: Format) -> None:
    text, path = as_text(report, name), GOLDEN / f"table1.{name}"
    if os.environ.get("SARM_UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8", newline="\n")
    assert text == path.read_text(encoding="utf-8")


def test_render_writes_each_format(report: Report, tmp_path: Path) -> None:
    paths = render(report, tmp_path / "rendered" / "mini")
    assert [path.name for path in paths] == ["table1.md", "table1.tex", "table1.html", "table1.json", "table1.csv"]
    assert all(path.stat().st_size > 0 for path in paths)


def test_the_json_is_the_report(report: Report) -> None:
    assert Report.model_validate_json(as_text(report, "json")) == report


def test_a_missing_cell_is_a_dash_with_its_reason_and_never_zero(report: Report) -> None:
    text = as_text(report, "md")
    ours = next(line for line in text.splitlines() if line.startswith("| SARM-4B"))
    number = re.search(r"— \((\d+)\) \|$", ours)
    assert number is not None
    assert f"({number.group(1)}) score\\_benchmark/0123456789ab not yet run" in text


def test_the_csv_leaves_a_missing_number_empty(report: Report) -> None:
    rows = list(csv.DictReader(io.StringIO(as_text(report, "csv"))))
    assert len(rows) == 4 * 7 and tuple(rows[0]) == CSV_COLUMNS
    ties = next(row for row in rows if row["row"] == "sarm-4b" and row["column"] == "Ties")
    assert (ties["ours"], ties["n"], ties["verdict"]) == ("", "", "MISSING")


def test_the_html_is_well_formed_and_needs_no_other_file(report: Report) -> None:
    class Checker(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert not {name for name, _ in attrs} & {"src", "href"}
            if tag != "meta":
                self.open.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert self.open.pop() == tag

    checker = Checker()
    text = as_text(report, "html")
    checker.feed(text)
    assert checker.open == [] and "Shuffled &amp; &lt;biased&gt;_100%" in text


def test_the_latex_escapes_what_is_special_and_closes_what_it_opens(report: Report) -> None:
    text = as_text(report, "tex")
    assert r"Shuffled \& \textless{}biased\textgreater{}\_100\%" in text
    assert re.sub(r"\\[{}]", "", text).count("{") == re.sub(r"\\[{}]", "", text).count("}")
    for name in ("table", "tabular", "minipage"):
        assert text.count(f"\\begin{{{name}}}") == text.count(f"\\end{{{name}}}") == 1
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0]
    lines = [line for line in body.splitlines() if line and "multicolumn" not in line]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {9}
    assert text.isascii()


def test_a_row_without_a_cell_shows_it_as_missing(report: Report) -> None:
    row = report.tables[0].rows[2]
    short = row.model_copy(update={"cells": row.cells[:-1]})
    table = report.tables[0].model_copy(update={"rows": (short,)})
    text = as_text(report.model_copy(update={"tables": (table,)}), "md")
    assert "the row has no such cell" in text


def test_several_seeds_show_mean_standard_deviation_and_n() -> None:
    ours = Measurement(value=62.0, n=100, standard_error=5.0, per_seed=(60.0, 62.0, 64.0))
    cells = (
        Cell(column="Math", ours=ours, verdict="NOT COMPARABLE"),
        measured(column="Ties", value=50.0, n=10, error=1.2, published=None, verdict="NOT COMPARABLE"),
    )
    row = Row(name="a", label="A", origin="control", cells=cells)
    table = Table(name="t", title="T", columns=("Math", "Ties"), rows=(row,))
    report = Report(experiment="table1", title="T", profile="mini", protocol="paper", seeds=(0, 1, 2), comparable=True, tables=(table,))
    says = "with (n 3) the mean over 3 seeds ± their standard deviation, elsewhere ± one standard error over items"
    markdown = as_text(report, "md")
    assert "62.0 ± 2.0 (n 3)" in markdown and "50.0 ± 1.2 |" in markdown and f"`ours` is in percent; {says};" in markdown
    assert "± 2.0 (n 3)</span>" in as_text(report, "html") and says in as_text(report, "html")
    assert r"62.0 $\pm$ 2.0 (n 3)" in as_text(report, "tex")
    assert "62.0±2.0" in plain_text(report) and says in " ".join(plain_text(report).split())
