"""Whether a host is this machine itself: what is said to it goes through no proxy."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name or address alone."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def host_of(url: str) -> str:
    """The host of a URL; empty where it has none or is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def without_proxies_to_loopback(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that keep clients of HTTP in this process and its children from sending through a proxy what is for this machine.

    Nothing where no proxy is named, or where none is used for any host. What stands in NO_PROXY stays.
    """
    names = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY")
    if not any(environment.get(name) or environment.get(name.lower()) for name in names):
        return {}
    # The lower-case form is the one that counts where both are there.
    given = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    present = [one.strip() for one in given.split(",") if one.strip()]
    hub = host_of(environment.get("HF_ENDPOINT", ""))
    wanted = [*LOOPBACK_NAMES, *([hub] if is_loopback(hub) else [])]
    if "*" in present:
        return {}
    value = ",".join(dict.fromkeys([*present, *wanted]))
    return {"NO_PROXY": value, "no_proxy": value}
