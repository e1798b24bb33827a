"""Seconds and memory of getting a model off the disk: ours against the old way, transformers' own and the bare tensors.

    python benchmarks/loading.py                                                          about 100 million parameters, float32
    python benchmarks/loading.py --hidden 2048 --intermediate 8192 --layers 16 --heads 32 a billion
    python benchmarks/loading.py --dtype bfloat16 ...                                     files and models in bfloat16

A random Llama in shards of the size that hubs use is written first and stays in the page cache. Every way ends when each byte of
each tensor was read once. The old way fills the model with random values in the configuration's precision and copies the checkpoint
over them; the bare tensors are `safetensors.torch.load_file` without a model. Hashing, which the store does beside it, is timed apart.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from interleaved import BYTES_PER_MIB, Trial, conditions, measure, report
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel, LlamaConfig
from transformers.utils import logging

from sarm.backbone.decoder import truncated_backbone
from sarm.checkpoints.backbones import load_config, load_truncated_backbone
from sarm.checkpoints.loading import without_weights
from sarm.checkpoints.reward_models.layouts import load_reward_model
from sarm.reward.models import SARM
from sarm.sae.model import TopKSAE
from sarm.store.checksums import sha256_of

INDEX = "model.safetensors.index.json"
OURS, OLD, BARE, LIBRARY = "ours", "the old way", "load_file, no model", "from_pretrained"
K = 8


def llama_config(options: argparse.Namespace) -> LlamaConfig:
    """The backbone's sizes; half as many key and value heads as heads."""
    return LlamaConfig(
        vocab_size=options.vocabulary,
        hidden_size=options.hidden,
        intermediate_size=options.intermediate,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        num_key_value_heads=max(1, options.heads // 2),
        tie_word_embeddings=True,
        architectures=["LlamaForCausalLM"],
        dtype=options.dtype,
    )


def sarm_of(config: LlamaConfig, latents: int) -> SARM:
    """A SARM of these sizes, by the constructors alone."""
    return SARM(truncated_backbone(config, config.num_hidden_layers), TopKSAE(hidden_size=config.hidden_size, n_latents=latents, k=K))


def write_shards(
    folder: Path, shapes: dict[str, torch.Size], *, dtype: torch.dtype, shard: int, seed: int, mark: str = "model"
) -> dict[str, str]:
    """Random tensors in files of about `shard` bytes; gives which file each is in."""
    draw, held, found = torch.Generator().manual_seed(seed), dict[str, Tensor](), dict[str, str]()
    names = list(shapes)
    for position, name in enumerate(names):
        held[name] = torch.empty(shapes[name]).uniform_(-0.05, 0.05, generator=draw).to(dtype)
        if position + 1 == len(names) or sum(tensor.nbytes for tensor in held.values()) >= shard:
            file = f"{mark}-{len(set(found.values())) + 1:05d}.safetensors"
            save_file(held, folder / file, metadata={"format": "pt"})
            found |= dict.fromkeys(held, file)
            held = {}
    return found


def write_checkpoints(folder: Path, options: argparse.Namespace) -> tuple[Path, Path]:
    """A backbone's folder, and a SARM's that shares its shards."""
    backbone, sarm = folder / "backbone", folder / "sarm"
    config, dtype = llama_config(options), getattr(torch, options.dtype)
    with without_weights():
        shapes = {name: value.shape for name, value in sarm_of(config, options.latents).state_dict().items()}
    config.save_pretrained(backbone)
    of_backbone = {name: shape for name, shape in shapes.items() if name.startswith("model.")}
    files = write_shards(backbone, of_backbone, dtype=dtype, shard=options.shard, seed=options.seed)
    (backbone / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": files}), encoding="utf-8")
    sarm.mkdir()
    for file in set(files.values()):
        os.link(backbone / file, sarm / file)
    rest = {name: shape for name, shape in shapes.items() if name not in of_backbone}
    files |= write_shards(sarm, rest, dtype=dtype, shard=options.shard, seed=options.seed + 1, mark="sae")
    (sarm / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": files}), encoding="utf-8")
    ours = {"model_type": "sarm", "encoder": "sae", "layer": options.layers, "n_latents": options.latents, "k": K, "latents": "topk"}
    raw = {**ours, "standardize": True, "num_labels": 1, "backbone": config.to_dict()}
    (sarm / "config.json").write_text(json.dumps(raw, default=str), encoding="utf-8")
    return backbone, sarm


def files_of(folder: Path) -> list[Path]:
    """The shards."""
    return sorted(folder.glob("*.safetensors"))


def read_all(tensors: Iterable[Tensor]) -> Tensor:
    """A sum in which every byte of every tensor counts."""
    words = [tensor.detach().flatten() for tensor in tensors]
    return torch.stack([(one.view(torch.int64) if one.nbytes % 8 == 0 else one.double()).sum().double().cpu() for one in words]).sum()


def old_way(make: Callable[[], nn.Module], folder: Path, *, dtype: torch.dtype, prefix: str) -> nn.Module:
    """As it was: a model of random values, then tensor by tensor the checkpoint's."""
    model = make()
    nn.Module.to(model, dtype)
    state = model.state_dict()
    with torch.no_grad():
        for file in files_of(folder):
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118
                    state[name.removeprefix(prefix)].copy_(tensors.get_tensor(name))
    return model.eval()


def ways_of_a_backbone(folder: Path, options: argparse.Namespace) -> dict[str, Callable[[], nn.Module | dict[str, Tensor]]]:
    """All four."""
    dtype, layers, device = getattr(torch, options.dtype), options.layers, torch.device(options.device)
    return {
        OURS: lambda: load_truncated_backbone(folder, layer=layers, dtype=dtype, keep_final_norm=True, device=device),
        OLD: lambda: old_way(
            lambda: truncated_backbone(load_config(folder), layers, keep_final_norm=True), folder, dtype=dtype, prefix="model."
        ).to(device),
        BARE: lambda: {name: value for file in files_of(folder) for name, value in load_file(file, device=options.device).items()},
        LIBRARY: lambda: AutoModel.from_pretrained(folder, dtype=dtype, device_map=None if device.type == "cpu" else options.device),
    }


def ways_of_a_sarm(folder: Path, options: argparse.Namespace) -> dict[str, Callable[[], nn.Module | dict[str, Tensor]]]:
    """Without transformers' own, which is ours behind its registry."""
    dtype, device = getattr(torch, options.dtype), torch.device(options.device)
    return {
        OURS: lambda: load_reward_model(folder, dtype=dtype, device=device),
        OLD: lambda: old_way(lambda: sarm_of(llama_config(options), options.latents), folder, dtype=dtype, prefix="").to(device),
        BARE: lambda: {name: value for file in files_of(folder) for name, value in load_file(file, device=options.device).items()},
    }


def tensors_of(loaded: nn.Module | dict[str, Tensor]) -> dict[str, Tensor]:
    """By the checkpoint's names."""
    found = dict(loaded.state_dict()) if isinstance(loaded, nn.Module) else loaded
    return {name if name.startswith(("model.", "sae.", "score.")) else f"model.{name}": value for name, value in found.items()}


def assert_same(ways: dict[str, Callable[[], nn.Module | dict[str, Tensor]]], *, what: str) -> None:
    """Every way gives the checkpoint's own values. Raises AssertionError that names the way and the tensor."""
    expected = tensors_of(ways[BARE]())
    for name, way in ways.items():
        found = tensors_of(way())
        assert found.keys() == expected.keys(), f"{what}, {name}: other tensors than the checkpoint's"
        for one, value in found.items():
            assert torch.equal(value, expected[one].to(value.dtype)), f"{what}, {name}: {one} is not the checkpoint's"
    print(f"{what}: {len(ways)} ways give the same {len(expected)} tensors, bit for bit")


def compare(ways: dict[str, Callable[[], nn.Module | dict[str, Tensor]]], *, what: str, size: int, repeats: int) -> None:
    """Check, time by turns, print."""
    assert_same(ways, what=what)
    timed = {name: (lambda way=way: read_all(tensors_of(way()).values())) for name, way in ways.items()}
    trials = measure(timed, repeats=repeats)
    print(report(trials, ours=OURS, units=round(size / 1e6), unit="MB"))
    seconds = {name: statistics.median(run.seconds for run in runs) for name, runs in trials.items()}
    above, saved = (ratio(trials[one], trials[other]) for one, other in ((OURS, BARE), (OLD, OURS)))
    told = f"{what}: ours {seconds[OURS]:.3f} s, {above:.2f} times the bare tensors"
    print(f"{told}; the old way {seconds[OLD]:.2f} s, {saved:.1f} times ours")


def ratio(slow: Sequence[Trial], fast: Sequence[Trial]) -> float:
    """How many times longer, round by round: the median on the wall."""
    return statistics.median(one.seconds / other.seconds for one, other in zip(slow, fast, strict=True))


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=768, help="width of the hidden states")
    parser.add_argument("--intermediate", type=int, default=2048, help="width of the MLP")
    parser.add_argument("--layers", type=int, default=12, help="blocks")
    parser.add_argument("--heads", type=int, default=12, help="attention heads")
    parser.add_argument("--vocabulary", type=int, default=32000, help="rows of the embeddings")
    parser.add_argument("--latents", type=int, default=6144, help="width of the SARM's dictionary")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="precision of the files and of the models")
    parser.add_argument("--device", default="cpu", help="where the models shall be, for example cuda")
    parser.add_argument("--shard", type=int, default=2 * 10**9, help="bytes of a file")
    parser.add_argument("--repeats", type=int, default=5, help="measured rounds")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads, for all ways alike")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the checkpoints are written for the time")
    return parser.parse_args()


def main() -> None:
    """Write the checkpoints, time both kinds of model, and hashing apart."""
    options = parse_options()
    torch.set_num_threads(options.threads)
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        backbone, sarm = write_checkpoints(Path(folder), options)
        sizes = [sum(file.stat().st_size for file in files_of(one)) for one in (backbone, sarm)]
        width = torch.finfo(getattr(torch, options.dtype)).bits // 8
        told = f"{sizes[0] / width / 1e6:.0f} million parameters, {options.dtype}, {sizes[0] / BYTES_PER_MIB:.0f} MiB"
        print(f"{told}; the reward model's SAE has {options.latents} latents")
        print(conditions(options.repeats))
        compare(ways_of_a_backbone(backbone, options), what="backbone", size=sizes[0], repeats=options.repeats)
        compare(ways_of_a_sarm(sarm, options), what="reward model", size=sizes[1], repeats=options.repeats)
        started = time.perf_counter()
        for file in files_of(sarm):
            sha256_of(file)
        print(f"SHA-256 of the reward model's files: {time.perf_counter() - started:.2f} s")


if __name__ == "__main__":
    main()
