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
