"""Reward training: pairs a second and memory of ours against TRL's RewardTrainer and a plain loop of transformers' Trainer.

    python benchmarks/reward_step.py --data "$SARM_DATA"                           the English model of 4 million parameters, 2 of 4 blocks
    python benchmarks/reward_step.py --data "$SARM_DATA" --hidden 512 --layer 8    a random Llama, larger

All train the same cut sequence classifier on the same pairs in the same order, each in a process of its own, by turns. The peers are
installed once into an environment of their own under `--venv`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
import transformers
from environments import HERE, python_with, variables
from interleaved import BYTES_PER_MIB, Trial, conditions, parser_of, report
from reward_problem import add_options, write_problem
from worker import Worker, by_turns

TRL = "trl==1.16.0"
OURS, TRAINER, PEER = "ours", "hf", "trl"
# Of the relative difference of losses: rounding alone, at a learning rate at which it stays small.
TOLERANCE = 1e-4


@contextmanager
def workers(options: argparse.Namespace, folder: Path) -> Iterator[Mapping[str, Worker]]:
    """A waiting process for each way."""
    own, theirs = variables(options.threads)
    started = {OURS: ([sys.executable, str(HERE / "reward_ways.py"), "ours"], own)}
    if options.peers:
        python = str(python_with(TRL, options.venv, ours=[f"transformers=={transformers.__version__}"]))
        started |= {name: ([python, str(HERE / "reward_peers.py"), name], theirs) for name in (TRAINER, PEER)}
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(Worker(command, folder, threads=options.threads, environment=environment))
            for name, (command, environment) in started.items()
        }


def assert_losses_agree(losses: Mapping[str, list[float]], reference: str) -> None:
    """Every way lost the same at each step. Raises AssertionError that names the way."""
    for name, theirs in losses.items():
        worst = max(abs(a - b) / abs(b) for a, b in zip(theirs, losses[reference], strict=True))
        if not worst <= TOLERANCE:
            raise AssertionError(f"losses of {name} differ from those of {reference} by {worst:.1e}")
        if name != reference:
            print(f"losses of {name} equal those of {reference} within {worst:.1e} over {len(theirs)} steps")


def memory_report(trials: Mapping[str, list[Trial]]) -> str:
    """Largest memory of each process above what importing and the data took, and ours as a share of it."""
    peaks = {name: max((run.growth or 0) for run in runs) for name, runs in trials.items()}
    lines = []
    for name, peak in peaks.items():
        share = "" if name == OURS or not peak else f"; ours is {peaks[OURS] / peak:.0%} of it"
        lines.append(f"{name}: {peak / BYTES_PER_MIB:.0f} MiB above imports{share}")
    return "\n".join(lines)


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = parser_of(__doc__, repeats=5)
    add_options(parser)
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True, help="compare with TRL and the Trainer")
    parser.add_argument("--peer-checkpointing", action="store_true", help="let the peers recompute activations (TRL's default)")
    default = Path(tempfile.gettempdir()) / "reward-step-trl"
    parser.add_argument("--venv", type=Path, default=default, help="folder for TRL's own environment; kept for the next time")
    return parser.parse_args()


def main() -> None:
    """Time all ways by turns, and hold that they lose the same."""
    options = parse_options()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as scratch:
        print(write_problem(options, Path(scratch), checkpointing=options.peer_checkpointing), flush=True)
        with workers(options, Path(scratch)) as started:
            trials, losses = by_turns(started, steps=options.steps, repeats=options.repeats)
    print(conditions(options.repeats))
    assert_losses_agree(losses, reference=OURS)
    print(f"loss {statistics.fmean(losses[OURS]):.4f} on average")
    print(report(trials, ours=OURS, units=options.steps * options.batch_pairs, unit="pairs"))
    print(memory_report(trials))


if __name__ == "__main__":
    main()
