"""results.json and the rewards beside it: schema, what never enters, tables from these files alone, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from fake_launcher import FakeLauncher

from replication.pipeline import Outcome, from_scores, replicate
from replication.recipes.setting import Setting
from replication.report.provenance.public_text import public_text
from replication.report.results.model import SCHEMAS, schema_text, schemas
from replication.report.results.reading import ResultsError, read_results, rebuilt
from replication.report.verdicts.diff import load_results
from replication.settings.experiments import EXPERIMENTS
from replication.settings.profile_files import load_profile
from replication.settings.protocols import PROTOCOLS
from sarm.data.preferences import DataError
from sarm.store.artifacts import ArtifactStore


def run(folder: Path, *, experiment: str = "table1", seeds: tuple[int, ...] = (0,), command: str = "replicate table1") -> Outcome:
    setting = Setting(
        experiment=EXPERIMENTS[experiment], profile=load_profile("mini", environment={}), protocol=PROTOCOLS["paper"], seeds=seeds
    )
    store = ArtifactStore(folder / "store")
    return replicate([setting], store, FakeLauncher(), watch=lambda event: None, rendered=folder / "rendered", command=command)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return run(tmp_path).results[0]


def schema(name: str) -> Any:
    return json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))


def test_the_shipped_schemas_are_those_of_the_types() -> None:
    """To write them anew: python -m replication.report.results.model."""
    for name, content in schemas().items():
        assert (SCHEMAS / name).read_text(encoding="utf-8") == schema_text(content), name
    assert {path.name for path in SCHEMAS.iterdir()} == set(schemas())


def test_what_is_written_validates_against_the_shipped_schemas(tmp_path: Path) -> None:
    outcome = run(tmp_path, seeds=(0, 1))
    validator = jsonschema.Draft202012Validator(schema("results"))
    jsonschema.Draft202012Validator.check_schema(schema("rewards"))
    content = json.loads(outcome.results[0].read_text(encoding="utf-8"))
    validator.validate(content)
    assert content["metrics"] and content["rewards"] and content["inputs"] and content["environment"]["dtype"] == "float32"
    line = jsonschema.Draft202012Validator(schema("rewards"))
    files = [path for path in outcome.results if path.suffix == ".jsonl"]
    assert len(files) == len(content["rewards"]) == (3 * 2 + 2) * 3
    for path in files:
        for one in path.read_text(encoding="utf-8").splitlines():
            line.validate(json.loads(one))


def test_a_schema_refuses_text_where_a_number_belongs(results: Path) -> None:
    content = json.loads(results.read_text(encoding="utf-8"))
    content["metrics"][0]["value"] = "79.3"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema("results")).validate(content)


@pytest.mark.parametrize("experiment", ["table1", "table2", "table3"])
@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_every_table_is_rebuilt_byte_for_byte_from_the_results_alone(tmp_path: Path, experiment: str, seeds: tuple[int, ...]) -> None:
    outcome = run(tmp_path, experiment=experiment, seeds=seeds)
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "rendered" / "mini").rename(elsewhere)
    (tmp_path / "store").rename(tmp_path / "gone")
    _, files = from_scores(elsewhere / f"{experiment}.results.json", tmp_path / "again")
    assert {path.name for path in files} == {path.name for path in outcome.files}
    for path in files:
        assert path.read_bytes() == (elsewhere / path.name).read_bytes(), path.name


def test_a_metric_has_its_count_error_and_interval(results: Path) -> None:
    found = {(one.row, one.column): one for one in read_results(results).metrics if one.table == "table1"}
    safety, overall = found["sarm-4b", "Safety"], found["sarm-4b", "Overall"]
    assert (safety.value, safety.n, safety.correct) == (75.0, 4, 3.0)
    assert safety.ci95 is not None and 0 < safety.ci95[0] < 75 < safety.ci95[1] < 100
    assert overall.correct is None and overall.se is not None and overall.ci95 is not None


def test_a_second_run_writes_the_same_results(tmp_path: Path) -> None:
    first = run(tmp_path)
    before = {path: path.read_bytes() for path in first.results}
    assert {path: path.read_bytes() for path in run(tmp_path).results} == before


def test_an_experiment_without_results_says_so_and_holds_no_number(tmp_path: Path) -> None:
    setting = Setting(experiment=EXPERIMENTS["table1"], profile=load_profile("mini", environment={}), protocol=PROTOCOLS["paper"])
    store = ArtifactStore(tmp_path / "store")
    launcher = FakeLauncher(failing="train_sae")
    outcome = replicate([setting], store, launcher, watch=lambda event: None, rendered=tmp_path, command="replicate table1")
    found = read_results(outcome.results[0])
    assert (found.metrics, found.rewards, found.environment.dtype) == ((), (), None)
    with pytest.raises(ResultsError, match="no per-item rewards") as caught:
        rebuilt(found, outcome.results[0].parent)
    assert caught.value.exit_code == 5


def test_the_official_shape_is_written_and_read(tmp_path: Path) -> None:
    outcome = run(tmp_path)
    path = outcome.results[0].parent / "table1" / "rewardbench2" / "sarm-4b.json"
    assert path in outcome.results
    content = json.loads(path.read_text(encoding="utf-8"))
    assert set(content) == {"Factuality", "Precise IF", "Math", "Safety", "Focus", "Ties", "model", "model_type", "chat_template"}
    report = load_results(path)
    assert (report.tables[0].rows[0].name, report.comparable) == ("sarm-4b", False)
    several = run(tmp_path / "more", seeds=(0, 1)).results
    assert {one.name for one in several if one.parent.name == "rewardbench2" and one.stem.startswith("sarm-4b")} == {
        "sarm-4b-0.json",
        "sarm-4b-1.json",
    }


def test_no_home_path_user_name_or_token_enters_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LOGNAME", "alice")
    token = "hf_" + "a" * 20
    outcome = run(tmp_path, command=f"replicate table1 --store {tmp_path}/store --set x={token} --out /scratch/alice/out")
    text = "".join(path.read_text(encoding="utf-8") for path in (*outcome.results, *outcome.files))
    assert str(tmp_path) not in text and token not in text and "alice" not in text
    assert read_results(outcome.results[0]).command == "replicate table1 --store $HOME/store --set x=(token) --out /scratch/$USER/out"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see /home/al/x and /home/alan/x", "see $HOME/x and /home/alan/x"),
        ("--store=/home/al", "--store=$HOME"),
        ("/data/al/x:/data/b", "/data/$USER/x:/data/b"),
        ("allenai/reward-bench and al/x", "allenai/reward-bench and al/x"),
        ("https://host/al/x", "https://host/al/x"),
        ("ghp_" + "b" * 30, "(token)"),
    ],
)
def test_texts_become_public(text: str, shown: str) -> None:
    assert public_text(text, home="/home/al", user="al") == shown


# What cannot be trusted is refused with the documented code, and no table is written.


def edited(results: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(results.read_text(encoding="utf-8"))
    change(content)
    results.write_text(json.dumps(content), encoding="utf-8")


def refused(results: Path, code: int, said: str) -> None:
    again = results.parent.parent / "again"
    with pytest.raises((ResultsError, DataError), match=said) as caught:
        from_scores(results, again)
    assert getattr(caught.value, "exit_code", 2) == code
    assert "\n" not in str(caught.value) and not again.exists()


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (lambda content: content.update(schema_version="2.0"), 6, "schema_version '2.0'"),
        (lambda content: content.pop("schema_version"), 6, "schema_version None"),
        (lambda content: content.update(surprise=1), 6, "surprise"),
        (lambda content: content.pop("seeds"), 6, "seeds"),
        (lambda content: content["metrics"][0].update(value="high"), 2, r"metrics\.0\.value"),
        (lambda content: content["metrics"][0].update(n=0), 2, r"metrics\.0\.n"),
        (lambda content: content["rewards"][0].update(file="../../etc/passwd"), 5, "no such file of rewards"),
        (lambda content: content["rewards"].pop(0), 5, "no rewards of sarm-1b on rewardbench2"),
        (lambda content: content.update(seeds=[0, 1]), 5, "are of seeds"),
    ],
)
def test_a_results_file_that_cannot_be_trusted_is_refused(
    results: Path, change: Callable[[dict[str, Any]], object], code: int, said: str
) -> None:
    edited(results, change)
    refused(results, code, said)


def rewards_of(results: Path, name: str = "sarm-4b-0-rewardbench2") -> Path:
    return results.parent / "table1" / "rewards" / f"{name}.jsonl"


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (lambda lines: lines[:-1], 5, "23 of 24 rows"),
        (lambda lines: [*lines, lines[-1]], 6, "25 rows, 24 stated"),
        (lambda lines: [*lines[:-1], lines[-1].replace("2.0", "2.5")], 6, "SHA-256 differs"),
        (lambda lines: [lines[0], lines[0], *lines[2:]], 2, "already at line 1"),
        (lambda lines: [lines[0].replace('"id": "0", ', ""), *lines[1:]], 2, "id: is missing"),
        (lambda lines: [lines[0].replace("-1.0", '"low"'), *lines[1:]], 2, "a reward is a number"),
        (lambda lines: [lines[0].replace("-1.0", "NaN"), *lines[1:]], 2, "is NaN"),
    ],
)
def test_rewards_that_are_not_what_results_say_are_refused(
    results: Path, change: Callable[[list[str]], list[str]], code: int, said: str
) -> None:
    path = rewards_of(results)
    path.write_text("\n".join(change(path.read_text(encoding="utf-8").splitlines())) + "\n", encoding="utf-8")
    refused(results, code, said)


def test_pairs_with_one_id_twice_are_refused(results: Path) -> None:
    path = rewards_of(results, "sarm-4b-0-evaluation")
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([lines[0], *lines[:-1]]) + "\n", encoding="utf-8")
    refused(results, 2, "is there twice")


def test_a_reward_file_that_is_gone_is_missing(results: Path) -> None:
    rewards_of(results).unlink()
    refused(results, 5, "no such file of rewards")


def test_a_run_of_some_rows_writes_results_of_these_alone(tmp_path: Path) -> None:
    setting = Setting(experiment=EXPERIMENTS["table1"], profile=load_profile("mini", environment={}), protocol=PROTOCOLS["paper"])
    store = ArtifactStore(tmp_path / "store")
    one = replace(setting, rows="sarm-1b")
    outcome = replicate([one], store, FakeLauncher(), watch=lambda event: None, rendered=tmp_path, command="replicate table1")
    assert {entry.model for entry in read_results(outcome.results[0]).rewards} == {"sarm-1b", "length", "bag-of-words"}
