"""The miniature's tokenizer: one token a word or mark, with special tokens and a chat template in the manner of Llama 3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

BOS, END_OF_TEXT = "<|begin_of_text|>", "<|end_of_text|>"
START_HEADER, END_HEADER = "<|start_header_id|>", "<|end_header_id|>"
END_OF_TURN, PAD, UNKNOWN = "<|eot_id|>", "<|pad|>", "<|unk|>"
SPECIAL_TOKENS = (BOS, END_OF_TEXT, START_HEADER, END_HEADER, END_OF_TURN, PAD, UNKNOWN)

CHAT_TEMPLATE = (
    "{{- bos_token }}\n"
    "{%- for message in messages %}\n"
    "    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n"
    "    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}\n"
    "{%- endif %}\n"
)


def build_tokenizer(words: Sequence[str]) -> Tokenizer:
    """A word-level tokenizer over `words` (marks among them), specials first.

    `encode` puts one BOS before; white space is not kept, so that text with single spaces and no space before a mark
    is decoded as it was. A foreign word becomes `<|unk|>`, which no text of the miniature contains.
    """
    vocabulary = {token: index for index, token in enumerate((*SPECIAL_TOKENS, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocab=vocabulary, unk_token=UNKNOWN))
    marks = pre_tokenizers.Split(Regex(r'--|[.,?!;:"#*]'), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), marks])
    # WordPiece joins tokens by spaces and takes away those before . , ? !; its prefix never occurs.
    join = decoders.WordPiece(prefix="@@", cleanup=True)
    tokenizer.decoder = decoders.Sequence([join, decoders.Replace(" ;", ";"), decoders.Replace(" :", ":")])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B:1", special_tokens=[(BOS, vocabulary[BOS])]
    )
    return tokenizer


def tokenizer_settings(max_length: int) -> dict[str, Any]:
    """`tokenizer_config.json`: which special token plays which part."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": END_OF_TURN,
        "pad_token": PAD,
        "unk_token": UNKNOWN,
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_length,
        "padding_side": "right",
        "model_input_names": ["input_ids", "attention_mask"],
    }
