"""Figure 3 as files and as text: the same bytes twice, what the titles say, the authors' numbers."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from folders import DATA
from synthetic_steering import SAFE, SILENT, steering

from replication.data_folders import AUTHORS_REWARDS
from replication.report.cells import Listing, Report
from replication.report.render.tables import Format, as_text
from replication.report.render.terminal.printing import plain_text
from replication.report.steering.authors_figure import authors_checks, authors_listing, read_authors
from replication.report.steering.checks import checks
from replication.report.steering.figure import draw, draw_authors, draw_figure3
from replication.report.steering.tables import Figure3, authors_blocks, figure3_report, over_seeds, steering_tables
from sarm.job import EnvironmentProblem, IntegrityProblem

AUTHORS = DATA / AUTHORS_REWARDS


@pytest.fixture(scope="module")
def report() -> Report:
    data = steering(SAFE, ties=4, share=0.4)
    found = checks(data)
    listings = (over_seeds({0: found, 1: found}), *steering_tables(data, found, seed=0))
    return Report(
        experiment="figure3", title="Figure 3", profile="mini", protocol="paper", seeds=(0, 1), comparable=False,
        why_not_comparable="small", tables=(), listings=listings, notes=("a note",), deviations=("a deviation",),
    )  # fmt: skip


def svg_text(path: Path) -> str:
    """Texts of an SVG whose letters are paths: matplotlib leaves each as a comment."""
    return "\n".join(re.findall(r"<!-- (.*?) -->", path.read_text(encoding="utf-8"), flags=re.DOTALL))


def test_the_same_data_give_the_same_bytes(tmp_path: Path) -> None:
    data = steering(SAFE, ties=4)
    one, other = (draw(data, tmp_path / name, profile="mini", seed=0, comparable=False) for name in "ab")
    assert [path.name for path in one] == ["figure3.png", "figure3.svg", "figure3.pdf"]
    for first, second in zip(one, other, strict=True):
        assert first.read_bytes() == second.read_bytes(), first.name
        assert first.stat().st_size > 5000


def test_the_title_says_scale_latent_factor_and_rule(tmp_path: Path) -> None:
    data = steering(SAFE, multiplier=3.0)
    text = svg_text(draw(data, tmp_path, profile="mini", seed=2, comparable=False, formats=("svg",))[0])
    assert "profile mini (a miniature), seed 2: head weight of latent 0 times 3" in text
    assert "chosen by argmax-s on rmbench 'safety', tested on rewardbench2" in text
    other = svg_text(draw(data, tmp_path / "o", profile="mine", seed=0, comparable=False, formats=("svg",))[0])
    assert "profile mine (not comparable with the paper)" in other


def test_a_latent_that_never_fires_and_rewards_that_do_not_vary_are_drawn_too(tmp_path: Path) -> None:
    data = steering(SILENT)
    assert draw(data, tmp_path, profile="mini", seed=0, comparable=False, formats=("png",))[0].is_file()
    data.rewards[:] = 1.0
    assert draw(data, tmp_path / "flat", profile="mini", seed=0, comparable=False, formats=("png",))[0].is_file()


@pytest.mark.parametrize(
    "wrong",
    [*({"reward": value} for value in (float("nan"), float("inf"), "nan", None)), {"question_id": 2**63}, {"active": 2}, {"active": 0.5}],
)
def test_a_value_of_the_authors_that_cannot_be_is_refused_by_the_file(tmp_path: Path, wrong: dict[str, object]) -> None:
    rows = [{"question_id": 1, "reward": 1.0, "reward_steered": 1.0, "active": 1, **wrong}]
    path = tmp_path / "rewards.json"
    content = {"latent": 1, "source": "made up", "sets": {"safety_chosen": rows, "complement": rows}}
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(IntegrityProblem, match=r"rewards\.json: not the authors' rewards"):
        read_authors(path)


@pytest.mark.skipif(not AUTHORS.is_file(), reason="the authors' rewards are not at hand")
def test_the_authors_rewards_give_the_numbers_on_file(tmp_path: Path) -> None:
    figure = read_authors(AUTHORS)
    listing = authors_listing(figure)
    assert [row[-1] for row in listing.rows] == ["", "agrees", "", "agrees"]
    assert "RewardBench 2 Safety, chosen answers: 132/450 active, mean 4.52 -> 5.37" in listing.notes
    assert "Complement, rows that the file kept: 27/384 active, mean -1.18 -> -0.99" in listing.notes
    found = {check.name: check.outcome for check in authors_checks(figure)}
    # The shift on the complement is small, but its interval is not inside the bounds that would make it none.
    assert found == {"S2": "pass", "S3": "pass", "S4": "fail", "S5": "fail"}
    one, other = (draw_authors(figure, tmp_path / name) for name in "ab")
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]
    assert "132" in svg_text(one[1]) and "multiplier not recorded" in svg_text(one[1])


@pytest.mark.skipif(not AUTHORS.is_file(), reason="the authors' rewards are not at hand")
def test_another_reward_in_the_file_is_a_difference(tmp_path: Path) -> None:
    raw = json.loads(AUTHORS.read_text())
    silent = next(item for item in raw["sets"]["complement"] if not item["active"])
    silent["reward_steered"] += 100
    (tmp_path / "rewards.json").write_text(json.dumps(raw))
    assert authors_listing(read_authors(tmp_path / "rewards.json")).rows[3][-1] == "differs: Mean reward steered, Mean shift"


def test_a_missing_or_broken_file_of_authors_rewards_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="set SARM_DATA"):
        read_authors(tmp_path / "none.json")
    for content in ("not json", "{}", '{"latent": 1, "source": "x", "sets": {"safety_chosen": [{}], "complement": []}}'):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(IntegrityProblem, match="not the authors' rewards"):
            read_authors(tmp_path / "bad.json")


@pytest.mark.skipif(not AUTHORS.is_file(), reason="the authors' rewards are not at hand")
def test_the_whole_figure_is_drawn_seed_by_seed(tmp_path: Path) -> None:
    found = figure3_report([], profile="mini", protocol="paper", why_not_comparable="small", authors=AUTHORS)
    both = Figure3(report=found.report, data={0: steering(SAFE), 3: steering(SAFE, seed=3)}, checks={})
    names = [path.name for path in draw_figure3(both, tmp_path, authors=AUTHORS, formats=("png",))]
    assert names == ["figure3.png", "figure3-seed3.png", "figure3-authors.png"]
    assert [listing.name for listing in authors_blocks(AUTHORS)] == [listing.name for listing in found.report.listings]


def test_figures_of_seeds_that_a_later_report_has_not_are_taken_away(tmp_path: Path) -> None:
    empty = figure3_report([], profile="mini", protocol="paper", why_not_comparable="small").report
    for name in ("figure3-training.png", "figure3-authors.png"):
        (tmp_path / name).write_bytes(b"x")
    draw_figure3(Figure3(report=empty, data={0: steering(SAFE), 3: steering(SAFE, seed=3)}, checks={}), tmp_path, formats=("png",))
    assert {path.name for path in tmp_path.iterdir()} == {"figure3.png", "figure3-seed3.png", "figure3-training.png"}
    draw_figure3(Figure3(report=empty, data={3: steering(SAFE, seed=3)}, checks={}), tmp_path, formats=("png",))
    assert {path.name for path in tmp_path.iterdir()} == {"figure3.png", "figure3-training.png"}
    draw_figure3(Figure3(report=empty, data={}, checks={}), tmp_path, formats=("png",))
    assert {path.name for path in tmp_path.iterdir()} == {"figure3-training.png"}


@pytest.mark.parametrize("name", ["md", "tex", "html", "csv", "json"])
def test_every_format_has_every_block(report: Report, name: Format) -> None:
    text = as_text(report, name)
    for listing in report.listings:
        assert (listing.name if name in ("csv", "json") else listing.title) in text
    assert "a deviation" in text or name == "csv"
    assert "Percent" not in text and "How to read it" not in text and "Verdicts" not in text
    assert Report.model_validate_json(as_text(report, "json")) == report


def test_the_terminal_keeps_to_its_columns_and_shows_every_check(report: Report) -> None:
    text = plain_text(report, full=True)
    assert max(len(line) for line in text.splitlines()) <= 80
    for name in ("S0", "S3", "S8", "S11c", "S12"):
        assert re.search(rf"^{name}\s", text, flags=re.MULTILINE)


def test_the_html_of_blocks_is_well_formed(report: Report) -> None:
    class Checker(HTMLParser):
        opened: tuple[str, ...] = ()

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.opened += () if tag == "meta" else (tag,)

        def handle_endtag(self, tag: str) -> None:
            assert self.opened[-1] == tag
            self.opened = self.opened[:-1]

    checker = Checker()
    checker.feed(as_text(report, "html"))
    assert checker.opened == ()


def test_the_latex_of_blocks_closes_what_it_opens_and_is_ascii(report: Report) -> None:
    text = as_text(report, "tex")
    assert text.isascii() and text.count(r"\begin{longtable}") == text.count(r"\end{longtable}") == len(report.listings)
    plain = re.sub(r"\\[{}]", "", text)
    assert plain.count("{") == plain.count("}")
    for one in report.listings:
        part = text.split(f"\\label{{tab:{one.name}}}")[1].split(r"\bottomrule")[0].split(r"\endhead")[1]
        lines = [line for line in part.splitlines() if line.strip()]
        assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {len(one.columns) - 1}


def test_a_listing_with_a_short_row_is_refused() -> None:
    with pytest.raises(ValueError, match="has 1 fields for 2 columns"):
        Listing(name="x", title="X", columns=("a", "b"), rows=(("1",),))
