"""SAFER's training-free score: latents that are stronger on one side of the pairs, added up with their signs.

Inputs: `states`, `sae`, `backbone`. Writes as `train_sparse_rm`, without `metrics.jsonl`.
"""

from __future__ import annotations

import json

from sarm.checkpoints.reward_models.sparse_heads import check_fit, parameter_facts, save_head, write_backbone
from sarm.checkpoints.saes.layouts import own_sae
from sarm.config.related import SaferConfig
from sarm.data.preferences import DataError
from sarm.data.states import read_states
from sarm.engine.devices import torch_dtype, use_threads
from sarm.job import JobContext, UsageProblem
from sarm.reward.sparse_rm import Activations, latent_statistics, safer_head, safer_scores
from sarm.store.json_files import read_facts


def fit_safer(config: SaferConfig, context: JobContext) -> None:
    """Inputs: `states` (of `train`), `sae`, `backbone`. Writes a head, `training.json` and `latents.json`; nothing is trained.

    Raises UsageProblem for parts that do not fit and where no latent prefers a side.
    """
    use_threads(context.resources)
    try:
        chosen, rejected = read_states(context.inputs["states"]).pairs()
    except DataError as error:
        raise UsageProblem(str(error)) from error
    chosen, rejected = (side[: config.max_pairs or len(side)] for side in (chosen, rejected))
    sae, layer, _ = own_sae(context.inputs["sae"])
    conditions = read_facts(context.inputs["states"] / "conditions.json", "layer", "pooling")
    check_fit(conditions, layer=config.layer, sae=sae, sae_layer=layer, width=chosen.shape[1], whole=config.whole)
    context.progress(0, 1, "steps", "feature scores")
    scores = safer_scores(latent_statistics(sae, chosen, rejected))
    try:
        head = safer_head(sae, scores, config.selected)
    except ValueError as error:
        raise UsageProblem(str(error)) from error
    save_head(context.output, head, layer=config.layer, hidden_size=chosen.shape[1])
    if config.whole:
        write_backbone(context.inputs["backbone"], context.output, layer=config.layer, dtype=torch_dtype(conditions["dtype"]))
    picked = head.reader.chosen.tolist() if isinstance(head.reader, Activations) else []
    facts = {"pairs": len(chosen), **parameter_facts(context.inputs["backbone"], config.layer, head)}
    facts |= {"trainable_parameters": 0, "share_of_kept_backbone": 0.0, "share_of_backbone": 0.0, "selected": len(picked)}
    (context.output / "training.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    listed = [{"latent": one, "score": round(float(scores[one]), 6)} for one in picked]
    (context.output / "latents.json").write_text(json.dumps(listed) + "\n", encoding="utf-8")
    context.progress(1, 1, "steps", "")
