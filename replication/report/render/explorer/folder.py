"""An explorer without limits as a folder of files that opens from disk: all latents, all items, data as scripts of their own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from replication.data_folders import templates_folder
from replication.report.latents.explorations import Exploration
from replication.report.render.explorer.choice import WHOLE, items_in_turn, latents_by_weight
from replication.report.render.explorer.pages import index, item_page, latent_page, texts_of

# Pages in one file: what a click loads.
CHUNK = 100
PAGE = "index.html"


def write_folder(exploration: Exploration, folder: Path, *, told: Callable[[int, int], None] = lambda done, total: None) -> Path:
    """Writes `index.html`, `explorer.js`, `explorer.css` and `data/`; gives the page. `told` hears how many pages are done.

    Files of an earlier explorer in the folder are replaced.
    """
    data, templates = folder / "data", templates_folder() / "explorer"
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    latents, items = latents_by_weight(exploration, 0), items_in_turn(exploration, 0)
    total = len(latents) + 2 * len(items)
    _write_pages(data, "latents", latents, lambda one: latent_page(exploration, one, WHOLE), lambda done: told(done, total))
    _write_pages(data, "items", items, lambda one: item_page(exploration, one, WHOLE), lambda done: told(len(latents) + done, total))
    _write_pages(data, "texts", items, lambda one: texts_of(exploration, one), lambda done: told(total - len(items) + done, total))
    _write_script(data / "index.js", "index", {**index(exploration, WHOLE, latents=latents, items=items), "chunk": CHUNK})
    css = [(templates / name).read_text(encoding="utf-8") for name in ("folder.css", "explorer.css")]
    (folder / "explorer.css").write_text("".join(css), encoding="utf-8")
    shutil.copyfile(templates / "explorer.js", folder / "explorer.js")
    environment = Environment(loader=FileSystemLoader(templates), undefined=StrictUndefined, keep_trailing_newline=True, autoescape=True)
    page = environment.get_template("folder.html.j2").render(key=exploration.key, label=exploration.label)
    (folder / PAGE).write_text(page, encoding="utf-8")
    return folder / PAGE


def _write_pages(data: Path, name: str, numbers: Sequence[int], page: Callable[[int], Any], told: Callable[[int], None]) -> None:
    for place, start in enumerate(range(0, len(numbers), CHUNK)):
        _write_script(data / f"{name}-{place}.js", f"{name}-{place}", [page(one) for one in numbers[start : start + CHUNK]])
        told(min(start + CHUNK, len(numbers)))


def _write_script(path: Path, name: str, value: Any) -> None:
    """`explorerData("name", value);`: loaded as a script, since a page from disk may not fetch."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    path.write_text(f"explorerData({json.dumps(name)},{text});\n", encoding="ascii")
