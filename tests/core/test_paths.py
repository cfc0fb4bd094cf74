"""Paths: ends, derivatives, and the preconditioner's unit variance on all four."""

from __future__ import annotations

import pytest
import torch

from sciconsist.geometry import Euclidean
from sciconsist.parametrisations import Parametrisation, preconditioner, preconditioner_rates
from sciconsist.paths import PATHS, Path
from tests.core.exact_maps import column


def test_ends(path: Path) -> None:
    zero = column(0.0)
    assert path.a(zero).item() == 1.0
    assert path.b(zero).item() == 0.0


def test_table_builds_every_path() -> None:
    assert set(PATHS) == {"linear", "trigonometric", "vp", "ve"}
    for build in PATHS.values():
        assert build().b(column(1.0)).item() > 0.9


def test_derivatives(path: Path) -> None:
    t = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    h = 1e-5
    for f, df in ((path.a, path.da), (path.b, path.db)):
        numeric = (f(t + h) - f(t - h)) / (2 * h)
        assert torch.allclose(numeric, df(t), atol=1e-6)


@pytest.mark.parametrize("data_std", [0.3, 1.0, 2.5])
def test_preconditioner_has_unit_variance(path: Path, data_std: float) -> None:
    """x_t - A x_s of the conditional path has variance B^2 and no correlation with x_s; c_in x_s has variance 1."""
    grid = torch.linspace(0.05, 1.0, 8, dtype=torch.float64)
    s, t = torch.meshgrid(grid, torch.linspace(0.0, 1.0, 9, dtype=torch.float64), indexing="ij")
    s, t = s.flatten(), t.flatten()
    a, b = preconditioner(path, s, t, data_std)
    data = path.a(t) - a * path.a(s)  # coefficients of the residual on x0 and eps
    noise = path.b(t) - a * path.b(s)
    variance = (data * data_std).square() + noise.square()
    assert torch.allclose(variance, b.square(), atol=1e-12)
    covariance = data * path.a(s) * data_std**2 + noise * path.b(s)
    assert covariance.abs().max() < 1e-12 * (1 + path.b(column(1.0)).item() ** 2)
    row = Parametrisation("preconditioned", path, Euclidean(), data_std)
    c_in = row.scale_input(torch.ones_like(s)[:, None], s)[:, 0]
    assert torch.allclose(c_in.square() * ((path.a(s) * data_std) ** 2 + path.b(s) ** 2), torch.ones_like(s))


def test_flow_matching_target_has_unit_variance(path: Path) -> None:
    """On the diagonal F = (v - A' x) / B' of the conditional path, measured on pairs."""
    generator = torch.Generator().manual_seed(1)
    x0, noise = torch.randn(2, 200_000, generator=generator, dtype=torch.float64)
    x0 = 0.7 * x0
    for time in (0.1, 0.5, 0.9):
        t = column(time)
        a, b = preconditioner_rates(path, t, 0.7)
        x = path.a(t) * x0 + path.b(t) * noise
        f = (path.da(t) * x0 + path.db(t) * noise - a * x) / b
        assert abs(f.var().item() - 1) < 0.02


def test_preconditioner_is_edm_and_trigflow() -> None:
    """CORE: EDM's c_skip, c_out, c_in on VE at t = 0; TrigFlow's rotation where b = sd sin."""
    ve = PATHS["ve"](80.0)
    s, sd = column(0.01, 0.1, 0.7), 0.5
    sigma = 80.0 * s
    a, b = preconditioner(ve, s, torch.zeros_like(s), sd)
    assert torch.allclose(a, sd**2 / (sigma**2 + sd**2))
    assert torch.allclose(b, sigma * sd / (sigma**2 + sd**2).sqrt())
    trig = PATHS["trigonometric"]()
    t = column(0.0, 0.05, 0.3)
    a, b = preconditioner(trig, s, t, 1.0)
    angle = 0.5 * torch.pi * (s - t)
    assert torch.allclose(a, torch.cos(angle))
    assert torch.allclose(b, torch.sin(angle))
