"""The closed forms themselves: CORE.md's golden values, and each form against another."""

from __future__ import annotations

import math

import pytest
import torch

from sciconsist import exact
from sciconsist.exact import Gaussian, Mixture
from sciconsist.paths import Linear, Path
from tests.core.exact_maps import COVARIANCE, DATA, MEAN, column

F64 = torch.float64
MIXTURE = Mixture(column(0.3, 0.7), column(-2.0, 1.0)[:, None], column(0.3, 0.5))
RING = Mixture(
    column(0.2, 0.5, 0.3), torch.tensor([[1.0, 0.0], [-1.0, 0.5], [0.0, -1.5]], dtype=F64), column(0.3, 0.2, 0.5)
)


def grid(generator: torch.Generator, count: int = 7) -> torch.Tensor:
    return torch.randn(count, 2, generator=generator, dtype=F64)


def test_golden_values_of_the_one_dimensional_mixture() -> None:
    x = column(-1.5, -0.6, -0.52440051270804, 0.3, 2.0)[:, None]
    expected = column(-2.2289412783, -1.5899201887, -0.9150924228, 0.9424200291, 1.9226277620)
    assert (MIXTURE.flow_map(Linear(), x, 1.0, 0.0)[:, 0] - expected).abs().max() < 1e-9


def test_one_dimensional_map_solves_its_ode() -> None:
    """F_t^{-1} o F_s against Runge-Kutta on the closed velocity, in the tails as well."""
    x = column(-6.0, -1.5, -0.6, 0.3, 2.0, 6.0)[:, None]
    there = MIXTURE.integrate(Linear(), x, 0.9, 0.1, steps=1000)
    assert (MIXTURE.flow_map(Linear(), x, 0.9, 0.1) - there).abs().max() < 1e-6


def test_gaussian_map_is_a_semigroup_and_solves_its_ode(path: Path, generator: torch.Generator) -> None:
    x = grid(generator)
    whole = DATA.flow_map(path, x, 0.9, 0.2)
    assert torch.allclose(DATA.flow_map(path, DATA.flow_map(path, x, 0.9, 0.5), 0.5, 0.2), whole, atol=1e-12)
    h = 1e-5
    slope = (DATA.flow_map(path, x, 0.6, 0.6 + h) - DATA.flow_map(path, x, 0.6, 0.6 - h)) / (2 * h)
    assert torch.allclose(slope, DATA.velocity(path, x, 0.6), atol=1e-6)


def test_gaussian_velocity_score_and_denoiser_agree(path: Path, generator: torch.Generator) -> None:
    """v = a' D + b' (x - a D) / b and score = (a D - x) / b^2 (Tweedie); the score is log p's gradient."""
    x, t = grid(generator).requires_grad_(), column(0.4)
    a, b, da, db = path.a(t), path.b(t), path.da(t), path.db(t)
    denoised = DATA.denoiser(path, x, 0.4)
    assert torch.allclose(DATA.velocity(path, x, 0.4), da * denoised + db * (x - a * denoised) / b)
    assert torch.allclose(DATA.score(path, x, 0.4), (a * denoised - x) / b**2)
    (gradient,) = torch.autograd.grad(DATA.log_prob(path, x, 0.4).sum(), x)
    assert torch.allclose(gradient, DATA.score(path, x, 0.4))


def test_change_of_variables_of_the_gaussian(path: Path, generator: torch.Generator) -> None:
    """log p_s(x) = log p_t(X_{s,t} x) + integral of div v from s to t, to 1e-12."""
    x = grid(generator)
    moved = DATA.flow_map(path, x, 0.9, 0.1)
    gap = DATA.log_prob(path, x, 0.9) - DATA.log_prob(path, moved, 0.1) - DATA.divergence_integral(path, 0.9, 0.1)
    assert gap.abs().max() < 1e-12


def test_linear_path_carries_noise_by_optimal_transport(generator: torch.Generator) -> None:
    x = grid(generator)
    transport = exact.gaussian_ot_map(torch.eye(2, dtype=F64), COVARIANCE)
    assert torch.allclose(DATA.flow_map(Linear(), x, 1.0, 0.0), MEAN + x @ transport.T, atol=1e-12)


def test_mixture_of_one_is_the_gaussian(path: Path, generator: torch.Generator) -> None:
    x = grid(generator)
    one = Mixture(column(1.0), MEAN[None], column(0.6))
    gaussian = Gaussian(MEAN, 0.36 * torch.eye(2, dtype=F64))
    for name in ("velocity", "score", "denoiser", "log_prob"):
        left, right = (getattr(m, name)(path, x, 0.3) for m in (one, gaussian))
        assert torch.allclose(left, right, atol=1e-12), name
    there = one.flow_map(path, x, 0.9, 0.1, steps=200)
    assert torch.allclose(there, gaussian.flow_map(path, x, 0.9, 0.1), atol=1e-7)


def test_mixture_forms_agree(path: Path, generator: torch.Generator) -> None:
    x, t = grid(generator).requires_grad_(), column(0.4)
    a, b, da, db = path.a(t), path.b(t), path.da(t), path.db(t)
    denoised = RING.denoiser(path, x, 0.4)
    assert torch.allclose(RING.velocity(path, x, 0.4), da * denoised + db * (x - a * denoised) / b)
    (gradient,) = torch.autograd.grad(RING.log_prob(path, x, 0.4).sum(), x)
    assert torch.allclose(gradient, RING.score(path, x, 0.4))
    assert torch.allclose(RING.score(path, x, 0.4), (a * denoised - x) / b**2)


def test_mixture_log_prob_is_normalised() -> None:
    x = torch.linspace(-12, 12, 4001, dtype=F64)[:, None]
    assert abs(torch.trapezoid(MIXTURE.log_prob(Linear(), x, 0.3).exp(), x[:, 0]).item() - 1) < 1e-10


def test_mixture_samples_have_its_moments(generator: torch.Generator) -> None:
    x = MIXTURE.sample(200_000, generator)
    mean = 0.3 * -2 + 0.7 * 1
    variance = 0.3 * (4 + 0.09) + 0.7 * (1 + 0.25) - mean**2
    assert abs(x.mean().item() - mean) < 0.02
    assert abs(x.var().item() - variance) < 0.02


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_onehot_posterior_is_bayes(scale: float, generator: torch.Generator) -> None:
    prior = column(0.2, 0.5, 0.3)
    x = torch.randn(5, 3, generator=generator, dtype=F64)
    a, b = 0.6, 0.4
    means = a * scale * torch.eye(3, dtype=F64)
    log_joint = prior.log() - (x[:, None] - means).square().sum(-1) / (2 * b * b)
    assert torch.allclose(exact.onehot_posterior(x, prior, a, b, scale), torch.softmax(log_joint, -1))


def test_circle() -> None:
    """A point mass at y: the geodesic shrinks, the end is y, and halves compose."""
    x, y = column(0.9, 0.35, 0.1)[:, None], column(0.05)[:, None]
    assert torch.allclose(exact.point_mass_on_torus(x, y, 1.0, 0.5)[0], column(0.975))  # the short way round
    assert torch.allclose(exact.point_mass_on_torus(x, y, 1.0, 0.0), y.expand_as(x))
    half = exact.point_mass_on_torus(x, y, 0.8, 0.4)
    assert torch.allclose(exact.point_mass_on_torus(half, y, 0.4, 0.1), exact.point_mass_on_torus(x, y, 0.8, 0.1))


def test_golden_values_of_transport_and_bridge() -> None:
    one, two = torch.eye(1, dtype=F64), torch.eye(2, dtype=F64)
    zero = torch.zeros(2, dtype=F64)
    assert abs(exact.bures_wasserstein(zero[:1], one, column(3.0), 4 * one).item() - math.sqrt(10)) < 1e-12
    other = torch.diag(column(4.0, 9.0))
    assert abs(exact.bures_wasserstein(zero, two, zero, other).item() - math.sqrt(5)) < 1e-12
    assert abs(exact.bridge_covariance(1.0, 1.5, 0.8) - 1.213754) < 1e-6
    assert abs(exact.bridge_variance(1.0, 1.5, 0.8, 0.5) - 1.579377) < 1e-6


def test_transport_map_pushes_a_to_b() -> None:
    other = torch.tensor([[1.5, -0.4], [-0.4, 0.7]], dtype=F64)
    transport = exact.gaussian_ot_map(COVARIANCE, other)
    assert torch.allclose(transport @ COVARIANCE @ transport.T, other, atol=1e-12)
    assert torch.allclose(transport, transport.T, atol=1e-12)  # the gradient of a convex function
