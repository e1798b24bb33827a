from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from make_believe_artifacts import JOB, build, flip
from make_believe_jobs import CountConfig

from sarm.job import IntegrityProblem, Job
from sarm.store.archive import export_archive, import_archive
from sarm.store.artifacts import ArtifactStore, MissingArtifact


def test_an_exported_store_can_be_imported_elsewhere_and_is_byte_identical(store: ArtifactStore, tmp_path: Path) -> None:
    other_job = Job(CountConfig(seed=5))
    build(store, JOB)
    build(store, other_job, "abc")
    export_archive(store, "all", tmp_path / "one.tar.gz")
    export_archive(store, [other_job.key, JOB.key], tmp_path / "two.tar.gz")
    assert (tmp_path / "one.tar.gz").read_bytes() == (tmp_path / "two.tar.gz").read_bytes()
    other = ArtifactStore(tmp_path / "other")
    assert {manifest.key for manifest in import_archive(other, tmp_path / "one.tar.gz")} == {JOB.key, other_job.key}
    assert other.has(JOB) and other.problems(deep=True) == [] and other.entries() == store.entries()
    assert import_archive(other, tmp_path / "one.tar.gz") == [], "nothing is overwritten"
    with pytest.raises(MissingArtifact):
        export_archive(store, ["f" * 64], tmp_path / "three.tar.gz")


def test_a_tampered_archive_is_refused_as_a_whole(store: ArtifactStore, tmp_path: Path) -> None:
    folder = build(store, JOB)
    flip(folder / "other.txt")
    with pytest.raises(IntegrityProblem):
        export_archive(store, [JOB.key], tmp_path / "a.tar.gz")
    with tarfile.open(tmp_path / "b.tar.gz", "w:gz") as tar:
        tar.add(folder, arcname=f"count/{folder.name}")
    other = ArtifactStore(tmp_path / "other")
    with pytest.raises(IntegrityProblem, match=r"other\.txt.*nothing was imported"):
        import_archive(other, tmp_path / "b.tar.gz")
    assert other.entries() == [] and not list(other.staging.leftovers())
    (tmp_path / "c.tar.gz").write_bytes((tmp_path / "b.tar.gz").read_bytes()[:200])
    with pytest.raises(IntegrityProblem, match="not a whole"):
        import_archive(other, tmp_path / "c.tar.gz")


@pytest.mark.parametrize("name", ["/etc/evil", "count/../../evil", "../evil", "count/evil", ".staging/a/b", "count/abc/./x"])
def test_an_archive_that_reaches_outside_is_refused(store: ArtifactStore, tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "evil.tar.gz", "w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
    with pytest.raises(IntegrityProblem, match="nothing was imported"):
        import_archive(store, tmp_path / "evil.tar.gz")
    assert not list(tmp_path.rglob("evil"))


def packed(archive: Path, members: list[tuple[str, bytes]]) -> Path:
    """An archive of members of these names and types; links lead to a file outside."""
    with tarfile.open(archive, "w:gz") as tar:
        for name, kind in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            member.linkname = "/etc/passwd" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            member.size = 1 if kind == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(b"x"))
    return archive


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE])
def test_links_and_devices_in_an_archive_are_refused(store: ArtifactStore, tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(IntegrityProblem, match="link or a device; nothing was imported"):
        import_archive(store, packed(tmp_path / "evil.tar.gz", [("count/abc/x", kind)]))
    assert store.entries() == []


@pytest.mark.parametrize("second", ["count/abc/x", "count/abc/x/y"])
def test_two_members_in_one_place_are_refused(store: ArtifactStore, tmp_path: Path, second: str) -> None:
    archive = packed(tmp_path / "evil.tar.gz", [("count/abc/x", tarfile.REGTYPE), (second, tarfile.REGTYPE)])
    with pytest.raises(IntegrityProblem, match="another member's place; nothing was imported"):
        import_archive(store, archive)
    assert store.entries() == [] and not list(store.staging.leftovers())


def test_an_archive_with_a_damaged_byte_is_refused_or_gives_what_it_held(store: ArtifactStore, tmp_path: Path) -> None:
    build(store, JOB)
    export_archive(store, [JOB.key], tmp_path / "good.tar.gz")
    good, refused = (tmp_path / "good.tar.gz").read_bytes(), 0
    for place in range(0, len(good), 7):
        (tmp_path / "bad.tar.gz").write_bytes(good[:place] + bytes([good[place] ^ 0xFF]) + good[place + 1 :])
        other = ArtifactStore(tmp_path / f"other-{place}")
        try:
            import_archive(other, tmp_path / "bad.tar.gz")
        except IntegrityProblem:
            refused += 1
            assert other.entries() == []
        else:
            # What nobody reads: times in gzip's header, its checksum behind the end of the tar file.
            assert other.has(JOB) and other.problems(deep=True) == []
    assert refused > 50
