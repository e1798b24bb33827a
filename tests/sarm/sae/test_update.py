"""One update of an SAE: dead latents and how long a latent was silent."""

from __future__ import annotations

import torch

from sarm.config.train import SAETrainingConfig
from sarm.sae.model import TopKSAE, standardize
from sarm.sae.update import SAEUpdate


def update(auxk_weight: float) -> SAEUpdate:
    """An update whose third latent is dead: a large negative bias keeps it from the top."""
    config = SAETrainingConfig(
        layer=1, n_latents=6, k=1, vectors=8, batch_vectors=8, auxk_weight=auxk_weight, dead_after_vectors=1, learning_rate=1e-2
    )
    sae = TopKSAE(hidden_size=4, n_latents=6, k=1)
    sae.reset(torch.Generator().manual_seed(0))
    with torch.no_grad():
        sae.latent_bias[2] = -100.0
    made = SAEUpdate(config, sae, steps=10)
    made.silent_for[2] = 50
    return made


def test_auxk_gives_the_encoder_of_a_dead_latent_a_gradient_and_is_off_by_default() -> None:
    x = standardize(torch.randn(8, 4, generator=torch.Generator().manual_seed(1))).values
    assert SAETrainingConfig(layer=1, n_latents=6, k=1, vectors=8, batch_vectors=8).auxk_weight == 0
    gradients = {}
    for weight in (0.0, 1.0):
        made = update(weight)
        found = made.loss_and_gradients(x)
        assert not found.fired[2]
        gradients[weight] = found.gradients.encoder[2].clone()
    assert not gradients[0.0].any()
    assert gradients[1.0].any() and torch.isfinite(gradients[1.0]).all()


def test_auxk_without_a_dead_latent_changes_nothing() -> None:
    x = standardize(torch.randn(8, 4, generator=torch.Generator().manual_seed(1))).values
    made = update(1.0)
    made.silent_for.zero_()
    assert float(made.loss_and_gradients(x).loss) == float(update(0.0).loss_and_gradients(x).loss)


def test_silent_latents_are_counted_in_vectors() -> None:
    made = update(0.0)
    made.step(standardize(torch.randn(8, 4, generator=torch.Generator().manual_seed(1))).values, 0)
    assert int(made.silent_for[2]) == 58
    assert int(made.silent_for.min()) == 0
