"""Closed-form means against what they must be exact on."""

from __future__ import annotations

import numpy as np
import torch

from sciconsist.domains.climate.fields import LAPSE_RATE
from sciconsist.domains.climate.means import CROSS, SiteMean, filled, folds, lapse_mean, shifted, stencil
from sciconsist.domains.climate.statics import harmonics

ALL = torch.ones(5, 6, dtype=torch.bool)


def coarse(times: int = 60, seed: int = 0) -> torch.Tensor:
    return torch.randn(times, 2, 5, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_stencils_hold_each_neighbour_once_the_cell_first() -> None:
    assert stencil(2)[0] == (0, 0) and len(set(stencil(2))) == 25
    assert sorted(CROSS) == [(-1, 0), (0, -1), (0, 0), (0, 1), (1, 0)]


def test_shifted_is_the_neighbour() -> None:
    x = torch.arange(30.0).reshape(1, 1, 5, 6)
    assert torch.equal(shifted(x, 1, -1, 1)[0, 0, :-1, 1:], x[0, 0, 1:, :-1])
    assert torch.equal(shifted(x, -2, 0, 2)[0, 0, 0], x[0, 0, 0])  # the edge goes on


def test_the_site_mean_finds_a_linear_law() -> None:
    """fine = coarse + a linear function of the neighbourhood of both variables + an offset, of every fine cell."""
    g = torch.Generator().manual_seed(1)
    truth = SiteMean(2, 3, (5, 6), radius=1, cross=True).double()
    truth.beta.copy_(torch.randn(truth.beta.shape, generator=g, dtype=torch.float64))
    data = coarse()
    fine = truth(data, ALL)
    found = SiteMean(2, 3, (5, 6), radius=1, cross=True).double().fit(data, fine, ALL, ridge=1e-9)
    new = coarse(seed=5)
    assert torch.allclose(found(new, ALL), truth(new, ALL), atol=1e-5)


def test_the_site_mean_finds_a_cycle_of_the_year() -> None:
    data = coarse()
    day = torch.linspace(0, 12.5, 60, dtype=torch.float64)
    season = torch.stack([day.sin(), day.cos(), day, day], 1)
    swing = 3 * torch.sin(2 * day + 1)[:, None, None, None]
    fine = torch.nn.functional.interpolate(data, scale_factor=3) + swing
    waves = harmonics(season, "year")
    found = SiteMean(2, 3, (5, 6), radius=0, waves=4).double().fit(data, fine, ALL, ridge=1e-9, waves=waves)
    assert torch.allclose(found(data, ALL, waves=waves), fine, atol=1e-6)


def test_a_rank_is_enough_for_detail_of_that_rank() -> None:
    """Detail that is two patterns in every cell needs rank 2; rank 1 keeps the larger of them."""
    g = torch.Generator().manual_seed(1)
    patterns = torch.linalg.qr(torch.randn(9, 2, generator=g, dtype=torch.float64)).Q
    data = coarse()
    size = torch.stack([3 * data[:, 0], data[:, 1]], 1)  # [T, 2, h, w]
    detail = torch.nn.functional.pixel_shuffle(torch.einsum("sp,tphw->tshw", patterns, size), 3)
    fine = torch.nn.functional.interpolate(data, scale_factor=3) + detail
    error = []
    for rank in (1, 2, 9):
        mean = SiteMean(2, 3, (5, 6), radius=1, rank=rank).double().fit(data, fine, ALL, ridge=1e-9)
        error.append(float((mean(data, ALL) - fine).square().mean()))
    assert error[1] < 1e-9 and error[2] < 1e-9 and 0.05 < error[0] < 0.2


def test_the_ridge_shrinks_to_the_coarse_value() -> None:
    data = coarse()
    fine = torch.nn.functional.interpolate(data, scale_factor=3) + 0.1 * torch.randn(60, 2, 15, 18).double()
    fine = fine - (fine - torch.nn.functional.interpolate(data, scale_factor=3)).mean(0)
    mean = SiteMean(2, 3, (5, 6), radius=1).double().fit(data, fine, ALL, ridge=1e12)
    assert torch.allclose(mean(data, ALL), torch.nn.functional.interpolate(data, scale_factor=3), atol=1e-6)


def test_a_block_of_a_site_has_the_sites_own_mean() -> None:
    mean = SiteMean(2, 3, (5, 6), radius=1).double()
    mean.beta.copy_(torch.randn(mean.beta.shape, dtype=torch.float64))
    data = coarse(2)
    part = mean(data[..., 1:5, 1:6], ALL[1:5, 1:6], (1, 1))
    assert torch.allclose(part[..., 3:-3, 3:], mean(data, ALL)[..., 6:-3, 6:], atol=1e-12)


def test_a_missing_neighbour_counts_as_the_cell_itself() -> None:
    mean = SiteMean(1, 2, (5, 6), radius=1, cross=False).double()
    mean.beta.copy_(torch.randn(mean.beta.shape, dtype=torch.float64))
    valid = ALL.clone()
    valid[2, 3] = False
    x = coarse(1)[:, :1]
    for value in (0.0, 99.0):
        x[..., 2, 3] = value
        terms = mean.predictors(x, valid, 0, (slice(None), slice(None)), None)
        near = terms[0, :, 2, 2]
        assert near[stencil(1).index((0, 1))] == near[0]


def test_the_lapse_mean_is_exact_where_temperature_is_linear_in_height() -> None:
    g = torch.Generator().manual_seed(0)
    height = 2000 * torch.rand(20, 24, generator=g, dtype=torch.float64)
    low = torch.nn.functional.avg_pool2d(height[None], 4)[0]
    level = torch.tensor([280.0, 5.0], dtype=torch.float64)[None, :, None, None]
    data = level + torch.tensor([LAPSE_RATE, 0.0], dtype=torch.float64)[None, :, None, None] * low
    out = lapse_mean(data, ALL, low, height, ("t2m", "tp"), 4, False)
    assert torch.allclose(out[:, :1], 280 + LAPSE_RATE * height, atol=1e-9)
    assert torch.allclose(out[:, 1:], torch.full_like(out[:, 1:], 5.0))


def test_missing_cells_take_their_neighbours_mean() -> None:
    x = torch.full((1, 1, 5, 6), 7.0)
    valid = ALL.clone()
    valid[:, 3:] = False
    x[..., 3:] = torch.nan
    out = filled(x, valid, False, rounds=2)
    assert torch.allclose(out[..., :5], torch.tensor(7.0)) and (out[..., 5] == 0).all()


def test_folds_are_stretches_that_cover_all_times_once() -> None:
    parts = folds(23, 5)
    assert np.array_equal(np.concatenate(parts), np.arange(23)) and len(parts) == 5
    assert all(np.array_equal(p, np.arange(p[0], p[-1] + 1)) for p in parts)
