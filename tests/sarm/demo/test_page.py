"""The page in a real browser: rewards and their waterfalls, sliders, the steering file, keys, hostile texts, and that it calls nobody."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asked_models import PROMPT, REPLIES, Server, served, write_dense, write_explanations, write_sarm
from browser import Browser
from folders import ROOT

from sarm.checkpoints.reward_models.layouts import load_reward_model

pytestmark = pytest.mark.slow

HOSTILE = (
    "<script>window.taken = 1</script><img src=x onerror='window.taken = 1'><svg onload=\"window.taken = 1\">",
    "</textarea></p><iframe srcdoc='<script>parent.taken = 1</script>'></iframe>{{7*7}}${window.taken = 1}",
    "\u202eright to left \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 \u2066isolated\u2069\u200f",
    "w" * 3000,
    "\u0000\u0007\u2028\u2029\ufffd\U0001f469\u200d\U0001f680 e\u0301\u0301\u0301\u0301",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A SARM whose every latent has an explanation; the texts are hostile."""
    folder = tmp_path_factory.mktemp("page")
    model = write_sarm(folder / "model")
    weights = load_reward_model(model).score.weight[0].tolist()
    texts = write_explanations(folder / "explained", dict(enumerate(weights)))
    rows = [json.loads(line) for line in (texts / "explanations.jsonl").read_text().splitlines()]
    for row in rows:
        if row["explanation"] and row["group"] == "positive":
            row["explanation"] = HOSTILE[row["latent"] % len(HOSTILE)]
    (texts / "explanations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with served(model, explanations=texts) as found:
        yield found


def fill(browser: Browser, prompt: str, *answers: str) -> None:
    """Write into the fields by script: keys cannot give every sign."""
    for field, text in zip(("#prompt", "#answer-a", "#answer-b"), (prompt, *answers, *([""] * (2 - len(answers)))), strict=True):
        browser.run("arguments[0].value = arguments[1]", browser.find(field), text)


def asked(browser: Browser) -> int:
    return int(browser.run("return Number(document.body.dataset.asked || 0)"))


def ask(browser: Browser, prompt: str, *answers: str) -> None:
    fill(browser, prompt, *answers)
    before = asked(browser)
    browser.find("#score").click()
    browser.until(lambda: asked(browser) > before)


def numbers(browser: Browser, result: str) -> tuple[float, list[float]]:
    """A card's reward, and the parts of its waterfall without the last row, which is their sum."""
    reward = float(browser.find(f"{result} .reward").get_attribute("data-value"))
    return reward, [float(row.get_attribute("data-value")) for row in browser.find_all(f"{result} .bar:not(.sum)")]


def page(browser: Browser, server: Server) -> None:
    browser.open(server.url)
    browser.until(lambda: "scored at" in browser.find("#facts").text)


def test_rewards_their_waterfalls_and_the_difference_are_shown(browser: Browser, server: Server) -> None:
    page(browser, server)
    browser.screenshot("demo-empty-1300")
    ask(browser, PROMPT, REPLIES[0])
    alone, parts = numbers(browser, "#result-a")
    assert sum(parts) == pytest.approx(alone, abs=1e-5) and len(parts) == 4
    assert not browser.find_all("#result-b") and not browser.find_all("#result-difference")
    ask(browser, PROMPT, *REPLIES)
    told = server.ask("/score", {"prompt": PROMPT, "answers": list(REPLIES)}).content["answers"]
    for name, one in zip(("#result-a", "#result-b"), told, strict=True):
        reward, parts = numbers(browser, name)
        assert reward == one["reward"] and sum(parts) == pytest.approx(reward, abs=1e-5)
    gap, parts = numbers(browser, "#result-difference")
    assert gap == told[0]["reward"] - told[1]["reward"] and sum(parts) == pytest.approx(gap, abs=1e-5)
    assert ("A is preferred" if gap > 0 else "B is preferred") in browser.find("#result-difference").text
    shown = [float(row.text.replace("−", "-")) for row in browser.find_all("#result-a .bar .number")]
    assert sum(shown[:-1]) == pytest.approx(shown[-1], abs=5e-5 * len(shown)), "what is read sums up as well"
    browser.screenshot("demo-scored-1300")
    browser.assert_quiet()


def test_each_bar_begins_where_the_one_above_ends(browser: Browser, server: Server) -> None:
    page(browser, server)
    ask(browser, PROMPT, *REPLIES)
    for width in (1300, 400):
        browser.width(width)
        drawn = browser.run(
            "return [...document.querySelectorAll('#result-a .bar')].map(row => {"
            "const part = row.querySelector('.part').getBoundingClientRect();"
            "return [part.left, part.right, Number(row.dataset.value), row.querySelector('.zero').getBoundingClientRect().left] })"
        )
        ends = [left if value < 0 else right for left, right, value, _ in drawn]
        begins = [right if value < 0 else left for left, right, value, _ in drawn]
        for above, below in zip(ends[:-2], begins[1:-1], strict=True):
            assert above == pytest.approx(below, abs=2.5)
        assert ends[-1] == pytest.approx(ends[-2], abs=2.5), "the sum ends where the last part ends"
        assert len({round(zero) for *_, zero in drawn}) == 1


def test_a_slider_changes_the_reward_as_the_head_is_linear(browser: Browser, server: Server) -> None:
    from selenium.webdriver.common.keys import Keys

    page(browser, server)
    ask(browser, PROMPT, *REPLIES)
    before, _ = numbers(browser, "#result-a")
    bar = browser.find("#result-a .bar")
    latent, part = bar.get_attribute("data-latent"), float(bar.get_attribute("data-value"))
    bar.find_element("css selector", "button").click()
    assert browser.run("return document.activeElement.id") == f"factor-{latent}"
    browser.press(*[Keys.ARROW_RIGHT] * 4)
    browser.until(lambda: numbers(browser, "#result-a")[0] == pytest.approx(before + 0.2 * part, abs=1e-5))
    browser.press(Keys.HOME)
    browser.until(lambda: numbers(browser, "#result-a")[0] == pytest.approx(before - 3 * part, abs=1e-5))
    after, parts = numbers(browser, "#result-a")
    assert sum(parts) == pytest.approx(after, abs=1e-5) and browser.run("return document.activeElement.id") == f"factor-{latent}"
    number = browser.find(f"#number-{latent}")
    number.clear()
    number.send_keys("12.5")
    browser.until(lambda: numbers(browser, "#result-a")[0] == pytest.approx(before + 11.5 * part, abs=1e-4))
    assert "the factors change it by" in browser.find("#result-a").text
    browser.screenshot("demo-scaled-1300")
    browser.find("#reset").click()
    browser.until(lambda: numbers(browser, "#result-a")[0] == before)
    browser.find(f"#slider-{latent} button").click()
    browser.until(lambda: not browser.find_all(f"#slider-{latent}"))
    browser.assert_quiet()


def test_the_steering_file_that_is_saved_gives_the_same_reward_by_the_command(browser: Browser, server: Server, tmp_path: Path) -> None:
    browser.driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path / "downloads")})
    page(browser, server)
    ask(browser, PROMPT, *REPLIES)
    assert not browser.find("#save").is_enabled()
    browser.find("#latent").send_keys("7")
    browser.find("#add").click()
    bar = browser.find("#result-b .bar")
    bar.find_element("css selector", "button").click()
    latent = bar.get_attribute("data-latent")
    before = asked(browser)
    number = browser.find(f"#number-{latent}")
    number.clear()
    number.send_keys("-2")
    browser.until(lambda: asked(browser) > before and "-2" in browser.find(f"#result-b .bar[data-latent='{latent}']").text)
    browser.find("#save").click()
    browser.until(lambda: "Saved as" in browser.find("#saved").text)
    (file,) = browser.until(lambda: list((tmp_path / "downloads").glob("steering-*.json")))
    assert json.loads(file.read_text())["factors"] == {latent: -2.0}, "a factor of 1 is no edit"
    rewards = [numbers(browser, name)[0] for name in ("#result-a", "#result-b")]
    model = Path(str(next(tmp_path.parent.glob("page*/model"))))
    assert commanded(tmp_path, model, "--steer", str(file)) == pytest.approx(rewards, abs=1e-5)
    assert commanded(tmp_path, model) != pytest.approx(rewards, abs=1e-3)
    browser.assert_quiet()


def commanded(folder: Path, model: Path, *more: str) -> list[float]:
    """Rewards of both replies by `replicate reward`."""
    turns = [[{"role": "user", "content": PROMPT}, {"role": "assistant", "content": reply}] for reply in REPLIES]
    (folder / "talk.jsonl").write_text("".join(json.dumps({"messages": one}) + "\n" for one in turns))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = ["reward", "--model", str(model), "--input", str(folder / "talk.jsonl"), "--store", str(folder / "store"), *more]
    done = subprocess.run(
        [sys.executable, "-m", "replication.cli", *command], capture_output=True, text=True, check=False, env=environment, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line)["reward"] for line in done.stdout.splitlines()]


def test_everything_can_be_done_with_keys(browser: Browser, server: Server) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    page(browser, server)
    browser.press(Keys.TAB, PROMPT, Keys.TAB, REPLIES[0], Keys.TAB, REPLIES[1])
    assert [browser.find(field).get_attribute("value") for field in ("#prompt", "#answer-a", "#answer-b")] == [PROMPT, *REPLIES]
    ActionChains(browser.driver).key_down(Keys.CONTROL).send_keys(Keys.ENTER).key_up(Keys.CONTROL).perform()
    browser.until(lambda: browser.find("#result-difference"))
    # The button that gives rewards, then the number of a latent.
    browser.press(Keys.TAB, Keys.TAB, "7", Keys.ENTER)
    browser.until(lambda: browser.run("return document.activeElement.id") == "factor-7")
    before = asked(browser)
    browser.press(Keys.ARROW_RIGHT)
    browser.until(lambda: asked(browser) > before and browser.find("#factor-7").get_attribute("value") == "1.05")
    names = browser.run(
        "return [...document.querySelectorAll('button, input, textarea')]"
        ".filter(one => !(one.labels?.length || one.textContent.trim() || one.ariaLabel)).map(one => one.outerHTML)"
    )
    assert not names, "every control has a name that a screen reader says"
    browser.assert_quiet()


def test_hostile_texts_are_shown_and_never_executed(browser: Browser, server: Server) -> None:
    page(browser, server)
    for place, text in enumerate(HOSTILE):
        ask(browser, text, f"good {text[:600]}", text[::-1][:600])
        assert browser.find_all("#result-a .bar") or not browser.find("#problem").get_attribute("hidden"), place
        for width in (1300, 400):
            browser.width(width)
            assert browser.run("return document.documentElement.scrollWidth") <= width, f"text {place} widens the page"
            browser.screenshot(f"demo-hostile-{place}-{width}")
    assert {one.text for one in browser.find_all("#result-a .said[dir=auto]")}, "explanations are shown"
    assert browser.run("return window.taken === undefined")
    assert not browser.find_all("#results script, #results img, #results svg, #results iframe, iframe")
    browser.assert_quiet()


@pytest.mark.parametrize(
    ("prompt", "answers", "problem"),
    [("", ("good",), "the prompt is empty"), (PROMPT, ("",), "answer A is empty"), (PROMPT, ("good " * 500,), "tokens with the prompt")],
)
def test_what_cannot_be_scored_is_told_on_the_page(
    browser: Browser, server: Server, prompt: str, answers: tuple[str, ...], problem: str
) -> None:
    page(browser, server)
    ask(browser, prompt, *answers)
    assert problem in browser.find("#problem").text
    ask(browser, PROMPT, *REPLIES)
    assert browser.find("#problem").text == "" and browser.find("#result-a")


def test_a_latent_that_is_not_there_and_a_factor_that_is_none_are_told(browser: Browser, server: Server) -> None:
    page(browser, server)
    ask(browser, PROMPT, *REPLIES)
    for text, problem in (("24", "from 0 to 23"), ("-1", "from 0 to 23"), ("1.5", "from 0 to 23")):
        browser.find("#latent").clear()
        browser.find("#latent").send_keys(text)
        browser.find("#add").click()
        assert problem in browser.find("#steer-problem").text
    browser.find("#latent").clear()
    browser.find("#latent").send_keys("3")
    browser.find("#add").click()
    browser.find("#number-3").send_keys("99999")
    assert "from −1000 to 1000" in browser.find("#steer-problem").text
    browser.assert_quiet()


def test_a_model_without_latents_shows_the_reward_alone(browser: Browser, tmp_path: Path) -> None:
    with served(write_dense(tmp_path / "model")) as server:
        page(browser, server)
        assert "no latents: rewards alone" in browser.find("#facts").text
        ask(browser, PROMPT, *REPLIES)
        assert "the reward stands alone" in browser.find("#result-a").text and not browser.find_all(".bar")
        assert not browser.find("#steer").is_displayed() and browser.find("#result-difference .reward").text
        browser.screenshot("demo-without-latents-1300")
        browser.assert_quiet()


def test_a_demo_that_has_ended_is_told_on_the_page(browser: Browser, tmp_path: Path) -> None:
    with served(write_sarm(tmp_path / "model")) as server:
        page(browser, server)
        ask(browser, PROMPT, *REPLIES)
        browser.assert_quiet()
    browser.until(lambda: "The demo has ended" in browser.find("#problem").text)
    browser.find("#score").click()
    browser.until(lambda: "does not answer" in browser.find("#problem").text)


def test_a_page_of_another_origin_can_read_nothing(browser: Browser, server: Server, tmp_path: Path) -> None:
    (tmp_path / "other.html").write_text("<!doctype html><title>other</title>")
    browser.open(tmp_path / "other.html")
    script: Any = """
        const [url, done] = arguments;
        const tries = [fetch(url + 'model'), fetch(url + 'score', {method: 'POST', body: '{}'}),
          fetch(url + 'score', {method: 'POST', body: '{}', headers: {'content-type': 'application/json'}})];
        Promise.allSettled(tries).then(found => done(found.map(one => one.status)));
    """
    assert browser.driver.execute_async_script(script, server.url) == ["rejected"] * 3
