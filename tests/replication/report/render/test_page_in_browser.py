"""The report page in a real browser, from disk: sorted and opened by keyboard, light, dark, printed, narrow and wide; quiet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser
from swept_report import invented

from replication.report.cells import Listing, Report
from replication.report.claims.published import published_claims
from replication.report.render.page import page
from replication.report.render.parts.addresses import address
from replication.report.render.parts.shown_pictures import shown
from replication.report.render.pictures.drawn import draw, draw_claims

pytestmark = pytest.mark.slow
HOSTILE = "<script>document.title='ran'</script> \u202e\u05d0\u05d1\u05d2 " + "w" * 400
SORTED = "return [...document.querySelectorAll('#table1-paper-paper-table1 ~ .scroll table')][0]"


def reports() -> list[Report]:
    first = invented("table1", rows=4, command="replicate table1 --profile paper --seeds 0,1,2")
    (table,) = first.tables
    rows = (table.rows[0].model_copy(update={"label": HOSTILE, "note": HOSTILE}), *table.rows[1:])
    listing = Listing(name="near", title="Near duplicates", columns=("item", "n"), rows=((HOSTILE, "1"),) * 20, numeric=("n",))
    first = first.model_copy(update={"tables": (table.model_copy(update={"rows": rows}),), "listings": (listing,)})
    return [first, invented("table2"), invented("table3")]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    found = reports()
    drawn = {address(one): [shown(path) for path in draw(one, folder) if path.suffix == ".svg"] for one in found}
    draw_claims(published_claims(), {}, folder)
    text = page(found, drawn=drawn, forest=shown(folder / "claims.svg"))  # type: ignore[arg-type]
    (folder / "report.html").write_text(text, encoding="utf-8")
    return folder / "report.html"


@pytest.fixture
def opened(browser: Browser, written: Path) -> Iterator[Browser]:
    browser.open(written)
    yield browser
    browser.assert_quiet()
    assert browser.run("return document.title").startswith("Interpretable Reward Model"), "a text of the page was run"


def column(browser: Browser, place: int) -> list[float]:
    """Sort values of the visible rows of Table 1 in one column."""
    script = f"{SORTED}.tBodies[0]"
    found = browser.run(f"{script.replace('return', 'return [...')}.rows].filter(r => !r.hidden).map(r => r.cells[{place}]?.dataset.v)")
    return [float(one) for one in found if one]


def brightness(colour: str) -> int:
    """The first of the three parts of `rgb(...)`."""
    return int(colour.partition("(")[2].split(",")[0])


def test_a_table_is_sorted_by_the_keyboard_and_comes_back_as_it_was(opened: Browser) -> None:
    from selenium.webdriver import Keys

    came = column(opened, 1)
    opened.run("document.querySelector('#table1-paper-paper-table1 ~ .scroll th:nth-child(2) button').focus()")
    head = opened.find("#table1-paper-paper-table1 ~ .scroll th:nth-child(2)")
    for pressed, said, expected in (
        (Keys.ENTER, "descending", sorted(came, reverse=True)), (Keys.SPACE, "ascending", sorted(came)), (Keys.ENTER, "none", came),
    ):  # fmt: skip
        opened.press(pressed)
        assert head.get_attribute("aria-sort") == said and column(opened, 1) == expected
    assert opened.run("return document.querySelectorAll('tr.group[hidden]').length") == 0


def test_a_cell_opens_and_closes_by_the_keyboard(opened: Browser) -> None:
    from selenium.webdriver import Keys

    opened.run("document.querySelector('button.open').focus()")
    opened.press(Keys.ENTER)
    card = opened.until(lambda: next((one for one in opened.find_all("[popover]") if one.is_displayed()), None))
    assert all(word in card.text for word in ("95 % interval", "artifact", "score_benchmark/", "replicate table1", "items"))
    opened.screenshot("report-cell")
    opened.press(Keys.ESCAPE)
    assert not card.is_displayed() and opened.run("return document.activeElement.className") == "open", "the focus is back at the cell"


@pytest.mark.parametrize(("width", "scheme", "kind"), [(1300, "light", "screen"), (1300, "dark", "screen"), (400, "light", "screen"),
                                                        (400, "dark", "screen"), (1300, "light", "print")])  # fmt: skip
def test_the_page_fits_its_width_in_light_dark_and_print(opened: Browser, width: int, scheme: str, kind: str) -> None:
    opened.width(width)
    opened.media(scheme=scheme, kind=kind)
    assert opened.run("return document.documentElement.scrollWidth") <= width
    ink, paper = opened.run("const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]")
    light, dark = (paper, ink) if scheme == "light" else (ink, paper)
    assert brightness(light) > 200 and brightness(dark) < 60
    assert len(opened.find_all("img")) == 4
    assert opened.run("return [...document.images].every(one => one.complete && one.naturalWidth > 100)")
    opened.screenshot(f"report-{width}-{scheme}-{kind}")


def test_closed_parts_are_opened_for_the_printer(opened: Browser) -> None:
    count = "return document.querySelectorAll('section details[open]').length"
    assert opened.run(count) == 0
    opened.run("dispatchEvent(new Event('beforeprint'))")
    assert opened.run(count) == len(opened.find_all("section details")) > 0
    opened.run("dispatchEvent(new Event('afterprint'))")
    assert opened.run(count) == 0


def test_a_claim_of_the_front_page_leads_to_its_row(opened: Browser) -> None:
    opened.find("a[href='#claim-C4a']").click()
    assert opened.run("return location.hash") == "#claim-C4a"
    assert opened.run("return Math.abs(document.querySelector('#claim-C4a').getBoundingClientRect().top) < 300")
