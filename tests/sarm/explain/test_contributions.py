"""Rewards as sums of parts: what is kept, what it comes to, and which latents lie near each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sarm.explain.contributions import LatentSums, by_latent, gaps, joined, nearest_columns, parts_of


def sparse_latents(rows: int, n: int, seed: int = 0) -> torch.Tensor:
    values = torch.randn(rows, n, generator=torch.Generator().manual_seed(seed))
    return values * (values.abs() > 1)


def test_the_parts_of_a_reward_sum_to_it_and_name_the_sae_s_latents() -> None:
    weights, latents = torch.linspace(-1, 1, 12), sparse_latents(5, 12)
    numbers = torch.arange(100, 112)
    found = joined(list(parts_of(latents, latents * weights, numbers, kept=0)))
    rewards = (latents @ weights).numpy()
    apart, allowed = gaps(found, rewards, constant=0.0)
    assert (apart <= allowed).all() and (found.rest == 0).all()
    assert set(found.latents.tolist()) <= set(range(100, 112)) and len(found.latents) == int((latents != 0).sum())
    apart, allowed = gaps(found, rewards + np.float32(0.01), constant=0.0)
    assert (apart > allowed).all(), "a reward that is something else is noticed"


def test_a_head_that_reads_everything_keeps_the_largest_parts_and_one_sum_of_the_others() -> None:
    dense, weights = torch.randn(4, 50, generator=torch.Generator().manual_seed(1)), torch.linspace(-1, 1, 50)
    shares = dense * weights
    found = joined(list(parts_of(dense, shares, torch.arange(50), kept=7)))
    assert np.diff(found.starts).tolist() == [7] * 4
    smallest = [float(np.abs(found.contributions[start : start + 7]).min()) for start in found.starts[:-1]]
    assert smallest == pytest.approx(shares.abs().sort(descending=True).values[:, 6].tolist())
    apart, allowed = gaps(found, shares.sum(dim=1).numpy(), constant=0.0)
    assert (apart <= allowed).all() and (found.rest != 0).all()


def test_a_constant_of_the_head_belongs_to_the_sum() -> None:
    latents = sparse_latents(3, 6)
    found = joined(list(parts_of(latents, latents, torch.arange(6), kept=0)))
    apart, allowed = gaps(found, latents.sum(dim=1).numpy() + np.float32(2.5), constant=2.5)
    assert (apart <= allowed).all()


def test_sums_over_groups_are_those_of_a_plain_count() -> None:
    latents, weights, rewards = sparse_latents(6, 9), torch.linspace(-2, 2, 9), torch.arange(6.0)
    members = torch.tensor([[1, 0, 1, 0, 1, 0], [0, 1, 0, 1, 0, 1]], dtype=torch.bool)
    sums = LatentSums.zeros(2, 9)
    for part in (slice(0, 4), slice(4, 6)):
        sums.add(latents[part], latents[part] * weights, rewards[part], members[:, part], above_zero=False)
    shares = (latents * weights).double()
    for group in range(2):
        rows = members[group]
        assert sums.fired[group].tolist() == (latents[rows] != 0).sum(dim=0).tolist()
        torch.testing.assert_close(sums.contribution[group], shares[rows].sum(dim=0))
        torch.testing.assert_close(sums.square[group], shares[rows].square().sum(dim=0))
        torch.testing.assert_close(sums.product[group], (shares[rows] * rewards[rows][:, None]).sum(dim=0))
    above = LatentSums.zeros(2, 9)
    above.add(latents, latents * weights, rewards, members, above_zero=True)
    assert above.fired.sum() == (latents > 0).sum() < (latents != 0).sum()


def test_latents_one_by_one_with_the_rows_in_which_they_stand() -> None:
    latents = torch.tensor([[0.0, 2.0, 0.0], [3.0, 4.0, 0.0]])
    found = joined(list(parts_of(latents, latents, torch.arange(3), kept=0)))
    told = [(latent, rows.tolist(), shares.tolist()) for latent, rows, shares in by_latent(found)]
    assert told == [(0, [1], [3.0]), (1, [0, 1], [2.0, 4.0])]
    nothing = joined([])
    assert list(by_latent(nothing)) == [] and len(gaps(nothing, np.empty(0, np.float32), constant=0.0)[0]) == 0


def test_neighbours_are_the_columns_with_the_largest_cosine_and_never_the_latent_itself() -> None:
    decoder = torch.randn(8, 3000, generator=torch.Generator().manual_seed(2))
    found, cosines = nearest_columns(decoder, 5)
    unit = torch.nn.functional.normalize(decoder.T, dim=-1)
    for latent in (0, 1023, 1024, 2999):
        plain = unit @ unit[latent]
        plain[latent] = -2
        assert found[latent].tolist() == plain.topk(5).indices.tolist()
        torch.testing.assert_close(cosines[latent], plain.topk(5).values)


@pytest.mark.parametrize(("width", "asked", "given"), [(1, 8, 0), (3, 8, 2), (4, 0, 0)])
def test_a_small_dictionary_has_as_many_neighbours_as_there_are(width: int, asked: int, given: int) -> None:
    found, cosines = nearest_columns(torch.randn(4, width), asked)
    assert found.shape == cosines.shape == (width, given)


def test_a_zero_column_lies_near_to_nothing() -> None:
    decoder = torch.randn(4, 3)
    decoder[:, 1] = 0
    assert nearest_columns(decoder, 2)[1][1].tolist() == [0.0, 0.0]
