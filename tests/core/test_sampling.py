"""Samplers against closed forms: orders of the solvers, marginals, held fields, seeds, the torus."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sciconsist import sampling
from sciconsist.errors import UserError
from sciconsist.flowmap import FlowMap
from sciconsist.geometry import Euclidean, Product, Simplex, Torus
from sciconsist.paths import VE, Linear, Path, Trigonometric
from sciconsist.random import stream, streams
from tests.core.exact_maps import COVARIANCE, DATA, MEAN, exact_model, pairs


def start(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 2, generator=stream(seed, "start"), dtype=torch.float64)


def solver_errors(path: Path, kind: str, method: str, counts: tuple[int, ...], end: float = 0.0) -> list[float]:
    """Largest error at `end` of an ODE solve from 1 in n equal steps, for every n."""
    model, x = exact_model(path, kind), start(16)
    exact = DATA.flow_map(path, x, 1.0, end)
    grids = [1 + (end - 1) * torch.linspace(0, 1, n + 1, dtype=torch.float64) for n in counts]
    return [float((sampling.ode(model, x, g, method) - exact).abs().max()) for g in grids]


@pytest.mark.parametrize("kind", ["preconditioned", "velocity"])
@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("heun", 2), ("rk4", 4)])
def test_solver_orders(method: str, order: int, kind: str) -> None:
    """Midpoint has order 3 on the linear path, whose S_t is quadratic: x x^(3) + 3 x' x'' = 0 there."""
    for path in (Linear(), Trigonometric()):
        expected = 3 if method == "midpoint" and path == Linear() else order
        e = solver_errors(path, kind, method, (40, 80))
        assert e[0] / e[1] == pytest.approx(2**expected, rel=0.2), path


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("heun", 2), ("rk4", 4)])
def test_solver_orders_of_the_endpoint_form(method: str, order: int) -> None:
    """Away from 0 all orders hold; the closing step to 0 leaves second order at most."""
    e = solver_errors(Trigonometric(), "endpoint", method, (40, 80), end=0.1)
    assert e[0] / e[1] == pytest.approx(2**order, rel=0.25)
    e = solver_errors(Linear(), "endpoint", method, (40, 80))
    assert e[0] / e[1] == pytest.approx(2 ** min(order, 2), rel=0.35)


def test_closing_step_of_the_endpoint_form_is_the_denoiser() -> None:
    model, x = exact_model(Linear(), "endpoint"), start(8)
    for method in sampling.STAGES:
        y = sampling.ode(model, x, [0.6, 0.0], method)
        assert torch.allclose(y, DATA.denoiser(Linear(), x, 0.6), atol=1e-12), method


def test_an_ode_runs_backwards() -> None:
    model, x0 = exact_model(Linear(), "preconditioned"), start(8)
    noise = sampling.ode(model, x0, torch.linspace(0, 1, 41), "rk4")
    assert torch.allclose(noise, DATA.flow_map(Linear(), x0, 0.0, 1.0), atol=1e-6)


@pytest.mark.parametrize("kind", ["preconditioned", "velocity", "endpoint"])
def test_exact_jumps_agree_at_any_number_of_steps(path: Path, kind: str) -> None:
    model, x = exact_model(path, kind), start(16)
    exact = DATA.flow_map(path, x, 1.0, 0.0)
    for times in (
        [1, 0],
        [1, 0.5, 0],
        sampling.uniform(7),
        sampling.karras(5, t_min=1e-3),
        sampling.shifted(4, 3.0),
    ):
        assert torch.allclose(sampling.jump(model, x, times), exact, atol=2e-6)


@pytest.mark.parametrize("gamma", [0.3, 1.0])
def test_multistep_sampling_preserves_the_marginal(path: Path, gamma: float) -> None:
    """Noising again after an exact jump leaves mean and covariance what they are."""
    model, g = exact_model(path, "preconditioned"), stream(0, "multistep")
    x0, noise = pairs(40_000, g)
    one = torch.ones((), dtype=torch.float64)
    x = path.a(one) * x0 + path.b(one) * noise
    for end in (0.4, 0.0):
        y = sampling.jump(model, x, [1.0, 0.7, end], gamma=gamma, generator=g)
        t = torch.tensor(end, dtype=torch.float64)
        cov = path.a(t) ** 2 * COVARIANCE + path.b(t) ** 2 * torch.eye(2)
        assert torch.allclose(y.mean(0), path.a(t) * MEAN, atol=0.03 * float(cov.max()) ** 0.5)
        assert torch.allclose(y.T.cov(), cov, atol=0.03 * float(cov.max()))
    again = sampling.jump(model, x[:8], [1, 0.7, 0], gamma=gamma, generator=stream(1))
    assert not torch.allclose(again, sampling.jump(model, x[:8], [1, 0.7, 0]), atol=1e-3)


GEOMETRY = Product({"x": Euclidean(zero_com=True), "frac": Torus(), "kind": Simplex(2.0)})


class Mixer(nn.Module):
    """A net of all three fields, in which everything depends on everything; it counts its evaluations."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.weight = nn.Parameter(torch.randn(11, 11, generator=stream(0, "mixer")) / 3)

    def forward(
        self, x: dict[str, Tensor], s: Any, t: Any, condition: Any = None, mask: Any = None
    ) -> dict[str, Tensor]:
        self.calls += 1
        clocks = [torch.sin(3 * s["x"] + t["x"]), torch.cos(s["frac"] + t["kind"])]
        h = torch.cat([x["x"], torch.sin(6.2831853 * x["frac"]), x["kind"]], -1)
        h = torch.cat([h, torch.stack(clocks, -1)[:, None].expand(*h.shape[:2], 2)], -1)
        if mask is not None:
            h = h * mask[..., None]
        h = torch.tanh((h + h.mean(1, keepdim=True)) @ self.weight)
        return dict(zip(x, h.split([3, 3, 3, 2], -1)))


def mixed() -> tuple[FlowMap, dict[str, Tensor]]:
    model = FlowMap(Mixer(), geometry=GEOMETRY)
    like = {name: torch.zeros(4, 5, 3) for name in ("x", "frac", "kind")}
    return model, GEOMETRY.prior(like, generator=stream(0, "prior"))


@pytest.mark.parametrize("method", ["jump", *sampling.STAGES])
@pytest.mark.parametrize("held", ["x", "frac", "kind"])
def test_a_held_field_stays_bit_identical(method: str, held: str) -> None:
    model, x = mixed()
    times = {name: 0.0 if name == held else sampling.uniform(3) for name in x}
    if method == "jump":
        y = sampling.jump(model, x, times, gamma={"x": 0.5, "frac": 1.0, "kind": 0.5}, generator=stream(1))
    else:
        y = sampling.ode(model, x, times, method)
    assert torch.equal(y[held], x[held])
    assert all(not torch.equal(y[n], x[n]) and bool(torch.isfinite(y[n]).all()) for n in x if n != held)


def test_a_clock_for_every_sample() -> None:
    """Samples 0 and 1 stand, 2 and 3 go: as if each had been sampled alone."""
    model, x = mixed()
    grid = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.4, 0.5], [0.0, 0.0, 0.0, 0.0]])
    y = sampling.jump(model, x, grid)
    for k in range(4):
        alone = sampling.jump(model, {n: v[k : k + 1] for n, v in x.items()}, grid[:, k])
        assert all(torch.allclose(alone[n][0], y[n][k], atol=1e-6) for n in x)
    assert torch.equal(y["x"][:2], x["x"][:2])


def test_number_of_evaluations() -> None:
    model, x = mixed()
    net = model.net
    assert isinstance(net, Mixer)
    for method, expected in (("euler", 4), ("heun", 8), ("midpoint", 8), ("rk4", 16)):
        net.calls = 0
        sampling.ode(model, x, torch.linspace(1, 0.2, 5), method)
        assert net.calls == expected, method
    net.calls = 0
    sampling.jump(model, x, sampling.uniform(4), gamma=1.0, generator=stream(0))
    assert net.calls == 4
    net.calls = 0
    list(sampling.stream(model, x, sampling.uniform(4)))
    assert net.calls == 4


class TorusNet(nn.Module):
    """The exact velocity toward a point y on the circle: log_x(y) / -s, whatever the target time."""

    def __init__(self, y: Tensor) -> None:
        super().__init__()
        self.y = y

    def forward(self, x: Tensor, s: Tensor, t: Tensor) -> Tensor:
        return -Torus().log(x, self.y.expand_as(x)) / s.clamp_min(1e-9)[:, None]


def test_torus_reaches_a_point_across_the_cell_border() -> None:
    """Closed form 9: X_{s,t}(x) = exp_y((t/s) log_y x); straight lines, so that every solver is exact."""
    y = torch.tensor([0.98, 0.02, 0.5], dtype=torch.float64)
    model, torus = FlowMap(TorusNet(y), geometry=Torus()), Torus()
    x = torch.rand(64, 3, generator=stream(0, "torus"), dtype=torch.float64)
    exact = torus.exp(y.expand_as(x), 0.25 * torus.log(y.expand_as(x), x))
    for method in ("euler", "heun", "midpoint", "rk4"):
        z = sampling.ode(model, x, [1, 0.6, 0.25], method)
        assert float(torus.log(z, exact).abs().max()) < 1e-12, method
    for gamma in (0.0, 1.0):
        z = sampling.jump(model, x, [1, 0.6, 0], gamma=gamma, generator=stream(0))
        assert float(torus.log(z, y.expand_as(x)).abs().max()) < 1e-12
        assert bool(((z >= 0) & (z < 1)).all())
    with pytest.raises(UserError, match="Torus"):
        sampling.jump(model, x, [1, 0.5, 0], gamma=0.5, generator=stream(0))


def test_stream_ends_in_the_sample() -> None:
    model, x = mixed()
    levels = list(sampling.stream(model, x, sampling.uniform(5)))
    whole = sampling.jump(model, x, sampling.uniform(5))
    assert [level.step for level in levels] == [1, 2, 3, 4, 5]
    for name, value in whole.items():
        assert torch.equal(levels[-1].state[name], value) and torch.equal(levels[-1].preview[name], value)
    exact = exact_model(Linear(), "preconditioned")
    first = next(iter(sampling.stream(exact, start(8), [1, 0.999999, 0])))
    assert not torch.equal(first.preview, first.state)


def test_sample_depends_on_the_seed_and_starts_at_the_noise_of_its_path() -> None:
    model = exact_model(VE(8.0), "preconditioned")
    x = sampling.sample(model, (20_000, 2), [1, 0], stream(0))
    assert torch.equal(x, sampling.sample(model, (20_000, 2), [1, 0], stream(0)))
    assert not torch.equal(x, sampling.sample(model, (20_000, 2), [1, 0], stream(1)))
    # at sigma_max 8 the prior lacks the data's mean and covariance, a few per cent of it
    assert torch.allclose(x.T.cov(), COVARIANCE, atol=0.03)
    ode = sampling.sample(model, (64, 2), sampling.karras(72), stream(0), method="heun")
    assert torch.allclose(ode, sampling.sample(model, (64, 2), [1, 0], stream(0)), atol=5e-3)
    model, like = mixed()
    shapes = {name: tuple(v.shape) for name, v in like.items()}
    y = sampling.sample(model, shapes, sampling.uniform(2), stream(3))
    assert all(y[n].shape == like[n].shape and not y[n].requires_grad for n in y)


def test_a_generator_per_sample_makes_the_batch_irrelevant() -> None:
    model, _ = mixed()

    def draw(indices: list[int]) -> Any:
        shapes = {n: (len(indices), 5, 3) for n in ("x", "frac", "kind")}
        g = {"x": 0.5, "frac": 1.0, "kind": 1.0}
        return sampling.sample(model, shapes, sampling.uniform(3), streams(0, "s", indices=indices), gamma=g)

    together, alone = draw([4, 7, 9]), draw([7])
    assert all(torch.allclose(together[n][1:2], alone[n], atol=1e-5) for n in alone)


def test_schedules() -> None:
    assert sampling.uniform(2).tolist() == [1, 0.5, 0]
    edm = 80 * sampling.karras(18)
    assert edm[0] == 80 and edm[-1] == 0 and float(edm[17]) == pytest.approx(0.002)
    assert float(edm[9]) == pytest.approx((80 ** (1 / 7) + 9 / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7)
    assert sampling.karras(1).tolist() == [1, 0]
    moved = sampling.shifted(4, 3.0)
    assert moved.tolist() == pytest.approx([1, 0.9, 0.75, 0.5, 0])
    for schedule in (sampling.uniform(9), edm, moved):
        assert bool((schedule.diff() < 0).all())


def test_wrong_requests_are_named() -> None:
    model, x = exact_model(Linear(), "velocity"), start(2)
    for wrong, message in (
        (lambda: sampling.jump(model, x, [2.0, 0.0]), "from 0"),
        (lambda: sampling.jump(model, x, [1.0]), "two or more"),
        (lambda: sampling.jump(model, x, [1, 0], gamma=0.5), "generator"),
        (lambda: sampling.jump(model, x, [1, 0.5, 0], gamma=1.5, generator=stream(0)), "gamma"),
        (lambda: sampling.ode(model, x, [1, 0], "leapfrog"), "expected one of"),
        (lambda: sampling.uniform(0), "at least one"),
        (lambda: sampling.sample(model, {"sizes": "many"}, [1, 0], stream(0)), "expected a shape"),
    ):
        with pytest.raises(UserError, match=message):
            wrong()
