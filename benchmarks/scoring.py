"""Rows a second of `score_rows` against a loop over padded batches of fixed size in the data set's order.

    python benchmarks/scoring.py                        rows of made-up lengths
    python benchmarks/scoring.py --data "$SARM_DATA"    the completions of the real RewardBench 2 Safety rows
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from interleaved import assert_agree, conditions, measure, report
from torch import Tensor
from transformers import LlamaConfig

from sarm.checkpoints import load_tokenizer, load_truncated_backbone
from sarm.data.pairs import conversation
from sarm.data.sources import Place, rewardbench2_preference
from sarm.data.tokens import ConversationTokenizer, token_budget_batches
from sarm.inference import RowBatch, score_rows
from sarm.model import SARM, truncated_backbone
from sarm.sae import TopKSAE

MEAN_LOG_LENGTH, SPREAD_LOG_LENGTH = 5.3, 0.8
OURS = "score_rows: token budget, pooled"


def made_up_rows(count: int, *, vocabulary: int, longest: int, seed: int) -> list[list[int]]:
    """Random ids whose lengths are log-normal around 200 tokens."""
    draw = random.Random(seed)
    lengths = [min(longest, max(8, round(draw.lognormvariate(MEAN_LOG_LENGTH, SPREAD_LOG_LENGTH)))) for _ in range(count)]
    return [[draw.randrange(vocabulary) for _ in range(length)] for length in lengths]


def real_rows(count: int, *, data: Path, longest: int) -> list[list[int]]:
    """The completions of the Safety rows in the file's order, as the English model's conversations."""
    tokenizer = ConversationTokenizer(load_tokenizer(data / "models" / "english4m"))
    turns = []
    for number, line in enumerate((data / "rewardbench2" / "safety.jsonl").read_text(encoding="utf-8").splitlines(), start=1):
        item = rewardbench2_preference(json.loads(line), Place("safety.jsonl", number))
        turns += [conversation(item.prompt, reply) for reply in (*item.chosen, *item.rejected)]
    names = [f"completion {number}" for number in range(len(turns))]
    return [row.ids for row in tokenizer.encode_many(turns[:count], max_length=longest, names=names[:count])]


def build_model(options: argparse.Namespace) -> SARM:
    """A SARM with a random SAE and head on the English model of the data folder, or on random blocks of the same size."""
    torch.manual_seed(options.seed)
    if options.data is None:
        config = LlamaConfig(
            vocab_size=options.vocabulary,
            hidden_size=options.hidden,
            intermediate_size=options.intermediate,
            num_hidden_layers=options.layer,
            num_attention_heads=options.heads,
            num_key_value_heads=max(1, options.heads // 2),
            max_position_embeddings=max(2048, options.longest),
        )
        backbone = truncated_backbone(config, options.layer)
    else:
        backbone = load_truncated_backbone(options.data / "models" / "english4m", layer=options.layer, dtype=torch.float32)
    hidden_size = int(backbone.config.hidden_size)
    sae = TopKSAE(hidden_size=hidden_size, n_latents=options.latents, k=options.k)
    sae.reset(torch.Generator().manual_seed(options.seed))
    return SARM(backbone, sae).eval()


@torch.inference_mode()
def fixed_batches(model: SARM, rows: Sequence[Sequence[int]], *, size: int, everywhere: bool) -> Tensor:
    """Rewards `[rows]` by padded batches of `size` rows in the order given, with an attention mask.

    `everywhere` encodes and scores all positions, `[batch, seq, n_latents]`, and then picks one, as the released code does.
    """
    parts = []
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        longest = max(len(row) for row in batch)
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in batch])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in batch])
        last = torch.tensor([len(row) - 1 for row in batch])
        if everywhere:
            states = model.backbone_states(ids, mask)
            parts.append(model.reward_of(model.features(states))[torch.arange(len(batch)), last])
        else:
            parts.append(model(ids, last, mask).rewards)
    return torch.cat(parts)


def our_rewards(model: SARM, rows: Sequence[Sequence[int]], *, batch_tokens: int) -> Tensor:
    """Rewards `[rows]` by `score_rows`, put back in the order given."""
    rewards = torch.empty(len(rows))

    def take(batch: RowBatch) -> None:
        rewards[batch.indices] = batch.rewards

    score_rows(model, rows, pad_id=0, batch_tokens=batch_tokens, first_masked=False, take=take)
    return rewards


def padding_share(lengths: Sequence[int], batches: Iterable[Sequence[int]]) -> float:
    """Share of the positions of padded batches of row numbers that hold no token."""
    return 1 - sum(lengths) / sum(max(lengths[row] for row in batch) * len(batch) for batch in batches)


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=256, help="width of the residual stream (without --data)")
    parser.add_argument("--intermediate", type=int, default=704, help="width inside the MLP (without --data)")
    parser.add_argument("--heads", type=int, default=4, help="attention heads (without --data)")
    parser.add_argument("--vocabulary", type=int, default=4096, help="size of the vocabulary (without --data)")
    parser.add_argument("--layer", type=int, default=2, help="blocks kept")
    parser.add_argument("--latents", type=int, default=4096, help="width of the SAE")
    parser.add_argument("--k", type=int, default=12, help="latents kept by TopK")
    parser.add_argument("--rows", type=int, default=600, help="completions in all; the real file has 1,352")
    parser.add_argument("--longest", type=int, default=1024, help="tokens at most; longer ones lose their beginning")
    parser.add_argument("--batch", type=int, default=8, help="rows of a fixed batch")
    parser.add_argument("--batch-tokens", type=int, default=16384, help="padded tokens of one of our forward passes")
    parser.add_argument("--repeats", type=int, default=5, help="measured rounds")
    parser.add_argument("--threads", type=int, default=2, help="torch's threads, for all ways alike")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and rows")
    parser.add_argument("--data", type=Path, default=os.environ.get("SARM_DATA"), help="folder with rewardbench2/, models/english4m")
    return parser.parse_args()


def main() -> None:
    """Check that all ways agree, then time them."""
    options = parse_options()
    torch.set_num_threads(options.threads)
    model = build_model(options)
    if options.data is None:
        rows = made_up_rows(options.rows, vocabulary=options.vocabulary, longest=options.longest, seed=options.seed)
    else:
        rows = real_rows(options.rows, data=options.data, longest=options.longest)
    every, pooled = (f"{options.batch} rows, SAE at {where}" for where in ("every position", "the scored token"))
    ways = {
        every: lambda: fixed_batches(model, rows, size=options.batch, everywhere=True),
        pooled: lambda: fixed_batches(model, rows, size=options.batch, everywhere=False),
        OURS: lambda: our_rewards(model, rows, batch_tokens=options.batch_tokens),
    }
    for other in (every, pooled):
        assert_agree(ways[OURS](), ways[other](), tolerance=1e-4, what=f"rewards ({other})")
    lengths = [len(row) for row in rows]
    in_order = [range(len(rows))[start : start + options.batch] for start in range(0, len(rows), options.batch)]
    padding = padding_share(lengths, in_order), padding_share(lengths, token_budget_batches(lengths, options.batch_tokens))
    kind = "made-up" if options.data is None else "real"
    print(f"{len(rows)} {kind} rows, {sum(lengths) / len(lengths):.0f} tokens each, {max(lengths)} at most")
    print(f"layer {options.layer}, hidden {model.sae.hidden_size}, {options.latents} latents, k {options.k}")
    print(f"padding {padding[0]:.0%} of the fixed batches, {padding[1]:.1%} of ours")
    print(conditions(options.repeats))
    print(report(measure(ways, repeats=options.repeats), ours=OURS, units=len(rows), unit="rows"))


if __name__ == "__main__":
    main()
