"""Latent maps, cascades, adaptation, quantisation, distillation in stages and features, state spaces."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sciconsist import adaptation, compose, distillation, quantise, sampling
from sciconsist.exact import Gaussian
from sciconsist.flowmap import FlowMap
from sciconsist.losses import LossParts, flow_map_loss
from sciconsist.nn.embeddings import Continuous, Learned, Sinusoidal
from sciconsist.nn.mlp import MLP
from sciconsist.nn.state_space import StateSpace
from sciconsist.paths import Linear
from sciconsist.random import stream
from sciconsist.recipes import RECIPES
from sciconsist.training import fit
from sciconsist.workflows.benchmark_targets import TARGETS, fresh
from tests.core.exact_maps import COVARIANCE, exact_model
from tests.core.test_guidance import Map

F64 = torch.float64


# --- latent and cascade -----------------------------------------------------------------------------------


def test_a_latent_map_on_a_plane_gives_the_plane_s_gaussian() -> None:
    """Codes are coordinates in an orthonormal basis of a plane in R^6: the samples' covariance is Q C Q^T."""
    q = torch.linalg.qr(torch.randn(6, 2, generator=stream(0), dtype=F64))[0]
    latent = compose.Latent(exact_model(Linear(), "preconditioned"), lambda x: x @ q, lambda z: z @ q.T)
    x = latent.sample((20_000, 2), [1.0, 0.0], stream(1))
    assert x.shape == (20_000, 6)
    assert torch.allclose(x.T.cov(), q @ COVARIANCE @ q.T, atol=0.03)
    assert torch.allclose(latent.decode(latent.encode(x)), x, atol=1e-12)


def test_the_autoencoder_follows_a_curve_that_a_line_cannot() -> None:
    angle = 3 * torch.rand(2000, 1, generator=stream(0))
    x = torch.cat([angle.cos(), angle.sin()], 1)
    model = fresh(lambda: compose.Autoencoder(2, 1, 32), 0)
    assert isinstance(model, compose.Autoencoder)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(300):
        optimizer.zero_grad()
        model.loss(x).backward()
        optimizer.step()
    model.standardise(x)
    z = model.encode(x).detach()
    assert float(z.mean().abs()) < 1e-5 and float(z.std()) == pytest.approx(1, abs=1e-4)
    line = float(torch.linalg.svdvals(x - x.mean(0))[1].square()) / x.numel()  # what one principal axis leaves
    assert float((model.decode(z) - x).square().mean()) < 0.05 * line


class Follow(nn.Module):
    """The exact map to N(condition, v)."""

    def __init__(self, variance: float) -> None:
        super().__init__()
        self.map = Map(Gaussian(torch.zeros(1), variance * torch.eye(1)))

    def forward(self, x: Tensor, s: Tensor, t: Tensor, condition: Any = None, mask: Any = None) -> Tensor:
        centre = 0 * x if condition is None else condition
        return self.map(x - (1 - s)[:, None] * centre, s, t) - centre  # the mean moves by -c a unit of time


def test_a_cascade_is_a_markov_chain_of_its_levels() -> None:
    """x1 ~ N(0, 1), x2 | x1 ~ N(2 x1, 1/2), x3 | x2 ~ N(x2, 1/4), each in one jump."""
    stages = [
        compose.Stage(FlowMap(Follow(v), Linear(), None, "velocity"), (20_000, 1), condition)
        for v, condition in ((1.0, lambda c: c), (0.5, lambda c: 2 * c), (0.25, lambda c: c))
    ]
    levels = [x.double() for x in compose.cascade(stages, [1.0, 0.0], stream(0))]
    cov = torch.cat(levels, 1).T.cov()
    expected = torch.tensor([[1, 2, 2], [2, 4.5, 4.5], [2, 4.5, 4.75]], dtype=F64)
    assert torch.allclose(cov, expected, atol=0.15)


# --- adaptation -------------------------------------------------------------------------------------------


def moved(model: FlowMap, **options: Any) -> float:
    """Mean error of a model of N(0, 1) after training on N((2, -1), 1/4) for 150 steps, one jump."""
    x = torch.tensor([2.0, -1.0]) + 0.5 * torch.randn(4096, 2, generator=stream(0))
    fit(model, RECIPES["lsd_fd"], x, steps=150, lr=2e-2, batch_size=128, progress=False, warmup=10, **options)
    y = sampling.sample(model, (1000, 2), [1.0, 0.0], stream(1))
    assert isinstance(y, Tensor)
    return float((y.mean(0) - torch.tensor([2.0, -1.0])).norm())


def test_lora_begins_as_the_model_learns_and_merges() -> None:
    model = FlowMap(fresh(lambda: MLP(2, 32), 0))
    plain = copy.deepcopy(model)
    adaptation.add_lora(model.net, 4, stream(0))
    x, s, t = torch.randn(8, 2, generator=stream(2)), torch.full((8,), 0.9), torch.full((8,), 0.2)
    assert torch.equal(model(x, s, t), plain(x, s, t))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert 0 < trained < 0.4 * sum(p.numel() for p in plain.parameters())
    before = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    assert moved(model) < 0.5
    assert all(torch.equal(dict(model.named_parameters())[n], p) for n, p in before.items())
    y = model(x, s, t).detach()
    adaptation.merge_lora(model.net)
    assert torch.allclose(model(x, s, t), y, atol=1e-5)
    assert model.state_dict().keys() == plain.state_dict().keys()


def test_ewc_has_the_closed_form_minimiser() -> None:
    """h/2 (theta - b)^2 + lambda/2 F (theta - a)^2 is least at (h b + lambda F a) / (h + lambda F)."""

    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.theta = nn.Parameter(torch.tensor([0.5, -1.0], dtype=F64))

    model, b, h = One(), torch.tensor([2.0, 3.0], dtype=F64), torch.tensor([1.0, 4.0], dtype=F64)

    def loss(module: Any) -> LossParts:
        value = (0.5 * h * (module.theta - b).square()).sum()
        return LossParts(value, value[None])

    importance = adaptation.fisher(model, [(model.theta * torch.tensor([2.0, 0.5])).sum(), (3 * model.theta).sum()])
    assert torch.allclose(importance["theta"], torch.tensor([(4 + 9) / 2, (0.25 + 9) / 2], dtype=F64))
    old, strength = model.theta.detach().clone(), 0.7
    kept = adaptation.ewc(model.state_dict(), importance, strength, loss)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=50)

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = kept(model).total
        value.backward()
        return value

    optimizer.step(closure)  # type: ignore[arg-type]
    weight = strength * importance["theta"]
    assert torch.allclose(model.theta, (h * b + weight * old) / (h + weight), atol=1e-6)
    with pytest.raises(ValueError, match="no losses"):
        adaptation.fisher(model, [])


@pytest.mark.slow
def test_ewc_forgets_less() -> None:
    """A model of a condition's two values, trained on one more: the old one suffers less under the pull."""
    x = torch.cat([torch.randn(2048, 1, generator=stream(0)) * 0.3 + c for c in (-2.0, 2.0)])
    c = torch.cat([torch.full((2048, 1), v) for v in (0.0, 1.0)])
    from sciconsist.domain import States

    model = FlowMap(fresh(lambda: MLP(1, 32, conditions=1), 0), data_std=2.0)
    options: dict[str, Any] = {"lr": 1e-2, "batch_size": 128, "progress": False, "warmup": 10}
    fit(model, RECIPES["fm"], States(x, c), steps=500, **options)
    batches = (torch.randperm(4096, generator=stream(k))[:64] for k in range(50))
    importance = adaptation.fisher(
        model,
        (
            flow_map_loss(
                model, RECIPES["fm"], x[i], torch.randn(64, 1, generator=stream(k)), generator=stream(k), condition=c[i]
            ).total
            for k, i in enumerate(batches)
        ),
    )

    def error(model: FlowMap, value: float) -> float:
        noise = torch.randn(500, 1, generator=stream(9))
        y = sampling.ode(model, noise, sampling.uniform(30), "heun", condition=torch.full((500, 1), value))
        assert isinstance(y, Tensor)
        return abs(float(y.mean()) - {0.0: -2.0, 1.0: 2.0, 0.5: 0.0}[value])

    new = States(torch.randn(1024, 1, generator=stream(3)) * 0.3, torch.full((1024, 1), 0.5))
    errors = []
    for strength in (0.0, 3e3):
        twin = copy.deepcopy(model)
        loss = adaptation.ewc(model.state_dict(), importance, strength)
        fit(twin, RECIPES["fm"], new, steps=150, loss=loss, **{**options, "lr": 3e-3})
        errors.append((error(twin, 0.0) + error(twin, 1.0), error(twin, 0.5)))
    assert errors[1][0] < 0.6 * errors[0][0]  # forgets less
    assert errors[1][1] < 0.8  # and has learnt


# --- quantisation and distillation ------------------------------------------------------------------------


def test_int8_is_a_quarter_of_the_memory_and_nearly_the_same() -> None:
    model = FlowMap(fresh(lambda: MLP(2, 128), 0))
    small = quantise.quantise(model)
    assert quantise.megabytes(small) < 0.3 * quantise.megabytes(model)
    x, s, t = torch.randn(256, 2, generator=stream(0)), torch.full((256,), 0.9), torch.full((256,), 0.1)
    a, b = model(x, s, t).detach(), small(x, s, t)
    assert 0 < float((a - b).norm() / (a - x).norm()) < 0.03
    assert torch.equal(model(x, s, t), a)  # the model itself is untouched
    layer = nn.Linear(64, 3)
    with torch.no_grad():  # weights on the grid come back exactly
        layer.weight.copy_(torch.randint(-127, 128, (3, 64), generator=stream(0)) / 127.0)
        layer.weight[:, 0] = 1.0
    z = torch.randn(5, 64, generator=stream(1))
    assert torch.allclose(quantise.Int8Linear(layer)(z), layer(z), atol=1e-5)


@pytest.mark.slow
def test_progressive_distillation_makes_one_step_of_sixty_four() -> None:
    target = TARGETS["mixture1d"]
    model = target.model(0)
    x = target.data(8192, stream(0))[0]
    options: dict[str, Any] = {"batch_size": 256, "lr": 8e-3, "progress": False}
    fit(model, RECIPES["fm"], x, steps=600, **options)
    noise = torch.randn(1000, 1, generator=stream(1))
    exact = target.exact(noise)  # type: ignore[misc]
    before = float((model(noise, 1.0, 0.0) - exact).abs().mean())
    found = distillation.progressive(model, x, steps=700, warmup=10, **options)
    assert len(found) == RECIPES["pd"].times.levels
    after = float((model(noise, 1.0, 0.0) - exact).abs().mean())
    assert after < 0.5 and after < 0.5 * before


def test_feature_metric_is_the_plain_one_for_rotations_and_sees_only_its_features() -> None:
    q = torch.linalg.qr(torch.randn(2, 2, generator=stream(0)))[0]
    a, b = torch.randn(2, 16, 2, generator=stream(1))
    rotated = distillation.feature_metric(lambda x: x @ q, 1.0)(a, b, None, None)  # type: ignore[arg-type]
    plain = distillation.feature_metric(lambda x: x, 0.0)(a, b, None, None)  # type: ignore[arg-type]
    assert torch.allclose(rotated, plain, atol=1e-6)
    first = distillation.feature_metric(lambda x: x[:, :1], 1.0)
    a.requires_grad_()
    (gradient,) = torch.autograd.grad(first(a, b, None, None).sum(), a)  # type: ignore[arg-type]
    assert bool((gradient[:, 1] == 0).all() and (gradient[:, 0] != 0).all())


# --- blocks -----------------------------------------------------------------------------------------------


def test_the_state_space_is_its_recurrence() -> None:
    """h_k = e^(dt A) h + B u by a loop, forward alone; and the sum with its mirror image both ways."""
    layer = StateSpace(3, 4, both_ways=False).double()
    u = torch.randn(2, 20, 3, generator=stream(0), dtype=F64)
    a = torch.complex(-layer.log_decay.exp(), layer.frequency)[0]
    step = (a * layer.log_step.exp()[0, :, None]).exp()
    gain = (step - 1) / a
    h = torch.zeros(2, 3, 4, dtype=torch.complex128)
    rows = []
    for k in range(20):
        h = step * h + gain * u[:, k, :, None]
        rows.append(2 * (torch.view_as_complex(layer.read)[0] * h).sum(-1).real + layer.skip * u[:, k])
    assert torch.allclose(layer(u), torch.stack(rows, 1), atol=1e-10)
    both = StateSpace(3, 4).double()
    with torch.no_grad():
        for p in (both.log_step, both.log_decay, both.frequency, both.read):
            p[1] = p[0]
    assert torch.allclose(both(u.flip(1)), both(u).flip(1), atol=1e-10)
    value, tangent = torch.func.jvp(both, (u,), (u,))  # JVP recipes may use it: it is linear
    assert torch.allclose(value, tangent, atol=1e-10)


def test_a_state_space_reaches_as_far_as_the_field() -> None:
    layer = StateSpace(2, 16)
    u = torch.zeros(1, 512, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(u)[0, -1].sum(), u)
    assert float(gradient[0, 0].abs().max()) > 1e-6


@pytest.mark.parametrize("embedding", [Sinusoidal(16), Learned(16), Continuous(16)], ids=lambda e: type(e).__name__)
def test_embeddings_tell_times_apart_and_have_derivatives(embedding: nn.Module) -> None:
    t = torch.linspace(0, 1, 65)
    e = embedding(t)
    assert e.shape == (65, 16)
    assert float(torch.pdist(e).min()) > 1e-4
    _, rate = torch.func.jvp(embedding, (t,), (torch.ones_like(t),))
    slope = (embedding(t[1:-1] + 1e-3) - embedding(t[1:-1] - 1e-3)) / 2e-3
    inside = torch.ones(63, dtype=torch.bool) if not isinstance(embedding, Learned) else (torch.arange(63) % 2 == 0)
    assert torch.allclose(rate[1:-1][inside], slope[inside], atol=0.05)


def test_points_network_is_equivariant() -> None:
    from sciconsist.nn.points import Points

    net = fresh(Points, 0).double()
    x = torch.randn(3, 5, 3, generator=stream(0), dtype=F64)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1] * 5, [1, 1, 1, 1, 0]]).bool()
    s, t = torch.full((3,), 0.7, dtype=F64), torch.full((3,), 0.2, dtype=F64)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=stream(1), dtype=F64))[0]
    out = net(x, s, t, None, mask)
    assert float(out.abs().max()) > 1e-3 and bool((out[~mask] == 0).all())
    assert torch.allclose(net(x @ turn + 2.0, s, t, None, mask), out @ turn, atol=1e-10)
    order = torch.tensor([2, 0, 1, 3, 4])
    assert torch.allclose(net(x[:, order], s, t, None, mask[:, order]), out[:, order], atol=1e-10)
