"""The loss: special cases, limits, convex combinations, exact maps, categories, fields, masks."""

from __future__ import annotations

import copy
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
from sciconsist.targets import Pairs, diagonal_target, on_path, path_point, path_velocity, share, split_target
from sciconsist.times import Split
from tests.core.exact_maps import DATA, column, exact_model, pairs
from tests.core.test_flowmap import noise_like, product_model

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


# --- fields, masks, hooks --------------------------------------------------------------------------------


def product_batch(generator: torch.Generator) -> tuple[FlowMap, Any, Any, Any]:
    model, geometry, mask = product_model()
    x0 = noise_like(geometry, mask, generator)
    x0["k"] = Simplex(2.0).encode(torch.randint(0, 4, (3, 4), generator=generator), 4, mask["k"])
    return model, x0, noise_like(geometry, mask, generator), mask


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_recipe_on_the_product_of_all_geometries(name: str, generator: torch.Generator) -> None:
    """Finite loss and gradients, with masks, at the beginning, the middle and the end of training."""
    model, x0, noise, mask = product_batch(generator)
    recipe = RECIPES[name]
    teacher, target = copy.deepcopy(model), copy.deepcopy(model)
    for progress in (0.0, 0.4, 1.0):
        loss = flow_map_loss(
            model, recipe, x0, noise, progress=progress, generator=generator,
            mask=mask, teacher=teacher, target_model=target,
        )  # fmt: skip
        (gradient,) = torch.autograd.grad(loss.total, model.net.weight)
        assert loss.per_sample.shape == (3,)
        assert torch.isfinite(loss.per_sample).all()
        assert torch.isfinite(gradient).all()
        assert gradient.abs().max() > 0
        assert set(loss.parts) == {"r", "k", "f", "diagonal", "off"}


@pytest.mark.parametrize("name", ["fm", "lsd", "psd", "meanflow", "ect"])
def test_padding_does_not_count(name: str, generator: torch.Generator) -> None:
    """Two more unreal nodes leave every sample's loss what it was."""
    model, x0, noise, mask = product_batch(generator)

    def pad(v: Tensor) -> Tensor:
        return torch.cat([v, torch.zeros_like(v[:, :2])], 1)

    losses = [
        flow_map_loss(
            model,
            RECIPES[name],
            f(x0),
            f(noise),
            progress=0.3,
            generator=torch.Generator().manual_seed(7),
            mask=f(mask),
        ).per_sample
        for f in (lambda d: d, lambda d: {k: pad(v) for k, v in d.items()})
    ]
    assert torch.allclose(*losses, rtol=1e-4)


@pytest.mark.parametrize("name", ["fm", "lsd", "lsd_fd", "meanflow", "psd", "alphaflow"])
def test_a_given_field_is_not_trained(name: str, generator: torch.Generator) -> None:
    model, x0, noise, mask = product_batch(generator)
    clock = torch.tensor([0.9, 0.8, 0.7])
    zero = torch.zeros(3)
    ends = (clock, 0.6 * clock, 0.2 * clock) if name != "fm" else (clock,) * 3
    times = Split(*({"r": v, "k": zero, "f": v} for v in ends))
    loss = flow_map_loss(model, RECIPES[name], x0, noise, times=times, mask=mask, progress=0.3)
    assert loss.parts["k"].item() == 0.0
    assert loss.parts["r"].item() > 0
    (gradient,) = torch.autograd.grad(loss.total, model.net.weight)
    assert torch.isfinite(gradient).all()
    assert (gradient[:, 3:7] == 0).all()  # columns that make k's logits


def test_a_field_on_its_diagonal_gets_flow_matching(generator: torch.Generator) -> None:
    model, x0, noise, mask = product_batch(generator)
    s, t, both = torch.full((3,), 0.8), torch.full((3,), 0.2), torch.full((3,), 0.5)
    seen = {}

    def spy(output: Any, target: Any, times: Split, mask: Any) -> Tensor:
        seen.update(target)
        return output["r"].square().sum((1, 2))

    times = Split({"r": s, "k": both, "f": s}, {"r": both, "k": both, "f": both}, {"r": t, "k": both, "f": t})
    flow_map_loss(model, RECIPES["lsd_fd"], x0, noise, times=times, mask=mask, metric=spy)
    assert torch.equal(seen["k"], x0["k"])


def test_metric_hook_replaces_the_discrepancy(generator: torch.Generator) -> None:
    model = smooth_model(Linear(), "endpoint")
    x0, noise = pairs(16, generator)

    def metric(output: Any, target: Any, times: Split, mask: Any) -> Tensor:
        return (output - target).abs().amax(1) * times.s

    t = torch.full((16,), 0.5, dtype=torch.float64)
    loss = flow_map_loss(model, RECIPES["fm"], x0, noise, times=Split(t, t, t), metric=metric)
    f = model.f(on_path(model, x0, noise, t), t, t)
    assert torch.allclose(loss.per_sample, 0.5 * (f - x0).abs().amax(1))


def test_condition_follows_its_sample(generator: torch.Generator) -> None:
    """Only some samples are off the diagonal: their conditions must be picked with them."""
    seen = []

    class Spy(Smooth):
        def forward(self, x: Tensor, s: Tensor, t: Tensor, condition: Any = None, mask: Any = None) -> Tensor:
            seen.append((s, condition["c"]))
            return super().forward(x, s, t)

    model = FlowMap(Spy(), Linear())
    x0, noise = pairs(6, generator)
    s = torch.linspace(0.4, 0.9, 6, dtype=torch.float64)
    t = torch.where(torch.arange(6) % 2 == 0, s, 0.1 * s)
    flow_map_loss(model, RECIPES["meanflow"], x0, noise, times=Split(s, s, t), condition={"c": 10 * s})
    assert len(seen) == 2
    assert all(torch.allclose(c, 10 * s_) for s_, c in seen)


def test_targets_carry_no_gradient(generator: torch.Generator) -> None:
    model, teacher = smooth_model(Linear(), "velocity"), smooth_model(Linear(), "velocity", seed=1)
    x0, noise = pairs(8, generator)
    times = split(0.8, 0.2, 0.5, "lagrangian", 8)
    recipe = replace(RECIPES["lmd"], through=False)
    flow_map_loss(model, recipe, x0, noise, times=times, teacher=teacher).total.backward()
    assert model.net.out.grad is not None
    assert teacher.net.out.grad is None


def test_torus_flow_matching_goes_the_short_way(generator: torch.Generator) -> None:
    """On the torus data at .95 and noise at .15 meet across the seam: the target is +.2, not -.8."""
    model, _x0, _noise, _mask = product_batch(generator)
    row = model.rows["f"]
    a, b = torch.full((1, 1, 1), 0.95), torch.full((1, 1, 1), 0.15)
    plain = Parametrisation("velocity", Linear(), type(row.geometry)())
    assert torch.allclose(path_velocity(plain, a, b, torch.ones(1), None), torch.full((1, 1, 1), 0.2))
    assert torch.allclose(path_point(plain, a, b, torch.tensor([0.5]), None), torch.full((1, 1, 1), 0.05), atol=1e-6)


# --- refusals --------------------------------------------------------------------------------------------


def test_missing_partners_are_named(generator: torch.Generator) -> None:
    model = smooth_model(Linear(), "velocity")
    x0, noise = pairs(4, generator)
    with pytest.raises(ValueError, match="teacher="):
        flow_map_loss(model, RECIPES["lmd"], x0, noise, generator=generator)
    with pytest.raises(ValueError, match="target_model="):
        flow_map_loss(model, RECIPES["ct"], x0, noise, generator=generator)
    with pytest.raises(ValueError, match="parametrisation"):
        flow_map_loss(model, RECIPES["pd"], x0, noise, generator=generator, teacher=smooth_model(Linear(), "endpoint"))
    with pytest.raises(ValueError, match="generator="):
        flow_map_loss(model, RECIPES["fm"], x0, noise)


def test_impossible_recipes_are_refused() -> None:
    with pytest.raises(ValueError, match="generated point"):
        Recipe("bad", "lagrangian", "conditional")
    with pytest.raises(ValueError, match="no JVP limit"):
        Recipe("bad", "progressive", "self", "jvp")
    with pytest.raises(ValueError, match="random target"):
        Recipe("bad", through=True)
    with pytest.raises(ValueError, match="none of"):
        Recipe("bad", "forward")


def test_the_table_has_every_published_name() -> None:
    names = "fm ct ict ect cd scm meanflow imf alphaflow soflow shortcut psd pd lsd lsd_fd lmd ctm reflow"
    assert list(RECIPES) == names.split()
    assert all(row.anchor >= 0.25 and row.paper for row in RECIPES.values())
    assert {n for n, r in RECIPES.items() if r.needs_teacher} == {"cd", "pd", "lmd", "ctm", "reflow"}
    assert DATA.mean.dtype == torch.float64
