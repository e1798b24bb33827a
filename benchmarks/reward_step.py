"""Reward training: pairs a second and memory of ours against TRL's RewardTrainer and a plain loop of transformers' Trainer.

    python benchmarks/reward_step.py --data "$SARM_DATA"                           the English model of 4 million parameters, 2 of 4 blocks
    python benchmarks/reward_step.py --data "$SARM_DATA" --hidden 512 --layer 8    a random Llama, larger

All train the same cut sequence classifier on the same pairs in the same order, each in a process of its own, by turns. The peers are
installed once into an environment of their own under `--venv`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
import transformers
from interleaved import BYTES_PER_MIB, Trial, conditions, measure, report
from reward_problem import add_options, write_problem
from worker import Worker, way_of

HERE = Path(__file__).resolve().parent
TRL = "trl==1.16.0"
OURS, TRAINER, PEER = "ours", "hf", "trl"
# Of the relative difference of losses: rounding alone, at a learning rate at which it stays small.
TOLERANCE = 1e-4


def environment_of_trl(folder: Path, torch_version: str) -> Path:
    """The Python of a virtual environment with TRL and our versions of torch and transformers; made on first use (minutes)."""
    python, whole = folder / "bin" / "python", folder / "installed"
    pinned = [f"torch=={torch_version}", f"transformers=={transformers.__version__}"]
    wanted = " ".join([TRL, *pinned])
    if whole.exists() and whole.read_text(encoding="utf-8") == wanted:
        return python
    print(f"installing {wanted} into {folder} (once, some minutes)", flush=True)
    venv.create(folder, with_pip=True, clear=True)
    # torch first and pinned, so that the library's own range draws no other build of it.
    for packages in (pinned[:1], [TRL, *pinned]):
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *packages], check=True)
    whole.write_text(wanted, encoding="utf-8")
    return python


def environments(threads: int) -> tuple[dict[str, str], dict[str, str]]:
    """Environment variables of our processes, which find the suite, and of the peers', which do not."""
    theirs = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    theirs |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    theirs.pop("PYTHONPATH", None)
    own = {**theirs, "PYTHONPATH": os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])}
    return own, theirs


@contextmanager
def workers(options: argparse.Namespace, folder: Path) -> Iterator[Mapping[str, Worker]]:
    """A waiting process for each way."""
    own, theirs = environments(options.threads)
    started = {OURS: ([sys.executable, str(HERE / "reward_ways.py"), "ours"], own)}
    if options.peers:
        python = str(environment_of_trl(options.venv, torch.__version__.partition("+")[0]))
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
            losses: dict[str, list[float]] = {name: [] for name in started}
            ways = {name: way_of(worker, options.steps, losses[name]) for name, worker in started.items()}
            trials = measure(ways, repeats=options.repeats)
    print(conditions(options.repeats))
    assert_losses_agree(losses, reference=OURS)
    print(f"loss {statistics.fmean(losses[OURS]):.4f} on average")
    print(report(trials, ours=OURS, units=options.steps * options.batch_pairs, unit="pairs"))
    print(memory_report(trials))


if __name__ == "__main__":
    main()
