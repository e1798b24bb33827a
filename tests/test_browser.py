"""The browser that looks at our pages sees what it is there to see: a page that calls out, one with an error, one that is quiet."""

from __future__ import annotations

import socket
from pathlib import Path

import browser as support
import pytest
from browser import Browser
from selenium.webdriver.common.keys import Keys

QUIET = """<!doctype html><html lang="en"><meta charset="utf-8"><title>quiet</title><link rel="icon" href="data:,">
<style>body {{ margin: 0 }} @media print {{ p {{ color: red }} }} @media (prefers-color-scheme: dark) {{ body {{ color: white }} }}</style>
<p>here</p><button id="one" onclick="this.textContent='pressed'">one</button><div style="height: 2000px"></div>{more}"""


def write(folder: Path, more: str = "") -> Path:
    """A small page with `more` at its end."""
    page = folder / "page.html"
    page.write_text(QUIET.format(more=more), encoding="utf-8")
    return page


@pytest.mark.slow
def test_a_quiet_page_is_quiet_and_can_be_used_by_keys_seen_narrow_dark_and_in_print(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(support.SCREENSHOTS, str(tmp_path / "shots"))
    browser.open(write(tmp_path))
    browser.press(Keys.TAB, Keys.ENTER)
    browser.until(lambda: browser.find("#one").text == "pressed")
    assert browser.run("return innerWidth") == 1300
    browser.width(400)
    assert browser.run("return innerWidth") == 400
    browser.media(scheme="dark")
    assert browser.run("return getComputedStyle(document.body).color") == "rgb(255, 255, 255)"
    browser.media(kind="print")
    assert browser.run("return getComputedStyle(document.querySelector('p')).color") == "rgb(255, 0, 0)"
    shot = browser.screenshot("quiet")
    assert shot is not None and shot.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(shot.read_bytes()[16:20], "big") == 400 and int.from_bytes(shot.read_bytes()[20:24], "big") > 2000
    assert browser.requested()
    browser.assert_quiet()
    monkeypatch.delenv(support.SCREENSHOTS)
    assert browser.screenshot("quiet") is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        '<img src="http://example.invalid/a.png">',
        '<img src="http://192.0.2.7/a.png">',
        '<link rel="stylesheet" href="https://fonts.example.invalid/css">',
        "<script>fetch('https://example.invalid/ping').catch(() => 0)</script>",
        "<script>navigator.sendBeacon('https://example.invalid/ping')</script>",
        "<script>try { new WebSocket('wss://example.invalid/') } catch (e) {}</script>",
    ],
)
def test_a_page_that_calls_out_is_noticed(browser: Browser, tmp_path: Path, more: str) -> None:
    browser.open(write(tmp_path, more))
    browser.until(lambda: any("example.invalid" in url or "192.0.2.7" in url for url in browser.requested()))
    with pytest.raises(AssertionError, match="requests that leave the machine"):
        browser.assert_quiet()


@pytest.mark.slow
def test_an_error_in_the_console_is_noticed(browser: Browser, tmp_path: Path) -> None:
    browser.open(write(tmp_path, "<script>nothing.at.all()</script>"))
    with pytest.raises(AssertionError, match="nothing is not defined"):
        browser.assert_quiet()


@pytest.mark.slow
def test_waiting_for_what_does_not_come_fails_with_the_page(browser: Browser, tmp_path: Path) -> None:
    browser.open(write(tmp_path))
    with pytest.raises(AssertionError, match="the page says: here"):
        browser.until(lambda: browser.find("#absent"), seconds=0.2)


@pytest.mark.slow
def test_the_browser_reaches_this_machine_alone(browser: Browser, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        browser.open(write(tmp_path))
        ask = "const done = arguments[1]; fetch(arguments[0], {mode: 'no-cors'}).then(() => done('answered'), () => done('refused'))"
        # The same machine by another name: mapped to none, so nothing knocks here.
        assert browser.driver.execute_async_script(ask, f"http://localhost:{port}/") == "refused"
        server.settimeout(0.2)
        with pytest.raises(TimeoutError):
            server.accept()


def test_without_a_browser_a_test_is_skipped_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(support, "CHROMIUM", ("no-such-browser",))
    with pytest.raises(pytest.skip.Exception, match="no no-such-browser here"), support.open_browser():
        pass
