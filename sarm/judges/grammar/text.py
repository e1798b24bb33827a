"""What an answer says: without thoughts, without markup, line by line."""

from __future__ import annotations

import re
from collections.abc import Iterable

_NAMES = r"(?:antml:|seed:)?(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|scratchpad|analysis)"
_THOUGHT = re.compile(
    rf"<\s*(?P<close>/?)\s*(?P<name>{_NAMES})(?:\s[^<>]*)?>|\[(?P<close2>/?)(?P<name2>think)\]|◁(?P<close3>/?)(?P<name3>think)▷"
    r"|<\|(?P<edge>begin|end)_of_(?P<name4>thought)\|>|<\|(?P<edge2>start|end)_(?P<name5>thinking)\|>|<unused9(?P<edge3>[45])>",
    re.IGNORECASE,
)
_CLOSING = ("/", "end", "5")
# Channels of models that write their thoughts into one and the answer into another; some servers leave only the channels' names.
_FINAL = re.compile(r"<\|channel\|>\s*final\b[^<]*<\|message\|>")
_CHANNEL = re.compile(r"<\|(?:channel|message)\|>")
_BARE_CHANNELS = ("analysis", "assistantfinal")

_CHARACTERS = {
    **dict.fromkeys(map(ord, "\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"), "\n"),
    **dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u2060\ufeff\ufe0f\ue000\ue001"), ""),
    **dict.fromkeys(map(ord, "\u00a0\u2002\u2003\u2007\u2009\u200a\u202f\u3000\t"), " "),
    **dict.fromkeys(map(ord, "\u2044\u2215\uff0f"), "/"),
    **dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe63\uff0d"), "-"),
    **dict(zip(map(ord, "\uff1a\uff1b\uff0c\u3002\uff0e\uff3b\uff3d\u3010\u3011"), ":;,..[][]", strict=True)),
    **dict(zip(map(ord, "\uff08\uff09\uff5c\uff1d\u2019\u2192\u21d2"), "()|='::", strict=True)),
}
_FORMATTING = r"b|i|u|p|em|strong|code|pre|span|div|mark|small|font|center|h[1-6]|li|ul|ol|sub|sup|table|tr|td|th|tbody"
_MARKUP: tuple[tuple[re.Pattern[str], str], ...] = (
    # Struck out: said and taken back.
    (re.compile(r"~~[^~\n]{0,200}~~|<(s|del|strike)>[^<>\n]{0,200}</\1>", re.IGNORECASE), " "),
    (re.compile(r"<br ?/?>", re.IGNORECASE), "\n"),
    (re.compile(rf"</?(?:{_FORMATTING})(?: [^<>\n]{{0,200}})?/?>", re.IGNORECASE), ""),
    (re.compile(r"<([a-z][a-z _-]{0,40})>", re.IGNORECASE), r"\n\1: "),
    (re.compile(r"</[a-z][a-z _-]{0,40}>", re.IGNORECASE), "\n"),
    (re.compile(r"\\(?:boxed|text|textbf|mathbf|mathrm|fbox)\{([^{}\n]{0,200})\}"), r"\1"),
    (re.compile(r"\$([^$\n]{1,40})\$"), r"\1"),
    (re.compile(r"\\(?=[\[\]()_*#%])"), ""),
)
_HEADING = re.compile(r"#{1,6} ")
_BULLET = re.compile(r"[-+*\u2022\u00b7] (?=[A-Za-z*_`\"])")
_NO_TITLE = re.compile(r"[0-9\[\]]")
# Not between two digits: `9*10` is no number of ours.
_EMPHASIS = re.compile(r"(?<![0-9*`\"\u201c\u201d])[*`\"\u201c\u201d]+|[*`\"\u201c\u201d]+(?![0-9*`\"\u201c\u201d])")


def spoken(answer: str) -> str | None:
    """An answer without its thoughts; None where one has no end, since nothing was said after it.

    A thought that is closed and was never opened was opened by the model's template: all before it is thought.
    """
    finals = list(_FINAL.finditer(answer))
    if finals:
        answer = re.split(r"<\|[a-z]+\|>", answer[finals[-1].end() :])[0]
    elif _CHANNEL.search(answer):
        return None
    elif answer.startswith(_BARE_CHANNELS[0]) and _BARE_CHANNELS[1] in answer:
        answer = answer.rpartition(_BARE_CHANNELS[1])[2]
    kept: list[str] = []
    opened: list[str] = []
    start = 0
    for mark in _THOUGHT.finditer(answer):
        found = {key.rstrip("2345"): value for key, value in mark.groupdict().items() if value is not None}
        name = found.get("name", "unused").lower()
        closes = (found.get("close") or found.get("edge", "")).lower() in _CLOSING
        if not opened:
            kept.append(answer[start : mark.start()])
        if not closes:
            opened.append(name)
        elif name in opened:
            opened = opened[: len(opened) - 1 - opened[::-1].index(name)]
        elif not opened:
            kept.clear()
        start = mark.end()
    return None if opened else "\n".join([*kept, answer[start:]])


def plain(text: str) -> list[str]:
    """The lines of a text without markup and without empty ones; a heading, or a line in bold, ends with a colon."""
    text = text.translate(_CHARACTERS)
    for pattern, instead in _MARKUP:
        text = pattern.sub(instead, text)
    return [line for line in map(_without_marks, text.split("\n")) if line]


def joined(lines: Iterable[str]) -> list[str]:
    """Lines of which each that ends with a colon, and so is a label, is joined to the one after it."""
    found: list[str] = []
    for line in lines:
        if found and found[-1].endswith((":", "=")):
            found[-1] = f"{found[-1]} {line}"
        else:
            found.append(line)
    return found


def _without_marks(line: str) -> str:
    line = " ".join(line.split()).lstrip(">| ")
    bold = line.startswith(("**", "__")) and line.endswith(("**", "__"))
    heading = _HEADING.match(line)
    line = line[heading.end() :].strip(" #") if heading else line
    titled = (heading or bold) and not _NO_TITLE.search(line)
    bullet = _BULLET.match(line)
    line = _EMPHASIS.sub("", line[bullet.end() :] if bullet else line).replace("_", " ")
    line = " ".join(line.split())
    return f"{line.rstrip(' :')}:" if titled and line else line
