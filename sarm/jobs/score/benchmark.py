"""A reward for each completion of a benchmark or of a file of pairs; metrics are computed when a table is rendered.

Inputs: `model`, `benchmark`. Writes `rewards.jsonl` (`ScoredPreference`, one line an item, in the benchmark's order),
`conditions.json`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from sarm.backbone.decoder import filler, require_rows
from sarm.checkpoints.backbones import load_tokenizer
from sarm.checkpoints.reward_models.layouts import EPOCHS, load_reward_model
from sarm.checkpoints.spread import Spread
from sarm.config.score import ScoringConfig
from sarm.data.harness import HarnessTokenizer
from sarm.data.preferences import DataError, Preference, ScoredPreference, read_jsonl
from sarm.data.tokens import ConversationTokenizer, EncodedConversation, TokenizerProblem, not_written, token_budget_batches
from sarm.engine.devices import device_of, gpus_of, torch_dtype, use_threads
from sarm.engine.group import ALONE, ProcessGroup, join
from sarm.job import EnvironmentProblem, Interrupted, JobContext, UsageProblem
from sarm.reward.models import RewardModel
from sarm.scoring.completions import completions_of, encode_completions, names_of, regroup
from sarm.scoring.inference import RowBatch, dataset_order_batches, padding_share, score_batch
from sarm.scoring.model_facts import model_facts
from sarm.scoring.partial_rewards import PartialRewards
from sarm.scoring.progress import ScoredTokens
from sarm.scoring.shared_rows import chunks_of_groups, computed_tokens, refuse_windows, score_chunk
from sarm.store.json_lines import write_lines


def score_benchmark(config: ScoringConfig, context: JobContext) -> None:
    """Inputs: `model`, `benchmark`. Writes `rewards.jsonl` in the benchmark's order and `conditions.json`.

    Several processes share the batches, each of which is what one process would make of it. Resumes after the last whole batches.
    Raises UsageProblem for a conversation that loses its end of turn or that the model cannot read, for a subset that is not there
    and for a reward that is not finite.
    """
    use_threads(context.resources)
    model_folder = model_after(config.epoch, context.inputs["model"])
    try:
        items = chosen_items(list(read_jsonl(context.inputs["benchmark"] / f"{config.benchmark}.jsonl", Preference)), config)
        tokenizer = tokenizer_of(config, model_folder)
        rows = encode_completions(items, tokenizer, max_length=config.max_length, overlong=config.truncation, name=config.benchmark)
    except (DataError, TokenizerProblem) as error:
        raise UsageProblem(str(error)) from error
    group = join(context.resources) if context.resources.processes > 1 else ALONE
    model = _loaded(config, model_folder, place_of(context))
    batches = Batches(config, items, [row.ids for row in rows])
    require_rows(model.model, batches.rows, names_of(items, config.benchmark))
    pad_id = filler(model.model, tokenizer.pad_id)
    rewards = all_rewards(model, batches, pad_id, context, group)
    if not group.is_first:
        return
    scored = regroup(items, rows, rewards)
    write_lines(context.output / "rewards.jsonl", scored)
    masked = config.bos == "double-first-masked"
    is_model = model_facts(
        model, batches.rows, tokenizer.tokenizer, pad_id=pad_id, batch_tokens=config.batch_tokens, first_masked=masked
    )
    conditions = {**_conditions(config, scored, rows, batches), **not_written(tokenizer.unwritten), **is_model}
    (context.output / "conditions.json").write_text(json.dumps(conditions, indent=1) + "\n", encoding="utf-8")


def model_after(epoch: int, folder: Path) -> Path:
    """The folder of a model as it was after an epoch (1-based); 0 is the one that was kept. Raises UsageProblem where there is none."""
    if not epoch:
        return folder
    found = folder / EPOCHS / str(epoch)
    if not found.is_dir():
        raise UsageProblem(f"the reward model was not kept as it was after epoch {epoch}; train it with reward.selection=test")
    return found


def place_of(context: JobContext) -> torch.device | Spread:
    """The device of this process; or all GPUs of a single process that has several, for a model that is larger than one of them."""
    resources = context.resources
    if resources.processes == 1 and resources.gpus > 1:
        return Spread(gpus_of(resources))
    return device_of(resources)


def _loaded(config: ScoringConfig, folder: Path, device: torch.device | Spread) -> RewardModel:
    try:
        return load_reward_model(folder, dtype=torch_dtype(config.dtype), attention=config.attention, device=device)
    except ImportError as error:
        raise EnvironmentProblem(f"attention = {config.attention!r} is not installed here; set scoring.attention=sdpa") from error


def chosen_items(items: list[Preference], config: ScoringConfig) -> list[Preference]:
    """The items of the subset that is asked for, cut to the limit. Raises UsageProblem where the file has no such subset."""
    if config.subset:
        known = sorted({item.subset for item in items})
        items = [item for item in items if item.subset == config.subset]
        if not items:
            raise UsageProblem(f"{config.benchmark}.jsonl has no item of subset {config.subset!r}; it has {', '.join(map(repr, known))}")
    return items[: config.limit] if config.limit else items


def tokenizer_of(config: ScoringConfig, folder: Path) -> ConversationTokenizer | HarnessTokenizer:
    """The folder's tokenizer with the config's formatting. Raises TokenizerProblem where it cannot hold a conversation."""
    kind = HarnessTokenizer if config.formatting == "harness" else ConversationTokenizer
    return kind(load_tokenizer(folder), date_string=config.date_string, bos=config.bos)


class Batches:
    """The units in which rows are scored, each known by its number: a forward pass, or a chunk of items with their prompts kept."""

    def __init__(self, config: ScoringConfig, items: Sequence[Preference], rows: Sequence[Sequence[int]]) -> None:
        self.config, self.rows = config, rows
        lengths = [len(row) for row in rows]
        self.chunks: list[list[list[int]]] = []
        self.plain: list[list[int]] = []
        if config.batches == "shared-prompts":
            groups: dict[int, list[int]] = {}
            for index, completion in enumerate(completions_of(items)):
                groups.setdefault(completion.item, []).append(index)
            self.chunks = chunks_of_groups(rows, list(groups.values()), batch_tokens=config.batch_tokens)
        elif config.batches == "dataset-order":
            self.plain = dataset_order_batches(len(rows), config.batch_rows)
        else:
            self.plain = token_budget_batches(lengths, config.batch_tokens)
        self.computed = computed_tokens(rows, [group for chunk in self.chunks for group in chunk]) if self.chunks else sum(lengths)

    @property
    def count(self) -> int:
        """How many units."""
        return len(self.chunks or self.plain)

    def indices(self, number: int) -> list[int]:
        """The rows of one unit."""
        return [row for group in self.chunks[number] for row in group] if self.chunks else self.plain[number]

    def score(self, model: RewardModel, number: int, *, pad_id: int) -> list[RowBatch]:
        """Rewards of one unit."""
        first_masked = self.config.bos == "double-first-masked"
        if not self.chunks:
            return [score_batch(model, self.rows, self.plain[number], pad_id=pad_id, first_masked=first_masked)]
        budget = self.config.batch_tokens
        return score_chunk(model, self.rows, self.chunks[number], pad_id=pad_id, batch_tokens=budget, first_masked=first_masked)


def all_rewards(model: RewardModel, batches: Batches, pad_id: int, context: JobContext, group: ProcessGroup = ALONE) -> list[float]:
    """Rewards in the order of the rows, in every process of a group. Raises Interrupted after a batch when a stop was requested."""
    if batches.chunks:
        refuse_windows(model)
    group.check_same([batches.indices(number) for number in range(batches.count)], "batches")
    partial = PartialRewards(context.checkpoint, rank=group.rank)
    # What the first one has read: another may have read what a third was just writing.
    done: dict[int, tuple[list[int], list[float]]] = group.from_first(dict(partial.done))
    todo = [number for number in range(batches.count) if number not in done]
    scored = ScoredTokens(batches.rows, context.progress, called="completions")
    for rows, _ in done.values():
        scored.skip(rows)
    for start in range(0, len(todo), group.size):
        # Dealt out batch by batch: neighbours are alike in size.
        dealt = todo[start : start + group.size]
        for number in dealt[group.rank : group.rank + 1]:
            found = batches.score(model, number, pad_id=pad_id)
            indices = [index for one in found for index in one.indices]
            partial.add(number, indices, [reward for one in found for reward in one.rewards.tolist()])
        scored.add(index for number in dealt for index in batches.indices(number))
        if group.any(context.stop_requested()) and start + group.size < len(todo):
            raise Interrupted(f"stopped after {scored.rows} of {len(batches.rows)} completions, which are kept; the same command continues")
    rewards = [math.nan] * len(batches.rows)
    for one in group.gathered(partial.done):
        for rows, values in one.values():
            for index, reward in zip(rows, values, strict=True):
                rewards[index] = reward
    return rewards


def _conditions(
    config: ScoringConfig, scored: list[ScoredPreference], rows: list[EncodedConversation], batches: Batches
) -> dict[str, Any]:
    lengths = [len(row.ids) for row in rows]
    return {
        **config.model_dump(mode="json"),
        "items": len(scored),
        "completions": len(rows),
        "tokens": sum(lengths),
        "tokens_computed": batches.computed,
        "truncated_completions": sum(row.truncated for row in rows),
        "padding_share": round(padding_share(lengths, batches.plain), 6),
        "torch_threads": torch.get_num_threads(),
    }
