"""Near-duplicate prompts: the same, nearly the same, a shared phrase, nothing in common."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_launcher import commit
from tiny import write_rows

from replication import pipeline
from replication.recipes.jobs_needed import recipe
from replication.recipes.setting import Setting
from replication.report.results.overlap import overlap, overlap_listing, overlap_of, shingles
from replication.settings.experiments import EXPERIMENTS
from replication.settings.profile_files import load_profile
from replication.settings.protocols import PROTOCOLS
from sarm.data.preferences import Message, Preference
from sarm.job import UsageProblem
from sarm.store.artifacts import ArtifactStore

LONG = "please tell me in detail how the old clock of the town hall was repaired after the great fire of last year"


def item(name: str, prompt: str, subset: str = "") -> Preference:
    return Preference(id=name, prompt=(Message(role="user", content=prompt),), chosen=("a",), rejected=("b",), subset=subset)


BENCHMARK = [
    item("1", LONG, "Safety"),
    item("2", "an entirely other question about nothing that anyone has asked before today", "Safety"),
    item("1", "what is two plus two", "Math"),
    item("2", LONG.replace("clock", "organ"), "Math"),
]


def test_shingles_are_runs_of_words_without_case_and_punctuation() -> None:
    assert shingles("The cat, the DOG; the mat!", words=3) == {"the cat the", "cat the dog", "the dog the", "dog the mat"}
    assert shingles("Too short", words=8) == {"too short"}


def test_same_near_and_touching_prompts_are_counted_by_subset() -> None:
    training = [
        item("t0", LONG.upper().replace(" ", "  ") + "!"),
        item("t1", "What is two, plus two?"),
        item("t2", "something else entirely that has no phrase in common with the rest of them"),
    ]
    found = overlap(training, BENCHMARK, words=8, threshold=0.5)
    safety, math = found.subsets
    assert (safety.subset, safety.items, safety.same, safety.near, safety.touching) == ("Safety", 2, 1, 1, 1)
    assert (safety.examples[0].item, safety.examples[0].other, safety.examples[0].jaccard) == ("1", "t0", 1.0)
    # One word of 22 is another: 15 shingles each, 8 of which hold it; 7 of 23 are shared.
    assert (math.items, math.same, math.near, math.touching) == (2, 1, 1, 2)
    assert found.others == 3


def test_the_threshold_decides_what_is_near() -> None:
    near = overlap([item("t", LONG)], [BENCHMARK[3]], threshold=0.3).subsets[0]
    far = overlap([item("t", LONG)], [BENCHMARK[3]], threshold=0.9).subsets[0]
    assert (near.near, near.same) == (1, 0) and (far.near, far.touching) == (0, 1)
    kept, lost = 22 - 8 + 1 - 8, 8
    assert near.examples[0].jaccard == pytest.approx(kept / (kept + 2 * lost), abs=0.1)


def test_the_nearest_of_several_is_named() -> None:
    found = overlap([item("far", LONG + " and more and more words that follow it"), item("near", LONG)], [BENCHMARK[0]])
    assert found.subsets[0].examples[0].other == "near"


def test_files_are_compared_and_told_as_a_block_of_text(tmp_path: Path) -> None:
    write_rows(tmp_path / "train", "train.jsonl", [item("t0", LONG)])
    write_rows(tmp_path / "bench", "rewardbench2.jsonl", BENCHMARK)
    found = overlap_of(tmp_path / "train" / "train.jsonl", tmp_path / "bench" / "rewardbench2.jsonl")
    listing = overlap_listing(found, name="overlap", others="training pairs", benchmark="RewardBench 2")
    assert listing.rows[0][:5] == ("Safety", "2", "1", "1", "1") and "1 ~ t0 (1.00)" in listing.rows[0][5]
    assert listing.rows[-1][:5] == ("all", "4", "1", "1", "2")


@pytest.mark.parametrize(("items", "words", "threshold"), [([], 8, 0.5), (BENCHMARK, 0, 0.5), (BENCHMARK, 8, 0.0), (BENCHMARK, 8, 1.5)])
def test_what_cannot_be_compared_is_refused(items: list[Preference], words: int, threshold: float) -> None:
    with pytest.raises(UsageProblem, match="overlap needs items"):
        overlap([], items, words=words, threshold=threshold)


def test_the_reports_of_table_1_and_figure_3_count_the_prompts_that_training_has_seen(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    found = {}
    for name in ("table1", "table2", "figure3"):
        setting = Setting(experiment=EXPERIMENTS[name], profile=load_profile("mini", environment={}), protocol=PROTOCOLS["paper"])
        made = recipe(setting)
        model = made.trainings[0].model
        assert model is not None
        data = model.inputs["preferences"]
        if not store.has(data):
            files = {"train.jsonl": [item("t0", LONG)], "rewardbench2.jsonl": BENCHMARK, "rmbench.jsonl": BENCHMARK[1:2]}
            commit(data, store, lambda output, files=files: [write_rows(output, file, rows) for file, rows in files.items()])
        found[name] = {one.name: one.rows[-1][1:4] for one in pipeline.report(made, store, command="x").listings if "overlap" in one.name}
    both = {"table1-overlap-rewardbench2": ("4", "1", "1"), "table1-overlap-rmbench": ("1", "0", "0")}
    assert found == {"table1": both, "table2": {}, "figure3": {"figure3-overlap-rewardbench2": ("4", "1", "1")}}
