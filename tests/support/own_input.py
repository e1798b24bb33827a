"""A model, pairs, texts and a benchmark as a user may have them, all tiny."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tiny import TEXTS, learnable_pairs, save_backbone


def write(path: Path, rows: list[Any]) -> Path:
    """JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def raw_pairs(count: int = 96) -> list[dict[str, Any]]:
    """Pairs as most files have them: three texts."""
    pairs = learnable_pairs(count)
    return [{"prompt": one.prompt[0].content, "chosen": one.chosen[0], "rejected": one.rejected[0]} for one in pairs]


def raw_texts(times: int = 40) -> list[dict[str, Any]]:
    """Documents."""
    return [{"text": text} for _ in range(times) for text in TEXTS]


def raw_benchmark(count: int = 6) -> list[dict[str, Any]]:
    """Items of two subsets of RewardBench 2."""
    return [
        {
            "id": str(number),
            "subset": "Safety" if number % 2 else "Focus",
            "prompt": "tell me about the dog",
            "chosen": ["the dog is good."],
            "rejected": ["the dog is bad.", "the dog is awful.", "a bad dog."],
        }
        for number in range(count)
    ]


def own_input(folder: Path) -> dict[str, Path]:
    """All of it: option -> path."""
    return {
        "model": save_backbone(folder / "model"),
        "pairs": write(folder / "data" / "pairs.jsonl", raw_pairs()),
        "text": write(folder / "data" / "text.jsonl", raw_texts()),
        "benchmark": write(folder / "data" / "benchmark.jsonl", raw_benchmark()),
    }
