"""Divergences, log densities by the ODE, by the jumps' Jacobian and by the learned field, against closed forms."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sciconsist import density, likelihood
from sciconsist.errors import UserError
from sciconsist.exact import Gaussian, Mixture, TorusMixture
from sciconsist.flowmap import FlowMap
from sciconsist.geometry import Euclidean, Product, Torus
from sciconsist.nn.mlp import MLP
from sciconsist.paths import VE, Linear, Path
from sciconsist.random import stream
from sciconsist.recipes import RECIPES
from sciconsist.training import fit
from sciconsist.workflows.benchmark_targets import fresh
from tests.core.exact_maps import DATA, column, exact_model, pairs
from tests.core.test_sampling import mixed, start
from tests.core.test_solvers import follow

F64 = torch.float64
LINE = Mixture(column(0.3, 0.7), column(-2.0, 1.0)[:, None], column(0.3, 0.5))


# --- the divergence ---------------------------------------------------------------------------------------


def test_hutchinson_has_the_closed_mean_and_variance() -> None:
    """v = A x: mean tr A, variance 2 (|S|^2 - sum S_ii^2), S the symmetric part (20,000 probes)."""
    a = torch.randn(4, 4, generator=stream(0), dtype=F64)
    x = start(20_000).repeat(1, 2)
    probes = likelihood.rademacher(x, None, stream(1))
    _, exact = likelihood.divergence(lambda y: y @ a.T, x)
    _, found = likelihood.divergence(lambda y: y @ a.T, x, probes)
    assert torch.allclose(exact, a.trace().expand(len(x)), atol=1e-12)
    s = 0.5 * (a + a.T)
    variance = 2 * (s.square().sum() - s.diagonal().square().sum())
    assert float(found.mean()) == pytest.approx(float(a.trace()), abs=4 * float(variance / len(x)) ** 0.5)
    assert float(found.var()) == pytest.approx(float(variance), rel=0.05)


def test_divergence_of_any_shape_and_of_a_dict() -> None:
    """Of x^3 / 3 it is |x|^2, whatever the shape; a masked coordinate adds nothing."""
    x = {
        "a": torch.randn(3, 2, 2, 3, generator=stream(0), dtype=F64),
        "b": torch.randn(3, 7, generator=stream(1), dtype=F64),
    }
    v, total = likelihood.divergence(lambda y: {n: z**3 / 3 for n, z in y.items()}, x)
    assert torch.allclose(v["a"], x["a"] ** 3 / 3)
    by_hand = x["a"].square().sum((1, 2, 3)) + x["b"].square().sum(1)
    assert torch.allclose(total, by_hand)
    half = torch.arange(7) < 4
    _, part = likelihood.divergence(lambda y: {"a": 0 * y["a"], "b": y["b"] ** 3 / 3 * half}, x)
    assert torch.allclose(part, (x["b"] * half).square().sum(1))


# --- the ODE ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["preconditioned", "velocity", "endpoint"])
def test_log_density_of_the_gaussian(path: Path, kind: str) -> None:
    model, x = exact_model(path, kind), pairs(8, stream(0))[0]
    found = likelihood.log_density(model, x, end=0.01, rtol=1e-7, atol=1e-7)
    exact = DATA.log_prob(path, x, 0.01)
    if path != Linear():  # their prior is not the path's own end
        one = torch.ones(8, dtype=F64)
        moved = DATA.flow_map(path, x, 0.01, 1.0)
        exact = exact + likelihood.log_prior(model, moved, None) - DATA.log_prob(path, moved, one)
    assert torch.allclose(found, exact, atol=2e-4)


def test_log_density_of_a_mixture_and_by_hutchinson() -> None:
    ring = Mixture(column(0.2, 0.8), torch.tensor([[1.0, 0.0], [-1.0, 0.5]], dtype=F64), column(0.3, 0.4))
    model = follow(lambda x, s: ring.velocity(Linear(), x, s))
    x = ring.sample(16, stream(0))
    exact = ring.log_prob(Linear(), x, 1e-3)
    assert torch.allclose(likelihood.log_density(model, x, rtol=1e-6, atol=1e-6), exact, atol=1e-3)
    many = likelihood.log_density(model, x, generator=stream(0), probes=16, rtol=1e-3, atol=1e-3)
    assert float((many - exact).mean().abs()) < 0.3


def test_log_density_on_a_torus_is_normalised() -> None:
    data = TorusMixture(column(0.4, 0.6), column(0.2, 0.7)[:, None], column(0.06, 0.08))
    model = follow(lambda x, s: data.velocity(x, s), Torus())
    x = (torch.arange(64, dtype=F64)[:, None] + 0.5) / 64
    found = likelihood.log_density(model, x, end=0.02, rtol=1e-5, atol=1e-5)
    assert float(found.exp().mean()) == pytest.approx(1.0, abs=0.01)
    assert torch.allclose(found, data.density(x, 0.02).log(), atol=0.02)


def test_log_density_of_a_product_is_the_sum_and_knows_masks() -> None:
    """Centred clouds N(0, I) with padding stay what they are: their density is the prior's own."""
    geometry = Product({"r": Euclidean(zero_com=True), "f": Torus()})

    class Still(nn.Module):
        def forward(self, x: Any, s: Any, t: Any, condition: Any = None, mask: Any = None) -> Any:
            white = Gaussian(torch.zeros(1), torch.eye(1))
            shape = x["r"].shape
            v = white.velocity(Linear(), x["r"].reshape(-1, 1), s["r"].repeat_interleave(shape[1] * shape[2]))
            return {"r": v.reshape(shape), "f": 0 * x["f"]}

    model = FlowMap(Still(), Linear(), geometry, "velocity")
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]).bool()
    like = {"r": torch.zeros(2, 4, 3, dtype=F64), "f": torch.zeros(2, 4, 1, dtype=F64)}
    x = geometry.prior(like, dict.fromkeys(like, mask), generator=stream(0))
    found = likelihood.log_density(model, x, mask=mask, rtol=1e-6, atol=1e-6)
    prior = geometry.log_prior(x, dict.fromkeys(like, mask))
    assert torch.allclose(found, prior, atol=0.02)
    assert likelihood.free_coordinates(model, x, mask).tolist() == [6.0, 9.0]


# --- one jump ---------------------------------------------------------------------------------------------


def test_the_jacobian_of_exact_jumps_gives_the_density() -> None:
    for path in (Linear(), VE(8.0)):
        model, z = exact_model(path, "preconditioned"), start(16)
        noise = z * float(path.b(torch.ones(())))
        for times in ((1.0, 0.0), (1.0, 0.4, 0.0)):
            x, found = likelihood.jump_log_density(model, noise, times)
            exact = DATA.log_prob(path, x) + likelihood.log_prior(model, noise, None)
            exact = exact - DATA.log_prob(path, noise, torch.ones(16, dtype=F64))
            assert torch.allclose(found, exact, atol=1e-9)


@pytest.mark.slow
def test_the_learned_density_of_a_mixture_in_one_and_two_jumps() -> None:
    """A field trained by lsd_fd on the exact map of the 1-D mixture; log p spans 3 nats there."""

    class Exact(nn.Module):
        def forward(self, x: Tensor, s: Tensor, t: Tensor, condition: Any = None, mask: Any = None) -> Tensor:
            v = LINE.velocity(Linear(), x, s)
            same = (s == t)[:, None]
            if bool(same.all()):
                return v.to(x.dtype)
            gap = torch.where(same, torch.ones_like(x), (t - s)[:, None])
            return torch.where(same, v, (LINE.flow_map(Linear(), x, s, t) - x) / gap).to(x.dtype)

    model = FlowMap(Exact(), Linear(), None, "velocity")
    net = fresh(lambda: MLP(1, 96), 0)
    joint = density.with_density(model, net)
    fit(
        joint, RECIPES["lsd_fd"], density.density_data(LINE.sample(4096, stream(0)).float()), steps=500,
        batch_size=192, lr=8e-3, loss=density.density_loss, progress=False,
    )  # fmt: skip
    z = torch.special.ndtri(torch.linspace(0.05, 0.95, 91, dtype=F64))[:, None].float()
    errors = []
    for times in ((1.0, 0.0), (1.0, 0.5, 0.0)):
        x, found = density.few_step_log_density(joint, z, times)
        errors.append(float((found - LINE.log_prob(Linear(), x)).abs().mean()))
    still = float((likelihood.log_prior(model, z, None) - LINE.log_prob(Linear(), x)).abs().mean())
    assert still > 0.5  # what no gathered divergence would score
    assert errors[0] < 0.35 and errors[1] < 0.2


# --- the rest ---------------------------------------------------------------------------------------------


def test_bits_per_dimension() -> None:
    """Uniform bytes: 8 bits, whether as 0..255 or scaled to [-1, 1]."""
    log_p = torch.tensor([-3 * math.log(256)])
    assert likelihood.bits_per_dimension(log_p, 3).item() == pytest.approx(8)
    scaled = torch.tensor([-3 * math.log(2 * 256 / 255)])
    assert likelihood.bits_per_dimension(scaled, 3, 255 / 2).item() == pytest.approx(8)


def test_tuned_models_and_categories_are_refused() -> None:
    model, x = exact_model(Linear(), "velocity"), start(2)
    model.card = {"name": "few", "tuned_for": [1, 4], "tuned_by": "distribution matching"}
    for call in (
        lambda: likelihood.log_density(model, x),
        lambda: likelihood.jump_log_density(model, x),
        lambda: density.with_density(model, nn.Identity()),
    ):
        with pytest.raises(UserError, match=r"few was tuned by distribution matching for .* steps and is no flow map"):
            call()
    with pytest.raises(UserError, match="category"):
        likelihood.log_density(*mixed())
    with pytest.raises(UserError, match="square Jacobian"):
        likelihood.jump_log_density(*mixed())
