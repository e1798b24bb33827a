"""The authors' reward-model layout: where it writes the SAE's geometry, in each of its conventions.

Tensor names are those of `sarm.reward.models.SARM`; `model.norm.weight` is stored and never applied. Sources: sarm-released-code
section 1.2 and 1.3 (released code at 19dd4e2, later commits, and the hub checkpoints).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from sarm.job import UsageProblem
from sarm.store.json_files import place_of, read_object, understood

RUN_NAME = re.compile(r"_Latent(?P<n_latents>\d+)_Layer(?P<layer>\d+)_K(?P<k>\d+)_")
LATENTS_IN_NAME = re.compile(r"-SARM-(?P<wo>wo)?TopK-")


class SARMGeometry(BaseModel):
    """What the tensors of a SARM alone do not say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layer: int
    n_latents: int
    k: int
    latents: Literal["topk", "pre_acts"]
    standardize: bool = True
    encoder: Literal["sae", "random_sae"] = "sae"


def geometry_in_config(raw: Mapping[str, Any]) -> SARMGeometry | None:
    """Geometry from our own keys, from `sarm_param` (December 2025 and the hub) or from flat keys; None where the config has neither.

    The layer defaults to half of `num_hidden_layers`; TopK is on unless a key says otherwise, as in the released loaders.
    Raises UsageProblem for a `sarm_param` without width or k.
    """
    if raw.get("model_type") == "sarm" and raw.get("encoder") != "linear":
        return SARMGeometry(**{key: raw[key] for key in SARMGeometry.model_fields})
    half = int(raw.get("num_hidden_layers", 0)) // 2
    nested = raw.get("sarm_param")
    if nested:
        absent = [key for key in ("sae_latent_size", "sae_k") if key not in nested]
        if absent:
            raise UsageProblem(f"config.json: sarm_param has no {absent[0]!r}, so the SAE's geometry is unknown; add it")
        return _geometry(
            layer=nested.get("sae_source_layer") or half,
            n_latents=nested["sae_latent_size"],
            k=nested["sae_k"],
            topk=nested.get("sarm_use_activation", nested.get("sarm_use_topk", True)),
        )
    if "sae_latent_size" in raw and "sae_k" in raw:
        layer = raw.get("sae_hidden_state_source_layer", raw.get("sae_source_layer")) or half
        return _geometry(layer=layer, n_latents=raw["sae_latent_size"], k=raw["sae_k"], topk=raw.get("sarm_use_topk", True))
    return None


def _geometry(*, layer: int, n_latents: int, k: int, topk: bool) -> SARMGeometry:
    return SARMGeometry(layer=layer, n_latents=n_latents, k=k, latents="topk" if topk else "pre_acts")


def geometry_in_name(name: str) -> SARMGeometry:
    """Geometry from a run directory's name (August 2025). For the importer alone.

    Deviation: the released loaders test `"TopK" in name`, which `woTopK` also passes; ours tells the two apart.
    Raises UsageProblem for a name without the pattern.
    """
    found = RUN_NAME.search(name)
    if not found:
        raise UsageProblem(f"{name}: no geometry in config.json and no _Latent<M>_Layer<l>_K<k>_ in the directory's name")
    latents = LATENTS_IN_NAME.search(name)
    if not latents:
        raise UsageProblem(f"{name}: the directory's name says neither -SARM-TopK- nor -SARM-woTopK-, so the head's input is unknown")
    return SARMGeometry(
        layer=int(found["layer"]),
        n_latents=int(found["n_latents"]),
        k=int(found["k"]),
        latents="pre_acts" if latents["wo"] else "topk",
    )


def keep_geometry(folder: Path, source: Path) -> None:
    """Write the geometry that stands in the name of `source` alone into `folder`'s `config.json`; nothing where it stands there.

    A `checkpoint-N` folder is named by its parent. Raises UsageProblem for a name without geometry.
    """
    path = folder / "config.json"
    raw = read_object(path)
    with understood(place_of(path)):
        stated = geometry_in_config(raw)
    if stated is not None:
        return
    found = geometry_in_name(source.parent.name if source.name.startswith("checkpoint-") else source.name)
    raw["sarm_param"] = {
        "sae_source_layer": found.layer,
        "sae_latent_size": found.n_latents,
        "sae_k": found.k,
        "sarm_use_activation": found.latents == "topk",
    }
    path.write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
