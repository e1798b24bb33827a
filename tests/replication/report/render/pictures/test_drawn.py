"""Pictures beside the tables: what is drawn from what, in words too, the same bytes each time, and nothing that is not there."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from explained_store import explained_store
from fake_launcher import commit
from safetensors.numpy import save_file
from swept_report import invented

from replication.drawing import DARK, SCREEN, plain, styled
from replication.recipes.jobs_needed import recipe
from replication.recipes.setting import Setting
from replication.report.cells import Report
from replication.report.claims.published import published_claims
from replication.report.published import load_published
from replication.report.render.pictures import forest, head_weights, training
from replication.report.render.pictures.curves import curves
from replication.report.render.pictures.drawn import draw, draw_claims
from replication.report.render.pictures.intervals import CHANCE, intervals, own_spot, paper_spot
from replication.settings.experiments import EXPERIMENTS
from replication.settings.profile_files import load_profile
from replication.settings.protocols import PROTOCOLS
from sarm.job import UsageProblem, topological_order
from sarm.store.artifacts import ArtifactStore

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "</desc><script>alert(1)</script> $\\frac{1}$ \u202e\u05d0\u05d1 \x01 \ud800" + "w" * 300


def text_of(svg: Path) -> tuple[str, str]:
    root = ET.fromstring(svg.read_bytes())
    return str(root.findtext(f"{SVG}title")), str(root.findtext(f"{SVG}desc"))


def with_label(report: Report, label: str) -> Report:
    (table,) = report.tables
    rows = (table.rows[0].model_copy(update={"label": label}), *table.rows[1:])
    return report.model_copy(update={"tables": (table.model_copy(update={"rows": rows}),), "title": label})


def test_table_1_is_drawn_with_its_numbers_in_words(tmp_path: Path) -> None:
    paths = draw(invented("table1", rows=3), tmp_path)
    assert [path.name for path in paths] == ["table1-intervals.svg", "table1-intervals.png"]
    title, said = text_of(paths[0])
    assert title == "Reward models on RewardBench 2, profile paper, protocol paper, seeds 0, 1, 2"
    assert said.count("paper ") >= 3 * 7 and "chance is 25 in Factuality" in said and "(seeds " in said
    assert all(colour in paths[0].read_text() for colour in DARK.values())


def test_table_3_is_drawn_as_three_curves(tmp_path: Path) -> None:
    report = invented("table3")
    (svg, _) = draw(report, tmp_path)
    assert svg.name == "table3-curves.svg" and not (tmp_path / "table3-intervals.svg").exists()
    assert all(text_of(svg)[1].count(f"By {axis}") == 1 for axis in ("layer", "latents", "active latents"))
    with styled(SCREEN):
        found = curves(report)
    assert found is not None and [len(axes.get_xticks()) for axes in found.figure.axes] == [5, 5, 5]


def test_the_same_numbers_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("table2", "table3"):
        one, two = (draw(invented(name), tmp_path / side) for side in "ab")
        assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


def test_an_interval_is_of_seeds_where_there_are_several_and_of_items_where_there_is_one() -> None:
    (several,), (one,) = ([row.cells[1] for row in invented("table2", seeds=seeds, rows=1).tables[0].rows[:1]] for seeds in ((0, 1), (0,)))
    spread, alone = own_spot(several), own_spot(one)
    assert spread is not None and len(spread.seeds) == 2 and spread.low < min(spread.seeds) and spread.high > max(spread.seeds)
    assert alone is not None and alone.seeds == () and alone.low < alone.value < alone.high


def test_the_papers_value_has_what_its_digits_and_items_allow() -> None:
    table = load_published("table1")
    counted, ties, overall = (paper_spot(table, "sarm-4b", column) for column in ("Math", "Ties", "Overall"))
    assert counted is not None and counted.low < counted.value - 5 and counted.high > counted.value + 5, "183 items"
    assert ties is not None and ties.high - ties.low == pytest.approx(0.1), "its digits alone"
    assert overall is not None and 1 < overall.value - overall.low < 4
    assert paper_spot(table, "sarm-4b", "chat") is None


def test_hostile_labels_are_text_in_a_file_that_is_xml(tmp_path: Path) -> None:
    for name in ("table1", "table3"):
        (svg, _) = draw(with_label(invented(name), HOSTILE), tmp_path)
        root = ET.fromstring(svg.read_bytes())
        assert not list(root.iter(f"{SVG}script")) and not list(root.iter("script"))
        assert "\x01" not in svg.read_text() and "frac" in svg.read_text()
    assert plain("a\ud800b\nc") == "a b c" and plain("abcdef", longest=3) == "ab…"


def test_nothing_measured_is_no_picture_and_an_old_one_is_taken_away(tmp_path: Path) -> None:
    draw(invented("table1", rows=1), tmp_path)
    (tmp_path / "table1-training.svg").write_text("of artifacts, which a report alone does not know")
    nothing = invented("table1", seeds=())
    assert draw(nothing, tmp_path) == () and intervals(nothing) is None and curves(nothing) is None
    assert [path.name for path in tmp_path.iterdir()] == ["table1-training.svg"]


def test_chance_stands_only_where_there_is_one() -> None:
    with styled(SCREEN):
        found = intervals(invented("table1", rows=2))
    assert found is not None
    chance = [any(list(line.get_xdata()) == [CHANCE, CHANCE] for line in axes.lines) for axes in found.figure.axes]
    assert chance == [False, True, True, True, True, True, False]


def test_a_row_that_was_not_measured_in_a_column_leaves_a_gap() -> None:
    report = invented("table1", rows=2)
    (table,) = report.tables
    first = table.rows[0]
    gap = first.model_copy(update={"cells": (first.cells[0].model_copy(update={"ours": None}), *first.cells[1:])})
    changed = report.model_copy(update={"tables": (table.model_copy(update={"rows": (gap, *table.rows[1:])}),)})
    found = intervals(changed)
    assert found is not None and f"{first.label} {first.size}: Factuality" in found.says


def test_training_curves_come_from_the_logs_of_artifacts(tmp_path: Path) -> None:
    setting = Setting(experiment=EXPERIMENTS["table1"], profile=load_profile("mini", environment={}), protocol=PROTOCOLS["paper"])
    one, store = recipe(setting), ArtifactStore(tmp_path / "store")
    assert training.training(one, store) is None
    jobs = [job for job in topological_order(one.jobs) if job.kind in ("train_reward", "train_sae")]
    for job in jobs:
        lines = [{"step": step, "preference_loss": 1 / step, "accuracy": 0.5, "loss": 90.0 / step} for step in range(1, 501)]
        lines += [{"step": 501, "preference_loss": float("nan"), "loss": None}, {"step": "x"}]
        commit(job, store, lambda output, lines=lines: (output / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines)))
    found = training.trained(one, store)
    assert len(found) == 2 * sum(job.kind == "train_reward" for job in jobs) + sum(job.kind == "train_sae" for job in jobs)
    assert all(len(curve.steps) == training.POINTS and curve.values[0] >= curve.values[-1] for curve in found)
    paths = draw(Report(experiment="table1", title="t", profile="mini", protocol="paper", seeds=(0,), comparable=False, tables=()),
                 tmp_path, recipe=one, store=store)  # fmt: skip
    assert [path.name for path in paths] == ["table1-training.svg", "table1-training.png"]
    assert "SAEs: loss" in text_of(paths[0])[1]


def test_the_spectrum_marks_the_explained_latents_of_the_model(tmp_path: Path) -> None:
    one, store = explained_store(tmp_path / "store", seeds=(0,))
    assert head_weights.spectrum(one, store) is None, "the model is not in the store"
    (model,) = [training.model for training in one.trainings if training.explanation is not None]
    assert model is not None
    weights = np.linspace(-0.5, 0.5, 2000, dtype=np.float32)[None]
    commit(model, store, lambda output: save_file({"score.weight": weights}, output / "model.safetensors"))
    (found,) = head_weights.spectra(one, store)
    assert found.weights[0] == 0.5 and found.weights[-1] == -0.5 and [row[0] for row in found.explained] == ["positive", "negative"]
    assert [2000 - 1 - rank for _, rank, _, _ in found.explained] == [3, 5]
    with styled(SCREEN):
        drawn = head_weights.spectrum(one, store)
    assert drawn is not None and "2,000 latents from +0.5 to -0.5, 1,000 above 0; 2 explained" in drawn.says and "a cat" in drawn.says


def test_a_head_in_bfloat16_and_in_shards_is_read_alone(tmp_path: Path) -> None:
    head = np.array([[1.5, -2.0, 0.0]], dtype=np.float32)
    halves = (head.view(np.uint32) >> 16).astype("<u2").tobytes()
    header = json.dumps({"score.weight": {"dtype": "BF16", "shape": [1, 3], "data_offsets": [0, 6]}}).encode()
    (tmp_path / "part.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + halves)
    (tmp_path / head_weights.INDEX).write_text(json.dumps({"weight_map": {"score.weight": "part.safetensors"}}))
    assert head_weights.head_weights(tmp_path).tolist() == [1.5, -2.0, 0.0]
    (tmp_path / head_weights.INDEX).write_text("{}")
    with pytest.raises(UsageProblem, match=r"reward head score\.weight cannot be read"):
        head_weights.head_weights(tmp_path)


@pytest.mark.parametrize("size", [1, 2, 7, 500, 2048, 65536])
def test_the_line_of_a_spectrum_is_short_and_begins_at_the_end(size: int) -> None:
    places = head_weights.shown_places(size)
    assert places[0] == 0 and places[-1] == (size + 1) // 2 - 1 and len(places) <= head_weights.POINTS + head_weights.ENDS
    assert len(set(places)) == len(places)


def test_the_claims_are_a_forest_of_the_effects_that_the_tests_used(tmp_path: Path) -> None:
    found = {claim.id: claim for claim in published_claims()}
    (over,) = found["C2a"].effects
    assert f"difference {over.estimate:+.1f} [{over.low:+.1f}, {over.high:+.1f}]" in found["C2a"].detail and over.above == 2.6
    assert [effect.label for effect in found["C4a"].effects] == ["layer-7 to layer-10", "layer-10 to layer-14"]
    assert all(effect.above == -2.5 and effect.below == 2.5 for effect in found["C4b"].effects)
    svg, _ = draw_claims(list(found.values()), {"C2a": [found["C2a"].model_copy(update={"protocol": "paper"})]}, tmp_path)
    said = text_of(svg)[1]
    assert svg.name == "claims.svg" and "C2a over random-init (ours, paper): +5.2" in said and "holds above 2.6" in said
    assert forest.forest([], {}) is None and draw_claims([], {}, tmp_path) == ()


def test_a_report_of_many_rows_draws_the_first_and_says_so() -> None:
    report = invented("table1", rows=1)
    (table,) = report.tables
    rows = tuple(table.rows[0].model_copy(update={"name": f"row-{place}"}) for place in range(60))
    with styled(SCREEN):
        found = intervals(report.model_copy(update={"tables": (table.model_copy(update={"rows": rows}),)}))
    assert found is not None and "the first 40 of 60 rows" in found.figure.get_suptitle()
