"""`replicate explore`: what goes together, what is not there, and a whole run on a model of a folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import replicate
from explored import explored, item, rewardbench2, save_sarm
from fake_launcher import FakeLauncher, commit
from folders import ROOT
from tiny import HIDDEN, llama_config, pair, save_word_tokenizer, write_rows

from replication import pipeline
from replication.recipes.explorations import ModelFolder, exploration_jobs, file_exploration, folder_exploration
from replication.recipes.jobs_needed import recipe
from replication.recipes.setting import Setting
from replication.report.latents.explorations import opened
from replication.settings.experiments import EXPERIMENTS
from replication.settings.profile_files import load_profile
from replication.settings.protocols import PROTOCOLS
from replication.usage_problems import UsageProblems
from sarm.backbone.decoder import truncated_backbone
from sarm.checkpoints.reward_models.layouts import save_reward_model
from sarm.config.latents import ExplorationConfig
from sarm.job import IntegrityProblem, Job
from sarm.reward.models import DenseRewardModel
from sarm.store.artifacts import ArtifactStore


def setting(rows: str, experiment: str = "table1") -> Setting:
    return Setting(
        experiment=EXPERIMENTS[experiment], profile=load_profile("mini", environment={}), protocol=PROTOCOLS["paper"], rows=rows
    )


def fill(output: Path, source: Path) -> None:
    for path in source.iterdir():
        (output / path.name).write_bytes(path.read_bytes())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with invented artifacts of table 1 in which sarm-4b has been explored, and the rendered table."""
    folder = tmp_path_factory.mktemp("built")
    store = ArtifactStore(folder / "store")
    made = setting("sarm-*")
    pipeline.replicate([made], store, FakeLauncher(), watch=lambda event: None, rendered=folder / "rendered", command="replicate table1")
    source = explored(folder / "explored", save_sarm(folder / "model"), rewardbench2())
    (job,) = exploration_jobs(setting("sarm-4b"), "rewardbench2")
    commit(job, store, lambda output: fill(output, source))
    return folder


def only_line(text: str) -> str:
    (line,) = text.strip().splitlines()
    return line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "nothing given: name one of a ROW of table1, --model DIR or --artifact KEY"),
        (("sarm-4b", "--artifact", "abc"), "ROW and --artifact given: name one of"),
        (("--model", "/none"), "--model /none is no folder"),
        (("sarm-4b", "--benchmark", "hello"), "--benchmark hello: a row is explored on a benchmark of the profile"),
        (("--model", str(ROOT), "--benchmark", "hello"), "--benchmark hello: neither a file nor one of rewardbench2, rmbench, evaluation"),
        (("--artifact", "abc", "--folder", "x", "--explanations", "/none"), "--explanations /none holds no explanations.jsonl"),
        (("nothing",), "--rows nothing: no such row in table1"),
        (("scalar-full", "--experiment", "table2"), "scalar-full: no SAE, so no latents to explore; rows of table2"),
        (("sarm-4b", "--gpus", "1"), "--gpus has no meaning with a ROW"),
        (("--artifact", "abc", "--seeds", "1"), "--seeds has no meaning with --artifact"),
        (("--model", str(ROOT), "--benchmark", str(ROOT / "README.md"), "--profile", "paper"), "--profile has no meaning where --model is"),
        (("--model", str(ROOT), "--shape", "rmbench"), "--shape has no meaning with --model on a benchmark of the profile"),
        (("--artifact", "abc"), "--artifact abc: 0 of the explored models have a key that begins so; there are: none; run: "),
    ],
)
def test_what_does_not_go_together_or_is_not_there_is_one_line(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = replicate("explore", *arguments, "--store", str(tmp_path))
    assert done.returncode == 2 and only_line(done.stderr).startswith(f"replicate: {said}"), done.stderr


def test_a_model_that_was_not_trained_is_told_with_the_command_that_trains_it(tmp_path: Path) -> None:
    done = replicate("explore", "sarm-4b", "--store", str(tmp_path))
    assert done.returncode == 5
    assert only_line(done.stderr) == (
        "replicate: not in the store: reward model sarm-4b, seed 0; run: "
        f"replicate table1 --profile mini --rows sarm-4b --store {tmp_path}"
    )


def test_what_has_been_explored_is_answered_from_the_store_and_written_as_a_folder(built: Path, tmp_path: Path) -> None:
    done = replicate("explore", "sarm-4b", "--store", str(built / "store"), "--folder", str(tmp_path / "pages"))
    assert done.returncode == 0, done.stderr
    assert only_line(done.stdout).startswith("latents of sarm-4b, seed 0, on rewardbench2 (a miniature): 40 latents, of which ")
    key = done.stdout.strip().rpartition("/")[2]
    again = replicate("explore", "--artifact", key[:6], "--store", str(built / "store"), "--folder", str(tmp_path / "again"))
    assert again.stdout == done.stdout
    for name in ("index.html", "explorer.js", "data/index.js", "data/latents-0.js"):
        assert (tmp_path / "pages" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_the_report_takes_what_was_explored_and_names_the_commands_of_the_rest(built: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    done = replicate("report", "--out", str(out), "--rendered", str(built / "rendered"), "--store", str(built / "store"))
    text = out.read_text(encoding="utf-8")
    assert done.returncode == 0 and text.count('class="explorer"') == 1
    assert "Latents of sarm-4b, seed 0, on rewardbench2 (a miniature)" in text
    assert "Not explored: 2 of the models" in text and "replicate explore sarm-1b --profile mini" in text
    assert "replicate explore sarm-4b" not in text
    empty = replicate("report", "--out", str(out), "--rendered", str(built / "rendered"), "--store", str(tmp_path / "none"))
    text = out.read_text(encoding="utf-8")
    assert empty.returncode == 0 and "No latents have been explored yet; run: <code>replicate explore ROW</code>" in text


def understood_by_none(folder: Path) -> None:
    """Whole, but of another shape."""


def changed_since(folder: Path) -> None:
    (folder / "exploration.json").write_text("[]")


def cut_short(folder: Path) -> None:
    (folder / "exploration.json").write_text("{")


def torn_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("{")


@pytest.mark.parametrize("damage", [understood_by_none, changed_since, cut_short, torn_manifest])
def test_the_report_is_written_without_an_exploration_that_it_cannot_use(damage: Callable[[Path], None], tmp_path: Path) -> None:
    store, (job,) = ArtifactStore(tmp_path / "store"), exploration_jobs(setting("sarm-4b"), "rewardbench2")
    pipeline.replicate([setting("sarm-*")], store, FakeLauncher(), watch=lambda event: None, rendered=tmp_path / "rendered", command="")
    commit(job, store, lambda output: (output / "exploration.json").write_text("{}"))
    damage(store.path(job))
    out = tmp_path / "report.html"
    done = replicate("report", "--out", str(out), "--rendered", str(tmp_path / "rendered"), "--store", str(tmp_path / "store"))
    text = out.read_text(encoding="utf-8")
    assert done.returncode == 6 and "1 reports in" in done.stderr and "Traceback" not in done.stderr
    assert only_line(done.stderr.partition("report.html\n")[2]).startswith("replicate: left out of the page: ")
    assert f"explore_latents/{job.short_key}: " in text and 'class="explorer"' not in text
    assert "SARM-4B" in text and "No latents have been explored yet" not in text
    if damage in (changed_since, cut_short):
        named = replicate("explore", "--artifact", job.short_key, "--store", str(tmp_path / "store"))
        assert named.returncode == 6 and "is corrupt: exploration.json has" in only_line(named.stderr) and "Traceback" not in named.stderr


def test_damaged_explanations_are_told_and_older_ones_do_not_stand_in_for_them(tmp_path: Path) -> None:
    store, (job,) = ArtifactStore(tmp_path / "store"), exploration_jobs(setting("sarm-4b"), "rewardbench2")
    source = explored(tmp_path / "explored", save_sarm(tmp_path / "model"), rewardbench2())
    pipeline.replicate([setting("sarm-4b")], store, FakeLauncher(), watch=lambda event: None, rendered=tmp_path / "rendered", command="")
    commit(job, store, lambda output: fill(output, source))
    (training,) = recipe(setting("sarm-4b", "features")).trainings
    assert training.explanation is not None
    older = replace(training.explanation, config=training.explanation.config.model_copy(update={"positive": 3}))
    assert older.key != training.explanation.key
    commit(older, store, lambda output: write_lines(output, []))
    commit(training.explanation, store, lambda output: write_lines(output, []))
    (store.path(training.explanation) / "explanations.jsonl").write_text("[]")
    with pytest.raises(IntegrityProblem, match=r"explanations\.jsonl has 2 bytes instead of 0.*replicate features"):
        opened(store, store.manifest(job))


def test_what_was_explored_is_kept_as_long_as_its_model_is(built: Path) -> None:
    done = replicate("store", "gc", "--keep-profile", "mini", "--dry-run", "--store", str(built / "store"))
    assert done.returncode == 0 and "explore_latents" not in done.stdout, done.stdout
    assert ArtifactStore(built / "store").entries() and (built / "store" / "explore_latents").is_dir()


def test_explanations_of_the_same_model_are_found_in_the_store(built: Path, tmp_path: Path) -> None:
    store = ArtifactStore(built / "store")
    (training,) = recipe(setting("sarm-4b", "features")).trainings
    assert training.explanation is not None
    said = {"explanation": "a kind of cat", "score": 4, "status": "explained", "contexts": [], "detection": None}
    line = {"latent": 39, "group": "positive", **said}
    control = {**line, "group": "control-positive", "explanation": "of another model"}
    commit(training.explanation, store, lambda output: write_lines(output, [line, control]))
    replicate("explore", "sarm-4b", "--store", str(built / "store"), "--folder", str(tmp_path))
    text = (tmp_path / "data" / "index.js").read_text()
    assert "a kind of cat" in text and "of another model" not in text


def write_lines(output: Path, rows: list[dict[str, object]]) -> None:
    (output / "explanations.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))


def test_exploring_is_no_part_of_any_experiment_and_takes_a_row_s_own_conditions() -> None:
    (job,) = exploration_jobs(setting("sarm-4b"), "rmbench")
    assert isinstance(job.config, ExplorationConfig) and job.config.benchmark == "rmbench"
    (training,) = recipe(setting("sarm-4b")).trainings
    assert job.inputs["model"] == training.model and job.key not in {one.key for one in recipe(setting("sarm-4b")).jobs}
    score = training.scores["rmbench"].config
    for name in ("max_length", "dtype", "bos", "attention", "batch_tokens", "formatting"):
        assert getattr(job.config, name) == getattr(score, name)


def test_a_folder_is_known_by_its_files_and_a_file_by_its_content(tmp_path: Path) -> None:
    model = ModelFolder(tmp_path / "model", "d1")
    one = folder_exploration(setting(""), model, "rewardbench2", gpus=0)
    moved = folder_exploration(setting(""), ModelFolder(tmp_path / "elsewhere", "d1"), "rewardbench2", gpus=1)
    other = folder_exploration(setting(""), ModelFolder(tmp_path / "model", "d2"), "rewardbench2", gpus=0)
    assert one.key == moved.key != other.key
    file = file_exploration(model, tmp_path / "pairs.jsonl", "pairs", digest=lambda path: "x", gpus=0)
    assert file.inputs["benchmark"].kind == "prepare_data" and getattr(file.config, "benchmark", "") == "evaluation"
    without = load_profile("mini", environment={}).model_copy(update={"benchmarks": {}})
    with pytest.raises(UsageProblems, match="profile mini has no benchmark"):
        folder_exploration(replace(setting(""), profile=without), model, "rmbench", gpus=0)


def pairs_file(folder: Path) -> Path:
    write_rows(folder, "pairs.jsonl", [pair(n, chosen=f"a {end} dog.") for n, end in enumerate(("good", "fine", "red", "blue"))])
    return folder / "pairs.jsonl"


@pytest.mark.slow
def test_a_model_of_a_folder_on_a_file_of_pairs_and_on_other_shapes(tmp_path: Path) -> None:
    model, store = save_sarm(tmp_path / "model"), str(tmp_path / "store")
    done = run("explore", "--model", str(model), "--benchmark", str(pairs_file(tmp_path)), "--store", store)
    assert done.returncode == 0, done.stderr
    assert only_line(done.stdout).startswith("latents of model on pairs.jsonl: 40 latents") and "4 items with 8 completions" in done.stdout
    write_rows(tmp_path, "bench.jsonl", [item(1, "Safety"), item(2, "Math")])
    refused = run("explore", "--model", str(model), "--benchmark", str(tmp_path / "bench.jsonl"), "--store", store)
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    dense = tmp_path / "dense"
    save_word_tokenizer(dense)
    save_reward_model(dense, DenseRewardModel(truncated_backbone(llama_config(), 2), hidden_size=HIDDEN), encoder="none", tokenizer=dense)
    without = run("explore", "--model", str(dense), "--benchmark", str(tmp_path / "pairs.jsonl"), "--store", store)
    assert without.returncode == 2 and "needs a SARM or a linear head on latents" in without.stderr and "Traceback" not in without.stderr


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command as a process that may start jobs."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "replication.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)


def test_a_job_of_a_folder_has_no_path_in_its_key_or_config(tmp_path: Path) -> None:
    job: Job = folder_exploration(setting(""), ModelFolder(tmp_path / "secret-place", "d1"), "rewardbench2", gpus=0)
    assert "secret-place" not in json.dumps(job.config.content())
