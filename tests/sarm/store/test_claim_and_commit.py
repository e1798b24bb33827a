from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from make_believe_artifacts import FACTS, JOB, abandon, begin, build, never, silent
from make_believe_jobs import CountConfig

from sarm.job import EnvironmentProblem, IntegrityProblem, Interrupted, Job, JobRequest
from sarm.store import claim_and_commit, staging
from sarm.store.artifacts import ArtifactStore, MissingArtifact
from sarm.store.claim_and_commit import claim, commit, release, try_claim
from sarm.store.staging import Staging


def test_no_home_path_user_or_host_name_enters_the_store(store: ArtifactStore, tmp_path: Path) -> None:
    job = Job(CountConfig(), locations={"file": str(Path.home() / "secret")})
    staged = begin(store, job)
    request = (staged.folder / "request.json").read_text()
    (staged.output / "a").write_text("a")
    commit(store, staged, FACTS)
    manifest = (store.path(job) / "manifest.json").read_text()
    for text in (request, manifest):
        assert "secret" not in text and os.uname().nodename not in text and str(tmp_path) not in text


def test_half_written_staging_is_not_present(store: ArtifactStore) -> None:
    staged = begin(store, JOB)
    (staged.output / "data.txt").write_text("half")
    assert store.state(JOB).status == "interrupted" and store.state(JOB).running
    assert not store.has(JOB) and store.entries() == []
    (staged.checkpoint / "state").write_text("1")
    release(store, staged)
    assert not store.state(JOB).running and "checkpoint" in store.state(JOB).reason
    with pytest.raises(MissingArtifact, match=r"the count .*; run: replicate table1 --profile mini"):
        store.find("count", JOB.key, label="the count", command="replicate table1 --profile mini")


def test_a_link_in_the_output_is_refused(store: ArtifactStore) -> None:
    for target in ("/etc/hostname", "/etc"):
        staged = begin(store, JOB)
        (staged.output / "link").symlink_to(target)
        with pytest.raises(IntegrityProblem, match="link"):
            commit(store, staged, FACTS)
        (staged.output / "link").unlink()
        release(store, staged)


def test_the_work_of_a_dead_owner_is_taken_over_with_its_checkpoint(store: ArtifactStore) -> None:
    old = begin(store, JOB)
    (old.checkpoint / "state").write_text("step 7")
    (old.output / "partial").write_text("p")
    abandon(old)
    new = begin(store, JOB)
    assert (new.checkpoint / "state").read_text() == "step 7" and (new.output / "partial").exists()
    assert not old.folder.exists()


@pytest.mark.parametrize("give_up", [release, lambda store, staged: store.staging.discard(staged)], ids=["released", "discarded"])
def test_work_given_up_on_a_disk_that_cannot_be_written_can_be_claimed_again(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch, give_up: Callable[[ArtifactStore, Staging], None]
) -> None:
    old = begin(store, JOB)
    with monkeypatch.context() as patched:
        for name in ("rename", "unlink", "rmdir"):
            patched.setattr(os, name, refused)
        give_up(store, old)
    assert old.folder.is_dir() and not store.state(JOB).running
    new = claim(store, old.request, waiting=silent, stop_requested=lambda: True)
    assert isinstance(new, Staging) and new.held and not old.folder.exists()


def refused(*_: object, **__: object) -> None:
    raise OSError(errno.EROFS, "Read-only file system")


def test_of_several_dead_stagings_the_newest_checkpoint_wins_and_the_others_go(store: ArtifactStore) -> None:
    old = begin(store, JOB)
    (old.checkpoint / "state").write_text("old")
    os.utime(old.checkpoint / "state", (100, 100))
    dead = abandon(old)
    newer = dead.with_name(staging.FREE + "0")
    (newer / "checkpoint").mkdir(parents=True)
    (newer / "checkpoint" / "state").write_text("new")
    new = begin(store, JOB)
    assert (new.checkpoint / "state").read_text() == "new"
    assert [path.name for path in new.folder.parent.iterdir()] == [new.folder.name]


def test_an_owner_that_was_taken_for_dead_can_no_longer_write_or_commit(store: ArtifactStore) -> None:
    old = begin(store, JOB)
    (old.output / "data").write_text("x")
    dead = abandon(old)
    new = begin(store, JOB)
    assert not dead.exists() and not old.held and new.held
    with pytest.raises(FileNotFoundError):
        (old.output / "data").write_text("late")
    old.output.mkdir(parents=True)
    (old.output / "data").write_text("in a folder made anew")
    with pytest.raises(IntegrityProblem, match="took this work over"):
        commit(store, old, FACTS)
    commit(store, new, FACTS)
    assert store.has(JOB)


def test_a_live_owner_is_waited_for_and_a_stop_request_ends_the_waiting(store: ArtifactStore) -> None:
    held = begin(store, JOB)
    notes: list[str] = []
    answers = iter([False, False, True])
    with pytest.raises(Interrupted):
        claim(store, JobRequest.of(JOB), waiting=notes.append, stop_requested=lambda: next(answers))
    assert len(notes) == 1
    (held.output / "a").write_text("a")
    commit(store, held, FACTS)
    assert claim(store, JobRequest.of(JOB), waiting=silent, stop_requested=never) == "present"


def test_an_owner_on_another_host_lives_as_long_as_its_heartbeat(store: ArtifactStore) -> None:
    held = begin(store, JOB)
    held.heartbeat.stop()
    remote = held.folder.with_name("0123456789-1-1-00000000")
    held.folder.rename(remote)
    assert try_claim(store, JobRequest.of(JOB)) == "held"
    silence = (remote / "heartbeat").stat().st_mtime - 121
    os.utime(remote / "heartbeat", (silence, silence))
    assert isinstance(try_claim(store, JobRequest.of(JOB)), Staging)


def test_a_commit_that_finds_the_artifact_there_discards_its_own(store: ArtifactStore) -> None:
    first = begin(store, JOB)
    (first.output / "a").write_text("a")
    parked = first.folder.rename(store.root / "parked")
    build(store, JOB, "winner")
    (store.root / ".staging" / "count").mkdir(exist_ok=True)
    first.folder.parent.mkdir()
    parked.rename(first.folder)
    commit(store, first, FACTS)
    assert (store.path(JOB) / "deep" / "data.txt").read_text() == "winner"
    assert not first.folder.exists()


def test_work_that_died_between_manifest_and_rename_is_finished_without_running_again(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged = begin(store, JOB)
    (staged.output / "a").write_text("a")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ArtifactStore, "publish", die)
        with pytest.raises(KeyboardInterrupt):
            commit(store, staged, FACTS)
    assert not store.has(JOB)
    abandon(staged)
    assert try_claim(store, JobRequest.of(JOB)) == "present" and store.has(JOB)


def test_a_full_disk_at_commit_keeps_the_work_and_says_so(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    staged = begin(store, JOB)
    (staged.output / "a").write_text("a")
    (staged.checkpoint / "state").write_text("s")

    def full(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(claim_and_commit, "write_whole", full)
        with pytest.raises(EnvironmentProblem, match=r"bytes free.*same command continues") as caught:
            commit(store, staged, FACTS)
    assert caught.value.exit_code == 7 and str(store.root) in str(caught.value)
    assert (staged.checkpoint / "state").exists() and not store.has(JOB)
    commit(store, staged, FACTS)
    assert store.has(JOB)
