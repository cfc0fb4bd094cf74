"""Guidance and editing: identities, tilted Gaussians, conditionals in closed form, all geometries."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sciconsist import editing, guidance, sampling
from sciconsist.errors import UserError
from sciconsist.exact import Gaussian
from sciconsist.flowmap import FlowMap
from sciconsist.geometry import Torus
from sciconsist.paths import Linear
from sciconsist.random import stream
from tests.core.exact_maps import COVARIANCE, MEAN, column, exact_model
from tests.core.test_sampling import TorusNet, mixed, start

F64 = torch.float64


class Conditional(nn.Module):
    """The velocity toward N(c, 1), or toward N(0, 1) without a condition."""

    def forward(self, x: Tensor, s: Tensor, t: Tensor, condition: Any = None, mask: Any = None) -> Tensor:
        centre = torch.zeros_like(x) if condition is None else condition
        data = Gaussian(torch.zeros(1), torch.eye(1))
        shift = (1 - s)[:, None] * centre
        return data.velocity(Linear(), x - shift, s) - centre


def conditional() -> FlowMap:
    return FlowMap(Conditional(), Linear(), None, "velocity")


# --- condition and weak model -----------------------------------------------------------------------------


def test_weight_one_and_identical_networks_are_the_identity() -> None:
    model, x = mixed()
    plain = sampling.jump(model, x, sampling.uniform(3))
    for guided in (
        guidance.classifier_free(model, 1.0, null={"c": 1}),
        guidance.autoguided(model, mixed()[0], 1.0),
        guidance.autoguided(model, model, 3.7),
        guidance.classifier_free(model, 5.0, interval=(2.0, 3.0)),
    ):
        y = sampling.jump(guided, x, sampling.uniform(3))
        assert all(torch.equal(y[n], plain[n]) for n in x)
    model = conditional()
    x, c = start(16)[:, :1], torch.full((16, 1), 2.0, dtype=F64)
    same = sampling.ode(guidance.classifier_free(model, 1.0), x, sampling.uniform(9), condition=c)
    assert torch.equal(same, sampling.ode(model, x, sampling.uniform(9), condition=c))


def test_classifier_free_guidance_of_gaussians_extrapolates_the_mean() -> None:
    """Velocities of N(c, 1) and N(0, 1) differ by a function of time alone: weight w leads to N(w c, 1)."""
    model = conditional()
    x, c = start(500)[:, :1], torch.full((500, 1), 2.0, dtype=F64)
    for weight in (0.0, 1.0, 2.5):
        guided = guidance.classifier_free(model, weight)
        y = sampling.ode(guided, x, sampling.uniform(50), "rk4", condition=c)
        assert torch.allclose(y, x + weight * 2.0, atol=1e-6)
    half = guidance.classifier_free(model, 2.0, interval=(0.0, 0.5))
    y = sampling.ode(half, x, sampling.uniform(50), "rk4", condition=c)
    assert 1.1 * 2.0 < float((y - x).mean()) < 1.9 * 2.0


def test_autoguidance_pushes_away_from_the_weak_model() -> None:
    model, weak = exact_model(Linear(), "velocity"), exact_model(Linear(), "velocity", wrong="identity")
    x = start(8)
    v, w = model.velocity(x, 0.5), weak.velocity(x, 0.5)
    assert torch.allclose(guidance.autoguided(model, weak, 2.0).velocity(x, 0.5), 2 * v - w)
    with pytest.raises(ValueError, match="parametrisation"):
        guidance.autoguided(model, exact_model(Linear(), "endpoint"), 2.0)


def test_guided_categories_are_still_probabilities() -> None:
    model, x = mixed()
    y = sampling.jump(guidance.autoguided(model, FlowMap(mixed()[0].net, geometry=model.geometry), 4.0), x, [1.0, 0.0])
    assert torch.allclose(y["kind"].sum(-1), torch.full((4, 5), 2.0)) and bool((y["kind"] >= 0).all())


# --- rewards and measurements -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["preconditioned", "velocity", "endpoint"])
def test_a_linear_reward_moves_a_gaussian_by_its_covariance(kind: str) -> None:
    """exp(c . x0) tilts N(m, C) to N(m + C c, C): 100 steps get there; strength 0 is the plain sampler."""
    model, c = exact_model(Linear(), kind), column(0.8, -0.5)
    x, times = start(1000), sampling.uniform(60)
    y = guidance.steer(model, x, times, lambda x0, s: x0 @ c)
    plain = guidance.steer(model, x, times, lambda x0, s: x0 @ c, strength=0.0)
    assert torch.allclose(plain, sampling.jump(model, x, times), atol=1e-12)
    assert torch.allclose((y - plain).mean(0), COVARIANCE @ c, atol=0.02)
    assert torch.allclose(y.T.cov(), plain.T.cov(), atol=0.01)


def test_a_measurement_gives_the_posterior() -> None:
    """N(0, 1/2 I) with the first coordinate measured: mean y v / (v + n^2) and variance v n^2 / (v + n^2), v = 1/2."""
    variance, noise, observed = 0.5, 0.4, 1.3
    data = Gaussian(torch.zeros(2), variance * torch.eye(2))
    model = FlowMap(Map(data), Linear(), None, "velocity", variance**0.5)
    y_seen = torch.full((3000, 1), observed, dtype=F64)
    reward = guidance.measurement(lambda x0: x0[:, :1], y_seen, noise, model)
    y = guidance.steer(model, start(3000), sampling.uniform(100), reward, look="mean")
    gain = variance / (variance + noise**2)
    assert float(y[:, 0].mean()) == pytest.approx(observed * gain, abs=0.06)
    assert float(y[:, 0].var()) == pytest.approx(variance * (1 - gain), abs=0.03)
    assert float(y[:, 1].mean()) == pytest.approx(0, abs=0.04)
    assert float(y[:, 1].var()) == pytest.approx(variance, abs=0.05)


class Map(nn.Module):
    """The average velocity of a Gaussian's exact map."""

    def __init__(self, data: Gaussian) -> None:
        super().__init__()
        self.data = data

    def forward(self, x: Tensor, s: Tensor, t: Tensor, condition: Any = None, mask: Any = None) -> Tensor:
        same = (s == t)[:, None]
        gap = torch.where(same, torch.ones_like(x[:, :1]), (t - s)[:, None])
        moved = (self.data.flow_map(Linear(), x, s, t) - x) / gap
        return torch.where(same, self.data.velocity(Linear(), x, s), moved)


def test_steering_knows_fields_held_fields_and_the_torus() -> None:
    model, x = mixed()
    times = {"x": sampling.uniform(4), "frac": sampling.uniform(4), "kind": 0.0}
    reward = lambda x0, s: x0["x"][:, 0, 0] + torch.cos(2 * math.pi * x0["frac"]).sum((1, 2))  # noqa: E731
    y = guidance.steer(model, x, times, reward, 0.5)
    plain = sampling.jump(model, x, times)
    assert torch.equal(y["kind"], x["kind"])
    assert float(y["x"].mean(1).abs().max()) < 1e-5
    assert bool((reward(y, None) > reward(plain, None)).all())


# --- editing ----------------------------------------------------------------------------------------------


def test_inpainting_draws_from_the_conditional() -> None:
    """x2 given x1: resampling brings mean and variance to the closed form; without it they are off."""
    model, x1 = exact_model(Linear(), "preconditioned"), 1.9
    given = torch.full((4000, 2), x1, dtype=F64)
    known = torch.tensor([True, False]).expand(4000, 2)
    mean = float(MEAN[1] + COVARIANCE[0, 1] / COVARIANCE[0, 0] * (x1 - MEAN[0]))
    variance = float(COVARIANCE[1, 1] - COVARIANCE[0, 1] ** 2 / COVARIANCE[0, 0])
    off = []
    for resample in (1, 8):
        y = editing.inpaint(model, given, known, sampling.uniform(20), stream(0), resample=resample)
        assert torch.equal(y[:, 0], given[:, 0])
        off.append(abs(float(y[:, 1].mean()) - mean) + abs(float(y[:, 1].var()) - variance))
    assert off[1] < 0.08 and off[1] < off[0]
    nothing = editing.inpaint(model, given, ~known & known, sampling.uniform(4), stream(0))
    assert torch.allclose(nothing.T.cov(), COVARIANCE, atol=0.06)


def test_inpainting_of_a_product_with_a_mask() -> None:
    model, x = mixed()
    mask = torch.tensor([[1, 1, 1, 0, 0]] * 4).bool()
    given = model.geometry.project(x, dict.fromkeys(x, mask))
    known = torch.tensor([True, False, False, False, False]).expand(4, 5)
    y = editing.inpaint(model, given, known, sampling.uniform(3), stream(0), resample=2, mask=mask)
    for name in x:
        assert torch.equal(y[name][:, 0], given[name][:, 0])
        assert bool((y[name][:, 3:] == 0).all()) and not torch.equal(y[name][:, 1], given[name][:, 1])
    with pytest.raises(UserError, match="resample"):
        editing.inpaint(model, given, known, [1, 0], stream(0), resample=0)


def test_interpolation_returns_its_ends() -> None:
    model, x = exact_model(Linear(), "preconditioned"), start(16)
    y = start(16, seed=1)
    path = editing.interpolate(model, x, y, column(0.0, 0.5, 1.0))
    assert torch.allclose(path[0], x, atol=1e-4) and torch.allclose(path[2], y, atol=1e-4)
    point = torch.tensor([0.5], dtype=F64)
    torus = FlowMap(TorusNet(point), geometry=Torus())
    with pytest.raises(UserError, match="edit"):
        editing.interpolate(mixed()[0], mixed()[1], mixed()[1], column(0.5))
    assert torus.geometry == Torus()


def test_edits_keep_the_distribution_and_the_constraint() -> None:
    model = exact_model(Linear(), "preconditioned")
    x = MEAN + start(10_000) @ torch.linalg.cholesky(COVARIANCE).T
    y = editing.edit(model, x, 0.6, stream(0))
    assert torch.allclose(y.T.cov(), COVARIANCE, atol=0.03) and torch.allclose(y.mean(0), MEAN, atol=0.03)
    assert 0.1 < float((y - x).norm(dim=1).mean()) < float((x - x.roll(1, 0)).norm(dim=1).mean())
    assert torch.equal(editing.edit(model, x, 0.0, stream(0)), x)
    pin = lambda z: torch.stack([0 * z[:, 0] + 2.0, z[:, 1]], 1)  # noqa: E731
    fixed = editing.edit(model, x[:4000], 0.25, stream(0), pin, rounds=30)
    assert bool((fixed[:, 0] == 2.0).all())
    wanted = float(MEAN[1] + COVARIANCE[0, 1] / COVARIANCE[0, 0] * (2.0 - MEAN[0]))
    assert abs(float(fixed[:, 1].mean()) - wanted) < 0.15  # the other coordinate has followed
    with pytest.raises(UserError, match="keep"):
        editing.edit(model, x, 1.5, stream(0))
