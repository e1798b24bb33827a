"""A reward for each cached state of a benchmark: what `score_benchmark` computes, without the backbone's forward pass.

Inputs: `model` (a head), `states`, `benchmark`. Writes as `score_benchmark`.
"""

from __future__ import annotations

import json

import torch

from sarm.checkpoints.reward_models.sparse_heads import load_head
from sarm.config.related import StateScoringConfig
from sarm.data.preferences import DataError, Preference, read_jsonl
from sarm.data.states import read_states, regrouped
from sarm.engine.devices import use_threads
from sarm.job import JobContext, UsageProblem
from sarm.store.json_files import read_facts
from sarm.store.json_lines import write_lines

ROWS_AT_ONCE = 1024


def score_states(config: StateScoringConfig, context: JobContext) -> None:
    """Inputs: `model` (a head), `states`, `benchmark` (`<benchmark>.jsonl`). Writes `rewards.jsonl` and `conditions.json`.

    Raises UsageProblem for states of other items than the benchmark's, of another layer or width than the head's, and for a reward
    that is not finite.
    """
    use_threads(context.resources)
    head, layout = load_head(context.inputs["model"])
    try:
        cached = read_states(context.inputs["states"])
        items = list(read_jsonl(context.inputs["benchmark"] / f"{config.benchmark}.jsonl", Preference))
    except DataError as error:
        raise UsageProblem(str(error)) from error
    harvested = read_facts(context.inputs["states"] / "conditions.json", "subset", "limit", "layer")
    asked = [(item.subset, item.id) for item in items if harvested["subset"] in ("", item.subset)]
    if [(item.subset, item.id) for item in cached.items] != (asked[: harvested["limit"]] if harvested["limit"] else asked):
        raise UsageProblem(f"the states are of other items than {config.benchmark}.jsonl; harvest them again")
    if (harvested["layer"], cached.states.shape[1]) != (layout.layer, layout.hidden_size):
        raise UsageProblem(
            f"the head reads {layout.hidden_size} numbers after block {layout.layer}, the states have {cached.states.shape[1]} after block "
            f"{harvested['layer']}; harvest at the head's layer"
        )
    with torch.inference_mode():
        parts = [head(part) for part in cached.states.split(ROWS_AT_ONCE)]
    try:
        scored = regrouped(cached.items, torch.cat(parts))
    except DataError as error:
        raise UsageProblem(str(error)) from error
    write_lines(context.output / "rewards.jsonl", scored)
    facts = {**harvested, **config.model_dump(mode="json"), "torch_threads": torch.get_num_threads()}
    (context.output / "conditions.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    context.progress(len(cached.states), len(cached.states), "replies", "")
