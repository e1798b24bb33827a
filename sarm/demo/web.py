"""The page's server: three files, the model's facts, rewards, steering files. Only for pages of its own, on this machine.

A page of another site, or of another name that leads to 127.0.0.1 (DNS rebinding), gets nothing: the host must be this machine's, no answer
carries a header that lets others read it, and what is posted must be JSON from a page of ours.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sarm.config.steering import SteeringFile
from sarm.demo.answers import Asked, AskedModel, Edited
from sarm.demo.unforeseen import told
from sarm.job import JobError, printable
from sarm.store.json_lines import parsed
from sarm.store.whole_files import write_whole

PAGE = Path(__file__).with_name("page")
FILES = {"/": "index.html", "/demo.css": "demo.css", "/demo.js": "demo.js"}
# A forwarded port (ssh -L) has another number, so the port is not looked at.
HOSTS = ("127.0.0.1", "localhost")
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
LARGEST_BODY = 4 * 2**20
# Questions that wait for the model; further ones are refused.
MOST_WAITING = 8
ALIVE_SECONDS = 0.5
# A page that is loaded again is gone for a moment.
CLOSED_SECONDS = 2.0

Posted = TypeVar("Posted", bound=BaseModel)


class Refused(Exception):
    """A request that gets no answer but this status and line."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class OnlyOurPages:
    """Around the application: refuses other hosts and other sites' pages, and puts the same headers on every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As of every ASGI application."""

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *own]
            await send(message)

        try:
            refuse_others(Request(scope))
        except Refused as problem:
            await JSONResponse({"problem": str(problem)}, problem.status)(scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)


def refuse_others(request: Request) -> None:
    """Raises Refused for what no page of ours asks."""
    host = request.headers.get("host", "")
    if urlsplit(f"//{host}").hostname not in HOSTS:
        raise Refused(421, "this server answers to 127.0.0.1 and localhost alone")
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site", "none")
    if (origin is not None and origin != f"http://{host}") or (site not in ("none", "same-origin") and request.url.path != "/"):
        raise Refused(403, "this server answers to its own page alone")
    if request.method == "POST" and request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise Refused(415, "JSON is expected (content-type: application/json)")


class Site:
    """The application, the model behind it, and what is told in the terminal. `save` is a folder for steering files."""

    def __init__(self, model: AskedModel, *, save: Path | None, ending: Callable[[], bool], tell: Callable[[str], None]) -> None:
        self._model, self._save, self._ending, self._tell = model, save, ending, tell
        # One thread: the model is asked one question at a time.
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._waiting = 0
        self._open = 0
        routes = [Route(path, self._file, methods=["GET"]) for path in FILES]
        routes += [Route("/model", self._facts, methods=["GET"]), Route("/open", self._opened, methods=["GET"])]
        routes += [Route("/score", self._score, methods=["POST"]), Route("/steering", self._steering, methods=["POST"])]
        self.app: ASGIApp = OnlyOurPages(Starlette(routes=routes, exception_handlers={Refused: _refused, 404: _absent, 405: _absent}))

    async def _file(self, request: Request) -> Response:
        return FileResponse(PAGE / FILES[request.url.path])

    async def _facts(self, request: Request) -> Response:
        return JSONResponse({**self._model.facts, "saves": self._save is not None})

    async def _score(self, request: Request) -> Response:
        asked = await _posted(request, Asked)
        return await self._answered(lambda: self._model.score(asked))

    async def _steering(self, request: Request) -> Response:
        edited = await _posted(request, Edited)
        return await self._answered(lambda: self._steering_text(self._model.steering_file(edited)))

    def _steering_text(self, file: SteeringFile) -> dict[str, str]:
        text = json.dumps(file.model_dump(mode="json"), indent=1, sort_keys=True) + "\n"
        name = f"steering-{sha256(text.encode()).hexdigest()[:8]}.json"
        answer = {"name": name, "text": text, "saved": ""}
        if self._save is not None:
            self._save.mkdir(parents=True, exist_ok=True)
            write_whole(self._save / name, text)
            answer["saved"] = str(self._save / name)
            self._tell(f"saved {self._save / name}")
        return answer

    async def _answered(self, question: Callable[[], dict[str, Any]]) -> Response:
        if self._waiting >= MOST_WAITING:
            raise Refused(503, f"{MOST_WAITING} questions wait for the model already; try again when they are answered")
        self._waiting += 1
        try:
            return JSONResponse(await asyncio.get_running_loop().run_in_executor(self._thread, question))
        except JobError as problem:
            return JSONResponse({"problem": str(problem)}, 400)
        except Exception as error:
            return JSONResponse({"problem": self._unforeseen(error)}, 500)
        finally:
            self._waiting -= 1

    def _unforeseen(self, error: Exception) -> str:
        line = told(error)
        self._tell(line)
        return line

    async def _opened(self, request: Request) -> Response:
        return StreamingResponse(self._alive(), media_type="text/event-stream")

    async def _alive(self) -> AsyncIterator[str]:
        """A line now and then while a page is open and this server goes on: each side notices when the other is gone."""
        self._open += 1
        try:
            while not self._ending():
                yield ":\n\n"
                await asyncio.sleep(ALIVE_SECONDS)
        finally:
            self._open -= 1
            asyncio.get_running_loop().call_later(CLOSED_SECONDS, self._tell_closed)

    def _tell_closed(self) -> None:
        if not self._open and not self._ending():
            self._tell("the page was closed; it can be opened again, and Ctrl-C ends the demo")


async def _posted(request: Request, kind: type[Posted]) -> Posted:
    """What a page sent, checked. Raises Refused with one line."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_BODY:
            raise Refused(413, f"more than {LARGEST_BODY // 2**20} MiB were sent; shorten the texts")
    try:
        return kind.model_validate(parsed(body))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "request"
        raise Refused(400, printable(f"{key}: {first['msg']}")) from error
    except (ValueError, RecursionError) as error:
        raise Refused(400, printable(f"what was sent is no JSON text ({error})")) from error


async def _refused(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, Refused)
    return JSONResponse({"problem": str(problem)}, problem.status)


async def _absent(request: Request, problem: Exception) -> Response:
    return JSONResponse({"problem": f"nothing is at {printable(request.url.path)}"}, getattr(problem, "status_code", 404))
