"""Edits of latents: rewards and feature vectors after each one that the released code made."""

from __future__ import annotations

import re

import pytest
from golden_files import close, each, needs_sarm, read, tensors
from golden_model import reference

from sarm.reward.steering import Edit

TENSOR = re.compile(r"(?P<key>steer_.+_topk(?P<topk>[01]))_(?P<what>features|reward)")


def steered(file: str) -> list[str]:
    """Names of the tensors of edits."""
    return sorted(name for name in tensors(file) if name.startswith("steer_"))


@pytest.mark.parametrize("name", each("sarm/forward.safetensors", steered))
def test_edited_rewards_and_features_equal_the_released_ones(name: str) -> None:
    match = TENSOR.fullmatch(name)
    cases = {case["key"]: case for case in read("sarm/steering.json")}
    # The reward of the unedited model stands beside those of the edits, but is no case of the file.
    unedited = {f"steer_none_topk{topk}": {"steering": {}, "sarm_use_topk": bool(topk)} for topk in (0, 1)}
    case = {**unedited, **cases}.get(match["key"]) if match else None
    assert match and case, f"nothing here computes the golden tensor {name!r}"
    r = reference()
    r.model.edits = {int(latent): Edit(*edit) for latent, edit in case["steering"].items()}
    try:
        output = r.output(latents="topk" if case["sarm_use_topk"] else "pre_acts")
    finally:
        r.model.edits = {}
    ours = output.features if match["what"] == "features" else output.rewards[:, None]
    assert ours.shape == r.forward[name].shape
    close(ours, r.forward[name])


@needs_sarm
def test_every_edit_has_its_tensors() -> None:
    names = set(tensors("sarm/forward.safetensors"))
    for case in read("sarm/steering.json"):
        assert {f"{case['key']}_reward", f"{case['key']}_features"} <= names
