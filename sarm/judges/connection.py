"""The HTTP connection to a judge: what of the environment may reach it, and what of an answer is believed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import cast
from urllib.parse import urlsplit

import httpx2
import openai

from sarm.job import EnvironmentProblem
from sarm.judges.loopback import is_loopback
from sarm.judges.refusals import status_within
from sarm.judges.settings import EndpointSettings

# All that leaves for the endpoint beside the question. The client would also send what OPENAI_ORG_ID, OPENAI_PROJECT_ID and
# OPENAI_CUSTOM_HEADERS hold, to whatever host is asked.
SENT = frozenset(("host", "accept", "accept-encoding", "connection", "content-type", "content-length", "user-agent", "idempotency-key"))
PROXY_VARIABLES = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
# An answer beyond these is no answer: so many bytes, or so many times the longest wait for one of its parts.
MOST_BYTES = 32 * 2**20
MOST_WAITS = 10


def proxies_of(host: str) -> list[str]:
    """The variables of the environment that name a proxy for a host; none for this machine."""
    if is_loopback(host):
        return []
    return [name for base in PROXY_VARIABLES[:-1] for name in (base, base.lower()) if os.environ.get(name)]


def connection(settings: EndpointSettings, key: str) -> httpx2.Client:
    """A client for one endpoint: no proxy to this machine, no redirect, the key to no other host, and no header but the necessary ones.

    Raises EnvironmentProblem where the environment names a proxy that cannot be used.
    """
    parts = urlsplit(settings.api_base)
    host = parts.hostname or ""
    local = is_loopback(host)
    try:
        client = openai.DefaultHttpxClient(
            timeout=settings.timeout_seconds,
            # A loopback has no proxy; certificates of the environment count all the same.
            trust_env=not local,
            verify=httpx2.create_ssl_context() if local and parts.scheme == "https" else True,
            follow_redirects=False,
            event_hooks={
                "request": [_only_what_is_meant(httpx2.URL(settings.api_base), key)],
                "response": [_bounded(settings.timeout_seconds)],
            },
        )
    except (ImportError, ValueError, httpx2.InvalidURL) as error:
        named = ", ".join(name for base in PROXY_VARIABLES for name in (base, base.lower()) if os.environ.get(name)) or "the environment"
        missing = "a SOCKS proxy needs the package socksio (pip install socksio)"
        why = missing if isinstance(error, ImportError) else "it is no URL of a proxy; mend it"
        raise EnvironmentProblem(f"the proxy that {named} names cannot be used: {why}, or unset the variable") from None
    return cast(httpx2.Client, client)


def _only_what_is_meant(base: httpx2.URL, key: str) -> Callable[[httpx2.Request], None]:
    def cleaned(request: httpx2.Request) -> None:
        for name in list(request.headers):
            if name.lower() not in SENT and not name.lower().startswith("x-stainless-"):
                del request.headers[name]
        request.headers["Accept-Encoding"] = "identity"
        if key and request.url.raw_host == base.raw_host:
            request.headers["Authorization"] = f"Bearer {key}"

    return cleaned


def _bounded(timeout_seconds: float) -> Callable[[httpx2.Response], None]:
    def bounded(response: httpx2.Response) -> None:
        # Nothing packed was asked for, and what is unpacked has no bound.
        response.headers.pop("Content-Encoding", None)
        response.stream = _BoundedStream(cast(httpx2.SyncByteStream, response.stream), time.monotonic() + MOST_WAITS * timeout_seconds)
        if response.status_code == httpx2.codes.OK:
            # An error in the body of a 200 is treated, waited for and told like its code.
            response.status_code = status_within(response.read()) or response.status_code

    return bounded


class _BoundedStream(httpx2.SyncByteStream):
    def __init__(self, inner: httpx2.SyncByteStream, until: float) -> None:
        self._inner = inner
        self._until = until

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for part in self._inner:
            size += len(part)
            if size > MOST_BYTES:
                raise httpx2.ReadError(f"the answer is longer than {MOST_BYTES // 2**20} MiB")
            if time.monotonic() > self._until:
                raise httpx2.ReadTimeout("the answer does not come to an end")
            yield part

    def close(self) -> None:
        self._inner.close()
