"""Rows in and out: standard input, and files of three formats in which nothing is lost."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch
from folders import ROOT
from hypothesis import given
from hypothesis import strategies as st
from tiny import HIDDEN, llama_config, save_word_tokenizer

from replication.cli.row_files import refuse_other_suffix, write_rows
from sarm.backbone.decoder import truncated_backbone
from sarm.checkpoints.reward_models.layouts import save_reward_model
from sarm.job import EnvironmentProblem, UsageProblem
from sarm.reward.models import SARM
from sarm.sae.model import TopKSAE
from sarm.store.json_lines import read_lines

LATENT = {"latent": 3, "activation": 0.5, "weight": -2.0, "contribution": -1.0}
ROWS: list[dict[str, Any]] = [
    {"id": "a", "reward": 1.5, "tokens": 7, "attribution": [LATENT, LATENT]},
    {"id": 'b,"quoted"\nnext line\r', "reward": math.nan, "tokens": None, "attribution": []},
    {"id": "", "reward": -math.inf, "note": "naïve 你好 \u2028", "attribution": None},
]
SCORED = {"id": "1", "subset": "Safety", "chosen_rewards": [1.0], "rejected_rewards": [0.0, 0.1, 0.2]}


def same(one: Any, other: Any) -> bool:
    return json.dumps(one) == json.dumps(other)


def whole(row: dict[str, Any], names: list[str]) -> dict[str, Any]:
    return {name: row.get(name) for name in names}


def names_of(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def test_parquet_keeps_types_nesting_nan_null_and_every_column(tmp_path: Path) -> None:
    path = tmp_path / "rewards.parquet"
    write_rows(path, ROWS)
    names = names_of(ROWS)
    assert same(pyarrow.parquet.read_table(path).to_pylist(), [whole(row, names) for row in ROWS])


def test_csv_keeps_line_ends_and_tells_null_from_empty_text(tmp_path: Path) -> None:
    path = tmp_path / "rewards.csv"
    write_rows(path, ROWS)
    content = path.read_bytes().decode("utf-8")
    with path.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["id"] for row in rows] == [row["id"] for row in ROWS]
    assert rows[2]["note"] == ROWS[2]["note"] and [row["reward"] for row in rows] == ["1.5", "nan", "-inf"]
    assert [row["tokens"] for row in rows] == ["7", "", ""]
    assert [row["attribution"] and json.loads(row["attribution"]) for row in rows] == [[LATENT, LATENT], [], ""]
    # The empty id is a text, the absent attribution is nothing at all.
    assert '\n"",-inf,,,"' in content


def test_json_lines_are_what_they_were(tmp_path: Path) -> None:
    path = tmp_path / "rewards.jsonl"
    write_rows(path, ROWS)
    assert same([line.value for line in read_lines(path)], ROWS)


@pytest.mark.parametrize("name", ["rewards.txt", "rewards", "rewards.csv.gz", "rewards.json"])
def test_another_suffix_is_refused_with_those_that_are_known(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match=r"--out .*: write to a file that ends with \.jsonl, \.csv, \.parquet"):
        refuse_other_suffix(tmp_path / name)


def test_a_folder_that_is_not_there_and_one_that_takes_no_file_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="there is no folder"):
        refuse_other_suffix(tmp_path / "none" / "a.csv")
    for suffix in ("csv", "parquet", "jsonl"):
        with pytest.raises(EnvironmentProblem, match="cannot be written"):
            write_rows(Path(f"/proc/a.{suffix}"), ROWS)


def test_nothing_is_left_of_a_file_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rewards.parquet"
    path.write_bytes(b"before")

    def torn(table: object, where: str) -> None:
        Path(where).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pyarrow.parquet, "write_table", torn)
    with pytest.raises(EnvironmentProblem, match="No space left on device"):
        write_rows(path, ROWS)
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT)
VALUES = st.recursive(SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(TEXT, inner, max_size=2)), max_leaves=4)


def meant(value: Any) -> Any:
    """A cell's value, or the JSON text in which one stands that has no column of its own type."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


@given(rows=st.lists(st.dictionaries(st.sampled_from(["a", "b", "ç"]), VALUES, min_size=1), min_size=1, max_size=4))
def test_no_row_no_column_and_no_value_is_lost_in_parquet(rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    write_rows(path, rows)
    found = pyarrow.parquet.read_table(path).to_pylist()
    assert len(found) == len(rows)
    for one, row in zip(found, rows, strict=True):
        for name in names_of(rows):
            assert same(one[name], row.get(name)) or same(meant(one[name]), row.get(name))


@given(rows=st.lists(st.fixed_dictionaries({"a": TEXT, "b": VALUES}), min_size=1, max_size=4))
def test_csv_has_one_record_a_row_whatever_the_texts_hold(rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    write_rows(path, rows)
    with path.open(encoding="utf-8", newline="") as lines:
        found = list(csv.DictReader(lines))
    assert [row["a"] for row in found] == [row["a"] for row in rows]


def replicate(*arguments: str, given: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "replication.cli", *arguments]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(cwd), "SARM_STORE": str(cwd / "store")}
    return subprocess.run(command, input=given, capture_output=True, text=True, check=False, cwd=cwd, timeout=200, env=environment)


def test_score_reads_standard_input_and_writes_a_table(tmp_path: Path) -> None:
    asked = ("score", "-", "--benchmark", "rewardbench2")
    done = replicate(*asked, "--out", "scores.csv", given=json.dumps(SCORED) + "\n", cwd=tmp_path)
    assert done.returncode == 0 and not done.stdout, done.stderr
    rows = list(csv.DictReader((tmp_path / "scores.csv").open(encoding="utf-8")))
    safety = next(row for row in rows if row["name"] == "Safety")
    assert (safety["value"], safety["n"], safety["missing"]) == ("1", "1", "")
    assert next(row for row in rows if row["name"] == "Overall")["missing"]
    for content, words in (("", "standard input: no items"), ("{}\n", "standard input:1: "), ("{\n", "standard input:1: ")):
        wrong = replicate(*asked, given=content, cwd=tmp_path)
        assert wrong.returncode == 2 and words in wrong.stderr and "Traceback" not in wrong.stderr and "/tmp" not in wrong.stderr
    wrong = replicate(*asked, "--out", "scores.xlsx", given="", cwd=tmp_path)
    assert wrong.returncode == 2 and ".jsonl, .csv, .parquet" in wrong.stderr


def sarm_folder(folder: Path) -> Path:
    """A tiny SARM as `replicate reward` opens it."""
    torch.manual_seed(0)
    sae = TopKSAE(hidden_size=HIDDEN, n_latents=24, k=4)
    for parameter in sae.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    save_word_tokenizer(folder / "words")
    save_reward_model(folder / "model", SARM(truncated_backbone(llama_config(), 2), sae).eval(), encoder="sae", tokenizer=folder / "words")
    return folder / "model"


@pytest.mark.slow
def test_reward_reads_standard_input_and_writes_what_the_suffix_says(tmp_path: Path) -> None:
    model = sarm_folder(tmp_path)
    turns = [{"role": "user", "content": "tell me"}, {"role": "assistant", "content": "a good dog."}]
    talk = "".join(json.dumps({"id": name, "messages": turns}, ensure_ascii=False) + "\n" for name in ("first", 'sec"ond,\né'))
    asked = ("reward", "--model", str(model), "--input", "-", "--attribution", "--top", "2")
    plain = replicate(*asked, given=talk, cwd=tmp_path)
    assert plain.returncode == 0, plain.stderr
    expected = [json.loads(line) for line in plain.stdout.splitlines()]
    assert len(expected) == 2 and expected[0]["attribution"]
    for suffix in ("csv", "parquet", "jsonl"):
        done = replicate(*asked, "--out", f"r.{suffix}", given=talk, cwd=tmp_path)
        assert done.returncode == 0 and not done.stdout, done.stderr
    assert pyarrow.parquet.read_table(tmp_path / "r.parquet").to_pylist() == expected
    assert [line.value for line in read_lines(tmp_path / "r.jsonl")] == expected
    with (tmp_path / "r.csv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [(row["id"], float(row["reward"]), json.loads(row["attribution"])) for row in rows] == [
        (one["id"], one["reward"], one["attribution"]) for one in expected
    ]
    # The same conversations from a file are the same job.
    (tmp_path / "talk.jsonl").write_text(talk, encoding="utf-8")
    replicate("reward", "--model", str(model), "--input", "talk.jsonl", *asked[5:], given="", cwd=tmp_path)
    assert len(list((tmp_path / "store" / "score_conversations").iterdir())) == 1
    told = replicate(*asked, given=json.dumps({"messages": [{**turns[0], "name": "Ann"}, turns[1]], "per\nsona": "pirate"}), cwd=tmp_path)
    assert "note: columns and keys of messages not read, with the rows that hold them: messages.name (1), per sona (1)\n" in told.stderr
    other = '{"messages": [{"role": "assistant", "content": "a"}], "response": "b"}'
    for content, words in (
        ("", "holds no conversation"), ('{"messages": []}\n', "standard-input:1: messages"), (other, "standard-input:1: response: "),
    ):  # fmt: skip
        wrong = replicate(*asked, given=content, cwd=tmp_path)
        assert wrong.returncode == 2 and words in wrong.stderr and "Traceback" not in wrong.stderr
