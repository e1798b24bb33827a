"""How an artifact comes to be: its work is claimed, done in a folder of one's own, and committed or released."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable
from typing import Literal

from sarm.job import IntegrityProblem, Interrupted, JobRequest
from sarm.store.artifacts import ArtifactStore
from sarm.store.manifest import MANIFEST_NAME, Manifest, RunFacts
from sarm.store.staging import Staging
from sarm.store.verification import damage, read_manifest, record_files
from sarm.store.whole_files import write_whole

POLL_SECONDS = 0.5


def claim(
    store: ArtifactStore,
    request: JobRequest,
    *,
    waiting: Callable[[str], None],
    stop_requested: Callable[[], bool],
) -> Staging | Literal["present"]:
    """Our own staging for a request, or `present` when the artifact exists (by now).

    While a live process holds it, `waiting` is told once and we poll. Raises Interrupted on a stop request, EnvironmentProblem
    when the disk is full, IntegrityProblem on a collision of short keys.
    """
    told = False
    while True:
        outcome = try_claim(store, request)
        if outcome != "held":
            return outcome
        if stop_requested():
            raise Interrupted("stopped on request while another process was at work; the same command continues")
        if not told:
            waiting("another process works on it; waiting for its result")
            told = True
        time.sleep(POLL_SECONDS)


def try_claim(store: ArtifactStore, request: JobRequest) -> Staging | Literal["present", "held"]:
    """As `claim` without waiting: `held` while a live process holds the work. A corrupt artifact is moved aside."""
    with store.reporting_full_disk():
        if store.present_or_set_aside(request):
            return "present"
        staging = store.staging.try_claim(request)
        if staging is None:
            return "held"
        # Its last owner may have finished between our look and our claim, or died between manifest and rename.
        if store.present_or_set_aside(request):
            store.staging.discard(staging)
            return "present"
        if _finish(store, staging):
            return "present"
    return staging


def _finish(store: ArtifactStore, staging: Staging) -> bool:
    manifest = read_manifest(staging.output)
    request = staging.request
    if isinstance(manifest, Manifest) and manifest.key == request.key and not damage(staging.output, manifest, {})[0]:
        store.publish(staging.output, manifest)
        _close(store, staging)
        return True
    for leftover in (staging.output / MANIFEST_NAME, *staging.output.glob(".*.partial")):
        leftover.unlink(missing_ok=True)
    return False


def commit(store: ArtifactStore, staging: Staging, facts: RunFacts) -> Manifest:
    """Make the staged output an artifact; if a valid one is there by now, ours is discarded and that one is used.

    Raises IntegrityProblem for links in the output or work that another process took over, EnvironmentProblem on a full disk.
    """
    request = staging.request
    if store.present_or_set_aside(request):
        store.staging.discard(staging)
        return store.manifest(request)
    try:
        with store.reporting_full_disk():
            manifest = Manifest.of(request, record_files(staging.output), facts)
            if not staging.held:
                raise FileNotFoundError(staging.folder)
            write_whole(staging.output / MANIFEST_NAME, manifest.text())
            store.publish(staging.output, manifest)
    except FileNotFoundError as error:
        if staging.held:
            raise
        raise IntegrityProblem(f"{request.label}: another process took this work over; the same command continues") from error
    _close(store, staging)
    return manifest


def release(store: ArtifactStore, staging: Staging) -> None:
    """Give up a staging but keep its work and a copy of its log. Does nothing after `commit`."""
    if staging.folder.exists():
        _keep_log(store, staging)
        store.staging.release(staging)
    staging.heartbeat.stop()


def _close(store: ArtifactStore, staging: Staging) -> None:
    _keep_log(store, staging)
    store.staging.discard(staging)


def _keep_log(store: ArtifactStore, staging: Staging) -> None:
    kept = store.kept_log(staging.request)
    # A log that cannot be kept must not cost the work that it tells of.
    with contextlib.suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(staging.log, kept)
