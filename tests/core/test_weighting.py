"""The learned weight of the times against the closed form of the expected loss; EDM's weight against its definition."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path as FilePath

import pytest
import torch
from torch import Tensor, nn

from sciconsist.checkpoint import read_checkpoint
from sciconsist.errors import UserError
from sciconsist.flowmap import FlowMap
from sciconsist.losses import flow_map_loss, weight_of
from sciconsist.paths import VE, Linear, Path
from sciconsist.recipes import RECIPES
from sciconsist.run_state import load_state
from sciconsist.times import Split
from sciconsist.weighting import LearnedWeight
from tests.core.exact_maps import COVARIANCE, column, exact_model, pairs
from tests.core.test_training import Stop, dying_loss, give_up, states_equal, train

FM = replace(RECIPES["fm"], weight="learned")
LSD_FD = replace(RECIPES["lsd_fd"], weight="learned")


def expected_loss(path: Path, t: Tensor) -> Tensor:
    """Of the exact velocity of the Gaussian, mean over coordinates: (a'b - ab')^2 lambda / (a^2 lambda + b^2)."""
    values = torch.linalg.eigvalsh(COVARIANCE)[None]
    a, b, da, db = (f(t)[:, None] for f in (path.a, path.b, path.da, path.db))
    return ((da * b - a * db).square() * values / (a * a * values + b * b)).mean(1)


@pytest.mark.parametrize("path", [Linear(), VE(8.0)], ids=lambda p: type(p).__name__)
def test_the_optimum_is_the_inverse_of_the_expected_loss(path: Path, generator: torch.Generator) -> None:
    """Around the exact velocity of a Gaussian the expected loss is known at every time: e^u finds it."""
    model, weighting = exact_model(path, "velocity"), LearnedWeight()
    optimizer = torch.optim.Adam(weighting.parameters(), lr=0.05)
    for k in range(400):
        x0, noise = pairs(512, generator)
        loss = flow_map_loss(model, FM, x0, noise, generator=generator, weighting=weighting)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - k / 400)
        optimizer.step()
    t = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    wanted = expected_loss(path, t)
    assert wanted.max() / wanted.min() > 2  # all weights 1 would not do
    assert torch.allclose(weighting(t, t).exp().double(), wanted, rtol=0.15)


def test_it_tells_the_diagonal_from_the_gaps(generator: torch.Generator) -> None:
    """Losses of 1 + s where s = t and a hundredth of that for wide gaps: u follows both clocks."""
    weighting = LearnedWeight()
    optimizer = torch.optim.Adam(weighting.parameters(), lr=0.05)

    def expected(s: Tensor, t: Tensor) -> Tensor:
        return (1 + s) * torch.exp(-4.6 * (s - t))

    for k in range(400):
        s, gap = torch.rand(2, 512, generator=generator)
        t = s * (1 - gap)
        losses = expected(s, t) * torch.randn(512, generator=generator).square()
        optimizer.zero_grad()
        weighting.weigh(losses, s, t, s != t).mean().backward()
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - k / 400)
        optimizer.step()
    s = torch.tensor([0.8, 0.8, 0.8, 0.4, 0.4])
    t = torch.tensor([0.8, 0.5, 0.2, 0.4, 0.2])
    assert torch.allclose(weighting(s, t).exp(), expected(s, t), rtol=0.25)


def test_the_size_of_the_networks_gradient_stays(generator: torch.Generator) -> None:
    """A constant u, of any size, changes nothing for the network; and u does not feel the network's weights."""
    model, weighting = exact_model(Linear(), "velocity", "identity"), LearnedWeight()
    x0, noise = pairs(64, generator)
    s = torch.rand(64, generator=generator, dtype=torch.float64)
    plain = flow_map_loss(model, RECIPES["fm"], x0, noise, times=Split(s, s, s))
    (wanted,) = torch.autograd.grad(plain.total, [model.net.scale])
    for u in (0.0, 3.0, -5.0):
        with torch.no_grad():
            weighting.linear.bias.fill_(u)
        found = flow_map_loss(model, FM, x0, noise, times=Split(s, s, s), weighting=weighting)
        gradient, bias = torch.autograd.grad(found.total, [model.net.scale, weighting.linear.bias])
        assert torch.allclose(gradient, wanted, rtol=1e-6) and torch.allclose(found.total, plain.total, rtol=1e-6)
        own = (1 - plain.per_sample * torch.exp(-torch.tensor(u))).mean()
        assert torch.allclose(bias.double(), own.detach(), rtol=1e-5)
        assert found.parts["diagonal"] == plain.parts["diagonal"]


def test_the_anchor_keeps_its_share(generator: torch.Generator) -> None:
    """However small the losses off the diagonal are, the mean weight there and on it is one."""
    weighting = LearnedWeight()
    torch.nn.init.normal_(weighting.linear.weight, generator=generator)
    s = torch.rand(64, generator=generator)
    t = torch.where(torch.arange(64) % 4 == 0, s * 0.3, s)
    ones = torch.ones(64)
    weights = weighting.weigh(ones, s, t, s != t).detach()
    assert weights.std() > 0.3
    for group in (s == t, s != t):
        assert torch.allclose(weights[group].mean(), ones[0], rtol=1e-5)


def test_a_run_keeps_its_learned_weight(tmp_path: FilePath) -> None:
    """One line of configuration; resume is bit-exact, and the model's file knows nothing of it."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = {"recipe": LSD_FD, "save_every_seconds": 0.0}
    train(20, out=whole, **options)
    with pytest.raises(Stop):
        train(20, out=parts, loss=dying_loss(10, give_up), **options)
    with pytest.raises(UserError, match="another weight"):
        train(20, out=parts, resume=True)
    train(20, out=parts, resume=True, **options)
    assert states_equal(whole, parts)
    state = load_state(whole)
    assert state is not None and bool(state[0]["weighting.linear.weight"].abs().sum() > 0)
    assert not any("weighting" in name for name in read_checkpoint(whole / "model.safetensors").weights)


def test_clocks_of_every_field_are_read() -> None:
    weighting = LearnedWeight(2)
    nn.init.ones_(weighting.linear.weight)
    s = {"a": column(0.5), "b": column(0.5)}
    moved = {"a": column(0.5), "b": column(0.9)}
    assert weighting(s, s).shape == (1,) and weighting(s, s) != weighting(moved, moved)


def test_it_goes_with_its_recipe_alone(generator: torch.Generator) -> None:
    model = exact_model(Linear(), "velocity")
    x0, noise = pairs(8, generator)
    for recipe, weighting in ((FM, None), (RECIPES["fm"], LearnedWeight())):
        with pytest.raises(ValueError, match="weighting="):
            flow_map_loss(model, recipe, x0, noise, generator=generator, weighting=weighting)


# --- EDM's weight -----------------------------------------------------------------------------------------


def test_edm_weight_of_the_denoiser(generator: torch.Generator) -> None:
    """Karras et al. 2022, table 1: (sigma^2 + sd^2) / (sigma sd)^2 in endpoint form, 1 on F of the preconditioner."""
    s = torch.rand(32, generator=generator, dtype=torch.float64) * 0.9 + 0.1
    for path in (VE(8.0), Linear()):
        sigma = path.b(s) / path.a(s)
        endpoint = FlowMap(nn.Identity(), path, None, "endpoint", 0.5).rows[None]
        for t in (s, 0.4 * s):  # a jump's weight is that of its start
            found = weight_of("edm", endpoint, s, s, t) * path.a(s).square()  # errors of a denoiser of x / a
            wanted = (sigma.square() + 0.25) / (0.5 * sigma).square() * path.a(s).square()
            assert torch.allclose(found, wanted, rtol=1e-6)
        own = FlowMap(nn.Identity(), path, None, "preconditioned", 0.5).rows[None]
        assert torch.equal(weight_of("edm", own, s, s, 0.4 * s), torch.ones_like(s))


class Twin(nn.Module):
    """The F of another parametrisation that gives the same map."""

    def __init__(self, model: FlowMap, other: FlowMap) -> None:
        super().__init__()
        self.model, self.other = model, other

    def forward(self, x: Tensor, s: Tensor, t: Tensor) -> Tensor:
        u = self.model.average_velocity(x, s, t)
        return self.other.rows[None].target(x, u, s, t)


@pytest.mark.parametrize("kind", ["endpoint", "velocity"])
def test_edm_weight_makes_the_rows_agree(kind: str, generator: torch.Generator) -> None:
    """One map, on and off the diagonal: the loss under `edm` is that of the preconditioned row."""
    model = exact_model(Linear(), "preconditioned", "start")
    other = FlowMap(nn.Identity(), Linear(), None, kind, 0.7)
    other.net = Twin(model, other)
    x0, noise = pairs(64, generator)
    s = torch.rand(64, generator=generator, dtype=torch.float64) * 0.8 + 0.2
    t = torch.where(torch.arange(64) % 2 == 0, s, 0.3 * s)
    recipe = replace(RECIPES["meanflow"], weight="edm")
    losses = [flow_map_loss(m, recipe, x0, noise, times=Split(s, s, t)).per_sample for m in (model, other)]
    assert losses[0].min() > 0 and torch.allclose(*losses, rtol=1e-8)
