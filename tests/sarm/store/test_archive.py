from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from make_believe_artifacts import JOB, build, flip
from make_believe_jobs import CountConfig

import sarm.store.archive as archive_module
from sarm.job import EnvironmentProblem, IntegrityProblem, Job
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
    with pytest.raises(IntegrityProblem, match=r"^b\.tar\.gz: .*other\.txt.*nothing was imported"):
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
    with pytest.raises(IntegrityProblem, match=r"^evil\.tar\.gz: .*nothing was imported"):
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
    with pytest.raises(IntegrityProblem, match=r"^evil\.tar\.gz: .*link or a device; nothing was imported"):
        import_archive(store, packed(tmp_path / "evil.tar.gz", [("count/abc/x", kind)]))
    assert store.entries() == []


@pytest.mark.parametrize("second", ["count/abc/x", "count/abc/x/y"])
def test_two_members_in_one_place_are_refused(store: ArtifactStore, tmp_path: Path, second: str) -> None:
    archive = packed(tmp_path / "evil.tar.gz", [("count/abc/x", tarfile.REGTYPE), (second, tarfile.REGTYPE)])
    with pytest.raises(IntegrityProblem, match=r"^evil\.tar\.gz: .*another member's place; nothing was imported"):
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


def bomb(archive: Path, folder: Path, *, extra: int = 0, spare: str = "") -> Path:
    """An artifact of which one file is longer by `extra` zeros than its manifest says, and perhaps a file that it does not name."""
    with tarfile.open(archive, "w:gz") as tar:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            content = path.read_bytes() + (b"\0" * extra if path.name == "other.txt" else b"")
            member = tarfile.TarInfo(f"count/{folder.name}/{path.relative_to(folder)}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        if spare:
            tar.addfile(tarfile.TarInfo(f"count/{folder.name}/{spare}"), io.BytesIO())
    return archive


def written_bytes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the members that are unpacked from now on."""
    found: list[str] = []
    extract = archive_module._extract
    monkeypatch.setattr(archive_module, "_extract", lambda tar, member, folder: found.append(member.name) or extract(tar, member, folder))
    return found


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"extra": 20_000_000}, r"other\.txt in the archive has 20,000,001 bytes instead of 1"),
        ({"spare": "spare.bin"}, r"spare\.bin in the archive is not named in its manifest\.json"),
    ],
)
def test_what_the_manifest_does_not_say_is_refused_before_a_byte_is_unpacked(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any], said: str
) -> None:
    archive = bomb(tmp_path / "bomb.tar.gz", build(store, JOB), **how)
    assert archive.stat().st_size < 100_000
    other, unpacked = ArtifactStore(tmp_path / "other"), written_bytes(monkeypatch)
    with pytest.raises(IntegrityProblem, match=f"{said}.*; nothing was imported"):
        import_archive(other, archive)
    assert other.entries() == [] and not unpacked and not list(other.staging.leftovers())


def test_an_archive_that_leaves_no_room_on_the_disk_is_refused_before_a_byte_is_unpacked(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(store, JOB)
    export_archive(store, [JOB.key], tmp_path / "good.tar.gz")
    other, unpacked = ArtifactStore(tmp_path / "other"), written_bytes(monkeypatch)
    free = shutil.disk_usage(tmp_path).free
    monkeypatch.setattr(archive_module, "KEPT_FREE", free - 5)
    monkeypatch.setattr(archive_module.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    with pytest.raises(EnvironmentProblem, match=r"good\.tar\.gz unpacks to more than the 0\.0 GB that the store's disk can spare"):
        import_archive(other, tmp_path / "good.tar.gz")
    assert other.entries() == [] and not unpacked


def test_members_without_number_and_headers_without_end_are_refused(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = bomb(tmp_path / "many.tar.gz", build(store, JOB))
    monkeypatch.setattr(archive_module, "MOST_MEMBERS", 2)
    with pytest.raises(IntegrityProblem, match="more than 2 members"):
        import_archive(ArtifactStore(tmp_path / "other"), archive)
    monkeypatch.undo()
    with tarfile.open(tmp_path / "header.tar.gz", "w:gz", format=tarfile.PAX_FORMAT, compresslevel=1) as tar:
        member = tarfile.TarInfo("count/abc/x")
        member.pax_headers = {"comment": "x" * (1 << 25)}
        tar.addfile(member, io.BytesIO())
    with pytest.raises(IntegrityProblem, match=r"not a whole .*a header of \d+ bytes"):
        import_archive(ArtifactStore(tmp_path / "other"), tmp_path / "header.tar.gz")
