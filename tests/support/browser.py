"""A headless Chromium for tests of pages, with its driver, both from the distribution (Debian: chromium, chromium-driver).

Tests that use it are slow ones and are skipped, with the reason, where either is missing. The fixture `browser` (tests/conftest.py) opens
one for a test; `open_browser()` is the same without pytest's help. Use:

    pytestmark = pytest.mark.slow

    def test_a_page(browser: Browser, tmp_path: Path) -> None:
        browser.open(tmp_path / "report.html")            # or "http://127.0.0.1:8000/"
        browser.find("#search").send_keys("polite")       # an element of selenium's; find_all gives a list
        browser.press(Keys.TAB, Keys.ENTER)               # keys for whatever has the focus
        assert browser.run("return document.title")       # JavaScript in the page
        browser.until(lambda: browser.find("#out").text)  # waits for something true, else fails
        browser.width(400)                                # 1300 at the start
        browser.screenshot("report-400")                  # a PNG below $SARM_SCREENSHOTS; nothing where that is not set
        browser.assert_quiet()                            # no console error, no request beyond file://, data:, blob: and 127.0.0.1

Chromium can reach nothing but 127.0.0.1: every other name and address is mapped to none. A page that asks for something else fails
`assert_quiet()` all the same, since the request is listed. Selenium is given both programs and never looks for others on the network.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

WIDTH, HEIGHT = 1300, 900
# Names of the program, the first that is there.
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
DRIVER = ("chromedriver", "chromium.chromedriver")
SCREENSHOTS = "SARM_SCREENSHOTS"
SWITCHES = (
    *("--headless=new", "--no-first-run", "--no-default-browser-check", "--disable-sync", "--disable-component-update", "--no-pings"),
    *("--disable-background-networking", "--disable-default-apps", "--disable-domain-reliability", "--metrics-recording-only"),
    *("--disable-dev-shm-usage", "--disable-gpu", "--disable-features=MediaRouter,OptimizationHints,Translate", "--lang=en"),
    *("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--proxy-server=direct://", "--hide-scrollbars"),
)
SECONDS = 20.0
# What a page may ask for: parts of itself, and who serves it.
HOME_SCHEMES = ("file", "data", "blob", "about")


class Browser:
    """One window with an empty profile. `driver` is selenium's, for what is not here."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self._console: list[dict[str, Any]] = []
        self._requested: list[str] = []
        self.width(WIDTH)

    def open(self, page: Path | str) -> None:
        """Go to a file or an address and wait until it is loaded."""
        self.driver.get(page.absolute().as_uri() if isinstance(page, Path) else page)

    def width(self, pixels: int, height: int = HEIGHT) -> None:
        """Width of the page in CSS pixels; a real window cannot be narrower than 500."""
        size = {"width": pixels, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def media(self, *, scheme: str = "light", kind: str = "screen") -> None:
        """Show the page light or dark, on a screen or as in print; `scheme` and `kind` as in CSS media queries."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": kind, "features": features})

    def find(self, selector: str) -> Any:
        """The first element of a CSS selector. Raises NoSuchElementException."""
        return self.driver.find_element("css selector", selector)

    def find_all(self, selector: str) -> list[Any]:
        """All elements of a CSS selector."""
        return list(self.driver.find_elements("css selector", selector))

    def press(self, *keys: str) -> None:
        """Press keys (selenium's `Keys`, or text) one after another, wherever the focus is."""
        from selenium.webdriver import ActionChains  # only where a browser is

        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def run(self, script: str, *arguments: Any) -> Any:
        """What a piece of JavaScript in the page returns."""
        return self.driver.execute_script(script, *arguments)

    def until(self, true: Callable[[], Any], seconds: float = SECONDS) -> Any:
        """Wait for something true and give it; an element that is not there yet or was replaced counts as false."""
        from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException  # as above

        end = time.monotonic() + seconds
        while True:
            try:
                found = true()
            except (NoSuchElementException, StaleElementReferenceException):
                found = None
            if found:
                return found
            assert time.monotonic() < end, f"not within {seconds} s; the page says: {self.find('body').text[-2000:]}"
            time.sleep(0.05)

    def console(self) -> list[str]:
        """Warnings and errors of the console since the start: the page's, and those that the browser says of it (CSP, 404)."""
        self._console += self.driver.get_log("browser")
        return [f"{entry['level']}: {entry['message']}" for entry in self._console if entry["level"] in ("SEVERE", "WARNING")]

    def requested(self) -> list[str]:
        """Every address asked for since the start, websockets and refused requests too, in order."""
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self._requested.append(message["params"]["request"]["url"])
            elif message["method"] in ("Network.webSocketCreated", "Network.webTransportCreated"):
                self._requested.append(message["params"]["url"])
        return list(self._requested)

    def assert_quiet(self) -> None:
        """Fails where the console had a warning or an error, or the page asked for anything that does not lie on this machine."""
        away = [url for url in self.requested() if not _at_home(url)]
        assert not away, f"requests that leave the machine: {away}"
        assert not self.console(), self.console()

    def screenshot(self, name: str) -> Path | None:
        """The whole page, below the fold too, as `name`.png in the folder that $SARM_SCREENSHOTS names; None where it names none."""
        if not os.environ.get(SCREENSHOTS):
            return None
        file = Path(os.environ[SCREENSHOTS]) / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        taken = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": True})
        file.write_bytes(base64.b64decode(taken["data"]))
        return file


def _at_home(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme in HOME_SCHEMES or (parts.scheme in ("http", "ws") and parts.hostname == "127.0.0.1")


def why_not() -> str:
    """Why no browser can be started here; empty where one can."""
    for names, package in ((CHROMIUM, "chromium"), (DRIVER, "chromium-driver")):
        if not _program(names):
            return f"no {names[0]} here (Debian: apt-get install {package})"
    return ""


def _program(names: Sequence[str]) -> str:
    return next((found for name in names if (found := shutil.which(name))), "")


@contextmanager
def open_browser() -> Iterator[Browser]:
    """A browser, ended with its driver afterwards. Skips the test, with the reason, where there is none."""
    if reason := why_not():
        pytest.skip(reason)
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed; run: make venv")
    from selenium.webdriver.chrome.service import Service  # only where a browser is

    options = selenium.ChromeOptions()
    options.binary_location = _program(CHROMIUM)
    for switch in (*SWITCHES, *(["--no-sandbox"] if os.geteuid() == 0 else [])):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # With both programs named selenium starts no manager of its own, which would ask its makers; this says so to later versions as well.
    own = {"SE_OFFLINE": "true", "SE_AVOID_STATS": "true", "NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in own.items():
            patch.setenv(name, value)
        driver = selenium.Chrome(options=options, service=Service(executable_path=_program(DRIVER), env={**os.environ}))
        try:
            driver.set_page_load_timeout(60)
            yield Browser(driver)
        finally:
            driver.quit()
