"""Rows of a hub data set or of local files, brought into our own JSONL shapes and counted.

Writes `corpus.jsonl`, or `train.jsonl` and `evaluation.jsonl`, or `rewardbench2.jsonl`, or `rmbench.jsonl`; `counts.json`; from a hub
also `hub.json` (checksums).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, TextIO, TypeVar

import pyarrow
from datasets import load_dataset
from datasets.exceptions import DatasetsError
from pydantic import BaseModel, ValidationError

from sarm.checkpoints.hub import download, write_record
from sarm.config.data import DataConfig
from sarm.data.preferences import DataError, Preference, TextDocument
from sarm.data.row_files import RawRows, local_rows
from sarm.data.sources import (
    DivergingHistories,
    EmptyPrompt,
    NoReply,
    Place,
    Row,
    is_evaluation,
    preference_pair,
    rewardbench2_preference,
    rmbench_preference,
    text_document,
    unread_columns,
)
from sarm.job import Interrupted, JobContext, UsageProblem, printable
from sarm.store.json_lines import as_line

POLL_EVERY = 256
Item = TypeVar("Item", bound=BaseModel)

FILES = {
    "text": ("corpus.jsonl",),
    "pairs": ("train.jsonl", "evaluation.jsonl"),
    "rewardbench2": ("rewardbench2.jsonl",),
    "rmbench": ("rmbench.jsonl",),
}


@dataclass
class Tally:
    """What became of the rows; grouped by subset or source."""

    read: int = 0
    written: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    groups: Counter[str] = field(default_factory=Counter)
    files: Counter[str] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)
    identical_completions: int = 0
    equal_pairs: int = 0
    repeated_ids: int = 0

    def facts(self) -> dict[str, Any]:
        """The content of `counts.json`."""
        return {
            "read": self.read,
            "kept": sum(self.written.values()),
            "dropped": dict(sorted(self.dropped.items())),
            "written": dict(self.written),
            "kept_by_group": dict(sorted(self.groups.items())),
            "read_by_file": dict(sorted(self.files.items())),
            "columns_not_read": dict(sorted(self.unread.items())),
            "identical_completions": self.identical_completions,
            "equal_pairs": self.equal_pairs,
            "repeated_ids": self.repeated_ids,
        }


def prepare_data(config: DataConfig, context: JobContext) -> None:
    """Location `source` (a file or a folder of files) or the hub. Writes the shape's files and `counts.json`.

    Left out and counted: empty texts; pairs whose conversations differ before the last reply; replies that are null; with `skip_prompts`,
    empty prompts. Kept and counted: pairs of two equal replies, pairs that stand there twice, ids that do (each row gets an id of its own),
    columns that are not read. Raises UsageProblem for a row that cannot be what it should, IntegrityProblem for a file that is not what the
    hub says, EnvironmentProblem where the rows cannot be reached, Interrupted when asked to stop.
    """
    try:
        raw = _hub_rows(config, context) if config.origin == "hub" else local_rows(context.locations.get("source"))
        tally = _write(config, context, raw)
    except DataError as error:
        raise UsageProblem(str(error)) from error
    except (pyarrow.ArrowException, UnicodeError, OSError) as error:
        # A damaged Parquet file gives an OSError of pyarrow's own, without the number that one of the system has.
        if isinstance(error, OSError) and not isinstance(error, pyarrow.ArrowException) and error.errno is not None:
            raise
        raise UsageProblem(f"{_origin(config, context)}: {_first_line(error)}; save it as UTF-8 JSONL or as Parquet") from error
    for reason, count in sorted(tally.dropped.items()):
        context.log(f"left out {count} of {tally.read} rows: {reason}")
    if not sum(tally.written.values()):
        raise UsageProblem(f"{_origin(config, context)}: no row was kept ({dict(tally.dropped) or 'it is empty'}); check shape and columns")
    counts = json.dumps(tally.facts(), indent=1, ensure_ascii=False) + "\n"
    (context.output / "counts.json").write_text(counts, encoding="utf-8")


def _write(config: DataConfig, context: JobContext, raw: RawRows) -> Tally:
    tally = Tally(written=Counter(dict.fromkeys(FILES[config.shape], 0)))
    check = _pairs_apart(tally) if config.shape == "pairs" else _duplicate_check(config.shape)
    with ExitStack() as stack:
        outputs = {name: stack.enter_context((context.output / name).open("w", encoding="utf-8")) for name in FILES[config.shape]}
        for place, row in raw.rows:
            if tally.read % POLL_EVERY == 0:
                if context.stop_requested():
                    raise Interrupted("stopped before all rows were read; the same command starts this step again")
                context.progress(tally.read, max(raw.total, tally.read + 1), "rows", "")
            tally.read += 1
            tally.files[place.within or PurePath(place.file).name] += 1
            item = _item(config, tally, row, place)
            if item is None:
                continue
            item = check(item, place)
            try:
                _keep(item, _target(config, item), outputs, tally)
            except UnicodeEncodeError as error:
                raise DataError(f"{place.file}:{place.row}: row: {error}; remove the character") from error
    context.progress(tally.read, tally.read, "rows", "")
    return tally


def _item(config: DataConfig, tally: Tally, row: Row, place: Place) -> Preference | TextDocument | None:
    """The row in our shape, or None where it is left out (counted with its reason)."""
    try:
        item = _convert(config, row, place)
        tally.unread.update(unread_columns(row, item, place, shape=config.shape, text_column=config.text_column))
    except NoReply:
        tally.dropped["reply is null"] += 1
        return None
    except EmptyPrompt:
        if not config.skip_prompts:
            raise
        tally.dropped["empty prompt"] += 1
        return None
    # Deviation: the released code trains on such pairs too, since it reads two separate conversations; ours need one prompt.
    except DivergingHistories:
        tally.dropped["conversations differ before the last reply"] += 1
        return None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{place.file}:{place.row}: {key}: {first['msg']}; mend the row or remove it") from error
    if isinstance(item, TextDocument) and not item.text.strip():
        tally.dropped["empty text"] += 1
        return None
    return item


def _convert(config: DataConfig, row: Row, place: Place) -> Preference | TextDocument:
    if config.shape == "text":
        return text_document(row, place, column=config.text_column)
    convert: dict[str, Callable[[Row, Place], Preference]] = {
        "pairs": preference_pair,
        "rewardbench2": rewardbench2_preference,
        "rmbench": rmbench_preference,
    }
    return convert[config.shape](row, place)


def _target(config: DataConfig, item: Preference | TextDocument) -> str:
    if config.shape != "pairs" or isinstance(item, TextDocument):
        return FILES[config.shape][0]
    held_out = config.evaluation_split == "all" or (config.evaluation_split == "prompt-sha256-mod-5" and is_evaluation(item))
    return "evaluation.jsonl" if held_out else "train.jsonl"


def _keep(item: BaseModel, name: str, outputs: Mapping[str, TextIO], tally: Tally) -> None:
    outputs[name].write(as_line(item))
    tally.written[name] += 1
    if isinstance(item, Preference):
        tally.groups[item.source or item.subset] += 1
        tally.identical_completions += bool(set(item.chosen) & set(item.rejected))
    elif isinstance(item, TextDocument):
        tally.groups[item.source] += 1


def _pairs_apart(tally: Tally) -> Callable[[Item, Place], Item]:
    """Gives a pair whose id is taken an id of its own, and counts; also pairs that are there twice. Heads and claims go by the id."""
    taken: Counter[str] = Counter()
    seen: set[bytes] = set()

    def apart(item: Item, place: Place) -> Item:
        if not isinstance(item, Preference):
            return item
        content = hashlib.sha256(item.model_dump_json(include={"prompt", "chosen", "rejected"}).encode()).digest()
        tally.equal_pairs += content in seen
        seen.add(content)
        name = item.id
        while taken[name]:
            taken[item.id] += 1
            name = f"{item.id}#{taken[item.id]}"
        taken[name] += 1
        tally.repeated_ids += name != item.id
        return item.model_copy(update={"id": name})

    return apart


def _duplicate_check(shape: str) -> Callable[[Item, Place], Item]:
    """Refuses a benchmark item that is there twice, as where a folder holds a whole and its parts. Ties rows may share an id."""
    seen: dict[tuple[Any, ...], Place] = {}

    def check(item: Item, place: Place) -> Item:
        if shape not in ("rewardbench2", "rmbench") or not isinstance(item, Preference) or item.subset == "Ties":
            return item
        # RM-Bench's ids are only known to be unique together with the prompt.
        key = (item.subset, item.id, item.prompt if shape == "rmbench" else ())
        if key in seen:
            first = seen[key]
            raise DataError(
                f"{place.file}:{place.row}: id: {item.id!r} of {item.subset} is already at {first.file}:{first.row}; "
                "remove one, or give the folder either the whole or its parts"
            )
        seen[key] = place
        return item

    return check


def _hub_rows(config: DataConfig, context: JobContext) -> RawRows:
    """Rows of the repository's files at the pinned commit: downloaded and checked first, then read from this disk alone."""
    folder = context.checkpoint / "hub"
    record = download(config.repository, config.revision, folder, what="dataset")
    try:
        # The folder reads like the repository: the same card, the same names of splits.
        rows = load_dataset(str(folder), config.subset or None, split=config.split, cache_dir=str(context.checkpoint / "arrow"))
    except (OSError, ValueError, DatasetsError) as error:
        name = f"{config.repository}{f' ({config.subset})' if config.subset else ''}, split {config.split}, at {config.revision}"
        raise UsageProblem(
            f"hub data set {name} cannot be read: {_first_line(error)}; correct subset and split in the profile"
        ) from error
    write_record(context.output, record)
    name = f"{config.repository}@{config.revision}"
    return RawRows(len(rows), ((Place(name, number), row) for number, row in enumerate(rows, start=1)))


def _origin(config: DataConfig, context: JobContext) -> str:
    return config.repository if config.origin == "hub" else str(context.locations.get("source"))


def _first_line(error: BaseException) -> str:
    # pyarrow quotes bytes of the file.
    return printable((str(error).splitlines() or [type(error).__name__])[0])
