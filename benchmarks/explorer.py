"""Size and time of the latent explorer at the paper's scale: 65,536 latents, 7,000 completions, invented latents and texts.

    python benchmarks/explorer.py [--latents 65536] [--items 1750] [--k 192] [--folder]

Texts are words drawn at random from 20,000, which compress worse than language. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors.numpy import save_file

from replication.report.latents.explorations import read_exploration
from replication.report.render.explorer.embedded import explorer_section
from replication.report.render.explorer.folder import write_folder
from replication.report.render.page import page
from sarm.data.preferences import Message, Preference, ScoredPreference
from sarm.explain.contributions import SparseRewards
from sarm.explain.edits import EditedAccuracies
from sarm.jobs.latents.explore import Found, LatentSums, edited_accuracies, groups_of, members_of
from sarm.store.json_lines import write_lines

SUBSETS = ("Factuality", "Precise IF", "Math", "Safety", "Focus")
REPLIES = 4
WORDS_OF_REPLY, WORDS_OF_PROMPT = 220, 60
Value = TypeVar("Value")


def items_of(count: int, rng: random.Random) -> list[Preference]:
    """Invented items of five subsets, one chosen and three rejected replies each."""
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 10))) for _ in range(20_000)]

    def text(length: int) -> str:
        return " ".join(rng.choices(words, k=length))

    return [
        Preference(
            id=str(number),
            subset=SUBSETS[number % len(SUBSETS)],
            prompt=(Message(role="user", content=text(WORDS_OF_PROMPT)),),
            chosen=(text(WORDS_OF_REPLY),),
            rejected=tuple(text(WORDS_OF_REPLY) for _ in range(REPLIES - 1)),
        )
        for number in range(count)
    ]


def explanations_of(n_latents: int) -> dict[int, dict[str, Any]]:
    """An explanation with contexts for every latent: far more than any judge is asked for."""
    rng = random.Random(1)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 10))) for _ in range(2000)]

    def line(latent: int) -> dict[str, Any]:
        contexts = [{"context": " ".join(rng.choices(words, k=25)), "activation": rng.random()} for _ in range(8)]
        said = {"explanation": " ".join(rng.choices(words, k=15)), "score": 4, "status": "explained"}
        return {"latent": latent, **said, "contexts": contexts, "detection": {"balanced_accuracy": rng.random()}}

    return {latent: line(latent) for latent in range(n_latents)}


def parts_at_random(rows: int, n_latents: int, k: int, head: np.ndarray, generator: np.random.Generator) -> SparseRewards:
    """Up to k latents of each completion: half of the draws among a few that fire often, half among all, so that hardly any is silent."""
    often = np.minimum((generator.pareto(0.7, size=(rows, k)) * n_latents / 200).astype(np.int64), n_latents - 1)
    drawn = np.concatenate([often, generator.integers(0, n_latents, (rows, k))], axis=1)
    latents = [generator.permutation(np.unique(row))[:k].astype(np.int32) for row in drawn]
    flat = np.concatenate(latents)
    activations = generator.gamma(2.0, 1.0, size=len(flat)).astype(np.float32)
    starts = np.concatenate([[0], np.cumsum([len(row) for row in latents])]).astype(np.int64)
    return SparseRewards(starts, flat, activations, activations * head[flat], np.zeros(rows))


def timed(seconds: dict[str, float], name: str, work: Callable[[], Value]) -> Value:
    """What `work` gives; how long it took goes into `seconds`."""
    start = time.perf_counter()
    found = work()
    seconds[name] = round(time.perf_counter() - start, 2)
    return found


def write_artifact(folder: Path, items: list[Preference], *, n_latents: int, k: int, seconds: dict[str, float]) -> None:
    """The files of `explore_latents` with invented latents; the edits are computed as the job does."""
    generator = np.random.default_rng(0)
    rows = len(items) * REPLIES
    head = (generator.standard_normal(n_latents) * 0.05).astype(np.float32)
    parts = parts_at_random(rows, n_latents, k, head, generator)
    owners = np.repeat(np.arange(rows), np.diff(parts.starts))
    rewards = np.bincount(owners, weights=parts.contributions, minlength=rows).astype(np.float32)
    scored = [
        ScoredPreference(id=one.id, subset=one.subset, chosen_rewards=(four[0],), rejected_rewards=tuple(four[1:]))
        for one, four in zip(items, rewards.reshape(-1, REPLIES).tolist(), strict=True)
    ]
    accuracies = EditedAccuracies("rewardbench2", scored)
    found = Found(rewards, parts, LatentSums.zeros(0, 0), np.zeros((rows, 0), dtype=np.float32))
    edits = timed(seconds, "edits", lambda: edited_accuracies(found, scored, accuracies, order=[], n_latents=n_latents))
    groups = groups_of(items, "rewardbench2")
    members = members_of(items, groups, "rewardbench2").numpy()
    shares = {"contribution": parts.contributions, "square": parts.contributions**2, "product": parts.contributions * rewards[owners]}

    def summed(weights: np.ndarray | None) -> np.ndarray:
        inside = [line[owners] for line in members]
        return np.stack([
            np.bincount(parts.latents[one], weights=None if weights is None else weights[one], minlength=n_latents) for one in inside
        ])  # fmt: skip

    tensors = {"head": head, "fired": summed(None).astype(np.int32), **{name: summed(values) for name, values in shares.items()}, **edits}
    tensors |= {"neighbours": generator.integers(0, n_latents, (n_latents, 8), dtype=np.int32)}
    tensors |= {"cosines": generator.random((n_latents, 8), dtype=np.float32)}
    save_file(tensors, folder / "latents.safetensors")
    of_rows = {"rewards": rewards, "truncated": np.zeros(rows, np.uint8), "tokens": np.zeros(rows, np.int32), **parts._asdict()}
    save_file(of_rows, folder / "completions.safetensors")
    write_lines(folder / "items.jsonl", items)
    counts = [int(line.sum()) for line in members]
    told = [{**one._asdict(), "completions": count} for one, count in zip(groups, counts, strict=True)]
    (folder / "exploration.json").write_text(json.dumps(facts_of(told, accuracies)), encoding="utf-8")


def facts_of(groups: list[dict[str, Any]], accuracies: EditedAccuracies) -> dict[str, Any]:
    """What a page is told beside the arrays."""
    columns = {"columns": list(accuracies.columns), "accuracies": list(accuracies.base), "missing": accuracies.missing}
    head = {"head_reads": "latents", "constant": 0.0, "scored_tokens": ["<|eot_id|>"]}
    return {"benchmark": "rewardbench2", "groups": groups, **columns, **head}


def measured(*, n_latents: int, items: int, k: int, whole: bool) -> dict[str, Any]:
    """Bytes and seconds of the section, of a report with it, and with `whole` of the folder without limits."""
    seconds: dict[str, float] = {}
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_artifact(folder, items_of(items, random.Random(0)), n_latents=n_latents, k=k, seconds=seconds)
        artifact = sum(one.stat().st_size for one in folder.iterdir())
        said = explanations_of(n_latents)
        found = timed(seconds, "read", lambda: read_exploration(folder, key="0123456789ab", label="invented", explanations=said))
        section = timed(seconds, "section", lambda: explorer_section([found]))
        sizes = {"artifact": artifact, "section": len(section.html.encode()), "page": len(page([], extra=[section]).encode())}
        if whole:
            timed(seconds, "folder", lambda: write_folder(found, folder / "pages"))
            files = [one for one in (folder / "pages").rglob("*") if one.is_file()]
            sizes |= {"folder": sum(one.stat().st_size for one in files), "folder_files": len(files)}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"latents": n_latents, "completions": items * REPLIES, "k": k, "bytes": sizes, "seconds": seconds, "peak_gib": round(peak, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latents", type=int, default=65_536)
    parser.add_argument("--items", type=int, default=1750)
    parser.add_argument("--k", type=int, default=192)
    parser.add_argument("--folder", action="store_true", help="Also the folder without limits.")
    given = parser.parse_args()
    print(json.dumps(measured(n_latents=given.latents, items=given.items, k=given.k, whole=given.folder)))


if __name__ == "__main__":
    main()
