"""The released SAE training: a short run step by step, and its learning-rate schedule."""

from __future__ import annotations

import pytest
from golden_files import close, each, needs_sarm, read, tensors

from sarm.config.train import SAETrainingConfig
from sarm.sae.model import TopKSAE
from sarm.sae.update import SAEUpdate, learning_rate_at

PARAMETERS = ("decoder.weight", "encoder.weight", "latent_bias", "pre_bias")
TENSORS = {"sae_acts", *(f"sae_{when}.{name}" for when in ("init", "final") for name in PARAMETERS)}


@needs_sarm
def test_every_tensor_of_the_run_is_read() -> None:
    assert {name for name in tensors("sarm/numerics.safetensors") if name.startswith("sae_")} == TENSORS


@needs_sarm
def test_sae_pretraining_run_equals_the_released_one() -> None:
    run, n = read("sarm/sae_pretrain.json")["run"], tensors("sarm/numerics.safetensors")
    sae = TopKSAE(hidden_size=run["hidden"], n_latents=run["latent"], k=run["k"])
    sae.load_state_dict({name: n[f"sae_init.{name}"] for name in PARAMETERS})
    size = n["sae_acts"].shape[1]
    config = SAETrainingConfig(
        layer=1,
        n_latents=run["latent"],
        k=run["k"],
        vectors=run["steps"] * size,
        batch_vectors=size,
        learning_rate=run["lr"],
        beta1=run["betas"][0],
        beta2=run["betas"][1],
        schedule="authors",
        unit_norm_every=run["unit_norm_every"],
    )
    update = SAEUpdate(config, sae, steps=run["steps"])
    results = [update.step(sae.prepare(batch), step) for step, batch in enumerate(n["sae_acts"])]
    assert [result.learning_rate for result in results] == pytest.approx(run["lr_used"], rel=1e-9)
    assert [result.loss for result in results] == pytest.approx(run["loss"], abs=1e-5)
    for name in PARAMETERS:
        close(sae.state_dict()[name], n[f"sae_final.{name}"])


@pytest.mark.parametrize("steps", each("sarm/sae_pretrain.json", lambda file: sorted(read(file)["lr_schedule"], key=int)))
def test_learning_rate_schedule_equals_the_released_one(steps: str) -> None:
    expected = read("sarm/sae_pretrain.json")["lr_schedule"][steps]
    total = int(steps)
    config = SAETrainingConfig(layer=1, n_latents=2, k=1, vectors=total, batch_vectors=1, learning_rate=1.0, schedule="authors")
    assert int(total * config.warmup_fraction) == expected["num_warmup_steps"]
    ours = [learning_rate_at(config, step=step, steps=total) for step in range(len(expected["multiplier"]))]
    assert ours == pytest.approx(expected["multiplier"], abs=1e-12)
