"""The tree as a stranger gets it: nothing of the machine that wrote it, and a first page whose commands exist."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from folders import ROOT

# Spelled in parts, so that this file does not hold what it looks for.
MACHINE = re.compile("|".join("/" + name + "/" for name in ("work", "root")))
HOSTS = (("pypi", "org"), ("pythonhosted", "org"), ("registry", "npmjs"), ("deb", "debian"))
REGISTRY = re.compile("|".join(re.escape(".".join(host)) for host in HOSTS))
SECRET = re.compile(
    r"\b(hf_[A-Za-z0-9]{30,}|gh[pousr]_[A-Za-z0-9]{30,}|sk-[A-Za-z0-9_-]{30,}|AKIA[0-9A-Z]{16})\b|-----BEGIN [A-Z ]*PRIVATE KEY"
)
FILE_LINES = 400
FUNCTION_LINES = 40


def tracked_files() -> list[Path]:
    """Files that git tracks or would track."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("pattern", [MACHINE, REGISTRY, SECRET], ids=["paths of one machine", "registry hosts", "secrets"])
def test_no_tracked_file_holds(pattern: re.Pattern[str]) -> None:
    found = []
    for path in tracked_files():
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
            if pattern.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}")
    assert not found, f"{pattern.pattern}: {found[:10]}"


def sources() -> dict[str, str]:
    """The text of every Python file of the project, tests too."""
    files = [file for folder in ("sarm", "replication", "benchmarks", "tests") for file in sorted((ROOT / folder).rglob("*.py"))]
    return {str(file.relative_to(ROOT)): file.read_text(encoding="utf-8") for file in files}


def test_source_files_are_short() -> None:
    long = [name for name, text in sources().items() if len(text.splitlines()) >= FILE_LINES]
    assert not long, f"files of {FILE_LINES} lines or more: {long}"


def test_functions_are_short() -> None:
    functions = {
        f"{name}: {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for name, text in sources().items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    long = {name: lines for name, lines in functions.items() if lines >= FUNCTION_LINES}
    assert not long, f"functions of {FUNCTION_LINES} lines or more: {long}"


def test_the_first_commands_of_the_readme_are_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    commands = re.findall(r"^\s*make ([a-z0-9-]+)", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert commands[:2] == ["table1", "test"]
    assert set(commands) <= targets


def test_the_files_that_the_pages_link_to_exist() -> None:
    missing = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks" / "README.md"]:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                missing.append(f"{page.relative_to(ROOT)}: {target}")
    assert not missing


def test_the_source_files_that_the_pages_name_exist() -> None:
    named = re.compile(r"\b(?:tests|benchmarks|sarm|replication|slurm|examples)/[\w./-]*\w\.(?:py|toml|sh)\b")
    pages = [path for path in tracked_files() if path.suffix == ".md" and path.name != "CHANGELOG.md"]
    texts = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in pages}
    found = {(page, name) for page, text in texts.items() for name in named.findall(text)}
    assert len(found) > 100 and not sorted((page, name) for page, name in found if not (ROOT / name).is_file())


def test_the_picture_of_the_readme_shows_the_reference_results(tmp_path: Path) -> None:
    results, drawn = ROOT / "reference" / "mini" / "table1.results.json", tmp_path / "drawn.svg"
    subprocess.run([sys.executable, str(ROOT / "docs" / "draw_table1.py"), str(results), str(drawn)], check=True, timeout=120)
    assert drawn.read_bytes() == (ROOT / "docs" / "table1-mini.svg").read_bytes(), "run: make picture"


def test_ci_runs_the_tests_and_the_linters() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for target in ("make test", "make lint", "make test-all"):
        assert re.search(rf"^(\w+ )*{target}$", script, re.MULTILINE), target
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100


def test_the_gpu_tests_use_the_python_given_and_install_nothing() -> None:
    command = ["make", "-n", "-C", str(ROOT), "test-gpu", "PYTHON=some-python"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "some-python -m pytest -m gpu" in told and "pip" not in told


def test_every_pin_is_exact_and_of_no_local_build() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    wrong = [line for line in lines if not re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9.]*", line)]
    assert not wrong
    pins = dict(line.split("==") for line in lines)
    assert pins["torch"] in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_the_oldest_torch_that_is_allowed_is_the_one_that_make_tries() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    (oldest,) = re.findall(r"^torch>=([\d.]+)$", "\n".join(wanted), re.MULTILINE)
    (tried,) = re.findall(r"^TORCH \?= ([\d.]+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert tried.startswith(f"{oldest}.")
