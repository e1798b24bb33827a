"""What each saving of reward training and harvest is worth: alone on the plain way, and missing from ours.

    python benchmarks/ablation.py --data "$SARM_DATA"
    python benchmarks/ablation.py --data "$SARM_DATA" --hidden 512 --layer 8

Every way of reward training is a process of its own; the ways of harvest take turns in this one. All ways must agree before times count.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import torch
from environments import HERE, variables
from harvest import build_models, padded_states, real_sentences
from interleaved import BYTES_PER_MIB, Trial, assert_agree, conditions, measure, parser_of
from reward_problem import add_options, write_problem
from reward_step import assert_losses_agree
from torch import Tensor
from worker import Worker, by_turns

from sarm.backbone import harvest
from sarm.backbone.harvest import Harvest
from sarm.backbone.packed_tokens import Packed
from sarm.data.sentences import TextSequence

# The plain way: two pairs at a time in the order of the data, padded, the SAE at the scored token.
PLAIN, OURS = "rows+unsorted", "packed"
REWARD_WAYS = {
    PLAIN: "plain: padded rows, two pairs at a time",
    "rows+unsorted+everywhere": "plain, SAE at every position",
    "rows": "similar lengths together",
    "shared": "shared prompt, by a dense mask",
    "packed+apart+all": "no padding",
    "packed+all": "no padding, shared prompt",
    "packed+apart": "no padding, trimmed last block",
    OURS: "all: no padding, shared prompt, trimmed",
}
WHOLE, CUT, TRIMMED = "whole model, padded, list of states", "cut at the layer, padded", "all: cut, packed, trimmed last block"
EQUAL, PACKED = "cut, batches of one length", "cut, packed"


def reward_trials(options: argparse.Namespace) -> dict[str, list[Trial]]:
    """Each way of reward training, by turns."""
    environment, _ = variables(options.threads)
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        folder = Path(scratch)
        print(write_problem(options, folder, latents=options.latents, k=options.k), flush=True)
        started = {}
        for name in REWARD_WAYS:
            command = [sys.executable, str(HERE / "reward_ways.py"), name]
            started[name] = stack.enter_context(Worker(command, folder, threads=options.threads, environment=environment))
        trials, losses = by_turns(started, steps=options.steps, repeats=options.repeats)
    assert_losses_agree(losses, reference=PLAIN)
    return {REWARD_WAYS[name]: runs for name, runs in trials.items()}


def untrimmed(own: Harvest, sentences: Sequence[TextSequence], layer: int) -> Tensor:
    """Our harvest with the last block run for every token."""
    forward = harvest.packed_states

    def whole(backbone: torch.nn.Module, row: Packed, layers: Sequence[int]) -> dict[int, Tensor]:
        every = row._replace(kept=torch.arange(len(row.input_ids)), ends_only=False)
        return {number: states[row.kept] for number, states in forward(backbone, every, layers).items()}

    with mock.patch.object(harvest, "packed_states", whole):
        return own.states(sentences)[layer]


def harvest_trials(options: argparse.Namespace) -> dict[str, list[Trial]]:
    """Each way of harvest, by turns."""
    sentences, vocabulary = real_sentences(options.sentences, data=options.data, seed=options.seed)
    whole, cut = build_models(options, vocabulary)
    layer, device = options.layer, torch.device("cpu")
    ours, equal = (Harvest(cut, [layer], batch_tokens=options.batch_tokens, device=device) for _ in range(2))
    equal._packs = False
    ways: dict[str, Callable[[], Tensor]] = {
        WHOLE: lambda: padded_states(whole, sentences, layer=layer, rows=options.rows),
        CUT: lambda: padded_states(cut, sentences, layer=None, rows=options.rows),
        EQUAL: lambda: equal.states(sentences)[layer],
        PACKED: lambda: untrimmed(ours, sentences, layer),
        TRIMMED: lambda: ours.states(sentences)[layer],
    }
    reference = ways[WHOLE]()
    for name in (CUT, EQUAL, PACKED, TRIMMED):
        assert_agree(ways[name](), reference, tolerance=1e-4, what=name)
    return measure(ways, repeats=options.repeats)


def table(trials: Mapping[str, list[Trial]], *, units: int, unit: str) -> str:
    """For each way its median rate, how many times faster than the first it was (wall; processor time), and peak memory."""
    first = next(iter(trials.values()))
    lines = [f"| way | {unit}/s | faster, wall | faster, processor time | peak MiB |", "|---|---|---|---|---|"]
    for name, runs in trials.items():
        rate = units / statistics.median(run.seconds for run in runs)
        wall = statistics.median(plain.seconds / run.seconds for run, plain in zip(runs, first, strict=True))
        processor = statistics.median(plain.processor_seconds / run.processor_seconds for run, plain in zip(runs, first, strict=True))
        peak = max((run.growth or 0) for run in runs) / BYTES_PER_MIB
        lines.append(f"| {name} | {rate:.1f} | {wall:.2f} | {processor:.2f} | {peak:.0f} |")
    return "\n".join(lines)


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = parser_of(__doc__, repeats=5)
    add_options(parser)
    parser.add_argument("--latents", type=int, default=4096, help="width of the SAE in reward training")
    parser.add_argument("--k", type=int, default=16, help="latents kept by TopK")
    parser.add_argument("--sentences", type=int, default=1000, help="sentences of a harvest")
    parser.add_argument("--rows", type=int, default=64, help="sentences of one padded batch")
    parser.add_argument("--batch-tokens", type=int, default=8192, help="tokens of one of our forward passes in the harvest")
    options = parser.parse_args()
    # The harvest's model: twice as deep as what is kept, of the same width.
    options.layers, options.harvest_hidden = 2 * options.layer, options.hidden or 256
    return options


def main() -> None:
    """Both tables."""
    options = parse_options()
    torch.set_num_threads(options.threads)
    print(conditions(options.repeats))
    units = options.steps * options.batch_pairs
    print(table(reward_trials(options), units=units, unit="pairs"), flush=True)
    options.hidden = options.harvest_hidden
    options.intermediate, options.heads = options.hidden * 11 // 4, options.hidden // 64
    print(f"harvest: random Llama, hidden {options.hidden}, states after block {options.layer} of {options.layers}")
    print(table(harvest_trials(options), units=options.sentences, unit="sentences"))


if __name__ == "__main__":
    main()
