"""The miniature's measurement: its faults fit the tree, its statistics are right, and it says what it does not find."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from folders import ROOT
from tiny_profile import PROFILE

from replication.report.cells import Cell, Measurement, Report, Row, Table
from replication.report.verdicts.rules import load_rules
from replication.settings.profile_files import load_profile


def script(name: str) -> Any:
    return importlib.import_module(name)


def table1(**subsets: float) -> Report:
    cells = tuple(
        Cell(column=name, ours=Measurement(value=value, n=400, correct=4 * value), verdict="NOT COMPARABLE")
        for name, value in subsets.items()
    )
    row = Row(name="sarm-1b", label="SARM-1B", origin="paper-ours", cells=cells)
    one = Table(name="table1", title="T", columns=tuple(subsets), rows=(row,))
    return Report(
        experiment="table1", title="T", profile="mini", protocol="paper", seeds=(0,), comparable=False, why_not_comparable="scale",
        tables=(one,),
    )  # fmt: skip


def test_every_faults_text_occurs_exactly_once_and_the_faulty_file_compiles() -> None:
    faults = script("miniature_faults")
    assert len(faults.FAULTS) == 8
    for fault in faults.FAULTS:
        assert bool(fault.edits) != fault.damages
        for edit in fault.edits:
            text = faults.patched((ROOT / edit.file).read_text(encoding="utf-8"), edit)
            assert edit.new in text
            compile(text, edit.file, "exec")


def test_what_a_faults_store_takes_from_the_base_was_made_without_the_faulty_file() -> None:
    """Backbones apart: a fault in the form of conversations would act on them too, and is planted after them."""
    faults = script("miniature_faults")
    code = "import importlib, json, sys; importlib.import_module(sys.argv[1]); print(json.dumps(sorted(sys.modules)))"
    jobs = {"train_sae": "sarm.jobs.train.sae", "train_reward": "sarm.jobs.train.reward"}
    loaded = {
        kind: json.loads(subprocess.run([sys.executable, "-c", code, job], cwd=ROOT, check=True, capture_output=True, text=True).stdout)
        for kind, job in jobs.items()
    }
    assert "sarm.data.tokens" in loaded["train_sae"] and "sarm.reward.losses" in loaded["train_reward"]
    for fault in faults.FAULTS:
        for edit in fault.edits:
            module = edit.file.removesuffix(".py").replace("/", ".")
            assert not [kind for kind in fault.before if module in loaded.get(kind, ())], (fault.name, edit.file)


@pytest.mark.parametrize("text", ["", "fault, fault"])
def test_a_fault_whose_text_is_not_there_just_once_stops_it(text: str) -> None:
    faults = script("miniature_faults")
    with pytest.raises(SystemExit, match=r"x\.py: a fault's text occurs \d times"):
        faults.patched(text, faults.Edit("x.py", "fault", "right"))


def test_the_copy_alone_is_faulty(tmp_path: Path) -> None:
    faults = script("miniature_faults")
    fault = faults.FAULTS[0]
    before = (ROOT / fault.edits[0].file).read_bytes()
    tree = faults.faulty_tree(fault, tmp_path / "tree")
    assert (tree / fault.edits[0].file).read_bytes() != before == (ROOT / fault.edits[0].file).read_bytes()


def test_only_a_diff_that_differs_or_a_checksum_counts_as_found() -> None:
    faults = script("miniature_faults")
    ends = [(3, "diff"), (6, "run"), (0, "diff"), (1, "run"), (3, "run"), (5, "diff"), (0, faults.MADE_AGAIN)]
    text, holds = faults.table([faults.Result(f"{code} {where}", code, where, 0, 0, 0.0, "") for code, where in ends])
    assert list(holds.values()) == [True, True, False, False, False, False, True]
    assert text.count("NOT FOUND") == 4
    assert faults.in_budgets("5 items apart, budget 2.5 (machine_dispersion 0.3, z 3.5)") == 2.0


def test_the_dispersion_between_two_runs_is_half_their_squared_difference_in_errors() -> None:
    machines = script("miniature_machines")
    base = table1(Factuality=50.0, Math=50.0, Overall=50.0, Ties=50.0)
    # One standard error of 400 items at about one half is 2.5 points; Overall is a mean and not counted, Ties counts apart.
    found = machines.squares(table1(Factuality=52.5, Math=50.0, Overall=90.0, Ties=55.0), base)
    assert found["machine_dispersion"] == [pytest.approx(0.5, rel=5e-3), 0]
    assert found["ties_machine_dispersion"] == [pytest.approx(2.0, rel=2e-2)]
    # The lower tenth of chi square with 10 degrees of freedom is 4.865.
    assert machines.upper_bound([1.0] * 10) == pytest.approx(10 / 4.865, rel=1e-3)


def test_the_variance_of_seeds_is_told_in_the_same_measure_and_apart_for_ties() -> None:
    """Of 400 items at 50 % an error is 2.5 points; seeds 47.5, 50, 52.5 have variance 6.25, and 45, 50, 55 four times that."""
    machines, base = script("miniature_machines"), table1(Factuality=50.0, Overall=50.0, Ties=50.0)
    seeds = {"Factuality": (47.5, 50.0, 52.5), "Overall": (0.0, 50.0, 100.0), "Ties": (45.0, 50.0, 55.0)}
    (row,) = base.tables[0].rows
    cells = tuple(
        cell.model_copy(update={"ours": cell.ours.model_copy(update={"per_seed": seeds[cell.column]})}) for cell in row.cells if cell.ours
    )
    table = base.tables[0].model_copy(update={"rows": (row.model_copy(update={"cells": cells}),)})
    text = machines.dispersions_of_seeds({3: base.model_copy(update={"tables": (table,)})})
    assert "| 3 | 1.00 (1 cells) | 4.00 (1 cells) |" in text and "| all | 1.00 (1 cells) | 4.00 (1 cells) |" in text


def test_a_half_chosen_beforehand_gives_the_dispersion_and_the_others_are_judged_by_it() -> None:
    machines, base = script("miniature_machines"), table1(Factuality=50.0, Math=50.0)
    near, far = table1(Factuality=51.0, Math=50.0), table1(Factuality=70.0, Math=50.0)
    fitted = machines.FITTED[0]
    found = [machines.apart(name, report, base) for name, report in (("same", base), (fitted, near), ("b", far))]
    assert set(machines.FITTED) < set(machines.variants()) and 2 * len(machines.FITTED) < len(machines.variants())
    assert machines.estimate_and_check([], base) == ("No variant was run.", {})
    for too_few in (found[:1], found[2:]):
        assert "nothing to estimate" in machines.estimate_and_check(too_few, base)[0]
    text, holds = machines.estimate_and_check(found, base)
    assert "over 2 cells of 1 variants" in text and "Of the 1 other variants 1 have a DIFFERS" in text and list(holds.values()) == [False]
    assert "| same | identical to the base: left out |" in text
    twice = [*found, machines.apart("far again", far, base)]
    assert "| far again | identical to b: left out |" in machines.estimate_and_check(twice, base)[0]
    assert machines.alarms_under(load_rules().model_copy(update={"machine_dispersion": 20.0}), far, base) == 0


def test_the_variant_of_another_micro_batch_splits_a_batch() -> None:
    """2,048 tokens were more than a batch has: the same models to the last bit, and no check of anything."""
    mini = load_profile("mini", environment={})
    (setting,) = script("miniature_machines").variants()["micro-batch"].sets
    tokens = mini.reward["batch_pairs"] * mini.preferences.tokens_per_pair
    assert 2 * int(setting.rpartition("=")[2]) <= tokens


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_variant_of_threads_has_as_many_also_where_cores_are_fewer(count: int) -> None:
    """Without a word to MKL four threads were two on two cores: the same models to the last bit as those of two."""
    variant = script("miniature_machines").variants()[f"OMP_NUM_THREADS={count}"]
    command = [sys.executable, "-c", "import torch; print(torch.get_num_threads())"]
    told = subprocess.run(command, env={**os.environ, **variant.environment}, check=True, capture_output=True, text=True)
    assert int(told.stdout) == count


def test_a_subset_beyond_its_bound_is_told() -> None:
    machines, base = script("miniature_machines"), table1(Factuality=50.0, Overall=50.0)
    text, holds = machines.table([machines.apart("a", table1(Factuality=56.5, Overall=50.0), base)])
    assert list(holds.values()) == [False] and "+6.5" in text and "| NO |" in text


def test_levels_count_the_subsets_inside_and_ties_above_random() -> None:
    tables = script("miniature_tables")
    good = dict.fromkeys((*tables.BEST_OF_4, "Overall", "Ties", tables.PAIRS), (60.0, 62.0))
    models = {model: dict(good) for model in (tables.SCALAR, *tables.SARMS)}
    models["sarm-1b"] |= {"Math": (30.0, 30.0), "Focus": (95.0, 95.0)}
    models["sarm-2b"] |= {"Ties": (20.0, 20.0)}
    text, holds = tables.levels({0: models}, {0: tables.Simulated(5.0, 0.1)})
    assert [name.rpartition(" ")[2] for name, kept in holds.items() if not kept] == ["sarm-1b", "sarm-2b"]
    assert "3 of 5, NO" in text and "+15.0, NO" in text


def test_spread_names_what_is_too_wide_or_was_not_measured() -> None:
    tables = script("miniature_tables")
    near = dict.fromkeys(tables.MOST_DEVIATION, (50.0, 51.0))
    models = {tables.SCALAR: near, "sarm-1b": {**near, "Overall": (50.0, 56.0)}, "sarm-4b": near}
    text, holds = tables.spread({0: models})
    assert [name.rpartition(" ")[2] for name, kept in holds.items() if not kept] == ["sarm-1b", "sarm-2b"]
    assert "4.2 [1.9, 135.4] NO" in text and text.count("not measured") == 7
    assert tables.spread({0: {tables.SCALAR: {"Overall": (50.0,)}}}) == ("One seed has no spread.", {})


def test_the_interval_of_a_deviation_is_that_of_the_tables() -> None:
    """Five values with deviation 1: chi-square with 4 degrees of freedom has 0.4844 and 11.1433, so 0.599 to 2.874."""
    tables = script("miniature_tables")
    values = [value / math.sqrt(2.5) for value in (-2.0, -1.0, 0.0, 1.0, 2.0)]
    assert tables.deviation_interval(values) == pytest.approx((0.599, 2.874), abs=1e-3)


def test_random_rewards_get_the_ties_score_that_their_items_imply(tmp_path: Path) -> None:
    """One ref prompt with one wrong answer: right in half of the draws; its tied prompt has two of three right: 1 in 3 is accurate."""
    tables = script("miniature_tables")
    turn = [{"role": "user", "content": "which?"}]
    rows = [
        {"id": "ref:0", "prompt": turn, "chosen": ["a"], "rejected": ["b"], "subset": "Ties"},
        {"id": "tied:0", "prompt": turn, "chosen": ["a", "c"], "rejected": ["b"], "subset": "Ties"},
    ]
    (tmp_path / "rewardbench2.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = tables.random_ties(tmp_path, draws=4000)
    # 0.3/2 + 0.3/3 + 0.2 x P(gap > spread) and what both prompts allow: between 25 and 25 + 0.4/3 x 100 points.
    assert 25 < found.value < 38.4 and 0 < found.standard_error < 1


def test_a_prompt_in_two_files_is_counted_once(tmp_path: Path) -> None:
    runs = script("miniature_runs")

    def row(text: str) -> str:
        item = {"id": "1", "prompt": [{"role": "user", "content": text}], "chosen": ["a"], "rejected": ["b"]}
        return json.dumps(item) + "\n"

    texts = {"train": "same own own", "evaluation": "same", "rewardbench2": "other", "rmbench": "same"}
    for name, words in texts.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(row(word) for word in words.split()), encoding="utf-8")
    assert runs.shared_prompts(tmp_path) == 1


def test_only_goes_with_one_question(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        script("miniature").parse_options(["--only", "GPU"])
    assert "--only goes with one of" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        script("miniature").parse_options(["--keep", "a", "--results", "b"])
    assert "--keep goes with what is trained" in capsys.readouterr().err


def test_only_takes_a_part_of_a_name_for_faults_and_variants_alike() -> None:
    chosen = script("miniature_runs").chosen
    names = ["CAPABILITY=default", "CAPABILITY=avx2", "THREADS=2"]
    assert chosen(names, [], "variant") == names and chosen(iter(names), ["2"], "variant") == names[1:]
    with pytest.raises(SystemExit, match=r"--only avx512: in no variant's name \(there are: CAPABILITY=default; "):
        chosen(names, ["avx2", "avx512"], "variant")


def elsewhere(folder: Path, name: str, seed: int, models: dict[str, float]) -> None:
    rows = tuple(
        Row(
            name=model, label=model, origin="paper-ours",
            cells=(Cell(column="Overall", ours=Measurement(value=value, n=400), verdict="NOT COMPARABLE"),),
        )
        for model, value in models.items()
    )  # fmt: skip
    report = Report(
        experiment=name, title="T", profile="mini", protocol="paper", seeds=(seed,), comparable=False, why_not_comparable="scale",
        tables=(Table(name=name, title="T", columns=("Overall",), rows=rows),),
    )  # fmt: skip
    path = folder / f"{name}-{seed}-{'-'.join(models)}" / f"{name}.results.json"
    path.parent.mkdir(parents=True)
    path.write_text(report.model_dump_json())


def read_only(folder: Path) -> Any:
    return script("miniature_runs").Run(store=folder / "store", out=folder, profile="mini", read=True)


def test_results_of_elsewhere_are_put_together_by_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = script("miniature_runs")
    monkeypatch.setattr(runs, "load_results", lambda path: Report.model_validate_json(path.read_text()))
    monkeypatch.setattr(runs.Run, "refuse_other_jobs", lambda run, files, seeds: None)
    surface = {"length": 25.0, "bag-of-words": 24.0}
    for seed in (0, 1):
        elsewhere(tmp_path, "table2", seed, {"scalar-trunc": 80.0 + seed, **surface})
        elsewhere(tmp_path, "table1", seed, {"sarm-1b": 60.0 + seed, "sarm-2b": 70.0 + seed, **surface})
    elsewhere(tmp_path, "table1", 0, {"sarm-4b": 75.0, **surface})
    with pytest.raises(SystemExit, match=r"no results of sarm-4b: seed 1$"):
        runs.read_elsewhere(read_only(tmp_path), [0, 1])
    elsewhere(tmp_path, "table1", 1, {"sarm-4b": 76.0, **surface})
    found = runs.read_elsewhere(read_only(tmp_path), [1, 0])
    assert {model: columns["Overall"] for model, columns in found.items()} == {
        "scalar-trunc": (81.0, 80.0), "sarm-1b": (61.0, 60.0), "sarm-2b": (71.0, 70.0), "sarm-4b": (76.0, 75.0),
        "length": (25.0,), "bag-of-words": (24.0,),
    }  # fmt: skip
    # The same model and seed with another number: which machine is to be believed?
    elsewhere(tmp_path / "again", "table1", 1, {"sarm-4b": 77.0})
    with pytest.raises(SystemExit, match=r"sarm-4b, Overall, seed 1 is 7.*, another file says"):
        runs.read_elsewhere(read_only(tmp_path), [0, 1])


def test_results_of_other_jobs_than_todays_are_refused(tmp_path: Path) -> None:
    """The committed reference is of today's jobs; a size that differs gives other ones."""
    shutil.copytree(ROOT / "reference" / "mini", tmp_path / "mini")
    run = read_only(tmp_path)
    assert run.whole_table("table1", [0]).experiment == "table1"
    with pytest.raises(SystemExit, match=r"score_benchmark/[0-9a-f]{12} and \d+ more are no jobs of today's table1"):
        dataclasses.replace(run, sets=("reward.epochs=1",)).whole_table("table1", [0])
    with pytest.raises(SystemExit, match=r"0 files table2\.results\.json"):
        run.whole_table("table2", [0])
    path = tmp_path / "mini" / "table1.results.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "rewards": []}))
    with pytest.raises(SystemExit, match="names no job"):
        run.whole_table("table1", [0])


def test_what_was_not_run_is_told_and_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machines, faults = script("miniature_machines"), script("miniature_faults")
    base = ROOT / "reference" / "mini" / "table1.results.json"
    shutil.copytree(base.parent, tmp_path / "machines" / "micro-batch" / "tables" / "mini")
    texts, holds = machines.measure(read_only(tmp_path), tmp_path / "machines", 0, base=base)
    assert texts[-1].startswith("Not run: ATEN_CPU_CAPABILITY=default; ") and "micro-batch" not in texts[-1]
    assert [name for name in holds if "micro-batch" in name] == list(holds) and all(holds.values())
    text, holds = faults.measure(read_only(tmp_path), tmp_path / "faults", 0, base=base, only=["sign", "shuffled"])
    assert "Not run: a sign in the pair loss; items shuffled" in text and holds == {}
    monkeypatch.setattr(faults, "miniature_folder", lambda store: store)
    monkeypatch.setattr(faults, "median_length", lambda folder: 40)
    assert "Not run: truncation" in faults.measure(read_only(tmp_path), tmp_path / "faults", 0, base=base, only=["truncation"])[0]
    # A fault whose results are there is judged by today's diff: the reference itself is as good as no fault at all.
    shutil.copytree(base.parent, tmp_path / "faults" / "a-sign-in-the-pair-loss" / "tables" / "mini")
    text, holds = faults.measure(read_only(tmp_path), tmp_path / "faults", 0, base=base, only=["sign"])
    assert holds == {"found: a sign in the pair loss": False} and "| NOT FOUND |" in text
    # Of a damaged store the results say nothing: what is told is what was kept beside them.
    tables = tmp_path / "faults" / "items-shuffled-after-their-checksum-in-the-store-s-file" / "tables"
    shutil.copytree(base.parent, tables / "mini")
    assert faults.measure(read_only(tmp_path), tmp_path / "faults", 0, base=base, only=["store's file"])[1] == {}
    for where, caught in ((faults.MADE_AGAIN, True), ("diff", False)):
        (tables / faults.WHERE).write_text(json.dumps(where))
        _, holds = faults.measure(read_only(tmp_path), tmp_path / "faults", 0, base=base, only=["store's file"])
        assert list(holds.values()) == [caught]


def test_the_quoted_row_makes_the_language_and_trains_nothing(tmp_path: Path) -> None:
    row = script("miniature").QUOTED
    command = [sys.executable, "-m", "replication.cli", "plan", "table1", "--rows", row, "--store", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert "miniature language" in done.stdout and "baseline length on rewardbench2" in done.stdout
    assert not any(trained in done.stdout for trained in ("backbone", "SAE", "reward model"))


@pytest.mark.slow
def test_a_fault_that_changes_what_a_model_is_is_found_however_well_it_does(tmp_path: Path) -> None:
    """In seconds instead of the miniature's minutes: accuracies say nothing there, and need not."""
    runs, faults = script("miniature_runs"), script("miniature_faults")
    deeper = PROFILE.replace("num_hidden_layers = 2", "num_hidden_layers = 3").replace("16 = 1, 32 = 2", "16 = 2, 32 = 3")
    (tmp_path / "tiny.toml").write_text(deeper.format(slot="large"), encoding="utf-8")
    sets = ("reward.max_length=24", "scoring.max_length=24")
    plain = runs.Run(store=tmp_path / "store", out=tmp_path / "tables", profile=str(tmp_path / "tiny.toml"), sets=sets)
    plain.whole_table("table1", [0], rows="sarm-4b")
    for part, fact in {"TopK": "active at most", "layer below": "blocks", "token before": "read at", "truncation": "read at"}.items():
        (fault,) = (one for one in faults.FAULTS if part in one.name)
        found = faults.tried(fault, plain, tmp_path / "faults", 0, plain.results("table1"), rows="sarm-4b")
        assert (found.code, found.where) == (3, "diff") and found.caught and found.facts, found
        run = faults.run_of(fault, plain, tmp_path / "faults")
        said = {row["column"] for row in run.diff(plain.results("table1"))[1] if row["table"] == "models" and row["verdict"] == "DIFFERS"}
        assert fact in said and said <= {fact, "parameters"}, (fault.name, said)
