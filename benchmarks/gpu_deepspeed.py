"""Steps of both trainings under DeepSpeed at the paper's shapes with random weights: that they run, and the memory they take.

`--gpu` uses one GPU (or as many as torchrun starts processes); without it the same code runs at toy size on the CPU.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LlamaConfig

from replication.plan.training_memory import reward_memory, sae_memory
from replication.settings.profiles import Shape
from sarm.backbone.decoder import truncated_backbone
from sarm.config.train import RewardTrainingConfig, SAETrainingConfig
from sarm.data.pairs import EncodedPair
from sarm.engine.group import ProcessGroup, join
from sarm.engine.zero import ZeroUpdate
from sarm.job import Resources
from sarm.jobs.train.reward import PairLosses, set_trainable
from sarm.reward.models import SARM
from sarm.reward.shared_prefix import pack
from sarm.sae.model import TopKSAE
from sarm.sae.step import Workspace
from sarm.sae.zero import ZeroSAEUpdate

GB = 1e9


@dataclass(frozen=True)
class Sizes:
    """What is trained: a backbone cut at `layer`, an SAE, pairs a step of `tokens` tokens, vectors a step."""

    shape: Shape
    layer: int
    n_latents: int
    k: int
    pairs: int
    tokens: int
    vectors: int


def _llama(layers: int, hidden: int, mlp: int, heads: tuple[int, int], vocabulary: int) -> Shape:
    return Shape(
        num_hidden_layers=layers,
        hidden_size=hidden,
        intermediate_size=mlp,
        num_attention_heads=heads[0],
        num_key_value_heads=heads[1],
        vocab_size=vocabulary,
    )


SIZES = {
    "toy": Sizes(_llama(2, 32, 64, (4, 2), 128), layer=2, n_latents=64, k=4, pairs=4, tokens=40, vectors=32),
    "3b": Sizes(_llama(14, 3072, 8192, (24, 8), 128256), layer=14, n_latents=49152, k=144, pairs=8, tokens=1400, vectors=4096),
    "8b": Sizes(_llama(16, 4096, 14336, (32, 8), 128256), layer=16, n_latents=65536, k=192, pairs=8, tokens=1400, vectors=4096),
}


def peak(group: ProcessGroup) -> float:
    """Peak memory, GB: of the GPU, or of the process (with all its libraries)."""
    if group.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / GB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GB


def timed(group: ProcessGroup, step: Callable[[], object], repeats: int) -> dict[str, float]:
    """Seconds of each step after the first, and the peak."""
    step()
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    if group.device.type == "cuda":
        torch.cuda.synchronize()
    return {"seconds_a_step": (time.perf_counter() - start) / repeats, "peak_gb": peak(group)}


def random_sarm(sizes: Sizes, group: ProcessGroup, *, recompute: bool) -> SARM:
    """A SARM of these sizes with random weights, in bfloat16, on the group's device."""
    llama = LlamaConfig(**sizes.shape.model_dump(exclude={"head_dim"}), max_position_embeddings=8192)
    with torch.device(group.device):
        backbone = truncated_backbone(llama, sizes.layer)
        backbone.to(dtype=torch.bfloat16)  # type: ignore[call-arg]
        sae = TopKSAE(hidden_size=sizes.shape.hidden_size, n_latents=sizes.n_latents, k=sizes.k).to(torch.bfloat16)
        model = SARM(backbone, sae)
    if recompute:
        backbone.gradient_checkpointing_enable({"use_reentrant": False})
    return model


def reward_step(sizes: Sizes, group: ProcessGroup, needs: Resources, repeats: int) -> dict[str, float]:
    """One step of reward training: all pairs of this process in one packed micro-batch."""
    fields: dict[str, Any] = {"layer": sizes.layer, "batch_pairs": sizes.pairs, "max_length": sizes.tokens // 2}
    config = RewardTrainingConfig(**fields, dtype="bfloat16", head_init="normal")
    shape = sizes.shape
    model = random_sarm(sizes, group, recompute=needs.activation_checkpointing)
    set_trainable(model, config)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    offload = needs.offload == "optimizer"
    optimizer = torch.optim.AdamW([{"params": trained, "peak": 4e-6}], lr=0.0, fused=offload, foreach=not offload)
    update = ZeroUpdate(
        PairLosses(model, config),
        model,
        optimizer,
        group=group,
        stage=needs.zero_stage,
        rows=sizes.pairs,
        dtype=torch.bfloat16,
        max_norm=1.0,
        kind="train_reward",
        saved=None,
        offload=offload,
    )
    mine = sizes.pairs // group.size
    side = sizes.tokens // 2
    numbers = torch.Generator().manual_seed(group.rank)
    rows = torch.randint(5, shape.vocab_size, (mine, 2, side), generator=numbers).tolist()
    batch = pack([EncodedPair(one[0], one[1], str(i)) for i, one in enumerate(rows)], dtype=torch.bfloat16, device=group.device)
    model.train()

    def step() -> None:
        update.begin(1.0)
        update.backward(update.forward(batch)[0] / sizes.pairs, last=True)
        update.step()

    encoder = shape.hidden_size * sizes.n_latents
    asked = needs.model_copy(update={"micro_batch_tokens": sizes.pairs * sizes.tokens})
    predicted = reward_memory(config, shape, asked, encoder=encoder, pair_tokens=sizes.tokens)
    return {**timed(group, step, repeats), "predicted_gb": predicted.total, **predicted.parts}


def sae_step(sizes: Sizes, group: ProcessGroup, needs: Resources, repeats: int) -> dict[str, float]:
    """One step of SAE training on random vectors."""
    hidden = sizes.shape.hidden_size
    config = SAETrainingConfig(
        layer=sizes.layer,
        n_latents=sizes.n_latents,
        k=sizes.k,
        dtype="bfloat16",
        vectors=sizes.vectors * 1000,
        batch_vectors=sizes.vectors,
        buffer_vectors=sizes.vectors,
    )
    with torch.device(group.device):
        sae = TopKSAE(hidden_size=hidden, n_latents=sizes.n_latents, k=sizes.k)
        sae.reset(torch.Generator(device=group.device).manual_seed(0))
    sae.to(torch.bfloat16)
    offload = needs.offload == "optimizer"
    update = ZeroSAEUpdate(config, sae, group=group, stage=needs.zero_stage, workspace=Workspace(), saved=None, offload=offload)
    x = torch.randn(sizes.vectors // group.size, hidden, device=group.device, dtype=torch.bfloat16)
    index = iter(range(10**6))
    found = timed(group, lambda: update.step(x, next(index)), repeats)
    # A step alone: no backbone, and no text to harvest.
    predicted = sae_memory([config], sizes.shape, needs.model_copy(update={"micro_batch_tokens": 1})).model_copy(update={"weights": 0.0})
    return {**found, "predicted_gb": predicted.total, **predicted.parts}


def main() -> None:
    """Print one JSON line for each training."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpu", action="store_true", help="one GPU a process")
    parser.add_argument("--size", choices=SIZES, default="toy")
    parser.add_argument("--stage", type=int, choices=(1, 2, 3), default=2)
    parser.add_argument("--recompute", action="store_true", help="activation checkpointing")
    parser.add_argument("--offload", action="store_true", help="the optimizer in the host's memory")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=("reward", "sae", "both"), default="both")
    options = parser.parse_args()
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    needs = Resources(
        processes=processes,
        gpus=processes if options.gpu else 0,
        zero_stage=options.stage,
        activation_checkpointing=options.recompute,
        offload="optimizer" if options.offload else "none",
    )
    group = join(needs)
    for name, run in (("reward", reward_step), ("sae", sae_step)):
        if options.only in (name, "both"):
            if group.device.type == "cuda":
                # An engine refers to itself: without this, what the one before held would count as this one's.
                gc.collect()
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            found = run(SIZES[options.size], group, needs, options.repeats)
            if group.is_first:
                rounded = {key: round(value, 4) for key, value in found.items()}
                print(json.dumps({"training": name, "size": options.size, "stage": options.stage, "processes": processes, **rounded}))


if __name__ == "__main__":
    main()
