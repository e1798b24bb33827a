"""The explorer in a real browser: in the report and in a folder, by mouse and by keys, with hostile texts, wide and narrow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from browser import Browser
from explored import HOSTILE, N_LATENTS, explored, rewardbench2, save_sarm
from selenium.webdriver.common.keys import Keys

from replication.report.latents.explorations import Exploration, read_exploration
from replication.report.render.explorer import embedded
from replication.report.render.explorer.embedded import explorer_section
from replication.report.render.explorer.folder import write_folder
from replication.report.render.page import page

pytestmark = pytest.mark.slow
ROOT = "explorer-0123456789ab"


@pytest.fixture(scope="module")
def exploration(tmp_path_factory: pytest.TempPathFactory) -> Exploration:
    place = tmp_path_factory.mktemp("explored")
    folder = explored(place / "out", save_sarm(place / "model"), rewardbench2(each=20, hostile=True))
    said = {latent: {"latent": latent, "explanation": f"{text} number {latent}", "score": latent % 5 + 1, "detection": None,
                     "status": "explained", "contexts": [{"context": text, "activation": 1.5}]}
            for latent, text in zip(range(N_LATENTS - len(HOSTILE), N_LATENTS), HOSTILE, strict=True)}  # fmt: skip
    return read_exploration(folder, key="0123456789ab", label=f"latents of {HOSTILE[0]}", explanations=said)


@pytest.fixture(params=["report", "folder"])
def shown(request: pytest.FixtureRequest, browser: Browser, exploration: Exploration, tmp_path: Path) -> Browser:
    """The explorer, opened from disk."""
    if request.param == "report":
        (tmp_path / "report.html").write_text(page([], extra=[explorer_section([exploration])]), encoding="utf-8")
        browser.open(tmp_path / "report.html")
    else:
        browser.open(write_folder(exploration, tmp_path))
    browser.until(lambda: heading(browser) == "Latents")
    return browser


def heading(browser: Browser) -> str:
    return str(browser.find(f"#{ROOT} h3").text)


def go(browser: Browser, *parts: str) -> None:
    browser.run("location.hash = arguments[0]", "/".join([ROOT, *parts]))


def column(browser: Browser, number: int) -> list[str]:
    return [one.text for one in browser.find_all(f"#{ROOT} tbody tr > :nth-child({number})") if one.text]


def weights(browser: Browser) -> list[float]:
    return [float(one.replace("−", "-")) for one in column(browser, 2)[:N_LATENTS]]


def test_latents_are_listed_by_weight_sorted_and_searched(shown: Browser, exploration: Exploration) -> None:
    found = [abs(one) for one in weights(shown)]
    assert len(found) == N_LATENTS and found == sorted(found, reverse=True) and found[0] == 3.0
    silent = int((exploration.latents["fired"][:2].sum(axis=0) == 0).sum())
    assert f"{silent} of {N_LATENTS} never fire" in shown.find(f"#{ROOT}").text
    shown.find(f"#{ROOT} thead th:nth-child(3) button").click()
    assert shown.find(f"#{ROOT} thead th:nth-child(3)").get_attribute("aria-sort") == "descending"
    assert shown.driver.switch_to.active_element.text.startswith("fires in"), "the focus stays on what was pressed"
    rates = [0.0 if one == "never" else float(one.rstrip(" %")) for one in column(shown, 3)[:N_LATENTS]]
    assert rates == sorted(rates, reverse=True) and rates[-1] == 0
    shown.find(f"#{ROOT} input[type=search]").send_keys(f"number {N_LATENTS - 1}")
    assert [one.text for one in shown.find_all(f"#{ROOT} tbody th a")] == [str(N_LATENTS - 1)]
    assert shown.find(f"#{ROOT} [role=status]").text == "1 match"
    shown.find(f"#{ROOT} input[type=search]").send_keys("nothing of the kind")
    assert "Nothing matches." in shown.find(f"#{ROOT} tbody").text
    shown.assert_quiet()


def test_a_latent_s_page_by_keys_alone(shown: Browser, exploration: Exploration) -> None:
    shown.run("document.querySelector(arguments[0]).focus()", f"#{ROOT} tbody a")
    shown.press(Keys.ENTER)
    latent = N_LATENTS - 1
    shown.until(lambda: heading(shown) == f"Latent {latent}")
    text = shown.find(f"#{ROOT}").text
    assert "never fires here" in text and "removing or doubling it changes nothing" in text
    assert shown.run("return document.activeElement.tagName") == "H3", "a reader of the screen hears where it is"
    shown.driver.back()
    shown.until(lambda: heading(shown) == "Latents")
    busiest = int(exploration.latents["fired"][:2].sum(axis=0).argmax())
    go(shown, "latent", str(busiest))
    shown.until(lambda: heading(shown) == f"Latent {busiest}")
    text = shown.find(f"#{ROOT}").text
    assert "What removing or doubling it does" in text and "Where it fires" in text and "Nearest by decoder" in text
    assert shown.find(f"#{ROOT} mark").text == "<|eot_id|>" and len(shown.find_all(f"#{ROOT} article .side")) >= 4
    assert len(shown.find_all(f"#{ROOT} figure")) == 3 and "Overall" in text
    shown.press(Keys.TAB)
    assert shown.run("return document.activeElement !== document.body")
    shown.assert_quiet()


def test_the_waterfall_of_a_conversation_comes_to_the_reward_in_the_store(shown: Browser, exploration: Exploration) -> None:
    rewards = exploration.completions["rewards"]
    go(shown, "items")
    shown.until(lambda: heading(shown) == "Conversations")
    places = [int(one.get_attribute("href").rpartition("/")[2]) for one in shown.find_all(f"#{ROOT} tbody th a")][:4]
    for place in places:
        go(shown, "item", str(place))
        name = exploration.items[place].id
        shown.until(lambda name=name: f"Conversation {name}" in heading(shown))
        sides = []
        for select in range(2):
            options = shown.find_all(f"#{ROOT} select")[select].find_elements("css selector", "option")
            options[-1].click()
            side, number = options[-1].text.partition(",")[0].split()
            row = next(one for one in exploration.rows_of[place] if one.side == side and one.place == int(number) - 1)
            sides.append(float(rewards[row.number]))
        found = shown.run("return [...document.querySelectorAll('.waterfall')].map((one) => [one.dataset.sum, one.dataset.total])")
        for (made, total), stored in zip(found, [*sides, sides[0] - sides[1]], strict=True):
            assert float(made) == pytest.approx(stored, abs=1e-5) and float(total) == pytest.approx(stored, abs=1e-6)
        # What is drawn: each bar begins where the one before ended, and the last one spans the reward.
        drawn = shown.run(
            "return [...document.querySelectorAll('.waterfall')].map((table) => [...table.querySelectorAll('tr')].map((row) =>"
            " [row.children[1].textContent, ...['left', 'width'].map((one) => row.querySelector('.bar i:last-child').style[one])]))"
        )
        for rows in drawn:
            values = [float(row[0].replace("−", "-")) for row in rows]
            assert sum(values[:-1]) == pytest.approx(values[-1], abs=0.01 * sum(map(abs, values)) + 1e-3)
            assert all(0 <= float(row[1].rstrip("%")) <= 100.01 for row in rows)
    shown.assert_quiet()


def test_hostile_texts_are_shown_and_never_executed(shown: Browser, exploration: Exploration) -> None:
    title = shown.run("return document.title")
    prompts = [one.prompt[-1].content for one in exploration.items]
    hostile = [place for place, text in enumerate(prompts) if HOSTILE[0] in text or HOSTILE[1] in text]
    listed = shown.run("return [...document.querySelectorAll(arguments[0])].length", f"#{ROOT} tbody tr")
    assert listed >= N_LATENTS
    assert HOSTILE[0] in shown.find(f"#{ROOT} tbody").text
    go(shown, "items")
    shown.until(lambda: heading(shown) == "Conversations")
    known = {int(one.get_attribute("href").rpartition("/")[2]) for one in shown.find_all(f"#{ROOT} tbody th a")}
    assert known.intersection(hostile)
    for place in [one for one in hostile if one in known][:3]:
        go(shown, "item", str(place))
        shown.until(lambda place=place: f"Conversation {exploration.items[place].id}" in heading(shown))
        assert "<script>" in shown.find(f"#{ROOT} .turn").text
    assert shown.run("return document.title") == title and shown.find_all(f"#{ROOT} img") == []
    assert shown.run("return document.querySelectorAll(arguments[0]).length", f"#{ROOT} script") == 0
    shown.assert_quiet()


@pytest.mark.parametrize("width", [1300, 400])
def test_nothing_is_wider_than_the_page(shown: Browser, exploration: Exploration, width: int) -> None:
    shown.width(width)
    for number, parts in enumerate((["latents"], ["latent", "0"], ["latent", str(N_LATENTS - 2)], ["items"], ["item", "0"], ["item", "3"])):
        go(shown, *parts)
        shown.until(lambda: shown.find(f"#{ROOT} h3").is_displayed())
        wide = shown.run("return [...document.querySelectorAll(arguments[0])].map((one) => one.scrollWidth - one.clientWidth)", f"#{ROOT}")
        assert max(wide) <= 1, parts
        shown.screenshot(f"explorer-{number}-{width}")
    shown.assert_quiet()


def test_a_page_that_is_not_there_is_told(shown: Browser) -> None:
    go(shown, "latent", "99999")
    shown.until(lambda: heading(shown) == "No page of latent 99999 here")
    assert "replicate explore --artifact 0123456789ab --folder DIR" in shown.find(f"#{ROOT}").text
    go(shown, "item", "%E0%A4%A")
    shown.until(lambda: "No page of item" in heading(shown))
    shown.assert_quiet()


def test_without_explanations_the_command_stands_there(browser: Browser, exploration: Exploration, tmp_path: Path) -> None:
    bare = replace(exploration, explanations={})
    (tmp_path / "report.html").write_text(page([], extra=[explorer_section([bare])]), encoding="utf-8")
    browser.open(tmp_path / "report.html")
    browser.until(lambda: heading(browser) == "Latents")
    assert "No explanations of this model are in the store; run: replicate features" in browser.find(f"#{ROOT}").text
    browser.assert_quiet()


def test_two_explorers_in_one_report_do_not_answer_for_each_other(browser: Browser, exploration: Exploration, tmp_path: Path) -> None:
    other = replace(exploration, key="ba9876543210", label="another")
    (tmp_path / "report.html").write_text(page([], extra=[explorer_section([exploration, other])]), encoding="utf-8")
    browser.open(tmp_path / "report.html")
    browser.until(lambda: heading(browser) == "Latents" and browser.find("#explorer-ba9876543210 h3").text == "Latents")
    browser.run("location.hash = 'explorer-ba9876543210/latent/3'")
    browser.until(lambda: browser.find("#explorer-ba9876543210 h3").text == "Latent 3")
    assert heading(browser) == "Latents"
    browser.assert_quiet()


def test_data_that_cannot_be_read_is_told_in_place(
    browser: Browser, exploration: Exploration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "packed", lambda content: "AAAA")
    (tmp_path / "report.html").write_text(page([], extra=[explorer_section([exploration])]), encoding="utf-8")
    browser.open(tmp_path / "report.html")
    browser.until(lambda: "This part of the page cannot be shown" in browser.find(f"#{ROOT} .status").text)
    assert str(N_LATENTS - 1) in browser.find(f"#{ROOT} table").text, "the largest head weights stand there all the same"
    browser.assert_quiet()
