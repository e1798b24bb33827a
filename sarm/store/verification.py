"""Whether a folder is what its manifest says, and the memory of what was found right before."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import ValidationError

from sarm.job import IntegrityProblem
from sarm.store.checksums import FileStamp, files_below, sha256_of, stamp
from sarm.store.manifest import MANIFEST_NAME, FileRecord, Manifest
from sarm.store.whole_files import sync, write_whole

HASHERS = 8


def read_manifest(folder: Path) -> Manifest | str:
    """The manifest of a folder, or what is wrong with it."""
    try:
        return Manifest.model_validate_json((folder / MANIFEST_NAME).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return f"{MANIFEST_NAME} is missing"
    except ValidationError as error:
        return f"{MANIFEST_NAME} is not readable ({error.errors()[0]['msg']})"


def record_files(folder: Path) -> dict[str, FileRecord]:
    """Size and checksum of each file below a folder, each flushed to the disk. Raises IntegrityProblem for links, OSError."""
    names = files_below(folder)
    links = [name for name in names if (folder / name).is_symlink()]
    if links:
        raise IntegrityProblem(f"the job wrote a link, {links[0]}; an artifact must hold its own bytes")
    # Hashing leaves the interpreter free, so the shards of a model are hashed side by side.
    with ThreadPoolExecutor(max_workers=min(HASHERS, os.cpu_count() or 1)) as pool:
        return dict(zip(names, pool.map(_recorded, [folder / name for name in names]), strict=True))


def _recorded(path: Path) -> FileRecord:
    sync(path)
    return FileRecord(sha256=sha256_of(path), bytes=path.stat().st_size)


def damage(folder: Path, manifest: Manifest, known: Mapping[str, FileStamp]) -> tuple[str, dict[str, FileStamp]]:
    """What is wrong with the files (empty when nothing is), and their stamps. Files whose stamp is in `known` are not hashed."""
    stamps = {}
    for name, record in manifest.files.items():
        path = folder / name
        if path.is_symlink() or not path.is_file():
            return f"{name} is missing", {}
        found = stamp(path)
        if found.size != record.bytes:
            return f"{name} has {found.size} bytes instead of {record.bytes}", {}
        if known.get(name) != found and sha256_of(path) != record.sha256:
            return f"{name} has another SHA-256 than when it was written", {}
        stamps[name] = found
    extra = [name for name in _extras(folder, manifest) if not Path(name).name.startswith(".")]
    return (f"{extra[0]} does not belong to it", {}) if extra else ("", stamps)


def hidden_extras(folder: Path, manifest: Manifest) -> list[str]:
    """Files with a leading dot that are not in the manifest: litter of file systems, reported but harmless."""
    return [name for name in _extras(folder, manifest) if Path(name).name.startswith(".")]


def _extras(folder: Path, manifest: Manifest) -> list[str]:
    return [name for name in files_below(folder) if name not in manifest.files and name != MANIFEST_NAME]


class Ledger:
    """What was hashed before, kept in a store: only a way to save time, so a note that cannot be read or written is no error."""

    def __init__(self, root: Path) -> None:
        self._verified = root / ".verified"
        self._fingerprints = root / ".fingerprints"

    def stamps(self, key: str) -> dict[str, FileStamp]:
        """The stamps that the files of an artifact had when their checksums were last found right."""
        try:
            content = json.loads((self._verified / f"{key}.json").read_text(encoding="utf-8"))
            return {name: FileStamp(*numbers) for name, numbers in content.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def remember(self, key: str, stamps: Mapping[str, FileStamp]) -> None:
        """Note that all checksums of an artifact were right at these stamps."""
        self._note(self._verified / f"{key}.json", json.dumps(stamps))

    def forget(self, key: str) -> None:
        """Drop the note about an artifact."""
        with contextlib.suppress(OSError):
            (self._verified / f"{key}.json").unlink(missing_ok=True)

    def sha256_of(self, path: Path) -> str:
        """SHA-256 of a file anywhere, hashed again only when its path, size or times changed."""
        before = stamp(path)
        # Only a hash of it is stored: paths of this machine do not enter the store.
        note = self._fingerprints / hashlib.sha256(f"{path.resolve()}\0{before}".encode()).hexdigest()
        with contextlib.suppress(OSError):
            return note.read_text(encoding="utf-8").strip()
        digest = sha256_of(path)
        # A file written a moment ago may be written again within one tick of the file system's clock.
        if stamp(path) == before and time.time_ns() - before.mtime_ns > 2 * 10**9:
            self._note(note, digest + "\n")
        return digest

    @staticmethod
    def _note(path: Path, text: str) -> None:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, text)
