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
