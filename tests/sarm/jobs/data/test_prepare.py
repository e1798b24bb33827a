"""Local files and hub data sets, whole, broken and absent, to the files of an artifact."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from folders import DATA

from sarm.config.data import DataConfig
from sarm.data.preferences import Preference, TextDocument, read_jsonl
from sarm.job import EnvironmentProblem, Interrupted, JobContext, Resources, UsageProblem
from sarm.jobs.data.prepare import prepare_data

Row = dict[str, Any]


def context(folder: Path, source: Path | None, *, stop: bool = False, log: Callable[[str], None] = print) -> JobContext:
    output = folder / "output"
    output.mkdir(exist_ok=True)
    return JobContext(
        inputs={},
        output=output,
        checkpoint=folder,
        resources=Resources(),
        locations={} if source is None else {"source": source},
        progress=lambda done, total, unit, note: None,
        stop_requested=lambda: stop,
        log=log,
    )


def config(shape: str, **changes: Any) -> DataConfig:
    return DataConfig.model_validate({"shape": shape, "origin": "file", "revision": "0" * 64, **changes})


def written(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def prepared(folder: Path, source: Path, shape: str, **changes: Any) -> tuple[Path, Row]:
    prepare_data(config(shape, **changes), context(folder, source))
    output = folder / "output"
    return output, json.loads((output / "counts.json").read_text(encoding="utf-8"))


def pair(prompt: str, **changes: Any) -> Row:
    return {"prompt": prompt, "chosen": "yes", "rejected": "no", "source": "s", **changes}


def item(name: str, **changes: Any) -> Row:
    return {"id": name, "prompt": "Q", "chosen": ["a"], "rejected": ["b"], "subset": "Math", **changes}


def styled(name: str) -> Row:
    return {"id": name, "prompt": "Q", "chosen": ["a", "b", "c"], "rejected": ["d", "e", "f"]}


def test_text_keeps_its_order_and_counts_what_is_left_out(tmp_path: Path) -> None:
    source = written(tmp_path / "text.jsonl", [{"body": "one ÿ\u2028", "source": "s"}, {"body": " "}, {"body": "two"}])
    output, counts = prepared(tmp_path, source, "text", text_column="body")
    assert [row.text for row in read_jsonl(output / "corpus.jsonl", TextDocument)] == ["one ÿ\u2028", "two"]
    assert (counts["read"], counts["kept"], counts["dropped"]) == (3, 2, {"empty text": 1})
    assert counts["kept_by_group"] == {"": 1, "s": 1}


@pytest.mark.parametrize(("split", "held_out"), [("none", 0), ("all", 40)])
def test_a_split_may_hold_out_no_pair_or_all(tmp_path: Path, split: str, held_out: int) -> None:
    source = written(tmp_path / "pairs.jsonl", [pair(f"Q{at}") for at in range(40)])
    output, counts = prepared(tmp_path, source, "pairs", evaluation_split=split)
    assert counts["written"] == {"train.jsonl": 40 - held_out, "evaluation.jsonl": held_out}
    assert len(list(read_jsonl(output / "train.jsonl", Preference))) == 40 - held_out


def test_the_hash_rule_separates_prompts(tmp_path: Path) -> None:
    source = written(tmp_path / "pairs.jsonl", [pair(f"Q{at % 30}") for at in range(60)])
    output, _ = prepared(tmp_path, source, "pairs", evaluation_split="prompt-sha256-mod-5")
    sides = [{row.prompt for row in read_jsonl(output / name, Preference)} for name in ("train.jsonl", "evaluation.jsonl")]
    assert sides[0] and sides[1] and not sides[0] & sides[1]


def test_pairs_that_cannot_be_used_are_left_out_and_told(tmp_path: Path) -> None:
    diverging = {"chosen": [{"role": "user", "content": "P"}, {"role": "assistant", "content": "x"}], "rejected": "y"}
    source = written(tmp_path / "pairs.jsonl", [pair("Q"), pair(" "), diverging, pair("R", rejected="yes")])
    lines: list[str] = []
    prepare_data(config("pairs", skip_prompts=True), context(tmp_path, source, log=lines.append))
    counts = json.loads((tmp_path / "output" / "counts.json").read_text(encoding="utf-8"))
    assert counts["dropped"] == {"conversations differ before the last reply": 1, "empty prompt": 1}
    assert (counts["kept"], counts["identical_completions"]) == (2, 1)
    assert lines == ["left out 1 of 4 rows: conversations differ before the last reply", "left out 1 of 4 rows: empty prompt"]


def test_an_empty_prompt_is_refused_unless_asked_to_skip(tmp_path: Path) -> None:
    source = written(tmp_path / "pairs.jsonl", [pair("Q"), pair("")])
    with pytest.raises(UsageProblem, match=r"pairs\.jsonl:2: prompt: is empty.*skip_prompts"):
        prepare_data(config("pairs"), context(tmp_path, source))


def test_jsonl_a_json_list_and_parquet_give_the_same_items(tmp_path: Path) -> None:
    rows = [item("0"), item("1", num_correct=1)]
    whole = tmp_path / "whole.json"
    whole.write_text(json.dumps(rows, indent=1), encoding="utf-8-sig")
    columns = tmp_path / "columns.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"num_correct": None, **row} for row in rows]), columns)
    contents = []
    for source in (written(tmp_path / "lines.jsonl", rows), whole, columns):
        output, _ = prepared(tmp_path, source, "rewardbench2")
        contents.append((output / "rewardbench2.jsonl").read_bytes())
    assert contents[0] and contents[0] == contents[1] == contents[2]


def test_a_folder_gives_its_data_files_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "rmbench"
    for domain in ("safety-refuse", "chat"):
        written(folder / f"{domain}_filtered.json", [styled("1"), styled("2")])
    (folder / "README.md").write_text("words", encoding="utf-8")
    written(folder / ".cache" / "x.json", [{"a": 1}])
    output, counts = prepared(tmp_path, folder, "rmbench")
    assert [row.subset for row in read_jsonl(output / "rmbench.jsonl", Preference)] == ["chat"] * 2 + ["safety-refuse"] * 2
    assert counts["kept_by_group"] == {"chat": 2, "safety-refuse": 2}


def test_a_folder_with_a_whole_and_its_parts_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "rmbench"
    written(folder / "chat_filtered.json", [styled("1")])
    written(folder / "total_dataset.json", [{**styled("1"), "domain": "chat"}])
    with pytest.raises(UsageProblem, match=r"total_dataset\.json:1: id: '1' of chat is already at .*chat_filtered\.json:1"):
        prepare_data(config("rmbench"), context(tmp_path, folder))


def test_only_ties_rows_may_share_an_id(tmp_path: Path) -> None:
    prepared(tmp_path, written(tmp_path / "ties.jsonl", [item("tied:0", subset="Ties")] * 2), "rewardbench2")
    with pytest.raises(UsageProblem, match="already at"):
        prepare_data(config("rewardbench2"), context(tmp_path, written(tmp_path / "math.jsonl", [item("0"), item("0")])))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no row was kept"),
        (b'{"id": "0"}\n', r"rows\.jsonl:1: subset"),
        (b"\n{broken\n", r"rows\.jsonl:2: is no JSON"),
        (b"[{broken]", r"rows\.jsonl:1: is no JSON"),
        (b"3\n", r"rows\.jsonl:1: row: is no object"),
        (b"\xff\xfe\n", "UTF-8"),
        (json.dumps(item("0", num_correct=2)).encode(), r"rows\.jsonl:1: num_correct: says 2"),
        (json.dumps(item("0", prompt="\ud800")).encode(), r"rows\.jsonl:1: holds half of a surrogate pair"),
    ],
)
def test_a_broken_file_is_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_bytes(content)
    with pytest.raises(UsageProblem, match=message) as caught:
        prepare_data(config("rewardbench2"), context(tmp_path, source))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "output" / "counts.json").exists()


def test_broken_parquet_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "rows.parquet"
    source.write_bytes(b"no parquet")
    with pytest.raises(UsageProblem, match=r"rows\.parquet"):
        prepare_data(config("text"), context(tmp_path, source))


@pytest.mark.parametrize("seed", range(40))
def test_parquet_with_flipped_bits_is_refused_in_one_printable_line_or_read(tmp_path: Path, seed: int) -> None:
    source = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"text": "one"}, {"text": "two"}]), source)
    data, chance = bytearray(source.read_bytes()), random.Random(seed)
    for place in chance.sample(range(4, len(data) - 8), 16):
        data[place] ^= 1 << chance.randrange(8)
    source.write_bytes(bytes(data))
    try:
        prepare_data(config("text"), context(tmp_path, source))
    except UsageProblem as problem:
        assert "rows.parquet" in str(problem) and str(problem).isprintable()


def test_a_missing_file_is_a_problem_of_this_machine(tmp_path: Path) -> None:
    for source in (tmp_path / "absent.jsonl", None):
        with pytest.raises(EnvironmentProblem, match=r"source\.path: .*does not exist; mend the path"):
            prepare_data(config("text"), context(tmp_path, source))
    (tmp_path / "empty").mkdir()
    with pytest.raises(EnvironmentProblem, match=r"holds no \.jsonl"):
        prepare_data(config("text"), context(tmp_path, tmp_path / "empty"))


def test_a_stop_request_interrupts(tmp_path: Path) -> None:
    source = written(tmp_path / "text.jsonl", [{"text": "one"}])
    with pytest.raises(Interrupted):
        prepare_data(config("text"), context(tmp_path, source, stop=True))


def test_the_real_data_loads_whole(tmp_path: Path) -> None:
    sources = {"rewardbench2": "rewardbench2/safety.jsonl", "rmbench": "rmbench"}
    for shape, name in sources.items():
        if not (DATA / name).exists():
            pytest.skip(f"no data at {DATA / name}; set SARM_DATA")
        output, counts = prepared(tmp_path, DATA / name, shape)
        assert counts["read"] == counts["kept"] == len(list(read_jsonl(output / f"{shape}.jsonl", Preference))) > 0
