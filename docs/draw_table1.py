"""Draws `docs/table1-mini.svg`, the README's picture: Table 1 of the miniature as the committed reference results have it.

    python docs/draw_table1.py [RESULTS.json] [OUT.svg]        (in this project's environment; `make picture`)
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from replication.drawing import BLUE, GREEN, VERMILLION

ROOT = Path(__file__).resolve().parent.parent
CHANCE = 25.0  # one right answer of four; Ties, and Overall with it, is no best of four, so the line leaves them out
COLUMNS = ("Overall", "Factuality", "Precise IF", "Math", "Safety", "Focus", "Ties")
# The markers tell them apart in grey.
STYLES = ((BLUE, "o"), (VERMILLION, "s"), (GREEN, "^"), ("#666666", "x"), ("#999999", "+"))


def drawn(results: dict[str, Any]) -> Figure:
    """One group of points a column, one point a model, each with its 95 % interval over items."""
    of_table = [metric for metric in results["metrics"] if metric["benchmark"] == "rewardbench2" and metric["column"] in COLUMNS]
    models = list(dict.fromkeys(metric["model"] for metric in of_table))
    figure = Figure(figsize=(9.0, 3.4), layout="constrained")
    axes = figure.add_subplot()
    for place, (model, (colour, marker)) in enumerate(zip(models, STYLES, strict=True)):
        for metric in (one for one in of_table if one["model"] == model):
            x = COLUMNS.index(metric["column"]) + (place - 2) * 0.14
            low, high = metric["ci95"] or (metric["value"], metric["value"])
            axes.plot([x, x], [low, high], color=colour, linewidth=1.2)
            axes.plot([x], [metric["value"]], color=colour, marker=marker, linestyle="", label=model)
    axes.hlines(CHANCE, 0.5, len(COLUMNS) - 1.5, colors="black", linestyles="dashed", linewidth=0.8, label="chance, best of 4")
    named = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=len(named), frameon=False)
    axes.set_xticks(range(len(COLUMNS)), COLUMNS)
    axes.set_ylabel("percent")
    axes.set_ylim(0, 100)
    seeds = ", ".join(map(str, results["seeds"]))
    axes.set_title(f"Table 1 on the miniature, seed {seeds}: 95 % intervals over items", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def main() -> None:
    """Draw from the results named first to the file named second."""
    named = [Path(one) for one in sys.argv[1:]]
    source, target = (*named, *(ROOT / "reference" / "mini" / "table1.results.json", ROOT / "docs" / "table1-mini.svg")[len(named) :])
    # Outlines instead of fonts and no date, so that the same numbers give the same bytes.
    with mpl.rc_context({"svg.hashsalt": "replicate", "svg.fonttype": "path", "font.family": "DejaVu Sans"}):
        drawn(json.loads(source.read_text(encoding="utf-8"))).savefig(target, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
