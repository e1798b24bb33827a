"""The package as it is installed: from a wheel, editable, and from the bare checkout, always called from another folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from folders import ROOT

WHERE = """
import json, replication
from replication.data_folders import published_folder, slurm_folder, templates_folder
print(json.dumps([replication.__file__, *map(str, (published_folder(), templates_folder(), slurm_folder()))]))
"""

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Standard output of a command; its whole output is told when it fails."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "SARM_STORE")}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env={**kept, **environment}, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def fresh_environment(folder: Path) -> Path:
    """A virtual environment without pip that sees the packages installed here; returns its interpreter."""
    venv.create(folder, with_pip=False, symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    (site / "packages_of_the_tests.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return folder / "bin" / "python"


def install(python: Path, *what: str | Path, cwd: Path) -> None:
    """Install into that environment alone: what is installed here stays untouched."""
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--ignore-installed", "--no-build-isolation")
    run(*pip, *what, cwd=cwd)


def works_from(python: Path, elsewhere: Path, **environment: str) -> list[Path]:
    """Where the package and its data folders are; the commands that read them answer."""
    package, *folders = json.loads(run(python, "-c", WHERE, cwd=elsewhere, **environment))
    published, templates, _ = (Path(folder) for folder in folders)
    assert (published / "table1.toml").is_file()
    assert (templates / "table.md.j2").is_file()
    command = (python, "-m", "replication.cli")
    assert "table1" in run(*command, "list", cwd=elsewhere, **environment)
    assert "make_miniature" in run(*command, "plan", "table1", "--json", "--store", elsewhere / "store", cwd=elsewhere, **environment)
    return [Path(package), *map(Path, folders)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


def test_a_wheel_brings_no_top_level_package_but_ours(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"replication", "sarm"}
    assert "sarm/py.typed" in names, "type checkers would not look into it"
    beside = {path.relative_to(ROOT).as_posix() for path in (ROOT / "sarm" / "demo" / "page").iterdir()}
    assert beside <= set(names), "the demo would serve no page"


def test_an_installed_wheel_finds_its_data_from_anywhere(wheel: Path, tmp_path: Path, elsewhere: Path) -> None:
    python = fresh_environment(tmp_path / "environment")
    install(python, wheel, cwd=elsewhere)
    places = works_from(python, elsewhere)
    assert all(tmp_path / "environment" in place.parents for place in places), "data of the checkout was found, not the wheel's"
    assert "table1" in run(tmp_path / "environment" / "bin" / "replicate", "list", cwd=elsewhere)


def test_an_editable_install_finds_the_data_of_its_checkout(tmp_path: Path, elsewhere: Path) -> None:
    python = fresh_environment(tmp_path / "environment")
    install(python, "--editable", ROOT, cwd=elsewhere)
    assert all(ROOT in place.parents for place in works_from(python, elsewhere))


def test_a_bare_checkout_finds_its_data_from_anywhere(elsewhere: Path) -> None:
    assert all(ROOT in place.parents for place in works_from(Path(sys.executable), elsewhere, PYTHONPATH=str(ROOT)))
