from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from make_believe_artifacts import JOB, build, flip
from make_believe_jobs import CountConfig, SumConfig

from sarm.job import IntegrityProblem, Job, JobRequest, Resources, UsageProblem
from sarm.store.artifacts import ArtifactStore
from sarm.store.checksums import fingerprint


def test_a_key_does_not_depend_on_order_resources_locations_or_label() -> None:
    a, b = Job(CountConfig(seed=1)), Job(CountConfig(seed=2))
    one = Job(SumConfig(), inputs={"a": a, "b": b}, label="x", resources=Resources(gpus=4), locations={"file": "/tmp/x"})
    two = Job(SumConfig(), inputs={"b": b, "a": a})
    assert one.key == two.key
    assert JobRequest.of(one).key == one.key
    assert Job(SumConfig(), inputs={"a": b, "b": a}).key != one.key
    assert Job(SumConfig(), inputs={"a": a, "b": b}, attempt=1).key != one.key


def test_a_committed_artifact_is_present_and_its_manifest_tells_its_origin(store: ArtifactStore) -> None:
    assert store.state(JOB).status == "missing"
    folder = build(store, JOB)
    assert folder == store.root / "count" / JOB.key[:12]
    assert store.has(JOB) and store.find("count", JOB.key) == folder
    manifest = store.manifest(JOB)
    assert manifest.key == JOB.key and manifest.label == "the count" and set(manifest.files) == {"deep/data.txt", "other.txt"}
    assert manifest.files["deep/data.txt"].bytes == 10 and manifest.started == "2026-01-02T03:04:05+00:00"
    assert "torch" in manifest.packages and manifest.hardware.cpus >= 1
    assert store.entries() == [manifest] and store.problems(deep=True) == []
    assert not list((store.root / ".staging").glob("*/*"))


def test_a_flipped_byte_of_equal_size_is_detected_and_the_artifact_is_rebuilt(store: ArtifactStore) -> None:
    folder = build(store, JOB)
    flip(folder / "deep" / "data.txt")
    state = store.state(JOB)
    assert state.status == "corrupt" and "deep/data.txt" in state.reason
    assert "deep/data.txt" in store.problems(deep=False)[0]
    with pytest.raises(IntegrityProblem, match=r"deep/data\.txt"):
        store.find("count", JOB.key)
    build(store, JOB)
    assert store.has(JOB)
    assert len(list((store.root / ".corrupt").iterdir())) == 1


def test_bytes_changed_behind_the_back_of_the_stamps_are_found_when_a_job_opens_its_input(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(store, JOB)
    monkeypatch.setattr("sarm.store.verification.sha256_of", lambda path: "0" * 64)
    assert store.has(JOB), "untouched files are not hashed again"
    with pytest.raises(IntegrityProblem):
        store.find("count", JOB.key)
    assert store.state(JOB).status == "corrupt", "and the stamps are no longer trusted"


def test_touched_but_equal_files_are_hashed_once_and_stay_present(store: ArtifactStore) -> None:
    folder = build(store, JOB)
    os.utime(folder / "other.txt", (1, 1))
    assert store.has(JOB)
    record = json.loads((store.root / ".verified" / f"{JOB.key}.json").read_text())
    assert record["other.txt"][1] == 10**9


@pytest.mark.parametrize("damage", ["missing", "longer", "extra", "manifest", "no manifest", "key"])
def test_every_damage_is_called_by_its_name(store: ArtifactStore, damage: str) -> None:
    folder = build(store, JOB)
    if damage == "missing":
        (folder / "other.txt").unlink()
    elif damage == "longer":
        (folder / "other.txt").write_text("xx")
    elif damage == "extra":
        (folder / "stray.txt").write_text("x")
    elif damage == "manifest":
        (folder / "manifest.json").write_text("{")
    elif damage == "no manifest":
        (folder / "manifest.json").unlink()
    else:
        text = (folder / "manifest.json").read_text()
        (folder / "manifest.json").write_text(text.replace('"steps": 3', '"steps": 4'))
    state = store.state(JOB)
    named = {"missing": "other.txt", "longer": "2 bytes instead of 1", "extra": "stray.txt", "key": "does not fit its key"}
    assert state.status == "corrupt" and named.get(damage, "manifest.json") in state.reason
    assert len(store.problems(deep=False)) == 1


def test_litter_of_the_file_system_is_reported_but_does_not_spoil_an_artifact(store: ArtifactStore) -> None:
    folder = build(store, JOB)
    (folder / ".DS_Store").write_text("x")
    assert store.has(JOB) and ".DS_Store" in store.problems(deep=False)[0]


def test_a_collision_of_short_keys_is_reported_and_never_used(store: ArtifactStore) -> None:
    build(store, JOB)
    other = JobRequest.of(JOB).model_copy(update={"key": JOB.key[:12] + "f" * 52})
    with pytest.raises(IntegrityProblem, match="other key"):
        store.has(other)


def test_a_fingerprint_follows_content_and_names_and_is_remembered(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "weights"
    (folder / "sub").mkdir(parents=True)
    (folder / "a").write_text("1")
    (folder / "sub" / "b").write_text("2")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "junk").write_text("3")
    for path in ("a", "sub/b"):
        os.utime(folder / path, (1000, 1000))
    first = store.fingerprint(folder)
    assert first == fingerprint(folder)
    with monkeypatch.context() as patch:
        patch.setattr("sarm.store.verification.sha256_of", lambda path: pytest.fail("hashed again"))
        assert store.fingerprint(folder) == first
    (folder / "a").write_text("9")
    assert store.fingerprint(folder) != first
    (folder / "a").write_text("1")
    assert store.fingerprint(folder) == first
    assert str(folder) not in "".join(path.read_text() for path in (store.root / ".fingerprints").iterdir())
    with pytest.raises(UsageProblem, match="does not exist"):
        store.fingerprint(tmp_path / "nowhere")


def test_the_store_imports_no_torch() -> None:
    code = "import sys, sarm.store.artifacts, sarm.jobs.process.lifecycle, sarm.jobs.process.registry; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("target", ["nowhere/blob", "config.json"])
def test_a_folder_with_a_link_that_leads_nowhere_is_refused_by_its_name(tmp_path: Path, target: str) -> None:
    (tmp_path / "model.safetensors").write_text("x")
    (tmp_path / "config.json").symlink_to(target)
    with pytest.raises(UsageProblem, match=r"config\.json is a link that leads to no file"):
        fingerprint(tmp_path)
