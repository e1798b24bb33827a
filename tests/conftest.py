"""What all tests share."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from browser import Browser, open_browser
from hypothesis import settings

# A machine that is shared is slow at times, which is no failure.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Groups for `-n 2 --dist loadgroup`: a file's tests share what they made, and one Slurm of our own at a time is enough."""
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        name = "slurm" if item.path.parent.name == "slurm" else item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group(name))


@pytest.fixture(autouse=True, scope="session")
def signals_as_in_a_terminal() -> Iterator[None]:
    """A runner in the background ignores SIGINT and SIGHUP, and so would everything that the tests interrupt."""
    ordinary = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in ordinary.items() if signal.getsignal(number) == signal.SIG_IGN}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def browser() -> Iterator[Browser]:
    """A headless Chromium with an empty profile; without one the test is skipped and says why (tests/support/browser.py)."""
    with open_browser() as opened:
        yield opened
