"""Folders of files with rows: read whole and of one split, or refused in one line that names the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from sarm.data.preferences import DataError
from sarm.data.row_files import NO_DATA_NAMES, local_rows
from sarm.job import EnvironmentProblem, UsageProblem


def row(name: str) -> dict[str, str]:
    return {"prompt": name, "chosen": "a", "rejected": "b"}


def folder_of(folder: Path, *names: str) -> Path:
    """A folder with a file of one row for each name, whose prompt is the name."""
    for name in names:
        path = folder / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() == ".parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row(name)]), path)
        else:
            path.write_text(json.dumps(row(name)) + "\n", encoding="utf-8")
    return folder / "source"


def prompts(source: Path) -> list[Any]:
    return [one["prompt"] for _, one in local_rows(source).rows]


@pytest.mark.parametrize("names", [
    ("train-00000-of-00001.jsonl", "test-00000-of-00001.jsonl"),
    ("train/part.jsonl", "validation/part.jsonl"),
    ("pairs.train.jsonl", "pairs.dev.jsonl"),
    ("helpful/train.jsonl", "helpful/test.jsonl"),
    ("data_eval.jsonl", "data_train.jsonl"),
    ("pairs.jsonl", "test.jsonl"),
    ("data.jsonl", "eval.jsonl"),
    ("part-0.jsonl", "heldout/part-0.jsonl"),
    ("train1.jsonl", "test1.jsonl"),
    ("trainset.jsonl", "testset.jsonl"),
    ("TrainSet.jsonl", "TestSet.jsonl"),
    ("train (1).jsonl", "test (1).jsonl"),
    ("train.jsonl", "holdout.jsonl"),
    ("train.jsonl", "held_out.jsonl"),
    ("train.jsonl", "pairs-held-out-2.jsonl"),
    ("eval/train.jsonl", "eval/test.jsonl"),
    ("train_prefs-00000-of-00001.jsonl", "train_sft-00000-of-00001.jsonl"),
    ("train_red-00000-of-00001.jsonl", "train_blue-00000-of-00001.jsonl"),
    ("train_prefs.jsonl", "train_sft.jsonl"),
    ("train_prefs/part-0.jsonl", "train_sft/part-0.jsonl"),
    ("train.jsonl", "train_gen.jsonl"),
])  # fmt: skip
def test_a_folder_with_several_splits_is_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    with pytest.raises(UsageProblem, match=r"holds several splits: .*; name one file, or a folder with one split") as caught:
        local_rows(folder_of(tmp_path, *names))
    assert all(f"({name})" in str(caught.value) for name in names) and "\n" not in str(caught.value)


@pytest.mark.parametrize("names", [
    ("train-00000.jsonl", "train-00001.jsonl"),
    ("train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl"),
    ("train-00000-of-00002-6f3344faa23e9b0a.parquet", "train-00001-of-00002-0b1c.parquet"),
    ("train_prefs-00000-of-00002.jsonl", "train_prefs-00001-of-00002.jsonl"),
    ("pairs_1_of_2.jsonl", "pairs_2_of_2.jsonl"),
    ("a-00000-of-00001.jsonl", "b-00000-of-00001.jsonl"),
    ("train1.jsonl", "train2.jsonl"),
    ("train_a.jsonl", "train_b.jsonl"),
    ("train.jsonl", "training/part.jsonl"),
    ("en/train.jsonl", "fr/train.jsonl"),
    ("a.jsonl", "b.jsonl"),
    ("part-0.jsonl", "part-1.jsonl"),
    ("contest.jsonl", "trained.jsonl"),
])  # fmt: skip
def test_a_folder_with_one_split_is_read_whole(tmp_path: Path, names: tuple[str, str]) -> None:
    assert prompts(folder_of(tmp_path, *names)) == list(names)


def test_the_folder_that_is_given_may_be_called_after_any_split(tmp_path: Path) -> None:
    folder_of(tmp_path, "train/test/part.jsonl")
    assert prompts(tmp_path / "source" / "train" / "test") == ["train/test/part.jsonl"]


def test_suffixes_are_read_in_any_case(tmp_path: Path) -> None:
    names = ("a.jsonl", "b.JSONL", "c.ndjson", "d.Json", "e.PARQUET")
    source = folder_of(tmp_path, *names)
    assert prompts(source) == list(names)
    assert [prompts(source / name) for name in names] == [[name] for name in names]


@pytest.mark.parametrize("name", [
    "part-1.jsonl.gz", "part-1.csv", "part-1.jsonl.zst", "part-1.tsv", "part-1.txt", "part-1.arrow", "part-1.jsonl.bak", "part-1",
    "data/part-1.zip", "part-1.xlsx", "part-1.pkl",
])  # fmt: skip
def test_a_file_that_is_not_read_is_refused_by_name(tmp_path: Path, name: str) -> None:
    source = folder_of(tmp_path, "part-0.jsonl", name)
    with pytest.raises(UsageProblem, match="source holds what is not read: ") as caught:
        local_rows(source)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_many_files_that_are_not_read_are_counted(tmp_path: Path) -> None:
    source = folder_of(tmp_path, "part-0.jsonl", *(f"part-{number}.csv" for number in range(9)))
    with pytest.raises(UsageProblem, match=r"not read: part-0\.csv, part-1\.csv, part-2\.csv, part-3\.csv and 5 more; "):
        local_rows(source)


@pytest.mark.parametrize("to_folder", [True, False])
def test_a_link_that_is_not_followed_is_refused_by_name(tmp_path: Path, to_folder: bool) -> None:
    source = folder_of(tmp_path, "part-0.jsonl")
    (source / "part-1.jsonl").symlink_to(tmp_path / "elsewhere")
    if to_folder:
        (tmp_path / "elsewhere").mkdir()
    with pytest.raises(UsageProblem, match=r"not read: part-1\.jsonl"):
        local_rows(source)


def test_what_holds_no_rows_may_lie_beside_data(tmp_path: Path) -> None:
    others = (
        "README", "README.md", "readme_zh.txt", "LICENSE", "LICENCE.txt", "LICENSE-CODE", "NOTICE", "CITATION.cff", "requirements.txt",
        "dataset_infos.json", "Dataset_Info.json", "state.json", ".gitattributes", ".cache/x.jsonl", "figures/a.PNG", "load.py", "c.yaml",
        "SHA256SUMS", "_SUCCESS", "_delta_log/0.json", "__MACOSX/a.jsonl", ".part-0.jsonl.crc",
    )  # fmt: skip
    assert prompts(folder_of(tmp_path, "part-0.jsonl", *others)) == ["part-0.jsonl"]
    (tmp_path / "source" / "part-1.csv").touch()
    assert prompts(tmp_path / "source") == ["part-0.jsonl"]
    assert not any(NO_DATA_NAMES.match(name) for name in ("licensed.csv", "readmes.csv", "noticed.txt"))


def test_a_folder_without_data_says_what_would_be(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=r"holds no \.jsonl, \.ndjson, \.json, \.parquet file"):
        local_rows(folder_of(tmp_path, "README.md", "part-0.csv"))


@pytest.mark.parametrize(("names", "said"), [
    (["train-00000-of-00002.jsonl"], "1 of the 2 files that train-00000-of-00002.jsonl counts .number 1 is missing"),
    (["data/train-00001-of-00002.parquet"], "1 of the 2 files that data/train-00001-of-00002.parquet counts .number 0 is missing"),
    (["a-1-of-3.jsonl", "a-3-of-3.jsonl"], "2 of the 3 files that a-1-of-3.jsonl counts .number 2 is missing"),
    (["en/p-0-of-2.jsonl", "fr/p-1-of-2.jsonl"], "1 of the 2 files"),
    (["p_00000_of_99999999999.jsonl"], "1 of the 99999999999 files"),
])  # fmt: skip
def test_a_folder_without_one_of_the_files_that_their_names_count_is_refused(tmp_path: Path, names: list[str], said: str) -> None:
    with pytest.raises(UsageProblem, match=rf"source holds {said}.*; bring the others, or name one file"):
        local_rows(folder_of(tmp_path, *names))
    assert prompts(tmp_path / "source" / names[0]) == [names[0]]


@pytest.mark.parametrize("inside", [False, True])
def test_a_parquet_file_with_two_columns_of_one_name_is_refused(tmp_path: Path, inside: bool) -> None:
    texts = pyarrow.array(["x"])
    table = pyarrow.table([texts, texts, texts], names=["prompt", "chosen", "prompt"])
    if inside:
        turn = pyarrow.StructArray.from_arrays([texts, texts], names=["prompt", "prompt"])
        table = pyarrow.table({"chosen": pyarrow.ListArray.from_arrays([0, 1], turn)})
    pyarrow.parquet.write_table(table, tmp_path / "pairs.parquet")
    with pytest.raises(DataError, match=r"pairs\.parquet: prompt: two columns have this name"):
        local_rows(tmp_path / "pairs.parquet")
