"""SparseRM: latents ranked on cached states, and a small head trained on what they give. Seconds, whatever the backbone.

Inputs: `states`, `sae`, `backbone`. Writes `head.json`, `head.safetensors`, `training.json`, `metrics.jsonl`, `latents.json`; with
`whole` also what makes it a reward model.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sarm.checkpoints.reward_models.sparse_heads import (
    check_fit,
    normalization_of,
    parameter_facts,
    save_head,
    write_backbone,
)
from sarm.checkpoints.saes.layouts import own_sae
from sarm.config.related import SparseRMConfig
from sarm.data.preferences import DataError
from sarm.data.states import CachedStates, held_out, read_states
from sarm.engine.devices import torch_dtype, use_threads
from sarm.job import Interrupted, JobContext, UsageProblem
from sarm.reward.sparse_rm import (
    Activations,
    Dense,
    Projections,
    Reader,
    StateHead,
    accuracy,
    latent_statistics,
    pair_losses,
    random_columns,
    random_directions,
    separation,
    top_per_side,
)
from sarm.sae.model import TopKSAE
from sarm.sae.sparse_encoder import Normalization
from sarm.store.json_files import read_facts
from sarm.store.json_lines import write_lines

STATES_AT_ONCE = 1024


class Split(NamedTuple):
    """What a head reads of each pair, chosen and rejected `[pairs, n]`, for training and for validation."""

    chosen: Tensor
    rejected: Tensor
    validation_chosen: Tensor
    validation_rejected: Tensor


class Trained(NamedTuple):
    """The best state of a head over margins and epochs, and how every margin did."""

    state: dict[str, Tensor]
    margin: float
    epoch: int
    validation_accuracy: float
    tried: list[dict[str, float]]


def train_sparse_rm(config: SparseRMConfig, context: JobContext) -> None:
    """Inputs: `states` (of `train`), `sae`, `backbone`. Writes a head, `training.json`, `metrics.jsonl`, `latents.json`.

    With `whole` also the kept blocks, so that the folder is a reward model. Raises UsageProblem for parts that do not fit.
    """
    use_threads(context.resources)
    try:
        cached = read_states(context.inputs["states"])
        chosen, rejected = cached.pairs()
    except DataError as error:
        raise UsageProblem(str(error)) from error
    sae, layer, _ = own_sae(context.inputs["sae"])
    conditions = read_facts(context.inputs["states"] / "conditions.json", "layer", "pooling")
    check_fit(conditions, layer=config.layer, sae=sae, sae_layer=layer, width=chosen.shape[1], whole=config.whole)
    training, validation = split_of(cached, config)
    generator = torch.Generator().manual_seed(config.seed)
    try:
        reader, latents = build_reader(config, sae, chosen[training], rejected[training], generator)
    except ValueError as error:
        raise UsageProblem(f"{error}; set sparse.per_side") from error
    with torch.inference_mode():
        split = Split(*(_read(reader, states[part]) for part in (training, validation) for states in (chosen, rejected)))
    head = StateHead(reader, width=config.width if config.head == "mlp" else 0)
    trained = train_head(head, split, config, context)
    head.load_state_dict(trained.state)
    save_head(context.output, head, layer=config.layer, hidden_size=chosen.shape[1])
    if config.whole:
        write_backbone(context.inputs["backbone"], context.output, layer=config.layer, dtype=torch_dtype(conditions["dtype"]))
    facts = {
        "pairs": len(training),
        "validation_pairs": len(validation),
        "margin": trained.margin if config.loss == "margin" else None,
        "epoch": trained.epoch,
        "validation_accuracy": round(trained.validation_accuracy, 6),
        "tried": trained.tried,
        **parameter_facts(context.inputs["backbone"], config.layer, head),
    }
    (context.output / "training.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (context.output / "latents.json").write_text(json.dumps(latents) + "\n", encoding="utf-8")


def split_of(cached: CachedStates, config: SparseRMConfig) -> tuple[list[int], list[int]]:
    """Places of the training and of the validation pairs. Raises UsageProblem where one has none."""
    count = min(config.max_pairs or len(cached.items), len(cached.items))
    sides: tuple[list[int], list[int]] = ([], [])
    for place, item in enumerate(cached.items[:count]):
        sides[held_out(item, fraction=config.validation_fraction, seed=config.seed)].append(place)
    if not sides[0] or not sides[1]:
        raise UsageProblem(
            f"validation_fraction = {config.validation_fraction} splits {count} pairs into {len(sides[0])} and {len(sides[1])}; "
            "give more pairs or another fraction"
        )
    return sides


def build_reader(
    config: SparseRMConfig, sae: TopKSAE, chosen: Tensor, rejected: Tensor, generator: torch.Generator
) -> tuple[Reader, list[dict[str, float]]]:
    """What the head reads, and the latents behind it with their separation (none for random vectors and dense states).

    Raises ValueError where `per_side` does not fit the dictionary.
    """
    normalization: Normalization = normalization_of(sae) if config.states == "prepared" else "none"
    if config.inputs == "dense":
        return Dense(sae.hidden_size, normalization), []
    if config.directions == "random" and config.inputs == "projections":
        return Projections(random_directions(2 * config.per_side, sae.hidden_size, generator), normalization), []
    differences = separation(latent_statistics(sae, chosen, rejected))
    picked = config.directions == "separation"
    indices = top_per_side(differences, config.per_side) if picked else random_columns(sae.n_latents, config.per_side, generator)
    listed = [{"latent": int(one), "separation": round(float(differences[one]), 6)} for one in indices]
    if config.inputs == "activations":
        return Activations(sae, indices), listed
    return Projections(sae.decoder.weight.detach().T[indices].contiguous(), normalization), listed


def _read(reader: Reader, states: Tensor) -> Tensor:
    return torch.cat([reader(part) for part in states.split(STATES_AT_ONCE)])


def train_head(head: StateHead, split: Split, config: SparseRMConfig, context: JobContext) -> Trained:
    """Every margin from the same start; the best epoch by validation accuracy, the earlier one (and margin) at a tie."""
    best: Trained | None = None
    tried: list[dict[str, float]] = []
    margins: Sequence[float] = config.margins if config.loss == "margin" else (0.0,)
    rows: list[dict[str, float]] = []
    for number, margin in enumerate(margins):
        head.reset(torch.Generator().manual_seed(config.seed))
        optimizer = torch.optim.AdamW(
            [one for one in head.parameters() if one.requires_grad], lr=config.learning_rate, weight_decay=config.weight_decay
        )
        top = -1.0
        for epoch in range(1, config.epochs + 1):
            if context.stop_requested():
                raise Interrupted("stopped while a head was trained; the same command starts this step again")
            loss = _epoch(head, optimizer, split, config, margin=margin, epoch=epoch)
            with torch.no_grad():
                found = accuracy(head.reward_of(split.validation_chosen), head.reward_of(split.validation_rejected))
            rows.append({"margin": margin, "epoch": epoch, "loss": loss, "validation_accuracy": found})
            top = max(top, found)
            if best is None or found > best.validation_accuracy:
                state = {name: value.detach().clone() for name, value in head.state_dict().items()}
                best = Trained(state, margin, epoch, found, tried)
            context.progress(number * config.epochs + epoch, len(margins) * config.epochs, "epochs", f"loss {loss:.4f}")
        tried.append({"margin": margin, "validation_accuracy": round(top, 6)})
    write_lines(context.output / "metrics.jsonl", rows)
    if best is None:
        raise UsageProblem("no margin was tried; set sparse.margins")
    return best


def _epoch(
    head: StateHead, optimizer: torch.optim.Optimizer, split: Split, config: SparseRMConfig, *, margin: float, epoch: int
) -> float:
    """One pass over the pairs in the seed's order; the mean loss. Raises UsageProblem for a loss that is not finite."""
    order = list(range(len(split.chosen)))
    random.Random(f"{config.seed}/{epoch}").shuffle(order)
    total = 0.0
    for start in range(0, len(order), config.batch_pairs):
        part = order[start : start + config.batch_pairs]
        optimizer.zero_grad(set_to_none=True)
        rewards = head.reward_of(split.chosen[part]), head.reward_of(split.rejected[part])
        loss = pair_losses(*rewards, loss=config.loss, margin=margin).mean()
        if not torch.isfinite(loss):
            raise UsageProblem(f"the loss is {float(loss.detach())} in epoch {epoch}; lower sparse.learning_rate")
        loss.backward()
        optimizer.step()
        total += float(loss.detach()) * len(part)
    return total / len(order)
