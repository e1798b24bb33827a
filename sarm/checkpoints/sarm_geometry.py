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

from sarm.checkpoints.settings_keys import (
    DECIDED,
    OBJECT,
    TRUTH,
    WHOLE,
    Keys,
    agreed,
    check_keys,
    check_kind,
    key_names,
    tell_unread,
)
from sarm.job import UsageProblem
from sarm.store.json_files import place_of, read_object, understood

RUN_NAME = re.compile(r"_Latent(?P<n_latents>\d+)_Layer(?P<layer>\d+)_K(?P<k>\d+)_")
LATENTS_IN_NAME = re.compile(r"-SARM-(?P<wo>wo)?TopK-")
# What the released code reads, inside `sarm_param` or beside the model's own keys; and what only its training reads.
KEYS = Keys(
    read={
        "sae_source_layer": WHOLE,
        "sae_hidden_state_source_layer": WHOLE,
        "sae_latent_size": WHOLE,
        "sae_k": WHOLE,
        "sarm_use_activation": DECIDED,
        "sarm_use_topk": DECIDED,
        "sae_use_sequence_level": TRUTH,
    },
    # Of nobody's release that we know; a name that says so can only mean another function than TopK.
    changing={"sae_activation": ("topk", "TopK"), "sarm_activation": ("topk", "TopK")},
    harmless=key_names("sarm_train_mode sarm_rec_lambda"),
)


class SARMGeometry(BaseModel):
    """What the tensors of a SARM alone do not say."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    layer: int
    n_latents: int
    k: int
    latents: Literal["topk", "pre_acts"]
    standardize: bool = True
    encoder: Literal["sae", "random_sae"] = "sae"


def geometry_in_config(raw: Mapping[str, Any], *, where: str = "config.json") -> SARMGeometry | None:
    """Geometry from our own keys, from `sarm_param` (December 2025 and the hub) or from flat keys; None where the config has neither.

    The layer defaults to half of `num_hidden_layers`; TopK is on unless a key says otherwise, as in the released loaders. `where`
    names the file. Warns of keys of the SAE that are not known. Raises UsageProblem for a `sarm_param` without width or k, for a value
    of another type than its key has, and for keys that contradict each other.
    """
    if raw.get("model_type") == "sarm" and raw.get("encoder") != "linear":
        return SARMGeometry(**{key: raw[key] for key in SARMGeometry.model_fields})
    check_kind(raw, "sarm_param", OBJECT, where)
    nested = raw.get("sarm_param") or {}
    flat = {key: value for key, value in raw.items() if key.startswith(("sae_", "sarm_")) and key not in ("sarm_param", "sae_convention")}
    check_keys(nested, KEYS, where, within="sarm_param")
    if nested:
        absent = [key for key in ("sae_latent_size", "sae_k") if nested.get(key) is None]
        if absent:
            raise UsageProblem(f"{where}: sarm_param has no {absent[0]!r}, so the SAE's geometry is unknown; add it")
        # Off, and yet perhaps not as it was: a key of so small a list is told whatever it says.
        known = KEYS.read.keys() | KEYS.changing.keys() | KEYS.harmless
        tell_unread([f"sarm_param.{key}" for key, value in nested.items() if key not in known and value in (False, 0, "")], where)
    elif "sae_latent_size" not in raw or "sae_k" not in raw:
        return None
    check_keys(flat, KEYS, where)
    return _geometry({**flat, **{f"sarm_param.{key}": value for key, value in nested.items()}}, raw, where)


def _geometry(stated: Mapping[str, Any], raw: Mapping[str, Any], where: str) -> SARMGeometry:
    def one(*keys: str) -> Any:
        return agreed(stated, *(f"{place}{key}" for place in ("sarm_param.", "") for key in keys), where=where)

    layer, topk = one("sae_source_layer", "sae_hidden_state_source_layer"), one("sarm_use_activation", "sarm_use_topk")
    if layer is None:
        layer = int(raw.get("num_hidden_layers", 0)) // 2
    elif layer < 1:
        raise UsageProblem(f"{where}: the SAE's source layer is {layer}; it must be 1 or more, the number of blocks before its states")
    return SARMGeometry(
        layer=int(layer),
        n_latents=int(one("sae_latent_size")),
        k=int(one("sae_k")),
        latents="pre_acts" if topk is False else "topk",
    )


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
        stated = geometry_in_config(raw, where=place_of(path))
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
