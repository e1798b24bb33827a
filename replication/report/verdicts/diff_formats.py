"""A diff as text, Markdown, JSON, JUnit XML or GitHub workflow commands."""

from __future__ import annotations

import io
import os
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from replication.report.cells import Verdict
from replication.report.render.view import markdown
from replication.report.verdicts.diff import SEVERITY, Diff, DiffRow
from replication.terminal.console import PLAIN_WIDTH

DiffFormat = Literal["text", "md", "json", "junit", "github"]
ANNOTATIONS = 10
COMMANDS: Mapping[Verdict, str] = {"DIFFERS": "error", "MISSING": "warning", "INCONCLUSIVE": "notice"}


def diff_text(found: Diff, form: DiffFormat = "text", *, width: int = PLAIN_WIDTH) -> str:
    """The diff in one format. `github` is the annotations (at most ten, the worst first); the step summary is `md`."""
    writers: Mapping[DiffFormat, Callable[[Diff], str]] = {
        "text": lambda one: _text(one, width), "md": _md, "json": _json, "junit": _junit, "github": _github,
    }  # fmt: skip
    return writers[form](found)


def totals(found: Diff) -> str:
    """How many cells have which verdict, the worst first."""
    return ", ".join(f"{found.count(verdict)} {verdict}" for verdict in SEVERITY if found.count(verdict)) or "no cell to compare"


def _text(found: Diff, width: int) -> str:
    lines = [f"{found.experiment} ({found.profile}) against {found.against}: {totals(found)}"]
    previous = ("", "")
    for row in found.rows:
        if (row.table, row.row) != previous:
            lines += ["", f"{row.label} [{row.table}/{row.row}]"]
            previous = (row.table, row.row)
        head = f"  {row.column:<11}{row.ours or '—':>15}  {row.reference or '—':>8}  {row.verdict:<15}"
        lines += textwrap.wrap(head + row.reason, width=width, subsequent_indent=" " * 6, break_on_hyphens=False, drop_whitespace=True) or [
            head
        ]
    for note in found.notes:
        lines += ["", *textwrap.wrap(note, width=width)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _md(found: Diff) -> str:
    lines = [
        f"### {markdown(found.experiment)} ({markdown(found.profile)}) against {markdown(found.against)}",
        "",
        totals(found),
        "",
        "| row | column | ours | reference | verdict | why |",
        "|---|---|---:|---:|---|---|",
    ]
    for row in found.worst_first():
        texts = (row.label, row.column, row.ours or "—", row.reference or "—", row.verdict, row.reason)
        lines.append("| " + " | ".join(markdown(text) for text in texts) + " |")
    lines += [f"\n{markdown(note)}" for note in found.notes]
    return "\n".join(lines) + "\n"


def _json(found: Diff) -> str:
    return found.model_dump_json(indent=2) + "\n"


def _junit(found: Diff) -> str:
    failures = found.count("DIFFERS")
    skipped = sum(_skipped(row) for row in found.rows)
    suite = ElementTree.Element(
        "testsuite", name=f"replicate diff {found.experiment} against {found.against}", tests=str(len(found.rows)),
        failures=str(failures), errors="0", skipped=str(skipped),
    )  # fmt: skip
    for row in found.rows:
        case = ElementTree.SubElement(suite, "testcase", classname=f"{found.experiment}.{row.table}.{row.row}", name=row.column)
        message = f"{row.verdict}: {row.reason}" if row.reason else row.verdict
        if row.verdict == "DIFFERS":
            ElementTree.SubElement(case, "failure", message=message).text = f"ours {row.ours}, reference {row.reference}"
        elif _skipped(row):
            ElementTree.SubElement(case, "skipped", message=message)
    stream = io.StringIO()
    ElementTree.indent(suite)
    ElementTree.ElementTree(suite).write(stream, encoding="unicode", xml_declaration=True)
    return stream.getvalue() + "\n"


def _skipped(row: DiffRow) -> bool:
    """Neither passed nor failed: nothing was decided about it."""
    return row.verdict in ("MISSING", "INCONCLUSIVE", "DEFECTIVE", "NOT COMPARABLE")


def _github(found: Diff) -> str:
    worst = [row for row in found.worst_first() if row.verdict in COMMANDS]
    lines = []
    for row in worst[:ANNOTATIONS]:
        message = f"ours {row.ours or 'none'}, reference {row.reference or 'none'}; {row.reason}"
        lines.append(workflow_command(COMMANDS[row.verdict], f"{row.verdict}: {row.label}, {row.column}", message))
    if len(worst) > ANNOTATIONS:
        lines.append(f"{len(worst) - ANNOTATIONS} more are in the summary")
    return "\n".join([*lines, f"{found.experiment} against {found.against}: {totals(found)}"]) + "\n"


def workflow_command(command: str, title: str, message: str) -> str:
    """An annotation in GitHub's form."""
    return f"::{command} title={_property(title)}::{_data(message)}"


def add_to_step_summary(text: str) -> None:
    """Append Markdown to the file that GitHub's `GITHUB_STEP_SUMMARY` names; nothing outside a workflow."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if path:
        with Path(path).open("a", encoding="utf-8") as out:
            out.write(text)


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
