"""Rows a second of our two ways of scoring against a loop over padded batches of fixed size in the data set's order.

    python benchmarks/scoring.py                                        made-up items of four completions, random blocks
    python benchmarks/scoring.py --data "$SARM_DATA"                    the real RewardBench 2 Safety rows, the English model
    python benchmarks/scoring.py --data "$SARM_DATA" --model random ... the real rows, random blocks of the sizes given
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from interleaved import assert_agree, conditions, measure, parser_of, report
from torch import Tensor
from transformers import LlamaConfig

from sarm.backbone.decoder import truncated_backbone
from sarm.checkpoints.backbones import load_tokenizer, load_truncated_backbone
from sarm.data.pairs import conversation
from sarm.data.sources import Place, rewardbench2_preference
from sarm.data.tokens import ConversationTokenizer, token_budget_batches
from sarm.reward.models import SARM
from sarm.sae.model import TopKSAE
from sarm.scoring.inference import RowBatch, score_rows
from sarm.scoring.shared_rows import chunks_of_groups, computed_tokens, score_chunk

MEAN_LOG_PROMPT, MEAN_LOG_LENGTH, SPREAD_LOG_LENGTH = 4.1, 5.3, 0.8
SIMILAR = "similar lengths: token budget, pooled"
SHARED = "shared prompts: the same, each prompt once"
# An item's completions stand together: one chosen and three rejected, as outside Ties.
COMPLETIONS = 4


def made_up_rows(count: int, *, vocabulary: int, longest: int, seed: int) -> list[list[int]]:
    """Random ids: items of four rows with a common prompt; lengths are log-normal, prompts around 60 tokens, replies around 200."""
    draw = random.Random(seed)

    def words(mean: float) -> list[int]:
        return [draw.randrange(vocabulary) for _ in range(min(longest // 2, max(8, round(draw.lognormvariate(mean, SPREAD_LOG_LENGTH)))))]

    rows = []
    for _ in range(0, count, COMPLETIONS):
        prompt = words(MEAN_LOG_PROMPT)
        rows += [prompt + words(MEAN_LOG_LENGTH) for _ in range(COMPLETIONS)]
    return rows[:count]


def real_rows(count: int, *, data: Path, longest: int) -> list[list[int]]:
    """The completions of the Safety rows in the file's order, as the English model's conversations."""
    tokenizer = ConversationTokenizer(load_tokenizer(data / "models" / "english4m"))
    turns = []
    for number, line in enumerate((data / "rewardbench2" / "safety.jsonl").read_text(encoding="utf-8").splitlines(), start=1):
        item = rewardbench2_preference(json.loads(line), Place("safety.jsonl", number))
        turns += [conversation(item.prompt, reply) for reply in (*item.chosen, *item.rejected)]
    names = [f"completion {number}" for number in range(len(turns))]
    # An overlong row loses its end here and not its beginning: items must go on to share their prompt.
    rows = tokenizer.encode_many(turns[:count], max_length=10**9, names=names[:count])
    return [row.ids[:longest] for row in rows]


def build_model(options: argparse.Namespace) -> SARM:
    """A SARM with a random SAE and head on the English model of the data folder, or on random blocks of the same size."""
    torch.manual_seed(options.seed)
    if options.model == "random":
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


def shared_rewards(model: SARM, rows: Sequence[Sequence[int]], *, batch_tokens: int) -> Tensor:
    """Rewards `[rows]` with each item's prompt computed once."""
    rewards = torch.empty(len(rows))
    for chunk in chunks_of_groups(rows, groups_of(rows), batch_tokens=batch_tokens):
        for batch in score_chunk(model, rows, chunk, pad_id=0, batch_tokens=batch_tokens, first_masked=False):
            rewards[batch.indices] = batch.rewards
    return rewards


def groups_of(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """The rows of each item."""
    return [list(range(start, min(start + COMPLETIONS, len(rows)))) for start in range(0, len(rows), COMPLETIONS)]


def padding_share(lengths: Sequence[int], batches: Iterable[Sequence[int]]) -> float:
    """Share of the positions of padded batches of row numbers that hold no token."""
    return 1 - sum(lengths) / sum(max(lengths[row] for row in batch) * len(batch) for batch in batches)


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = parser_of(__doc__, repeats=5)
    parser.add_argument("--hidden", type=int, default=256, help="width of the residual stream (random blocks)")
    parser.add_argument("--intermediate", type=int, default=704, help="width inside the MLP (random blocks)")
    parser.add_argument("--heads", type=int, default=4, help="attention heads (random blocks)")
    parser.add_argument("--vocabulary", type=int, default=4096, help="size of the vocabulary (random blocks)")
    parser.add_argument("--layer", type=int, default=2, help="blocks kept")
    parser.add_argument("--latents", type=int, default=4096, help="width of the SAE")
    parser.add_argument("--k", type=int, default=12, help="latents kept by TopK")
    parser.add_argument("--rows", type=int, default=600, help="completions in all; the real file has 1,352")
    parser.add_argument("--longest", type=int, default=1024, help="tokens at most; longer ones lose their beginning")
    parser.add_argument("--batch", type=int, default=8, help="rows of a fixed batch")
    parser.add_argument("--batch-tokens", type=int, default=16384, help="padded tokens of one of our forward passes")
    parser.add_argument("--model", choices=("english4m", "random"), default="", help="english4m with --data, else random")
    parser.add_argument("--data", type=Path, default=os.environ.get("SARM_DATA"), help="folder with rewardbench2/, models/english4m")
    options = parser.parse_args()
    options.model = options.model or ("english4m" if options.data is not None else "random")
    return options


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
        SIMILAR: lambda: our_rewards(model, rows, batch_tokens=options.batch_tokens),
        SHARED: lambda: shared_rewards(model, rows, batch_tokens=options.batch_tokens),
    }
    for other in (every, pooled, SIMILAR):
        assert_agree(ways[SHARED](), ways[other](), tolerance=1e-4, what=f"rewards ({other})")
    lengths = [len(row) for row in rows]
    in_order = [range(len(rows))[start : start + options.batch] for start in range(0, len(rows), options.batch)]
    padding = padding_share(lengths, in_order), padding_share(lengths, token_budget_batches(lengths, options.batch_tokens))
    kind = "made-up" if options.data is None else "real"
    print(f"{len(rows)} {kind} rows, {sum(lengths) / len(lengths):.0f} tokens each, {max(lengths)} at most")
    print(f"layer {options.layer}, hidden {model.sae.hidden_size}, {options.latents} latents, k {options.k}")
    print(f"padding {padding[0]:.0%} of the fixed batches, {padding[1]:.1%} of similar lengths")
    print(f"prompts once: {computed_tokens(rows, groups_of(rows)) / sum(lengths):.0%} of the tokens")
    print(conditions(options.repeats))
    measured = measure(ways, repeats=options.repeats)
    for ours in (SIMILAR, SHARED):
        print(report(measured, ours=ours, units=len(rows), unit="rows"))


if __name__ == "__main__":
    main()
