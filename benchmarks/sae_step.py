"""Training steps of one TopK SAE: ours against a dense PyTorch loop and EleutherAI sparsify, and what the floor leaves.

    python benchmarks/sae_step.py                                          hidden 256, 4,096 latents, k 16, batch 512
    python benchmarks/sae_step.py --hidden 1024 --latents 16384 --k 48     larger
    python benchmarks/sae_step.py --ablation                               each saving alone, and all but each

Every way lives in a process of its own, trains the same SAE on the same batches, and works when it is asked to, by turns.
sparsify is installed once into an environment of its own under `--venv`.
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
from environments import HERE, python_with, variables
from interleaved import Trial, conditions, parser_of, report
from sae_ways import PARTS, SAVINGS
from worker import Problem, Worker, by_turns, save_problem

from sarm.sae.model import TopKSAE, standardize

SPARSIFY = "eai-sparsify==1.3.3"
OURS, DENSE, PEER = "ours", "dense", "sparsify"
FLOOR = "floor:"
# Of the relative difference of losses: in the first steps rounding alone; later TopK's choices drift apart with it.
FIRST_TOLERANCE, LATER_TOLERANCE = 1e-4, 2e-2


def make_problem(options: argparse.Namespace) -> Problem:
    """Standardised sparse sums of random directions, and an SAE's initial weights."""
    draw = torch.Generator().manual_seed(options.seed)
    directions = torch.randn(4 * options.hidden, options.hidden, generator=draw)
    batches = []
    for _ in range(options.batches):
        strength = torch.rand(options.batch, len(directions), generator=draw)
        present = torch.rand(strength.shape, generator=draw) < 8 / len(directions)
        noise = 0.1 * torch.randn(options.batch, options.hidden, generator=draw)
        batches.append(standardize((strength * present) @ directions + noise).values)
    sae = TopKSAE(hidden_size=options.hidden, n_latents=options.latents, k=options.k)
    sae.reset(draw)
    weights = {name: value.clone() for name, value in sae.state_dict().items()}
    return Problem(torch.stack(batches), weights, options.k, options.learning_rate, options.unit_norm_every)


def commands(options: argparse.Namespace) -> dict[str, list[str]]:
    """What starts each way's process."""
    names = [DENSE]
    if options.ablation:
        names += ["dense+", *(f"dense+{saving}" for saving in SAVINGS), *(f"ours-{saving}" for saving in SAVINGS), "ours-"]
    names += [*(f"{FLOOR}{part}" for part in PARTS), OURS]
    started = {name: [sys.executable, str(HERE / "sae_ways.py"), name] for name in names}
    if options.sparsify:
        started[PEER] = [str(python_with(SPARSIFY, options.venv)), str(HERE / "sparsify_way.py")]
    return started


@contextmanager
def workers(options: argparse.Namespace) -> Iterator[Mapping[str, Worker]]:
    """A waiting process for each way."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        problem = Path(folder) / "problem.pt"
        save_problem(make_problem(options), problem)
        own, theirs = variables(options.threads)
        yield {
            name: stack.enter_context(Worker(command, problem, threads=options.threads, environment=theirs if name == PEER else own))
            for name, command in commands(options).items()
        }


def assert_losses_agree(losses: Mapping[str, list[float]], *, first: int) -> None:
    """Every way lost the same as the dense loop at each step. Raises AssertionError that names the way."""
    for name, theirs in losses.items():
        if name.startswith(FLOOR) or name == DENSE:
            continue
        differences = [abs(a - b) / abs(b) for a, b in zip(theirs, losses[DENSE], strict=True)]
        worst, later = max(differences[:first]), max(differences)
        if not (worst <= FIRST_TOLERANCE and later <= LATER_TOLERANCE):
            raise AssertionError(f"losses of {name} differ from the dense loop's by {worst:.1e} at first and {later:.1e} later")
        print(f"losses of {name} equal the dense loop's: within {worst:.1e} in the first {first} steps, {later:.1e} in all {len(theirs)}")


def milliseconds(runs: list[Trial], steps: int) -> tuple[float, float]:
    """Median time of a step: on the wall, of the processor."""
    wall, processor = statistics.median(run.seconds for run in runs), statistics.median(run.processor_seconds for run in runs)
    return 1e3 * wall / steps, 1e3 * processor / steps


def floor_report(trials: Mapping[str, list[Trial]], steps: int) -> str:
    """The parts that no version leaves out, each alone, and how far ours lies above their sum."""
    parts = {part: milliseconds(trials[FLOOR + part], steps) for part in PARTS}
    ours = milliseconds(trials[OURS], steps)
    lines = ["floor, ms a step (wall; processor): " + ", ".join(f"{part} {wall:.2f}; {cpu:.2f}" for part, (wall, cpu) in parts.items())]
    for topk in ("topk", "grouped topk"):
        floor = [parts["encoder"][clock] + parts[topk][clock] + parts["adam"][clock] for clock in range(2)]
        ratios = "; ".join(f"{mine / least:.2f}" for mine, least in zip(ours, floor, strict=True))
        sums, own = (f"{times[0]:.2f}; {times[1]:.2f} ms" for times in (floor, ours))
        lines.append(f"encoder + {topk} + adam = {sums}; ours {own} = {ratios} times that")
    return "\n".join(lines)


def factor(slow: list[Trial], fast: list[Trial]) -> str:
    """How many times faster, round by round: median on the wall; of the processor."""
    rounds = list(zip(slow, fast, strict=True))
    wall = statistics.median(one.seconds / other.seconds for one, other in rounds)
    processor = statistics.median(one.processor_seconds / other.processor_seconds for one, other in rounds)
    return f"{wall:.2f}; {processor:.2f}"


def ablation_report(trials: Mapping[str, list[Trial]]) -> str:
    """Each saving alone on the written-out dense step, and the whole without it."""
    lines = [f"{'saving (wall; processor)':47}  alone: times faster   without it: times slower"]
    for saving, what in SAVINGS.items():
        alone, without = factor(trials["dense+"], trials[f"dense+{saving}"]), factor(trials[f"ours-{saving}"], trials["ours-"])
        lines.append(f"{what:47}  {alone:20}  {without}")
    lines.append(f"{'all':47}  {factor(trials['dense+'], trials['ours-'])}")
    return "\n".join(lines)


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = parser_of(__doc__, repeats=9)
    parser.add_argument("--hidden", type=int, default=256, help="width of the hidden states")
    parser.add_argument("--latents", type=int, default=4096, help="width of the dictionary")
    parser.add_argument("--k", type=int, default=16, help="latents kept by TopK")
    parser.add_argument("--batch", type=int, default=512, help="vectors of a step")
    parser.add_argument("--batches", type=int, default=8, help="different batches, used again in turn")
    parser.add_argument("--steps", type=int, default=10, help="steps of one way's turn")
    parser.add_argument("--learning-rate", type=float, default=5e-4, help="Adam's")
    parser.add_argument("--unit-norm-every", type=int, default=10, help="steps between two renormalisations of the decoder")
    parser.add_argument("--ablation", action="store_true", help="also time each saving alone and all but each")
    parser.add_argument("--sparsify", action=argparse.BooleanOptionalAction, default=True, help="compare with EleutherAI sparsify")
    default = Path(tempfile.gettempdir()) / "sae-step-sparsify"
    parser.add_argument("--venv", type=Path, default=default, help="folder for sparsify's own environment; kept for the next time")
    return parser.parse_args()


def main() -> None:
    """Time all ways by turns, and hold that they lose the same."""
    options = parse_options()
    torch.set_num_threads(options.threads)
    with workers(options) as started:
        trials, losses = by_turns(started, steps=options.steps, repeats=options.repeats)
    sizes = f"hidden {options.hidden}, {options.latents} latents, k {options.k}, batch {options.batch}"
    print(f"{sizes}, float32; {options.steps} steps a turn")
    print(conditions(options.repeats))
    assert_losses_agree(losses, first=options.steps)
    whole = {name: runs for name, runs in trials.items() if name in (DENSE, PEER, OURS)}
    print(report(whole, ours=OURS, units=options.steps * options.batch, unit="vectors"))
    print(floor_report(trials, options.steps))
    if options.ablation:
        print(ablation_report(trials))


if __name__ == "__main__":
    main()
