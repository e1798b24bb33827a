"""No warning from our own code when it is compiled, on any Python that is here."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from folders import ROOT

VERSIONS = ("3.11", "3.12", "3.13", "3.14")
COMPILE = """
import json, sys, warnings
warnings.simplefilter("error")
found = []
for name in json.load(sys.stdin):
    with open(name, encoding="utf-8") as file:
        text = file.read()
    try:
        compile(text, name, "exec", dont_inherit=True)
    except (SyntaxError, Warning) as problem:
        found.append(f"{name}: {type(problem).__name__}: {problem}")
print(json.dumps(found))
"""


def python_of(version: str) -> str:
    """That Python, or a skip that names it."""
    if version == ".".join(platform.python_version_tuple()[:2]):
        return sys.executable
    found = shutil.which(f"python{version}")
    # A version manager's shim may stand there for a Python that is not chosen, and start nothing.
    if found is None or subprocess.run([found, "-c", ""], capture_output=True, check=False, timeout=60).returncode:
        pytest.skip(f"not run: no python{version} is here")
    return found


def complaints(python: str, names: list[str]) -> list[str]:
    """What a Python says of these files when every warning is an error."""
    done = subprocess.run([python, "-I", "-c", COMPILE], input=json.dumps(names), capture_output=True, text=True, check=True, timeout=120)
    return list(json.loads(done.stdout))


@pytest.mark.parametrize("version", VERSIONS)
def test_every_file_compiles_without_a_warning(version: str) -> None:
    python = python_of(version)
    names = [str(path) for folder in ("sarm", "replication", "benchmarks", "tests") for path in sorted((ROOT / folder).rglob("*.py"))]
    assert len(names) > 300 and complaints(python, names) == []


def test_an_invalid_escape_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "escape.py"
    file.write_text('PATTERN = "\\d"\n', encoding="utf-8")
    assert "invalid escape sequence" in complaints(sys.executable, [str(file)])[0]
