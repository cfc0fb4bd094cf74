"""Geometries: exponentials and logarithms, projections, priors and their densities."""

from __future__ import annotations

import math

import pytest
import torch

from sciconsist.geometry import Euclidean, Product, Simplex, Torus, geometry_of

MASK = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).bool()
ALL = [Euclidean(), Euclidean(zero_com=True), Simplex(2.0), Torus(), Torus(zero_drift=True)]


@pytest.mark.parametrize("geometry", ALL, ids=repr)
def test_exp_and_log_invert(geometry: Euclidean | Simplex | Torus, generator: torch.Generator) -> None:
    x, y = (geometry.prior(torch.zeros(2, 5, 3), MASK, generator=generator) for _ in range(2))
    there = geometry.exp(x, geometry.log(x, y))
    assert geometry.log(there, y).abs().max() < 1e-6


@pytest.mark.parametrize("geometry", ALL, ids=repr)
def test_projections_are_idempotent_and_respect_the_mask(
    geometry: Euclidean | Simplex | Torus, generator: torch.Generator
) -> None:
    x = torch.randn(2, 5, 3, generator=generator)
    once = geometry.project(x, MASK)
    assert torch.allclose(geometry.project(once, MASK), once, atol=1e-6)
    v = geometry.tangent(once, x, MASK)
    assert torch.allclose(geometry.tangent(once, v, MASK), v, atol=1e-6)
    for field in (once, v, geometry.prior(x, MASK, generator=generator)):
        assert (field[~MASK] == 0).all()


def test_torus_wraps() -> None:
    torus = Torus()
    near, far = torch.tensor([[0.95]]), torch.tensor([[0.10]])
    assert torch.allclose(torus.log(near, far), torch.tensor([[0.15]]))
    assert torch.allclose(torus.exp(near, torch.tensor([[0.15]])), far)
    assert torch.allclose(torus.project(torch.tensor([[-0.25, 3.5]])), torch.tensor([[0.75, 0.5]]))
    d = torus.log(torch.rand(100, 1), torch.rand(100, 1))
    assert ((d >= -0.5) & (d < 0.5)).all()


def test_torus_stays_below_one_in_single_precision() -> None:
    """-1e-9 - floor(-1e-9) rounds to 1.0: a point of [0, 1) all the same."""
    torus = Torus()
    tiny = torch.tensor([[-1e-9, 1e-9]])
    assert (torus.project(tiny) < 1).all()
    assert (torus.exp(torch.zeros(1, 2), tiny) < 1).all()


def test_zero_centre_of_mass() -> None:
    x = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)) + 7
    y = Euclidean(zero_com=True).project(x, MASK)
    assert y.sum(1).abs().max() < 1e-5
    assert torch.allclose(y[0, 0] - y[0, 1], x[0, 0] - x[0, 1], atol=1e-6)


def test_gaussian_prior_density_integrates_its_subspace(generator: torch.Generator) -> None:
    """Mean of log p of prior draws is minus the entropy, d/2 (1 + log 2 pi), d = 3 n - 3 at zero centre of mass."""
    mask = MASK[:1].expand(40_000, 5)
    geometry = Euclidean(zero_com=True)
    x = geometry.prior(torch.zeros(40_000, 5, 3), mask, generator=generator)
    d = 3 * 3 - 3
    assert abs(geometry.log_prior(x, mask).mean().item() + d / 2 * (1 + math.log(2 * math.pi))) < 0.05


def test_symmetric_simplex_prior_is_symmetric_with_unit_variance(generator: torch.Generator) -> None:
    x = Simplex(symmetric=True).prior(torch.zeros(2000, 4, 4, 2), generator=generator)
    assert torch.equal(x, x.transpose(1, 2))
    assert (x.var(0) - 1).abs().max() < 0.2


def test_symmetric_simplex_density_counts_each_pair_once(generator: torch.Generator) -> None:
    geometry = Simplex(symmetric=True)
    real = torch.tensor([[1, 1, 1, 0]]).bool()
    mask = (real[:, :, None] & real[:, None, :]).expand(20_000, 4, 4)
    x = geometry.prior(torch.zeros(20_000, 4, 4, 2), mask, generator=generator)
    d = 6 * 2
    assert abs(geometry.log_prior(x, mask).mean().item() + d / 2 * (1 + math.log(2 * math.pi))) < 0.1


def test_simplex_endpoint_and_encode() -> None:
    geometry = Simplex(3.0)
    onehot = geometry.encode(torch.tensor([[0, 2]]), 3)
    assert torch.equal(onehot, 3 * torch.eye(3)[[0, 2]][None])
    assert torch.allclose(geometry.endpoint(torch.randn(2, 5, 3)).sum(-1), torch.full((2, 5), 3.0))
    assert torch.allclose(geometry.probabilities(onehot).sum(-1), torch.ones(1, 2))


def test_product_is_its_parts(generator: torch.Generator) -> None:
    geometry = Product({"r": Euclidean(zero_com=True), "k": Simplex(2.0), "f": Torus()})
    like = {"r": torch.zeros(2, 5, 3), "k": torch.zeros(2, 5, 4), "f": torch.zeros(2, 5, 3)}
    mask = dict.fromkeys(like, MASK)
    x = geometry.prior(like, mask, generator=generator)
    parts = sum(geometry[n].log_prior(x[n], MASK) for n in like)
    assert torch.allclose(geometry.log_prior(x, mask), torch.as_tensor(parts))
    y = geometry.prior(like, mask, generator=generator)
    back = geometry.exp(x, geometry.log(x, y))
    assert geometry.sq_norm(geometry.log(back, y), mask).max() < 1e-8


def test_priors_depend_on_the_generator_alone() -> None:
    for geometry in ALL:
        draws = [geometry.prior(torch.zeros(2, 5, 3), generator=torch.Generator().manual_seed(5)) for _ in range(2)]
        assert torch.equal(*draws)


def test_a_product_needs_a_dict() -> None:
    with pytest.raises(ValueError, match="dict"):
        geometry_of(Product({"r": Euclidean()}), None)
