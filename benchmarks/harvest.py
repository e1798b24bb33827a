"""Tokens a second of our harvest of hidden states against the whole model run with `output_hidden_states=True` on padded batches.

    python benchmarks/harvest.py                        a random Llama, sentences of made-up lengths
    python benchmarks/harvest.py --data "$SARM_DATA"    the sentences of a real corpus
"""

from __future__ import annotations

import argparse
import os
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from interleaved import assert_agree, conditions, measure, parser_of, report
from torch import Tensor
from transformers import LlamaConfig, LlamaModel, PreTrainedModel

from sarm.backbone.decoder import truncated_backbone
from sarm.backbone.harvest import Harvest
from sarm.checkpoints.backbones import load_tokenizer
from sarm.data.sentences import Corpus, Cursor, SentenceStream, SequenceRules, TextSequence
from sarm.data.splitters import splitter

MEAN_LOG_LENGTH, SPREAD_LOG_LENGTH = 2.87, 0.5
RULES = SequenceRules(tokens="last", context="sentence", min_tokens=3, max_tokens=96, latin1_only=False)
OURS, CUT, WHOLE = "harvest: cut, packed, trimmed", "cut model, padded batches", "whole model, padded batches"


def made_up_sentences(count: int, *, vocabulary: int, seed: int) -> list[TextSequence]:
    """Random ids whose lengths are log-normal around 20 tokens, as English sentences are."""
    draw = random.Random(seed)
    sentences = []
    for number in range(count):
        length = min(RULES.max_tokens, max(RULES.min_tokens, round(draw.lognormvariate(MEAN_LOG_LENGTH, SPREAD_LOG_LENGTH))))
        ids = [draw.randrange(vocabulary) for _ in range(length)]
        sentences.append(TextSequence(ids, [length - 1], number))
    return sentences


def real_sentences(count: int, *, data: Path, seed: int) -> tuple[list[TextSequence], int]:
    """Sentences of the data folder's corpus under its own English tokenizer, and the size of the vocabulary."""
    tokenizer = load_tokenizer(data / "models" / "english4m")
    stream = SentenceStream(Corpus(data / "corpus" / "text.jsonl"), tokenizer, RULES, split=splitter("nupunkt"), seed=seed)
    sentences, _ = stream.take(Cursor(0, 0), count)
    return sentences[:count], len(tokenizer)


def build_models(options: argparse.Namespace, vocabulary: int) -> tuple[PreTrainedModel, PreTrainedModel]:
    """The whole model with random weights, and the same weights cut after `--layer`."""
    torch.manual_seed(options.seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=options.hidden,
        intermediate_size=options.intermediate,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        num_key_value_heads=max(1, options.heads // 2),
        max_position_embeddings=512,
    )
    config._attn_implementation = "sdpa"
    whole = LlamaModel(config).eval()
    cut = truncated_backbone(config, options.layer).eval()
    weights = whole.state_dict()
    cut.load_state_dict({name: weights[name] for name in cut.state_dict()})
    return whole, cut


@torch.inference_mode()
def padded_states(model: PreTrainedModel, sentences: Sequence[TextSequence], *, layer: int | None, rows: int) -> Tensor:
    """Last-token states `[sentences, hidden_size]` by batches of `rows` sentences in the order of the text, padded on the right.

    `layer` picks from the list of all hidden states, as the usual harvesters do; None takes the cut model's output.
    """
    parts = []
    for start in range(0, len(sentences), rows):
        batch = sentences[start : start + rows]
        longest = max(len(sentence.ids) for sentence in batch)
        ids = torch.tensor([sentence.ids + [0] * (longest - len(sentence.ids)) for sentence in batch])
        mask = torch.tensor([[1] * len(sentence.ids) + [0] * (longest - len(sentence.ids)) for sentence in batch])
        output = model(input_ids=ids, attention_mask=mask, use_cache=False, output_hidden_states=layer is not None)
        states = output.last_hidden_state if layer is None else output.hidden_states[layer]
        parts.append(states[torch.arange(len(batch)), [sentence.kept[0] for sentence in batch]])
    return torch.cat(parts)


def padding_share(sentences: Sequence[TextSequence], rows: int) -> float:
    """Share of the positions of padded batches that hold no token."""
    lengths = [len(sentence.ids) for sentence in sentences]
    padded = sum(max(lengths[start : start + rows]) * len(lengths[start : start + rows]) for start in range(0, len(lengths), rows))
    return 1 - sum(lengths) / padded


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = parser_of(__doc__, repeats=5)
    parser.add_argument("--hidden", type=int, default=256, help="width of the residual stream")
    parser.add_argument("--intermediate", type=int, default=704, help="width inside the MLP")
    parser.add_argument("--layers", type=int, default=8, help="blocks of the whole model")
    parser.add_argument("--layer", type=int, default=4, help="block after which the states are read, below --layers")
    parser.add_argument("--heads", type=int, default=4, help="attention heads; half as many key and value heads")
    parser.add_argument("--vocabulary", type=int, default=4096, help="size of the vocabulary of made-up sentences")
    parser.add_argument("--sentences", type=int, default=4000, help="sentences in all")
    parser.add_argument("--rows", type=int, default=64, help="sentences of one padded batch (the released code takes 64)")
    parser.add_argument("--batch-tokens", type=int, default=8192, help="tokens of one of our forward passes")
    parser.add_argument("--data", type=Path, default=os.environ.get("SARM_DATA"), help="data folder with corpus/ and models/english4m")
    options = parser.parse_args()
    if not 1 <= options.layer < options.layers:
        # transformers norms the last of its hidden states, so that one would not be the residual stream.
        parser.error(f"--layer {options.layer} must lie between 1 and --layers - 1 = {options.layers - 1}")
    return options


def main() -> None:
    """Check that all ways agree, then time them."""
    options = parse_options()
    torch.set_num_threads(options.threads)
    if options.data is None:
        sentences, vocabulary = made_up_sentences(options.sentences, vocabulary=options.vocabulary, seed=options.seed), options.vocabulary
    else:
        sentences, vocabulary = real_sentences(options.sentences, data=options.data, seed=options.seed)
    whole, cut = build_models(options, vocabulary)
    harvest = Harvest(cut, [options.layer], batch_tokens=options.batch_tokens, device=torch.device("cpu"))
    ways = {
        WHOLE: lambda: padded_states(whole, sentences, layer=options.layer, rows=options.rows),
        CUT: lambda: padded_states(cut, sentences, layer=None, rows=options.rows),
        OURS: lambda: harvest.states(sentences)[options.layer],
    }
    for other in (WHOLE, CUT):
        assert_agree(ways[OURS](), ways[other](), tolerance=1e-4, what=f"hidden states ({other})")
    tokens = sum(len(sentence.ids) for sentence in sentences)
    kind, padding = "made-up" if options.data is None else "real", padding_share(sentences, options.rows)
    print(f"{len(sentences)} {kind} sentences, {tokens / len(sentences):.1f} tokens each; layer {options.layer} of {options.layers}")
    print(f"hidden {options.hidden}; padding {padding:.0%} of {options.rows}-row batches")
    print(conditions(options.repeats))
    print(report(measure(ways, repeats=options.repeats), ours=OURS, units=tokens, unit="tokens"))


if __name__ == "__main__":
    main()
