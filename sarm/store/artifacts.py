"""The store: where an artifact is, whether it is whole, and how it comes to be.

`<root>/<kind>/<key[:12]>/` holds the files of an artifact and its `manifest.json`. Beside the kinds lie `.staging` (unfinished
work), `.verified` (stamps of files whose checksums were found right), `.fingerprints`, `.logs` and `.corrupt`.
"""

from __future__ import annotations

import contextlib
import errno
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from sarm.job import KEY_LENGTH, EnvironmentProblem, IntegrityProblem, Interrupted, JobError, JobRequest
from sarm.store.archive import pack, unpack
from sarm.store.checksums import files_below, fingerprint, stamp
from sarm.store.manifest import MANIFEST_NAME, Manifest, RunFacts
from sarm.store.staging import Staging, StagingArea
from sarm.store.verification import Ledger, damage, hidden_extras, read_manifest, record_files
from sarm.store.whole_files import sync, write_whole

FULL_HASH_BELOW_BYTES = 256 * 1024**2
POLL_SECONDS = 0.5


class MissingArtifact(JobError):
    """An artifact that is needed does not exist."""

    exit_code = 5


class Named(Protocol):
    """What names an artifact: a Job, a JobRequest or a Manifest."""

    @property
    def kind(self) -> str:
        """The type of work."""

    @property
    def key(self) -> str:
        """The full key."""


@dataclass(frozen=True)
class ArtifactState:
    """Whether an artifact can be used, and why not. `running`: a live process works on it now."""

    status: Literal["present", "missing", "corrupt", "interrupted"]
    reason: str = ""
    running: bool = False


class ArtifactStore:
    """Artifacts below one folder. Nothing in it is overwritten; what is not whole is not there."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.staging = StagingArea(self.root / ".staging")
        self._ledger = Ledger(self.root)

    def path(self, job: Named) -> Path:
        """The folder of an artifact, whether it exists or not."""
        return self._path(job.kind, job.key)

    def _path(self, kind: str, key: str) -> Path:
        return self.root / kind / key[:KEY_LENGTH]

    def log(self, job: Named) -> Path:
        """The log of the unfinished work of a job, or else of its last run; it may not exist."""
        work = self.staging.look(job.kind, job.key)
        kept = self.root / ".logs" / f"{job.kind}-{job.key[:KEY_LENGTH]}.txt"
        return work.folder / "log.txt" if work is not None and (work.running or not kept.exists()) else kept

    def state(self, job: Named) -> ArtifactState:
        """Whether an artifact is whole. Only files touched since their last check are hashed.

        Raises IntegrityProblem when another key with the same first 12 digits is there.
        """
        if self.path(job).exists():
            return self._examine(job.kind, job.key, everything=False)
        work = self.staging.look(job.kind, job.key)
        if work is None or work.key != job.key:
            return ArtifactState("missing", "never built here")
        if work.running:
            return ArtifactState("interrupted", "another process works on it now", running=True)
        reason = "stopped with a checkpoint" if work.checkpoint_time else "stopped before its first checkpoint"
        return ArtifactState("interrupted", reason)

    def has(self, job: Named) -> bool:
        """Whether an artifact is present and whole."""
        return self.state(job).status == "present"

    def exists(self, kind: str, key: str) -> bool:
        """Whether an artifact is there, whole or not: a look that costs nothing, for who asks again and again."""
        return self._path(kind, key).exists()

    def manifest(self, job: Named) -> Manifest:
        """The manifest of an artifact. Raises MissingArtifact or IntegrityProblem."""
        folder = self.path(job)
        if not folder.exists():
            raise MissingArtifact(f"MissingArtifact: {job.kind}/{job.key[:KEY_LENGTH]} is not in the store; see: replicate store list")
        found = read_manifest(folder)
        if isinstance(found, str):
            raise IntegrityProblem(f"{job.kind}/{job.key[:KEY_LENGTH]}: {found}; the command that built it builds it again")
        return found

    def find(self, kind: str, key: str, *, label: str = "artifact", command: str = "replicate table1") -> Path:
        """The folder of an artifact that is whole: every file is hashed when they are under 256 MB in all, else those touched.

        `label` and `command` (which builds it) go into the message. Raises MissingArtifact or IntegrityProblem.
        """
        name = f"{label} ({kind}/{key[:KEY_LENGTH]})"
        folder = self._path(kind, key)
        if not folder.exists():
            raise MissingArtifact(f"MissingArtifact: {name}; run: {command}")
        manifest = read_manifest(folder)
        small = isinstance(manifest, Manifest) and manifest.bytes < FULL_HASH_BELOW_BYTES
        state = self._examine(kind, key, everything=small)
        if state.status != "present":
            raise IntegrityProblem(f"{name} is corrupt: {state.reason}; it is rebuilt by: {command}")
        return folder

    def entries(self) -> list[Manifest]:
        """The manifests of all artifacts that have a readable one, by kind and key. Files are not checked."""
        found = (read_manifest(folder) for folder in self._folders())
        return [manifest for manifest in found if isinstance(manifest, Manifest)]

    def problems(self, deep: bool) -> list[str]:
        """What is wrong in the store, one line each; `deep` hashes every file again."""
        lines = []
        for folder in self._folders():
            name = f"{folder.parent.name}/{folder.name}"
            manifest = read_manifest(folder)
            if isinstance(manifest, str):
                lines.append(f"{name}: {manifest}")
            elif (manifest.kind, manifest.short_key) != (folder.parent.name, folder.name):
                lines.append(f"{name}: its manifest says {manifest.kind}/{manifest.short_key}")
            else:
                state = self._examine(manifest.kind, manifest.key, everything=deep)
                lines += [f"{name}: {state.reason}"] if state.status != "present" else []
                lines += [f"{name}: {file} does not belong to it" for file in hidden_extras(folder, manifest)]
        return lines

    def fingerprint(self, path: Path) -> str:
        """As `checksums.fingerprint`, remembering in the store what was hashed, by path, size and times."""
        return fingerprint(path, self._ledger.sha256_of)

    def claim(
        self,
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
            outcome = self.try_claim(request)
            if outcome != "held":
                return outcome
            if stop_requested():
                raise Interrupted("stopped on request while another process was at work; the same command continues")
            if not told:
                waiting("another process works on it; waiting for its result")
                told = True
            time.sleep(POLL_SECONDS)

    def try_claim(self, request: JobRequest) -> Staging | Literal["present", "held"]:
        """As `claim` without waiting: `held` while a live process holds the work. A corrupt artifact is moved aside."""
        with self._space_is_reported():
            if self._settle(request):
                return "present"
            staging = self.staging.try_claim(request)
            if staging is None:
                return "held"
            # Its last owner may have finished between our look and our claim, or died between manifest and rename.
            if self._settle(request):
                self.staging.discard(staging)
                return "present"
            if self._finish(staging):
                return "present"
        return staging

    def set_corrupt_aside(self, job: Named) -> None:
        """Move an artifact aside that is there and not whole, so that what is there is whole."""
        self._settle(job)

    def _settle(self, request: Named) -> bool:
        if not self.path(request).exists():
            return False
        if self._examine(request.kind, request.key, everything=False).status == "present":
            return True
        self._set_aside(self.path(request))
        return False

    def _finish(self, staging: Staging) -> bool:
        manifest = read_manifest(staging.output)
        request = staging.request
        if isinstance(manifest, Manifest) and manifest.key == request.key and not damage(staging.output, manifest, {})[0]:
            self._publish(staging.output, manifest)
            self._close(staging)
            return True
        for leftover in (staging.output / MANIFEST_NAME, *staging.output.glob(".*.partial")):
            leftover.unlink(missing_ok=True)
        return False

    def commit(self, staging: Staging, facts: RunFacts) -> Manifest:
        """Make the staged output an artifact; if a valid one is there by now, ours is discarded and that one is used.

        Raises IntegrityProblem for links in the output or work that another process took over, EnvironmentProblem on a full disk.
        """
        request = staging.request
        if self._settle(request):
            self.staging.discard(staging)
            return self.manifest(request)
        try:
            with self._space_is_reported():
                manifest = Manifest.of(request, record_files(staging.output), facts)
                if not staging.held:
                    raise FileNotFoundError(staging.folder)
                write_whole(staging.output / MANIFEST_NAME, manifest.text())
                self._publish(staging.output, manifest)
        except FileNotFoundError as error:
            if staging.held:
                raise
            raise IntegrityProblem(f"{request.label}: another process took this work over; the same command continues") from error
        self._close(staging)
        return manifest

    def release(self, staging: Staging) -> None:
        """Give up a staging but keep its work and a copy of its log. Does nothing after `commit`."""
        if staging.folder.exists():
            self._keep_log(staging)
            self.staging.release(staging)
        staging.heartbeat.stop()

    def _close(self, staging: Staging) -> None:
        self._keep_log(staging)
        self.staging.discard(staging)

    def _keep_log(self, staging: Staging) -> None:
        kept = self.root / ".logs" / f"{staging.request.kind}-{staging.request.key[:KEY_LENGTH]}.txt"
        # A log that cannot be kept must not cost the work that it tells of.
        with contextlib.suppress(OSError):
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(staging.log, kept)

    def gc(self, keep: Iterable[str], dry_run: bool) -> list[tuple[Path, int]]:
        """Remove (or with `dry_run` only list) artifacts and dead unfinished work whose full key is not in `keep`, corrupt
        artifacts, and leftovers of dead processes. Gives what goes, each with its bytes. Work in progress is never touched.
        """
        kept = set(keep)
        going = [folder for folder in self._folders() if not self._worth_keeping(folder, kept)]
        going += [work.folder for work in self.staging.all() if not work.running and work.key not in kept]
        going += self.staging.leftovers()
        going += sorted((self.root / ".corrupt").glob("*"))
        sizes = [(folder, sum((folder / name).lstat().st_size for name in files_below(folder))) for folder in going]
        for folder in () if dry_run else going:
            manifest = read_manifest(folder)
            if isinstance(manifest, Manifest):
                self._ledger.forget(manifest.key)
            # Renamed first: an artifact that is half removed must not be seen.
            doomed = self.root / ".corrupt" / f"{secrets.token_hex(8)}"
            doomed.parent.mkdir(exist_ok=True)
            folder.rename(doomed)
            shutil.rmtree(doomed)
        return sizes

    def _worth_keeping(self, folder: Path, kept: set[str]) -> bool:
        manifest = read_manifest(folder)
        if isinstance(manifest, str) or manifest.key not in kept or folder != self.path(manifest):
            return False
        return self._examine(manifest.kind, manifest.key, everything=False).status == "present"

    def export(self, keys: Iterable[str] | Literal["all"], archive: Path) -> list[Manifest]:
        """Pack artifacts (full keys, or all) into a `.tar.gz`. Raises MissingArtifact, IntegrityProblem or EnvironmentProblem."""
        there = {manifest.key: manifest for manifest in self.entries()}
        wanted = list(there) if keys == "all" else list(dict.fromkeys(keys))
        for key in wanted:
            if key not in there:
                raise MissingArtifact(f"MissingArtifact: {key[:KEY_LENGTH]} is not in the store; see: replicate store list")
        folders = {key: self.find(there[key].kind, key, label=there[key].label) for key in wanted}
        with self._space_is_reported():
            pack([(f"{there[key].kind}/{there[key].short_key}", folder) for key, folder in folders.items()], archive)
        return [there[key] for key in wanted]

    def import_archive(self, archive: Path) -> list[Manifest]:
        """Take in the artifacts of an archive that are not here yet; all are verified before the first one enters.

        Raises IntegrityProblem for an unsafe or damaged archive, EnvironmentProblem on a full disk.
        """
        with self._space_is_reported(), self.staging.scratch() as place:
            checked = [(folder, self._checked_import(folder)) for folder in unpack(archive, place)]
            new = [(folder, manifest) for folder, manifest in checked if not self._settle(manifest)]
            for folder, manifest in new:
                self._publish(folder, manifest)
        return [manifest for _, manifest in new]

    @staticmethod
    def _checked_import(folder: Path) -> Manifest:
        name = f"{folder.parent.name}/{folder.name}"
        manifest = read_manifest(folder)
        if isinstance(manifest, str):
            raise IntegrityProblem(f"{name} in the archive: {manifest}; nothing was imported")
        if (manifest.kind, manifest.short_key) != (folder.parent.name, folder.name) or not manifest.key_fits:
            raise IntegrityProblem(f"{name} in the archive: its manifest does not fit its key; nothing was imported")
        found, _ = damage(folder, manifest, {})
        if found:
            raise IntegrityProblem(f"{name} in the archive: {found}; nothing was imported")
        return manifest

    def _publish(self, output: Path, manifest: Manifest) -> None:
        final = self.path(manifest)
        final.parent.mkdir(parents=True, exist_ok=True)
        for folder in {output, *((output / name).parent for name in manifest.files)}:
            sync(folder)
        try:
            output.rename(final)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            if self._examine(manifest.kind, manifest.key, everything=False).status == "present":
                return
            self._set_aside(final)
            output.rename(final)
        sync(final.parent)
        self._ledger.remember(manifest.key, {name: stamp(final / name) for name in manifest.files})

    def _examine(self, kind: str, key: str, *, everything: bool) -> ArtifactState:
        folder = self._path(kind, key)
        manifest = read_manifest(folder)
        if isinstance(manifest, str):
            return ArtifactState("corrupt", manifest)
        if manifest.key != key and manifest.key_fits:
            raise IntegrityProblem(f"{kind}/{key[:KEY_LENGTH]} holds the other key {manifest.key}, wanted {key}; move that folder away")
        if (manifest.kind, manifest.key) != (kind, key) or not manifest.key_fits:
            return ArtifactState("corrupt", f"{MANIFEST_NAME} does not fit its key")
        known = self._ledger.stamps(key)
        found, stamps = damage(folder, manifest, {} if everything else known)
        if found:
            self._ledger.forget(key)
            return ArtifactState("corrupt", found)
        if stamps != known:
            self._ledger.remember(key, stamps)
        return ArtifactState("present")

    def _set_aside(self, folder: Path) -> None:
        place = self.root / ".corrupt" / f"{folder.parent.name}-{folder.name}-{secrets.token_hex(4)}"
        place.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            folder.rename(place)

    def _folders(self) -> Iterator[Path]:
        yield from sorted(path for path in self.root.glob("[!.]*/[!.]*") if path.is_dir())

    @contextlib.contextmanager
    def _space_is_reported(self) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / ".staging").mkdir(exist_ok=True)
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise self.space_problem() from error

    def space_problem(self) -> EnvironmentProblem:
        """The error for a full disk under the store."""
        free = shutil.disk_usage(self.root).free
        return EnvironmentProblem(
            f"no space left in the store {self.root} ({free:,} bytes free); the work so far is kept: free some space "
            "(`replicate store gc`) and the same command continues"
        )
