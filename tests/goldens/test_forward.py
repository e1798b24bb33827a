"""Forward passes of the released code against ours: weights, hidden states, latents, rewards, feature scores."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from golden_files import close, each, needs_sarm, read, tensors
from golden_model import Reference, pad_left, pad_right, reference
from torch import Tensor

from sarm.data.tokens import assistant_mask
from sarm.reward.steering import feature_scores
from sarm.sae.model import standardize

Maker = Callable[[Reference, str], tuple[Tensor, Tensor]]


def masked(values: Tensor, mask: Tensor) -> Tensor:
    """Values on real tokens; padding depends on the attention path and is not compared."""
    return values[mask.bool()]


def on_tokens(ours: Callable[[Reference], Tensor]) -> Maker:
    """Compare per-position tensors where the attention mask is 1."""
    return lambda r, name: (masked(ours(r), r.mask), masked(r.forward[name], r.mask))


def whole(ours: Callable[[Reference], Tensor]) -> Maker:
    """Compare whole tensors."""
    return lambda r, name: (ours(r), r.forward[name])


def reward(*, latents: str, ids: str = "input_ids", mask: str | None = None) -> Maker:
    """Compare rewards `[batch, 1]`."""
    return whole(lambda r: r.output(latents=latents, ids=ids, mask=mask).rewards[:, None])


def single_rows(latents: str) -> Maker:
    """Each row alone, without padding."""

    def one(r: Reference) -> Tensor:
        r.model.latents = latents
        return torch.cat([r.model(torch.tensor([row]), torch.tensor([len(row) - 1])).rewards for row in r.rows])[:, None]

    return whole(one)


def ones(rows: list[list[int]]) -> list[list[int]]:
    return [[1] * len(row) for row in rows]


def double_bos(r: Reference) -> list[list[int]]:
    return [[r.ids["bos"], *row] for row in r.rows]


def first_hidden(r: Reference) -> Tensor:
    mask = pad_right(ones(double_bos(r)), 0)
    mask[:, 0] = 0
    return mask


def last_latents(r: Reference) -> Tensor:
    return r.output(latents="topk").features


def released_scores(r: Reference) -> Tensor:
    """Our formula on the released latents: near a zero of its denominator it would enlarge the rounding of a forward pass."""
    theirs = r.forward["latents"]
    last = theirs[torch.arange(len(theirs)), r.forward["last_index"]]
    return feature_scores(last[0::2], last[1::2])


FORWARD: dict[str, Maker] = {
    "input_ids": whole(lambda r: pad_right(r.rows, r.ids["pad"])),
    "attention_mask": whole(lambda r: pad_right(ones(r.rows), 0)),
    "lengths": whole(lambda r: torch.tensor([len(row) for row in r.rows])),
    "last_index": whole(lambda r: torch.tensor([len(row) - 1 - row[::-1].index(r.ids["eot"]) for row in r.rows])),
    "assistant_masks": whole(lambda r: pad_right([assistant_mask(row, r.header, end_of_turn_id=r.ids["eot"]) for row in r.rows], 0)),
    "input_ids_leftpad": whole(lambda r: pad_left(r.rows, r.ids["pad"])),
    "attention_mask_leftpad": whole(lambda r: pad_left(ones(r.rows), 0)),
    "input_ids_double_bos": whole(lambda r: pad_right(double_bos(r), r.ids["pad"])),
    "attention_mask_double_bos": whole(lambda r: pad_right(ones(double_bos(r)), 0)),
    "attention_mask_double_bos_first_masked": whole(first_hidden),
    "hidden": on_tokens(lambda r: r.hidden),
    "hidden_states_all": lambda r, name: (
        torch.stack([masked(r.states[layer], r.mask) for layer in sorted(r.states)]),
        torch.stack([masked(layer, r.mask) for layer in r.forward[name]]),
    ),
    "h": on_tokens(lambda r: standardize(r.hidden).values),
    "h_mean": on_tokens(lambda r: standardize(r.hidden).mean),
    "h_std": on_tokens(lambda r: standardize(r.hidden).std),
    "pre_acts": on_tokens(lambda r: r.model.sae.pre_acts(r.model.sae.prepare(r.hidden))),
    "latents": on_tokens(lambda r: r.model.sae.encode(r.model.sae.prepare(r.hidden)).latents),
    "h_hat": on_tokens(lambda r: r.model.sae.decode(r.model.sae.encode(r.model.sae.prepare(r.hidden)).latents)),
    "reward_topk": reward(latents="topk"),
    "reward_notopk": reward(latents="pre_acts"),
    "reward_topk_sdpa": reward(latents="topk"),
    "reward_topk_single": single_rows("topk"),
    "reward_notopk_single": single_rows("pre_acts"),
    "reward_topk_leftpad": reward(latents="topk", ids="input_ids_leftpad", mask="attention_mask_leftpad"),
    "reward_notopk_leftpad": reward(latents="pre_acts", ids="input_ids_leftpad", mask="attention_mask_leftpad"),
    "reward_topk_double_bos": reward(latents="topk", ids="input_ids_double_bos", mask="attention_mask_double_bos"),
    "reward_topk_double_bos_first_masked": reward(
        latents="topk", ids="input_ids_double_bos", mask="attention_mask_double_bos_first_masked"
    ),
    "baseline_reward": whole(lambda r: r.baseline(r.forward["input_ids"], r.forward["last_index"]).rewards[:, None]),
    "score_c": whole(lambda r: last_latents(r)[0::2].sum(dim=0)),
    "score_j": whole(lambda r: last_latents(r)[1::2].sum(dim=0)),
    "score_s": whole(released_scores),
}


def unsteered(file: str) -> list[str]:
    """Names of tensors; those of edits are read in `test_steering.py`."""
    return sorted(name for name in tensors(file) if not name.startswith("steer_"))


@pytest.mark.parametrize("name", each("sarm/forward.safetensors", unsteered))
def test_forward_tensor_equals_the_released_code(name: str) -> None:
    assert name in FORWARD, f"nothing here computes the golden tensor {name!r}"
    ours, theirs = FORWARD[name](reference(), name)
    assert ours.shape == theirs.shape
    close(ours, theirs)


@pytest.mark.parametrize("name", each("sarm/model.safetensors", tensors))
def test_weight_is_loaded_as_released(name: str) -> None:
    assert torch.equal(reference().model.state_dict()[name], tensors("sarm/model.safetensors")[name])


@pytest.mark.parametrize("name", each("sarm/baseline_encoder.safetensors", tensors))
def test_baseline_weight_is_loaded_as_released(name: str) -> None:
    assert torch.equal(reference().baseline.state_dict()[name], tensors("sarm/baseline_encoder.safetensors")[name])


@needs_sarm
def test_geometry_is_read_from_flat_keys() -> None:
    raw, model = read("sarm/config.json"), reference().model
    assert (model.layer, model.sae.n_latents, model.sae.k) == (raw["sae_hidden_state_source_layer"], raw["sae_latent_size"], raw["sae_k"])
    assert model.model.config.hidden_size == raw["hidden_size"]
