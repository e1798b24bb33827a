"""Areas of latents for concepts, on activations whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from replication.report.agreement import areas, bounds_of, dense, prompt_weights, resampled_areas, told_apart


def test_a_latent_that_is_the_concept_has_area_1_and_a_silent_one_a_half() -> None:
    carried = np.array([True, True, False, False, False])[:, None]
    activations = np.array([[2.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 2.0], [0.0, 0.0, 3.0]])
    assert areas(activations, carried).tolist() == [[1.0, 0.5, 0.0]]
    assert np.isnan(areas(activations, np.ones((5, 1), dtype=bool))).all()


def test_areas_are_those_of_sklearn_also_when_prompts_are_drawn_again() -> None:
    generator = np.random.default_rng(0)
    activation, carried = generator.integers(0, 4, 60).astype(float), generator.random(60) < 0.4
    assert areas(activation[:, None], carried[:, None])[0, 0] == pytest.approx(roc_auc_score(carried, activation))
    weights = prompt_weights([str(row // 3) for row in range(60)], seed=1, resamples=20)
    assert (weights.reshape(20, 20, 3) == weights.reshape(20, 20, 3)[:, :, :1]).all() and (weights[:, ::3].sum(axis=1) == 20).all()
    expected = [roc_auc_score(carried, activation, sample_weight=row) for row in weights]
    assert resampled_areas(activation, carried, weights) == pytest.approx(expected)


def test_the_interval_covers_the_true_area_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(2)
    covered = 0
    for trial in range(100):
        carried = np.arange(120) % 2 == 0
        # Two normal distributions one apart: the true area is 0.760.
        activation = generator.normal(size=120) + carried
        low, high = bounds_of(resampled_areas(activation, carried, prompt_weights([str(row) for row in range(120)], seed=trial)))
        covered += low <= 0.7602 <= high
    assert 88 <= covered <= 100


def test_a_concept_of_too_few_prompts_is_not_told() -> None:
    prompts = [str(number) for number in range(20)]
    held_out = np.arange(20) % 2 == 0
    often, rare = np.arange(20) < 10, np.arange(20) < 4
    assert told_apart(np.stack([often, rare], axis=1), prompts, held_out).tolist() == [True, False]
    assert not told_apart(often[:, None], ["one prompt"] * 20, held_out).any()


def test_latents_in_the_order_of_their_numbers() -> None:
    columns, found = dense(np.array([[7, 2], [2, 5]]), np.array([[1.0, 3.0], [2.0, 0.0]]))
    assert columns.tolist() == [2, 7] and found.tolist() == [[3.0, 1.0], [2.0, 0.0]]
