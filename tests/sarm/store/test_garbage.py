from __future__ import annotations

from make_believe_artifacts import begin, build, flip
from make_believe_jobs import CountConfig

from sarm.job import Job
from sarm.store.artifacts import ArtifactStore
from sarm.store.claim_and_commit import release
from sarm.store.garbage import collect_garbage


def test_gc_removes_what_is_not_kept_and_never_work_in_progress(store: ArtifactStore) -> None:
    jobs = [Job(CountConfig(seed=seed)) for seed in range(6)]
    kept, unwanted, corrupt, dead, dead_but_kept, running = jobs
    for job in (kept, unwanted, corrupt):
        build(store, job)
    flip(store.path(corrupt) / "other.txt")
    release(store, begin(store, dead))
    release(store, begin(store, dead_but_kept))
    live = begin(store, running)
    keep = {kept.key, corrupt.key, dead_but_kept.key}
    planned = collect_garbage(store, keep, dry_run=True)
    assert store.path(unwanted).exists() and store.path(corrupt).exists()
    assert {path for path, _ in planned} >= {store.path(unwanted), store.path(corrupt)} and len(planned) == 3
    assert collect_garbage(store, keep, dry_run=False) == planned and all(size > 0 for _, size in planned)
    assert [manifest.key for manifest in store.entries()] == [kept.key]
    assert live.held and store.state(dead).status == "missing" and store.state(dead_but_kept).status == "interrupted"
    assert collect_garbage(store, keep, dry_run=True) == []
