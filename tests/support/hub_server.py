"""A hub of our own on this machine: repositories in the hub's layout over HTTP, with faults on demand."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

API = re.compile(r"/api/(?P<kind>models|datasets)/(?P<repository>[^/]+/[^/]+)(?:/(?P<verb>revision|tree)/(?P<revision>[^/?]+))?/?(?:\?.*)?")
FILE = re.compile(r"/(?P<kind>datasets/)?(?P<repository>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>[^?]+)(?:\?.*)?")
LARGE = 1000


@dataclass
class Repository:
    """One repository at one commit. Files of at least LARGE bytes are stored as the hub stores large ones, with a SHA-256."""

    files: dict[str, bytes]
    commit: str = "c" * 40
    branches: tuple[str, ...] = ("main",)
    gated: bool = False

    @classmethod
    def of_folder(cls, folder: Path, **settings: Any) -> Repository:
        """The files of a folder."""
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        return cls(files={path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}, **settings)


@dataclass
class Hub:
    """What is served, and what happened: `requests` are (method, path, Range header).

    `corrupt` names files that are sent with a flipped byte; `breaking` those whose connection is cut half-way, so many times.
    """

    models: dict[str, Repository] = field(default_factory=dict)
    datasets: dict[str, Repository] = field(default_factory=dict)
    corrupt: set[str] = field(default_factory=set)
    breaking: dict[str, int] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    endpoint: str = ""

    def sent(self, path: str) -> list[str]:
        """The Range headers of the downloads of a file, empty for a whole one."""
        downloads = [(asked, ranges) for method, asked, ranges in self.requests if method == "GET" and "/resolve/" in asked]
        return [ranges for asked, ranges in downloads if asked.endswith("/" + path)]


class HubServer(ThreadingHTTPServer):
    """A server on a free port of this machine that knows its hub."""

    daemon_threads = True

    def __init__(self, hub: Hub) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.hub = hub


class Handler(BaseHTTPRequestHandler):
    """Answers as the hub does, from what its server holds."""

    server: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Silence."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.server.hub.requests.append((self.command, self.path, self.headers.get("Range", "")))
        if found := API.fullmatch(self.path):
            self._api(**found.groupdict())
        elif found := FILE.fullmatch(self.path):
            self._file(**found.groupdict())
        else:
            self._send(404, b"{}", {})

    def _repository(self, kind: str | None, repository: str, revision: str | None) -> Repository | None:
        hub = self.server.hub
        found = (hub.datasets if (kind or "").startswith("datasets") else hub.models).get(repository)
        if found is None:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            return None
        if revision and revision != found.commit and revision not in found.branches:
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return None
        return found

    def _api(self, *, kind: str, repository: str, verb: str | None, revision: str | None) -> None:
        found = self._repository(kind, repository, revision)
        if found is None:
            return
        if found.gated and verb == "tree":
            self._send(403, b"{}", {"X-Error-Code": "GatedRepo"})
        elif verb == "tree":
            self._send(200, json.dumps([_entry(name, content) for name, content in found.files.items()]).encode(), {})
        else:
            siblings = [{"rfilename": name} for name in found.files]
            self._send(200, json.dumps({"id": repository, "sha": found.commit, "siblings": siblings}).encode(), {})

    def _file(self, *, kind: str | None, repository: str, revision: str, path: str) -> None:
        found = self._repository(kind, repository, revision)
        if found is None:
            return
        if found.gated:
            self._send(403, b"{}", {"X-Error-Code": "GatedRepo"})
            return
        if path not in found.files:
            self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
            return
        content = found.files[path]
        headers = {"X-Repo-Commit": found.commit, "ETag": f'"{_etag(content)}"', "Accept-Ranges": "bytes"}
        if len(content) >= LARGE:
            headers |= {"X-Linked-ETag": headers["ETag"], "X-Linked-Size": str(len(content))}
        if path in self.server.hub.corrupt:
            content = content[:-1] + bytes([content[-1] ^ 1])
        self._content(path, content, headers)

    def _content(self, path: str, content: bytes, headers: dict[str, str]) -> None:
        start = int(self.headers["Range"].removeprefix("bytes=").partition("-")[0]) if self.headers.get("Range") else 0
        if start:
            headers |= {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        if self.command == "GET" and self.server.hub.breaking.get(path, 0) > 0:
            self.server.hub.breaking[path] -= 1
            self._send(206 if start else 200, content[start:], headers, cut=len(content[start:]) // 2)
        else:
            self._send(206 if start else 200, content[start:], headers)

    def _send(self, code: int, content: bytes, headers: dict[str, str], cut: int = 0) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(content[:cut] if cut else content)
        if cut:
            self.wfile.flush()
            self.close_connection = True


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """The hub on a free port of this machine, until the block ends."""
    server = HubServer(hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def _git(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _etag(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() if len(content) >= LARGE else _git(content)


def _entry(name: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": name, "size": len(content), "oid": _git(content)}
    if len(content) >= LARGE:
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return entry
