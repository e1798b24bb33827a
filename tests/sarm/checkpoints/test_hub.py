"""Weights and data from a hub at pinned commits, checked, locked and never asked for again; against a server of our own."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_launcher import commit
from folders import ROOT
from hub_server import Hub, Repository, serving
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
from tiny import TEXTS, causal_lm, job_context, llama_config, save_backbone

import sarm.checkpoints.hub
from replication.hub_fetch import downloads, hub_commit, pin
from replication.launch.slurm.committed_scripts import request
from replication.lock_files import lock_fetched, lock_problems, read_fetched, read_pins
from replication.plan.steps import plan
from replication.recipes.requested import Chosen, experiments_named, settings_for
from replication.settings.profile_files import load_profile
from replication.usage_problems import UsageProblems
from sarm.checkpoints.hub import RECORD, download
from sarm.config.data import DataConfig
from sarm.config.weights import WeightsConfig
from sarm.job import EnvironmentProblem, IntegrityProblem, Job, UsageProblem, topological_order
from sarm.jobs.data.prepare import prepare_data
from sarm.jobs.weights.fetch import fetch_weights
from sarm.store.artifacts import ArtifactStore

COMMIT = "c" * 40
CARD = b"---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: text.jsonl\n---\n"


def rows(texts: tuple[str, ...] = TEXTS) -> bytes:
    return b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts * 10)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    folder = save_backbone(tmp_path / "model")
    models = {"owner/model": Repository.of_folder(folder), "owner/gated": Repository.of_folder(folder, gated=True)}
    datasets = {"owner/text": Repository({"README.md": CARD, "text.jsonl": rows()})}
    with serving(Hub(models=models, datasets=datasets)) as one:
        monkeypatch.setattr(constants, "ENDPOINT", one.endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", one.endpoint + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
        yield one


def weights(target: Path, repository: str = "owner/model", revision: str = COMMIT) -> Path:
    context = job_context(target)
    fetch_weights(WeightsConfig(origin="hub", repository=repository, revision=revision), context)
    return context.output


# --- one repository ----------------------------------------------------------------------------------------------------------


def test_weights_arrive_with_the_checksums_that_the_hub_states(hub: Hub, tmp_path: Path) -> None:
    output = weights(tmp_path / "job")
    record = json.loads((output / RECORD).read_text(encoding="utf-8"))
    assert (record["repository"], record["revision"], record["type"]) == ("owner/model", COMMIT, "model")
    content = hub.models["owner/model"].files["model.safetensors"]
    assert record["files"]["model.safetensors"] == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    assert (output / "model.safetensors").read_bytes() == content and not (output / ".cache").exists()
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= set(record["files"])


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_that_is_not_what_the_hub_says_is_an_integrity_problem_and_is_fetched_again(
    name: str, hub: Hub, tmp_path: Path
) -> None:
    hub.corrupt = {name}
    with pytest.raises(IntegrityProblem, match=f"model owner/model@cccccccccccc: {name} has checksum .*, the hub says .*again") as caught:
        weights(tmp_path / "job")
    assert caught.value.exit_code == 6 and "\n" not in str(caught.value)
    hub.corrupt = set()
    assert (weights(tmp_path / "job") / name).read_bytes() == hub.models["owner/model"].files[name]


def test_a_gated_model_names_the_page_where_its_licence_is_accepted(hub: Hub, tmp_path: Path) -> None:
    expected = r"owner/gated@c{12} is gated: accept its licence at .*/owner/gated, set HF_TOKEN"
    with pytest.raises(EnvironmentProblem, match=expected) as caught:
        weights(tmp_path / "job", "owner/gated")
    assert caught.value.exit_code == 7 and hub.endpoint in str(caught.value)


def test_an_absent_repository_and_an_absent_commit_are_told_apart(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=r"owner/none@.*: no such repository on the hub"):
        weights(tmp_path / "one", "owner/none")
    with pytest.raises(IntegrityProblem, match=r"owner/model@dddddddddddd: the hub has no such commit; .*revisions\.json"):
        weights(tmp_path / "two", revision="d" * 40)


def test_a_connection_that_breaks_goes_on_where_it_broke(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The client keeps whole chunks; ours of 10 MB would need a larger model.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)
    hub.breaking = {"model.safetensors": 1}
    weights(tmp_path / "job")
    first, second = hub.sent("model.safetensors")
    assert first == "" and second.startswith("bytes=") and int(second.removeprefix("bytes=").rstrip("-")) > 0


def test_after_an_interrupted_download_whole_files_are_not_fetched_again(hub: Hub, tmp_path: Path) -> None:
    hub.breaking = {"model.safetensors": 1000}
    with pytest.raises(EnvironmentProblem, match=r"cannot be downloaded .*; run `replicate fetch`"):
        weights(tmp_path / "job")
    before = len(hub.sent("tokenizer.json"))
    assert before == 1
    hub.breaking = {}
    weights(tmp_path / "job")
    assert len(hub.sent("tokenizer.json")) == before


def test_without_a_network_the_command_is_named_at_once(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    began = time.process_time()
    with pytest.raises(EnvironmentProblem, match=r"switched off \(HF_HUB_OFFLINE\)\); run `replicate fetch`"):
        weights(tmp_path / "job")
    # Processor time: other work on the machine must not fail this, and a wait for the network would show as a request.
    assert time.process_time() - began < 1.0 and not hub.requests


def test_rows_of_a_data_set_come_from_checked_files(hub: Hub, tmp_path: Path) -> None:
    config = DataConfig(shape="text", origin="hub", repository="owner/text", revision=COMMIT)
    context = job_context(tmp_path / "job")
    prepare_data(config, context)
    lines = (context.output / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["text"] for line in lines] == list(TEXTS * 10)
    record = json.loads((context.output / RECORD).read_text(encoding="utf-8"))
    assert record["type"] == "dataset" and set(record["files"]) == {"README.md", "text.jsonl"}
    hub.corrupt = {"text.jsonl"}
    with pytest.raises(IntegrityProblem, match=r"dataset owner/text@cccccccccccc: text\.jsonl has checksum"):
        prepare_data(config, job_context(tmp_path / "other"))


def test_only_files_that_fit_the_patterns_are_asked_for(hub: Hub, tmp_path: Path) -> None:
    hub.models["owner/model"].files["pytorch_model.bin"] = b"a pickle" * 1000
    weights(tmp_path / "job")
    assert hub.sent("pytorch_model.bin") == []
    record = download("owner/model", COMMIT, tmp_path / "two", what="model", patterns=["config.json"])
    assert list(record["files"]) == ["config.json"]


ANSWER: Any = SimpleNamespace(headers={}, request=None, status_code=500)


@pytest.mark.parametrize(
    ("trouble", "complaint"),
    [
        (LocalEntryNotFoundError("no network"), r"cannot be downloaded \(LocalEntryNotFoundError\); run `replicate fetch`"),
        (OfflineModeIsEnabled("offline"), r"cannot be downloaded \(the network is switched off .*; run `replicate fetch`"),
        (HTTPError("read timed out"), r"cannot be downloaded \(HTTPError\); run `replicate fetch`"),
        (HfHubHTTPError("500", response=ANSWER), r"cannot be downloaded \(HfHubHTTPError\)"),
        (ConnectionError("reset"), r"cannot be downloaded \(ConnectionError\); run `replicate fetch`"),
    ],
)
def test_trouble_on_the_way_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: Exception, complaint: str
) -> None:
    def listed(*_: Any, **__: Any) -> None:
        raise trouble

    monkeypatch.setattr(sarm.checkpoints.hub, "_listed", listed)
    with pytest.raises(EnvironmentProblem, match=complaint) as refusal:
        weights(tmp_path / "job")
    assert str(refusal.value).startswith("model owner/model@cccccccccccc") and "\n" not in str(refusal.value)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_not_blamed_on_the_network(number: int, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot(*_: Any, **__: Any) -> str:
        raise OSError(number, "No space left on device")

    monkeypatch.setattr(sarm.checkpoints.hub, "snapshot_download", snapshot)
    with pytest.raises(OSError, match="No space left"):
        weights(tmp_path / "job")


def test_a_repository_with_pickles_only_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.models["owner/pickles"] = Repository({"config.json": b"{}", "pytorch_model.bin": b"a pickle"})
    with pytest.raises(UsageProblem, match=r"no model\.safetensors and no model\.safetensors\.index\.json"):
        weights(tmp_path / "job", "owner/pickles")


def test_a_split_that_is_not_there_is_a_mistake_of_the_profile(hub: Hub, tmp_path: Path) -> None:
    config = DataConfig(shape="text", origin="hub", repository="owner/text", revision=COMMIT, split="test")
    with pytest.raises(UsageProblem, match=r"owner/text, split test, at c{40} cannot be read: .*; correct subset and split"):
        prepare_data(config, job_context(tmp_path / "job"))


# --- pins and locks ----------------------------------------------------------------------------------------------------------


def profile_file(tmp_path: Path, *, revision: str = "main", **changes: str) -> Path:
    """A profile whose small backbone and text come from the hub; the rest is the miniature's."""
    text = (ROOT / "replication" / "profiles" / "mini.toml").read_text(encoding="utf-8")
    config = llama_config()
    shape = {name: getattr(config, name) for name in ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads")}
    shape |= {"num_key_value_heads": config.num_key_value_heads, "vocab_size": config.vocab_size}
    repository = changes.get("repository", "owner/model")
    backbone = (
        '[backbones.small]\nstands_for = "Llama-3.2-3B-Instruct"\n'
        f'source = {{ kind = "hub", repository = "{repository}", revision = "{revision}" }}\n'
        f"shape = {{ {', '.join(f'{name} = {value}' for name, value in shape.items())} }}\n"
        "[backbones.small.layers]\n14 = 2\n21 = 3\n[backbones.small.ks]\n144 = 4\n"
    )
    start, end = text.index("[backbones.small]"), text.index("[text]")
    text = text[:start] + backbone + "\n" + text[end:]
    hub_text = f'source = {{ kind = "hub", repository = "owner/text", revision = "{revision}", split = "train", download_gb = 0.5 }}'
    head, _, tail = text.partition("[text]\n")
    tail = "\n".join([hub_text if line.startswith("source") else line for line in tail.split("\n")[:1]] + tail.split("\n")[1:])
    file = tmp_path / "hubbed.toml"
    file.write_text((head + "[text]\n" + tail).replace('name = "mini"', 'name = "hubbed"'), encoding="utf-8")
    return file


def planned(file: Path, store: ArtifactStore) -> Any:
    return plan(settings_for(experiments_named(["table1"]), Chosen(profile=str(file), rows="sarm-1b"), store, {}), store)


def test_branches_are_pinned_to_the_commit_they_are_at(hub: Hub, tmp_path: Path) -> None:
    store, file = ArtifactStore(tmp_path / "store"), profile_file(tmp_path)
    assert pin(load_profile(str(file), environment={}).hub_sources(), store) == {"owner/model@main": COMMIT, "owner/text@main": COMMIT}
    hub.models["owner/model"].commit = "e" * 40
    pinned = load_profile(str(file), environment={}, pins=read_pins(store))
    assert {source.revision for source, _ in pinned.hub_sources()} == {COMMIT} and pin(pinned.hub_sources(), store) == {}
    assert hub_commit("owner/model", "model", "unknown") == "e" * 40


def test_trouble_while_pinning_is_told_in_one_line(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(IntegrityProblem, match="the hub has no revision 'v9'"):
        hub_commit("owner/model", "model", "v9")
    with pytest.raises(EnvironmentProblem, match="model owner/none: cannot be reached"):
        hub_commit("owner/none", "model", "unknown")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(EnvironmentProblem, match="run `replicate fetch` with a network"):
        hub_commit("owner/model", "model", "unknown")


def fetched(store: ArtifactStore, name: str, content: bytes) -> Job:
    """A job whose artifact says that one file came from the hub."""
    job = Job(WeightsConfig(origin="hub", repository="owner/model", revision=COMMIT, pad_token=name))
    files = {"model.safetensors": {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}}
    record = {"repository": "owner/model", "type": "model", "revision": COMMIT, "files": files}
    commit(job, store, lambda output: (output / RECORD).write_text(json.dumps(record), encoding="utf-8"))
    return job


def test_the_lock_file_holds_what_came_and_refuses_another_content_of_the_same_commit(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    one = fetched(store, "a", b"weights")
    assert lock_fetched(store, [one]) == [f"model owner/model@{COMMIT}"] and lock_fetched(store, [one]) == []
    assert read_fetched(store)[f"model owner/model@{COMMIT}"]["model.safetensors"]["bytes"] == len(b"weights")
    assert lock_problems(store) == []
    other = fetched(store, "b", b"other weights")
    with pytest.raises(IntegrityProblem, match=r"model\.safetensors differs from the lock file fetched\.json"):
        lock_fetched(store, [other])
    assert len(lock_problems(store)) == 1


def test_a_broken_lock_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "fetched.json").write_text("[", encoding="utf-8")
    with pytest.raises(UsageProblems, match=r"fetched\.json: not JSON .*replicate fetch"):
        read_fetched(ArtifactStore(tmp_path))


def test_a_dry_run_names_what_would_come_and_how_large_it_is(hub: Hub, tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    file = profile_file(tmp_path)
    pin(load_profile(str(file), environment={}).hub_sources(), store)
    lines = downloads([planned(file, store)])
    assert any(line.startswith("fetch_weights backbone small") for line in lines)
    assert any(line.endswith(", 0.50 GB") and "text corpus" in line for line in lines)


# --- the command -------------------------------------------------------------------------------------------------------------


def replicate(hub: Hub, tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "replication.cli", *arguments]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    own = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"), "SARM_STORE": str(tmp_path / "store"), **environment}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=240, env={**kept, "PYTHONPATH": str(ROOT), **own}
    )


@pytest.mark.slow
def test_fetch_pins_downloads_locks_and_needs_the_network_no_more(hub: Hub, tmp_path: Path) -> None:
    profile = ("--profile", str(profile_file(tmp_path)))
    dry = replicate(hub, tmp_path, "fetch", "table1", *profile, "--dry-run")
    assert dry.returncode == 0 and "pin model owner/model" in dry.stdout and not (tmp_path / "store").exists()
    done = replicate(hub, tmp_path, "fetch", "table1", *profile)
    assert done.returncode == 0, done.stderr
    store = ArtifactStore(tmp_path / "store")
    assert set(read_fetched(store)) == {f"model owner/model@{COMMIT}", f"dataset owner/text@{COMMIT}"}
    asked = len(hub.requests)
    again = replicate(hub, tmp_path, "fetch", "table1", *profile)
    assert again.returncode == 0 and len(hub.requests) == asked, "everything is there: nothing is asked again"
    assert replicate(hub, tmp_path, "verify", "--deep").returncode == 0
    lock = tmp_path / "store" / "fetched.json"
    lock.write_text(lock.read_text(encoding="utf-8").replace('"sha256": "', '"sha256": "0', 1), encoding="utf-8")
    broken = replicate(hub, tmp_path, "verify")
    assert broken.returncode == 6 and "differs from the lock file" in broken.stderr


@pytest.mark.slow
def test_fetch_ends_with_the_documented_codes(hub: Hub, tmp_path: Path) -> None:
    hub.corrupt = {"model.safetensors"}
    corrupt = replicate(hub, tmp_path, "fetch", "table1", "--profile", str(profile_file(tmp_path)))
    assert corrupt.returncode == 6 and "the hub says" in corrupt.stderr and "Traceback" not in corrupt.stderr.split("log:")[0]
    gated = profile_file(tmp_path, revision=COMMIT, repository="owner/gated")
    refused = replicate(hub, tmp_path, "fetch", "table1", "--profile", str(gated))
    assert refused.returncode == 7 and f"accept its licence at {hub.endpoint}/owner/gated" in refused.stderr
    absent = profile_file(tmp_path, revision="d" * 40)
    missing = replicate(hub, tmp_path, "fetch", "table1", "--profile", str(absent))
    assert missing.returncode == 6 and "the hub has no such commit" in missing.stderr


def test_a_run_without_what_was_fetched_stops_at_once_and_names_the_command(hub: Hub, tmp_path: Path) -> None:
    file = profile_file(tmp_path, revision=COMMIT)
    done = replicate(hub, tmp_path, "table1", "--profile", str(file), "--offline", "--allow-dirty")
    assert done.returncode == 7 and f"replicate fetch table1 --profile {file}" in done.stderr
    assert not hub.requests and "Traceback" not in done.stderr


def test_the_check_itself_takes_less_than_a_second(hub: Hub, tmp_path: Path) -> None:
    from replication.plan.refusals import Machine, refuse

    store = ArtifactStore(tmp_path / "store")
    work = planned(profile_file(tmp_path, revision=COMMIT), store)
    began = time.process_time()
    with pytest.raises(EnvironmentProblem, match=r"replicate fetch table1 --profile /.*hubbed\.toml"):
        refuse(planned(profile_file(tmp_path, revision=COMMIT), store), Machine("any", 0, 0.0, 64.0), allow_dirty=True, offline=True)
    assert time.process_time() - began < 1.0 and work.todo


def test_a_file_that_has_gone_from_the_store_is_noticed_in_less_than_a_second(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    file = profile_file(tmp_path, revision=COMMIT)
    for job in planned(file, store).todo:
        if job.kind in ("fetch_weights", "prepare_data"):
            commit(job, store, lambda output: (output / "model.safetensors").write_bytes(b"weights"))
    asked = {"cluster": "a100", "profile": str(file), "store": store, "environment": {}, "allow_dirty": True}
    assert '"kind":"train_sae"' in request("sae_3b", task=0, **asked)
    weights = next(job for job in topological_order(planned(file, store).todo) if job.kind == "fetch_weights")
    (store.path(weights) / "model.safetensors").unlink()
    began = time.process_time()
    with pytest.raises(EnvironmentProblem, match=r"run on the login node: replicate fetch table1 --profile .*hubbed\.toml"):
        request("sae_3b", task=0, **asked)
    assert time.process_time() - began < 1.0


def test_the_model_of_the_hub_is_the_model(hub: Hub, tmp_path: Path) -> None:
    import torch

    from sarm.checkpoints.backbones import load_truncated_backbone

    ids = torch.tensor([[1, 7, 8, 9]])
    cut = load_truncated_backbone(weights(tmp_path / "job"), layer=2, dtype=torch.float32)
    whole = causal_lm(llama_config())(input_ids=ids, output_hidden_states=True).hidden_states[2]
    torch.testing.assert_close(cut(input_ids=ids).last_hidden_state, whole)
