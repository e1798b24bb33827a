"""What `explore_latents` leaves of a tiny SARM, made by the real job; with texts that want to be more than text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tiny import HIDDEN, job_context, llama_config, save_word_tokenizer, write_rows

from sarm.backbone.decoder import truncated_backbone
from sarm.checkpoints.reward_models.layouts import save_reward_model
from sarm.config.latents import ExplorationConfig
from sarm.data.preferences import Message, Preference
from sarm.jobs.latents.explore import explore_latents
from sarm.reward.models import SARM
from sarm.sae.model import TopKSAE

N_LATENTS, K = 40, 6
HOSTILE = (
    '<script>document.title = "owned"</script><img src=x onerror="document.title=\'owned\'">',
    "</script><script>document.title='owned'</script>",
    "\u0645\u0631\u062d\u0628\u0627 \u202e abc \u202c",
    "w" * 400,
    '"; alert(1); //  \u2028 & &lt; {{ 7 * 7 }} ${document.title}',
)


def save_sarm(folder: Path, *, latents: str = "topk", seed: int = 0, n_latents: int = N_LATENTS) -> Path:
    """A random SARM of two blocks with a head of both signs; its last latent never fires."""
    torch.manual_seed(seed)
    sae = TopKSAE(hidden_size=HIDDEN, n_latents=n_latents, k=min(K, n_latents))
    sae.reset(torch.Generator().manual_seed(seed))
    with torch.no_grad():
        if n_latents > K:
            sae.latent_bias[-1] = -100
    model = SARM(truncated_backbone(llama_config(), 2), sae, latents=latents)  # type: ignore[arg-type]
    torch.nn.init.normal_(model.score.weight, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        model.score.weight[0, -1] = 3.0
    save_word_tokenizer(folder / "tokenizer")
    save_reward_model(folder, model, encoder="sae", tokenizer=folder / "tokenizer")
    return folder


def item(number: int, subset: str, *, chosen: int = 1, rejected: int = 3, name: str = "", text: str = "") -> Preference:
    """An item in the tiny language, with `text` at the end of its prompt and of its first reply."""
    subject = ("cat", "dog", "mat", "home")[number % 4]
    ends = ("good", "fine", "bad", "awful", "red", "blue")
    replies = [f"the {subject} is {ends[(number + n) % 6]}{' and a mat' * ((number + n) % 4)}." for n in range(chosen + rejected)]
    replies[0] += text
    prompt = (Message(role="user", content=f"tell me about the {subject}{' today' * (number % 5)} {text}"),)
    return Preference(
        id=name or str(number), prompt=prompt, chosen=tuple(replies[:chosen]), rejected=tuple(replies[chosen:]), subset=subset
    )


def rewardbench2(*, each: int = 3, hostile: bool = False) -> list[Preference]:
    """So many items of five subsets, and as many Ties prompts with a ref and a tied row."""
    texts = HOSTILE if hostile else ("",)
    found = [
        item(number * 5 + place, subset, text=texts[(number * 5 + place) % len(texts)])
        for number in range(each)
        for place, subset in enumerate(("Factuality", "Precise IF", "Math", "Safety", "Focus"))
    ]
    for number in range(each):
        found += [item(number + 50, "Ties", chosen=count, rejected=4, name=f"{kind}:{number}") for kind, count in (("ref", 1), ("tied", 5))]
    return found


def rmbench() -> list[Preference]:
    """Two items of each domain in three styles."""
    domains = ("chat", "code", "math", "safety-refuse")
    return [item(n * 4 + place, domain, chosen=3) for n in range(2) for place, domain in enumerate(domains)]


def explored(folder: Path, model: Path, items: Sequence[Preference], *, benchmark: str = "rewardbench2", **changes: Any) -> Path:
    """The job's output folder."""
    inputs = {"model": model, "benchmark": write_rows(folder / "items", f"{benchmark}.jsonl", list(items))}
    context = job_context(folder, inputs=inputs, threads=1)
    explore_latents(ExplorationConfig(**{"benchmark": benchmark, "max_length": 256, "batch_tokens": 512, **changes}), context)
    return context.output
