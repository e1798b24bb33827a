from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from make_believe_jobs import CountConfig, SumConfig

from sarm.job import EnvironmentProblem, IntegrityProblem, Interrupted, Job, JobRequest, UsageProblem
from sarm.resources import Resources
from sarm.store import artifacts, staging
from sarm.store.artifacts import ArtifactStore, MissingArtifact
from sarm.store.checksums import fingerprint
from sarm.store.manifest import RunFacts
from sarm.store.staging import Staging

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
FACTS = RunFacts(started=NOW, ended=NOW, seconds=1.5, peak_memory_bytes=1024)


def never() -> bool:
    return False


def silent(note: str) -> None:
    pass


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


def claim(store: ArtifactStore, job: Job) -> Staging:
    staged = store.claim(JobRequest.of(job), waiting=silent, stop_requested=never)
    assert isinstance(staged, Staging)
    return staged


def build(store: ArtifactStore, job: Job, content: str = "0123456789") -> Path:
    staged = claim(store, job)
    (staged.output / "deep").mkdir()
    (staged.output / "deep" / "data.txt").write_text(content)
    (staged.output / "other.txt").write_text("x")
    store.commit(staged, FACTS)
    return store.path(job)


def abandon(staged: Staging) -> Path:
    """Make a staging look as if its process had died: the pid stays, its start time does not fit."""
    staged.heartbeat.stop()
    host, pid, start, nonce = staged.folder.name.split("-")
    dead = staged.folder.with_name(f"{host}-{pid}-{int(start) - 1}-{nonce}")
    staged.folder.rename(dead)
    return dead


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(bytes(data))


JOB = Job(CountConfig(), label="the count")


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


def test_no_home_path_user_or_host_name_enters_the_store(store: ArtifactStore, tmp_path: Path) -> None:
    job = Job(CountConfig(), locations={"file": str(Path.home() / "secret")})
    staged = claim(store, job)
    request = (staged.folder / "request.json").read_text()
    (staged.output / "a").write_text("a")
    store.commit(staged, FACTS)
    manifest = (store.path(job) / "manifest.json").read_text()
    for text in (request, manifest):
        assert "secret" not in text and os.uname().nodename not in text and str(tmp_path) not in text


def test_half_written_staging_is_not_present(store: ArtifactStore) -> None:
    staged = claim(store, JOB)
    (staged.output / "data.txt").write_text("half")
    assert store.state(JOB).status == "interrupted" and store.state(JOB).running
    assert not store.has(JOB) and store.entries() == []
    (staged.checkpoint / "state").write_text("1")
    store.release(staged)
    assert not store.state(JOB).running and "checkpoint" in store.state(JOB).reason
    with pytest.raises(MissingArtifact, match=r"the count .*; run: replicate table1 --profile mini"):
        store.find("count", JOB.key, label="the count", command="replicate table1 --profile mini")


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


def test_a_link_in_the_output_is_refused(store: ArtifactStore) -> None:
    for target in ("/etc/hostname", "/etc"):
        staged = claim(store, JOB)
        (staged.output / "link").symlink_to(target)
        with pytest.raises(IntegrityProblem, match="link"):
            store.commit(staged, FACTS)
        (staged.output / "link").unlink()
        store.release(staged)


def test_the_work_of_a_dead_owner_is_taken_over_with_its_checkpoint(store: ArtifactStore) -> None:
    old = claim(store, JOB)
    (old.checkpoint / "state").write_text("step 7")
    (old.output / "partial").write_text("p")
    abandon(old)
    new = claim(store, JOB)
    assert (new.checkpoint / "state").read_text() == "step 7" and (new.output / "partial").exists()
    assert not old.folder.exists()


def test_of_several_dead_stagings_the_newest_checkpoint_wins_and_the_others_go(store: ArtifactStore) -> None:
    old = claim(store, JOB)
    (old.checkpoint / "state").write_text("old")
    os.utime(old.checkpoint / "state", (100, 100))
    dead = abandon(old)
    newer = dead.with_name(staging.FREE + "0")
    (newer / "checkpoint").mkdir(parents=True)
    (newer / "checkpoint" / "state").write_text("new")
    new = claim(store, JOB)
    assert (new.checkpoint / "state").read_text() == "new"
    assert [path.name for path in new.folder.parent.iterdir()] == [new.folder.name]


def test_an_owner_that_was_taken_for_dead_can_no_longer_write_or_commit(store: ArtifactStore) -> None:
    old = claim(store, JOB)
    (old.output / "data").write_text("x")
    dead = abandon(old)
    new = claim(store, JOB)
    assert not dead.exists() and not old.held and new.held
    with pytest.raises(FileNotFoundError):
        (old.output / "data").write_text("late")
    old.output.mkdir(parents=True)
    (old.output / "data").write_text("in a folder made anew")
    with pytest.raises(IntegrityProblem, match="took this work over"):
        store.commit(old, FACTS)
    store.commit(new, FACTS)
    assert store.has(JOB)


def test_a_live_owner_is_waited_for_and_a_stop_request_ends_the_waiting(store: ArtifactStore) -> None:
    held = claim(store, JOB)
    notes: list[str] = []
    answers = iter([False, False, True])
    with pytest.raises(Interrupted):
        store.claim(JobRequest.of(JOB), waiting=notes.append, stop_requested=lambda: next(answers))
    assert len(notes) == 1
    (held.output / "a").write_text("a")
    store.commit(held, FACTS)
    assert store.claim(JobRequest.of(JOB), waiting=silent, stop_requested=never) == "present"


def test_an_owner_on_another_host_lives_as_long_as_its_heartbeat(store: ArtifactStore) -> None:
    held = claim(store, JOB)
    held.heartbeat.stop()
    remote = held.folder.with_name("0123456789-1-1-00000000")
    held.folder.rename(remote)
    assert store.try_claim(JobRequest.of(JOB)) == "held"
    silence = (remote / "heartbeat").stat().st_mtime - 121
    os.utime(remote / "heartbeat", (silence, silence))
    assert isinstance(store.try_claim(JobRequest.of(JOB)), Staging)


def test_a_commit_that_finds_the_artifact_there_discards_its_own(store: ArtifactStore) -> None:
    first = claim(store, JOB)
    (first.output / "a").write_text("a")
    parked = first.folder.rename(store.root / "parked")
    build(store, JOB, "winner")
    (store.root / ".staging" / "count").mkdir(exist_ok=True)
    first.folder.parent.mkdir()
    parked.rename(first.folder)
    store.commit(first, FACTS)
    assert (store.path(JOB) / "deep" / "data.txt").read_text() == "winner"
    assert not first.folder.exists()


def test_work_that_died_between_manifest_and_rename_is_finished_without_running_again(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged = claim(store, JOB)
    (staged.output / "a").write_text("a")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ArtifactStore, "_publish", die)
        with pytest.raises(KeyboardInterrupt):
            store.commit(staged, FACTS)
    assert not store.has(JOB)
    abandon(staged)
    assert store.try_claim(JobRequest.of(JOB)) == "present" and store.has(JOB)


def test_a_full_disk_at_commit_keeps_the_work_and_says_so(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    staged = claim(store, JOB)
    (staged.output / "a").write_text("a")
    (staged.checkpoint / "state").write_text("s")

    def full(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(artifacts, "write_whole", full)
        with pytest.raises(EnvironmentProblem, match=r"bytes free.*same command continues") as caught:
            store.commit(staged, FACTS)
    assert caught.value.exit_code == 7 and str(store.root) in str(caught.value)
    assert (staged.checkpoint / "state").exists() and not store.has(JOB)
    store.commit(staged, FACTS)
    assert store.has(JOB)


def test_gc_removes_what_is_not_kept_and_never_work_in_progress(store: ArtifactStore) -> None:
    jobs = [Job(CountConfig(seed=seed)) for seed in range(6)]
    kept, unwanted, corrupt, dead, dead_but_kept, running = jobs
    for job in (kept, unwanted, corrupt):
        build(store, job)
    flip(store.path(corrupt) / "other.txt")
    store.release(claim(store, dead))
    store.release(claim(store, dead_but_kept))
    live = claim(store, running)
    keep = {kept.key, corrupt.key, dead_but_kept.key}
    planned = store.gc(keep, dry_run=True)
    assert store.path(unwanted).exists() and store.path(corrupt).exists()
    assert {path for path, _ in planned} >= {store.path(unwanted), store.path(corrupt)} and len(planned) == 3
    assert store.gc(keep, dry_run=False) == planned and all(size > 0 for _, size in planned)
    assert [manifest.key for manifest in store.entries()] == [kept.key]
    assert live.held and store.state(dead).status == "missing" and store.state(dead_but_kept).status == "interrupted"
    assert store.gc(keep, dry_run=True) == []


def test_an_exported_store_can_be_imported_elsewhere_and_is_byte_identical(store: ArtifactStore, tmp_path: Path) -> None:
    other_job = Job(CountConfig(seed=5))
    build(store, JOB)
    build(store, other_job, "abc")
    store.export("all", tmp_path / "one.tar.gz")
    store.export([other_job.key, JOB.key], tmp_path / "two.tar.gz")
    assert (tmp_path / "one.tar.gz").read_bytes() == (tmp_path / "two.tar.gz").read_bytes()
    other = ArtifactStore(tmp_path / "other")
    assert {manifest.key for manifest in other.import_archive(tmp_path / "one.tar.gz")} == {JOB.key, other_job.key}
    assert other.has(JOB) and other.problems(deep=True) == [] and other.entries() == store.entries()
    assert other.import_archive(tmp_path / "one.tar.gz") == [], "nothing is overwritten"
    with pytest.raises(MissingArtifact):
        store.export(["f" * 64], tmp_path / "three.tar.gz")


def test_a_tampered_archive_is_refused_as_a_whole(store: ArtifactStore, tmp_path: Path) -> None:
    folder = build(store, JOB)
    flip(folder / "other.txt")
    with pytest.raises(IntegrityProblem):
        store.export([JOB.key], tmp_path / "a.tar.gz")
    with tarfile.open(tmp_path / "b.tar.gz", "w:gz") as tar:
        tar.add(folder, arcname=f"count/{folder.name}")
    other = ArtifactStore(tmp_path / "other")
    with pytest.raises(IntegrityProblem, match=r"other\.txt.*nothing was imported"):
        other.import_archive(tmp_path / "b.tar.gz")
    assert other.entries() == [] and not list(other.staging.leftovers())
    (tmp_path / "c.tar.gz").write_bytes((tmp_path / "b.tar.gz").read_bytes()[:200])
    with pytest.raises(IntegrityProblem, match="not a whole"):
        other.import_archive(tmp_path / "c.tar.gz")


@pytest.mark.parametrize("name", ["/etc/evil", "count/../../evil", "../evil", "count/evil", ".staging/a/b", "count/abc/./x"])
def test_an_archive_that_reaches_outside_is_refused(store: ArtifactStore, tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "evil.tar.gz", "w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
    with pytest.raises(IntegrityProblem, match="nothing was imported"):
        store.import_archive(tmp_path / "evil.tar.gz")
    assert not list(tmp_path.rglob("evil"))


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
