"""A tiny SARM, benchmark items in the tiny language, and their collected contexts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tiny import HIDDEN, job_context, llama_config, save_word_tokenizer, write_rows

from sarm.backbone.decoder import truncated_backbone
from sarm.checkpoints.reward_models.layouts import save_reward_model
from sarm.config.latents import ContextConfig
from sarm.data.preferences import Message, Preference
from sarm.jobs.latents.contexts import collect_contexts
from sarm.reward.models import SARM
from sarm.sae.model import TopKSAE

N_LATENTS = 24
SENTENCES = (
    "the cat sat on the mat.",
    "how are you today?",
    "it was a good dog; the dog ran home.",
    "one two three!",
    "the awful cat is bad.",
    "a blue mat is fine.",
    "then it ran because it was tired.",
)


def save_sarm(folder: Path, *, seed: int = 0) -> Path:
    """A random SARM of two blocks and 24 latents, k = 6, whose head has both signs."""
    torch.manual_seed(seed)
    sae = TopKSAE(hidden_size=HIDDEN, n_latents=N_LATENTS, k=6)
    sae.reset(torch.Generator().manual_seed(seed))
    model = SARM(truncated_backbone(llama_config(), 2), sae)
    with torch.no_grad():
        model.score.weight.copy_(torch.linspace(-1, 1, N_LATENTS)[None])
    save_word_tokenizer(folder / "tokenizer")
    save_reward_model(folder, model, encoder="sae", tokenizer=folder / "tokenizer")
    return folder


def item(number: int) -> Preference:
    """A benchmark item with two chosen and two rejected replies of three sentences each."""
    replies = [" ".join(SENTENCES[(number * step + shift) % len(SENTENCES)] for shift in range(3)) for step in (1, 2, 3, 4)]
    prompt = f"tell me about {'the ' * (1 + number % 5)}{('cat', 'dog', 'mat', 'home')[number % 4]} {('one', 'two', 'three')[number % 3]}"
    return Preference(
        id=str(number),
        prompt=(Message(role="user", content=prompt),),
        chosen=tuple(replies[:2]),
        rejected=tuple(replies[2:]),
        subset="chat",
    )


def write_items(folder: Path, count: int = 12) -> Path:
    """`rmbench.jsonl` with so many items."""
    return write_rows(folder, "rmbench.jsonl", [item(number) for number in range(count)])


def collected(folder: Path, model: Path, texts: Path, **changes: Any) -> Path:
    """The output folder of a collection with threshold 0.2."""
    context = job_context(folder, inputs={"model": model, "texts": texts})
    collect_contexts(ContextConfig(**{"threshold": 0.2, "lines": 2, **changes}), context)
    return context.output
