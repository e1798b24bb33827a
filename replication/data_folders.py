"""Where the data folders lie: in a checkout (or an editable install of one), or inside an installed wheel."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
# Where the authors' rewards behind Figure 3 lie below a data folder that the user names (SARM_DATA).
AUTHORS_REWARDS = Path("reference") / "figure3_authors_rewards.json"


class DataFolderError(FileNotFoundError):
    """A data folder that the package needs is neither in the wheel nor in the checkout."""

    exit_code = 7


def _folder(relative: str) -> Path:
    """The wheel's copy comes first: beside an installed package, `tables/` could belong to another project."""
    candidates = (PACKAGE / "_data" / relative, PACKAGE.parent / relative)
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    tried = ", ".join(str(candidate) for candidate in candidates)
    raise DataFolderError(f"data folder {relative!r} not found (tried {tried}); reinstall the package or run from its checkout")


def published_folder() -> Path:
    """The folder of the published numbers, `tables/published`. Raises DataFolderError."""
    return _folder("tables/published")


def templates_folder() -> Path:
    """The folder of the Jinja templates, `tables/templates`. Raises DataFolderError."""
    return _folder("tables/templates")


def slurm_folder() -> Path:
    """The folder of the Slurm template, clusters and generated scripts, `slurm`. Raises DataFolderError."""
    return _folder("slurm")
