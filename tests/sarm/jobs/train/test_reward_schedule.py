"""The learning rate of reward training, step by step."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from transformers import get_wsd_schedule

from sarm.config.train import RewardTrainingConfig
from sarm.jobs.train.reward import rate_multiplier


def settings(**changes: Any) -> RewardTrainingConfig:
    return RewardTrainingConfig(layer=1, **changes)


def test_schedule_warms_up_and_falls_along_a_cosine() -> None:
    cosine = [rate_multiplier(settings(warmup_fraction=0.1), step=step, steps=21) for step in range(22)]
    assert cosine[:4] == [0.0, pytest.approx(1 / 3), pytest.approx(2 / 3), 1.0]
    assert cosine[12] == pytest.approx(0.5) and cosine[21] == pytest.approx(0.0)
    flat = [rate_multiplier(settings(warmup_fraction=0.0, schedule="constant"), step=step, steps=4) for step in range(4)]
    assert flat == [1.0] * 4


@pytest.mark.parametrize(("steps", "warmup", "decay"), [(3750, 0.03, 0.3), (21, 0.1, 0.3), (20, 0.2, 0.5), (7, 0.0, 1.0)])
def test_schedule_that_stays_flat_until_the_end_is_that_of_transformers(steps: int, warmup: float, decay: float) -> None:
    ours = settings(schedule="warmup_stable_decay", warmup_fraction=warmup, decay_fraction=decay)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = get_wsd_schedule(
        optimizer, num_warmup_steps=math.ceil(steps * warmup), num_decay_steps=round(steps * decay), num_training_steps=steps
    )
    for step in range(steps):
        assert rate_multiplier(ours, step=step, steps=steps) == pytest.approx(theirs.get_last_lr()[0], abs=1e-12), step
        optimizer.step()
        theirs.step()
