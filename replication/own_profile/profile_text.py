"""The profile as commented TOML."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from replication.own_profile.findings import Findings
from replication.own_profile.shares import Counterparts
from replication.own_profile.training import Sized
from replication.settings.profiles import Backbone, Counterpart, HubBackbone, Shape, Slot
from sarm.metrics.rewardbench2 import REWARDBENCH2_SUBSETS
from sarm.metrics.rmbench import RMBENCH_DOMAINS

SUBSETS: Mapping[str, tuple[str, ...]] = {"rewardbench2": REWARDBENCH2_SUBSETS, "rmbench": RMBENCH_DOMAINS}
BARE = re.compile(r"[A-Za-z0-9_-]+")
WHY_NOT = "one model stands for both of the paper's, on other texts and pairs; published numbers are for orientation only"
PAD = "[PAD]"


class Given(NamedTuple):
    """What the profile is about: how it is called, where things lie (as a profile writes it), how large the model is."""

    name: str
    file: str
    model: str
    source: HubBackbone | str
    pairs: str
    text: str
    benchmark: str
    shape: Shape
    paper: Mapping[Slot, Backbone]
    shares: Mapping[Slot, Counterparts]


def profile_text(given: Given, found: Findings, sized: Sized, resources: Mapping[str, Mapping[str, Any]]) -> str:
    """The whole file."""
    parts = [_head(given), *(_backbone(slot, given, found) for slot in given.shares), _data(given, found), _benchmarks(given, found)]
    parts += [_section(name, values, NOTES.get(name, ())) for name, values in sized.values.items()]
    parts += [_section(f"resources.{kind}", values, ()) for kind, values in resources.items() if values]
    parts.append(_section("why", sized.why, ("Why a value of the protocol is replaced; a table prints it.",)))
    return "\n\n".join(parts) + "\n"


def toml(value: Any) -> str:
    """A value as TOML writes it. JSON's strings are TOML's, but for one sign that TOML wants escaped."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key(name)} = {toml(one)}" for name, one in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    return str(value)


def key(name: object) -> str:
    """A key, in quotes where it needs them."""
    text = str(name)
    return text if BARE.fullmatch(text) else toml(text)


def _head(given: Given) -> str:
    comments = [
        f"{given.model} as both of the paper's models. Written by `replicate init`; every value can be changed.",
        f"  replicate plan table1 --profile {given.file}     # each job and what it costs",
        f"  replicate table1 --profile {given.file}          # run and render",
        "Relative paths start at this file's folder. What stands nowhere here is the protocol's: replicate show table1 --profile ...",
    ]
    values = {
        "name": given.name,
        "summary": f"{given.model} on pairs and texts of one's own",
        "comparable": False,
        "why_not_comparable": WHY_NOT,
        "baselines": ["length", "bag-of-words"],
    }
    return "\n".join([*_comments(comments), *_entries(values)])


def _backbone(slot: Slot, given: Given, found: Findings) -> str:
    shape, model = given.shape, found.model
    sizes = f"{shape.num_hidden_layers} blocks, width {shape.hidden_size}, {shape.num_attention_heads} heads, {shape.vocab_size} tokens"
    closed = "eos" if model.end_of_turn == model.eos else f"not eos ({model.eos or 'none'})"
    comments = [
        f"Sizes are read from its config.json: {sizes}.",
        f"The chat template closes a reply with {model.end_of_turn}, {closed}: the token that is scored.",
    ]
    changes = {"end_of_turn": model.end_of_turn} if model.end_of_turn != model.eos else {}
    if not model.pad_is_its_own:
        comments.append(f"Its pad token ({model.pad or 'none'}) cannot be told from the end of a turn: {PAD} is added.")
        changes["pad_token"] = PAD
    source: dict[str, Any] = {"kind": "folder", "path": given.source}
    if isinstance(given.source, HubBackbone):
        source = {"kind": "hub", "repository": given.source.repository, "revision": given.source.revision}
    values = {"stands_for": given.paper[slot].stands_for, "source": source, **({"tokenizer": changes} if changes else {})}
    layers, ks = given.shares[slot]
    first = slot == "small"
    return "\n".join(
        [
            *(_comments(comments) if first else []),
            f"[backbones.{slot}]",
            *_entries(values),
            "",
            *_comments(["The paper's layer (blocks kept) and this model's, at the same share of its depth."] if first else []),
            f"[backbones.{slot}.layers]",
            *_entries({paper: _counterpart(one) for paper, one in layers.items()}),
            "",
            *_comments(["The paper's k and this model's, at the same share of its width. SAEs are 16 times as wide."] if first else []),
            f"[backbones.{slot}.ks]",
            *_entries({paper: _counterpart(one) for paper, one in ks.items()}),
        ]
    )


def _counterpart(one: Counterpart) -> Any:
    return {"value": one.value, "inexact": one.inexact} if one.inexact else one.value


def _data(given: Given, found: Findings) -> str:
    text, pairs = found.text, found.pairs
    kept = pairs.rows * pairs.kept / pairs.looked_at
    left = ", ".join(f"{count} {what}" for what, count in pairs.left_out.items())
    unread = ", ".join(pairs.not_read)
    comments = [
        f"Of the first {pairs.looked_at:,} of about {pairs.rows:,} rows: {pairs.form}.",
        f"The longest conversation among them has {pairs.longest:,} tokens.",
        *([f"Left out among them: {left}."] if left else []),
        *([f"Columns that are not read: {unread}."] if unread else []),
        "A fifth of the prompts, by their hash, is never trained on.",
    ]
    values = {
        "source": {"kind": "file", "path": given.pairs},
        "evaluation_split": "prompt-sha256-mod-5",
        **({"skip_prompts": True} if pairs.skip_prompts else {}),
        "pairs": max(1, round(kept * (1 - pairs.held_out / pairs.kept))),
        "tokens_per_pair": pairs.tokens_per_pair,
    }
    corpus = {
        "source": {"kind": "file", "path": given.text},
        **({} if text.column == "text" else {"text_column": text.column}),
        "token_vectors": max(1, round(text.rows * text.sentences_per_document * text.tokens_per_sentence)),
    }
    each = f"{text.sentences_per_document:.3g} sentences a document, {text.tokens_per_sentence:.3g} tokens a sentence"
    return "\n".join(
        [
            *_comments([f"About {text.rows:,} documents; {each}."]),
            "[text]",
            *_entries(corpus),
            "",
            *_comments(comments),
            "[preferences]",
            *_entries(values),
        ]
    )


def _benchmarks(given: Given, found: Findings) -> str:
    pairs, lines = found.pairs, []
    if found.benchmark is not None:
        name = found.benchmark.name
        entries = {"source": {"kind": "file", "path": given.benchmark}, "completions": found.benchmark.completions}
        lines += [f"[benchmarks.{name}]", *_entries(entries), ""]
        absent = [one for one in SUBSETS[name] if not any(_is_of(subset, one, name) for subset in found.benchmark.subsets)]
        if absent:
            lines += [f"[benchmarks.{name}.absent]", *_entries(dict.fromkeys(absent, "not in the file that was given")), ""]
    held_out = round(2 * pairs.rows * pairs.held_out / pairs.looked_at)
    evaluation = {"source": {"kind": "preferences"}, "completions": max(2, held_out)}
    return "\n".join([*lines, "# The pairs that are held out.", "[benchmarks.evaluation]", *_entries(evaluation)])


def _is_of(subset: str, name: str, benchmark: str) -> bool:
    return subset.startswith(name) if benchmark == "rmbench" else subset == name


NOTES: Mapping[str, tuple[str, ...]] = {
    "sae": ("Stage 1. More of it: vectors = ... passes the text several times.",),
    "reward": (
        "Stage 2. What is not set is the protocol's; the paper's: batch_pairs = 8, epochs = 3, learning_rate = 4e-6. A model of some",
        "million parameters does not move at that rate: try learning_rate = 3e-4, batch_pairs = 32. A first look: max_pairs = 1000.",
    ),
    "scoring": ("How rewards are read.",),
}


def _section(name: str, values: Mapping[str, Any], comments: Iterable[str]) -> str:
    return "\n".join([*_comments(comments), f"[{name}]", *_entries(values)])


def _entries(values: Mapping[Any, Any]) -> list[str]:
    return [f"{key(name)} = {toml(value)}" for name, value in values.items()]


def _comments(lines: Iterable[str]) -> list[str]:
    # Names of files and tokens stand in them: a line end among these would end the comment.
    return ["# " + "".join(sign if sign.isprintable() else "?" for sign in line) for line in lines]
