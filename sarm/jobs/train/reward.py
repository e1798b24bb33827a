"""Pairs to a reward model: the backbone's kept blocks and the head under a Bradley-Terry loss, with or without the SAE.

Inputs: `backbone`, `preferences`, perhaps `sae`. Writes a reward model in Hugging Face layout, `metrics.jsonl`, `training.json`; with
`selection = test` also `epochs/N/`, the model after each earlier epoch.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sarm.backbone.compiled_parts import compile_parts
from sarm.backbone.decoder import filler, require_rows
from sarm.backbone.packed_tokens import Packed
from sarm.checkpoints.backbones import load_tokenizer
from sarm.checkpoints.reward_models.layouts import EPOCHS, save_weights
from sarm.checkpoints.reward_models.untrained import untrained_reward_model
from sarm.config.train import RewardTrainingConfig
from sarm.data.pairs import EncodedPair, PairCounts, encode_pairs, in_validation, read_pairs
from sarm.data.preferences import DataError, Preference
from sarm.data.tokens import ConversationTokenizer, TokenizerProblem, assistant_start, not_written
from sarm.engine.checkpointer import Checkpoint, Checkpointer
from sarm.engine.devices import device_of, torch_dtype, use_threads
from sarm.engine.group import join
from sarm.engine.metrics_file import MetricsFile
from sarm.engine.sharding import Round, rounds_of
from sarm.engine.update import PLAIN
from sarm.job import JobContext, UsageProblem
from sarm.reward.models import SARM, DenseRewardModel, RewardModel
from sarm.reward.pair_batches import Batch, Losses, PairRows, first_unfinite, micro_batch_losses, row_layout
from sarm.reward.shared_prefix import SharedBatch
from sarm.reward.update import layout_of, reward_update

LOG_EVERY = 5
# Of a batch whose gradient is not finite, which no pair's own loss explains.
NAMED_PAIRS = 8


def set_trainable(model: RewardModel, config: RewardTrainingConfig) -> None:
    """Say which parameters train. The head always does; the final norm of a SARM, which is never applied, never does."""
    for name, parameter in model.named_parameters():
        if name.startswith("model."):
            unapplied = name == "model.norm.weight" and not isinstance(model, DenseRewardModel)
            parameter.requires_grad_(config.backbone_trains and not unapplied)
        elif name.startswith("sae."):
            parameter.requires_grad_(config.sae_trains)
        else:
            parameter.requires_grad_(True)


def rate_multiplier(config: RewardTrainingConfig, *, step: int, steps: int) -> float:
    """Linear warm-up, then cosine to 0, flat, or flat and cosine to 0 at the end. Source: recipes/sarm_train.sh (cosine, warm-up 3 %).

    `warmup_stable_decay` is transformers' schedule of that name with decay_fraction * steps for its num_decay_steps.
    """
    warmup = math.ceil(steps * config.warmup_fraction)
    if step < warmup:
        return step / warmup
    if config.schedule == "constant":
        return 1.0
    falls_from = warmup
    if config.schedule == "warmup_stable_decay":
        falls_from = max(warmup, steps - round(steps * config.decay_fraction))
    return 1.0 if step < falls_from else 0.5 * (1 + math.cos(math.pi * (step - falls_from) / max(1, steps - falls_from)))


def batches_of(count: int, config: RewardTrainingConfig) -> list[list[int]]:
    """Indices of the pairs of every step, epoch by epoch, in the seed's order; an epoch's short rest makes no step.

    Raises UsageProblem where there are fewer pairs than a batch.
    """
    if count < config.batch_pairs:
        raise UsageProblem(f"{count} pairs are fewer than batch_pairs = {config.batch_pairs}; lower it or give more pairs")
    steps: list[list[int]] = []
    for epoch in range(config.epochs):
        order = list(range(count))
        random.Random(f"{config.seed}/{epoch}").shuffle(order)
        whole = count - count % config.batch_pairs
        steps += [order[start : start + config.batch_pairs] for start in range(0, whole, config.batch_pairs)]
    return steps[: config.max_steps] if config.max_steps else steps


class PairLosses(nn.Module):
    """The losses of a micro-batch as one module, which is what an engine of several processes wraps."""

    def __init__(self, model: RewardModel, config: RewardTrainingConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config

    def forward(self, batch: Batch | SharedBatch | Packed) -> tuple[Tensor, ...]:
        """See `micro_batch_losses`."""
        return tuple(micro_batch_losses(self.model, batch, self.config))


@dataclass
class RewardTraining:
    """A model, its optimizer and its pairs: the loop of one process, alone or in a group."""

    config: RewardTrainingConfig
    context: JobContext
    model: RewardModel
    tokenizer: ConversationTokenizer
    pairs: list[EncodedPair]
    validation: list[EncodedPair]

    def __post_init__(self) -> None:
        self.group = join(self.context.resources)
        self.device = self.group.device
        # As they will be saved: an engine may compute in another precision.
        self.dtypes = {name: value.dtype for name, value in self.model.to(self.device).state_dict().items()}
        set_trainable(self.model, self.config)
        reconstructs = bool(self.config.reconstruction_weight) and isinstance(self.model, SARM)
        masks = reconstructs and self.config.reconstruction_tokens == "assistant"
        self.header = self.tokenizer.assistant_header() if masks else None
        self._refuse_headless()
        self.dtype = self.model.model.dtype
        self.rows = PairRows(
            layout=row_layout(self.model, self.config),
            budget=self.context.resources.micro_batch_tokens,
            pad_id=filler(self.model.model, self.tokenizer.pad_id),
            header=self.header,
            dtype=self.dtype,
            device=self.device,
        )
        self._compile()
        self.steps = batches_of(len(self.pairs), self.config)
        self._check_shares()
        if self.context.resources.activation_checkpointing and self.config.backbone_trains:
            self.model.model.gradient_checkpointing_enable({"use_reentrant": False})
        self.best: tuple[float, int] = (-1.0, -1)
        self.best_state: dict[str, Tensor] = {}
        self.checkpoints = Checkpointer(self.context, group=self.group, layout=layout_of(self.context.resources))
        self.saved = self.checkpoints.latest()
        self.update = reward_update(
            PairLosses(self.model, self.config),
            self.model,
            self._groups(),
            config=self.config,
            resources=self.context.resources,
            group=self.group,
            dtype=self.dtype,
            saved=self.saved,
        )

    def _compile(self) -> None:
        if self.config.block == "plain":
            return
        if self.rows.layout != "packed":
            # There the library's own forward pass runs, of which only a part would be compiled.
            raise UsageProblem(
                "block = 'compiled' needs pairs in packed rows, which this decoder or a reconstruction loss over assistant tokens does not "
                "allow; set reward.block=plain"
            )
        compile_parts(self.model.model)

    def _check_shares(self) -> None:
        batches = [[f"{pair}/{self.pairs[pair].id}" for pair in step] for step in self.steps]
        numbers = {id(pair): f"{number}/{pair.id}" for number, pair in enumerate(self.pairs)}
        mine = [
            [numbers[id(pair)] for one in self._rounds([self.pairs[pair] for pair in step]) for pair in one.rows if one.counts]
            for step in (self.steps if self.group.size > 1 else ())
        ]
        if self.group.size > 1:
            self.group.check_shares(batches, mine)

    def _refuse_headless(self) -> None:
        if self.header is None:
            return
        for pair in self.pairs:
            if any(assistant_start(side, self.header) is None for side in (pair.chosen, pair.rejected)):
                raise UsageProblem(
                    f"pair {pair.id!r}: max_length = {self.config.max_length} cuts off the assistant header, so the reconstruction loss "
                    "has no assistant tokens; raise max_length, set overlong = 'drop' or reconstruction_tokens = 'last'"
                )

    def _groups(self) -> list[dict[str, Any]]:
        head = [parameter for parameter in self.model.score.parameters() if parameter.requires_grad]
        heads = {id(parameter) for parameter in head}
        body = [p for p in self.model.parameters() if p.requires_grad and id(p) not in heads]
        rate = self.config.learning_rate
        groups = [{"params": head, "lr": 0.0, "peak": self.config.head_learning_rate or rate}]
        return groups + ([{"params": body, "lr": 0.0, "peak": rate}] if body else [])

    def run(self) -> dict[str, Tensor]:
        """All steps from the last checkpoint on. Gives the weights to keep, whole, in the first process."""
        first = 0 if self.saved is None else self.saved.step
        if self.saved is not None:
            self._restore(self.saved)
        metrics = MetricsFile(self.context, resume_step=first, writes=self.group.is_first)
        self.model.train()
        for index in range(first, len(self.steps)):
            values = self.step(index)
            done = index + 1
            if index % LOG_EVERY == 0 or done == len(self.steps):
                metrics.write(done, values)
            self.context.progress(done, len(self.steps), "steps", f"loss {values['preference_loss']:.4f}")
            if self._epoch_ends(done):
                self._epoch_done(done, metrics)
            if done < len(self.steps) and self.checkpoints.due():
                self.checkpoints.save_if_due(done, self._state(), {"best": list(self.best)}, self.update.save_shards)
        if self.validation:
            return self.best_state
        return self.update.weights() if self.update.layout != PLAIN else self.model.state_dict()

    def save(self, folder: Path, weights: dict[str, Tensor]) -> None:
        """Write the model with these weights."""
        stored = {name: weights[name].to(dtype) for name, dtype in self.dtypes.items()}
        backbone, pad_id = self.context.inputs["backbone"], self.tokenizer.pad_id
        save_weights(folder, self.model, stored, encoder=self.config.encoder, tokenizer=backbone, pad_id=pad_id)

    def step(self, index: int) -> dict[str, float]:
        """One optimizer step. Raises UsageProblem on a loss or gradient that is not finite, before anything is updated."""
        batch = [self.pairs[pair] for pair in self.steps[index]]
        multiplier = rate_multiplier(self.config, step=index, steps=len(self.steps))
        self.update.begin(multiplier)
        done: list[tuple[Round, Losses]] = []
        rounds = self._rounds(batch)
        for number, one in enumerate(rounds):
            losses = Losses(*self.update.forward(self.rows.batch(one.rows)))
            total = (losses.preference + self.config.reconstruction_weight * losses.reconstruction) * one.counts / len(batch)
            self.update.backward(total, last=number == len(rounds) - 1)
            done.append((one, Losses(*(value.detach() for value in losses))))
        # Read when all is under way: a GPU idles while the host waits for a value.
        preference, reconstruction, right = self._totals(done, index)
        norm = self.update.step()
        if not math.isfinite(norm):
            named = ", ".join(repr(pair.id) for pair in batch[:NAMED_PAIRS]) + (", ..." if len(batch) > NAMED_PAIRS else "")
            raise UsageProblem(f"the gradient's norm is {norm} at step {index}, of pairs {named}; lower the learning rate or drop them")
        values = {
            "preference_loss": preference / len(batch),
            "accuracy": right / len(batch),
            "grad_norm": norm,
            "learning_rate": self.config.learning_rate * multiplier,
        }
        return {**values, "reconstruction_loss": reconstruction / len(batch)} if self.config.reconstruction_weight else values

    def _totals(self, done: Sequence[tuple[Round, Losses]], index: int) -> list[float]:
        """Losses and pairs ranked right, summed over the batch. Raises UsageProblem in all processes for a loss that is not finite."""
        preference = reconstruction = right = 0.0
        trouble = ""
        for one, losses in done:
            total = float(losses.preference) + self.config.reconstruction_weight * float(losses.reconstruction)
            if not trouble and not math.isfinite(total):
                pair = one.rows[first_unfinite(losses)].id
                trouble = f"the loss is {total} at step {index}, first of pair {pair!r}; lower the learning rate or drop the pair"
            preference += float(losses.preference) * one.counts
            reconstruction += float(losses.reconstruction) * one.counts
            right += float(losses.right) * one.counts
        if self.group.any(bool(trouble)):
            raise UsageProblem(next(text for text in self.group.gathered(trouble) if text))
        return self.group.totals([preference, reconstruction, right])

    def _rounds(self, pairs: Sequence[EncodedPair]) -> list[Round]:
        """This process's rounds of some pairs, in micro-batches of the layout that model and objective allow."""
        return rounds_of(
            pairs,
            rank=self.group.rank,
            processes=self.group.size,
            order=lambda pair: (-self.rows.size(pair), pair.id),
            split=self.rows.split,
        )

    def _epoch_ends(self, done: int) -> bool:
        return done == len(self.steps) or done % (len(self.pairs) // self.config.batch_pairs) == 0

    def _epoch_done(self, done: int, metrics: MetricsFile) -> None:
        if self.validation:
            self._validate(done, metrics)
        if self.config.selection == "test" and done < len(self.steps):
            self._keep_epoch(done // (len(self.pairs) // self.config.batch_pairs))

    def _keep_epoch(self, epoch: int) -> None:
        """The model as it is now, beside the one that will be kept; a resumed run writes the same bytes again."""
        weights = self.update.weights()
        if not self.group.is_first:
            return
        self.save(self.context.output / EPOCHS / str(epoch), weights)

    @torch.no_grad()
    def _validate(self, done: int, metrics: MetricsFile) -> None:
        """Accuracy on the validation split; the best epoch's weights are kept, the earlier one at equal accuracy."""
        self.model.eval()
        right = 0.0
        for one in self._rounds(self.validation):
            right += float(Losses(*self.update.forward(self.rows.batch(one.rows))).right) * one.counts
        self.model.train()
        accuracy = self.group.totals([right])[0] / len(self.validation)
        metrics.write(done, {"validation_accuracy": accuracy})
        if accuracy > self.best[0]:
            self.best = (accuracy, done)
            self.best_state = self.update.weights()

    def _state(self) -> dict[str, Tensor]:
        return {**self.update.tensors(), **{f"best/{name}": value for name, value in self.best_state.items()}}

    def _restore(self, saved: Checkpoint) -> None:
        self.update.restore(saved)
        if self.group.is_first:
            self.best_state = {name.removeprefix("best/"): value for name, value in saved.tensors.items() if name.startswith("best/")}
        self.best = (saved.facts["best"][0], saved.facts["best"][1])


def train_reward(config: RewardTrainingConfig, context: JobContext) -> None:
    """Train and save a reward model.

    Inputs: `backbone`, `preferences` (`train.jsonl`), and `sae` when the encoder is pretrained. Raises UsageProblem for a
    tokenizer that cannot hold a conversation, for pairs that do not fit, and for sizes that do not go together.
    """
    use_threads(context.resources)
    torch.manual_seed(config.seed)
    try:
        tokenizer = ConversationTokenizer(load_tokenizer(context.inputs["backbone"]), date_string=config.date_string)
        tokenizer.require_padding()
        pairs, validation, counts = _encoded(config, context, tokenizer)
        device = device_of(context.resources)
        model = untrained_reward_model(config, context.inputs, dtype=torch_dtype(config.dtype), device=device)
        both = [(f"pair {pair.id!r}", side) for pair in (*pairs, *validation) for side in pair.sides]
        require_rows(model.model, [side for _, side in both], [name for name, _ in both])
        counted = _parameters(model, config)
        training = RewardTraining(config, context, model, tokenizer, pairs, validation)
    except (DataError, TokenizerProblem) as error:
        raise UsageProblem(str(error)) from error
    weights = training.run()
    if training.group.is_first:
        training.save(context.output, weights)
    training.update.close()
    if not training.group.is_first:
        return
    facts = {
        "pairs": counts._asdict(),
        "validation_pairs": len(validation),
        "steps": len(training.steps),
        "selected_step": training.best[1] if validation else len(training.steps),
        **counted,
        **not_written(tokenizer.unwritten),
    }
    (context.output / "training.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _parameters(model: RewardModel, config: RewardTrainingConfig) -> dict[str, int]:
    # Counted before several processes share them.
    set_trainable(model, config)
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return {"trainable_parameters": sum(count for count, trains in counts if trains), "parameters": sum(count for count, _ in counts)}


def _encoded(
    config: RewardTrainingConfig, context: JobContext, tokenizer: ConversationTokenizer
) -> tuple[list[EncodedPair], list[EncodedPair], PairCounts]:
    pairs = read_pairs(context.inputs["preferences"] / "train.jsonl", config.max_pairs)
    held_out: list[Preference] = []
    training: list[Preference] = []
    for pair in pairs:
        (held_out if in_validation(pair, fraction=config.validation_fraction, seed=config.seed) else training).append(pair)
    encode = partial(
        encode_pairs, tokenizer=tokenizer, max_length=config.max_length, overlong=config.overlong, refused_turns=config.refused_turns
    )
    encoded, counts = encode(training)
    if not config.validation_fraction:
        return encoded, [], counts
    if not held_out:
        raise UsageProblem(f"validation_fraction = {config.validation_fraction} of {len(pairs)} pairs leaves none; raise it")
    validation, _ = encode(held_out)
    return encoded, validation, counts
