"""What nobody needs any more goes: unwanted and corrupt artifacts, and leftovers of dead processes."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path

from sarm.store.artifacts import ArtifactStore
from sarm.store.checksums import files_below
from sarm.store.manifest import Manifest
from sarm.store.verification import read_manifest


def collect_garbage(store: ArtifactStore, keep: Iterable[str], *, dry_run: bool) -> list[tuple[Path, int]]:
    """Remove (or with `dry_run` only list) artifacts and dead unfinished work whose full key is not in `keep`, corrupt
    artifacts, and leftovers of dead processes. Gives what goes, each with its bytes. Work in progress is never touched.
    """
    kept = set(keep)
    going = [folder for folder in store.folders() if not _worth_keeping(store, folder, kept)]
    going += [work.folder for work in store.staging.all() if not work.running and work.key not in kept]
    going += store.staging.leftovers()
    going += sorted((store.root / ".corrupt").glob("*"))
    sizes = [(folder, sum((folder / name).lstat().st_size for name in files_below(folder))) for folder in going]
    for folder in () if dry_run else going:
        manifest = read_manifest(folder)
        if isinstance(manifest, Manifest):
            store.ledger.forget(manifest.key)
        # Renamed first: an artifact that is half removed must not be seen.
        doomed = store.root / ".corrupt" / f"{secrets.token_hex(8)}"
        doomed.parent.mkdir(exist_ok=True)
        folder.rename(doomed)
        shutil.rmtree(doomed)
    return sizes


def _worth_keeping(store: ArtifactStore, folder: Path, kept: set[str]) -> bool:
    manifest = read_manifest(folder)
    if isinstance(manifest, str) or manifest.key not in kept or folder != store.path(manifest):
        return False
    return store.has(manifest)
