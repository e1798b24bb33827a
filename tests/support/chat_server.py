"""A local chat endpoint that answers well or misbehaves, request by request."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from sarm.judges.settings import EndpointSettings

KEY = "sk-very-secret-0123456789"


def completion(
    text: Any, *, finish: str | None = None, model: str | None = None, beside: dict[str, Any] | None = None, **usage: Any
) -> bytes:
    """The body of a chat completion; `finish` is its finish_reason, `beside` further keys of the message."""
    counts = {"prompt_tokens": 10, "completion_tokens": 5, **usage}
    choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": text, **(beside or {})}}
    choice |= {"finish_reason": finish} if finish is not None else {}
    told = {"model": model} if model is not None else {}
    return json.dumps({"id": "1", "object": "chat.completion", "choices": [choice], "usage": counts, **told}).encode()


def refusal(status: int, message: str, **more: Any) -> tuple[int, dict[str, str], bytes]:
    """A step of a script: an error as OpenAI's servers tell it."""
    return status, {"Retry-After": "0.01"}, json.dumps({"error": {"message": message, **more}}).encode()


def sensible(request: dict[str, Any]) -> bytes:
    """Explains everything with score 4, and finds every second text."""
    prompt = request["messages"][1]["content"]
    return completion("Explanation: talk of animals\nScore: 4" if "Score:" in prompt else "Matches: 1, 3")


Step = tuple[int, dict[str, str], bytes] | str


class ChatServer:
    """What was asked (`requests`, with the header `Authorization` in `keys`), and what is answered.

    `script` is used up first: each entry is a status with headers and body, `slow`, `cut` (less body than promised), `close`, or `drip`
    (bytes without an end). `answer` gives a body, or an entry such as those of the script.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.script: list[Step] = []
        self.answer: Callable[[dict[str, Any]], bytes | Step] = sensible

    def settings(self, **changes: Any) -> EndpointSettings:
        """Settings for this server, with short waits."""
        return EndpointSettings(**{"api_base": self.url, "key_variable": "TEST_KEY", "timeout_seconds": 5.0, "retries": 2, **changes})


class _Handler(BaseHTTPRequestHandler):
    server: _Quiet

    def do_POST(self) -> None:
        chat = self.server.chat
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        chat.requests.append(request)
        chat.keys.append(self.headers.get("Authorization", ""))
        chat.headers.append(dict(self.headers))
        step = chat.script.pop(0) if chat.script else chat.answer(request)
        step = (200, {}, step) if isinstance(step, bytes) else step
        if step == "close":
            self.close_connection = True
            self.connection.close()
        elif step == "drip":
            self._drip()
        else:
            self._tell(step)

    def _tell(self, step: Step) -> None:
        if step == "slow":
            time.sleep(1.0)
        status, headers, body = step if isinstance(step, tuple) else (200, {}, completion("late"))
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) + (50 if step == "cut" else 0)))
        self.end_headers()
        self.wfile.write(body)

    def _drip(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        for _ in range(100):
            self.wfile.write(b" " * 2**20)
            self.wfile.flush()
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        return


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    chat: ChatServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        return


@contextmanager
def chat_server() -> Iterator[ChatServer]:
    """A server on a free local port."""
    http = _Quiet(("127.0.0.1", 0), _Handler)
    http.chat = ChatServer(f"http://127.0.0.1:{http.server_address[1]}/v1")
    threading.Thread(target=http.serve_forever, daemon=True).start()
    try:
        yield http.chat
    finally:
        http.shutdown()
        http.server_close()
