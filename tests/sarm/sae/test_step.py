"""The sparse SAE step equals the dense one in value and gradient, whatever the sizes, the objective and the ties."""

from __future__ import annotations

import copy
import sys
import warnings
from typing import Any, get_args

import pytest
import torch
from dense_sae import dense_gradients, dense_loss, random_sae, tensors_of

from sarm.config.train import SAETrainingConfig
from sarm.engine.group import ALONE
from sarm.job import UsageProblem
from sarm.sae import kernel_choice, sparse_products
from sarm.sae.model import TopKSAE, standardize
from sarm.sae.sparse_products import decode, pairs_of, value_gradients, weight_gradients
from sarm.sae.step import AuxK, LossAndGradients, Objective, Workspace, loss_and_gradients
from sarm.sae.update import SAEUpdate
from sarm.sae.zero import ZeroSAEUpdate

OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
SHAPES = {
    "grouped topk": {"batch": 24, "hidden_size": 16, "n_latents": 256, "k": 5},
    "odd width": {"batch": 9, "hidden_size": 7, "n_latents": 37, "k": 6},
    "batch of one": {"batch": 1, "hidden_size": 8, "n_latents": 64, "k": 3},
    "k = M": {"batch": 5, "hidden_size": 8, "n_latents": 12, "k": 12},
    "k = 1": {"batch": 6, "hidden_size": 4, "n_latents": 10, "k": 1},
    "latents that no row keeps": {"batch": 3, "hidden_size": 4, "n_latents": 512, "k": 2},
}


def vectors(batch: int, hidden_size: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return standardize(torch.randn(batch, hidden_size, dtype=dtype, generator=torch.Generator().manual_seed(1))).values


def sparse(sae: TopKSAE, x: torch.Tensor, *, objective: Objective, auxk: AuxK | None = None) -> LossAndGradients:
    weights = tensors_of(sae)
    return loss_and_gradients(
        weights, x, k=sae.k, objective=objective, auxk=auxk, product_dtype=weights.encoder.dtype, workspace=Workspace()
    )


def assert_equal_to_the_dense_step(sae: TopKSAE, x: torch.Tensor, objective: Objective, auxk: AuxK | None = None) -> None:
    found = sparse(sae, x, objective=objective, auxk=auxk)
    loss = dense_loss(sae, x, objective=objective, auxk=auxk)
    torch.testing.assert_close(found.loss, loss.detach(), rtol=1e-12, atol=0)
    for name, ours, reference in zip(found.gradients._fields, found.gradients, dense_gradients(sae, loss), strict=True):
        assert reference.any(), name
        largest = float(reference.abs().max())
        torch.testing.assert_close(ours, reference, rtol=1e-11, atol=1e-13 * largest, msg=lambda told, name=name: f"{name}: {told}")
    assert torch.equal(found.fired, (sae.encode(x).latents != 0).any(dim=0))


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_loss_and_gradients_equal_those_of_autograd(shape: dict[str, int], objective: Objective) -> None:
    sae = random_sae(hidden_size=shape["hidden_size"], n_latents=shape["n_latents"], k=shape["k"])
    assert_equal_to_the_dense_step(sae, vectors(shape["batch"], shape["hidden_size"]), objective)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("dead", [1, 3, 200], ids=lambda dead: f"{dead} dead latents")
def test_auxk_equals_that_of_autograd(dead: int, objective: Objective) -> None:
    sae = random_sae(hidden_size=16, n_latents=256, k=5)
    mask = torch.zeros(256, dtype=torch.bool)
    mask[torch.randperm(256, generator=torch.Generator().manual_seed(5))[:dead]] = True
    # More rows than are searched at a time.
    assert_equal_to_the_dense_step(sae, vectors(70, 16), objective, AuxK(weight=0.3, dead=mask))


def test_auxk_gives_the_encoder_rows_of_dead_latents_a_gradient() -> None:
    sae = random_sae(hidden_size=16, n_latents=64, k=2)
    with torch.no_grad():
        sae.latent_bias[:8] = -50.0
    dead = torch.arange(64) < 8
    x = vectors(24, 16)
    assert not sparse(sae, x, objective="normalized_mse").gradients.encoder[:8].any()
    revived = sparse(sae, x, objective="normalized_mse", auxk=AuxK(weight=1.0, dead=dead)).gradients.encoder[:8]
    assert (revived.abs().amax(dim=1) > 0).all()


def test_negative_values_that_are_kept_have_gradients_too() -> None:
    sae = random_sae(hidden_size=8, n_latents=32, k=4)
    with torch.no_grad():
        sae.latent_bias -= 20.0
    x = vectors(6, 8)
    assert (sae.encode(x).latents <= 0).all()
    for objective in OBJECTIVES:
        assert_equal_to_the_dense_step(sae, x, objective)


def test_tied_latents_are_kept_k_at_a_time_and_the_loss_is_the_dense_one() -> None:
    sae = random_sae(hidden_size=8, n_latents=64, k=4)
    with torch.no_grad():
        # Eight latents alike, far above the others: whichever four are kept, the reconstruction is the same.
        sae.encoder.weight[8:16] = sae.encoder.weight[8]
        sae.latent_bias[8:16] = 30.0
        sae.decoder.weight[:, 8:16] = sae.decoder.weight[:, 8:9]
    x = vectors(5, 8)
    found = sparse(sae, x, objective="squared_error")
    torch.testing.assert_close(found.loss, dense_loss(sae, x, objective="squared_error").detach(), rtol=1e-12, atol=0)
    assert int(found.fired.sum()) >= 4 and not found.fired[:8].any() and not found.fired[16:].any()
    # 5 rows keep 4 latents each, and each of these moves its bias by the same amount as any other of its row.
    dense = dense_gradients(sae, dense_loss(sae, x, objective="squared_error"))
    torch.testing.assert_close(found.gradients.latent_bias.sum(), dense.latent_bias.sum(), rtol=1e-11, atol=0)


@pytest.mark.parametrize(
    ("dtype", "products", "tolerance"),
    [(torch.float32, torch.float32, 1e-5), (torch.float32, torch.bfloat16, 0.05), (torch.bfloat16, torch.bfloat16, 0.1)],
    ids=["float32", "float32 with products in bfloat16", "bfloat16"],
)
def test_lower_precision_stays_near_the_double_one(dtype: torch.dtype, products: torch.dtype, tolerance: float) -> None:
    # All latents are kept, so that rounding cannot change which.
    low = random_sae(hidden_size=16, n_latents=256, k=256, dtype=dtype)
    x = vectors(24, 16).to(dtype)
    settings: dict[str, Any] = {"k": 256, "objective": "normalized_mse", "auxk": None, "workspace": Workspace()}
    found = loss_and_gradients(tensors_of(low), x, product_dtype=products, **settings)
    exact = loss_and_gradients(tensors_of(copy.deepcopy(low).double()), x.double(), product_dtype=torch.float64, **settings)
    for ours, reference in zip((found.loss, *found.gradients), (exact.loss, *exact.gradients), strict=True):
        assert float((ours.double() - reference).abs().max()) <= tolerance * float(reference.abs().max())
    assert {gradient.dtype for gradient in found.gradients} == {dtype} and found.loss.dtype == torch.float32


def test_products_of_pairs_equal_the_dense_products() -> None:
    indices = [torch.tensor([[3, 0], [1, 3]]), torch.tensor([[2], [3]])]
    values = torch.tensor([1.0, 2.0, 3.0, -4.0, 5.0, 6.0], dtype=torch.float64)
    code = torch.zeros(4, 5, dtype=torch.float64)
    code[[0, 0, 1, 1, 2, 3], [3, 0, 1, 3, 2, 3]] = values
    weights, gradient = (torch.randn(size, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) for size in (5, 4))
    pairs = pairs_of(indices, 5)
    assert pairs.latents[pairs.order].tolist() == [0, 1, 2, 3, 3, 3] and pairs.rows.tolist() == [0, 1, 2, 0, 1, 3]
    torch.testing.assert_close(decode(values[:4].view(2, 2), indices[0], weights), (code @ weights)[:2])
    torch.testing.assert_close(value_gradients(gradient, weights, pairs), (gradient @ weights.T)[[0, 0, 1, 1, 2, 3], [3, 0, 1, 3, 2, 3]])
    filled = torch.full((5, 3), float("nan"), dtype=torch.float64)
    torch.testing.assert_close(weight_gradients(values, gradient, pairs, filled), code.T @ gradient)


def test_pairs_are_ordered_alike_on_either_side_of_16_bits() -> None:
    indices = torch.tensor([[7, 2], [2, 5], [5, 7]])
    narrow, wide = pairs_of([indices], 8), pairs_of([indices], 2**16 + 1)
    assert torch.equal(narrow.order, wide.order) and torch.equal(narrow.rows, wide.rows)


def config(**changes: object) -> SAETrainingConfig:
    values = {"layer": 1, "n_latents": 64, "k": 4, "vectors": 640, "batch_vectors": 32, "learning_rate": 1e-2, **changes}
    return SAETrainingConfig.model_validate(values)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_training_equals_the_dense_loop_with_plain_adam_up_to_rounding(objective: Objective) -> None:
    ours, theirs = (random_sae(hidden_size=16, n_latents=64, k=4) for _ in range(2))
    settings = config(objective=objective, warmup_fraction=0.0, auxk_weight=0.1, dead_after_vectors=96)
    update = SAEUpdate(settings, ours, steps=20)
    theirs.normalize_decoder()
    adam = torch.optim.Adam(theirs.parameters(), lr=1e-2, foreach=True)
    silent, x = torch.zeros(64, dtype=torch.int64), vectors(640, 16)
    revived = 0
    for step, batch in enumerate(x.split(32)):
        dead = silent >= 96
        revived += int(dead.any())
        loss = dense_loss(theirs, batch, objective=objective, auxk=AuxK(weight=0.1, dead=dead))
        silent = torch.where((theirs.encode(batch).latents != 0).any(dim=0), 0, silent + 32)
        adam.zero_grad()
        loss.backward()
        adam.step()
        if step % 10 == 0 or step == 19:
            theirs.normalize_decoder()
        assert update.step(batch, step).loss == pytest.approx(float(loss.detach()), rel=1e-9)
    assert revived, "AuxK never had a dead latent to revive"
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-6, atol=1e-9)


def test_updates_that_share_a_workspace_do_not_disturb_each_other() -> None:
    shared = Workspace()
    shapes = ({"n_latents": 64, "k": 4}, {"n_latents": 128, "k": 2})
    together = [SAEUpdate(config(**s), random_sae(hidden_size=16, **s), steps=20, workspace=shared) for s in shapes]
    alone = [SAEUpdate(config(**s), random_sae(hidden_size=16, **s), steps=20) for s in shapes]
    for step, batch in enumerate(vectors(160, 16).split(32)):
        for one, other in zip(together, alone, strict=True):
            assert one.step(batch, step).loss == other.step(batch, step).loss
    for one, other in zip(together, alone, strict=True):
        assert all(torch.equal(value, other.sae.state_dict()[name]) for name, value in one.sae.state_dict().items())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_vector_that_is_not_finite_stops_before_anything_is_updated(bad: float) -> None:
    sae = random_sae(hidden_size=16, n_latents=64, k=4)
    update = SAEUpdate(config(), sae, steps=20)
    update.step(vectors(32, 16), 1)
    before = {name: value.clone() for name, value in sae.state_dict().items()}
    moments = [state["exp_avg"].clone() for state in update.optimizer.state.values()]
    x = vectors(32, 16)
    x[5, 3] = bad
    with pytest.raises(UsageProblem, match=r"the SAE's loss is (nan|inf) at step 2"):
        update.step(x, 2)
    assert all(torch.equal(value, before[name]) for name, value in sae.state_dict().items())
    assert all(torch.equal(state["exp_avg"], kept) for state, kept in zip(update.optimizer.state.values(), moments, strict=True))


def test_gradient_that_is_not_finite_stops_before_anything_is_updated(monkeypatch: pytest.MonkeyPatch) -> None:
    update = SAEUpdate(config(), random_sae(hidden_size=16, n_latents=64, k=4), steps=20)
    update.step(vectors(32, 16), 1)
    before = {name: value.clone() for name, value in update.tensors().items()}
    found = sparse_products.value_gradients
    monkeypatch.setattr(sparse_products, "value_gradients", lambda *given: found(*given).index_fill(0, torch.tensor([7]), float("inf")))
    with pytest.raises(UsageProblem, match=r"the SAE's gradient is (nan|inf|-inf) at step 2"):
        update.step(vectors(32, 16), 2)
    assert all(torch.equal(value, before[name]) for name, value in update.tensors().items())


def test_a_gpu_without_triton_takes_the_plain_way_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel_choice.problem_of_triton.cache_clear()
    monkeypatch.setattr(kernel_choice, "lies_on_a_gpu", lambda operand: True)
    # None makes the import fail, as where the package is absent.
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "sarm.sae.kernels.active_pairs", raising=False)
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            plain = SAEUpdate(config(), random_sae(hidden_size=16, n_latents=64, k=4, dtype=torch.float32), steps=20)
            losses = [plain.step(x, step).loss for step, x in enumerate(vectors(64, 16, torch.float32).split(32))]
        (warning,) = (one for one in told if "the plain way" in str(one.message))
        assert "triton" in str(warning.message) and "\n" not in str(warning.message)
    finally:
        kernel_choice.problem_of_triton.cache_clear()
    monkeypatch.undo()
    usual = SAEUpdate(config(), random_sae(hidden_size=16, n_latents=64, k=4, dtype=torch.float32), steps=20)
    assert losses == [usual.step(x, step).loss for step, x in enumerate(vectors(64, 16, torch.float32).split(32))]


def test_double_precision_and_a_cpu_ask_for_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernel_choice.kernels("adam", torch.zeros(1)) is None
    monkeypatch.setattr(kernel_choice, "lies_on_a_gpu", lambda operand: True)
    assert kernel_choice.kernels("adam", torch.zeros(1, dtype=torch.float64)) is None


def test_decoder_lies_by_latent_under_its_old_name_and_shape() -> None:
    sae = random_sae(hidden_size=4, n_latents=6, k=2)
    before = sae.decoder.weight.detach().clone()
    rows = sae.decoder_rows()
    assert rows.is_contiguous() and torch.equal(sae.state_dict()["decoder.weight"], before)
    assert sae.decoder_rows().data_ptr() == rows.data_ptr()
    rows[2] = 7.0
    assert (sae.decoder.weight[:, 2] == 7.0).all()


@pytest.mark.parametrize("changes", [{"moments": "bfloat16"}, {"products": "bfloat16"}], ids=str)
def test_precisions_of_their_own_are_refused_with_zero(changes: dict[str, str]) -> None:
    with pytest.raises(UsageProblem, match="do not go with ZeRO stage 1; set both to as-dtype"):
        ZeroSAEUpdate(
            config(**changes),
            random_sae(hidden_size=16, n_latents=64, k=4),
            group=ALONE,
            stage=1,
            workspace=Workspace(),
            saved=None,
        )
