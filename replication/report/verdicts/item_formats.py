"""A comparison item by item as text, Markdown, JSON or GitHub workflow commands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from replication.report.render.view import markdown
from replication.report.verdicts.diff_formats import ANNOTATIONS, workflow_command
from replication.report.verdicts.items import NAMED, ItemsDiff

ItemsFormat = Literal["text", "md", "json", "github"]
WORST = 20
Rows = Sequence[Sequence[str]]


def items_text(found: ItemsDiff, form: ItemsFormat = "text", *, everything: bool = False) -> str:
    """The comparison in one format, with the worst twenty differences or, with `everything`, all of them."""
    shown = found if everything else found.model_copy(update={"differences": found.differences[:WORST]})
    writers: Mapping[ItemsFormat, Callable[[ItemsDiff], str]] = {
        "text": _text, "md": _md, "json": lambda one: one.model_dump_json(indent=2) + "\n", "github": _github,
    }  # fmt: skip
    return writers[form](shown)


def _head(found: ItemsDiff) -> str:
    total = found.subsets[-1]
    return (
        f"{found.experiment}, {found.row} on {found.benchmark} against {found.against}: "
        f"{total.agree:,} of {total.items:,} items agree, {found.differing:,} differ"
    )


def _subsets(found: ItemsDiff) -> Rows:
    return [
        ("subset", "items", "agree", "differ", "better here", "better there", "identical", "rank correlation"),
        *(
            (one.subset, f"{one.items:,}", f"{one.agree:,}", f"{one.differ:,}", f"{one.better_here:,}", f"{one.better_there:,}",
             f"{one.identical:,}", "—" if one.correlation is None else f"{one.correlation:.4f}")
            for one in found.subsets
        ),
    ]  # fmt: skip


def _numbers(found: ItemsDiff) -> Rows:
    def shown(value: float | None) -> str:
        return "—" if value is None else f"{value:.2f}"

    rows = [(one.name, shown(one.ours), shown(one.theirs)) for one in found.numbers]
    return [("official number", "ours", "theirs"), *rows]


def _differences(found: ItemsDiff) -> Rows:
    rows = [
        (f"{one.subset} {one.id}".strip(), one.ours, one.theirs, f"{one.our_margin:.4g}", f"{one.their_margin:.4g}")
        for one in found.differences
    ]
    return [("item", "ours", "theirs", "our margin", "their margin"), *rows] if rows else []


def _notes(found: ItemsDiff) -> list[str]:
    notes = [f"ours: {found.ours}"]
    if found.differing > len(found.differences):
        notes.append(f"the worst {len(found.differences)} of {found.differing:,} differences; all of them with --all")
    for names, where in ((found.only_ours, "ours alone"), (found.only_theirs, "theirs alone")):
        if names:
            more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
            notes.append(f"{len(names):,} items are in {where}: {', '.join(names[:NAMED])}{more}")
    if any(found.repeated_ids):
        mine, others = found.repeated_ids
        how = "" if found.by_order or found.unsure else "; they are matched in the files' order"
        notes.append(f"ids that repeat within their subset: {mine} of ours, {others} of theirs{how}")
    if found.by_order:
        told = ", ".join(one or "the items" for one in found.by_order)
        notes.append(f"{told}: matched by order alone, since ids repeat in one file only; all other ids stand at equal places")
    if found.unsure:
        notes.append(f"{found.unsure} items of ours have an id that repeats differently in the other file, and are not compared")
    return notes


def _text(found: ItemsDiff) -> str:
    lines = [_head(found)]
    for rows in (_subsets(found), _numbers(found), _differences(found)):
        widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))] if rows else []
        lines += [""] if rows else []
        for first, *others in rows:
            lines.append("  ".join([first.ljust(widths[0]), *(text.rjust(width) for text, width in zip(others, widths[1:], strict=True))]))
    return "\n".join([*lines, "", *_notes(found)]) + "\n"


def _md(found: ItemsDiff) -> str:
    lines = [f"### {markdown(_head(found))}"]
    for rows in (_subsets(found), _numbers(found), _differences(found)):
        if rows:
            table = ["| " + " | ".join(markdown(text) for text in row) + " |" for row in rows]
            lines += ["", table[0], "|---" + "|---:" * (len(rows[0]) - 1) + "|", *table[1:]]
    return "\n".join([*lines, *(f"\n{markdown(note)}" for note in _notes(found))]) + "\n"


def _github(found: ItemsDiff) -> str:
    lines = [
        workflow_command("error", f"DIFFERS: {one.subset} {one.id}", f"ours {one.ours}, theirs {one.theirs}")
        for one in found.differences[:ANNOTATIONS]
    ]
    alone = len(found.only_ours) + len(found.only_theirs)
    lines += [workflow_command("warning", "MISSING", f"{alone:,} items are in one of the files only")] if alone else []
    if found.differing > ANNOTATIONS:
        lines.append(f"{found.differing - ANNOTATIONS} more differ")
    return "\n".join([*lines, _head(found), *_notes(found)]) + "\n"
