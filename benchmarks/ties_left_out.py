"""The Ties score without each prompt in turn, from sums, against pooling the other prompts' rows anew for each.

    python benchmarks/ties_left_out.py

Random rewards of prompts with a ref and a tied row; both ways are first compared.
"""

from __future__ import annotations

import torch
from interleaved import assert_agree, conditions, measure, parser_of, report
from torch import Tensor

from sarm.metrics.ties import TiesRow, ties_left_out, ties_prompts, ties_score

OURS, NAIVE = "from sums", "rows pooled anew"
REPLIES = 8


def drawn(prompts: int, seed: int) -> list[TiesRow]:
    """Rows of `prompts` prompts, each with a ref (one correct answer) and a tied row (half of them correct)."""
    rewards = torch.randn(prompts, 2, REPLIES, generator=torch.Generator().manual_seed(seed)).tolist()
    kinds = (("ref", 1), ("tied", REPLIES // 2))
    return [TiesRow(f"{kind}:{n}", right, rewards[n][place]) for place, (kind, right) in enumerate(kinds) for n in range(prompts)]


def main() -> None:
    """Check, time by turns, print the ratio."""
    parser = parser_of(__doc__, repeats=5)
    parser.add_argument("--prompts", type=int, default=200, help="prompts, each left out once")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = drawn(options.prompts, options.seed)

    def naive() -> Tensor:
        kept = ([row for row in rows if row.id.partition(":")[2] != str(number)] for number in range(options.prompts))
        return torch.tensor([ties_score(others).overall for others in kept])

    def ours() -> Tensor:
        return torch.tensor(ties_left_out(ties_prompts(rows)))

    assert_agree(ours(), naive(), tolerance=1e-6, what="scores without each prompt")
    trials = measure({OURS: ours, NAIVE: naive}, repeats=options.repeats)
    print(conditions(options.repeats))
    print(report(trials, ours=OURS, units=options.prompts, unit="scores"))


if __name__ == "__main__":
    main()
