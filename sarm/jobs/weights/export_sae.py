"""An SAE of ours as files that SAELens or sparsify opens.

Writes the files of SAELens or sparsify, `export.json`.
"""

from __future__ import annotations

import json

from sarm.checkpoints.reward_models.sparse_heads import normalization_of
from sarm.checkpoints.saes.layouts import own_sae
from sarm.checkpoints.saes.sae_lens import export_sae_lens
from sarm.checkpoints.saes.sparsify import export_sparsify
from sarm.config.weights import SAEExportConfig
from sarm.job import JobContext, UsageProblem


def export_sae(config: SAEExportConfig, context: JobContext) -> None:
    """Location: `sae`, the folder of an SAE. Writes the layout's files and `export.json`.

    Raises UsageProblem for an SAE whose layer is not known (SAELens names its hook) and for activations that the layout lacks.
    """
    folder = context.locations["sae"]
    sae, layer, _ = own_sae(folder)
    if config.layout == "sae-lens":
        if layer is None:
            raise UsageProblem(f"{folder.name}: its files name no layer, which SAELens asks for; import it again with its layer")
        export_sae_lens(context.output, sae, layer=layer, model_name=config.model_name)
    else:
        export_sparsify(context.output, sae)
    # The layout has no input normalisation of its own: its library must be handed prepared states.
    first = normalization_of(sae) if config.layout == "sparsify" else "none"
    facts = {"layout": config.layout, "layer": layer, "n_latents": sae.n_latents, "normalize_first": first}
    (context.output / "export.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    context.progress(1, 1, "files", "")
