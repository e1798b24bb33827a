"""Text to sentences: nupunkt, whose model comes inside its package, or nltk's Punkt, whose tables `replicate fetch` brings.

The tables of `punkt_tab` are plain text: `abbrev_types.txt` and `sent_starters.txt` hold a word a line, `collocations.tab` two
words, `ortho_context.tab` a word and a number, separated by a tab.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from sarm.data.preferences import DataError
from sarm.job import EnvironmentProblem

SplitterName = Literal["nupunkt", "nltk-punkt"]
Split = Callable[[str], Sequence[str]]
TABLES = ("abbrev_types.txt", "sent_starters.txt", "collocations.tab", "ortho_context.tab")


class PunktTables(NamedTuple):
    """What Punkt knows of a language."""

    abbreviations: frozenset[str]
    starters: frozenset[str]
    collocations: frozenset[tuple[str, str]]
    contexts: dict[str, int]


def splitter(name: SplitterName, tables: Path | None = None) -> Split:
    """The function that splits a text; `tables` is the artifact of `fetch_splitter`, for `nltk-punkt` alone.

    Raises EnvironmentProblem without nltk, DataError for tables that cannot be read.
    """
    if name == "nupunkt":
        # Loaded here: its model takes a second, which other splitters need not wait for.
        from nupunkt import sent_tokenize  # noqa: PLC0415

        return lambda text: [str(sentence) for sentence in sent_tokenize(text)]
    if tables is None:
        raise ValueError("nltk-punkt needs its tables; give the job an input `splitter`")
    return _nltk_punkt(read_tables(tables))


def _nltk_punkt(tables: PunktTables) -> Split:
    try:
        from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer  # noqa: PLC0415 - an extra; only this splitter needs it
    except ModuleNotFoundError as error:
        raise EnvironmentProblem(
            "sae.splitter = nltk-punkt needs nltk, which is not installed; install it with `pip install 'replicate-sarm[punkt]'`, "
            "bring its data with `replicate fetch`, or set sae.splitter=nupunkt"
        ) from error
    parameters = PunktParameters()
    parameters.abbrev_types = set(tables.abbreviations)
    parameters.sent_starters = set(tables.starters)
    parameters.collocations = set(tables.collocations)
    parameters.ortho_context.update(tables.contexts)
    tokenizer = PunktSentenceTokenizer()
    # As nltk's own loader does: a constructor argument would be taken for text to train on.
    tokenizer._params = parameters
    return tokenizer.tokenize


def read_tables(folder: Path) -> PunktTables:
    """The four tables of a folder. Raises DataError that names file and line."""
    absent = [name for name in TABLES if not (folder / name).is_file()]
    if absent:
        raise DataError(f"{folder.name}: {', '.join(absent)} missing; the English tables of punkt_tab are {', '.join(TABLES)}")
    numbers = {}
    for number, (word, count) in enumerate(_pairs(folder / "ortho_context.tab"), start=1):
        if not count.isdecimal():
            raise DataError(f"ortho_context.tab:{number}: {count!r} is no number; bring the tables anew with `replicate fetch`")
        numbers[word] = int(count)
    return PunktTables(
        abbreviations=frozenset(_lines(folder / "abbrev_types.txt")) - {""},
        starters=frozenset(_lines(folder / "sent_starters.txt")) - {""},
        collocations=frozenset(_pairs(folder / "collocations.tab")),
        contexts=numbers,
    )


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name}: not UTF-8 text ({error}); bring the tables anew with `replicate fetch`") from error


def _pairs(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(_lines(path), start=1):
        if not line:
            continue
        first, tab, second = line.partition("\t")
        if not tab or "\t" in second:
            raise DataError(f"{path.name}:{number}: expected two fields with a tab between; bring the tables anew with `replicate fetch`")
        yield first, second
