"""A chat endpoint that lies: wrong states, bodies that are none, types that nobody promised, answers that never end."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from hostile_values import ESCAPES, changed

Say = Callable[[bytes], None]
DRIP_BYTES = 64 * 2**20
LATE_SECONDS = 2.5


class Served(NamedTuple):
    """Where the endpoint is, and in words how it lies."""

    url: str
    told: str


def completion(text: object = "The first.\n[[A]]") -> dict[str, object]:
    """What an honest endpoint answers."""
    message = {"role": "assistant", "content": text}
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "toy",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }


def _response(body: bytes, *, status: str = "200 OK", length: int | None = None, more: str = "") -> bytes:
    size = len(body) if length is None else length
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n{more}Connection: close\r\n\r\n".encode() + body
    )


HONEST = json.dumps(completion()).encode()
STATES = (
    "400 Bad",
    "401 No",
    "402 Pay",
    "403 No",
    "404 None",
    "408 Late",
    "409 X",
    "413 Large",
    "418 Tea",
    "422 No",
    "429 Wait",
    "451 Law",
)
MORE_STATES = (
    "500 Bad",
    "502 Bad",
    "503 Busy",
    "504 Late",
    "520 X",
    "599 X",
    "204 Nothing",
    "201 Made",
    "299 X",
    "304 Same",
    "000 X",
    "999 X",
)
BODIES = (
    b"",
    b"{",
    b"null",
    b"[]",
    b"<html>",
    b'{"error": 3}',
    b'{"error": {"message": ["\x1b[31m"]}}',
    b"\xff\xfe\x00",
    b'"' + b"x" * 200_000,
)
WORDS = (
    None,
    3,
    [],
    {},
    "",
    "\x00",
    ESCAPES,
    "[[E]]",
    "[[A]] [[B]]",
    "nan",
    "1e999",
    "\ud800",
    "[[A]]" * 50_000,
    [{"type": "text"}],
    [None],
)


def _state(chance: random.Random) -> tuple[bytes, str]:
    state, body = chance.choice(STATES + MORE_STATES), chance.choice(BODIES)
    after = chance.choice(("", "", "Retry-After: -1\r\n", "Retry-After: nan\r\n", "Retry-After: 1e300\r\n", "Retry-After: soon\r\n"))
    return _response(body, status=state, more=after), f"{state} {after.strip()} {body[:20]!r}"


def _redirect(chance: random.Random) -> tuple[bytes, str]:
    state = chance.choice(("301 Moved", "302 Found", "303 See", "307 There", "308 There"))
    place = chance.choice(
        ("/v1/chat/completions", "http://127.0.0.1:9/v1", "https://127.0.0.1:1/", "file:///etc/passwd", "", "http://[", "ftp://x")
    )
    return _response(b"", status=state, more=f"Location: {place}\r\n"), f"{state} to {place!r}"


def _types(chance: random.Random) -> tuple[bytes, str]:
    text, told = changed(completion(), chance)
    return _response(text.encode("utf-8", "replace")), told


def _words(chance: random.Random) -> tuple[bytes, str]:
    words = chance.choice(WORDS)
    return _response(json.dumps(completion(words)).encode()), f"says {str(words)[:30]!r}"


def _usage(chance: random.Random) -> tuple[bytes, str]:
    count = chance.choice((-1, 10**18, 1.5, "10", None, True, [1]))
    return _response(
        json.dumps({**completion(), "usage": {"prompt_tokens": count, "completion_tokens": count}}).encode()
    ), f"usage {count!r}"


def _protocol(chance: random.Random) -> tuple[bytes, str]:
    cut = chance.randrange(len(HONEST))
    kinds = {
        "cut": _response(HONEST[:cut], length=len(HONEST)),
        "longer than said": _response(HONEST, length=cut),
        "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
        "nothing": b"",
        "noise": chance.randbytes(300),
        "head alone": b"HTTP/1.1 200 OK\r\nContent-Le",
        "negative length": _response(HONEST, length=-5),
        "gzip that is none": _response(HONEST, more="Content-Encoding: gzip\r\n"),
        "gzip that is large": _response(gzip.compress(b" " * DRIP_BYTES + HONEST), more="Content-Encoding: gzip\r\n"),
        "unknown encoding": _response(HONEST, more="Content-Encoding: x-none\r\n"),
        "bad chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + HONEST,
        "many heads": _response(HONEST, more="".join(f"X-{place}: {'y' * 500}\r\n" for place in range(300))),
        "UTF-16": _response(HONEST.decode().encode("utf-16")),
        "twice": _response(HONEST * 2),
        "event stream": _response(b"data: " + HONEST + b"\n\ndata: [DONE]\n\n"),
    }
    name = chance.choice(sorted(kinds))
    return kinds[name], name


LIES = (_state, _state, _redirect, _types, _types, _words, _usage, _protocol, _protocol)


def _answering(chance: random.Random) -> tuple[Callable[[Say, int], None], str]:
    """How every request is answered, and that in words. Half of the endpoints lie to every third question alone."""
    seldom = chance.random() < 0.5
    if chance.random() < 0.08:
        pause, told = (LATE_SECONDS, "late") if chance.random() < 0.5 else (0.0, "without an end")
        data = HONEST if pause else b""
    else:
        data, told = chance.choice(LIES)(chance)
        pause = 0.0

    def answer(say: Say, number: int) -> None:
        if seldom and number % 3:
            say(_response(HONEST))
            return
        time.sleep(pause)
        say(_response(data) if pause else data)
        if told == "without an end":
            say(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
            for _ in range(DRIP_BYTES // 2**20):
                say(b" " * 2**20)

    return answer, f"{told}{' (every third)' if seldom else ''}"


@contextmanager
def lying_server(chance: random.Random) -> Iterator[Served]:
    """A server in a fork of its own on a free local port."""
    answer, told = _answering(chance)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        pid = os.fork()
        if not pid:
            _serve(listening, answer)
    try:
        yield Served(url, told)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _serve(listening: socket.socket, answer: Callable[[Say, int], None]) -> None:
    number = 0
    while True:
        connection, _ = listening.accept()
        with connection, suppress(OSError):
            connection.settimeout(20)
            _read_request(connection)
            answer(connection.sendall, number)
            number += 1
            connection.shutdown(socket.SHUT_WR)
            # What the other side still says is read, or closing would take back what was sent.
            connection.settimeout(0.5)
            while connection.recv(65536):
                pass


def _read_request(connection: socket.socket) -> None:
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            return
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    size = len(body)
    while lengths and size < int(lengths[0]):
        part = connection.recv(65536)
        if not part:
            return
        size += len(part)
