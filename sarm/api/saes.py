"""A sparse autoencoder: hidden states to latents and back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from sarm.api.inputs import checked_place
from sarm.checkpoints.saes.layouts import read_sae
from sarm.data import notebook
from sarm.job import UsageProblem
from sarm.sae.model import Encoding, TopKSAE
from sarm.sae.sparse_encoder import SparseEncoder


@dataclass(frozen=True, eq=False)
class LoadedSAE:
    """An SAE of any layout; `module` is its torch module. Made by `load_sae`, or taken from a reward model (`model.sae`).

    `layer` counts the decoder blocks before its hidden states, None where the files do not say. `layout` names where it came from.
    Everything is computed in the SAE's precision, on its device, without gradients.
    """

    path: Path
    module: TopKSAE = field(repr=False)
    layer: int | None
    layout: str

    def _repr_html_(self) -> str:
        sizes = {"hidden size": self.hidden_size, "latents": self.n_latents, "k": self.k, "after block": self.layer}
        return notebook.facts(f"SAE {self.path.name}", {"layout": self.layout, **sizes})

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states."""
        return self.module.hidden_size

    @property
    def n_latents(self) -> int:
        """Width of the dictionary."""
        return self.module.n_latents

    @property
    def k(self) -> int:
        """Latents that a token keeps; 0 for an activation that keeps no fixed number (ReLU, JumpReLU)."""
        return self.module.convention["k"] if isinstance(self.module, SparseEncoder) else self.module.k

    @torch.no_grad()
    def encode(self, hidden_states: Tensor) -> Encoding:
        """`[..., hidden_size]` as the model gives them to `pre_acts` and `latents`, `[..., n_latents]` each.

        The input normalisation that belongs to the SAE is done here. Raises UsageProblem for another width.
        """
        return self.module.encode(self.module.prepare(self._checked(hidden_states, self.hidden_size, "hidden states")))

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """`[..., n_latents]` to `[..., hidden_size]`, on the scale of *normalised* hidden states; see `reconstruct` for the model's own.

        Raises UsageProblem for another width.
        """
        return self.module.decode(self._checked(latents, self.n_latents, "latents"))

    @torch.no_grad()
    def reconstruct(self, hidden_states: Tensor) -> Tensor:
        """Encoded, decoded, and put back on the scale of `hidden_states`: `[..., hidden_size]` to the same."""
        states = self._checked(hidden_states, self.hidden_size, "hidden states")
        latents = self.module.encode(self.module.prepare(states)).latents
        return self.module.restore(self.module.decode(latents), states)

    def _checked(self, values: Tensor, width: int, what: str) -> Tensor:
        if values.ndim == 0 or values.shape[-1] != width:
            raise UsageProblem(f"{self.path.name}: {what} of shape {list(values.shape)}; this SAE takes {width} numbers in the last axis")
        return values.to(device=self.module.pre_bias.device, dtype=self.module.pre_bias.dtype)


def load_sae(path: str | Path, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> LoadedSAE:
    """An SAE from a folder: ours, inside a SARM, SAELens, sparsify, dictionary_learning, Llama Scope, Gemma Scope; or the authors' `.pt`.

    Raises UsageProblem for an unknown layout and for what cannot be converted exactly, EnvironmentProblem for files that are absent.
    """
    place, precision = checked_place(device, dtype)
    found = read_sae(Path(path))
    return LoadedSAE(path=Path(path), module=found.sae.to(device=place, dtype=precision), layer=found.layer, layout=found.layout)
