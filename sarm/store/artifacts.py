"""The store: where an artifact is, whether it is whole, and what becomes of one that is not.

`<root>/<kind>/<key[:12]>/` holds the files of an artifact and its `manifest.json`. Beside the kinds lie `.staging` (unfinished
work), `.verified` (stamps of files whose checksums were found right), `.fingerprints`, `.logs` and `.corrupt`.
"""

from __future__ import annotations

import contextlib
import errno
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from sarm.job import KEY_LENGTH, EnvironmentProblem, IntegrityProblem, JobError
from sarm.store.checksums import fingerprint, stamp
from sarm.store.manifest import MANIFEST_NAME, Manifest
from sarm.store.staging import StagingArea
from sarm.store.verification import Ledger, damage, hidden_extras, read_manifest
from sarm.store.whole_files import NO_ROOM, sync

FULL_HASH_BELOW_BYTES = 256 * 1024**2


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


class Labelled(Named, Protocol):
    """A named artifact that can be spoken of, as each of these can."""

    @property
    def label(self) -> str:
        """What a reader calls it."""


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
        self.ledger = Ledger(self.root)

    def path(self, job: Named) -> Path:
        """The folder of an artifact, whether it exists or not."""
        return self._path(job.kind, job.key)

    def _path(self, kind: str, key: str) -> Path:
        return self.root / kind / key[:KEY_LENGTH]

    def log(self, job: Named) -> Path:
        """The log of the unfinished work of a job, or else of its last run; it may not exist."""
        work = self.staging.look(job.kind, job.key)
        kept = self.kept_log(job)
        return work.folder / "log.txt" if work is not None and (work.running or not kept.exists()) else kept

    def kept_log(self, job: Named) -> Path:
        """Where the log of a job's last run is kept."""
        return self.root / ".logs" / f"{job.kind}-{job.key[:KEY_LENGTH]}.txt"

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
        how = "failed" if work.failure else "stopped"
        reason = f"{how} with a checkpoint" if work.checkpoint_time else f"{how} before its first checkpoint"
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

    def absence(self, job: Labelled, *, command: str) -> str:
        """Why there is no whole artifact, and `command`, which fills the gap or builds anew what is damaged; empty where there is one."""
        state = self.state(job)
        return "" if state.status == "present" else f"{job.label}: {state.reason or state.status}; run: {command}"

    def entries(self) -> list[Manifest]:
        """The manifests of all artifacts that have a readable one, by kind and key. Files are not checked."""
        found = (read_manifest(folder) for folder in self.folders())
        return [manifest for manifest in found if isinstance(manifest, Manifest)]

    def unlisted(self, kind: str) -> list[str]:
        """What of a kind is not among the `entries`, since its manifest cannot be read: one line each."""
        found = ((folder, read_manifest(folder)) for folder in self.folders() if folder.parent.name == kind)
        return [f"{kind}/{folder.name}: {wrong}" for folder, wrong in found if isinstance(wrong, str)]

    def problems(self, deep: bool) -> list[str]:
        """What is wrong in the store, one line each; `deep` hashes every file again."""
        lines = []
        for folder in self.folders():
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
        return fingerprint(path, self.ledger.sha256_of)

    def present_or_set_aside(self, job: Named) -> bool:
        """Whether an artifact is there and whole; one that is there and not whole is moved aside, so that what is there is whole."""
        if not self.path(job).exists():
            return False
        if self._examine(job.kind, job.key, everything=False).status == "present":
            return True
        self._set_aside(self.path(job))
        return False

    def publish(self, output: Path, manifest: Manifest) -> None:
        """Make a folder that is what its manifest says an artifact; where a whole one is there already, that one stays."""
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
        self.ledger.remember(manifest.key, {name: stamp(final / name) for name in manifest.files})

    def _examine(self, kind: str, key: str, *, everything: bool) -> ArtifactState:
        folder = self._path(kind, key)
        manifest = read_manifest(folder)
        if isinstance(manifest, str):
            return ArtifactState("corrupt", manifest)
        if manifest.key != key and manifest.key_fits:
            raise IntegrityProblem(f"{kind}/{key[:KEY_LENGTH]} holds the other key {manifest.key}, wanted {key}; move that folder away")
        if (manifest.kind, manifest.key) != (kind, key) or not manifest.key_fits:
            return ArtifactState("corrupt", f"{MANIFEST_NAME} does not fit its key")
        known = self.ledger.stamps(key)
        found, stamps = damage(folder, manifest, {} if everything else known)
        if found:
            self.ledger.forget(key)
            return ArtifactState("corrupt", found)
        if stamps != known:
            self.ledger.remember(key, stamps)
        return ArtifactState("present")

    def _set_aside(self, folder: Path) -> None:
        place = self.root / ".corrupt" / f"{folder.parent.name}-{folder.name}-{secrets.token_hex(4)}"
        place.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            folder.rename(place)

    def folders(self) -> Iterator[Path]:
        """The folders of all artifacts, whole or not."""
        yield from sorted(path for path in self.root.glob("[!.]*/[!.]*") if path.is_dir())

    @contextlib.contextmanager
    def reporting_full_disk(self) -> Iterator[None]:
        """Around what writes to the store: makes its folders; raises EnvironmentProblem where the disk is full or cannot be written."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            (self.root / ".staging").mkdir(exist_ok=True)
            yield
        except OSError as error:
            problem = self.disk_problem(error)
            if problem is None:
                raise
            raise problem from error

    def disk_problem(self, error: BaseException) -> EnvironmentProblem | None:
        """The error for the user where a disk was full or became read-only (as after a disk's own fault); None for any other."""
        if is_full_disk(error):
            return self.space_problem()
        if is_read_only(error):
            return EnvironmentProblem(
                f"the store {self.root} cannot be written (read-only file system); what is there is kept: make it writable, or "
                "choose another with --store, and the same command continues"
            )
        return None

    def space_problem(self) -> EnvironmentProblem:
        """The error for a full disk under the store."""
        free = shutil.disk_usage(self.root).free
        return EnvironmentProblem(
            f"no space left in the store {self.root} ({free:,} bytes free); the work so far is kept: free some space "
            "(`replicate store gc`) and the same command continues"
        )


def is_full_disk(error: BaseException) -> bool:
    """Whether a disk or quota was full; native writers (safetensors, torch) say so only in their text."""
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return True
    return "No space left on device" in str(error) or "os error 28" in str(error)


def is_read_only(error: BaseException) -> bool:
    """Whether a file system cannot be written, which it may become under a running job (a disk's fault, a lost mount)."""
    if isinstance(error, OSError) and error.errno == errno.EROFS:
        return True
    return "Read-only file system" in str(error) or "os error 30" in str(error)
