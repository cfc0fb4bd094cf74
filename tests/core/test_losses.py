"""The loss: special cases, limits, convex combinations, exact maps, categories, fields, masks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sciconsist.flowmap import FlowMap
from sciconsist.geometry import Simplex
from sciconsist.losses import flow_map_loss
from sciconsist.parametrisations import Parametrisation
from sciconsist.paths import VE, Linear, Path, Trigonometric
from sciconsist.recipes import RECIPES, Recipe
from sciconsist.targets import Pairs, diagonal_target, on_path, share, split_target
from sciconsist.times import Split
from tests.core.exact_maps import column, exact_model, pairs

KINDS = ("preconditioned", "velocity", "endpoint")
LAGRANGIAN, EULERIAN = RECIPES["lsd"], RECIPES["meanflow"]


class Smooth(nn.Module):
    """A fixed smooth network that is no flow map of anything."""

    def __init__(self, size: int = 2, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.inside = nn.Parameter(torch.randn(size + 2, 16, generator=generator, dtype=torch.float64))
        self.out = nn.Parameter(torch.randn(16, size, generator=generator, dtype=torch.float64) / 4)

    def forward(self, x: Tensor, s: Tensor, t: Tensor, condition: Any = None, mask: Any = None) -> Tensor:
        return torch.tanh(torch.cat([x, s[:, None], t[:, None]], -1) @ self.inside) @ self.out


def smooth_model(path: Path, kind: str, seed: int = 0) -> FlowMap:
    return FlowMap(Smooth(seed=seed), path, None, kind, 0.7)


def split(s: float, t: float, alpha: float, kind: str, count: int) -> Split:
    w = t + alpha * (s - t) if kind == "lagrangian" else s + alpha * (t - s)
    return Split(*(column(v).repeat(count) for v in (s, w, t)))


def off_loss(model: FlowMap, recipe: Recipe, times: Split, generator: torch.Generator, **extra: Any) -> float:
    x0, noise = pairs(len(times.s), generator)
    return flow_map_loss(model, recipe, x0, noise, times=times, progress=0.5, **extra).total.item()


def residual(model: FlowMap, recipe: Recipe, times: Split, teacher: FlowMap | None = None) -> Tensor:
    """u - its target, by the recipe's row."""
    x0, noise = pairs(len(times.s), torch.Generator().manual_seed(5))
    x = on_path(model, x0, noise, times.s)
    batch = Pairs(x, x0, noise, times, None, None)
    target = split_target(recipe, model, teacher, model, batch, 0.5)
    row = model.rows[None]
    s, _, t = times
    return model.average_velocity(x, s, t) - row.average(x, target, s, t, None)


# --- special cases ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [VE(80.0), Linear(), Trigonometric()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("kind", ["preconditioned", "endpoint"])
def test_ect_is_the_hand_written_loss(path: Path, kind: str, generator: torch.Generator) -> None:
    """Geng et al. 2024: 1 / (sigma_t - sigma_r) |f(x_t, t) - sg f(x_r, r)|^2 same eps, f the consistency map."""
    model = FlowMap(Smooth(), path, None, kind, 0.5)
    x0, noise = pairs(64, generator)
    s = torch.rand(64, generator=generator, dtype=torch.float64) * 0.9 + 0.05
    alpha = RECIPES["ect"].times.alpha(0.7, s)
    w, zero = s - alpha * s, torch.zeros_like(s)
    ours = flow_map_loss(model, RECIPES["ect"], x0, noise, times=Split(s, w, zero))
    x_s, x_w = (path.a(v)[:, None] * x0 + path.b(v)[:, None] * noise for v in (s, w))
    apart = model(x_s, s, zero) - model(x_w, w, zero).detach()
    by_hand = apart.square().mean(1) / (path.b(s) - path.b(w))
    assert torch.allclose(ours.per_sample, by_hand, rtol=1e-9)
    (ours_gradient,) = torch.autograd.grad(ours.total, [model.net.out])
    (hand_gradient,) = torch.autograd.grad(by_hand.mean(), [model.net.out])
    assert torch.allclose(ours_gradient, hand_gradient, rtol=1e-8)


def test_ect_begins_as_diffusion(generator: torch.Generator) -> None:
    """alpha = 1: the target of X_{s,0} is x0 itself."""
    model = smooth_model(Linear(), "endpoint")
    x0, noise = pairs(32, generator)
    s = torch.rand(32, generator=generator, dtype=torch.float64)
    zero = torch.zeros_like(s)
    x = on_path(model, x0, noise, s)
    target = split_target(
        RECIPES["ect"], model, None, model, Pairs(x, x0, noise, Split(s, zero, zero), None, None), 0.0
    )
    assert torch.equal(target, x0)


@pytest.mark.parametrize("kind", ["preconditioned", "velocity"])
def test_meanflow_is_the_hand_written_loss(kind: str, generator: torch.Generator) -> None:
    """Geng et al. 2025, eq. 9-10: u_tgt = v - (s - t)(v d_x u + d_s u), v = eps - x0, p = 0."""
    model = smooth_model(Linear(), kind)
    x0, noise = pairs(32, generator)
    s, t = column(0.8).repeat(32), column(0.3).repeat(32)
    ours = flow_map_loss(model, EULERIAN, x0, noise, times=Split(s, s, t))
    x, v = 0.2 * x0 + 0.8 * noise, noise - x0
    u, du = torch.func.jvp(lambda x_, s_: model.average_velocity(x_, s_, t), (x, s), (v, torch.ones_like(s)))
    target = (v - (s - t)[:, None] * du).detach()
    assert torch.allclose(ours.per_sample, (u - target).square().mean(1), rtol=1e-8)


def test_flow_matching_is_the_hand_written_loss(path: Path, generator: torch.Generator) -> None:
    model = smooth_model(path, "velocity")
    x0, noise = pairs(32, generator)
    t = torch.rand(32, generator=generator, dtype=torch.float64) * 0.9 + 0.05
    ours = flow_map_loss(model, RECIPES["fm"], x0, noise, times=Split(t, t, t))
    x = path.a(t)[:, None] * x0 + path.b(t)[:, None] * noise
    v = path.da(t)[:, None] * x0 + path.db(t)[:, None] * noise
    assert torch.allclose(ours.per_sample, (model.velocity(x, t) - v).square().mean(1), rtol=1e-8)


def test_lmd_is_the_hand_written_loss(generator: torch.Generator) -> None:
    """Boffi et al. 2024: |d_t X_{s,t}(x) - v_t(X_{s,t}(x))|^2 with the teacher's v, its whole gradient."""
    model, teacher = smooth_model(Linear(), "velocity"), smooth_model(Linear(), "velocity", seed=1)
    x0, noise = pairs(16, generator)
    s, t = column(0.8).repeat(16), column(0.3).repeat(16)
    ours = flow_map_loss(model, RECIPES["lmd"], x0, noise, times=Split(s, t, t), teacher=teacher)
    x = 0.2 * x0 + 0.8 * noise
    end, rate = torch.func.jvp(lambda t_: model(x, s, t_), (t,), (torch.ones_like(t),))
    by_hand = (rate - teacher.velocity(end, t)).square().mean(1)
    assert torch.allclose(ours.per_sample, by_hand, rtol=1e-9)
    gradients = [torch.autograd.grad(v.mean(), [model.net.out])[0] for v in (ours.per_sample, by_hand)]
    assert torch.allclose(*gradients, rtol=1e-8)


def test_shortcut_is_the_hand_written_loss(generator: torch.Generator) -> None:
    """Frans et al. 2024, eq. 5: the mean of two half steps' velocities."""
    model = smooth_model(Linear(), "velocity")
    x0, noise = pairs(32, generator)
    s, w, t = (column(v).repeat(32) for v in (0.75, 0.5, 0.25))
    ours = flow_map_loss(model, RECIPES["shortcut"], x0, noise, times=Split(s, w, t))
    x = 0.25 * x0 + 0.75 * noise
    first = model.average_velocity(x, s, w)
    target = 0.5 * (first + model.average_velocity(x - 0.25 * first, w, t))
    assert torch.allclose(ours.per_sample, (model.average_velocity(x, s, t) - target).square().mean(1), rtol=1e-8)


# --- limits ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("source", ["conditional", "self", "teacher"])
@pytest.mark.parametrize("recipe", [EULERIAN, LAGRANGIAN], ids=["eulerian", "lagrangian"])
def test_finite_forms_converge_to_their_limits(recipe: Recipe, source: str, kind: str, path: Path) -> None:
    """(u - target) / alpha -> the JVP form's residual, with first order in alpha."""
    if recipe.kind == "lagrangian" and source == "conditional":
        pytest.skip("no conditional velocity at a generated point")
    model, teacher = smooth_model(path, kind), smooth_model(path, kind, seed=1)
    recipe = replace(recipe, velocity=source)
    limit = residual(model, recipe, split(0.8, 0.3, 1.0, recipe.kind, 16), teacher)
    finite = replace(recipe, limit="finite")
    errors = []
    for alpha in (1e-3, 5e-4):
        scaled = residual(model, finite, split(0.8, 0.3, alpha, recipe.kind, 16), teacher) / alpha
        errors.append((scaled - limit).abs().max().item())
    assert errors[0] < 0.03 * limit.abs().max().item()
    assert 1.9 < errors[0] / errors[1] < 2.1


@pytest.mark.parametrize("kind", KINDS)
def test_imf_differs_from_meanflow_by_its_tangent_only(kind: str) -> None:
    """The same with a deterministic pair's velocity as the model's own."""
    model = exact_model(Linear(), kind)
    times = split(0.8, 0.3, 1.0, "eulerian", 4000)
    own, conditional = (residual(model, RECIPES[name], times) for name in ("imf", "meanflow"))
    assert own.mean(0).abs().max() < 0.06  # unbiased on the exact map, both
    assert conditional.mean(0).abs().max() < 0.06
    assert own.var() != conditional.var()


# --- convex combinations ---------------------------------------------------------------------------------


def test_endpoint_share_on_the_linear_path() -> None:
    row = Parametrisation("endpoint", Linear(), Simplex())
    s, w, t = column(0.9, 0.6, 1.0), column(0.5, 0.5, 0.7), column(0.2, 0.1, 0.0)
    lam = (t / w - t / s) / (1 - t / s)
    assert torch.allclose(share(row, s, w, t), lam)
    assert torch.allclose(share(row, s, w, t), (t / w) * (1 - w / s) / (1 - t / s))
    assert torch.equal(share(row, s, t, t), torch.ones(3, dtype=torch.float64))
    assert torch.equal(share(row, s, s, s), torch.zeros(3, dtype=torch.float64))


def test_endpoint_share_on_any_path(path: Path) -> None:
    """(b_t / b_w)(a_w - a_s b_w / b_s) / (a_t - a_s b_t / b_s), within [0, 1]."""
    s, w, t = (torch.linspace(low, high, 9, dtype=torch.float64) for low, high in ((0.5, 1.0), (0.3, 0.6), (0.05, 0.2)))
    a, b = path.a, path.b
    lam = (b(t) / b(w)) * (a(w) - a(s) * b(w) / b(s)) / (a(t) - a(s) * b(t) / b(s))
    ours = share(Parametrisation("endpoint", path, Simplex()), s, w, t)
    assert torch.allclose(ours, lam)
    assert ((ours >= 0) & (ours <= 1)).all()


@pytest.mark.parametrize("name", ["lsd_fd", "soflow", "psd"])
def test_endpoint_targets_are_the_composed_jumps(name: str, path: Path, generator: torch.Generator) -> None:
    """The convex combination of F's is the F of going from s to w by one piece and from w to t by the other."""
    model, recipe = smooth_model(path, "endpoint"), RECIPES[name]
    x0, noise = pairs(8, generator)
    s, w, t = (column(v).repeat(8) for v in (0.9, 0.5, 0.2))
    x = on_path(model, x0, noise, s)
    target = split_target(recipe, model, None, model, Pairs(x, x0, noise, Split(s, w, t), None, None), 0.5)
    first = x0 if recipe.kind == "eulerian" else model.f(x, s, w)
    x_w = model.apply_f(x, first, s, w)
    second = model.f(x_w, w, w if recipe.kind == "lagrangian" else t)
    assert torch.allclose(model.apply_f(x, target, s, t), model.apply_f(x_w, second, w, t), atol=1e-10)


@pytest.mark.parametrize("name", ["lsd_fd", "alphaflow", "psd", "ect", "shortcut"])
def test_categories_stay_on_the_simplex(name: str, generator: torch.Generator) -> None:
    geometry = Simplex(2.0)
    model = FlowMap(Smooth(4), Linear(), geometry)
    x0 = geometry.encode(torch.randint(0, 4, (64,), generator=generator), 4).double()
    noise = torch.randn(64, 4, generator=generator, dtype=torch.float64)
    recipe = RECIPES[name]
    times = Split(*(v.double() for v in recipe.times.draw(64, recipe.kind, 0.4, generator)))
    x = on_path(model, x0, noise, times.s)
    target = split_target(recipe, model, None, model, Pairs(x, x0, noise, times, None, None), 0.4)
    assert torch.allclose(target.sum(-1), torch.full((64,), 2.0, dtype=torch.float64))
    assert target.min() >= -1e-12


def test_category_loss_is_cross_entropy(generator: torch.Generator) -> None:
    geometry = Simplex(2.0)
    model = FlowMap(Smooth(4), Linear(), geometry)
    labels = torch.randint(0, 4, (32,), generator=generator)
    noise = torch.randn(32, 4, generator=generator, dtype=torch.float64)
    t = torch.rand(32, generator=generator, dtype=torch.float64)
    x0 = geometry.encode(labels, 4).double()
    ours = flow_map_loss(model, RECIPES["fm"], x0, noise, times=Split(t, t, t)).per_sample
    raw = model.raw(on_path(model, x0, noise, t), t, t)
    assert torch.allclose(ours, nn.functional.cross_entropy(raw, labels, reduction="none"))


# --- exact maps ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["lsd", "psd", "shortcut", "lmd"])
def test_loss_is_zero_on_the_exact_map_only(name: str, kind: str, path: Path, generator: torch.Generator) -> None:
    recipe, times = RECIPES[name], split(0.85, 0.25, 0.4, RECIPES[name].kind, 64)
    exact = exact_model(path, kind)
    assert off_loss(exact, recipe, times, generator, teacher=exact) < 1e-14
    for wrong in ("identity", "start") if name == "lmd" else ("start",):
        assert off_loss(exact_model(path, kind, wrong), recipe, times, generator, teacher=exact) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_eulerian_self_distillation_is_zero_on_the_exact_map(kind: str, path: Path, generator: torch.Generator) -> None:
    recipe, times = replace(EULERIAN, velocity="self"), split(0.85, 0.25, 1.0, "eulerian", 64)
    assert off_loss(exact_model(path, kind), recipe, times, generator) < 1e-14
    assert off_loss(exact_model(path, kind, "start"), recipe, times, generator) > 1e-3


@pytest.mark.parametrize("recipe", [EULERIAN, LAGRANGIAN], ids=["eulerian", "lagrangian"])
def test_finite_bias_on_the_exact_map_is_second_order(recipe: Recipe) -> None:
    model = exact_model(Linear(), "velocity")
    finite = replace(recipe, velocity="self", limit="finite")
    sizes = [residual(model, finite, split(0.85, 0.25, a, recipe.kind, 64)).norm().item() for a in (0.02, 0.01)]
    assert 3.8 < sizes[0] / sizes[1] < 4.2


@pytest.mark.parametrize("name", ["cd", "ctm"])
def test_teacher_solver_converges_on_the_exact_map(name: str, generator: torch.Generator) -> None:
    """With more solver steps the eulerian row's target from a teacher approaches the exact map: first order."""
    exact, times = exact_model(Linear(), "preconditioned"), split(0.85, 0.0, 0.5, "eulerian", 64)
    sizes = [residual(exact, replace(RECIPES[name], solver_steps=n), times, exact).norm().item() for n in (8, 16)]
    assert 1.8 < sizes[0] / sizes[1] < 2.2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["fm", "meanflow", "imf", "scm"])
def test_exact_map_is_stationary_under_conditional_velocities(name: str, kind: str, path: Path) -> None:
    """The residual given x averages to zero: uncorrelated with 1 and x, in standard errors. The wrong map's is not."""
    recipe, count = RECIPES[name], 20_000
    s, t = 0.6, {"fm": 0.6, "scm": 0.0}.get(name, 0.25)
    times = split(s, t, 1.0, "eulerian", count)
    x0, noise = pairs(count, torch.Generator().manual_seed(5))
    x = on_path(exact_model(path, kind), x0, noise, times.s)
    features = torch.cat([torch.ones_like(x[:, :1]), x - x.mean(0)], 1)
    scores = {}
    for wrong in (None, "identity"):
        model = exact_model(path, kind, wrong)
        if name == "fm":
            apart = model.f(x, times.s, times.s) - diagonal_target(model, x, x0, noise, times.s, None)
        else:
            apart = residual(model, recipe, times)
        products = features[:, :, None] * apart[:, None]
        scores[wrong] = (products.mean(0).abs() / products.std(0) * count**0.5).max().item()
    assert scores[None] < 4.5
    assert scores["identity"] > 20
