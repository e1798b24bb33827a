"""The audit finds what is wrong with the published tables, and nothing that is right."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from folders import ROOT

from replication.data_folders import published_folder
from replication.report.audit.consistency import audit_findings, defective_cells, parameters, summary
from replication.report.audit.findings import Finding
from replication.report.audit.page import audit_page, audit_text
from replication.report.published import load_published


@pytest.fixture(scope="module")
def findings() -> list[Finding]:
    return audit_findings()


def only(findings: list[Finding], *, row: str, column: str, kind: str, table: str) -> Finding:
    found = [one for one in findings if (one.row, one.column, one.kind, one.table) == (row, column, kind, table)]
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize(
    ("row", "column", "kind", "severity", "suspected"),
    [
        ("dim-24", "Precise IF", "granularity", "defect", "36.87"),
        ("dim-24", "Overall", "mean", "doubt", ""),
        ("k-240", "Focus", "granularity", "defect", "77.77"),
        ("k-240", "Overall", "mean", "doubt", ""),
        ("layer-10", "Overall", "mean", "defect", "53.33"),
        ("layer-28", "Safety", "granularity", "defect", "85.55"),
        ("layer-28", "*", "duplicate", "defect", ""),
        ("dim-32", "*", "duplicate", "defect", ""),
        ("k-196", "*", "label", "note", "192"),
        ("layer-28", "Overall", "trend", "note", ""),
        ("dim-16", "Overall", "trend", "note", ""),
    ],
)
def test_each_known_defect_of_table_3_is_found(
    *, findings: list[Finding], row: str, column: str, kind: str, severity: str, suspected: str
) -> None:
    found = only(findings, row=row, column=column, kind=kind, table="table3")
    assert (found.severity, found.suspected_value) == (severity, suspected)


def test_there_are_no_other_defects(findings: list[Finding]) -> None:
    defects = {(one.table, one.row, one.column) for one in findings if one.severity == "defect"}
    assert defects == {
        ("table3", "layer-10", "Overall"),
        ("table3", "layer-28", "Safety"),
        ("table3", "layer-28", "*"),
        ("table3", "dim-32", "*"),
        ("table3", "dim-24", "Precise IF"),
        ("table3", "k-240", "Focus"),
    }


def test_table_3_is_truncated(findings: list[Finding]) -> None:
    rule = only(findings, row="*", column="*", kind="rounding-rule", table="table3")
    assert rule.severity == "note" and rule.detail.startswith("28 of 75 accuracy cells are whole counts only if truncated, 0 only")


def test_partial_credit_is_noted_where_and_only_where_it_is_needed(findings: list[Finding]) -> None:
    found = {(one.row, one.column) for one in findings if one.kind == "partial-credit" and one.table in ("table1", "table2")}
    assert found == {
        ("gemini-2.5-pro", "Math"), ("gemini-2.5-pro", "Safety"), ("gemini-2.5-pro", "Focus"),
        ("claude-sonnet-4", "Factuality"), ("claude-sonnet-4", "Precise IF"),
        ("gpt-4.1", "Precise IF"), ("gpt-4.1", "Math"), ("gpt-4.1", "Focus"),
        ("sarm-2b", "Factuality"), ("sarm-4b", "Factuality"), ("random-init", "Precise IF"), ("random-init", "Focus"),
    }  # fmt: skip
    halves = {(one.row, one.column) for one in findings if one.kind == "partial-credit" and one.table == "table3"}
    assert halves == {
        ("layer-7", "Math"), ("dim-12", "Safety"), ("layer-21", "Factuality"), ("k-196", "Safety"), ("k-240", "Factuality"),
        ("k-240", "Math"),
    }  # fmt: skip


def test_the_one_cell_of_table_2_that_may_be_truncated_says_so(findings: list[Finding]) -> None:
    assert "437 truncated" in only(findings, row="random-init", column="Focus", kind="partial-credit", table="table2").detail


def test_best_of_all_models_is_held_against_the_leaderboard(findings: list[Finding]) -> None:
    claim = only(findings, row="sarm-4b", column="Overall", kind="superlative", table="table1")
    nine = [row.model for row in load_published("leaderboard").rows if row.group.startswith("Above SARM-4B")]
    assert len(nine) == 9
    assert claim.severity == "doubt" and all(model in claim.detail for model in nine)


def test_the_two_baselines_that_were_rounded_twice_are_found(findings: list[Finding]) -> None:
    found = {(one.row, one.suspected_value) for one in findings if one.kind == "double-rounding"}
    assert found == {("skywork-llama-8b-v0.2", "71.7"), ("gemini-2.5-pro", "67.7")}


def test_every_copied_cell_is_a_rounding_of_the_capture(findings: list[Finding]) -> None:
    assert not [one for one in findings if one.kind == "leaderboard"]


def test_the_own_row_is_not_that_of_the_released_checkpoint(findings: list[Finding]) -> None:
    found = only(findings, row="sarm-4b", column="*", kind="own-model", table="table1")
    assert "7 of 7" in found.detail and "Factuality 1, Precise IF 0.5, Math 1, Safety 2, Focus 2" in found.detail


def test_the_size_of_sarm_1b_leaves_out_its_sae(findings: list[Finding]) -> None:
    assert [(one.row, one.printed) for one in findings if one.kind == "size"] == [("sarm-1b", "1.5B")]


def test_a_name_that_means_two_models_is_noted(findings: list[Finding]) -> None:
    assert [one.row for one in findings if one.kind == "identity"] == ["gemini-2.5-pro"]


def test_the_errata_on_file_are_what_the_audit_finds() -> None:
    for name in ("table1", "table2", "table3"):
        table = load_published(name)
        on_file = {(one.row, one.column) for one in table.errata if one.kind in ("granularity", "mean", "duplicate")}
        expanded = {(row, one) for row, column in on_file for one in (table.columns if column == "*" else (column,))}
        assert expanded == set(defective_cells(table))


def test_the_suspected_values_on_file_are_those_that_the_audit_infers(findings: list[Finding]) -> None:
    inferred = {(one.table, one.row, one.column): one.suspected_value for one in findings if one.suspected_value}
    for name in ("table1", "table2", "table3"):
        for erratum in load_published(name).errata:
            if erratum.suspected_value:
                assert inferred[name, erratum.row, erratum.column] == erratum.suspected_value


def changed(tmp_path: Path, *, table: str, old: str, new: str) -> list[Finding]:
    folder = tmp_path / "published"
    shutil.copytree(published_folder(), folder)
    file = folder / f"{table}.toml"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    return audit_findings(folder)


def test_a_wrong_digit_in_a_good_cell_is_found(tmp_path: Path) -> None:
    found = changed(tmp_path, table="table2", old='Factuality = "68.0"', new='Factuality = "88.0"')
    assert only(found, row="token-level", column="Overall", kind="mean", table="table2").severity == "defect"


def test_a_text_that_disagrees_with_the_table_is_found(tmp_path: Path) -> None:
    found = changed(tmp_path, table="table2", old='printed = "68.4"', new='printed = "68.5"')
    assert only(found, row="random-init", column="Overall", kind="statement", table="table2").severity == "defect"


def test_a_baseline_that_was_copied_wrongly_is_found(tmp_path: Path) -> None:
    found = changed(tmp_path, table="table1", old='Factuality = "65.7"', new='Factuality = "65.8"')
    assert only(found, row="armorm-llama3-8b-v0.1", column="Factuality", kind="leaderboard", table="table1").severity == "doubt"


def test_rows_of_one_model_that_disagree_are_found(tmp_path: Path) -> None:
    found = changed(tmp_path, table="table1", old='Overall = "62.5"', new='Overall = "62.6"')
    assert {one.kind for one in found if one.row == "sarm-1b" and one.severity == "defect"} >= {"link"}


def test_a_bold_cell_that_is_not_the_best_is_found(tmp_path: Path) -> None:
    found = changed(tmp_path, table="table2", old='row = "token-level"\ncolumn = "Safety"', new='row = "sarm-4b"\ncolumn = "Safety"')
    assert only(found, row="sarm-4b", column="Safety", kind="superlative", table="table2").severity == "defect"


def test_parameters_are_summed() -> None:
    assert float(parameters("(1.5+0.15) B") or 0) == pytest.approx(1.65)
    assert parameters("–") is None


def test_the_summary_counts_what_was_checked(findings: list[Finding]) -> None:
    counted = summary(findings)
    assert (counted.tables, counted.rows, counted.countable_cells, counted.means, counted.defects) == (3, 33, 165, 33, 6)


def test_the_page_in_the_documentation_is_the_generated_one() -> None:
    assert (ROOT / "docs" / "audit.md").read_text(encoding="utf-8") == audit_page()


def test_the_plain_text_keeps_to_its_columns_and_puts_defects_first(findings: list[Finding]) -> None:
    lines = audit_text(findings, width=80).splitlines()
    assert max(len(line) for line in lines) <= 80
    assert lines[0].startswith("DEFECT")
