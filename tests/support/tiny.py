"""Tiny models, a word-level tokenizer with Llama-3-like specials, pairs and job contexts, all written by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, PreTrainedModel

from sarm.data.miniature.word_tokenizer import CHAT_TEMPLATE, build_tokenizer, tokenizer_settings
from sarm.data.preferences import Message, Preference
from sarm.job import JobContext, Resources

WORDS = (
    *[
        "good",
        "bad",
        "fine",
        "awful",
        "the",
        "cat",
        "dog",
        "sat",
        "ran",
        "on",
        "a",
        "mat",
        "and",
        "then",
        "home",
        "because",
        "it",
        "was",
        "tired",
        "system",
        "user",
        "assistant",
        "is",
        "one",
        "two",
        "three",
    ],
    *["four", "five", "six", "how", "are", "you", "today", "tell", "me", "about", "red", "blue", "green", "café", "你"],
    *["The", "A", "Then", "How", "It", "One", "Tell", "Are"],
    *".,?!;",
    "--",
    '"',
)
HIDDEN = 16
TEXTS = (
    "The cat sat on the mat. Then it ran home, because it was tired! How are you today?",
    "Tell me about the red dog; it was a good dog. The dog ran on and on.",
    "One two three four five six. A blue cat and a green dog sat -- then ran.",
    "Are you good? It is fine. The awful cat ran home. The bad dog sat.",
)


def llama_config(**changes: Any) -> LlamaConfig:
    """Four blocks of width 16; the vocabulary is that of the word tokenizer."""
    values: dict[str, Any] = {
        "vocab_size": 7 + len(WORDS),
        "hidden_size": HIDDEN,
        "intermediate_size": 24,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 256,
        "initializer_range": 0.3,
        "bos_token_id": 0,
        "eos_token_id": 4,
        "pad_token_id": 5,
        **changes,
    }
    return LlamaConfig(**values)


def causal_lm(config: PretrainedConfig, seed: int = 0) -> PreTrainedModel:
    """A random language model in evaluation mode."""
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config).eval()


def save_word_tokenizer(folder: Path, **changes: Any) -> None:
    """The word tokenizer's files; `changes` go into `tokenizer_config.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    build_tokenizer(WORDS).save(str(folder / "tokenizer.json"))
    settings = {**tokenizer_settings(256), **changes}
    (folder / "tokenizer_config.json").write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)


def save_backbone(folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    """A tiny random Llama with the word tokenizer, in hub layout."""
    causal_lm(llama_config(**changes), seed).save_pretrained(folder)
    save_word_tokenizer(folder)
    return folder


def edit_json(path: Path, **changes: Any) -> None:
    """Set keys of a JSON file; None takes a key away."""
    raw = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in raw.items() if value is not None}))


def edit_tensors(path: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Let `change` edit the tensors of a safetensors file."""
    tensors = load_file(path)
    change(tensors)
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, path, metadata={"format": "pt"})


def write_corpus(folder: Path, texts: Sequence[str] = TEXTS, *, times: int = 1) -> Path:
    """`corpus.jsonl` with each text `times` over."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"text": text}) for _ in range(times) for text in texts]
    (folder / "corpus.jsonl").write_text("".join(line + "\n" for line in lines))
    return folder


def pair(number: int, *, prompt: str = "tell me about the dog", chosen: str = "a good dog.", rejected: str = "a bad dog.") -> Preference:
    """One training pair."""
    return Preference(id=f"p{number}", prompt=(Message(role="user", content=prompt),), chosen=(chosen,), rejected=(rejected,))


def learnable_pairs(count: int) -> list[Preference]:
    """Pairs in which the chosen reply says `good` or `fine` where the rejected one says `bad` or `awful`; lengths differ."""
    subjects, tails = (
        ("cat", "dog", "mat", "home"),
        ("", " and a mat", " on a red mat and then home", " then ran home because it was tired"),
    )
    return [
        pair(
            index,
            prompt=f"tell me about {'the ' * (1 + index % 3)}{subjects[index % 4]} {WORDS[18 + index % 9]}",
            chosen=f"the {subjects[index % 4]} is {'good' if index % 2 else 'fine'}{tails[index % 4]}.",
            rejected=f"the {subjects[index % 4]} is {'bad' if index % 2 else 'awful'}{tails[(index + 1) % 4]}.",
        )
        for index in range(count)
    ]


def write_rows(folder: Path, name: str, rows: Sequence[Any]) -> Path:
    """A JSONL file of pydantic rows."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(row.model_dump_json() + "\n" for row in rows))
    return folder


class Stop:
    """A `stop_requested` that becomes true when progress has been told so many times."""

    def __init__(self, after: int = -1) -> None:
        self.after, self.told, self.notes = after, 0, []

    def progress(self, done: int, total: int, unit: str, note: str) -> None:
        self.told += 1
        self.notes.append((done, total, unit, note))

    def requested(self) -> bool:
        return 0 <= self.after <= self.told


def job_context(
    folder: Path,
    *,
    inputs: Mapping[str, Path] | None = None,
    locations: Mapping[str, Path] | None = None,
    stop: Stop | None = None,
    **resources: Any,
) -> JobContext:
    """A context with `output` and `checkpoint` under `folder`; two contexts of one folder are two attempts of one job."""
    stop = stop or Stop()
    output, checkpoint = folder / "output", folder / "checkpoint"
    output.mkdir(parents=True, exist_ok=True)
    checkpoint.mkdir(parents=True, exist_ok=True)
    return JobContext(
        inputs=inputs or {},
        output=output,
        checkpoint=checkpoint,
        resources=Resources(**resources),
        locations=locations or {},
        progress=stop.progress,
        stop_requested=stop.requested,
        log=lambda line: None,
    )


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def same_bytes(one: Path, other: Path) -> None:
    """Both folders hold the same files with the same bytes."""
    names, others = (sorted(path.relative_to(where).as_posix() for path in where.rglob("*") if path.is_file()) for where in (one, other))
    assert names == others
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
