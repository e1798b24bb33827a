"""How many tokens one pass should hold on this machine: harvest, scoring and reward step of the English model at several sizes.

    python benchmarks/pass_tokens.py --data "$SARM_DATA" --threads 1

`resources.micro_batch_tokens` and `scoring.batch_tokens` are these sizes. A GPU wants large passes; a CPU's caches want small ones.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path

import torch
from harvest import real_sentences
from interleaved import assert_agree, conditions, measure, parser_of, report
from reward_problem import write_problem
from reward_ways import training_of
from scoring import our_rewards, real_rows
from torch import Tensor

from sarm.backbone.harvest import Harvest
from sarm.checkpoints.backbones import load_truncated_backbone
from sarm.reward.models import SARM
from sarm.sae.model import TopKSAE

Ways = Mapping[int, Callable[[], Tensor]]
TOLERANCE = 1e-4


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = parser_of(__doc__, repeats=5)
    data = os.environ.get("SARM_DATA")
    parser.add_argument("--data", type=Path, default=data, required=data is None, help="folder with preference/, corpus/, models/english4m")
    parser.add_argument("--layer", type=int, default=3, help="blocks kept")
    parser.add_argument("--batch-pairs", type=int, default=32, help="pairs of one optimizer step")
    parser.add_argument("--max-length", type=int, default=384, help="longest conversation in tokens; longer pairs are left out")
    parser.add_argument("--steps", type=int, default=1, help="optimizer steps of one size's turn")
    # What a problem of reward training can also be told, and is the same for every size; the budget is the size itself.
    parser.set_defaults(pairs=None, hidden=0, learning_rate=1e-5, budget=0)
    parser.add_argument("--sizes", default="16384,8192,4096,2048,1024", help="tokens of one pass, by comma")
    parser.add_argument("--ours", type=int, default=2048, help="which of them the others are measured against")
    parser.add_argument("--latents", type=int, default=4096, help="width of the SAE")
    parser.add_argument("--k", type=int, default=12, help="latents kept by TopK")
    parser.add_argument("--sentences", type=int, default=3000, help="sentences of the harvest")
    parser.add_argument("--rows", type=int, default=240, help="completions to score; the real file has 1,352")
    parser.add_argument("--longest", type=int, default=1024, help="tokens of a completion at most")
    options = parser.parse_args()
    options.sizes = [int(size) for size in options.sizes.split(",")]
    if options.ours not in options.sizes:
        parser.error(f"--ours {options.ours} is not among --sizes {options.sizes}")
    return options


def sarm_of(options: argparse.Namespace) -> SARM:
    """The English model's first blocks under a random SAE."""
    backbone = load_truncated_backbone(options.data / "models" / "english4m", layer=options.layer, dtype=torch.float32)
    sae = TopKSAE(hidden_size=int(backbone.config.hidden_size), n_latents=options.latents, k=options.k)
    sae.reset(torch.Generator().manual_seed(options.seed))
    return SARM(backbone, sae).eval()


def harvests(options: argparse.Namespace, model: SARM) -> tuple[Ways, int, str]:
    """Hidden states of a corpus's sentences; gives the ways, tokens, their name."""
    sentences, _ = real_sentences(options.sentences, data=options.data, seed=options.seed)

    def way(size: int) -> Callable[[], Tensor]:
        harvest = Harvest(model.model, [options.layer], batch_tokens=size, device=torch.device("cpu"))
        return lambda: harvest.states(sentences)[options.layer]

    return {size: way(size) for size in options.sizes}, sum(len(one.ids) for one in sentences), "tokens"


def scorings(options: argparse.Namespace, model: SARM) -> tuple[Ways, int, str]:
    """Rewards of real completions."""
    rows = real_rows(options.rows, data=options.data, longest=options.longest)

    def way(size: int) -> Callable[[], Tensor]:
        return torch.inference_mode()(lambda: our_rewards(model, rows, batch_tokens=size))

    return {size: way(size) for size in options.sizes}, sum(len(row) for row in rows), "tokens"


def reward_steps(options: argparse.Namespace, scratch: Path) -> tuple[Ways, int, str]:
    """Optimizer steps of reward training, each size from the same weights; a turn's pairs are those of its number."""
    # A turn more than the rounds and their warm-up: the check.
    turns_too = argparse.Namespace(**{**vars(options), "repeats": options.repeats + 1})
    problem = scratch / "problem"
    print(write_problem(turns_too, problem, latents=options.latents, k=options.k))
    facts = json.loads((problem / "facts.json").read_text(encoding="utf-8"))

    def way(size: int) -> Callable[[], Tensor]:
        (problem / "facts.json").write_text(json.dumps(facts | {"budget": size}), encoding="utf-8")
        training, steps = training_of(problem, "ours", scratch / str(size), options.threads), count()
        return lambda: torch.tensor([training.step(next(steps))["preference_loss"] for _ in range(options.steps)])

    return {size: way(size) for size in options.sizes}, options.steps * options.batch_pairs, "pairs"


def compare(what: str, ways: Ways, units: int, unit: str, *, options: argparse.Namespace) -> None:
    """Hold that every size computes the same, and time them by turns."""
    ours = ways[options.ours]()
    for size in others(options):
        assert_agree(ours, ways[size](), tolerance=TOLERANCE, what=f"{what}, {size} tokens a pass,")
    named = {f"{what}, {size} tokens a pass": way for size, way in ways.items()}
    print(report(measure(named, repeats=options.repeats), ours=f"{what}, {options.ours} tokens a pass", units=units, unit=unit), flush=True)


def others(options: argparse.Namespace) -> Sequence[int]:
    """The sizes that ours is compared with."""
    return [size for size in options.sizes if size != options.ours]


def main() -> None:
    """The three kinds of work, one after the other."""
    options = parse_options()
    torch.set_num_threads(options.threads)
    model = sarm_of(options)
    print(conditions(options.repeats))
    for what, parts in (("harvest", harvests), ("scoring", scorings)):
        compare(what, *parts(options, model), options=options)
    with tempfile.TemporaryDirectory() as scratch:
        compare("reward step", *reward_steps(options, Path(scratch)), options=options)


if __name__ == "__main__":
    main()
