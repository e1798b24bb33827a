"""A report in short: a line or two for each row of a table, the first rows of a listing, a count of the rest with the command for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from rich.text import Text

from replication.report.cells import Listing, Report, Row, Table, Verdict
from replication.report.render.terminal.accuracy_grid import MARKS, STYLES, accuracy_grid
from replication.report.render.terminal.conclusion import conclusion
from replication.report.render.view import DASH, MEANING, OVER_ITEMS, SHORT, TableView, cells_of, table_view
from replication.terminal.fitting import wrapped
from replication.terminal.grid import Column, Piece, laid

SOURCE = "source-"
MOST_ROWS = 14
MOST_LINES = 2
# A listing of so few rows is shown with all its words.
FEW_ROWS = 6
OVERLAP = "-overlap-"


def short_view(report: Report, *, width: int, command: str) -> Sequence[Text]:
    """The lines, none wider than `width`; `command` is what prints the rest."""
    return _Short(report, width, command).lines()


class _Short:
    """The short view of one report, line by line."""

    def __init__(self, report: Report, width: int, command: str) -> None:
        self._report = report
        self._names = {row.name: row.label for table in report.tables for row in table.rows}
        self._width = width
        self._command = command
        self._out: list[Text] = []
        self._told: set[Verdict] = set()
        self._unshown: Counter[str] = Counter()

    def lines(self) -> Sequence[Text]:
        """Head, tables, listings, what was found, what is not shown."""
        report = self._report
        seeds = ", ".join(map(str, report.seeds)) or "none"
        self._say(report.title, "bold")
        self._say(f"profile {report.profile}, protocol {report.protocol}, seeds {seeds}")
        if not report.comparable:
            self._say(f"Not comparable with the paper: {report.why_not_comparable}", "yellow")
        for table in report.tables:
            self._table(table)
        for listing in report.listings:
            if OVERLAP not in listing.name:
                self._listing(listing)
        self._overlaps()
        self._blank()
        for sentence in conclusion(report):
            self._say(sentence, "bold")
        self._rest()
        return self._out

    def _say(self, text: str, style: str = "") -> None:
        self._out += [Text(line, style=style) for line in wrapped(text, self._width)]

    def _blank(self) -> None:
        self._out.append(Text(""))

    def _title(self, title: str) -> None:
        if not self._report.title.startswith(title):
            self._blank()
            self._say(title, "bold")

    def _table(self, table: Table) -> None:
        first = table is self._report.tables[0]
        shown = by_model(table, self._names) if is_by_source(table) else table
        if not first:
            shown = shown.model_copy(update={"rows": tuple(row for row in shown.rows if _says_something(row)) or shown.rows[:1]})
        view = table_view(shown, common=self._report.why_not_comparable)
        self._title(view.title)
        # Below the first table the rows are the same models again.
        found = accuracy_grid(shown, view, width=self._width, groups=first or not any(row.measured for row in view.rows))
        self._out += found.lines
        if found.left_out:
            self._say(f"No room for: {', '.join(found.left_out)}", "dim")
        missing = list(
            dict.fromkeys(cell.reason for row in table.rows for cell in row.cells if cell.verdict == "MISSING" and cell.reason)
        )
        self._legend(view, found.verdicts, marked=found.marked, missing=missing)
        hidden = len(by_model(table, {}).rows if is_by_source(table) else table.rows) - len(shown.rows)
        self._unshown["{} rows without a number"] += hidden
        self._unshown["± of {} columns"] += len(found.without_spread)
        self._unshown["{} reasons of verdicts"] += len(view.footnotes) - len(missing[:1])
        self._unshown["{} rows of the leaderboard"] += sum(any(cell.reference for cell in row.cells) for row in table.rows)
        self._unshown["{} notes"] += len(view.notes) + sum(bool(row.note) for row in table.rows)

    def _legend(self, view: TableView, verdicts: frozenset[Verdict], *, marked: bool, missing: Sequence[str]) -> None:
        """What ± and the verdicts of this table mean, as far as no table above has said it; of what is missing the first reason."""
        if any(cell.spread for row in view.rows for cell in row.cells) and not self._told:
            self._say(f"±: {view.seeded or OVER_ITEMS}", "dim")
        for verdict, meaning in MEANING.items():
            if verdict in verdicts and verdict != "MISSING" and (verdict not in self._told or marked):
                mark = f"{MARKS[verdict]} " if marked else ""
                self._say(f"{mark}{SHORT[verdict]}: {meaning}", STYLES[verdict])
        if "MISSING" in verdicts and "MISSING" not in self._told:
            more = f" (and {len(missing) - 1} more of the kind)" if len(missing) > 1 else ""
            self._say(f"MISSING: {missing[0] if missing else MEANING['MISSING']}{more}", STYLES["MISSING"])
        self._told |= verdicts

    def _listing(self, listing: Listing) -> None:
        said = [row for row in listing.rows if any(not text.startswith(DASH) for text in row[1:])]
        rows = (said or listing.rows)[:MOST_ROWS]
        self._title(listing.title)
        columns = [Column(column, right=column in listing.numeric, breaks=column not in listing.numeric) for column in listing.columns]
        pieces = [[Piece(text) for text in row] for row in rows]
        found = laid(columns, pieces, width=self._width, most=None if len(rows) <= FEW_ROWS else MOST_LINES)
        self._out += found.lines
        if found.left_out:
            self._say(f"No room for: {', '.join(found.left_out)}", "dim")
        self._unshown["{} rows of listings"] += len(listing.rows) - len(rows)
        self._unshown["{} notes"] += len(listing.notes)

    def _overlaps(self) -> None:
        """Near-duplicates as one count for each benchmark: what they are stands in the full view."""
        found = [one for one in self._report.listings if OVERLAP in one.name]
        if found:
            self._blank()
        for listing in found:
            counts = next((dict(zip(listing.columns, row, strict=True)) for row in listing.rows if row[0] == "all"), {})
            near, items = counts.get("near", "?"), counts.get("items", "?")
            self._say(f"{listing.title}: {near} of {items} (near)")
            self._unshown["near-duplicates of {} subsets"] += len(listing.rows) - bool(counts)

    def _rest(self) -> None:
        report = self._report
        self._unshown["{} notes"] += len(report.notes)
        self._unshown["{} deviations from the paper"] += len(report.deviations)
        if report.provenance:
            codes = ", ".join(dict.fromkeys(one.code for one in report.provenance))
            self._say(f"{len(report.provenance)} artifacts, code {codes}", "dim")
        parts = [_counted(text, count) for text, count in self._unshown.items() if count > 0]
        if parts:
            self._say(f"Not shown: {', '.join(parts)}.", "dim")
            self._say(f"All of it: {self._command}", "dim")


def _says_something(row: Row) -> bool:
    return any(cell.ours is not None or cell.published is not None for cell in row.cells)


def is_by_source(table: Table) -> bool:
    """Whether a table has a line for each source of pairs and a column for each model."""
    return bool(table.rows) and all(row.name.startswith(SOURCE) for row in table.rows)


def by_model(table: Table, names: Mapping[str, str]) -> Table:
    """Such a table turned: a line for each model, called by its name, and a column for each source."""
    sources = [row.name.removeprefix(SOURCE) or "(none named)" for row in table.rows]
    rows = []
    for place, model in enumerate(table.columns):
        placed = [cells_of(row, table.columns)[place] for row in table.rows]
        cells = tuple(cell.model_copy(update={"column": source}) for cell, source in zip(placed, sources, strict=True))
        rows.append(Row(name=model, label=names.get(model, model), origin="control", cells=cells))
    return table.model_copy(update={"columns": tuple(sources), "rows": tuple(rows)})


def _counted(text: str, count: int) -> str:
    """`3 notes`, `1 note`."""
    said = text.format(count)
    return said if count != 1 else said.replace("reasons", "reason").replace("rows", "row").replace("notes", "note").replace(
        "deviations", "deviation").replace("columns", "column").replace("subsets", "subset")  # fmt: skip
