"""Feature scores, the choice of a latent, and rewards before and after it is edited; latents are kept for every check that follows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from sarm.checkpoints import load_reward_model, load_tokenizer
from sarm.completions import Completion, completions_of, encode_completions
from sarm.config import SteeringConfig
from sarm.data.preferences import DataError, Preference, read_jsonl
from sarm.data.tokens import ConversationTokenizer, TokenizerProblem
from sarm.engine import device_of, torch_dtype, use_threads
from sarm.inference import RowBatch, score_rows
from sarm.job import JobContext, UsageProblem
from sarm.model import SARM
from sarm.steering import Edit, FeatureSums, Selection, feature_scores_of_sums, select_latents


class Scored(NamedTuple):
    """A benchmark's completions: rewards `[n]`, the k latents of each, `indices` and `values` `[n, k]`, prepared states `[n, hidden_size]`."""

    items: list[Preference]
    rewards: Tensor
    indices: Tensor
    values: Tensor
    states: Tensor


def steer_rewards(config: SteeringConfig, context: JobContext) -> None:
    """Writes `latents.safetensors`, `completions.jsonl`, `steering.json`.

    `latents.safetensors`: `target_indices`, `target_values` `[completions, k]`, `target_states` `[completions, hidden_size]` (prepared,
    float16), indices and values of the selection set, `rewards`,
    `steered_rewards` `[completions]` (the second from a forward pass with the edited latent, not by arithmetic), `head`, `s`, `t`
    `[n_latents]`. Raises UsageProblem for a model without TopK latents and for an empty selection.
    """
    use_threads(context.resources)
    model = load_reward_model(context.inputs["model"], dtype=torch_dtype(config.dtype), attention=config.attention)
    if not isinstance(model, SARM) or model.latents != "topk":
        raise UsageProblem("steering needs a SARM with TopK latents; this reward model has none")
    model.to(device_of(context.resources))
    try:
        tokenizer = ConversationTokenizer(load_tokenizer(context.inputs["model"]), date_string=config.date_string, bos=config.bos)
        selected = _scored(config, context, model, tokenizer, name="selection", benchmark=config.selection)
        target = _scored(config, context, model, tokenizer, name="target", benchmark=config.target)
    except (DataError, TokenizerProblem) as error:
        raise UsageProblem(str(error)) from error
    s, t = _feature_scores(selected, config, n_latents=model.sae.n_latents)
    chosen = select_latents(s, t, bound=config.bound)
    latent = _latent_of(chosen, config)
    model.edits = {latent: Edit("*", config.multiplier)}
    after = _scored(config, context, model, tokenizer, name="target", benchmark=config.target)
    _write(context.output, config, selected=selected, target=target, after=after, s=s, t=t, chosen=chosen, head=model.score.weight[0])


def _latent_of(chosen: Selection, config: SteeringConfig) -> int:
    found = {"argmax-s": chosen.argmax_s, "argmax-s-bounded-t": chosen.bounded, "s-minus-t": chosen.s_minus_t}[config.rule]
    if found is None:
        raise UsageProblem(f"no latent has |t| <= {config.bound}; raise the bound or choose another rule")
    return found


def _scored(
    config: SteeringConfig, context: JobContext, model: SARM, tokenizer: ConversationTokenizer, *, name: str, benchmark: str
) -> Scored:
    items = list(read_jsonl(context.inputs[name] / f"{benchmark}.jsonl", Preference))
    rows = encode_completions(items, tokenizer, max_length=config.max_length, overlong=config.truncation, name=benchmark)
    rewards = torch.empty(len(rows))
    indices = torch.empty(len(rows), model.sae.k, dtype=torch.int32)
    values = torch.empty(len(rows), model.sae.k)
    states = torch.empty(len(rows), model.sae.hidden_size)
    done = 0

    def take(batch: RowBatch) -> None:
        nonlocal done
        top = batch.features.abs().topk(model.sae.k, dim=-1).indices
        rewards[batch.indices] = batch.rewards
        indices[batch.indices] = top.to(torch.int32).cpu()
        values[batch.indices] = torch.gather(batch.features, -1, top).float().cpu()
        states[batch.indices] = model.sae.prepare(batch.pooled).float().cpu()
        done += len(batch.indices)
        context.progress(done, len(rows), "completions", name)

    first_masked = config.bos == "double-first-masked"
    ids = [row.ids for row in rows]
    score_rows(model, ids, pad_id=tokenizer.pad_id, batch_tokens=config.batch_tokens, first_masked=first_masked, take=take)
    return Scored(items, rewards, indices, values, states)


def _feature_scores(selected: Scored, config: SteeringConfig, *, n_latents: int) -> tuple[Tensor, Tensor]:
    """s on the concept's subsets, t by the same formula on all others of the selection set."""
    scores = []
    for inside in (True, False):
        wanted = [index for index, item in enumerate(selected.items) if item.subset.lower().startswith(config.subset.lower()) == inside]
        if not wanted:
            where = "in" if inside else "outside"
            raise UsageProblem(f"no item of {config.selection} lies {where} subset {config.subset!r}; the selection set is empty")
        scores.append(feature_scores_of_sums(_sums(selected, set(wanted), n_latents)))
    return scores[0], scores[1]


def _sums(selected: Scored, wanted: set[int], n_latents: int) -> FeatureSums:
    sums = {side: torch.zeros(n_latents, dtype=torch.float64) for side in ("chosen", "rejected")}
    for row, completion in enumerate(completions_of(selected.items)):
        if completion.item in wanted:
            weight = _pairs_with(selected.items[completion.item], completion)
            sums[completion.side].index_add_(0, selected.indices[row].long(), selected.values[row].double() * weight)
    return FeatureSums(chosen=sums["chosen"], rejected=sums["rejected"])


def _pairs_with(item: Preference, completion: Completion) -> int:
    """In how many chosen-rejected pairs of its item a completion stands: style by style where the counts agree, else every pair."""
    if len(item.chosen) == len(item.rejected):
        return 1
    return len(item.rejected) if completion.side == "chosen" else len(item.chosen)


def _write(
    output: Path,
    config: SteeringConfig,
    *,
    selected: Scored,
    target: Scored,
    after: Scored,
    s: Tensor,
    t: Tensor,
    chosen: Selection,
    head: Tensor,
) -> None:
    tensors = {
        "target_indices": target.indices,
        "target_values": target.values,
        "target_states": target.states.to(torch.float16),
        "selection_indices": selected.indices,
        "selection_values": selected.values,
        "rewards": target.rewards,
        "steered_rewards": after.rewards,
        "head": head.detach().float().cpu(),
        "s": s.float(),
        "t": t.float(),
    }
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, output / "latents.safetensors")
    _write_completions(output / "completions.jsonl", target.items)
    _write_completions(output / "selection.jsonl", selected.items)
    latent = _latent_of(chosen, config)
    facts = {
        "rules": {"argmax-s": chosen.argmax_s, "argmax-s-bounded-t": chosen.bounded, "s-minus-t": chosen.s_minus_t},
        "rule": config.rule,
        "latent": latent,
        "multiplier": config.multiplier,
        "s": float(s[latent]),
        "t": float(t[latent]),
        "head_weight": float(head[latent]),
    }
    (output / "steering.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _write_completions(path: Path, items: Sequence[Preference]) -> None:
    with path.open("w", encoding="utf-8") as out:
        for completion in completions_of(items):
            item = items[completion.item]
            row = {"id": item.id, "subset": item.subset, "side": completion.side, "place": completion.place}
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
