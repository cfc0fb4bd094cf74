"""Conservation on lattices (torch) and on any grid (numpy)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sciconsist.domains.climate.conserve import block_mean, conserve, nearest, owners, shares, spread_out, zero_mean


def lattice(seed: int, k: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    fine = torch.randn(2, 3, 4 * k, 5 * k, generator=g, dtype=torch.float64)
    area = torch.rand(1, 1, 4 * k, 5 * k, generator=g, dtype=torch.float64)
    area = torch.where(area < 0.2, torch.zeros_like(area), area)  # masked cells
    return fine, area, torch.rand(2, 3, 4, 5, generator=g, dtype=torch.float64)


@given(st.integers(0, 100), st.integers(2, 5))
@settings(max_examples=25, deadline=None)
def test_additive_detail_is_the_orthogonal_projection(seed: int, k: int) -> None:
    fine, area, _ = lattice(seed, k)
    detail = zero_mean(fine, area, k)
    assert block_mean(detail, area, k).abs().max() < 1e-12
    assert torch.allclose(zero_mean(detail, area, k), detail, atol=1e-12)
    removed = fine - detail
    assert ((removed * detail * area).sum((-2, -1))).abs().max() < 1e-9  # orthogonal in the area's inner product


@given(st.integers(0, 100), st.integers(2, 5))
@settings(max_examples=25, deadline=None)
def test_shares_conserve_and_never_go_below_zero(seed: int, k: int) -> None:
    fine, area, coarse = lattice(seed, k)
    coarse = torch.where(coarse < 0.3, torch.zeros_like(coarse), coarse)
    amount = fine.clamp_min(0)
    amount[..., : 2 * k, : 2 * k] = 0  # blocks with nothing to scale
    base = spread_out(coarse, k)
    out = shares(amount, base, coarse, area, k)
    whole = block_mean(out, area, k)
    assert (out >= 0).all()
    assert torch.allclose(whole, torch.where(block_mean(torch.ones_like(fine), area, k) > 0, coarse, 0.0), atol=1e-9)
    assert out[spread_out(coarse, k) == 0].abs().max() == 0


def test_shares_keep_the_pattern() -> None:
    fine, _, coarse = lattice(0)
    amount = fine.abs() + 1
    out = shares(amount, torch.zeros_like(fine), coarse, torch.ones_like(fine[:1, :1]), 3)
    ratio = out / amount
    assert torch.allclose(ratio, spread_out(block_mean(ratio, torch.ones_like(fine[:1, :1]), 3), 3))


def test_numpy_and_torch_agree_on_a_lattice() -> None:
    fine, area, coarse = lattice(4)
    cell = np.arange(20).reshape(4, 5).repeat(3, 0).repeat(3, 1).ravel()
    for share in (False, True):
        value = fine.abs() if share else fine
        goal = coarse.numpy().reshape(2, 3, -1)
        found = conserve(value.numpy().reshape(2, 3, -1), goal, cell, area.numpy().ravel(), share)
        expected = (
            shares(value, torch.zeros_like(fine), coarse, area, 3)
            if share
            else zero_mean(fine, area, 3) + spread_out(coarse, 3)
        )
        seen = (area > 0).numpy().ravel()
        np.testing.assert_allclose(found[..., seen], expected.numpy().reshape(2, 3, -1)[..., seen], atol=1e-9)


def test_cells_that_do_not_count_are_left_alone() -> None:
    fine = np.array([1.0, 2.0, 3.0, 4.0])
    coarse = np.array([10.0, np.nan])
    out = conserve(fine, coarse, np.array([0, 0, 1, -1]), np.array([1.0, 0.0, 1.0, 1.0]), False)
    assert out.tolist() == [10.0, 2.0, 3.0, 4.0]  # no area, a missing goal, no coarse cell


def test_owners_of_any_place() -> None:
    lat, lon = np.array([50.0, 49.0, 48.0]), np.array([358.0, 359.0, 360.0, 361.0])
    place = owners(np.array([50.4, 48.6, 47.0, 49.0]), np.array([-2.4, 0.6, 0.0, 10.0]), lat, lon)
    assert place.tolist() == [0, 7, -1, -1]


@pytest.mark.parametrize("axis", [np.linspace(0, 9, 10), np.linspace(9, 0, 10)])
def test_nearest_is_the_cell_that_holds_x(axis: np.ndarray) -> None:
    x = np.linspace(-0.45, 9.45, 200)
    assert np.array_equal(axis[nearest(axis, x)], np.floor(x + 0.5))
    assert nearest(axis, np.array([-0.6, 9.6])).tolist() == [-1, -1]
