"""Our reward models with the weights of `goldens/sarm`, and their forward passes on its rows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, cached_property

import torch
from folders import GOLDENS
from golden_files import read, tensors
from torch import Tensor

from sarm.backbone.decoder import hidden_states, truncated_backbone
from sarm.checkpoints.reward_models.layouts import backbone_config, load_reward_model, read_config
from sarm.reward.models import SARM, LinearEncoderRewardModel, PooledOutput

FOLDER = GOLDENS / "sarm"


class Reference:
    """A model of its own, and what it gives for the golden rows, each computed once."""

    def __init__(self) -> None:
        self.forward = tensors("sarm/forward.safetensors")
        self.ids = read("sarm/meta.json")["token_ids"]
        model = load_reward_model(FOLDER)
        assert isinstance(model, SARM)
        self.model = model

    @property
    def mask(self) -> Tensor:
        """1 on real tokens, `[batch, seq]`."""
        return self.forward["attention_mask"]

    @cached_property
    def rows(self) -> list[list[int]]:
        """Token ids without padding."""
        ids, lengths = self.forward["input_ids"], self.forward["lengths"]
        return [row[: int(length)].tolist() for row, length in zip(ids, lengths, strict=True)]

    @property
    def header(self) -> list[int]:
        """Ids of the assistant header."""
        return [self.ids[name] for name in ("sh", "asst", "eh", "nn")]

    def output(self, *, latents: str, ids: str = "input_ids", mask: str | None = None) -> PooledOutput:
        """Pooled at the last real token; right-padded rows need no mask."""
        self.model.latents = latents
        input_ids = self.forward[ids]
        attention = None if mask is None else self.forward[mask]
        if ids.endswith("leftpad"):
            last = torch.full((len(input_ids),), input_ids.shape[1] - 1)
        else:
            last = self.forward["last_index"] + (1 if "double_bos" in ids else 0)
        return self.model(input_ids, last, attention)

    @cached_property
    def states(self) -> dict[int, Tensor]:
        """Hidden states of every layer that the goldens hold."""
        layers = list(range(len(self.forward["hidden_states_all"])))
        return hidden_states(self.model.model, self.forward["input_ids"], layers, self.mask)

    @property
    def hidden(self) -> Tensor:
        """Hidden states that the SAE reads."""
        return self.states[self.model.layer]

    @cached_property
    def baseline(self) -> LinearEncoderRewardModel:
        """The released random-init baseline."""
        return linear_baseline()


@cache
def reference() -> Reference:
    """One set of forward passes for all tests that train nothing."""
    return Reference()


def linear_baseline() -> LinearEncoderRewardModel:
    """The released random-init baseline with the golden weights."""
    config = backbone_config(read_config(FOLDER), what="goldens")
    sarm = load_reward_model(FOLDER)
    extra = tensors("sarm/baseline_encoder.safetensors")
    backbone = truncated_backbone(config, sarm.layer)
    model = LinearEncoderRewardModel(backbone, hidden_size=config.hidden_size, n_latents=len(extra["untrained_sae_encoder.bias"]))
    state = {name: value for name, value in sarm.state_dict().items() if not name.startswith("sae.")}
    model.load_state_dict({**state, **extra})
    return model.eval()


def pad_right(rows: Sequence[Sequence[int]], pad: int) -> Tensor:
    """Rows filled up at their end, `[batch, seq]`."""
    width = max(len(row) for row in rows)
    return torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows])


def pad_left(rows: Sequence[Sequence[int]], pad: int) -> Tensor:
    """Rows filled up at their start, `[batch, seq]`."""
    width = max(len(row) for row in rows)
    return torch.tensor([[*[pad] * (width - len(row)), *row] for row in rows])
