"""Distances between samples against closed forms between Gaussians, and the energy of a transport."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sciconsist import exact, metrics, sampling
from sciconsist.errors import UserError
from sciconsist.flowmap import FlowMap
from sciconsist.geometry import Euclidean, Product, Torus
from sciconsist.paths import Linear, Trigonometric
from sciconsist.random import stream
from tests.core.exact_maps import COVARIANCE, DATA, MEAN, column, exact_model
from tests.core.test_sampling import TorusNet

F64 = torch.float64


def normal(count: int, size: int, purpose: str) -> torch.Tensor:
    return torch.randn(count, size, generator=stream(0, purpose), dtype=F64)


def test_exact_w2_of_translated_and_permuted_samples() -> None:
    x = normal(50, 3, "x")
    shift = column(1.0, -2.0, 2.0)
    order = torch.randperm(50, generator=stream(1))
    assert metrics.wasserstein2(x, x[order] + shift) == pytest.approx(3.0, abs=1e-12)
    assert metrics.wasserstein2(x, x[order]) == 0.0
    with pytest.raises(UserError, match="as many"):
        metrics.wasserstein2(x, x[:10])
    assert metrics.wasserstein2(x, x * math.nan) == math.inf


def test_exact_w2_converges_to_the_gaussian_distance() -> None:
    """sqrt(5) between N(0, I) and N(0, diag(4, 9)); Bures hits it, W2 with the sampling floor of n = 600."""
    x, y = normal(600, 2, "x"), normal(600, 2, "y") * column(2.0, 3.0)
    assert metrics.bures(x, y) == pytest.approx(math.sqrt(5), rel=0.05)
    assert metrics.wasserstein2(x, y) == pytest.approx(math.sqrt(5), rel=0.07)
    assert metrics.bures(x, y) <= metrics.wasserstein2(x, y)


def test_ground_distances_of_a_torus_and_a_product() -> None:
    x, y = column(0.95)[:, None], column(0.05)[:, None]
    assert metrics.wasserstein2(x, y, Torus()) == pytest.approx(0.1)
    assert metrics.wasserstein2(x, y) == pytest.approx(0.9)
    product = Product({"f": Torus(), "r": Euclidean()})
    first, second = {"f": x, "r": column(0.0)[:, None]}, {"f": y, "r": column(2.0)[:, None]}
    assert metrics.wasserstein2(first, second, product) == pytest.approx(math.sqrt(0.01 + 4))
    left = {"f": torch.rand(20, 2, generator=stream(0)), "r": normal(20, 3, "r")}
    right = {"f": torch.rand(20, 2, generator=stream(1)), "r": normal(20, 3, "s")}
    cost = metrics.squared_distances(left, right, product)
    apart = (left["f"][3] - right["f"][7]).double()
    by_hand = (apart - apart.round()).square().sum() + (left["r"][3] - right["r"][7]).square().sum()
    assert cost[3, 7].item() == pytest.approx(by_hand.item(), rel=1e-6)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=9), st.lists(st.floats(-5, 5), min_size=1, max_size=9))
def test_w2_on_a_line_of_unequal_samples(a: list[float], b: list[float]) -> None:
    """Both repeated to a common length, sorted and paired."""
    x, y = column(*a), column(*b)
    length = math.lcm(len(a), len(b))
    left, right = (v.sort().values.repeat_interleave(length // len(v)) for v in (x, y))
    by_hand = (left - right).square().mean().sqrt().item()
    assert metrics.wasserstein2_1d(x, y).item() == pytest.approx(by_hand, abs=1e-9)


def test_w2_on_a_line_of_two_gaussians() -> None:
    x, y = normal(20_000, 1, "x"), 3 + 2 * normal(20_000, 1, "y")
    assert metrics.wasserstein2_1d(x, y).item() == pytest.approx(math.sqrt(10), rel=0.02)


def test_sliced_w2_of_a_translation() -> None:
    x, shift = normal(500, 4, "x"), column(2.0, 0.0, 0.0, 0.0)
    found = metrics.sliced_wasserstein2(x, x + shift, stream(0), projections=4000)
    assert found == pytest.approx(2 / math.sqrt(4), rel=0.03)


def test_sinkhorn_plan_has_its_marginals_and_is_the_closed_form() -> None:
    """Of large samples of 1-D Gaussians: cov(x, y) is the Schroedinger bridge's with reg 2 sigma^2."""
    u = (torch.arange(400, dtype=F64) + 0.5) / 400
    x = torch.special.ndtri(u)[:, None]
    y, sigma = 1.5 * x, 0.8
    plan = metrics.sinkhorn_plan(metrics.squared_distances(x, y), 2 * sigma**2)
    assert torch.allclose(plan.sum(0), torch.full((400,), 1 / 400, dtype=F64))
    assert torch.allclose(plan.sum(1), torch.full((400,), 1 / 400, dtype=F64))
    assert float(x[:, 0] @ plan @ y[:, 0]) == pytest.approx(exact.bridge_covariance(1.0, 1.5, sigma), rel=0.01)


def test_sinkhorn_divergence_lies_between_nothing_and_w2() -> None:
    x, y = normal(60, 2, "x"), normal(60, 2, "y") + 1.0
    assert metrics.sinkhorn_w2(x, x, 0.5) == pytest.approx(0.0, abs=1e-6)
    assert metrics.sinkhorn_w2(x, y, 0.02) == pytest.approx(metrics.wasserstein2(x, y), rel=0.03)


def test_energy_of_the_optimal_map_is_w2_squared() -> None:
    """Linear path from noise: the map of a Gaussian is optimal; other paths bend, and their action is larger."""
    x = normal(2000, 2, "x")
    w2 = exact.bures_wasserstein(torch.zeros(2), torch.eye(2), MEAN, COVARIANCE).item()
    model = exact_model(Linear(), "preconditioned")
    action, displacement = metrics.transport_energy(model, x, sampling.uniform(60))
    assert displacement == pytest.approx(w2**2, rel=0.05)
    moved = DATA.flow_map(Linear(), x, 1.0, 0.0)
    assert displacement == pytest.approx((moved - x).square().sum(1).mean().item(), rel=1e-3)
    assert action > displacement * (1 - 1e-3)
    bent = metrics.transport_energy(exact_model(Trigonometric(), "preconditioned"), x, sampling.uniform(60))
    assert bent[0] > 1.1 * bent[1]


def test_energy_on_a_torus_goes_round() -> None:

    y = column(0.95)
    model = FlowMap(TorusNet(y), geometry=Torus())
    x = column(0.15)[:, None]
    action, displacement = metrics.transport_energy(model, x, [1.0, 0.5, 0.1])
    assert action == pytest.approx(0.18**2) and displacement == pytest.approx(0.18**2)
