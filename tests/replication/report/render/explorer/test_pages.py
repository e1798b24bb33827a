"""What the pages of an explorer hold: by stated rules, with sums that come to the rewards in the store."""

from __future__ import annotations

import base64
import gzip
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explored import HOSTILE, N_LATENTS, explored, rewardbench2, rmbench, save_sarm
from safetensors.numpy import load_file, save_file

from replication.report.latents.explorations import Exploration, read_exploration
from replication.report.render.explorer.choice import REPORT, WHOLE, items_in_turn, latents_by_weight
from replication.report.render.explorer.embedded import explorer_section, packed
from replication.report.render.explorer.folder import write_folder
from replication.report.render.explorer.pages import index, item_page, latent_page
from replication.report.render.page import page
from sarm.job import IntegrityProblem, JobError

SMALL = REPORT._replace(latents=10, items=7, sides=2, contributions=2, contexts=2, context_characters=20, text_characters=40)


def opened(folder: Path, **more: Any) -> Exploration:
    return read_exploration(folder, key="0123456789ab", label="latents of tiny, seed 0", explanations=more.get("explanations", {}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("explored")
    return explored(place / "out", save_sarm(place / "model"), rewardbench2(each=4, hostile=True))


@pytest.fixture(scope="module")
def exploration(folder: Path) -> Exploration:
    return opened(folder)


def test_the_bars_of_every_reward_come_to_the_reward_in_the_store(exploration: Exploration) -> None:
    for extent in (SMALL, REPORT, WHOLE):
        for item in range(len(exploration.items)):
            for one in item_page(exploration, item, extent)["completions"]:
                row = next(r for r in exploration.rows_of[item] if (r.side, r.place) == (one["side"], one["place"]))
                stored = float(exploration.completions["rewards"][row.number])
                bars = [part[2] for part in one["parts"]] + [one["others"][1], exploration.facts["constant"]]
                assert math.fsum(bars) == pytest.approx(stored, abs=1e-5) and np.float32(one["reward"]) == np.float32(stored)
                assert len(one["parts"]) + one["others"][0] == len(exploration.parts(row.number)[0])


def test_a_difference_knows_both_sides_of_each_of_its_largest_parts(exploration: Exploration) -> None:
    for item in range(len(exploration.items)):
        shown = item_page(exploration, item, SMALL)["completions"]
        rows = {(row.side, row.place): row.number for row in exploration.rows_of[item]}
        for better in (one for one in shown if one["side"] == "chosen"):
            for worse in (one for one in shown if one["side"] == "rejected"):
                dense = [np.zeros(N_LATENTS), np.zeros(N_LATENTS)]
                for line, one in zip(dense, (better, worse), strict=True):
                    latents, _, contributions = exploration.parts(rows[one["side"], one["place"]])
                    line[latents] = contributions
                largest = np.argsort(-np.abs(dense[0] - dense[1]), kind="stable")[: SMALL.contributions]
                told = [{part[0]: part[2] for part in one["parts"]} for one in (better, worse)]
                for latent in largest.tolist():
                    assert [side.get(latent, 0.0) for side in told] == pytest.approx([line[latent] for line in dense], rel=1e-6)


def test_latents_are_the_largest_by_head_weight_and_all_without_a_limit(exploration: Exploration) -> None:
    head = np.abs(exploration.latents["head"])
    chosen = latents_by_weight(exploration, 10)
    assert len(chosen) == 10 and [head[one] for one in chosen] == sorted(head, reverse=True)[:10]
    assert sorted(latents_by_weight(exploration, 0)) == list(range(N_LATENTS))
    assert SMALL.rule(exploration)[0] == f"the 10 of {N_LATENTS} with the largest head weights"
    assert WHOLE.rule(exploration) == (f"all {N_LATENTS}", f"all {len(exploration.items)}")


def test_items_are_taken_from_each_subset_in_turn_most_wrong_first(exploration: Exploration) -> None:
    margins, items = exploration.margins(), exploration.items
    chosen = items_in_turn(exploration, 13)
    assert len(set(chosen)) == 13 and items_in_turn(exploration, 0) == list(range(len(items)))
    first = [items[one].subset for one in chosen[:6]]
    assert first == ["Factuality", "Precise IF", "Math", "Safety", "Focus", "Ties"]
    for place in chosen[:6]:
        assert margins[place] == min(margins[one] for one in range(len(items)) if items[one].subset == items[place].subset)
    for place in chosen[6:12]:
        rest = [one for one in range(len(items)) if items[one].subset == items[place].subset and one not in chosen[:6]]
        assert abs(margins[place]) == min(abs(margins[one]) for one in rest)
    assert "7 of 28: from each subset in turn" in SMALL.rule(exploration)[1]


def test_a_latent_s_page_counts_what_the_arrays_hold(exploration: Exploration) -> None:
    rows = exploration.completions["latents"]
    latent = int(np.bincount(rows).argmax())
    found = latent_page(exploration, latent, SMALL)
    assert sum(found["fired"][:2]) == int((rows == latent).sum()) and len(found["contexts"]) == 2
    assert len(found["removed"]) == len(found["doubled"]) == 7 and len(found["neighbours"]) == 8
    chosen, rejected = exploration.sides
    assert found["spread"][0] == pytest.approx([chosen.mean(), chosen.std(), rejected.mean(), rejected.std()], rel=1e-4)
    number, _, contributions = exploration.fires(latent)
    doubled = exploration.completions["rewards"].astype(np.float64)
    doubled[number] += contributions
    sides = [doubled[numbers] for numbers in exploration.numbers_of_sides]
    assert found["spread"][2] == pytest.approx([value for side in sides for value in (side.mean(), side.std())], rel=1e-4)
    assert [sum(one) for one in found["histograms"]] == [len(chosen), len(rejected)] * 2
    strongest = found["contexts"][0]
    most = max(abs(strongest["chosen"][3]), abs(strongest["rejected"][3]))
    assert most == pytest.approx(float(np.abs(exploration.fires(latent)[1]).max()), rel=1e-3)
    assert strongest["chosen"][2] == "<|eot_id|>"


def test_a_latent_that_never_fires_has_a_page_that_says_so(exploration: Exploration) -> None:
    found = latent_page(exploration, N_LATENTS - 1, SMALL)
    assert sum(found["fired"]) == 0 and found["contexts"] == [] and found["histograms"] == []
    assert found["removed"] == found["doubled"] == [pytest.approx(one, abs=1e-6) for one in exploration.facts["accuracies"]]


def test_explanations_of_the_model_stand_beside_its_latents_and_without_any_the_command_does(folder: Path) -> None:
    line = {"latent": 3, "explanation": "cats", "score": 4, "detection": {"balanced_accuracy": 0.75}, "status": "explained"}
    line["contexts"] = [{"context": "the cat sat.", "activation": 2.0}]
    with_line = opened(folder, explanations={3: line})
    found = index(with_line, WHOLE, latents=[3, 4], items=[])
    assert found["explain"] == "" and found["latentRows"][0][4:] == ["cats", 4, 0.75] and found["latentRows"][1][4:] == ["", None, None]
    assert latent_page(with_line, 3, WHOLE)["collected"] == [["the cat sat.", 2.0]]
    assert index(opened(folder), WHOLE, latents=[3], items=[])["explain"] == "replicate features"


def test_the_section_holds_the_pages_and_escapes_what_it_writes_itself(exploration: Exploration) -> None:
    hostile = replace(exploration, label=HOSTILE[0], explanations={39: {"latent": 39, "explanation": HOSTILE[1], "status": "explained"}})
    section = explorer_section([hostile])
    data = section.html.partition('-data">')[2].partition("</script>")[0]
    content = json.loads(gzip.decompress(base64.b64decode(data)))
    assert content["index"]["latentRows"][0][4] == HOSTILE[1] and len(content["latents"]) == N_LATENTS
    assert any(HOSTILE[0] in turn[1] for one in content["items"] for turn in one["prompt"])
    assert HOSTILE[0] not in section.html and HOSTILE[1] not in section.html and "&lt;script&gt;" in section.html
    assert section.html.count("<script") == section.html.count("</script>") == 2
    assert section.html in page([], extra=[section])


def test_what_does_not_fit_is_told_with_its_command(exploration: Exploration) -> None:
    size = len(explorer_section([exploration]).html.partition('-data">')[2].partition("</script>")[0])
    second = replace(exploration, key="ba9876543210", label="another")
    section = explorer_section([exploration, second], most=size + 10)
    assert section.html.count('class="explorer"') == 1
    assert "another: <code>replicate explore --artifact ba9876543210 --folder DIR</code>" in section.html
    nothing = explorer_section([], waiting=[("reward model <b>x</b>, seed 0", "replicate explore x")])
    assert "No latents have been explored yet; run: <code>replicate explore ROW</code>" in nothing.html
    assert "&lt;b&gt;" in nothing.html and "<script" not in nothing.html


def test_a_model_with_no_latent_and_one_with_styles_have_pages_too(exploration: Exploration, tmp_path: Path) -> None:
    by_group = ("fired", "contribution", "square", "product")
    arrays = {name: value[:, :0] if name in by_group else value[:0] for name, value in exploration.latents.items()}
    parts = {name: exploration.completions[name][:0] for name in ("latents", "activations", "contributions")}
    starts = np.zeros_like(exploration.completions["starts"])
    nothing = replace(exploration, latents=arrays, completions={**exploration.completions, **parts, "starts": starts})
    found = index(nothing, REPORT, latents=latents_by_weight(nothing, 500), items=items_in_turn(nothing, 5))
    assert found["latents"] == 0 and found["latentRows"] == [] and len(found["itemRows"]) == 5
    assert item_page(nothing, 0, REPORT)["completions"][0]["parts"] == []
    assert explorer_section([nothing]).html.count('class="explorer"') == 1
    styled = opened(explored(tmp_path / "out", save_sarm(tmp_path / "model"), rmbench(), benchmark="rmbench"))
    groups = index(styled, REPORT, latents=[], items=[])["groups"]
    assert [one["style"] for one in groups if one["style"]][::2] == ["concise", "detailed", "detailed Markdown"]


def test_a_head_on_all_pre_activations_says_what_is_not_known(tmp_path: Path) -> None:
    found = opened(explored(tmp_path / "out", save_sarm(tmp_path / "model", latents="pre_acts"), rewardbench2(each=1), kept=5, edited=3))
    known = [one for one in range(N_LATENTS) if latent_page(found, one, REPORT)["removed"][0] is not None]
    assert len(known) == 3 and latent_page(found, known[0], REPORT)["histograms"] == []
    one = item_page(found, 0, REPORT)["completions"][0]
    assert len(one["parts"]) == 5 and one["others"][1] != 0
    assert math.fsum([*(part[2] for part in one["parts"]), one["others"][1]]) == pytest.approx(one["reward"], abs=1e-4)


def test_the_folder_has_every_latent_and_every_item_and_replaces_an_earlier_one(exploration: Exploration, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "latents-99.js").write_text("old")
    told: list[tuple[int, int]] = []
    written = write_folder(exploration, tmp_path, told=lambda done, total: told.append((done, total)))
    assert written == tmp_path / "index.html" and told[-1] == (N_LATENTS + 56, N_LATENTS + 56)
    assert sorted(one.name for one in (tmp_path / "data").iterdir()) == ["index.js", "items-0.js", "latents-0.js", "texts-0.js"]
    text = (tmp_path / "data" / "items-0.js").read_text()
    items = json.loads(text.removeprefix('explorerData("items-0",').removesuffix(");\n"))
    assert [one["item"] for one in items] == list(range(28)) and all(one["left"] == 0 for one in items)
    assert all(one["others"] == [0, 0.0] for item in items for one in item["completions"])


def test_the_same_exploration_gives_the_same_bytes(exploration: Exploration) -> None:
    assert explorer_section([exploration]) == explorer_section([exploration]) and packed({"a": 1}) == packed({"a": 1})


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("exploration.json", lambda path: path.write_text("{}")),
        ("latents.safetensors", lambda path: path.write_bytes(b"\0" * 9)),
        ("completions.safetensors", lambda path: path.unlink()),
        ("items.jsonl", lambda path: path.write_text("{")),
    ],
)
def test_a_damaged_artifact_is_named(folder: Path, tmp_path: Path, name: str, change: Any) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    change(tmp_path / name)
    with pytest.raises(JobError, match=name.partition(".")[0]):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("completions", lambda arrays: arrays.update(rewards=arrays["rewards"][:-1]), "rewards is "),
        ("completions", lambda arrays: arrays["latents"].__setitem__(0, 99), "a latent beyond the 40"),
        ("completions", lambda arrays: arrays["starts"].__setitem__(1, 10_000), "starts do not cut"),
        ("completions", lambda arrays: arrays["tokens"].__setitem__(0, 7), "not among the scored tokens"),
        ("latents", lambda arrays: arrays.update(fired=arrays["fired"][:1]), "fired is "),
        ("latents", lambda arrays: arrays.update(removed=arrays["removed"][:, :2]), "removed is "),
    ],
)
def test_files_that_do_not_belong_together_are_refused(folder: Path, tmp_path: Path, file: str, change: Any, said: str) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    arrays = {name: value.copy() for name, value in load_file(tmp_path / f"{file}.safetensors").items()}
    change(arrays)
    save_file({name: np.ascontiguousarray(value) for name, value in arrays.items()}, tmp_path / f"{file}.safetensors")
    with pytest.raises(IntegrityProblem, match=said):
        opened(tmp_path)
