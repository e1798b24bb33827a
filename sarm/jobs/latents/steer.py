"""Feature scores, the choice of a latent, and rewards before and after it is edited; latents are kept for every check that follows.

Inputs: `model`, `selection`, `target`. Writes `latents.safetensors`, `completions.jsonl`, `selection.jsonl`, `steering.json`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from sarm.backbone.decoder import filler, require_rows
from sarm.checkpoints.backbones import load_tokenizer
from sarm.checkpoints.reward_models.layouts import load_reward_model
from sarm.config.latents import SteeringConfig
from sarm.data.preferences import DataError, Preference, read_jsonl
from sarm.data.tokens import ConversationTokenizer, TokenizerProblem
from sarm.engine.devices import device_of, torch_dtype, use_threads
from sarm.job import JobContext, UsageProblem
from sarm.reward.models import SARM
from sarm.reward.steering import Edit, FeatureSums, feature_scores_of_sums, select_latents
from sarm.scoring.completions import Completion, completions_of, encode_completions, names_of
from sarm.scoring.edited_head import require_same_head
from sarm.scoring.inference import RowBatch, score_rows
from sarm.scoring.progress import ScoredTokens
from sarm.store.json_lines import write_lines


class Scored(NamedTuple):
    """A benchmark's completions: rewards `[n]`; the k latents of each, `indices` and `values` `[n, k]`; prepared states.

    `states` is `[n, hidden_size]`; `pooled` has the hidden states of each batch with the rows that they belong to.
    """

    items: list[Preference]
    rewards: Tensor
    indices: Tensor
    values: Tensor
    states: Tensor
    pooled: list[tuple[list[int], Tensor]]


class Choice(NamedTuple):
    """Feature scores `[n_latents]` on the concept and on its complement, and the latent of each rule (None where it finds none)."""

    s: Tensor
    t: Tensor
    rules: Mapping[str, int | None]
    latent: int


def steer_rewards(config: SteeringConfig, context: JobContext) -> None:
    """Inputs: `model`, `selection`, `target`. Writes `latents.safetensors`, `completions.jsonl`, `selection.jsonl`, `steering.json`.

    `latents.safetensors`: `target_indices`, `target_values` `[completions, k]`, `target_states` `[completions, hidden_size]`
    (prepared, float16), indices and values of the selection set, `rewards`, `steered_rewards` and `identity_rewards`
    `[completions]` (the last two by the model's own encoder, edit and head, not by arithmetic; the last with the factor 1),
    `head`, `s`, `t` `[n_latents]`. Raises UsageProblem for a model without TopK latents, a set without the concept or without
    its complement, and a rule that finds no latent; IntegrityProblem for an edit that was made for another model.
    """
    use_threads(context.resources)
    model, trained_on = _with_topk(config, context)
    try:
        sets = {name: _items(config, context, name) for name in ("selection", "target")}
        tokenizer = ConversationTokenizer(load_tokenizer(context.inputs["model"]), date_string=config.date_string, bos=config.bos)
        target = _scored(config, context, model, tokenizer, sets["target"], name=config.target)
        same = config.selection == config.target and context.inputs["selection"] == context.inputs["target"]
        selected = target if same else _scored(config, context, model, tokenizer, sets["selection"], name=config.selection)
    except (DataError, TokenizerProblem) as error:
        raise UsageProblem(str(error)) from error
    head = model.score.weight[0].detach()
    choice = _choose(selected, config, head)
    factors = dict(config.edit.factors) if config.edit is not None else {choice.latent: config.multiplier}
    edits = {"identity_rewards": dict.fromkeys(factors, 1.0), "steered_rewards": factors}
    steered = {name: _steered(model, target, one) for name, one in edits.items()}
    _write(context.output, config, selected=selected, target=target, steered=steered, choice=choice, head=head, trained_on=trained_on)


def _with_topk(config: SteeringConfig, context: JobContext) -> tuple[SARM, str]:
    """The model with TopK latents, its own or put in where the config says so, and what its head was trained on. Raises UsageProblem."""
    dtype, device = torch_dtype(config.dtype), device_of(context.resources)
    model = load_reward_model(context.inputs["model"], dtype=dtype, attention=config.attention, device=device)
    if not isinstance(model, SARM):
        raise UsageProblem("steering needs a SARM with TopK latents; this reward model has no SAE; choose a row that has one")
    if config.edit is not None:
        require_same_head(config.edit, model, name=context.inputs["model"].name)
    trained_on = model.latents
    if config.latents == "topk":
        model.latents = "topk"
    if model.latents != "topk":
        raise UsageProblem(
            "steering needs a SARM with TopK latents; the head of this one was trained on pre-activations; set steering.latents=topk"
        )
    return model, trained_on


def _items(config: SteeringConfig, context: JobContext, name: str) -> list[Preference]:
    """A benchmark's items. Raises UsageProblem, before anything is scored, where the concept or its complement has none."""
    benchmark = config.selection if name == "selection" else config.target
    items = list(read_jsonl(context.inputs[name] / f"{benchmark}.jsonl", Preference))
    inside = sum(_in_concept(item, config) for item in items)
    for count, where in ((inside, "in"), (len(items) - inside, "outside")):
        if not count:
            found = ", ".join(sorted({item.subset or "(no subset)" for item in items})) or "no item at all"
            raise UsageProblem(f"the {name} set is empty: no item of {benchmark} lies {where} subset {config.subset!r}; it has: {found}")
    return items


def _in_concept(item: Preference, config: SteeringConfig) -> bool:
    return item.subset.lower().startswith(config.subset.lower())


def _scored(
    config: SteeringConfig, context: JobContext, model: SARM, tokenizer: ConversationTokenizer, items: list[Preference], *, name: str
) -> Scored:
    rows = encode_completions(items, tokenizer, max_length=config.max_length, overlong=config.truncation, name=name)
    rewards = torch.empty(len(rows))
    indices = torch.empty(len(rows), model.sae.k, dtype=torch.int32)
    values = torch.empty(len(rows), model.sae.k)
    states = torch.empty(len(rows), model.sae.hidden_size)
    pooled: list[tuple[list[int], Tensor]] = []
    ids = [row.ids for row in rows]
    scored = ScoredTokens(ids, context.progress, called="completions", of=name)

    def take(batch: RowBatch) -> None:
        # TopK keeps the largest values, which can be negative: the kept ones are those that differ most from 0.
        top = batch.features.abs().topk(model.sae.k, dim=-1).indices
        rewards[batch.indices] = batch.rewards
        indices[batch.indices] = top.to(torch.int32).cpu()
        values[batch.indices] = torch.gather(batch.features, -1, top).float().cpu()
        states[batch.indices] = model.sae.prepare(batch.pooled).float().cpu()
        pooled.append((batch.indices, batch.pooled))
        scored.add(batch.indices)

    first_masked = config.bos == "double-first-masked"
    require_rows(model.model, ids, names_of(items, name))
    pad_id = filler(model.model, tokenizer.pad_id)
    score_rows(model, ids, pad_id=pad_id, batch_tokens=config.batch_tokens, first_masked=first_masked, take=take)
    _require_finite(items, rewards)
    return Scored(items, rewards, indices, values, states, pooled)


def _require_finite(items: Sequence[Preference], rewards: Tensor) -> None:
    for row, completion in enumerate(completions_of(items)):
        if not torch.isfinite(rewards[row]):
            item = items[completion.item]
            place = f"item {item.id!r} of subset {item.subset!r}"
            raise UsageProblem(f"{place}: the reward is not finite; score in another dtype or look at the weights")


@torch.inference_mode()
def _steered(model: SARM, target: Scored, factors: Mapping[int, float]) -> Tensor:
    """Rewards with the latents scaled, `[n]`: batch by batch from the hidden states, since the edit comes after the backbone."""
    rewards = torch.empty_like(target.rewards)
    model.edits = {latent: Edit("*", factor) for latent, factor in factors.items()}
    for rows, states in target.pooled:
        rewards[rows] = model.reward_of(model.features(states)).float().cpu()
    model.edits = {}
    return rewards


def _choose(selected: Scored, config: SteeringConfig, head: Tensor) -> Choice:
    """s on the concept's subsets, t by the same formula on all others of the selection set, and each rule's latent.

    With an edit of a file it is the latent that the file changes most, |(c - 1) w|; the rules' stand beside it.
    """
    n_latents = len(head)
    inside = [_in_concept(item, config) for item in selected.items]
    s, t = (feature_scores_of_sums(_sums(selected, [one == part for one in inside], config, n_latents=n_latents)) for part in (True, False))
    if not (torch.isfinite(s).all() and torch.isfinite(t).all()):
        raise UsageProblem(f"feature scores on {config.selection} are not defined: no latent is active on the concept or on its complement")
    found = select_latents(s, t, bound=config.bound)
    latents = {"argmax-s": found.argmax_s, "argmax-s-bounded-t": found.bounded, "s-minus-t": found.s_minus_t}
    # A latent that never fires has s = 0, and would be chosen where every active one is below it.
    rules = {rule: latent if latent is not None and float(s[latent]) > 0 else None for rule, latent in latents.items()}
    latent = rules[config.rule]
    if config.edit is not None:
        return Choice(s=s, t=t, rules=rules, latent=max(config.edit.factors, key=lambda one: abs(_change(config, one) * float(head[one]))))
    if latent is None:
        bound = f" with |t| <= {config.bound:g}" if config.rule == "argmax-s-bounded-t" else ""
        raise UsageProblem(
            f"rule {config.rule!r} finds no latent{bound} that is more active on chosen than on rejected replies of {config.selection} "
            f"{config.subset!r} (largest s: {float(s.max()):.3g}); choose another rule, bound or selection set"
        )
    return Choice(s=s, t=t, rules=rules, latent=latent)


def _change(config: SteeringConfig, latent: int) -> float:
    """By how much of itself a latent is changed: c - 1."""
    return (config.edit.factors[latent] if config.edit is not None else config.multiplier) - 1


def _sums(selected: Scored, wanted: Sequence[bool], config: SteeringConfig, *, n_latents: int) -> FeatureSums:
    sums = {side: torch.zeros(n_latents, dtype=torch.float64) for side in ("chosen", "rejected")}
    for row, completion in enumerate(completions_of(selected.items)):
        if wanted[completion.item]:
            weight = pairs_with(selected.items[completion.item], completion, benchmark=config.selection)
            sums[completion.side].index_add_(0, selected.indices[row].long(), selected.values[row].double() * weight)
    return FeatureSums(chosen=sums["chosen"], rejected=sums["rejected"])


def pairs_with(item: Preference, completion: Completion, *, benchmark: str) -> int:
    """In how many chosen-rejected pairs of its item a completion stands.

    RM-Bench pairs style with style (441 prompts give 1,323 pairs), RewardBench 2 every chosen with every rejected reply
    (450 give 1,350). Source: steering/train.
    """
    if benchmark == "rmbench" and len(item.chosen) == len(item.rejected):
        return 1
    return len(item.rejected) if completion.side == "chosen" else len(item.chosen)


def _write(
    output: Path,
    config: SteeringConfig,
    *,
    selected: Scored,
    target: Scored,
    steered: Mapping[str, Tensor],
    choice: Choice,
    head: Tensor,
    trained_on: str,
) -> None:
    tensors = {
        "target_indices": target.indices,
        "target_values": target.values,
        "target_states": target.states.to(torch.float16),
        "selection_indices": selected.indices,
        "selection_values": selected.values,
        "rewards": target.rewards,
        **steered,
        "head": head.float().cpu(),
        "s": choice.s.float(),
        "t": choice.t.float(),
    }
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, output / "latents.safetensors")
    _write_completions(output / "completions.jsonl", target.items, benchmark=config.target)
    _write_completions(output / "selection.jsonl", selected.items, benchmark=config.selection)
    chosen = {"latent": choice.latent, "s": float(choice.s[choice.latent]), "t": float(choice.t[choice.latent])}
    names = ("selection", "target", "subset", "rule", "bound", "multiplier", "latents", "dtype", "bos")
    facts = {
        **{name: getattr(config, name) for name in names},
        **chosen,
        "head_weight": float(head[choice.latent]),
        "trained_on": trained_on,
        "rules": dict(choice.rules),
    }
    if config.edit is not None:
        facts |= {"multiplier": config.edit.factors[choice.latent], "edit": dict(config.edit.factors)}
    (output / "steering.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _write_completions(path: Path, items: Sequence[Preference], *, benchmark: str) -> None:
    prompts = [_prompt_digest(item) for item in items]
    rows = []
    for completion in completions_of(items):
        item = items[completion.item]
        row = {
            "item": completion.item,
            "id": item.id,
            "subset": item.subset,
            "side": completion.side,
            "place": completion.place,
            "pairs": pairs_with(item, completion, benchmark=benchmark),
            "prompt": prompts[completion.item],
        }
        rows.append(row)
    write_lines(path, rows)


def _prompt_digest(item: Preference) -> str:
    """The same for prompts that differ in case or white space alone: how a prompt that stands in two benchmarks is found."""
    text = "\n".join(" ".join(message.content.lower().split()) for message in item.prompt)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
