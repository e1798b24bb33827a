"""The language models' part of `gpu.py`: harvest and reward step of random Llamas of the paper's shapes (8B cut at 16, 3B cut at 14).

Shares are of the rate of a large product that is measured in the same call. In bfloat16; with `--toy` in float32 on a CPU.
"""

from __future__ import annotations

import importlib
import json
import random
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from gpu_parts import Bench, Part, Row
from transformers import LlamaConfig, LlamaModel

from sarm.backbone.compiled_parts import compile_parts
from sarm.backbone.decoder import hidden_states, truncated_backbone
from sarm.backbone.harvest import Harvest
from sarm.config.train import RewardTrainingConfig
from sarm.data.pairs import EncodedPair
from sarm.data.sentences import TextSequence
from sarm.reward.models import SARM
from sarm.reward.pair_batches import collate, micro_batch_losses
from sarm.reward.shared_prefix import common_prefix, pack, shared_length
from sarm.sae.model import TopKSAE

MEAN_SENTENCE, SPREAD_SENTENCE = 2.87, 0.5
PADDED_ROWS = 64


class Shape(NamedTuple):
    """A Llama of `blocks` cut at `layer`, its SAE, and how much text a measurement takes."""

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
    blocks: int


PAPER = (
    Shape("8B cut at 16", 4096, 14336, 32, 8, 128, 128256, 16, 65536, 192, 8192, 65536, 8, 700, 32),
    Shape("3B cut at 14", 3072, 8192, 24, 8, 128, 128256, 14, 49152, 144, 8192, 65536, 8, 700, 28),
)
TOY = (Shape("toy", 64, 160, 4, 2, 16, 512, 3, 256, 8, 64, 512, 4, 40, 6),)


def llama_of(shape: Shape, blocks: int) -> LlamaConfig:
    """A Llama of that many blocks."""
    return LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=blocks,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=8192,
    )


def build(shape: Shape, device: torch.device, dtype: torch.dtype) -> SARM:
    """The reward model with random weights."""
    config = llama_of(shape, shape.layer)
    torch.manual_seed(0)
    with device:
        model = SARM(truncated_backbone(config, shape.layer), TopKSAE(hidden_size=shape.hidden, n_latents=shape.latents, k=shape.k))
    torch.nn.init.normal_(model.score.weight, std=0.02)
    model.sae.requires_grad_(False)
    model.model.get_submodule("norm").requires_grad_(False)
    return model.to(dtype)


def forward_flop(shape: Shape, lengths: Sequence[tuple[int, int]], kept: int) -> float:
    """Products of the trimmed forward pass over sequences of (own tokens, tokens of the sequence before that they see)."""
    attention_width, key_width = shape.heads * shape.head_dim, shape.key_heads * shape.head_dim
    keys = 2 * shape.hidden * key_width
    rest = 2 * shape.hidden * attention_width + 3 * shape.hidden * shape.intermediate
    tokens = sum(own for own, _ in lengths)
    scores = sum(own * (own + 1) / 2 + own * seen for own, seen in lengths) * 2 * attention_width
    return 2 * ((shape.layer - 1) * (tokens * (keys + rest) + scores) + tokens * keys + kept * rest)


def sentences(shape: Shape) -> list[TextSequence]:
    """Made-up ones, as long as real ones; of each the last token is wanted."""
    draw = random.Random(0)
    sizes = [min(96, max(3, round(draw.lognormvariate(MEAN_SENTENCE, SPREAD_SENTENCE)))) for _ in range(shape.sentences)]
    return [TextSequence([draw.randrange(shape.vocabulary) for _ in range(size)], [size - 1], 0) for size in sizes]


def padded_batches(text: Sequence[TextSequence], device: torch.device) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Ids and mask of 64 sentences at a time, in their order, filled up on the right."""
    for start in range(0, len(text), PADDED_ROWS):
        rows = [sentence.ids for sentence in text[start : start + PADDED_ROWS]]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=device)
        yield ids, torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=device)


def harvest_row(shape: Shape, model: SARM, bench: Bench) -> Row:
    """Sentences packed, against the cut model on padded batches."""
    device = bench.device
    model.eval()
    text = sentences(shape)
    sizes = [len(sentence.ids) for sentence in text]
    harvest = Harvest(model.model, [shape.layer], batch_tokens=shape.batch_tokens, device=device)
    bench.forget()
    seconds = bench.seconds(lambda: harvest.states(text), 5)
    used = bench.peak()

    @torch.inference_mode()
    def padded() -> None:
        for ids, _ in padded_batches(text, device):
            hidden_states(model.model, ids, [shape.layer])

    bench.speeds[("harvest", shape.name)] = len(text) / seconds
    flop = forward_flop(shape, [(size, 0) for size in sizes], len(sizes))
    return {
        "what": "harvest",
        "model": shape.name,
        "samples_per_second": len(text) / seconds,
        "tokens_per_second": sum(sizes) / seconds,
        **used,
        "share_of_product_rate": flop / seconds / bench.rates.product,
        "times_faster_than_padded": bench.seconds(padded, 3) / seconds,
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


def reward_row(shape: Shape, model: SARM, bench: Bench) -> Row:
    """One optimizer step on packed pairs, against forward and backward on padded rows."""
    device = bench.device
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
    bench.forget()
    whole = bench.seconds(step, 5)
    used = bench.peak()
    bench.speeds[("reward step", shape.name)] = len(pairs) / whole
    packed, padded = bench.seconds(lambda: gradients(row), 5), bench.seconds(lambda: gradients(batch), 3)
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
        "share_of_product_rate": flop / whole / bench.rates.product,
        "share_without_optimizer": flop / packed / bench.rates.product,
        "times_faster_than_padded": padded / packed,
    }


def against(bench: Bench, row: Row, what: str, shape: Shape, speed: float) -> Row:
    """A peer's row with its speed, the memory, and ours over it where ours was measured."""
    own = bench.speeds.get((what, shape.name))
    return {**row, "model": shape.name, "samples_per_second": speed, **({"ours faster by": own / speed} if own else {}), **bench.peak()}


def transformers_harvest(bench: Bench, shape: Shape) -> Iterator[Row]:
    """The whole model of transformers on padded batches with the list of all hidden states, of which one layer's last tokens are taken."""
    with bench.device:
        model = LlamaModel(llama_of(shape, shape.blocks)).to(bench.dtype).eval()  # type: ignore[arg-type]
    text = sentences(shape)

    @torch.inference_mode()
    def harvest() -> None:
        for ids, mask in padded_batches(text, bench.device):
            states = model(input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False).hidden_states[shape.layer]
            states[torch.arange(len(ids), device=ids.device), mask.sum(dim=1) - 1]

    seconds = bench.seconds(harvest, 2)
    yield against(bench, {"what": "harvest, transformers"}, "harvest", shape, len(text) / seconds)


def trl_step(bench: Bench, shape: Shape) -> Iterator[Row]:
    """TRL's RewardTrainer on the cut model and the same pairs, all in one batch, without activation checkpointing."""
    config = llama_of(shape, shape.layer)
    config.num_labels, config.pad_token_id = 1, 0
    pairs = [(pair.chosen, pair.rejected) for pair in made_up_pairs(shape)]
    module = importlib.import_module("gpu_trl")
    times = module.step_seconds(config, pairs, device=bench.device, dtype=bench.dtype, steps=2 if bench.toy else 7, wait=bench.wait)
    seconds = statistics.median(times[2:] or times)
    yield against(bench, {"what": "reward step, TRL"}, "reward step", shape, len(pairs) / seconds)


def measured(bench: Bench, shape: Shape, what: Callable[[Shape, SARM, Bench], Row], *, compiled: bool = False) -> Iterator[Row]:
    """The row of a model of that shape, which is made for it; with `compiled`, as a config's `block = "compiled"` lets it run."""
    bench.forget()
    model = build(shape, bench.device, bench.dtype)
    if compiled:
        compile_parts(model.model)
    row = what(shape, model, bench)
    yield {**row, "what": f"{row['what']}, compiled blocks"} if compiled else row


def zero_step(bench: Bench, training: str, size: str, stage: Literal[1, 2]) -> Iterator[Row]:
    """A step under DeepSpeed in one process, its peak beside the plan's prediction: see `gpu_deepspeed.py`.

    In a process of its own: DeepSpeed keeps its engines, and what an earlier one holds would count as this one's.
    """
    bench.forget()
    script = Path(__file__).with_name("gpu_deepspeed.py")
    asked = ["--size", size, "--stage", str(stage), "--only", training, *(() if bench.toy else ("--gpu",))]
    done = subprocess.run([sys.executable, str(script), *asked], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{script.name} ended with code {done.returncode}: {done.stderr.strip()[-500:]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    kept = {key: value for key, value in found.items() if key not in ("training", "size", "stage", "processes")}
    yield {"what": f"{training} step, ZeRO {stage}", "model": size, **kept}


# What one card holds: the 8B model's reward step at stage 2 does not fit 80 GB.
ZERO_STEPS: tuple[tuple[str, str, Literal[1, 2]], ...] = (("reward", "3b", 2), ("sae", "3b", 1), ("sae", "8b", 1))
TOY_ZERO_STEPS: tuple[tuple[str, str, Literal[1, 2]], ...] = (("reward", "toy", 2), ("sae", "toy", 1))


def parts(bench: Bench) -> list[Part]:
    """Ours and the peers' for each shape, then the steps under DeepSpeed."""
    found = []
    for shape in TOY if bench.toy else PAPER:
        found += [
            Part(f"harvest, {shape.name}", partial(measured, bench, shape, harvest_row)),
            Part(f"harvest, transformers, {shape.name}", partial(transformers_harvest, bench, shape)),
            Part(f"reward step, {shape.name}", partial(measured, bench, shape, reward_row)),
            Part(f"reward step, TRL, {shape.name}", partial(trl_step, bench, shape), ("trl",)),
        ]
        # After the peers, whose ratios are to the plain blocks. A toy would measure the compiler alone.
        for name, row in () if bench.toy else (("harvest", harvest_row), ("reward step", reward_row)):
            found.append(Part(f"{name}, compiled blocks, {shape.name}", partial(measured, bench, shape, row, compiled=True)))
    for training, size, stage in TOY_ZERO_STEPS if bench.toy else ZERO_STEPS:
        name = f"{training} step under DeepSpeed, ZeRO {stage}, {size}"
        found.append(Part(name, partial(zero_step, bench, training, size, stage), ("deepspeed",)))
    return found
