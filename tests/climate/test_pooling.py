"""Regressions of many cells that learn from each other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sciconsist.domains.climate.means import SiteMean
from sciconsist.domains.climate.pooling import pooled_regressions, scale_law, scale_of, weighted_regressions

CELLS, TIMES, FEATURES = 120, 40, 12


def problem(noise: float, spread: float, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Predictors with a 1, targets, and the coefficients `[c, F, 1]` behind them, which scatter by `spread`."""
    g = torch.Generator().manual_seed(seed)
    X = torch.randn(CELLS, TIMES, FEATURES, generator=g, dtype=torch.float64)
    common = torch.randn(FEATURES, 1, generator=g, dtype=torch.float64)
    beta = common + spread * torch.randn(CELLS, FEATURES, 1, generator=g, dtype=torch.float64)
    y = X @ beta + noise * torch.randn(CELLS, TIMES, 1, generator=g, dtype=torch.float64) + 3.0
    return torch.cat([X, torch.ones_like(X[..., :1])], -1), y, beta


def error(beta: Tensor, truth: Tensor) -> float:
    return float((beta[:, :-1] - truth).square().mean().sqrt())


def test_without_noise_the_law_is_found() -> None:
    X, y, truth = problem(noise=0.0, spread=1.0)
    beta = pooled_regressions(X, y, 30)
    assert error(beta, truth) < 1e-3
    assert torch.allclose(beta[:, -1], torch.full_like(beta[:, -1], 3.0), atol=1e-2)


@pytest.mark.parametrize("spread", [0.6, 0.8])
def test_cells_that_are_alike_know_more_together(spread: float) -> None:
    """Better than each cell's least squares, and than one law for all."""
    X, y, truth = problem(noise=3.0, spread=spread)
    alone = torch.linalg.lstsq(X, y).solution
    flat = torch.linalg.lstsq(X.flatten(0, 1), y.flatten(0, 1)).solution
    together = error(pooled_regressions(X, y, 10), truth)
    assert together < 0.9 * error(alone, truth)
    assert together < error(flat[None], truth)


def test_units_and_a_predictor_that_never_moves_change_nothing() -> None:
    X, y, _ = problem(noise=1.0, spread=0.3)
    unit = torch.logspace(-3, 3, FEATURES + 1, dtype=torch.float64)
    unit[-1] = 1.0
    found, scaled = pooled_regressions(X, y, 4), pooled_regressions(X * unit, 10 * y, 4)
    assert torch.allclose(10 * found, scaled * unit[:, None], rtol=1e-6, atol=1e-8)
    still = torch.cat([torch.full_like(X[..., :1], 7.0), X], -1)
    again = pooled_regressions(still, y, 4)
    assert torch.allclose(still @ again, X @ found, atol=0.05)


def test_times_and_outliers_that_say_little_count_little() -> None:
    """Noise ten times as wide at some times than at others, by a law; then a few times of wild values."""
    g = torch.Generator().manual_seed(1)
    X, y, truth = problem(noise=0.0, spread=0.3)
    wide = X[..., :1].exp()
    loud = y + 2.0 * wide * torch.randn(y.shape, generator=g, dtype=torch.float64)
    wild = y + torch.randn(y.shape, generator=g, dtype=torch.float64)
    wild[:, ::13] += 50.0 * torch.randn(wild[:, ::13].shape, generator=g, dtype=torch.float64)
    for target in (loud, wild):
        flat = weighted_regressions(X, target, torch.ones_like(wide), 6)
        assert error(pooled_regressions(X, target, 6), truth) < 0.7 * error(flat, truth)


def test_the_law_of_the_scale_is_found_and_flattened_a_little() -> None:
    """Perfect fits must not count without bound, so the law is that of residuals with a floor below them."""
    g = torch.Generator().manual_seed(2)
    X = torch.randn(CELLS, 4 * TIMES, 2, generator=g, dtype=torch.float64)
    X = torch.cat([X, torch.ones_like(X[..., :1])], -1)
    wide = (0.5 * X[..., :1] - 0.25 * X[..., 1:2]).exp()
    residual = wide * torch.randn(CELLS, 4 * TIMES, 16, generator=g, dtype=torch.float64)
    law = scale_law(X, residual, 6)
    assert torch.allclose(law[:, 0], -2 * law[:, 1], atol=0.12)
    assert ((law[:, 0] > 0.3) & (law[:, 0] < 0.5)).all()
    assert torch.allclose(scale_of(X, law).log().mean(1), torch.zeros(CELLS, 1, dtype=torch.float64), atol=0.02)
    dry = torch.where(X[..., :1] < 0, 0.0, residual)
    assert torch.isfinite(scale_of(X, scale_law(X, dry, 6))).all()


def test_the_site_mean_with_squares_finds_a_quadratic_law() -> None:
    g = torch.Generator().manual_seed(3)
    valid = torch.ones(5, 6, dtype=torch.bool)
    truth = SiteMean(2, 3, (5, 6), radius=1, squares=True, rank=[2, 9]).double()
    truth.beta.copy_(torch.randn(truth.beta.shape, generator=g, dtype=torch.float64))
    assert truth.patterns is not None and truth.beta.shape[0] == 11
    truth.patterns.copy_(torch.randn(truth.patterns.shape, generator=g, dtype=torch.float64))
    data = torch.randn(90, 2, 5, 6, generator=g, dtype=torch.float64)
    fine = truth(data, valid)
    found = SiteMean(2, 3, (5, 6), radius=1, squares=True, rank=[2, 9]).double()
    found.fit(data, fine, valid, ridge=1e-9)
    assert torch.allclose(found(data, valid), fine, atol=1e-5)
    pooled = found.fit(data, fine, valid, ridge=1.0, rounds=40)(data, valid)
    assert (pooled - fine).std() < 0.02 * fine.std()
