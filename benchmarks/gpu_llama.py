"""Harvest and reward step of random Llamas of the paper's shapes, against the rate of a large product measured in the same call.

    python benchmarks/gpu_llama.py          on a GPU, bfloat16: the 8B model cut at 16 blocks, the 3B model cut at 14
    python benchmarks/gpu_llama.py --toy    the same on a CPU at toy size
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from transformers import LlamaConfig

from sarm.backbone.decoder import hidden_states, truncated_backbone
from sarm.backbone.harvest import Harvest
from sarm.config.train import RewardTrainingConfig
from sarm.data.pairs import EncodedPair
from sarm.data.sentences import TextSequence
from sarm.reward.models import SARM
from sarm.reward.pair_batches import collate, micro_batch_losses
from sarm.reward.shared_prefix import common_prefix, pack, shared_length
from sarm.sae.model import TopKSAE

Row = dict[str, float | str]
MEAN_SENTENCE, SPREAD_SENTENCE = 2.87, 0.5
PADDED_ROWS = 64


class Shape(NamedTuple):
    """A Llama cut at `layer`, its SAE, and how much text a measurement takes."""

    name: str
    hidden: int
    intermediate: int
    heads: int
    key_heads: int
    head_dim: int
    vocabulary: int
    layer: int
    latents: int
    k: int
    sentences: int
    batch_tokens: int
    pairs: int
    conversation: int


PAPER = (
    Shape("8B cut at 16", 4096, 14336, 32, 8, 128, 128256, 16, 65536, 192, 8192, 65536, 8, 700),
    Shape("3B cut at 14", 3072, 8192, 24, 8, 128, 128256, 14, 49152, 144, 8192, 65536, 8, 700),
)
TOY = (Shape("toy", 64, 160, 4, 2, 16, 512, 3, 256, 8, 64, 512, 4, 40),)


def build(shape: Shape, device: torch.device, dtype: torch.dtype) -> SARM:
    """The reward model with random weights."""
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layer,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=8192,
    )
    torch.manual_seed(0)
    with device:
        model = SARM(truncated_backbone(config, shape.layer), TopKSAE(hidden_size=shape.hidden, n_latents=shape.latents, k=shape.k))
    torch.nn.init.normal_(model.score.weight, std=0.02)
    model.sae.requires_grad_(False)
    model.model.get_submodule("norm").requires_grad_(False)
    return model.to(dtype)


def seconds_of(work: Callable[[], object], device: torch.device, repeats: int = 5) -> float:
    """Median seconds of a call, after two that do not count."""
    times = []
    for _ in range(repeats + 2):
        synchronize(device)
        started = time.perf_counter()
        work()
        synchronize(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times[2:])


def synchronize(device: torch.device) -> None:
    """Wait for the GPU; nothing on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def product_rate(size: int, device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a square product: what 100 % is."""
    one, other = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / seconds_of(lambda: one @ other, device)


def forward_flop(shape: Shape, lengths: Sequence[tuple[int, int]], kept: int) -> float:
    """Products of the trimmed forward pass over sequences of (own tokens, tokens of the sequence before that they see)."""
    attention_width, key_width = shape.heads * shape.head_dim, shape.key_heads * shape.head_dim
    keys = 2 * shape.hidden * key_width
    rest = 2 * shape.hidden * attention_width + 3 * shape.hidden * shape.intermediate
    tokens = sum(own for own, _ in lengths)
    scores = sum(own * (own + 1) / 2 + own * seen for own, seen in lengths) * 2 * attention_width
    return 2 * ((shape.layer - 1) * (tokens * (keys + rest) + scores) + tokens * keys + kept * rest)


def forget_peak(device: torch.device) -> None:
    """Let `memory` count from now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def memory(device: torch.device) -> Row:
    """Largest GPU memory since `forget_peak`, GB; nothing on a CPU."""
    return {"memory_gb": torch.cuda.max_memory_allocated(device) / 1e9} if device.type == "cuda" else {}


def harvest_row(shape: Shape, model: SARM, rate: float, device: torch.device) -> Row:
    """Sentences packed, against the cut model on padded batches."""
    draw = random.Random(0)
    sizes = [min(96, max(3, round(draw.lognormvariate(MEAN_SENTENCE, SPREAD_SENTENCE)))) for _ in range(shape.sentences)]
    text = [TextSequence([draw.randrange(shape.vocabulary) for _ in range(size)], [size - 1], 0) for size in sizes]
    harvest = Harvest(model.model, [shape.layer], batch_tokens=shape.batch_tokens, device=device)
    forget_peak(device)
    seconds = seconds_of(lambda: harvest.states(text), device)
    used = memory(device)

    @torch.inference_mode()
    def padded() -> None:
        for start in range(0, len(text), PADDED_ROWS):
            batch = text[start : start + PADDED_ROWS]
            longest = max(len(sentence.ids) for sentence in batch)
            ids = torch.tensor([sentence.ids + [0] * (longest - len(sentence.ids)) for sentence in batch], device=device)
            hidden_states(model.model, ids, [shape.layer])

    flop = forward_flop(shape, [(size, 0) for size in sizes], len(sizes))
    return {
        "what": "harvest",
        "model": shape.name,
        "samples_per_second": len(text) / seconds,
        "tokens_per_second": sum(sizes) / seconds,
        **used,
        "share_of_product_rate": flop / seconds / rate,
        "times_faster_than_padded": seconds_of(padded, device, 3) / seconds,
    }


def made_up_pairs(shape: Shape) -> list[EncodedPair]:
    """Pairs whose prompt is about a fifth of each conversation."""
    draw = random.Random(1)

    def ids(count: int) -> list[int]:
        return [draw.randrange(shape.vocabulary) for _ in range(count)]

    made = []
    for number in range(shape.pairs):
        prompt = ids(shape.conversation // 5)
        first, second = (ids(round(shape.conversation * 0.8 * draw.uniform(0.5, 1.5))) for _ in range(2))
        made.append(EncodedPair(prompt + first, prompt + second, str(number)))
    return made


def reward_row(shape: Shape, model: SARM, rate: float, device: torch.device) -> Row:
    """One optimizer step on packed pairs, against forward and backward on padded rows."""
    pairs, config = made_up_pairs(shape), RewardTrainingConfig(layer=shape.layer)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6, fused=True)
    row = pack(pairs, dtype=model.model.dtype, device=device)
    batch = collate(pairs, pad_id=0, header=None, device=device)

    def gradients(of: object) -> None:
        optimizer.zero_grad(set_to_none=True)
        micro_batch_losses(model, of, config).preference.backward()  # type: ignore[arg-type]

    def step() -> None:
        gradients(row)
        optimizer.step()

    model.train()
    forget_peak(device)
    whole = seconds_of(step, device)
    used = memory(device)
    packed, padded = seconds_of(lambda: gradients(row), device), seconds_of(lambda: gradients(batch), device, 3)
    tokens = sum(shared_length(pair) for pair in pairs)
    lengths = [(len(pair.chosen), 0) for pair in pairs]
    lengths += [(len(pair.rejected) - common_prefix(pair), common_prefix(pair)) for pair in pairs]
    flop = 3 * forward_flop(shape, lengths, 2 * len(pairs))
    return {
        "what": "reward step",
        "model": shape.name,
        "samples_per_second": len(pairs) / whole,
        "tokens_per_second": tokens / whole,
        **used,
        "share_of_product_rate": flop / whole / rate,
        "share_without_optimizer": flop / packed / rate,
        "times_faster_than_padded": padded / packed,
    }


def report(toy: bool) -> list[Row]:
    """A row for harvest and reward step of each shape; the first row is the product's rate.

    On a CUDA device in bfloat16; with `toy` on a CPU in float32. Raises RuntimeError without a GPU unless `toy`.
    """
    if not toy and not torch.cuda.is_available():
        raise RuntimeError("no CUDA device; run with --toy, or on a machine with a GPU")
    device, dtype = (torch.device("cpu"), torch.float32) if toy else (torch.device("cuda"), torch.bfloat16)
    rate = product_rate(256 if toy else 8192, device, dtype)
    rows: list[Row] = [{"what": "product", "model": "", "tflop_per_second": rate / 1e12}]
    for shape in TOY if toy else PAPER:
        model = build(shape, device, dtype)
        rows.append(harvest_row(shape, model.eval(), rate, device))
        rows.append(reward_row(shape, model, rate, device))
        del model
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return rows


def main() -> None:
    """One line of JSON for each row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="a small model on the CPU")
    for row in report(parser.parse_args().toy):
        print(json.dumps({name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}), flush=True)


if __name__ == "__main__":
    main()
