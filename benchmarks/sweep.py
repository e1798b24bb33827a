"""Nine SAEs of a sweep (layers, widths, k) trained in one pass over the text against nine separate runs: how many times faster.

    python benchmarks/sweep.py                    a random Llama of 4 blocks, made-up sentences
    python benchmarks/sweep.py --hidden 256       a wider one

The SAEs of the one pass are first compared with those of the separate runs, byte by byte.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from interleaved import conditions, measure, parser_of, report
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from sarm.config.train import SAETrainingConfig
from sarm.data.miniature.word_tokenizer import build_tokenizer, tokenizer_settings
from sarm.job import JobContext, Resources
from sarm.jobs.train.sae import train_saes

WORDS = [f"{first}{second}{third}" for first in "bdfgkl" for second in "aeiou" for third in "mnrst"]
APART, TOGETHER = "nine runs, one after the other", "one pass for all nine"


def write_inputs(folder: Path, options: argparse.Namespace) -> dict[str, Path]:
    """A random Llama with a word tokenizer, and documents of random sentences."""
    torch.manual_seed(options.seed)
    tokenizer = build_tokenizer([*WORDS, *(word.capitalize() for word in WORDS), "."])
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=options.hidden,
        intermediate_size=3 * options.hidden,
        num_hidden_layers=options.layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
    )
    backbone, corpus = folder / "backbone", folder / "corpus"
    LlamaForCausalLM(config).save_pretrained(backbone)
    tokenizer.save(str(backbone / "tokenizer.json"))
    (backbone / "tokenizer_config.json").write_text(json.dumps(tokenizer_settings(256)), encoding="utf-8")
    corpus.mkdir()
    draw = random.Random(options.seed)
    lines = []
    for _ in range(options.vectors // 8):
        sentences = [" ".join(draw.choices(WORDS, k=draw.randint(8, 30))).capitalize() + "." for _ in range(8)]
        lines.append(json.dumps({"text": " ".join(sentences)}) + "\n")
    (corpus / "corpus.jsonl").write_text("".join(lines), encoding="utf-8")
    return {"backbone": backbone, "corpus": corpus}


def sweep_configs(options: argparse.Namespace) -> list[SAETrainingConfig]:
    """Three layers at one width and k; there, three more widths and three more k at the middle layer."""
    width, middle = 8 * options.hidden, max(1, options.layers // 2)
    k = max(4, options.hidden // 16)
    shapes = [(layer, width, k) for layer in sorted({max(1, middle - 1), middle, min(options.layers, middle + 1)})]
    shapes += [(middle, width * times // 4, k) for times in (1, 2, 8)]
    shapes += [(middle, width, part) for part in (max(1, k // 2), 2 * k, 4 * k)]
    return [
        SAETrainingConfig(
            layer=layer, n_latents=latents, k=k, vectors=options.vectors, batch_vectors=options.batch, buffer_vectors=8 * options.batch
        )
        for layer, latents, k in shapes
    ]


def context_of(folder: Path, inputs: dict[str, Path], threads: int) -> JobContext:
    """A job's view of its folders."""
    output, checkpoint = folder / "output", folder / "checkpoint"
    output.mkdir(parents=True, exist_ok=True)
    checkpoint.mkdir(exist_ok=True)
    return JobContext(
        inputs=inputs,
        output=output,
        checkpoint=checkpoint,
        resources=Resources(threads=threads),
        locations={},
        progress=lambda *_: None,
        stop_requested=lambda: False,
        log=lambda _: None,
    )


def training(groups: Sequence[Sequence[int]], configs: list[SAETrainingConfig], make: Callable[[int], JobContext]) -> Callable[[], Tensor]:
    """Train the SAEs group by group, each group in one pass."""

    def run() -> Tensor:
        for group in groups:
            train_saes([(configs[number], make(number)) for number in group])
        return torch.zeros(())

    return run


def assert_same_bytes(one: Path, other: Path, count: int) -> None:
    """Every file of every SAE is the same. Raises AssertionError that names the first that is not."""
    for number in range(count):
        for file in sorted((one / str(number) / "output").iterdir()):
            if file.read_bytes() != (other / str(number) / "output" / file.name).read_bytes():
                raise AssertionError(f"SAE {number}: {file.name} of the one pass differs from that of its own run")
    print(f"the {count} SAEs of one pass equal those trained alone, byte by byte")


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = parser_of(__doc__, repeats=3)
    parser.add_argument("--hidden", type=int, default=128, help="width of the hidden states, a multiple of 8")
    parser.add_argument("--layers", type=int, default=8, help="blocks of the model")
    parser.add_argument("--vectors", type=int, default=4096, help="training vectors of each SAE")
    parser.add_argument("--batch", type=int, default=256, help="vectors of a step")
    return parser.parse_args()


def main() -> None:
    """Train both ways, compare the files, and print the ratio."""
    options = parse_options()
    torch.set_num_threads(options.threads)
    configs = sweep_configs(options)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inputs = write_inputs(folder, options)
        numbers = range(len(configs))
        ways = {
            APART: training([[n] for n in numbers], configs, lambda n: context_of(folder / "apart" / str(n), inputs, options.threads)),
            TOGETHER: training([list(numbers)], configs, lambda n: context_of(folder / "together" / str(n), inputs, options.threads)),
        }
        trials = measure(ways, repeats=options.repeats)
        assert_same_bytes(folder / "together", folder / "apart", len(configs))
    shapes = ", ".join(f"{config.layer}/{config.n_latents}/{config.k}" for config in configs)
    print(f"hidden {options.hidden}, {options.layers} blocks, {options.vectors} vectors, batch {options.batch}; layer/latents/k: {shapes}")
    print(conditions(options.repeats))
    print(report(trials, ours=TOGETHER, units=len(configs) * options.vectors, unit="vectors"))


if __name__ == "__main__":
    main()
