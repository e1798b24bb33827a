"""Faults planted in a copy of the source tree: whether the diff of a table trained by it says DIFFERS, or a checksum stops it.

No hook in the product: a fault is a text that must occur exactly once, and what stands in its place.
"""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from miniature_runs import ROOT, Run, chosen, markdown, median_length, miniature_folder

from replication.report.results.model_facts import MODELS

# What a run of the suite needs of the tree.
PARTS = ("sarm", "replication", "tables/published", "tables/templates", "slurm", "pyproject.toml")
# Made before a fault acts, so that its store may take them from the base's.
UNTOUCHED = ("make_miniature", "pretrain_backbone")
BEFORE_REWARD = (*UNTOUCHED, "train_sae")
BEFORE_SCORING = (*BEFORE_REWARD, "train_reward")
CAUGHT = (3, 6)
MADE_AGAIN, NOT_RUN = "checksum: made again", "not run"
# Beside a damaged store's results: whether a checksum had the items made again, which the results do not tell.
WHERE = "where.json"


class Edit(NamedTuple):
    """In a file, one text for another."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Fault:
    """A fault by its edits; `cuts` asks for a max_length that bites, for the base too; `damages` shuffles items in the store instead.

    `before` names the kinds of jobs that the fault does not touch.
    """

    name: str
    edits: tuple[Edit, ...] = ()
    cuts: bool = False
    damages: bool = False
    before: tuple[str, ...] = UNTOUCHED


FAULTS = (
    Fault(
        "a sign in the pair loss",
        (
            Edit(
                "sarm/reward/losses.py",
                "-functional.logsigmoid(chosen_rewards.float() - rejected_rewards.float())",
                "-functional.logsigmoid(rejected_rewards.float() - chosen_rewards.float())",
            ),
        ),
        before=BEFORE_REWARD,
    ),
    Fault(
        "TopK left out before the head",
        (
            Edit(
                "sarm/reward/models.py",
                'self.sae.encode(x).latents if self.latents == "topk" else self.sae.pre_acts(x)',
                "self.sae.pre_acts(x)",
            ),
        ),
        before=BEFORE_REWARD,
    ),
    Fault(
        "the layer below: the reward model's blocks end one below the SAE's",
        (Edit("sarm/checkpoints/reward_models/untrained.py", "layer=config.layer, dtype=dtype", "layer=config.layer - 1, dtype=dtype"),),
        before=BEFORE_REWARD,
    ),
    Fault(
        "the token before the end of turn pooled",
        (Edit("sarm/data/tokens.py", "        return ids[: last + 1]\n", "        return ids[:last]\n"),),
    ),
    Fault(
        "truncation on the wrong side",
        (Edit("sarm/data/tokens.py", "EncodedConversation(whole[-max_length:], ", "EncodedConversation(whole[:max_length], "),),
        cuts=True,
    ),
    Fault(
        "chosen and rejected swapped in 10 % of the pairs",
        (
            Edit(
                "sarm/data/pairs.py",
                "        pairs.append(pair)\n",
                "        swaps = int(hashlib.sha256(pair.id.encode()).hexdigest(), 16) % 10 == 0\n"
                '        pairs.append(pair.model_copy(update={"chosen": pair.rejected, "rejected": pair.chosen}) if swaps else pair)\n',
            ),
        ),
        before=BEFORE_REWARD,
    ),
    Fault(
        "items shuffled after their checksum, by the code: rewards go to other items",
        (
            Edit(
                "sarm/jobs/score/benchmark.py",
                "scored = regroup(items, rows, rewards)",
                "scored = regroup(sorted(items, key=lambda item: (item.subset, item.prompt[0].content[::-1])), rows, rewards)",
            ),
        ),
        before=BEFORE_SCORING,
    ),
    Fault("items shuffled after their checksum, in the store's file", damages=True),
)


class Result(NamedTuple):
    """What became of a fault: the exit code that ended it, and what the diff said; `facts` of what differs say what a model is."""

    name: str
    code: int
    where: str
    differs: int
    compared: int
    largest: float
    place: str
    facts: int = 0

    @property
    def caught(self) -> bool:
        """A diff that DIFFERS, or a checksum that stopped the run or had the damaged artifact made again.

        A run that broke in another way says nothing about the diff.
        """
        return self.where == MADE_AGAIN or (self.code in CAUGHT and (self.code == 6 or self.where == "diff"))


def patched(text: str, edit: Edit) -> str:
    """The file's text with the fault. Raises SystemExit unless its text occurs exactly once."""
    count = text.count(edit.old)
    if count != 1:
        raise SystemExit(f"{edit.file}: a fault's text occurs {count} times, not once; mend benchmarks/miniature_faults.py: {edit.old!r}")
    return text.replace(edit.old, edit.new)


def faulty_tree(fault: Fault, folder: Path, *, root: Path = ROOT) -> Path:
    """A copy of the tree with the fault planted."""
    for part in PARTS:
        source, target = root / part, folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        else:
            shutil.copy2(source, target)
    for edit in fault.edits:
        path = folder / edit.file
        path.write_text(patched(path.read_text(encoding="utf-8"), edit), encoding="utf-8")
    return folder


def taken_over(base: Path, store: Path, kinds: Sequence[str]) -> None:
    """Copies of some kinds of artifacts of the base's store, where the other has none."""
    for kind in kinds:
        if (base / kind).is_dir() and not (store / kind).exists():
            shutil.copytree(base / kind, store / kind)


def benchmark_of(store: Path) -> bytes:
    """RewardBench 2's items as a store has them."""
    return (miniature_folder(store) / "rewardbench2.jsonl").read_bytes()


def shuffled_items(store: Path, seed: int) -> None:
    """The items of RewardBench 2 in another order, in a store whose manifest has the checksum of the right one."""
    path = miniature_folder(store) / "rewardbench2.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    random.Random(seed).shuffle(lines)
    path.write_text("".join(lines), encoding="utf-8")


def run_of(fault: Fault, plain: Run, folder: Path) -> Run:
    """The plain run in a store of the fault's own; its code is still the right one."""
    place = folder / re.sub(r"\W+", "-", fault.name)
    return replace(plain, store=place / "store", out=place / "tables")


def tried(fault: Fault, plain: Run, folder: Path, seed: int, base: Path, *, rows: str = "") -> Result:
    """Train the table (or `rows` of it) with the fault, or read what was trained, and compare it with the base's results."""
    run = run_of(fault, plain, folder)
    kept = run.out / WHERE
    if run.read and (not run.has("table1") or (fault.damages and not kept.is_file())):
        return Result(fault.name, 0, NOT_RUN, 0, 0, 0.0, "")
    if run.read:
        run.whole_table("table1", [seed])
        return judged(fault, run, base, where=json.loads(kept.read_text(encoding="utf-8")) if fault.damages else "diff")
    if fault.damages:
        kinds = {one.name for one in plain.store.iterdir() if one.is_dir() and not one.name.startswith(".")} - {"score_benchmark"}
        taken_over(plain.store, run.store, sorted(kinds))
        shuffled_items(run.store, seed)
    else:
        tree = run.store.parent / "tree"
        shutil.rmtree(tree, ignore_errors=True)
        run = replace(run, source=faulty_tree(fault, tree))
        taken_over(plain.store, run.store, fault.before)
    code = run.table("table1", [seed], rows=rows)
    if code:
        return Result(fault.name, code, "run", 0, 0, 0.0, "")
    where = MADE_AGAIN if fault.damages and benchmark_of(run.store) == benchmark_of(plain.store) else "diff"
    if fault.damages:
        kept.write_text(json.dumps(where) + "\n", encoding="utf-8")
    return judged(fault, run, base, where=where)


def judged(fault: Fault, run: Run, base: Path, *, where: str = "diff") -> Result:
    """What the diff says of a faulty run's results.

    The diff is that of the tree as it is: the fault is in what was trained, not in who judges it.
    """
    code, rows = replace(run, source=ROOT).diff(base)
    largest, at = max(((in_budgets(row["reason"]), f"{row['row']}, {row['column']}") for row in rows), default=(0.0, ""))
    differing = [row["table"] for row in rows if row["verdict"] == "DIFFERS"]
    return Result(fault.name, code, where, len(differing), len(rows), largest, at, differing.count(MODELS))


def in_budgets(reason: str) -> float:
    """How far apart a cell is, in its budgets, from the diff's reason; 0 where it says none."""
    found = re.match(r"([\d.e+-]+) (?:items|points) apart, budget ([\d.e+-]+)", reason)
    return float(found[1]) / float(found[2]) if found else 0.0


def table(found: Sequence[Result]) -> tuple[str, dict[str, bool]]:
    """Fault by fault what was said."""
    rows = [
        [
            one.name,
            f"{one.code} ({one.where})",
            f"{one.differs} of {one.compared}",
            str(one.facts),
            f"{one.largest:.1f} ({one.place})" if one.place else "—",
            "found" if one.caught else "NOT FOUND" if one.where == "diff" or not one.code else "NOT FOUND: the run itself failed",
        ]
        for one in found
        if one.where != NOT_RUN
    ]
    head = ["fault", "exit code", "cells that DIFFER", "of these what a model is", "largest difference in budgets", ""]
    absent = [one.name for one in found if one.where == NOT_RUN]
    told = f"\n\nNot run: {'; '.join(absent)}." if absent else ""
    return markdown(head, rows) + told, {f"found: {one.name}": one.caught for one in found if one.where != NOT_RUN}


def measure(plain: Run, folder: Path, seed: int, *, base: Path, only: Sequence[str] = ()) -> tuple[str, dict[str, bool]]:
    """Plant the faults one after the other. Raises SystemExit for a name that is no fault."""
    wanted, found = chosen((fault.name for fault in FAULTS), only, "fault"), []
    for fault in (one for one in FAULTS if one.name in wanted):
        reference, run = base, plain
        if fault.cuts:
            length = median_length(miniature_folder(plain.store))
            run = replace(plain, sets=(*plain.sets, f"reward.max_length={length}", f"scoring.max_length={length}"), out=folder / "cut")
            if not run.read or run.has("table1"):
                run.whole_table("table1", [seed])
                reference = run.results("table1")
        found.append(tried(fault, run, folder, seed, reference))
        print(table(found[-1:])[0].splitlines()[-1], flush=True)
    return table(found)
