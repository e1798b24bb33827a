"""Diffs against the paper, the leaderboard, the released row and another file, their formats and exit codes."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from replication.report.cells import Cell, Circumstance, Input, Listing, Measurement, Report, Row, Table
from replication.report.published import load_published
from replication.report.verdicts.diff import (
    SUBSETS,
    Diff,
    ResultsError,
    against_report,
    diff_of,
    exit_code,
    load_results,
    machine_error,
)
from replication.report.verdicts.diff_formats import diff_text
from replication.report.verdicts.rules import load_rules

BOARD = {"Factuality": 0.6874, "Focus": 0.9556, "Math": 0.6448, "Precise IF": 0.4281, "Safety": 0.9178, "Ties": 0.7939}
OFFICIAL = {**BOARD, "model": "Schrieffer/Llama-SARM-4B", "model_type": "Seq. Classifier", "chat_template": "tokenizer"}


def official(tmp_path: Path, **changed: Any) -> Path:
    path = tmp_path / "Llama-SARM-4B.json"
    path.write_text(json.dumps(OFFICIAL | changed), encoding="utf-8")
    return path


def mini(
    *values: float, seeds: tuple[int, ...] = (0,), profile: str = "mini", columns: tuple[str, ...] = ("Math", "Safety")
) -> Report:
    cells = tuple(
        Cell(column=name, ours=Measurement(value=value, n=16, correct=value * 16 / 100), verdict="NOT COMPARABLE")
        for name, value in zip(columns, values, strict=True)
    )
    row = Row(name="sarm-1b", label="SARM-1B", origin="paper-ours", cells=cells)
    table = Table(name="table1", title="T", columns=columns, rows=(row,))
    return Report(
        experiment="table1",
        title="T",
        profile=profile,
        protocol="paper",
        seeds=seeds,
        comparable=False,
        why_not_comparable="scale",
        tables=(table,),
    )


def saved(tmp_path: Path, report: Report) -> str:
    path = tmp_path / "reference.json"
    path.write_text(report.model_dump_json(), encoding="utf-8")
    return str(path)


def test_the_leaderboards_row_in_the_official_shape_matches_the_paper(tmp_path: Path) -> None:
    found = diff_of(load_results(official(tmp_path)), "paper")
    assert {row.verdict for row in found.rows} == {"MATCH"} and len(found.rows) == 7
    assert exit_code(found) == 0
    assert "claimed, not proven" in diff_text(found)


@pytest.mark.parametrize("against", ["leaderboard", "release"])
def test_it_matches_its_own_references(tmp_path: Path, against: str) -> None:
    found = diff_of(load_results(official(tmp_path)), against)
    assert {row.verdict for row in found.rows} == {"MATCH"}
    assert all(row.reason.startswith("0 items") for row in found.rows if row.column not in ("Overall", "Ties"))


def test_a_row_that_is_five_points_off_differs_with_code_3(tmp_path: Path) -> None:
    table = load_published("table1")
    off = {name: round((BOARD[name] - 0.05) * table.n[name]) / table.n[name] for name in SUBSETS}
    found = diff_of(load_results(official(tmp_path, **off)), "paper")
    assert {row.verdict for row in found.rows} == {"DIFFERS"} and exit_code(found) == 3


def test_one_retrained_seed_is_inconclusive_and_only_fails_if_asked_to(tmp_path: Path) -> None:
    report = load_results(official(tmp_path)).model_copy(update={"regime": "retrained"})
    found = diff_of(report, "paper")
    assert {row.verdict for row in found.rows} == {"INCONCLUSIVE"}
    assert (exit_code(found), exit_code(found, ("inconclusive",))) == (0, 4)


def test_what_is_missing_comes_before_what_differs() -> None:
    report = mini(50.0, 50.0)
    found = diff_of(report, "paper")
    rows = tuple(row.model_copy(update={"verdict": verdict}) for row, verdict in zip(found.rows, ("DIFFERS", "MISSING"), strict=True))
    assert exit_code(found.model_copy(update={"rows": rows})) == 5
    assert exit_code(found.model_copy(update={"rows": rows}), ("differs",)) == 3


def test_a_miniature_is_not_comparable_with_the_paper_but_with_another_miniature(tmp_path: Path) -> None:
    assert {row.verdict for row in diff_of(mini(50.0, 50.0), "paper").rows} == {"NOT COMPARABLE"}
    found = diff_of(mini(50.0, 31.25), saved(tmp_path, mini(50.0, 93.75)))
    assert found.rows[0].reason == "identical" and [row.verdict for row in found.rows] == ["MATCH", "DIFFERS"]


@pytest.mark.parametrize(("column", "key"), [("Safety", "machine_dispersion"), ("Ties", "ties_machine_dispersion")])
def test_the_budget_between_machines_is_z_times_the_root_of_twice_the_dispersion(tmp_path: Path, column: str, key: str) -> None:
    """By hand: of two cells 0.99^(1/2), two-sided, is z = 2.8062; errors of 11.588 and 6.052 points are 1.4112 of 16 items in the mean."""
    dispersion, columns = getattr(load_rules(), key), ("Math", column)
    row = diff_of(mini(50.0, 31.25, columns=columns), saved(tmp_path, mini(50.0, 93.75, columns=columns))).rows[1]
    budget = 2.8062 * math.sqrt(2 * dispersion) * 1.4112
    assert row.reason == f"10 items apart, budget {budget:.3g} ({key} {dispersion:g}, z 2.81)"


def test_more_cells_make_every_budget_wider_and_the_same_weights_keep_two_items(tmp_path: Path) -> None:
    one = mini(50.0, 62.5)
    many = one.model_copy(update={"tables": tuple(one.tables[0].model_copy(update={"name": f"t{index}"}) for index in range(40))})
    ours = many.model_copy(update={"tables": (mini(50.0, 93.75).tables[0].model_copy(update={"name": "t0"}), *many.tables[1:])})
    reason = diff_of(ours, saved(tmp_path, many)).rows[1].reason
    assert reason.endswith("z 3.83)")
    same_weights = {"regime": "evaluation"}
    found = diff_of(one.model_copy(update=same_weights), saved(tmp_path, mini(50.0, 81.25).model_copy(update=same_weights)))
    assert (found.rows[1].verdict, found.rows[1].reason) == ("DIFFERS", "3 items apart, budget 2")


def test_the_mean_of_seeds_may_be_as_far_apart_as_one_run_over_the_root_of_their_number() -> None:
    one = Measurement(value=60.0, n=400, standard_error=2.4)
    assert machine_error(one.model_copy(update={"per_seed": (58.0, 60.0, 62.0, 60.0)})) == machine_error(one) / 2 == 1.2


def test_of_a_hundred_tables_from_another_machine_at_most_about_one_raises_an_alarm(tmp_path: Path) -> None:
    """Two machines drawn with just the stated dispersion, 40 cells, 1,000 times: some 11 alarms (rounding adds to 10)."""
    rules, draw, n = load_rules(), random.Random(1), 400

    def run() -> Report:
        deviation = math.sqrt(rules.machine_dispersion * 0.6 * 0.4 / n)
        hits = [round(n * (0.6 + draw.gauss(0, deviation))) for _ in range(40)]
        cells = tuple(
            Cell(column=f"c{place}", ours=Measurement(value=100 * hit / n, n=n, correct=hit), verdict="NOT COMPARABLE")
            for place, hit in enumerate(hits)
        )
        whole = mini(50.0, 50.0)
        row = whole.tables[0].rows[0].model_copy(update={"cells": cells})
        table = whole.tables[0].model_copy(update={"columns": tuple(cell.column for cell in cells), "rows": (row,)})
        return whole.model_copy(update={"tables": (table,)})

    judged = [against_report(run(), run(), rules=rules) for _ in range(1000)]
    alarms = sum(any(cell.verdict == "DIFFERS" for cell in one.tables[0].rows[0].cells) for one in judged)
    assert 3 <= alarms <= 25


@pytest.mark.parametrize("other", [{"profile": "paper"}, {"seeds": (1,)}, {"regime": "evaluation"}])
def test_another_scale_or_other_seeds_are_not_comparable_and_do_not_pass(tmp_path: Path, other: dict[str, Any]) -> None:
    found = diff_of(mini(50.0, 50.0), saved(tmp_path, mini(50.0, 50.0).model_copy(update=other)))
    assert {row.verdict for row in found.rows} == {"NOT COMPARABLE"} and len(found.rows) == 2
    assert found.no_verdict.startswith("nothing could be compared: the reference ") and exit_code(found) == exit_code(found, ()) == 6


@pytest.mark.parametrize("against", ["paper", "leaderboard"])
def test_an_experiment_without_cells_does_not_pass_as_one_without_differences(against: str) -> None:
    found = diff_of(mini(50.0, 50.0).model_copy(update={"tables": ()}), against)
    assert found.no_verdict.startswith("nothing could be compared: no number of ours") and exit_code(found, ()) == 6


def test_a_row_of_which_nothing_was_compared_does_not_pass_beside_others_that_were(tmp_path: Path) -> None:
    whole = mini(50.0, 50.0)
    ours = whole.tables[0].rows[0].model_copy(update={"name": "sarm-2b"})
    both = whole.model_copy(update={"tables": (whole.tables[0].model_copy(update={"rows": (*whole.tables[0].rows, ours)}),)})
    assert exit_code(diff_of(both, saved(tmp_path, whole))) == 0
    alone = diff_of(both, saved(tmp_path, whole), row="sarm-2b")
    assert alone.no_verdict == "nothing could be compared: the reference has no such number" and exit_code(alone) == 6


def test_fewer_items_than_the_reference_are_missing_and_more_are_not_comparable(tmp_path: Path) -> None:
    def of(items: int) -> Report:
        cell = Cell(column="Math", ours=Measurement(value=50.0, n=items, correct=items / 2), verdict="NOT COMPARABLE")
        whole = mini(50.0, 50.0)
        row = whole.tables[0].rows[0]
        return whole.model_copy(
            update={"tables": (whole.tables[0].model_copy(update={"rows": (row.model_copy(update={"cells": (cell, row.cells[1])}),)}),)}
        )

    fewer, more = diff_of(of(14), saved(tmp_path, of(16))), diff_of(of(18), saved(tmp_path, of(16)))
    assert (fewer.rows[0].verdict, fewer.rows[0].reason, exit_code(fewer)) == ("MISSING", "14 items, the reference has 16", 5)
    assert [row.verdict for row in more.rows] == ["NOT COMPARABLE", "MATCH"] and exit_code(more) == 0


def test_what_only_the_reference_has_is_missing_unless_another_row_is_asked_for(tmp_path: Path) -> None:
    whole = mini(50.0, 50.0)
    second = whole.tables[0].rows[0].model_copy(update={"name": "sarm-2b", "label": "SARM-2B"})
    longer = whole.model_copy(update={"tables": (whole.tables[0].model_copy(update={"rows": (*whole.tables[0].rows, second)}),)})
    found = diff_of(whole, saved(tmp_path, longer))
    assert [(row.row, row.column, row.verdict) for row in found.rows[2:]] == [
        ("sarm-2b", "Math", "MISSING"), ("sarm-2b", "Safety", "MISSING"),
    ]  # fmt: skip
    assert exit_code(found) == 5 and exit_code(diff_of(whole, saved(tmp_path, longer), row="sarm-1b")) == 0
    narrower = mini(50.0, columns=("Math",))
    lacking = diff_of(narrower, saved(tmp_path, whole))
    assert [(row.column, row.verdict) for row in lacking.rows] == [("Math", "MATCH"), ("Safety", "MISSING")]
    assert exit_code(diff_of(longer, saved(tmp_path, whole))) == 0


@pytest.mark.parametrize(
    ("text", "said", "code"),
    [
        ("{", "not JSON", 6),
        (json.dumps(OFFICIAL)[:-1] + ', "Math": 0.9}', "the key 'Math' stands twice", 6),
        ('{"schema_version": "1.0", "schema_version": "1.1"}', "the key 'schema_version' stands twice", 6),
        ('{"tables": [{"name": "a", "name": "b"}]}', "the key 'name' stands twice", 6),
        ("[]", "one JSON object", 6),
        ("{}", "neither results", 6),
        (json.dumps(OFFICIAL | {"Math": "high"}), "Math: 'high' is no fraction", 2),
        (json.dumps(OFFICIAL | {"Math": 64.48}), "Math: 64.48 is no fraction", 2),
        (json.dumps({key: value for key, value in OFFICIAL.items() if key != "Ties"}), "Ties: not there", 5),
        (json.dumps(OFFICIAL | {"model": "me/mine"}), "no row of Table 1", 2),
        (json.dumps({"tables": [], "experiment": 3}), "experiment", 6),
        (json.dumps({"schema_version": "2.0"}), "schema_version '2.0'", 6),
        (json.dumps({"schema_version": 1}), "schema_version 1", 6),
    ],
)
def test_a_bad_results_file_gives_one_clear_line_and_its_code(tmp_path: Path, text: str, said: str, code: int) -> None:
    path = tmp_path / "results.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ResultsError, match=said) as caught:
        load_results(path)
    assert "results.json" in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.exit_code == code


@pytest.mark.parametrize("value", ["62.5", True, None])
def test_text_where_a_number_belongs_is_refused_with_its_place(tmp_path: Path, value: Any) -> None:
    content = mini(50.0, 62.5).model_dump(mode="json")
    content["tables"][0]["rows"][0]["cells"][1]["ours"]["value"] = value
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ResultsError, match=r"tables\.0\.rows\.0\.cells\.1\.ours\.value") as caught:
        load_results(path)
    assert caught.value.exit_code == 2


def data(revision: str = "a" * 40, sha256: str = "") -> tuple[Input, ...]:
    return (Input(id="rewardbench2", kind="benchmark", revision=revision, sha256=sha256),)


@pytest.mark.parametrize("other", [data(revision="b" * 40), data(sha256="c" * 64)])
def test_results_on_another_revision_of_the_data_are_never_judged(tmp_path: Path, other: tuple[Input, ...]) -> None:
    reference = mini(50.0, 50.0).model_copy(update={"inputs": other})
    ours = mini(50.0, 50.0).model_copy(update={"inputs": data(sha256="d" * 64)})
    with pytest.raises(ResultsError, match="no verdict") as caught:
        diff_of(ours, saved(tmp_path, reference))
    assert caught.value.exit_code == 6


def test_a_model_of_ours_in_the_official_shape_is_never_taken_for_the_published_weights(tmp_path: Path) -> None:
    report = load_results(official(tmp_path, model="replicate-sarm/mini/sarm-4b"))
    assert {row.verdict for row in diff_of(report, "paper").rows} == {"NOT COMPARABLE"}
    assert load_results(official(tmp_path, model="replicate-sarm/paper/sarm-4b")).regime == "retrained"


def test_one_row_alone_can_be_compared(tmp_path: Path) -> None:
    report = load_results(official(tmp_path))
    assert len(diff_of(report, "paper", row="sarm-4b").rows) == 7
    with pytest.raises(ResultsError, match="no such row"):
        diff_of(report, "paper", row="sarm-9b")


def test_a_row_alone_is_judged_as_in_the_whole_table(tmp_path: Path) -> None:
    whole, other = mini(50.0, 56.25), mini(50.0, 75.0)

    def wide(report: Report) -> Report:
        row = report.tables[0].rows[0]
        rows = tuple(row.model_copy(update={"name": f"sarm-{place}b"}) for place in range(1, 41))
        return report.model_copy(update={"tables": (report.tables[0].model_copy(update={"rows": rows}),)})

    found, alone = (diff_of(wide(whole), saved(tmp_path, wide(other)), row=row) for row in ("", "sarm-1b"))
    assert alone.rows == found.rows[:2] and alone.rows[1].reason.endswith("z 3.83)")


def models(*rows: tuple[str, ...]) -> Listing:
    return Listing(name="models", title="T", columns=("model", "blocks", "active at most"), rows=rows)


def against_models(tmp_path: Path, ours: tuple[Listing, ...], theirs: tuple[Listing, ...], **other: Any) -> Diff:
    path = tmp_path / "theirs.json"
    path.write_text(mini(50.0, 75.0, **other).model_copy(update={"listings": theirs}).model_dump_json())
    return diff_of(mini(50.0, 75.0).model_copy(update={"listings": ours}), str(path))


def test_a_model_that_is_another_one_differs_however_well_it_does(tmp_path: Path) -> None:
    ours = models(("sarm-1b", "4", "6"), ("sarm-9b", "1", "1"))
    same = against_models(tmp_path, (ours,), (models(("sarm-1b", "4", "6"), ("sarm-9b", "2", "2")),))
    # A row that our tables do not show, as after --row, is not compared.
    assert exit_code(same) == 0 and [(one.row, one.column, one.verdict) for one in same.rows[2:]] == [
        ("sarm-1b", "blocks", "MATCH"), ("sarm-1b", "active at most", "MATCH"),
    ]  # fmt: skip
    other = against_models(tmp_path, (ours,), (models(("sarm-1b", "5", "6")),))
    assert exit_code(other) == 3 and other.count("DIFFERS") == 1
    assert other.worst_first()[0].reason == "another model: blocks is 4, the reference has 5"


def test_a_fact_that_one_of_two_models_has_no_more_differs(tmp_path: Path) -> None:
    found = against_models(tmp_path, (models(("sarm-1b", "4", "—")),), (models(("sarm-1b", "4", "6")),))
    assert exit_code(found) == 3 and "active at most is —, the reference has 6" in diff_text(found, "md")


def test_what_one_run_did_not_note_and_what_other_runs_are_is_not_compared(tmp_path: Path) -> None:
    ours = models(("sarm-1b", "4", "6"))
    for theirs in ((), (models(("sarm-2b", "5", "5")),)):
        found = against_models(tmp_path, (ours,), theirs)
        assert len(found.rows) == 2
        assert found.notes == ("what these models are (blocks, parameters, ...) is noted in one run alone: sarm-1b",)
        assert "noted in one run" in diff_text(found, "text")
    for mine, theirs, seeds in (((ours,), (models(("sarm-1b", "5", "5")),), (1,)), ((), (), (0,))):
        found = against_models(tmp_path, mine, theirs, seeds=seeds)
        assert len(found.rows) == 2 and found.notes == ()


def under(*told: tuple[str, tuple[str, ...]]) -> Report:
    found = tuple(Circumstance(what=what, values=values) for what, values in told)
    return mini(50.0, 75.0).model_copy(update={"circumstances": found})


def test_a_diff_tells_on_what_other_machine_or_with_what_other_resources_the_same_was_computed(tmp_path: Path) -> None:
    ours = under(("processor", ("A, AVX2",)), ("threads", ("1", "2")), ("train_sae: tokens of a pass", ("2048",)))
    theirs = under(("processor", ("A, AVX2",)), ("threads", ("1",)), ("train_sae: tokens of a pass", ("8192",)))
    told = "threads 1 and 2 (the reference: 1); train_sae: tokens of a pass 2048 (the reference: 8192)"
    found = diff_of(ours, saved(tmp_path, theirs))
    assert [note.partition(": ")[2] for note in found.notes] == [told] and exit_code(found) == 0
    # What one of both does not say is no difference, nor is anything of another computation.
    assert diff_of(ours, saved(tmp_path, under())).notes == ()
    assert diff_of(ours, saved(tmp_path, theirs.model_copy(update={"seeds": (1,)}))).notes == ()


def test_a_results_file_may_begin_with_the_mark_of_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    plain, marked = (path.write_text(mark + json.dumps(OFFICIAL), encoding="utf-8") and load_results(path) for mark in ("", "\ufeff"))
    assert plain == marked


def test_a_results_file_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    (tmp_path / "round.json").symlink_to(tmp_path / "round.json")
    with pytest.raises(ResultsError, match=r"round\.json: cannot be read") as caught:
        load_results(tmp_path / "round.json")
    assert caught.value.exit_code == 2


def test_a_missing_results_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="no such file"):
        load_results(tmp_path / "none.json")


@pytest.fixture
def differing(tmp_path: Path) -> Diff:
    return diff_of(mini(50.0, 31.25), saved(tmp_path, mini(50.0, 93.75)))


def test_junit_has_a_case_for_each_cell(differing: Diff) -> None:
    suite = ElementTree.fromstring(diff_text(differing, "junit"))
    assert (suite.get("tests"), suite.get("failures"), len(suite.findall("testcase"))) == ("2", "1", 2)
    assert suite.find("testcase/failure") is not None


def test_github_gives_at_most_ten_annotations_the_worst_first(differing: Diff) -> None:
    open_ = differing.rows[0].model_copy(update={"verdict": "INCONCLUSIVE", "reason": "50 %, see"})
    lines = diff_text(differing.model_copy(update={"rows": (*(open_,) * 14, differing.rows[1])}), "github").splitlines()
    commands = [line for line in lines if line.startswith("::")]
    assert len(commands) == 10 and commands[0].startswith("::error title=DIFFERS%3A SARM-1B%2C Safety::")
    assert commands[1].endswith("50 %25, see")
    assert "5 more are in the summary" in lines


def test_json_reads_back_and_markdown_escapes(differing: Diff) -> None:
    assert Diff.model_validate_json(diff_text(differing, "json")) == differing
    assert "| SARM-1B | Safety | 31.2500 | 93.7500 | DIFFERS |" in diff_text(differing, "md")


def test_text_keeps_to_eighty_columns(tmp_path: Path) -> None:
    report = load_results(official(tmp_path)).model_copy(update={"regime": "retrained"})
    assert max(len(line) for line in diff_text(diff_of(report, "paper")).splitlines()) <= 80
