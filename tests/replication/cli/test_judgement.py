"""diff, claims, leaderboard, report and --from scores as commands: output, exit codes, one line a problem, no torch."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import replicate
from fake_launcher import FakeLauncher
from folders import DATA, ROOT

from replication import pipeline
from replication.data_folders import AUTHORS_REWARDS
from replication.recipes.setting import Setting
from replication.report.published import load_published
from replication.report.steering.tables import figure3_report
from replication.settings.experiments import EXPERIMENTS
from replication.settings.profile_files import load_profile
from replication.settings.protocols import PROTOCOLS
from sarm.store.artifacts import ArtifactStore

BOARD = {"Factuality": 0.6874, "Focus": 0.9556, "Math": 0.6448, "Precise IF": 0.4281, "Safety": 0.9178, "Ties": 0.7939}
OFFICIAL = {**BOARD, "model": "Schrieffer/Llama-SARM-4B", "model_type": "Seq. Classifier", "chat_template": "tokenizer"}


def official(folder: Path, **changed: Any) -> str:
    path = folder / "Llama-SARM-4B.json"
    path.write_text(json.dumps(OFFICIAL | changed), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of invented artifacts of all tables, under two protocols, and their rendered tables and results."""
    folder = tmp_path_factory.mktemp("built")
    paper = Setting(experiment=EXPERIMENTS["table1"], profile=load_profile("mini", environment={}), protocol=PROTOCOLS["paper"])
    settings = [replace(paper, experiment=EXPERIMENTS[name]) for name in ("table1", "table2", "table3")]
    for protocol in ("paper", "authors"):
        chosen = [replace(one, protocol=PROTOCOLS[protocol]) for one in settings]
        store = ArtifactStore(folder / "store")
        pipeline.replicate(chosen, store, FakeLauncher(), watch=lambda event: None, rendered=folder / "rendered", command="replicate all")
    return folder


def test_a_match(tmp_path: Path) -> None:
    done = replicate("diff", "table1", "--results", official(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("table1 (results file) against paper: 7 MATCH") and "claimed, not proven" in done.stdout


def test_a_difference(tmp_path: Path) -> None:
    n = load_published("table1").n
    off = {name: round((value - 0.05) * n[name]) / n[name] for name, value in BOARD.items()}
    done = replicate("diff", "table1", "--results", official(tmp_path, **off))
    assert done.returncode == 3 and "7 DIFFERS" in done.stdout
    assert replicate("diff", "table1", "--results", official(tmp_path, **off), "--fail-on", "missing").returncode == 0


def test_an_inconclusive_one(tmp_path: Path) -> None:
    # The miniature's own official file, as if its profile had been the paper's: one retrained seed.
    arguments = ("diff", "table1", "--results", official(tmp_path, model="replicate-sarm/paper/sarm-4b"))
    done = replicate(*arguments)
    assert done.returncode == 0 and "7 INCONCLUSIVE" in done.stdout and "seeds would decide" in " ".join(done.stdout.split())
    assert replicate(*arguments, "--fail-on", "differs,inconclusive").returncode == 4


def test_what_is_missing_has_its_own_code_and_comes_first(tmp_path: Path) -> None:
    done = replicate("diff", "table1", "--store", str(tmp_path / "none"))
    assert done.returncode == 5 and "MISSING" in done.stdout and "replicate table1 --profile mini" in done.stdout
    assert replicate("diff", "table1", "--store", str(tmp_path / "none"), "--fail-on", "differs").returncode == 0


@pytest.mark.parametrize("against", ["leaderboard", "release"])
def test_the_other_references(tmp_path: Path, against: str) -> None:
    assert replicate("diff", "table1", "--results", official(tmp_path), "--against", against).returncode == 0


def test_two_miniatures_are_compared_and_the_paper_is_not(built: Path) -> None:
    store = ("--store", str(built / "store"))
    reference = str(built / "rendered" / "mini" / "table1.results.json")
    same = replicate("diff", "table1", "--against", reference, *store)
    assert same.returncode == 0 and "MATCH" in same.stdout.splitlines()[0] and "DIFFERS" not in same.stdout
    paper = replicate("diff", "table1", "--row", "sarm-4b", *store)
    assert paper.returncode == 0 and paper.stdout.splitlines()[0].endswith("against paper: 15 NOT COMPARABLE")


def test_a_run_of_other_seeds_says_in_one_line_that_nothing_was_compared(built: Path, tmp_path: Path) -> None:
    content = json.loads((built / "rendered" / "mini" / "table1.results.json").read_text(encoding="utf-8"))
    content["seeds"] = content["report"]["seeds"] = [7]
    path = tmp_path / "reference.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    done = replicate("diff", "table1", "--against", str(path), "--store", str(built / "store"))
    assert done.returncode == 6 and done.stderr.strip().endswith("ours [0]; no verdict") and len(done.stderr.splitlines()) == 1


def test_a_miniature_that_is_far_from_its_reference_differs(built: Path, tmp_path: Path) -> None:
    reference = built / "rendered" / "mini" / "table1.results.json"
    content = json.loads(reference.read_text(encoding="utf-8"))
    for row in content["report"]["tables"][0]["rows"]:
        for cell in row["cells"]:
            if row["name"] == "sarm-4b" and cell["column"] == "Safety":
                cell["ours"].update(value=0.0, correct=0.0, standard_error=0.0)
    path = tmp_path / "reference.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    done = replicate("diff", "table1", "--against", str(path), "--store", str(built / "store"))
    assert done.returncode == 3 and "1 DIFFERS" in done.stdout


def test_data_of_another_revision_are_refused(built: Path, tmp_path: Path) -> None:
    content = json.loads((built / "rendered" / "mini" / "table1.results.json").read_text(encoding="utf-8"))
    for one in content["report"]["inputs"]:
        one["revision"] = "0" * 40
    path = tmp_path / "reference.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    done = replicate("diff", "table1", "--against", str(path), "--store", str(built / "store"))
    assert done.returncode == 6 and "no verdict" in done.stderr and not done.stdout


def test_github_gets_annotations_and_a_step_summary(tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    done = replicate("diff", "table1", "--results", official(tmp_path, Ties=0.5), "--format", "github", GITHUB_STEP_SUMMARY=str(summary))
    assert done.returncode == 3 and done.stdout.startswith("::error title=DIFFERS")
    assert summary.read_text(encoding="utf-8").startswith("### table1")


@pytest.mark.parametrize("form", ["md", "json", "junit"])
def test_other_formats(tmp_path: Path, form: str) -> None:
    done = replicate("diff", "table1", "--results", official(tmp_path), "--format", form)
    assert done.returncode == 0 and done.stdout.startswith({"md": "###", "json": "{", "junit": "<?xml"}[form])


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("diff", "tabel1"), 2, "did you mean 'table1'"),
        *(((name, "all"), 2, "this command takes one") for name in ("diff", "render", "show")),
        (("diff", "table1", "--against", "leaderbord"), 2, "did you mean 'leaderboard'"),
        (("diff", "table1", "--fail-on", "difers"), 2, "did you mean 'differs'"),
        (("diff", "table1", "--results", "/none.json"), 2, "no such file"),
        (("diff", "table1", "--row", "sarm-9b"), 2, "no such row"),
        *(((name, one), 5, f"nothing of {one} was measured yet; run: replicate {one}")
          for name, one in (("diff", "figure3"), ("diff", "features"), ("diff", "table4"))),
        (("verify",), 5, "has no artifacts"),
        (("store", "export", "archive.tar.gz"), 5, "has no artifacts"),
        (("leaderboard",), 6, "not ranked: miniature"),
        (("report", "--rendered", "/none"), 5, "nothing was rendered"),
        (("table1", "--from", "scores"), 2, "--scores FOLDER"),
        (("table1", "--scores", "/none"), 2, "only with --from scores"),
        (("table1", "--from", "scores", "--scores", "/none"), 5, "no such results file"),
        (("table1", "--from", "scores", "--scores", "/none", "--set", "a.b=1", "--fresh"), 2, "--fresh has no meaning"),
        (("table1", "--from", "scores", "--limit", "3", "--workers", "2"), 2, "--workers has no meaning with --from scores"),
        (("table1", "--from", "scores", "--judge", "gpt-4o"), 2, "--judge has no meaning with --from scores"),
        (("all", "--from", "scores", "--keep-going"), 2, "--keep-going has no meaning with --from scores"),
        (("table1", "--from", "scores", "--scores", "/none", "--yes", "--offline"), 5, "no such results file"),
        (("diff", "table1", "--results", "/none.json", "--seeds", "0"), 2, "--seeds has no meaning with --results: the file"),
        (("leaderboard", "--results", "/none.json", "--set", "a.b=1"), 2, "--set has no meaning with --results"),
        (("claims", "--seeds", "x"), 2, "whole numbers"),
    ],
)
def test_bad_input_gets_its_exit_code_and_a_clear_line(arguments: tuple[str, ...], code: int, words: str, tmp_path: Path) -> None:
    done = replicate(*arguments, SARM_STORE=str(tmp_path / "store"))
    assert done.returncode == code, done.stderr
    assert words in done.stderr and "Traceback" not in done.stderr and not done.stdout


@pytest.mark.parametrize(
    ("changed", "code", "words"),
    [
        ({"Math": "high"}, 2, "no fraction"),
        ({"Safety": None}, 2, "no fraction"),
        ({"model": "me/mine"}, 2, "--row NAME"),
        ({"schema_version": "2.0"}, 6, "schema_version"),
    ],
)
def test_a_bad_results_file_never_gets_a_verdict(tmp_path: Path, changed: dict[str, Any], code: int, words: str) -> None:
    done = replicate("diff", "table1", "--results", official(tmp_path, **changed))
    assert done.returncode == code and words in done.stderr and not done.stdout


def test_claims_from_published_numbers_alone(tmp_path: Path) -> None:
    done = replicate("claims", "--json", "--store", str(tmp_path / "none"))
    content = json.loads(done.stdout)
    outcomes = {one["id"]: one["outcome"] for one in content["published"]}
    assert done.returncode == 0 and outcomes["C1b"] == "CONTRADICTED" and content["own"] == {}
    assert any("replicate table2 --profile mini" in line for line in content["missing"])
    text = replicate("claims", "--store", str(tmp_path / "none"))
    assert "no results of ours" in text.stdout and max(map(len, text.stdout.splitlines())) <= 100


def test_claims_at_mini_scale_are_analogues_for_each_protocol(built: Path) -> None:
    content = json.loads(replicate("claims", "--json", "--store", str(built / "store")).stdout)
    assert set(content["own"]) == {"C1c", "C2a", "C2b", "C3", "C4a", "C4b", "C5-M", "C5-k"}
    assert {one["outcome"] for found in content["own"].values() for one in found} <= {"SUPPORTED-ANALOGUE", "NOT-SUPPORTED-ANALOGUE"}
    # The miniature replaces all that `aaai` changes; the authors' two recipes stay apart, and only one of them is in the store.
    assert [one["protocol"] for one in content["own"]["C3"]] == ["paper, aaai", "authors"]
    lacking = [line.partition("; run: ") for line in content["missing"]]
    assert {(what, command) for what, _, command in lacking} == {
        ("not in the store: its results for claim C6", f"replicate figure3 --profile mini --store {built / 'store'}"),
        ("not in the store: its results for claim C7", f"replicate features --profile mini --store {built / 'store'}"),
    }


def test_the_leaderboard_ranks_with_errors(tmp_path: Path) -> None:
    done = replicate("leaderboard", "--results", official(tmp_path))
    (ours,) = [line for line in done.stdout.splitlines() if "-> " in line]
    assert done.returncode == 0 and "73.79" in ours and "±" in ours and "captured models" in done.stdout
    places = json.loads(replicate("leaderboard", "--results", official(tmp_path), "--json").stdout)
    (place,) = [one for one in places if one["ours"]]
    assert place["best"] <= place["rank"] <= place["worst"] and place["standard_error"] > 1


def test_a_report_is_one_page_of_all_tables(built: Path, tmp_path: Path) -> None:
    given = ("--out", str(tmp_path / "report.html"), "--rendered", str(built / "rendered"), "--store", str(built / "store"))
    done = replicate("report", *given)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert done.returncode == 0 and "6 reports" in done.stderr
    assert all(f'id="{name}-mini-{protocol}"' in page for name in ("table1", "table2", "table3") for protocol in ("paper", "authors"))
    assert 'id="claims"' in page and 'id="audit"' in page
    assert set(re.findall(r'src="([^:]+:[^;]+);', page)) == {"data:image/svg+xml"}, "the pictures that lie beside the tables"
    assert "ours, mini, seeds 0, protocol paper" in page and (built / "rendered" / "claims.png").is_file()


def test_a_page_of_tables_in_a_folder_that_cannot_be_written(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built / "rendered", tmp_path / "rendered", ignore=shutil.ignore_patterns("claims.*"))
    # Root writes into every folder, but over no folder.
    (tmp_path / "rendered" / "claims.svg").mkdir()
    done = replicate("report", "--out", str(tmp_path / "r.html"), "--rendered", str(tmp_path / "rendered"), "--store", "/none")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert done.returncode == 0 and "effects with their intervals" in page and "ours, mini" not in page, done.stderr
    assert "claims.svg is in the page alone" in done.stderr


def test_tables_from_scores_alone(built: Path, tmp_path: Path) -> None:
    rendered = built / "rendered" / "mini"
    done = replicate("table1", "--from", "scores", "--scores", str(rendered), "--out", str(tmp_path), "--store", "/none")
    assert done.returncode == 0 and "Reward models on RewardBench 2" in done.stdout, done.stderr
    for form in ("md", "tex", "html", "json", "csv"):
        assert (tmp_path / "mini" / f"table1.{form}").read_bytes() == (rendered / f"table1.{form}").read_bytes()


@pytest.mark.parametrize("wrong", [("--profile", "paper"), ("--protocol", "authors"), ("--seeds", "0,1")])
def test_scores_of_another_scale_than_asked_for_are_refused(built: Path, tmp_path: Path, wrong: tuple[str, str]) -> None:
    scores = ("--from", "scores", "--scores", str(built / "rendered" / "mini"), "--out", str(tmp_path))
    done = replicate("table1", *scores, *wrong)
    assert done.returncode == 6 and f"not {wrong[1]}" in done.stderr


@pytest.mark.parametrize("page", ["docs/ci.md", ".github/workflows/reproduce.yml"])
def test_the_commands_of_the_ci_pages_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"\.venv/bin/replicate ([a-z0-9-]+)", text))
    listed = replicate("--help").stdout
    assert named >= {"audit", "diff", "table1", "claims"} and all(re.search(rf"^\W*{name}\b", listed, re.MULTILINE) for name in named)
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"^\s*(?:run: )?make ([a-z0-9-]+)", text, re.MULTILINE)) <= targets


AUTHORS = DATA / AUTHORS_REWARDS


@pytest.mark.skipif(not AUTHORS.is_file(), reason="the authors' rewards are not at hand")
@pytest.mark.parametrize("named", [DATA, DATA / "reference"])
def test_figure_3_is_drawn_from_the_authors_rewards_alone(tmp_path: Path, named: Path) -> None:
    done = replicate("figure3", "--from", "scores", "--scores", str(named), "--out", str(tmp_path), "--store", "/none", "--full")
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "132/450 active, mean 4.52 -> 5.37" in said and "27/384 active, mean -1.18 -> -0.99" in said
    files = {path.name for path in (tmp_path / "authors").iterdir()}
    assert {"figure3.md", "figure3-authors.png", "figure3-authors.svg", "figure3-authors.pdf"} <= files


def test_the_page_shows_figure_3_of_the_seeds_of_its_report_alone(tmp_path: Path) -> None:
    found = figure3_report([], profile="mini", protocol="paper", why_not_comparable="small").report.model_copy(update={"seeds": (0, 2)})
    (tmp_path / "mini").mkdir()
    (tmp_path / "mini" / "figure3.json").write_text(found.model_dump_json(), encoding="utf-8")
    for name in ("figure3", "figure3-seed2", "figure3-seed4"):
        picture = f'<svg xmlns="http://www.w3.org/2000/svg"><title>picture {name}</title></svg>'
        (tmp_path / "mini" / f"{name}.svg").write_text(picture, encoding="utf-8")
    done = replicate("report", "--rendered", str(tmp_path), "--out", str(tmp_path / "page.html"), "--store", str(tmp_path / "none"))
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert "picture figure3-seed2" in text and "picture figure3-seed4" not in text


def test_without_the_authors_rewards_one_line_says_what_to_set(tmp_path: Path) -> None:
    for options in ((), ("--scores", str(tmp_path))):
        done = replicate("figure3", "--from", "scores", *options, "--out", str(tmp_path))
        assert done.returncode == 5 and "set SARM_DATA" in done.stderr and len(done.stderr.splitlines()) == 1


def test_the_tables_of_all_are_rebuilt_without_the_authors_rewards(built: Path, tmp_path: Path) -> None:
    done = replicate("all", "--from", "scores", "--scores", str(built / "rendered" / "mini"), "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "set SARM_DATA" in done.stderr and (tmp_path / "mini" / "table1.md").is_file()
