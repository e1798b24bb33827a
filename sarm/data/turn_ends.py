"""Which token ends a turn: the one with which a chat template closes a reply, whatever the tokenizer calls its end of text."""

from __future__ import annotations

from typing import Any, NamedTuple

# A reply that no template writes by itself, and that ends in no token of a template.
PROBE = "zqzqz"


class Advice(NamedTuple):
    """What to do about a tokenizer, in the words of whoever opens it: a profile's keys only where there is a profile."""

    chat_template: str
    pad_token: str
    end_of_turn: str


def _in_profile(key: str) -> str:
    return f"in the folder's tokenizer_config.json (in a profile: backbones.<slot>.{key})"


IN_PROFILE = Advice(
    chat_template="put chat_template.jinja into the folder (in a profile: backbones.<slot>.chat_template)",
    pad_token=f"set pad_token {_in_profile('pad_token')}",
    end_of_turn=f"set eos_token {_in_profile('end_of_turn')}",
)
ON_COMMAND_LINE = Advice(
    chat_template="put chat_template.jinja into the folder",
    pad_token="set pad_token in the folder's tokenizer_config.json",
    end_of_turn="give --end-of-turn TOKEN, or --pooling last-token",
)
IN_PYTHON = Advice(
    chat_template="put chat_template.jinja into the folder",
    pad_token="set pad_token in the folder's tokenizer_config.json",
    end_of_turn="set eos_token in the folder's tokenizer_config.json to the token that closes a turn",
)


def end_of_turn_in(tokenizer: Any, closing: str) -> int | None:
    """Id of the token that ends a turn, from what a template writes after a reply: eos if it is there, else the first special token.

    None where the template closes turns with plain text or with nothing.
    """
    ids = tokenizer(closing, add_special_tokens=False)["input_ids"] if closing else []
    if tokenizer.eos_token_id in ids:
        return int(tokenizer.eos_token_id)
    added = getattr(tokenizer, "added_tokens_decoder", {})
    special = {*tokenizer.all_special_ids, *(number for number, token in added.items() if token.special)}
    # What stands for unknown text, or opens one, closes nothing.
    special -= {tokenizer.unk_token_id, tokenizer.bos_token_id}
    return next((int(number) for number in ids if number in special), None)
