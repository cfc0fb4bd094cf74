"""Multistep and adaptive solvers, stochastic samplers and their schedules against closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sciconsist import adaptive, sampling, solvers, stochastic
from sciconsist.errors import UserError
from sciconsist.exact import Mixture
from sciconsist.flowmap import FlowMap
from sciconsist.geometry import Euclidean, Torus
from sciconsist.paths import VP, Linear, Path, Trigonometric
from sciconsist.random import stream
from tests.core.exact_maps import COVARIANCE, DATA, MEAN, column, exact_model, pairs
from tests.core.test_sampling import TorusNet, mixed, start


class Closed(nn.Module):
    """Any closed velocity as a network."""

    def __init__(self, velocity: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.velocity = velocity

    def forward(self, x: Tensor, s: Tensor, t: Tensor, condition: Any = None, mask: Any = None) -> Tensor:
        return self.velocity(x, s)


def follow(velocity: Callable[[Tensor, Tensor], Tensor], geometry: Any = None) -> FlowMap:
    """Its flow map, the diagonal alone, on the linear path in velocity form."""
    return FlowMap(Closed(velocity), None, geometry, "velocity")


# --- DPM-Solver++(2M) -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["preconditioned", "velocity", "endpoint"])
@pytest.mark.parametrize("path", [Linear(), Trigonometric(), VP(0.1, 6.0)], ids=lambda p: type(p).__name__)
def test_dpmpp_2m_has_order_two(path: Path, kind: str) -> None:
    """Down to .1, in steps of equal log a/b from .9: the multistep order shows where lambda is finite."""
    model, x = exact_model(path, kind), start(16)
    exact = DATA.flow_map(path, x, 0.9, 0.1)
    errors = []
    for n in (40, 80):
        times = sampling.snr_uniform(n, path, 0.1, 0.9)
        times[0], times[-1] = 0.9, 0.1
        errors.append(float((solvers.dpmpp_2m(model, x, times) - exact).abs().max()))
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.15)


def test_dpmpp_2m_from_noise_to_data() -> None:
    model, x = exact_model(Linear(), "preconditioned"), start(16)
    exact = DATA.flow_map(Linear(), x, 1.0, 0.0)
    errors = {
        (method, n): float((sampling.ode(model, x, sampling.uniform(n), method) - exact).abs().max())
        for method in ("euler", "dpmpp_2m")
        for n in (20, 80)
    }
    assert errors["dpmpp_2m", 20] < 0.15 * errors["euler", 20]
    assert errors["dpmpp_2m", 80] < 0.2 * errors["dpmpp_2m", 20]  # lambda is infinite at both ends: short of order 2
    one = sampling.ode(model, x, [1.0, 0.0], "dpmpp_2m")
    assert torch.allclose(one, DATA.denoiser(Linear(), x, 1.0), atol=1e-12)
    with pytest.raises(UserError, match="down"):
        solvers.dpmpp_2m(model, x, [0.2, 0.8])


def test_dpmpp_2m_holds_fields_and_counts_one_evaluation_a_step() -> None:
    model, x = mixed()
    for held in x:
        times = {name: 0.0 if name == held else sampling.uniform(4) for name in x}
        model.net.calls = 0
        y = sampling.ode(model, x, times, "dpmpp_2m")
        assert model.net.calls == 4
        assert torch.equal(y[held], x[held])
        assert all(bool(torch.isfinite(v).all()) and not torch.equal(v, x[n]) for n, v in y.items() if n != held)


def test_multistep_on_a_torus_is_exact_on_straight_lines_and_of_order_two() -> None:
    y = torch.tensor([0.98, 0.02, 0.5], dtype=torch.float64)
    x = torch.rand(64, 3, generator=stream(0, "torus"), dtype=torch.float64)
    end = solvers.dpmpp_2m(FlowMap(TorusNet(y), geometry=Torus()), x, [1.0, 0.6, 0.25])
    exact = Torus().exp(y.expand_as(x), 0.25 * Torus().log(y.expand_as(x), x))
    assert float(Torus().log(end, exact).abs().max()) < 1e-12
    # dx/dt = sin(2 pi x) / 4: tan(pi x) grows as exp(pi t / 2)
    model = follow(lambda x, s: torch.sin(2 * math.pi * x) / 4, Torus())
    x = x % 0.9 + 0.05
    right = torch.atan(torch.tan(math.pi * x) * math.exp(-math.pi / 2)) / math.pi
    errors = [float(Torus().log(solvers.dpmpp_2m(model, x, sampling.uniform(n)), right).abs().max()) for n in (40, 80)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.2)


# --- dopri5 -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["preconditioned", "velocity", "endpoint"])
def test_dopri5_reaches_the_exact_map(path: Path, kind: str) -> None:
    model, x = exact_model(path, kind), start(16)
    found = adaptive.dopri5(model, x, 1.0, 0.1, rtol=1e-8, atol=1e-8)
    assert float((found.state - DATA.flow_map(path, x, 1.0, 0.1)).abs().max()) < 3e-6
    back = adaptive.dopri5(model, found.state, 0.1, 1.0, rtol=1e-8, atol=1e-8)
    assert float((back.state - x).abs().max()) < 3e-6
    whole = adaptive.dopri5(model, x, rtol=1e-7, atol=1e-7)
    loose = 1e-2 if path == VP(0.1, 6.0) else 3e-5  # there the velocity is singular at 0 like 1 / sqrt t
    assert float((whole.state - DATA.flow_map(path, x, 1.0, 0.0)).abs().max()) < loose


def test_dopri5_is_torchdiffeq_when_there_is_one_sample() -> None:
    """The same pair, the same tolerance: as near to it as both are to the truth, in a like number of steps."""
    torchdiffeq = pytest.importorskip("torchdiffeq")
    mixture = Mixture(column(0.3, 0.7), torch.tensor([[-2.0, 0.0], [1.0, 1.0]]), column(0.3, 0.5))
    model = follow(lambda x, s: mixture.velocity(Linear(), x, s))
    x = start(1, seed=3)
    calls = []

    def theirs(t: Tensor, y: Tensor) -> Tensor:
        calls.append(t)
        return mixture.velocity(Linear(), y, t)

    their = torchdiffeq.odeint(theirs, x, column(1.0, 0.0), rtol=1e-6, atol=1e-6, method="dopri5")[-1]
    ours = adaptive.dopri5(model, x, rtol=1e-6, atol=1e-6)
    exact = mixture.integrate(Linear(), x, 1.0, 0.0, 1000)
    assert float((their - exact).abs().max()) < 1e-4
    assert float((ours.state - exact).abs().max()) < 1e-4
    evaluations = 1 + 6 * int(ours.steps + ours.rejected)
    assert 0.5 * len(calls) < evaluations < 1.5 * len(calls)


def test_every_sample_has_a_step_of_its_own() -> None:
    """A hard sample in the batch changes nothing for an easy one, to the last bit; it takes more steps."""
    model = follow(lambda x, s: torch.stack([x[:, 1] * torch.cos(x[:, 1] * s), 0 * s], 1))
    easy, hard = column(0.0, 1.0)[None], column(0.0, 60.0)[None]
    alone = adaptive.dopri5(model, easy, rtol=1e-6, atol=1e-6)
    both = adaptive.dopri5(model, torch.cat([easy, hard]), rtol=1e-6, atol=1e-6)
    assert torch.equal(both.state[:1], alone.state)
    assert both.steps[0] == alone.steps[0]
    assert both.steps[1] > 5 * both.steps[0]
    exact = -torch.sin(column(1.0, 60.0))
    assert torch.allclose(both.state[:, 0], exact, atol=1e-4)


def test_dopri5_knows_masks_held_fields_and_the_torus() -> None:
    model, x = mixed()
    mask = torch.tensor([[1, 1, 1, 0, 0]] * 2 + [[1] * 5] * 2).bool()
    x = model.geometry.project(x, dict.fromkeys(x, mask))
    s = {"x": 1.0, "frac": 1.0, "kind": 0.0}
    found = adaptive.dopri5(model, x, s, {"x": 0.2, "frac": 0.2, "kind": 0.0}, mask=mask, rtol=1e-4, atol=1e-4)
    assert torch.equal(found.state["kind"], x["kind"])
    assert not torch.equal(found.state["x"], x["x"])
    assert bool(((found.state["frac"] >= 0) & (found.state["frac"] < 1)).all())
    y = torch.tensor([0.98], dtype=torch.float64)
    z = torch.rand(16, 1, generator=stream(0), dtype=torch.float64)
    end = adaptive.dopri5(FlowMap(TorusNet(y), geometry=Torus()), z, 1.0, 0.25).state
    exact = Torus().exp(y.expand_as(z), 0.25 * Torus().log(y.expand_as(z), z))
    assert float(Torus().log(end, exact).abs().max()) < 1e-6


def test_dopri5_gives_up_aloud() -> None:
    model = follow(lambda x, s: torch.sin(x * 4000))
    with pytest.raises(UserError, match="loosen"):
        adaptive.dopri5(model, torch.ones(2, 1), rtol=1e-10, atol=1e-10, max_steps=5)
    with pytest.raises(UserError, match="singular"):
        adaptive.dopri5(exact_model(Linear(), "endpoint"), start(2), 0.0, 1.0)


# --- as many jumps as a sample needs ----------------------------------------------------------------------


def test_an_exact_map_settles_at_two_jumps() -> None:
    model, x = exact_model(Linear(), "preconditioned"), start(8)
    found = adaptive.settle(model, x, 1e-6)
    assert found.steps.tolist() == [2] * 8
    assert torch.allclose(found.state, DATA.flow_map(Linear(), x, 1.0, 0.0), atol=1e-9)


def test_a_wrong_map_settles_where_halving_stops_to_matter() -> None:
    """The map that goes straight along its first velocity is Euler's: its error halves with the jumps."""
    model, x = exact_model(Linear(), "velocity", wrong="start"), start(64)
    exact = DATA.flow_map(Linear(), x, 1.0, 0.0)
    steps, errors = [], []
    for tolerance in (0.3, 0.05, 0.02):
        found = adaptive.settle(model, x, tolerance, max_steps=256)
        rms = (found.state - exact).square().mean(1).sqrt()
        assert float(rms.max()) < 2.5 * tolerance
        steps.append(float(found.steps.double().mean()))
        errors.append(float(rms.mean()))
    assert steps[0] < steps[1] < steps[2] and errors[0] > errors[1] > errors[2]
    alone = adaptive.settle(model, x[5:6], 0.05, max_steps=256)
    together = adaptive.settle(model, x, 0.05, max_steps=256)
    assert alone.steps[0] == together.steps[5] and torch.allclose(alone.state[0], together.state[5], atol=1e-12)
    assert int(adaptive.settle(model, x, 1e-9, max_steps=8).steps.max()) == 8


# --- noise on the way -------------------------------------------------------------------------------------


def moments_after(sampler: Callable[[FlowMap, Tensor, torch.Generator], Tensor], path: Path) -> tuple[float, float]:
    """Errors of mean and covariance at time 0, from exact draws at time 1."""
    model, g = exact_model(path, "preconditioned"), stream(0, "moments")
    x0, noise = pairs(10_000, g)
    one = torch.ones((), dtype=torch.float64)
    y = sampler(model, path.a(one) * x0 + path.b(one) * noise, g)
    return float((y.mean(0) - MEAN).abs().max()), float((y.T.cov() - COVARIANCE).abs().max())


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ancestral_steps_preserve_the_marginal(path: Path, eta: float) -> None:
    def sampler(model: FlowMap, x: Tensor, g: torch.Generator) -> Tensor:
        return stochastic.ancestral(model, x, sampling.karras(60, t_min=1e-3), g, eta=eta)

    mean, covariance = moments_after(sampler, path)
    assert mean < 0.03
    assert covariance < 0.12  # the step's own error, of first order: see the next test


def test_ancestral_steps_have_order_one() -> None:
    """The covariance's error, of 30,000 samples, halves with the step."""
    model, errors = exact_model(Linear(), "preconditioned"), []
    for n in (10, 20, 40):
        y = stochastic.ancestral(model, start(30_000), sampling.uniform(n), stream(0))
        errors.append(float((y.T.cov() - COVARIANCE).abs().max()))
    assert 1.5 < errors[0] / errors[1] < 3
    assert 1.4 < errors[1] / errors[2] < 3


def test_ancestral_without_noise_is_the_denoiser_step() -> None:
    model, x = exact_model(Linear(), "endpoint"), start(8)
    ddim = stochastic.ancestral(model, x, sampling.uniform(7), stream(0), eta=0.0)
    euler = x
    for s, t in zip(sampling.uniform(7).tolist(), sampling.uniform(7).tolist()[1:]):
        euler = model.apply_f(euler, model.f(euler, s, s), s, t)
    assert torch.allclose(ddim, euler, atol=1e-12)
    assert not torch.allclose(ddim, stochastic.ancestral(model, x, sampling.uniform(7), stream(0)), atol=1e-3)


@pytest.mark.parametrize("amount", [0.1, 0.4])
def test_churn_preserves_the_marginal(amount: float) -> None:
    def sampler(model: FlowMap, x: Tensor, g: torch.Generator) -> Tensor:
        return stochastic.churn(model, x, sampling.uniform(30), g, amount=amount)

    mean, covariance = moments_after(sampler, Linear())
    assert mean < 0.03
    assert covariance < 0.03
    model, x = exact_model(Linear(), "velocity"), start(8)
    still = stochastic.churn(model, x, sampling.uniform(5), stream(0), amount=0.0)
    assert torch.equal(still, sampling.ode(model, x, sampling.uniform(5), "heun"))


def test_stochastic_samplers_forget_a_wrong_start() -> None:
    """Noise of half the width: an ODE keeps most of the error, ancestral steps lose it (Xu et al. 2023, restart)."""
    model, g = exact_model(Linear(), "preconditioned"), stream(0)
    x = 0.5 * start(20_000)
    ode = sampling.ode(model, x, sampling.uniform(50)).T.cov()
    sde = stochastic.ancestral(model, x, sampling.uniform(50), g).T.cov()
    assert float((ode - COVARIANCE).abs().max()) > 0.5
    assert float((sde - COVARIANCE).abs().max()) < 0.12


def test_stochastic_samplers_on_a_product_of_all_geometries() -> None:
    model, x = mixed()
    times = {"x": sampling.uniform(4), "frac": sampling.uniform(4), "kind": 0.0}
    results: list[Any] = [
        stochastic.ancestral(model, x, times, stream(0)),
        stochastic.ancestral(model, x, times, stream(0), eta={"x": 0.5, "frac": 0.0, "kind": 0.5}),
        stochastic.churn(model, x, times, stream(0)),
    ]
    for y in results:
        assert torch.equal(y["kind"], x["kind"])
        assert float(y["x"].mean(1).abs().max()) < 1e-5
        assert bool(((y["frac"] >= 0) & (y["frac"] < 1)).all())
    with pytest.raises(UserError, match="Torus"):
        stochastic.ancestral(model, x, times, stream(0), eta=0.5)
    with pytest.raises(UserError, match="eta"):
        stochastic.ancestral(model, x, times, stream(0), eta=1.5)
    with pytest.raises(UserError, match="fall"):
        stochastic.ancestral(exact_model(Linear(), "velocity"), start(2), [0.2, 0.8], stream(0))


# --- schedules --------------------------------------------------------------------------------------------


def test_snr_uniform_is_even_in_log_snr(path: Path) -> None:
    times = sampling.snr_uniform(10, path, 0.02, 0.97)
    assert times[0] == 1 and times[-1] == 0 and bool((times.diff() < 0).all())
    inner = times[1:-1]
    steps = torch.log(path.a(inner) / path.b(inner)).diff()
    assert torch.allclose(steps, steps[0].expand_as(steps), rtol=1e-6)
    assert sampling.snr_uniform(1, path).tolist() == [1, 0]
    with pytest.raises(UserError, match="low < high"):
        sampling.snr_uniform(4, path, 0.5, 0.2)


def test_euclidean_needs_no_geometry_argument() -> None:
    assert FlowMap(nn.Identity()).geometry == Euclidean()
