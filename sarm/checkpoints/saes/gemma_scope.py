"""Gemma Scope: `params.npz` with `W_enc` `[d, M]`, `W_dec` `[M, d]`, `b_enc`, `b_dec`, `threshold`: JumpReLU on raw hidden states.

The decoder's bias is not taken off the input. The layer comes from the release's folders (`layer_20/width_16k/average_l0_71`), of
its residual-stream repositories; attention, MLP and transcoder releases have the same file, which only the caller can tell apart.
Tested against sae_lens 6.54.12's loader of this layout, the tutorial's formula being the same.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sarm.checkpoints.saes.imported import ImportedSAE, Parts, encoder_from, known_tensors, transposed
from sarm.job import UsageProblem
from sarm.store.json_files import place_of

LAYER_FOLDER = re.compile(r"layer_(\d+)")
NAMES = {"W_enc", "W_dec", "b_enc", "b_dec", "threshold"}


def read_gemma_scope(folder: Path) -> ImportedSAE:
    """The SAE of a folder, in float32. Raises UsageProblem for a file that holds anything but its five arrays."""
    what = folder.name
    tensors = _arrays(folder / "params.npz")
    known_tensors(tensors, NAMES, layout="Gemma Scope", file=folder / "params.npz")
    parts = Parts(
        encoder=transposed(tensors.get("W_enc")),
        decoder=transposed(tensors.get("W_dec")),
        pre_bias=tensors.get("b_dec"),
        latent_bias=tensors.get("b_enc"),
        threshold=tensors.get("threshold"),
    )
    sae = encoder_from(parts, activation="jumprelu", k=0, normalization="none", subtracts_bias=False, what=f"{what}/params.npz")
    found = next((match for part in reversed(folder.resolve().parts) if (match := LAYER_FOLDER.fullmatch(part))), None)
    return ImportedSAE(sae=sae, layer=int(found[1]) + 1 if found else None, layout="Gemma Scope")


def _arrays(path: Path) -> dict[str, Tensor]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            named = {("W_" + name[2:] if name.startswith("w_") else name): arrays[name] for name in arrays.files}
        return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in named.items()}
    except (ValueError, TypeError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise UsageProblem(f"{place_of(path)}: not an archive of plain arrays ({error}); pickles are not loaded") from error
