"""Verdicts of cells and of whole reports."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from swept_report import invented

from replication.data_folders import published_folder
from replication.report.cells import Cell, Measurement, Report, Row, Table
from replication.report.published import PublishedError, load_published
from replication.report.statistics import (
    StatisticsError,
    compare_with_one_draw,
)
from replication.report.verdicts.report import IDENTITY, VerdictError, verdict, with_verdicts
from replication.report.verdicts.rules import load_rules, rule_in_words

COLUMNS = ("Overall", "Factuality", "Precise IF", "Math", "Safety", "Focus", "Ties")
RULES = load_rules()
Row_ = dict[str, tuple[float, ...]]


def report_of(rows: dict[str, Row_], *, table: str = "table1", **rest: Any) -> Report:
    """A report whose rows hold the values of each seed, in percent; a column that is left out is a missing cell."""
    published = load_published(table)
    built = []
    for name, values in rows.items():
        cells = []
        for column in COLUMNS:
            ours = None
            if column in values:
                seeds = values[column]
                ours = Measurement(value=sum(seeds) / len(seeds), n=published.n[column], per_seed=seeds)
            cells.append(Cell(column=column, ours=ours, published=published.printed(name, column), verdict="MISSING"))
        built.append(Row(name=name, label=name, origin=published.row(name).origin, cells=tuple(cells)))
    given: dict[str, Any] = {"experiment": table, "title": "T", "profile": "paper", "protocol": "paper", "seeds": (0,), "comparable": True}
    return Report(tables=(Table(name=table, title="T", columns=COLUMNS, rows=tuple(built)),), **(given | rest))


def verdicts_of(report: Report, row: int = 0) -> dict[str, str]:
    return {cell.column: cell.verdict for cell in with_verdicts(report).tables[0].rows[row].cells}


def leaderboard_row() -> Row_:
    board = load_published("leaderboard")
    return {column: (float(board.printed("sarm-4b", column) or "nan"),) for column in COLUMNS}


def test_the_leaderboards_row_matches_the_paper_and_says_that_identity_is_only_claimed() -> None:
    report = with_verdicts(report_of({"sarm-4b": leaderboard_row()}, regime="evaluation"))
    cells = {cell.column: cell for cell in report.tables[0].rows[0].cells}
    assert {cell.verdict for cell in cells.values()} == {"MATCH"}
    assert cells["Safety"].reason.startswith("2 items") and cells["Precise IF"].reason.startswith("0.5 items")
    assert IDENTITY in report.notes


def test_three_items_are_over_the_budget_and_take_overall_with_them() -> None:
    row = leaderboard_row() | {"Safety": (100 * 414 / 450,)}
    found = verdicts_of(report_of({"sarm-4b": row}, regime="evaluation"))
    assert (found["Safety"], found["Overall"], found["Focus"]) == ("DIFFERS", "DIFFERS", "MATCH")


def test_ties_has_its_own_budget() -> None:
    row = leaderboard_row() | {"Ties": (79.0,)}
    assert verdicts_of(report_of({"sarm-4b": row}, regime="evaluation"))["Ties"] == "DIFFERS"


def test_five_points_off_differs() -> None:
    row = {column: (value[0] - 5,) for column, value in leaderboard_row().items()}
    row["Math"] = (100 * 109 / 183,)
    row |= {column: (100 * round(row[column][0] * load_published("table1").n[column] / 100) / load_published("table1").n[column],)
            for column in ("Factuality", "Precise IF", "Safety", "Focus")}  # fmt: skip
    assert set(verdicts_of(report_of({"sarm-4b": row}, regime="evaluation")).values()) == {"DIFFERS"}


def test_a_missing_subset_leaves_overall_open() -> None:
    row = leaderboard_row()
    del row["Focus"]
    found = verdicts_of(report_of({"sarm-4b": row}, regime="evaluation"))
    assert (found["Focus"], found["Overall"]) == ("MISSING", "INCONCLUSIVE")


def test_one_retrained_seed_is_inconclusive_and_says_how_many_would_decide() -> None:
    report = with_verdicts(report_of({"sarm-4b": leaderboard_row()}))
    for cell in report.tables[0].rows[0].cells:
        assert cell.verdict == "INCONCLUSIVE" and "would decide" in cell.reason and "needs 3 seeds" in cell.reason


def test_close_seeds_are_equivalent_wide_ones_consistent_and_far_ones_differ() -> None:
    close = {"Overall": (73.5, 73.7, 73.6, 73.65)}
    wide = {"Overall": (71.8, 75.0, 73.0, 74.8)}
    far = {"Overall": (66.0, 66.3, 66.1, 65.8)}
    for row, expected in ((close, "EQUIVALENT"), (wide, "CONSISTENT"), (far, "DIFFERS")):
        assert verdicts_of(report_of({"sarm-4b": row}))["Overall"] == expected


def test_two_seeds_are_never_consistent() -> None:
    assert verdicts_of(report_of({"sarm-4b": {"Overall": (71.8, 75.0)}}))["Overall"] == "INCONCLUSIVE"


def test_seeds_outside_the_prediction_interval_but_within_reach_of_the_margin_are_inconclusive() -> None:
    found = with_verdicts(report_of({"sarm-4b": {"Overall": (71.8, 72.2, 72.0, 72.1)}})).tables[0].rows[0].cells[0]
    assert found.verdict == "INCONCLUSIVE" and "decide" in found.reason


def test_defective_cells_are_left_out() -> None:
    published = load_published("table3")
    rows = {
        name: {c: (float(published.printed(name, c) or 0),) * 3 for c in COLUMNS} for name in ("layer-28", "dim-24", "layer-10", "k-240")
    }
    report = with_verdicts(report_of(rows, table="table3"))
    found = {row.name: {cell.column for cell in row.cells if cell.verdict == "DEFECTIVE"} for row in report.tables[0].rows}
    assert found == {"layer-28": set(COLUMNS), "dim-24": {"Precise IF"}, "layer-10": {"Overall"}, "k-240": {"Focus"}}


def test_every_measured_cell_of_the_miniature_is_not_comparable() -> None:
    report = report_of({"sarm-4b": leaderboard_row()}, comparable=False, why_not_comparable="other scale")
    result = with_verdicts(report).tables[0].rows[0].cells
    assert {(cell.verdict, cell.reason) for cell in result} == {("NOT COMPARABLE", "other scale")}


def with_items(column: str, n: int) -> dict[str, Cell]:
    """The leaderboard's row over another number of items, judged."""
    report = report_of({"sarm-4b": leaderboard_row()}, regime="evaluation")
    row = report.tables[0].rows[0]
    cells = tuple(
        cell.model_copy(update={"ours": cell.ours.model_copy(update={"n": n})}) if cell.column == column and cell.ours else cell
        for cell in row.cells
    )
    table = report.tables[0].model_copy(update={"rows": (row.model_copy(update={"cells": cells}),)})
    return {cell.column: cell for cell in with_verdicts(report.model_copy(update={"tables": (table,)})).tables[0].rows[0].cells}


def test_more_items_than_the_reference_are_not_comparable() -> None:
    found = with_items("Factuality", 476)["Factuality"]
    assert found.verdict == "NOT COMPARABLE" and "476 items, the reference has 475" in found.reason


@pytest.mark.parametrize(("column", "n", "said"), [("Factuality", 474, "474 of 475"), ("Overall", 1864, "1,864 of 1,865")])
def test_one_row_too_few_is_incomplete_and_gets_no_verdict(column: str, n: int, said: str) -> None:
    found = with_items(column, n)[column]
    assert found.verdict == "MISSING" and said in found.reason


def test_quoted_rows_are_published_only_and_missing_rows_are_missing() -> None:
    report = report_of({"gpt-4.1": {}, "sarm-1b": {}})
    assert set(verdicts_of(report, 0).values()) == {"PUBLISHED ONLY"}
    assert set(verdicts_of(report, 1).values()) == {"MISSING"}


def test_numbers_that_are_no_percentages_keep_the_verdict_that_they_came_with() -> None:
    cell = Cell(column="GPU-hours", ours=Measurement(value=400.0, n=1), published="40", verdict="NOT COMPARABLE", reason="other GPUs")
    row = Row(name="sae-training", label="SAE", origin="paper-ours", cells=(cell,))
    report = report_of({}).model_copy(update={"tables": (Table(name="table4", title="T", columns=("GPU-hours",), rows=(row,)),)})
    assert with_verdicts(report).tables[0].rows[0].cells == (cell,)


def test_a_table_that_the_paper_does_not_have_is_judged_by_no_file() -> None:
    cell = Cell(column="Overall", ours=Measurement(value=60.0, n=1327), verdict="NOT COMPARABLE", reason="the paper prints no such number")
    row = Row(name="sarm-1b", label="SARM-1B", origin="paper-ours", cells=(cell, cell.model_copy(update={"column": "chat"})))
    table = Table(name="table1-rmbench", title="T", columns=("Overall", "chat"), rows=(row,))
    report = report_of({}).model_copy(update={"tables": (table,)})
    assert with_verdicts(report, reference="table1").tables == (table,)


def test_a_sweep_is_judged_by_the_table_that_it_is_part_of() -> None:
    report = report_of({"layer-10": {"Overall": (53.6, 53.5, 53.5)}}, table="table3").model_copy(update={"experiment": "layer"})
    table = report.tables[0].model_copy(update={"name": "layer"})
    report = report.model_copy(update={"tables": (table,)})
    assert with_verdicts(report, reference="table3").tables[0].rows[0].cells[0].verdict == "DEFECTIVE"
    assert with_verdicts(report).tables[0].rows[0].cells[0].verdict == "EQUIVALENT"


def plain(**changed: Any) -> Any:
    given: dict[str, Any] = {"regime": "retrained", "column": "Math", "published": "63.9", "value": 63.9, "n": 183, "rules": RULES}
    return verdict(**(given | changed))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"value": float("nan")}, "no percentage"),
        ({"value": 164.0}, "no percentage"),
        ({"per_seed": (60.0, float("inf"))}, "no percentage"),
        ({"n": 0}, "too few"),
        ({"correct": 184.0}, "no count"),
        ({"value": 63.95, "regime": "evaluation"}, "no count of 183"),
    ],
)
def test_what_cannot_be_judged_gets_no_verdict(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(VerdictError, match=said):
        plain(**changed)


def test_a_column_without_margin_gets_no_verdict() -> None:
    with pytest.raises(PublishedError, match=r"margin\.Helpfulness"):
        plain(column="Helpfulness")


def test_a_margin_of_zero_is_refused_with_file_and_key(tmp_path: Path) -> None:
    shutil.copytree(published_folder(), tmp_path / "published")
    file = tmp_path / "published" / "margins.toml"
    file.write_text(file.read_text(encoding="utf-8").replace("Math = 5", "Math = 0"), encoding="utf-8")
    with pytest.raises(PublishedError, match=r"margins\.toml: margin\.Math") as caught:
        load_rules(tmp_path / "published")
    assert caught.value.exit_code == 2
    with pytest.raises(StatisticsError, match="margin must be positive"):
        compare_with_one_draw((1.0, 2.0), low=1, high=1, margin=0)


def test_the_margins_are_those_that_were_fixed_beforehand() -> None:
    assert dict(RULES.margin) == {"Overall": 1.5, "Factuality": 3, "Precise IF": 5, "Math": 5, "Safety": 3, "Focus": 3, "Ties": 6}
    assert (RULES.noise_budget_items, RULES.ties_budget, RULES.alpha, RULES.prediction_seeds) == (2, 0.5, 0.05, 3)


def test_seeds_that_agree_exactly_are_given_the_spread_that_the_metric_resolves() -> None:
    found = plain(per_seed=(63.93, 63.93, 63.93), value=63.93)
    assert found.verdict == "EQUIVALENT" and (found.high - found.low) > 0
    with pytest.raises(StatisticsError, match="spread is unknown"):
        compare_with_one_draw((1.0, 1.0), low=1, high=1, margin=1)


def test_many_comparisons_weaken_a_single_difference() -> None:
    published = load_published("table3")
    good = tuple(row.name for row in published.rows if row.name not in ("layer-28", "dim-32"))
    rows: dict[str, Row_] = {
        name: {"Ties": tuple(float(published.printed(name, "Ties") or 0) + d for d in (-3.0, 0.0, 3.0))} for name in good
    }
    alone: Row_ = {"Ties": tuple(float(published.printed("k-48", "Ties") or 0) + d for d in (-19.4, -15.3, -17.3))}
    assert verdicts_of(report_of({"k-48": alone}, table="table3"))["Ties"] == "DIFFERS"
    rows["k-48"] = alone
    together = with_verdicts(report_of(rows, table="table3"))
    cell = next(row for row in together.tables[0].rows if row.name == "k-48").cells[-1]
    assert cell.verdict == "INCONCLUSIVE" and "adjusted p" in cell.reason


@pytest.mark.parametrize(
    ("column", "regime", "told"),
    [
        ("Math", "retrained", "within 5 points by two one-sided tests"),
        ("Math", "evaluation", "MATCH up to 2 items apart"),
        ("Ties", "evaluation", "MATCH up to 0.5 points apart"),
        ("Overall", "evaluation", "follows the row's subsets"),
    ],
)
def test_a_rule_is_told_in_words_with_its_numbers(column: str, regime: Any, told: str) -> None:
    assert told in rule_in_words(load_rules(), column, regime)


def test_a_report_says_for_each_judged_column_how_it_is_judged() -> None:
    (table,) = with_verdicts(invented("table2", rows=2)).tables
    assert set(table.rules) == set(table.columns) and "within 1.5 points" in table.rules["Overall"]
    assert with_verdicts(invented("table2", seeds=())).tables[0].rules == {}
