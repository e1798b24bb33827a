"""The pairs, the model and the settings that every way of `reward_step.py` and `ablation.py` trains on, as a folder of files."""

from __future__ import annotations

import argparse
import json
import os
from itertools import islice
from pathlib import Path

import torch
from reward_ways import settings_of
from transformers import AutoConfig, LlamaConfig, LlamaForSequenceClassification, PretrainedConfig

from sarm.backbone.decoder import truncated_config
from sarm.checkpoints.backbones import copy_tokenizer, load_tokenizer, load_truncated_backbone
from sarm.data.pairs import EncodedPair, encode_pairs
from sarm.data.sources import Place, preference_pair
from sarm.data.tokens import ConversationTokenizer
from sarm.jobs.train.reward import batches_of
from sarm.reward.shared_prefix import shared_length


def add_options(parser: argparse.ArgumentParser) -> None:
    """Sizes of the problem, on the command line."""
    data = os.environ.get("SARM_DATA")
    parser.add_argument("--data", type=Path, default=data, required=data is None, help="folder with preference/, models/english4m")
    parser.add_argument("--pairs", type=Path, help="JSONL of pairs to take instead of the folder's (prompt, chosen, rejected)")
    parser.add_argument("--hidden", type=int, default=0, help="width of a random model; 0 takes the folder's English model of 4 million")
    parser.add_argument("--layer", type=int, default=2, help="blocks kept")
    parser.add_argument("--batch-pairs", type=int, default=8, help="pairs of one optimizer step")
    parser.add_argument("--max-length", type=int, default=512, help="longest conversation in tokens; longer pairs are left out")
    parser.add_argument("--budget", type=int, default=4096, help="tokens of one of our forward passes")
    parser.add_argument("--learning-rate", type=float, default=1e-5, help="AdamW's")
    parser.add_argument("--steps", type=int, default=2, help="optimizer steps of one way's turn")


def random_config(hidden: int, layers: int, vocabulary: int) -> PretrainedConfig:
    """A Llama of that width: heads of 64, half as many for keys and values, an MLP of 11/4 the width."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=hidden * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=max(1, hidden // 128),
        max_position_embeddings=2048,
    )


def read_pairs(options: argparse.Namespace, tokenizer: ConversationTokenizer) -> list[EncodedPair]:
    """The first pairs of the file that are short enough, as many as all turns need."""
    file = options.pairs or options.data / "preference" / "pairs.jsonl"
    needed = (options.repeats + 1) * options.steps * options.batch_pairs
    encoded: list[EncodedPair] = []
    with file.open(encoding="utf-8") as lines:
        numbered = enumerate(lines, start=1)
        # By pieces, since few of a file's pairs may be so short, and all of a large file would take long to encode.
        while len(encoded) < needed and (taken := list(islice(numbered, 4 * needed))):
            pairs = [preference_pair(json.loads(line), Place(file.name, number)) for number, line in taken]
            encoded += encode_pairs(pairs, tokenizer, max_length=options.max_length, overlong="drop")[0]
    if len(encoded) < needed:
        raise SystemExit(f"{file.name}: {len(encoded)} of its pairs fit --max-length; {needed} are needed")
    return encoded[:needed]


def save_model(options: argparse.Namespace, folder: Path, tokenizer: ConversationTokenizer) -> None:
    """A sequence classifier of the kept blocks with a random head, and the tokenizer."""
    source = options.data / "models" / "english4m"
    config = AutoConfig.from_pretrained(source)
    if options.hidden:
        config = random_config(options.hidden, options.layer, len(tokenizer.tokenizer))
    cut = truncated_config(config, options.layer)
    cut.num_labels, cut.pad_token_id = 1, tokenizer.pad_id
    torch.manual_seed(options.seed)
    model = LlamaForSequenceClassification(cut)
    if not options.hidden:
        backbone = load_truncated_backbone(source, layer=options.layer, dtype=torch.float32, keep_final_norm=True)
        model.model.load_state_dict(backbone.state_dict())
    model.save_pretrained(folder / "model")
    copy_tokenizer(source, folder / "model")


def write_problem(options: argparse.Namespace, folder: Path, *, latents: int = 0, k: int = 0, checkpointing: bool = False) -> str:
    """Write the folder; returns what it holds in one line."""
    tokenizer = ConversationTokenizer(load_tokenizer(options.data / "models" / "english4m"))
    pairs = read_pairs(options, tokenizer)
    save_model(options, folder, tokenizer)
    names = ("layer", "batch_pairs", "learning_rate", "max_length", "budget", "seed")
    facts = {name: getattr(options, name) for name in names}
    facts |= {"latents": latents, "k": k, "pad_id": tokenizer.pad_id, "peer_checkpointing": checkpointing, "rows_at_once": 2}
    facts["order"] = [number for step in batches_of(len(pairs), settings_of(facts)) for number in step]
    facts["pairs"] = [[pair.chosen, pair.rejected] for pair in pairs]
    (folder / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
    return describe(options, pairs, facts["order"])


def describe(options: argparse.Namespace, pairs: list[EncodedPair], order: list[int]) -> str:
    """Sizes, and tokens a pair: real, with each prefix once, and with the padding of whole batches."""
    longest = [max(len(pair.chosen), len(pair.rejected)) for pair in pairs]
    batches = [order[start : start + options.batch_pairs] for start in range(0, len(order), options.batch_pairs)]
    padded = sum(2 * len(batch) * max(longest[number] for number in batch) for batch in batches) / len(order)
    real = sum(len(pair.chosen) + len(pair.rejected) for pair in pairs) / len(pairs)
    once = sum(shared_length(pair) for pair in pairs) / len(pairs)
    model = f"random Llama, hidden {options.hidden}" if options.hidden else "English model of 4 million"
    return (
        f"{model}, {options.layer} blocks; {options.batch_pairs} pairs a step; tokens a pair: "
        f"{padded:.0f} padded, {real:.0f} real, {once:.0f} with each prompt once"
    )
