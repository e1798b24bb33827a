"""`replicate diff --items` as a command: ours from the store, from a results file or a file of rewards, and the exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import replicate
from fake_launcher import FakeLauncher

from replication import pipeline
from replication.recipes.setting import Setting
from replication.settings.experiments import EXPERIMENTS
from replication.settings.profile_files import load_profile
from replication.settings.protocols import PROTOCOLS
from sarm.store.artifacts import ArtifactStore


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of invented artifacts of Table 1, and its results."""
    folder = tmp_path_factory.mktemp("built")
    setting = Setting(experiment=EXPERIMENTS["table1"], profile=load_profile("mini", environment={}), protocol=PROTOCOLS["paper"])
    store = ArtifactStore(folder / "store")
    pipeline.replicate([setting], store, FakeLauncher(), watch=lambda event: None, rendered=folder / "rendered", command="replicate table1")
    return folder


@pytest.fixture
def rewards(built: Path) -> tuple[str, Path, Path]:
    """A row, its RewardBench 2 rewards beside the results, and the results."""
    results = next((built / "rendered").rglob("table1.results.json"))
    file = next(one for one in json.loads(results.read_text())["rewards"] if one["benchmark"] == "rewardbench2")
    return file["model"], results.parent / file["file"], results


def official(folder: Path, source: Path, **changes: tuple[float, ...]) -> str:
    """The official file of our rewards; `changes` are rewards by subset and id."""
    rows: list[dict[str, Any]] = [json.loads(line) for line in source.read_text().splitlines()]
    path = folder / "eval-set-scores.json"
    scores = [changes.get(f"{row['subset']}_{row['id']}", [*row["chosen_rewards"], *row["rejected_rewards"]]) for row in rows]
    path.write_text(json.dumps({
        "id": [row["id"] for row in rows], "subset": [row["subset"] for row in rows],
        "num_correct": [len(row["chosen_rewards"]) for row in rows], "scores": [[[one] for one in found] for found in scores],
        "results": [None for _ in rows], "model": "somebody/model",
    }, indent=1))  # fmt: skip
    return str(path)


def test_ours_from_the_store_against_an_official_file(built: Path, rewards: tuple[str, Path, Path], tmp_path: Path) -> None:
    row, source, _ = rewards
    asked = ("diff", "table1", "--store", str(built / "store"), "--row", row, "--items", "--against")
    done = replicate(*asked, official(tmp_path, source))
    assert done.returncode == 0 and "24 of 24 items agree, 0 differ" in done.stdout and "Overall" in done.stdout, done.stderr
    other = official(tmp_path, source, Math_0=(1.0, 0.0, 0.0, -0.5))
    done = replicate(*asked, other, "--format", "json")
    found = json.loads(done.stdout)
    assert done.returncode == 3 and (found["differing"], found["differences"][0]["id"]) == (1, "0"), done.stderr
    summary = tmp_path / "summary.md"
    done = replicate(*asked, other, "--format", "github", "--fail-on", "missing", GITHUB_STEP_SUMMARY=str(summary))
    assert done.returncode == 0 and "::error title=DIFFERS%3A Math 0::ours wrong, theirs right" in done.stdout
    assert "| Math 0 | wrong | right |" in summary.read_text()


def test_ours_from_results_and_from_a_file_of_rewards(rewards: tuple[str, Path, Path], tmp_path: Path) -> None:
    row, source, results = rewards
    theirs = official(tmp_path, source)
    denied = json.loads(Path(theirs).read_text()) | {"results": [2.0] * 24}
    Path(theirs).write_text(json.dumps(denied))
    for ours in (results, source):
        done = replicate("diff", "table1", "--row", row, "--items", "--results", str(ours), "--against", theirs)
        assert done.returncode == 0 and f"ours: {source}" in done.stdout, done.stderr
        assert f"note: {theirs}: " in done.stderr and "items state by `results` another credit" in done.stderr
    short = tmp_path / "short.jsonl"
    short.write_text("".join(source.read_text().splitlines(keepends=True)[:-1]))
    done = replicate("diff", "table1", "--row", row, "--items", "--results", str(short), "--against", theirs)
    assert done.returncode == 5 and "1 items are in theirs alone" in done.stdout


@pytest.mark.parametrize(("arguments", "expected"), [
    (("--items", "--against", "THEIRS"), (2, "name its row with --row ROW")),
    (("--items", "--row", "ROW"), (2, "--against FILE; paper is none")),
    (("--items", "--row", "ROW", "--against", "THEIRS", "--format", "junit"), (2, "has no form for items")),
    (("--items", "--row", "nobody", "--against", "THEIRS"), (2, "scores no such row")),
    (("--items", "--row", "ROW", "--against", "THEIRS", "--store", "/nonexistent/store"), (5, "has no rewards of rewardbench2")),
    (("--all",), (2, "--all has no meaning without --items")),
    (("--items", "--row", "ROW", "--against", "BROKEN"), (2, "row: holds no rewards")),
    (("--items", "--row", "ROW", "--against", "OTHER"), (6, "no item of")),
])  # fmt: skip
def test_what_cannot_be_compared_is_one_line_and_its_code(
    built: Path, rewards: tuple[str, Path, Path], tmp_path: Path, arguments: tuple[str, ...], expected: tuple[int, str]
) -> None:
    row, source, _ = rewards
    (tmp_path / "broken.jsonl").write_text('{"id": "0", "subset": "Math"}\n')
    (tmp_path / "other.jsonl").write_text('{"id": "x", "subset": "Math", "num_correct": 1, "scores": [1, 0]}\n')
    words = {
        "ROW": row, "THEIRS": official(tmp_path, source), "BROKEN": str(tmp_path / "broken.jsonl"), "OTHER": str(tmp_path / "other.jsonl"),
    }  # fmt: skip
    done = replicate("diff", "table1", "--store", str(built / "store"), *(words.get(one, one) for one in arguments))
    assert done.returncode == expected[0] and expected[1] in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_rewards_that_are_not_those_of_the_results_are_refused(rewards: tuple[str, Path, Path], tmp_path: Path) -> None:
    row, source, results = rewards
    copied = tmp_path / "table1.results.json"
    copied.write_bytes(results.read_bytes())
    file = tmp_path / source.relative_to(results.parent)
    asked = ("diff", "table1", "--row", row, "--items", "--results", str(copied), "--against", official(tmp_path, source))
    assert replicate(*asked).returncode == 5
    file.parent.mkdir(parents=True)
    file.write_bytes(source.read_bytes() + b"\n")
    done = replicate(*asked)
    assert done.returncode == 6 and "SHA-256 differs" in done.stderr
