"""Unfinished work: who owns it, whether the owner lives, and how another process takes it over.

`<area>/<kind>/<key12>/` is the slot of a key; it holds one folder, named by its owner's token, with `output`, `checkpoint`,
`log.txt`, `request.json`, `spent.json`, `heartbeat` and, of work that failed, `failure.txt`. A slot is entered by renaming a
prepared folder onto it, which fails when it is occupied, and taken from a dead owner by renaming the token folder, which
succeeds for one process only and makes the old owner's paths vanish. No file lock is involved.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from sarm.job import KEY_LENGTH, IntegrityProblem, JobRequest

HEARTBEAT_SECONDS = 15.0
SILENCE_SECONDS = 120.0
FREE = "free-"
FAILURE = "failure.txt"
TOKEN = re.compile(r"(?P<host>[0-9a-f]{10})-(?P<pid>\d+)-(?P<start>\d+)-[0-9a-f]{8}")


class Heartbeat:
    """Touches a file every 15 seconds until stopped; `lost` is set when the file is gone, so another process took over."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stopped = threading.Event()
        self.lost = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._stopped.wait(HEARTBEAT_SECONDS):
            try:
                os.utime(self._path)
            except FileNotFoundError:
                self.lost.set()
                return
            except OSError:
                # A network file system may fail for a moment; silence of 120 s is what gives the work away.
                continue

    def stop(self) -> None:
        """End the touching."""
        self._stopped.set()


@dataclass(frozen=True)
class Staging:
    """The folder in which one process does one job."""

    request: JobRequest
    folder: Path
    heartbeat: Heartbeat = field(compare=False)

    @property
    def output(self) -> Path:
        """What becomes the artifact."""
        return self.folder / "output"

    @property
    def checkpoint(self) -> Path:
        """What survives a kill and is not part of the artifact."""
        return self.folder / "checkpoint"

    @property
    def log(self) -> Path:
        """The job's log file."""
        return self.folder / "log.txt"

    @property
    def spent(self) -> Path:
        """Where what its runs took until now is noted."""
        return self.folder / "spent.json"

    @property
    def failure(self) -> Path:
        """Where the line stands with which its last run failed; none of one that was stopped or killed."""
        return self.folder / FAILURE

    @property
    def held(self) -> bool:
        """Whether the folder is still ours: false after another process took it over."""
        return not self.heartbeat.lost.is_set() and (self.folder / "heartbeat").exists()


@dataclass(frozen=True)
class UnfinishedWork:
    """A slot as seen from outside: the full key, its folder, whether its owner lives, the time of its newest checkpoint (0 without).

    `failure` is the line with which its last run failed, empty for one that goes on or was stopped or killed.
    """

    key: str
    folder: Path
    running: bool
    checkpoint_time: float
    failure: str = ""


class StagingArea:
    """All unfinished work below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        # Tokens given up here: where the disk does not let their folders be renamed or removed, these look owned as long as we live.
        self._given_up: set[str] = set()

    def slot(self, kind: str, key: str) -> Path:
        """Where the unfinished work of a key lies."""
        return self.root / kind / key[:KEY_LENGTH]

    def try_claim(self, request: JobRequest) -> Staging | None:
        """Our own folder for this request, with what a dead owner left in it; None while a live owner holds it.

        Raises IntegrityProblem when the slot belongs to another key with the same first 12 digits, OSError from the disk.
        """
        slot = self.slot(request.kind, request.key)
        folders = token_folders(slot)
        if any(self.is_alive(folder) for folder in folders):
            return None
        token = own_token()
        taken = self._take_over(slot, folders, request, token) if folders else self._create(slot, request, token)
        return Staging(request=request, folder=slot / token, heartbeat=Heartbeat(slot / token / "heartbeat")) if taken else None

    def _create(self, slot: Path, request: JobRequest, token: str) -> bool:
        prepared = slot.with_name(f".new-{token}")
        folder = prepared / token
        try:
            for name in ("output", "checkpoint"):
                (folder / name).mkdir(parents=True)
            (folder / "heartbeat").touch()
            shown = request.model_copy(update={"locations": {}})
            (folder / "request.json").write_text(shown.model_dump_json(indent=2) + "\n", encoding="utf-8")
            prepared.rename(slot)
        except OSError as error:
            shutil.rmtree(prepared, ignore_errors=True)
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False
            raise
        return True

    def _take_over(self, slot: Path, folders: list[Path], request: JobRequest, token: str) -> bool:
        newest = max(folders, key=checkpoint_time)
        key = key_in(newest)
        if key not in ("", request.key):
            raise IntegrityProblem(f"{request.kind}/{request.key[:KEY_LENGTH]}: two keys share these digits ({key}); remove {newest}")
        try:
            # Before the rename, so that no third process on another host sees a silent heartbeat under our name.
            (newest / "heartbeat").touch()
            newest.rename(slot / token)
        except FileNotFoundError:
            return False
        for name in ("output", "checkpoint"):
            (slot / token / name).mkdir(exist_ok=True)
        for other in folders:
            if other != newest:
                shutil.rmtree(other, ignore_errors=True)
        return True

    def release(self, staging: Staging) -> Path:
        """Give the work up but keep it: the next process that asks resumes it. Returns the folder it now has."""
        staging.heartbeat.stop()
        self._given_up.add(staging.folder.name)
        free = staging.folder.with_name(FREE + secrets.token_hex(8))
        # Taken over by another, or on a disk that cannot be written: then the name stays, and to others the end of this process frees it.
        with contextlib.suppress(OSError):
            staging.folder.rename(free)
        return free

    def discard(self, staging: Staging) -> None:
        """Remove the work."""
        staging.heartbeat.stop()
        self._given_up.add(staging.folder.name)
        shutil.rmtree(staging.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            staging.folder.parent.rmdir()

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty folder that is gone afterwards; left behind by a dead process it is among the `leftovers`."""
        folder = self.root / "scratch" / f".new-{own_token()}"
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def look(self, kind: str, key: str) -> UnfinishedWork | None:
        """The unfinished work of a key, or None."""
        return self._describe(self.slot(kind, key))

    def all(self) -> Iterator[UnfinishedWork]:
        """All unfinished work."""
        for slot in sorted(self.root.glob("[!.]*/[!.]*")):
            work = self._describe(slot)
            if work is not None:
                yield work

    def leftovers(self) -> list[Path]:
        """Prepared and scratch folders whose maker died."""
        return [folder for folder in sorted(self.root.glob("*/.new-*")) if not self.is_alive(folder)]

    def _describe(self, slot: Path) -> UnfinishedWork | None:
        folders = token_folders(slot)
        if not folders:
            return None
        newest = max(folders, key=checkpoint_time)
        running = [folder for folder in folders if self.is_alive(folder)]
        folder = running[0] if running else newest
        failure = "" if running else _line_in(folder / FAILURE)
        return UnfinishedWork(key_in(folder), folder, running=bool(running), checkpoint_time=checkpoint_time(folder), failure=failure)

    def is_alive(self, folder: Path) -> bool:
        """Whether the owner named by a token folder lives and holds it: its process on this host, or its heartbeat from another."""
        token = folder.name.removeprefix(".new-")
        match = TOKEN.fullmatch(token)
        if match is None or token in self._given_up:
            return False
        if match["host"] == host():
            return start_time(int(match["pid"])) == int(match["start"])
        owned = folder if folder.name == token else folder / token
        try:
            beat = (owned / "heartbeat").stat().st_mtime
        except FileNotFoundError:
            return False
        return self._file_system_time() - beat < SILENCE_SECONDS

    def _file_system_time(self) -> float:
        # Clocks of hosts differ; two times given by the same file system can be compared.
        try:
            with tempfile.TemporaryFile(dir=self.root) as probe:
                probe.write(b"x")
                probe.flush()
                return os.fstat(probe.fileno()).st_mtime
        except OSError:
            # A store that we may only read, or a full one: nothing will be claimed here, so our own clock will do.
            return time.time()


def own_token() -> str:
    """A new token of this process."""
    return f"{host()}-{os.getpid()}-{start_time(os.getpid())}-{secrets.token_hex(4)}"


def _line_in(path: Path) -> str:
    try:
        return " ".join(path.read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return ""


def token_folders(slot: Path) -> list[Path]:
    """The token folders in a slot, sorted; empty when there is no slot."""
    try:
        return sorted(path for path in slot.iterdir() if path.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def checkpoint_time(folder: Path) -> float:
    """Time of the newest file in a token folder's checkpoint, seconds; 0 without one."""
    newest = 0.0
    # `os.walk` leaves out a folder that its owner renames or prunes while we look, where `rglob` raises.
    for parent, _, files in os.walk(folder / "checkpoint"):
        for name in files:
            with contextlib.suppress(OSError):
                newest = max(newest, (Path(parent) / name).stat().st_mtime)
    return newest


def key_in(folder: Path) -> str:
    """The full key in a token folder's request, empty when it cannot be read."""
    try:
        content = json.loads((folder / "request.json").read_text(encoding="utf-8"))
        return str(content["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


@functools.cache
def host() -> str:
    """This host (and its boot and process namespace) as 10 hexadecimal digits, which do not give away its name."""
    facts = [socket.gethostname()]
    for read in (lambda: Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8"), lambda: os.readlink("/proc/self/ns/pid")):
        with contextlib.suppress(OSError):
            facts.append(read())
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()[:10]


def start_time(pid: int) -> int:
    """When a process started, in the system's own ticks; -1 when there is none or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return -1 if fields[0] in "ZX" else int(fields[19])
    except OSError:
        pass
    if Path("/proc/self/stat").exists():
        return -1
    try:
        process = psutil.Process(pid)
        return -1 if process.status() == psutil.STATUS_ZOMBIE else round(process.create_time())
    except psutil.Error:
        return -1
