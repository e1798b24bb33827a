"""Every completion of a benchmark as a sum over latents, and every latent by what it does there: what an explorer shows.

Inputs: `model`, `benchmark`. Writes `items.jsonl`, `completions.safetensors`, `latents.safetensors`, `exploration.json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import Tensor

from sarm.backbone.decoder import filler, require_rows
from sarm.checkpoints.backbones import load_tokenizer
from sarm.checkpoints.reward_models.layouts import load_reward_model
from sarm.config.latents import ExplorationConfig
from sarm.data.harness import HarnessTokenizer
from sarm.data.preferences import DataError, Preference, ScoredPreference, read_jsonl
from sarm.data.tokens import ConversationTokenizer, EncodedConversation, TokenizerProblem
from sarm.data.turn_ends import IN_PROFILE, ON_COMMAND_LINE
from sarm.engine.devices import device_of, torch_dtype, use_threads
from sarm.explain.contributions import ROWS_AT_ONCE, LatentSums, Parts, SparseRewards, by_latent, gaps, joined, nearest_columns, parts_of
from sarm.explain.edits import EditedAccuracies
from sarm.job import IntegrityProblem, Interrupted, JobContext, UsageProblem
from sarm.metrics.rmbench import STYLES
from sarm.reward.models import SARM, RewardModel
from sarm.reward.sparse_model import SparseRewardModel
from sarm.reward.sparse_rm import Activations
from sarm.sae.model import TopKSAE
from sarm.scoring.completions import completions_of, encode_completions, names_of, regroup
from sarm.scoring.conversations import head_latents
from sarm.scoring.inference import RowBatch, score_rows
from sarm.scoring.progress import ScoredTokens
from sarm.store.json_lines import write_lines

STYLE_NAMES = ("concise", "detailed", "detailed Markdown")
REMOVED, DOUBLED = 0.0, 2.0


class Group(NamedTuple):
    """Completions that are counted together: of one side, and perhaps of one subset or style."""

    side: str
    subset: str
    style: str


class Model(NamedTuple):
    """A reward model with its SAE, the SAE's number of each feature of its head, and whether the head reads all pre-activations."""

    reward: RewardModel
    sae: TopKSAE
    numbers: Tensor
    reads_all: bool


class Found(NamedTuple):
    """What the passes gave: rewards `[rows]`, the parts of each, sums over groups, contributions of the edited latents `[rows, edited]`."""

    rewards: np.ndarray
    parts: SparseRewards
    sums: LatentSums
    columns: np.ndarray


def explore_latents(config: ExplorationConfig, context: JobContext) -> None:
    """Inputs: `model` (or the location `model`), `benchmark`. Writes four files.

    `items.jsonl`: the items as read. `completions.safetensors`, a row a completion in the order of `completions_of`: `rewards`,
    `truncated`, `tokens` (which of `scored_tokens`), `rest` `[rows]`; `starts` `[rows + 1]`, and `latents`, `activations`, `contributions`
    of row i at `starts[i]` to `starts[i + 1]`. `latents.safetensors`: `head` `[n_latents]`; `fired`, `contribution`, `square`, `product`
    `[groups, n_latents]` (sums over the completions of a group, see `LatentSums`); `neighbours`, `cosines` `[n_latents, n]`; `removed`,
    `doubled` `[n_latents, columns]` (accuracies after the edit; NaN where not computed). `exploration.json`: sizes, groups, columns with
    the accuracies as they are, what is missing and why, the constant. A reward is `constant` plus its contributions plus `rest`.

    Raises UsageProblem for a model whose reward is no sum over latents, a wrong row and a reward that is not finite; IntegrityProblem
    where a reward is not the sum of its parts.
    """
    use_threads(context.resources)
    folder = context.inputs.get("model") or context.locations["model"]
    try:
        items = _items(config, context.inputs["benchmark"])
        tokenizer = _tokenizer(config, folder)
        rows = encode_completions(items, tokenizer, max_length=config.max_length, overlong=config.truncation, name=config.benchmark)
    except (DataError, TokenizerProblem) as error:
        raise UsageProblem(str(error)) from error
    model = _loaded(config, context, folder)
    names = names_of(items, config.benchmark)
    require_rows(model.reward.model, [row.ids for row in rows], names)
    groups = groups_of(items, config.benchmark)
    constant = _constant(model.reward)
    found = _scored(config, context, model, rows, members=members_of(items, groups, config.benchmark), pad_id=tokenizer.pad_id)
    scored = regroup(items, rows, found.rewards.tolist())
    _require_sums(found, names, constant=constant)
    context.progress(1, 1, "steps", "edits and neighbours")
    accuracies = EditedAccuracies(config.benchmark, scored)
    write_lines(context.output / "items.jsonl", items)
    scored_tokens = _write_completions(context.output, found, rows, tokenizer)
    head = _head(model)
    edits = edited_accuracies(found, scored, accuracies, order=_edited(config, model, head), n_latents=len(head))
    _write_latents(context.output, config, model, head=head, sums=found.sums, edits=edits)
    facts = _facts(config, model, found, groups=groups, members=members_of(items, groups, config.benchmark), accuracies=accuracies)
    facts |= {"items": len(items), "constant": constant, "scored_tokens": scored_tokens}
    (context.output / "exploration.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _items(config: ExplorationConfig, folder: Path) -> list[Preference]:
    """The items asked for. Raises UsageProblem where there is none."""
    path = folder / f"{config.benchmark}.jsonl"
    if not path.exists():
        raise UsageProblem(f"{path.name}: the benchmark has no such file; choose another --benchmark")
    items = list(read_jsonl(path, Preference))
    if config.subset:
        known = sorted({item.subset for item in items})
        items = [item for item in items if item.subset == config.subset]
        if not items:
            raise UsageProblem(f"{path.name} has no item of subset {config.subset!r}; it has {', '.join(map(repr, known))}")
    if not items:
        raise UsageProblem(f"{path.name}: no item at all; there is nothing to explore")
    return items[: config.limit] if config.limit else items


def _tokenizer(config: ExplorationConfig, folder: Path) -> ConversationTokenizer | HarnessTokenizer:
    loaded = load_tokenizer(folder)
    if config.formatting == "harness":
        return HarnessTokenizer(loaded, date_string=config.date_string, bos=config.bos)
    asked: dict[str, Any] = {"end_of_turn": config.end_of_turn, "pooling": config.pooling}
    advice = ON_COMMAND_LINE if config.model_digest else IN_PROFILE
    return ConversationTokenizer(loaded, date_string=config.date_string, bos=config.bos, advice=advice, **asked)


def _loaded(config: ExplorationConfig, context: JobContext, folder: Path) -> Model:
    dtype, device = torch_dtype(config.dtype), device_of(context.resources)
    reward = load_reward_model(folder, dtype=dtype, attention=config.attention, device=device)
    numbers = head_latents(reward, name=folder.name)
    if isinstance(reward, SARM):
        return Model(reward, reward.sae, numbers, reads_all=reward.latents == "pre_acts")
    assert isinstance(reward, SparseRewardModel) and isinstance(reward.head.reader, Activations)
    return Model(reward, reward.head.reader.sae, numbers, reads_all=False)


def groups_of(items: Sequence[Preference], benchmark: str) -> list[Group]:
    """Both sides over all items, in each subset, and where the benchmark has styles in each of them."""
    subsets = list(dict.fromkeys(item.subset for item in items if item.subset))
    styles = STYLE_NAMES if benchmark == "rmbench" else ()
    places = [("", ""), *((subset, "") for subset in subsets), *(("", style) for style in styles)]
    return [Group(side, subset, style) for subset, style in places for side in ("chosen", "rejected")]


def members_of(items: Sequence[Preference], groups: Sequence[Group], benchmark: str) -> Tensor:
    """Which completion is in which group, `[groups, rows]`. Styles are those of items with three replies on each side."""
    lines = []
    for completion in completions_of(items):
        item = items[completion.item]
        styled = benchmark == "rmbench" and len(item.chosen) == len(item.rejected) == STYLES
        style = STYLE_NAMES[completion.place] if styled else None
        lines.append([one.side == completion.side and one.subset in ("", item.subset) and one.style in ("", style) for one in groups])
    return torch.tensor(lines, dtype=torch.bool).T


def _scored(
    config: ExplorationConfig,
    context: JobContext,
    model: Model,
    rows: Sequence[EncodedConversation],
    *,
    members: Tensor,
    pad_id: int,
) -> Found:
    """All rewards with their parts. Latents are looked at densely for some rows at a time, never for all."""
    n_latents = model.sae.n_latents
    weights = model.reward.score.weight[0].detach().float()
    order = torch.tensor(_edited(config, model, _head(model)) if model.reads_all else [], dtype=torch.long)
    rewards, columns = torch.full((len(rows),), torch.nan), np.zeros((len(rows), len(order)), dtype=np.float32)
    parts: dict[int, Parts] = {}
    sums = LatentSums.zeros(len(members), n_latents)
    kept = config.kept if model.reads_all else 0
    ids = [row.ids for row in rows]
    scored = ScoredTokens(ids, context.progress, called="completions")

    def take(batch: RowBatch) -> None:
        rewards[batch.indices] = batch.rewards
        for start in range(0, len(batch.indices), ROWS_AT_ONCE):
            chosen = batch.indices[start : start + ROWS_AT_ONCE]
            active = batch.features[start : start + ROWS_AT_ONCE].float()
            shares = (active * weights).cpu()
            active = active.cpu()
            parts.update(zip(chosen, parts_of(active, shares, model.numbers, kept=kept), strict=True))
            wide = [_widened(one, model.numbers, n_latents) for one in (active, shares)]
            sums.add(wide[0], wide[1], rewards[chosen], members[:, chosen], above_zero=model.reads_all)
            columns[chosen] = wide[1][:, order].numpy()
        scored.add(batch.indices)
        if context.stop_requested() and len(parts) < len(rows):
            raise Interrupted(f"stopped after {len(parts)} of {len(rows)} completions; the same command starts this step again")

    first_masked = config.bos == "double-first-masked"
    pad = filler(model.reward.model, pad_id)
    score_rows(model.reward, ids, pad_id=pad, batch_tokens=config.batch_tokens, first_masked=first_masked, take=take)
    return Found(rewards.numpy(), joined([parts[row] for row in range(len(rows))]), sums, columns)


def _widened(values: Tensor, numbers: Tensor, n_latents: int) -> Tensor:
    """`[rows, features]` as `[rows, n_latents]`, 0 where the head reads nothing."""
    return values if values.shape[1] == n_latents else torch.zeros(len(values), n_latents).index_copy(1, numbers, values)


def _head(model: Model) -> np.ndarray:
    """The head's weight on each latent of the SAE, `[n_latents]`."""
    weights = model.reward.score.weight.detach().float().cpu()
    return _widened(weights, model.numbers, model.sae.n_latents)[0].numpy().copy()


def _edited(config: ExplorationConfig, model: Model, head: np.ndarray) -> list[int]:
    """The latents with the largest head weights, whose contributions are kept for all completions where the head reads all."""
    return np.argsort(-np.abs(head), kind="stable")[: config.edited].tolist() if model.reads_all else []


@torch.inference_mode()
def _constant(model: RewardModel) -> float:
    """What the head gives without any latent: 0 for the heads that we know, none of which has a bias; asked all the same."""
    return float(model.reward_of(torch.zeros_like(model.score.weight[0])))


def _require_sums(found: Found, names: Sequence[str], *, constant: float) -> None:
    apart, allowed = gaps(found.parts, found.rewards, constant=constant)
    worst = int(np.argmax(apart - allowed)) if len(apart) else 0
    if len(apart) and apart[worst] > allowed[worst]:
        said = f"the reward is {found.rewards[worst]:.6g}, {apart[worst]:.3g} from the sum of its contributions"
        raise IntegrityProblem(f"{names[worst]}: {said} (rounding explains {allowed[worst]:.3g}); this head is no sum over latents")


def edited_accuracies(
    found: Found, scored: Sequence[ScoredPreference], accuracies: EditedAccuracies, *, order: Sequence[int], n_latents: int
) -> dict[str, np.ndarray]:
    """Accuracies with each latent removed and doubled, `[n_latents, columns]`: as they are for one that never fires.

    `order` are the latents of `found.columns`; where there are some, the others are not known and NaN.
    """
    base = np.array(accuracies.base, dtype=np.float32)
    tables = {name: np.tile(base if not order else np.full_like(base, np.nan), (n_latents, 1)) for name in ("removed", "doubled")}
    every = np.arange(len(found.rewards))
    edits = ((latent, every, found.columns[:, place]) for place, latent in enumerate(order)) if order else by_latent(found.parts)
    sizes = [(len(item.chosen_rewards), len(item.rejected_rewards)) for item in scored]
    firsts = np.concatenate([[0], np.cumsum([sum(size) for size in sizes])])
    for latent, rows, contributions in edits:
        touched = np.unique(np.searchsorted(firsts, rows, side="right") - 1)
        for name, factor in (("removed", REMOVED), ("doubled", DOUBLED)):
            rewards = found.rewards.astype(np.float64)
            rewards[rows] += (factor - 1) * contributions.astype(np.float64)
            # In the precision in which a model gives rewards: replies that are equal stay tied.
            rewards = rewards.astype(np.float32)
            changed = {int(item): _sides(rewards, int(firsts[item]), *sizes[item]) for item in touched}
            tables[name][latent] = accuracies.after(changed)
    return tables


def _sides(rewards: np.ndarray, first: int, chosen: int, rejected: int) -> tuple[list[float], list[float]]:
    return rewards[first : first + chosen].tolist(), rewards[first + chosen : first + chosen + rejected].tolist()


def _write_completions(
    output: Path, found: Found, rows: Sequence[EncodedConversation], tokenizer: ConversationTokenizer | HarnessTokenizer
) -> list[str]:
    """`completions.safetensors`; gives the scored tokens as text, each once."""
    last = [row.ids[-1] for row in rows]
    known = list(dict.fromkeys(last))
    tensors = {
        **found.parts._asdict(),
        "rewards": found.rewards,
        "truncated": np.array([row.truncated for row in rows], dtype=np.uint8),
        "tokens": np.array([known.index(one) for one in last], dtype=np.int32),
    }
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, output / "completions.safetensors")
    return [str(tokenizer.tokenizer.decode([one])) for one in known]


def _write_latents(
    output: Path, config: ExplorationConfig, model: Model, *, head: np.ndarray, sums: LatentSums, edits: Mapping[str, np.ndarray]
) -> None:
    neighbours, cosines = nearest_columns(model.sae.decoder.weight.detach(), config.neighbours)
    tensors = {
        "head": head,
        "fired": sums.fired.to(torch.int32).numpy(),
        **{name: getattr(sums, name).numpy() for name in ("contribution", "square", "product")},
        "neighbours": neighbours.numpy(),
        "cosines": cosines.numpy(),
        **edits,
    }
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, output / "latents.safetensors")


def _facts(
    config: ExplorationConfig, model: Model, found: Found, *, groups: Sequence[Group], members: Tensor, accuracies: EditedAccuracies
) -> dict[str, Any]:
    counts = members.sum(dim=1).tolist()
    apart, allowed = gaps(found.parts, found.rewards, constant=_constant(model.reward))
    return {
        **config.model_dump(mode="json"),
        "n_latents": model.sae.n_latents,
        "latents_in_head": len(model.numbers),
        "completions": len(found.rewards),
        "head_reads": "pre-activations" if model.reads_all else "latents",
        "never_fired": int((found.sums.fired[:2].sum(dim=0) == 0).sum()),
        "groups": [{**group._asdict(), "completions": count} for group, count in zip(groups, counts, strict=True)],
        "columns": list(accuracies.columns),
        "accuracies": list(accuracies.base),
        "missing": accuracies.missing,
        "largest_gap": float(apart.max()),
        "largest_gap_allowed": float(allowed.max()),
    }
