"""What goes wrong inside a file of values: other types, missing and doubled keys, deep nesting, numbers that are none."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

# Text that no JSON writer gives, put in place of a mark after writing.
RAW = {
    "@deep-lists@": "[" * 100_000 + "]" * 100_000,
    "@deep-objects@": '{"a":' * 50_000 + "1" + "}" * 50_000,
    "@many-digits@": "9" * 10_000,
    "@huge@": "1e400",
    "@nan@": "NaN",
    "@infinity@": "Infinity",
    "@minus-infinity@": "-Infinity",
    "@lone-surrogate@": '"\\ud800"',
    "@bad-escape@": '"\\x41"',
    "@nul-escape@": '"a\\u0000b"',
}
ESCAPES = "\x1b[31mred\x1b[0m\x07"
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**64), 10**30, 0.5, -0.0, 1e308, 1e-320),
    *(
        "",
        " ",
        "0",
        "1.5",
        "nan",
        "null",
        "x" * 100_000,
        ESCAPES,
        "../../../etc/passwd",
        "/dev/zero",
        "{{7*7}}",
        "\u202e\u200b\ufeff",
        "\n",
    ),
    *([], {}, [None], [[]], [1, "a", None], {"a": 1}, [[[[[]]]]]),
    *RAW,
)


def places_of(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to everything that is inside: keys and indices."""
    inner = list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    found = [(*at, key) for key, _ in inner]
    for key, one in inner:
        found += places_of(one, (*at, key))
    return found


def changed(value: Any, chance: random.Random) -> tuple[str, str]:
    """JSON text of a value of which one part is wrong, and what was done."""
    places = places_of(value)
    if not places or chance.random() < 0.06:
        new = chance.choice(VALUES)
        return _text(new), f"in place of all: {_short(new)}"
    *way, last = chance.choice(places)
    holder = value
    for key in way:
        holder = holder[key]
    name = ".".join(map(str, (*way, last)))
    how = chance.choice(("value", "value", "value", "value", "missing", "type", "type", "renamed", "added", "doubled", "repeated"))
    told = f"{how} at {name}"
    if how == "value":
        holder[last] = chance.choice(VALUES)
        told = f"{name} = {_short(holder[last])}"
    elif how == "missing":
        del holder[last]
    elif how == "type":
        holder[last] = chance.choice(([holder[last]], str(holder[last]), {"value": holder[last]}, json.dumps(holder[last])))
    elif how in ("renamed", "added") and isinstance(holder, dict):
        holder[f"{last}{chance.choice(('_', 's', ' ', 'X'))}"] = holder.pop(last) if how == "renamed" else holder[last]
    elif how == "doubled" and isinstance(holder, dict):
        holder["@doubled@"] = 0
        again = f"{json.dumps(last)}: {_text(chance.choice(VALUES[:20]))}"
        return _text(value).replace('"@doubled@": 0', again), told
    elif isinstance(holder, list):
        holder.extend([holder[last]] * chance.choice((1, 3, 1000)))
    return _text(value), told


def _text(value: Any) -> str:
    text = json.dumps(value)
    for mark, raw in RAW.items():
        text = text.replace(json.dumps(mark), raw)
    return text


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 60 else f"{text[:40]}... ({len(text)} characters)"


def json_file(path: Path, chance: random.Random) -> str:
    """One part of a JSON file is wrong."""
    text, told = changed(json.loads(path.read_text(encoding="utf-8")), chance)
    path.write_text(text, encoding="utf-8")
    return told


def json_lines(path: Path, chance: random.Random) -> str:
    """One line of a file of JSON lines is wrong, or lines are too many, too few or not lines."""
    lines = path.read_text(encoding="utf-8").splitlines()
    at = chance.randrange(len(lines))
    how = chance.choice(("part",) * 8 + ("twice", "blank", "list", "joined", "no line", "carriage returns", "separator", "comma"))
    told = f"line {at + 1}: {how}"
    if how == "part":
        lines[at], what = changed(json.loads(lines[at]), chance)
        told = f"line {at + 1}: {what}"
    elif how == "twice":
        lines.insert(at, lines[at])
    elif how == "blank":
        lines[at:at] = ["", "   ", "\t"]
    elif how == "list":
        lines = [f"[{', '.join(lines)}]"]
    elif how == "joined":
        lines[at] += lines[at]
    elif how == "no line":
        lines[at] = chance.choice(("id,prompt", "{", "}", "'id': 1", "# comment", "nul", "\x00", "{}", "[]", "1"))
    elif how == "comma":
        lines[at] += ","
    else:
        between = "\r" if how == "carriage returns" else "\u2028"
        path.write_bytes(between.join(lines).encode())
        return how
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return told


TOML_VALUES = (
    *("", '""', "-1", "0", "true", "[]", "{}", "nan", "inf", "-inf", "1e400", "9" * 5000, '"x"', "'''", '"\\x"', "2026-01-01", "[1, 'a']"),
    *(
        '"../../../etc"',
        '"\\u0000"',
        '"\\u001b[31m"',
        "[" * 5000 + "]" * 5000,
        "{a = 1}",
        "0x10",
        "1_0",
        "one two",
        '"' + "y" * 50_000 + '"',
    ),
)


def toml_file(path: Path, chance: random.Random) -> str:
    """One line of a TOML file is wrong."""
    lines = path.read_text(encoding="utf-8").splitlines()
    keys = [place for place, line in enumerate(lines) if re.match(r"^[^#\[]*=", line)]
    heads = [place for place, line in enumerate(lines) if line.startswith("[")]
    how = chance.choice(("value",) * 6 + ("removed", "twice", "renamed", "head", "unknown"))
    at = chance.choice(heads if how == "head" and heads else keys)
    before = lines[at]
    name, _, value = before.partition("=")
    if how == "value":
        lines[at] = f"{name}= {chance.choice(TOML_VALUES)}"
    elif how == "removed":
        lines[at] = ""
    elif how == "twice":
        lines.insert(at, before)
    elif how == "renamed":
        lines[at] = f"{name.rstrip()}{chance.choice(('s', '.x', '_', ' x', '-'))} ={value}"
    elif how == "head":
        lines[at] = chance.choice(("[", "[]", f"[[{before.strip('[]')}]]", before[:-1], "[other]", before + before, f"[{before[1:-1]}.x]"))
    else:
        lines.insert(at, chance.choice(("unknown = 1", "name = 1", '"" = 1', "kind = 'x'", "a.b.c = 1")))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"line {at + 1} ({before[:40]!r}): {how}, now {lines[at][:40]!r}"
