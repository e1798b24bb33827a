"""The transcribed numbers against the paper's text and the captured leaderboard."""

from __future__ import annotations

import csv
import json
import os
import re
from fractions import Fraction
from pathlib import Path

import pytest
from folders import DATA, ROOT

from replication import data_folders
from replication.report.published import PublishedError, countable_columns, load_published, published_names

METRICS = ("Overall", "Factuality", "Precise IF", "Math", "Safety", "Focus", "Ties")
LEADERBOARD = "rewardbench2_leaderboard_2025-12-22.csv"


def folder(variable: str, default: str) -> Path:
    path = Path(os.environ.get(variable, str(ROOT.parent / "shared" / default)))
    if not path.is_dir():
        pytest.skip(f"no folder {path}: set {variable} to the sources to compare the transcription with them")
    return path


def captured(name: str) -> Path:
    path = DATA / "reference" / name
    if not path.is_file():
        pytest.skip(f"no file {path}: set SARM_DATA to the sources to compare the transcription with them")
    return path


def paper_text() -> str:
    files = sorted(folder("SARM_PAPER", "paper").glob("*.txt"))
    text = next((found for found in (file.read_text(encoding="utf-8") for file in files) if "Table 3: Ablation" in found), None)
    if text is None:
        pytest.skip("the folder of the paper holds no file with its tables")
    return text


def printed_table(caption: str) -> list[list[str]]:
    """The rows of a table in the paper's text, as fields with their mark-up; the lines that only name a block are left out."""
    body = paper_text().split(caption, 1)[1].split("\n\n")[1]
    lines = [line.split("\t") for line in body.splitlines()[1:]]
    return [line for line in lines if len(line) == 9 and line[1].strip()]


def plain(field: str) -> str:
    return re.sub(r"</?[bi]>", "", field).strip()


CAPTIONS = [("table1", "Table 1: Perf", 15), ("table2", "Table 2: Abl", 3), ("table3", "Table 3: Abl", 15)]


@pytest.mark.parametrize(("name", "caption", "rows"), CAPTIONS)
def test_every_cell_is_printed_as_in_the_paper(name: str, caption: str, rows: int) -> None:
    lines = [[plain(field) for field in line] for line in printed_table(caption)]
    table = load_published(name)
    ours = [[row.label, row.size, *(row.cells[column] for column in table.columns)] for row in table.rows]
    assert table.columns == METRICS
    assert len(lines) == rows
    assert ours == lines


@pytest.mark.parametrize(("name", "caption"), [("table1", "Table 1: Perf"), ("table2", "Table 2: Abl")])
def test_every_bold_cell_is_on_file_as_a_superlative(name: str, caption: str) -> None:
    table = load_published(name)
    bold = {(plain(line[0]), METRICS[place]) for line in printed_table(caption) for place, field in enumerate(line[2:]) if "<b>" in field}
    ours = {(table.row(one.row).label, one.column) for one in table.superlatives if one.place == "bold type"}
    assert ours == bold


def test_the_gpu_hours_are_those_of_the_paper() -> None:
    text = paper_text().split("Table 4: Summary", 1)[1].split("Table 3:", 1)[0]
    for row in load_published("table4").rows:
        assert f"{row.label}\t{row.cells['GPU-hours']}" in text


@pytest.mark.parametrize("name", ["table1", "table2"])
def test_every_statement_of_the_text_is_there(name: str) -> None:
    text = paper_text()
    running = "\n".join(line for line in text.splitlines() if "\t" not in line)
    for statement in load_published(name).statements:
        assert statement.printed in running, statement


def test_the_leaderboard_rows_are_those_of_the_capture() -> None:
    with captured(LEADERBOARD).open(encoding="utf-8", newline="") as stream:
        board = {row["model"]: row for row in csv.DictReader(stream)}
    keys = dict(zip(METRICS, ("overall", "factuality", "precise_if", "math", "safety", "focus", "ties"), strict=True))
    for row in load_published("leaderboard").rows:
        for column, printed in row.cells.items():
            assert Fraction(printed) == Fraction(board[row.model][keys[column]]), (row.name, column)
            assert len(printed.partition(".")[2]) == 4


def test_the_captured_best_is_the_best_of_the_capture() -> None:
    with captured(LEADERBOARD).open(encoding="utf-8", newline="") as stream:
        best = max(csv.DictReader(stream), key=lambda row: float(row["overall"]))
    assert best["model"] == load_published("leaderboard").row("skywork-reward-v2-llama-3.1-8b").model


def test_every_baseline_of_table_1_has_a_row_on_the_leaderboard() -> None:
    board = load_published("leaderboard")
    baselines = [row for row in load_published("table1").rows if row.origin == "paper-baseline"]
    assert len(baselines) == 12
    for row in baselines:
        assert board.row(row.name).model == row.model


def test_figure_3_is_computed_from_the_rewards_that_the_authors_left() -> None:
    sets = json.loads(captured("figure3_authors_rewards.json").read_text(encoding="utf-8"))["sets"]
    for name, key in (("safety", "safety_chosen"), ("complement", "complement")):
        items, cells = sets[key], load_published("figure3").row(name).cells
        shifts = [item["reward_steered"] - item["reward"] for item in items]
        active = [shift for item, shift in zip(items, shifts, strict=True) if item["active"]]
        means = {
            "Items": len(items),
            "Active": len(active),
            "Mean reward": sum(item["reward"] for item in items) / len(items),
            "Mean reward steered": sum(item["reward_steered"] for item in items) / len(items),
            "Mean shift": sum(shifts) / len(items),
            "Mean shift active": sum(active) / len(active),
        }
        assert {column: float(printed) for column, printed in cells.items()} == pytest.approx(means, abs=0.00051)


def test_fractions_are_shown_as_percent_with_all_digits() -> None:
    assert load_published("leaderboard").printed("sarm-4b", "Overall") == "73.79"
    assert load_published("leaderboard").printed("sarm-4b", "Nonsense") is None


def test_ties_and_overall_are_no_counts() -> None:
    table = load_published("table1")
    assert countable_columns(table) == ("Factuality", "Precise IF", "Math", "Safety", "Focus")
    assert table.counts("sarm-4b", "Ties") == ()
    assert table.counts("sarm-4b", "Safety") == (411,)


GOOD = """schema = 1
name = "t"
title = "T"
place = "Table 9"
source = "us"
unit = "percent"
decimals = 1
rounding = "half-even"
overall_is_mean = false
columns = ["Math"]
[n]
Math = 183
[[row]]
name = "a"
label = "A"
origin = "paper-ours"
cells = { Math = "60.1" }
"""


def test_a_good_file_loads(tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text(GOOD, encoding="utf-8")
    assert load_published("t", tmp_path).printed("a", "Math") == "60.1"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"60.1"', '"6o.1"', r"row a, Math: '6o.1' is not a number"),
        ('"60.1"', '"60.12"', r"row a, Math: '60.12' has not 1 decimals"),
        ('"60.1"', "60.1", r"row a.cells.Math: Input should be a valid string"),
        ("Math = 183", "Math = 0", r"n.Math: 0 is not positive"),
        ("Math = 183", "Maths = 183", r"n.Maths: unknown column"),
        ("cells = { Math", "cells = { Maths", r"Maths: unknown column \(nearest: Math\)"),
        ('origin = "paper-ours"', 'origin = "paper-ours"\ncolour = "red"', r"row a.colour: Extra inputs"),
        ('unit = "percent"', 'unit = "per cent"', r"unit: Input should be"),
        ('name = "t"', 'name = "t', r"t.toml: .*line"),
        ("schema = 1", "schema = 2", r"schema: Input should be 1"),
    ],
)
def test_a_wrong_file_gives_one_line_with_file_and_key(tmp_path: Path, old: str, new: str, said: str) -> None:
    (tmp_path / "t.toml").write_text(GOOD.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(PublishedError, match=said) as caught:
        load_published("t", tmp_path)
    assert "t.toml" in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_an_unknown_table_or_row_names_the_nearest() -> None:
    with pytest.raises(PublishedError, match="nearest: table1"):
        load_published("tabel1")
    with pytest.raises(PublishedError, match="nearest: sarm-4b"):
        load_published("table1").row("sarm4b")


def test_the_folders_of_a_wheel_come_before_those_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "replication"
    checkout, wheel = tmp_path / "tables" / "published", package / "_data" / "tables" / "published"
    checkout.mkdir(parents=True)
    monkeypatch.setattr(data_folders, "PACKAGE", package)
    assert data_folders.published_folder() == checkout
    wheel.mkdir(parents=True)
    assert data_folders.published_folder() == wheel
    with pytest.raises(data_folders.DataFolderError, match="slurm"):
        data_folders.slurm_folder()


def test_all_tables_load() -> None:
    assert set(published_names()) >= {"table1", "table2", "table3", "table4", "figure3", "leaderboard", "released"}
    for name in published_names():
        assert load_published(name).name == name
