"""The loss on states of several fields, masks and hooks; what it refuses; the table of recipes."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sciconsist.flowmap import FlowMap
from sciconsist.geometry import Simplex
from sciconsist.losses import flow_map_loss
from sciconsist.parametrisations import Parametrisation
from sciconsist.paths import Linear
from sciconsist.recipes import RECIPES, Recipe
from sciconsist.targets import on_path, path_point, path_velocity
from sciconsist.times import Split
from tests.core.exact_maps import DATA, pairs
from tests.core.test_flowmap import noise_like, product_model
from tests.core.test_losses import Smooth, smooth_model, split


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
