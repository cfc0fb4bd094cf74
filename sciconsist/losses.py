"""The one loss: the semigroup X_{w,t} o X_{s,w} = X_{s,t} with a split point w, anchored on the diagonal.

`targets` says what F(x_s, s, t) should be; here it is compared, per field, under a weight that depends on
times only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from sciconsist.flowmap import FlowMap
from sciconsist.geometry import Simplex, Torus
from sciconsist.parametrisations import Parametrisation
from sciconsist.recipes import Recipe
from sciconsist.state import Mask, State, batch_size, expand, field_of, leaves, map_fields, masked_mean
from sciconsist.targets import Pairs, diagonal_target, integrate, on_path, split_target, take
from sciconsist.times import Split
from sciconsist.weighting import LearnedWeight

Metric = Callable[[State, State, Split, Mask], Tensor]


@dataclass
class LossParts:
    """`total` is the mean of `per_sample` `[B]`; `parts`: means by field, on and off the diagonal."""

    total: Tensor
    per_sample: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)


def flow_map_loss(
    model: FlowMap,
    recipe: Recipe,
    x0: State,
    noise: State,
    *,
    progress: float = 1.0,
    generator: torch.Generator | None = None,
    condition: Any = None,
    mask: Mask = None,
    teacher: FlowMap | None = None,
    target_model: FlowMap | None = None,
    times: Split | None = None,
    metric: Metric | None = None,
    field_weights: Mapping[str, float] | None = None,
    weighting: LearnedWeight | None = None,
) -> LossParts:
    """The loss of one batch of pairs (x0, noise).

    `times` replaces the recipe's draw, one value or one per field (a field with s = 0 is given, not trained).
    `metric(output, target, times, mask) -> [B]` replaces the discrepancy and its weight; it sees raw logits
    for a Simplex and F elsewhere, and the target of F (for a Simplex in the form of x0: probabilities times
    scale). `weighting` is the learned weight of a recipe that has one; it weighs whole samples, and `parts`
    are without it.
    """
    check(recipe, model, teacher, target_model, generator, times, weighting)
    if recipe.pairs == "teacher" and teacher is not None:
        x0 = integrate(teacher, noise, condition, mask, recipe.solver_steps)
    if times is None:
        assert generator is not None
        times = recipe.times.draw(batch_size(x0), recipe.kind, progress, generator)
    times = Split(*(model.times(x0, t) for t in times))
    x = on_path(model, x0, noise, times.s, mask)
    target = diagonal_target(model, x, x0, noise, times.s, mask)
    off = off_diagonal(times)
    index = off.nonzero().flatten()
    if len(index):
        source = {"self": model, "ema": target_model, "teacher": teacher}[recipe.target]
        part = Pairs(*(take(v, index, len(off)) for v in (x, x0, noise, times, condition, mask)))
        with torch.set_grad_enabled(recipe.through and torch.is_grad_enabled()):
            split = split_target(recipe, source or model, teacher, model, part, progress)
        target = map_fields(lambda *a: merge(index, *a), target, split, times.s, times.t)
    found = compare(model, recipe, x, target, times, off, condition, mask, metric, field_weights)
    if weighting is not None:
        found.per_sample = weighting.weigh(found.per_sample, times.s, times.t, off)
        found.total = found.per_sample.mean()
    return found


def check(
    recipe: Recipe,
    model: FlowMap,
    teacher: FlowMap | None,
    target_model: FlowMap | None,
    generator: torch.Generator | None,
    times: Split | None,
    weighting: LearnedWeight | None,
) -> None:
    if recipe.needs_teacher and teacher is None:
        raise ValueError(f"recipe {recipe.name!r} distils a teacher: pass teacher=")
    if recipe.needs_target_model and target_model is None:
        raise ValueError(f"recipe {recipe.name!r} regresses on a moving average: pass target_model=")
    if recipe.target == "teacher" and teacher is not None and teacher.rows != model.rows:
        raise ValueError(f"recipe {recipe.name!r}: the teacher's path and parametrisation must be the student's")
    if (recipe.weight == "learned") != (weighting is not None):
        raise ValueError(f"recipe {recipe.name!r}: weighting= goes with weight='learned', found {recipe.weight!r}")
    if generator is None and times is None:
        raise ValueError("pass generator= (or the times themselves)")


def weight_of(name: str, row: Parametrisation, s: Tensor, w: Tensor, t: Tensor) -> Tensor:
    """Weight of |F - target|^2, a function of the times: `[B]`.

    unit      1: preconditioned targets have unit variance (EDM's lambda); in endpoint form 1 / (s^2 + .05) up
              to 10
    velocity  errors of u: (B / (t - s))^2, in endpoint form its tame version, which is unit
    map       errors of X off the diagonal: B^2
    gap       map / (b_s - b_w): ECT's and iCT's 1 / (t - r), in units of the noise level
    cosine    a_s (sCM multiplies its tangent by cos t)
    edm       errors of X over the preconditioner's B(s, t): EDM's lambda in any row, and unit in its own
    learned   unit here; `weighting` does the rest
    On the diagonal map, gap and cosine mean unit.
    """
    on = s == t
    one = torch.ones_like(s)
    if name in ("unit", "learned") or (name == "velocity" and row.kind == "endpoint"):
        return (1 / (s.square() + 0.05)).clamp(max=10.0) if row.kind == "endpoint" else one
    if name == "cosine":
        return torch.where(on, one, row.path.a(s).clamp_min(1e-3))
    if name == "edm":
        return edm_weight(row, s, t)
    if name == "velocity":
        return one if row.kind == "velocity" else row.rates(s, t)[1].square()
    b = one * (t - s) if row.kind == "velocity" else row.coefficients(s, t)[1]
    if name == "gap":
        return torch.where(on, one, b.square() / (row.path.b(s) - row.path.b(w)).clamp_min(1e-12))
    return torch.where(on, one, b.square())


def edm_weight(row: Parametrisation, s: Tensor, t: Tensor) -> Tensor:
    """(B / B_preconditioned)^2, at most 1000: in endpoint form lambda(sigma) = 1 / sd^2 + 1 / sigma^2 at sigma = b_s / a_s.

    Karras et al. 2022, table 1, where it weighs errors of the denoiser, and only s = t is there. `[B]`.
    """
    if row.kind == "preconditioned" or isinstance(row.geometry, Torus):  # a torus has no noise level
        return torch.ones_like(s)
    own = torch.ones_like(s) if row.kind == "velocity" else row.rates(s, t)[1]
    return (own / replace(row, kind="preconditioned").rates(s, t)[1]).square().clamp(max=1e3)


def compare(
    model: FlowMap, recipe: Recipe, x: State, target: State, times: Split, off: Tensor,
    condition: Any, mask: Mask, metric: Metric | None, field_weights: Mapping[str, float] | None,
) -> LossParts:  # fmt: skip
    raw = model.raw(x, times.s, times.t, condition, mask)
    parts: dict[str, Tensor] = {}
    if metric is not None:
        total = metric(model.each(_output, raw, mask), target, times, mask)
    else:
        total = torch.zeros(len(off), device=off.device, dtype=leaves(raw)[0].dtype)
        for name, row in model.rows.items():
            here = (part_of(v, name) for v in (x, raw, target, mask, *times))
            one = discrepancy(recipe, row, *here)
            if name is not None:
                parts[name] = one.detach().mean()
                one = one * (field_weights or {}).get(name, 1.0)
            total = total + one
    with torch.no_grad():
        for label, chosen in (("diagonal", ~off), ("off", off)):
            parts[label] = (total.detach() * chosen).sum() / chosen.sum().clamp_min(1)
    return LossParts(total.mean(), total, parts)


def part_of(value: Any, name: str | None) -> Any:
    """One field's part; `name` is None for a state that is one tensor."""
    return value if name is None else field_of(value, name)


def _output(row: Parametrisation, raw: Tensor, mask: Tensor | None) -> Tensor:
    return raw if isinstance(row.geometry, Simplex) else row.output(raw, mask)


def discrepancy(
    recipe: Recipe, row: Parametrisation, x: Tensor, raw: Tensor, target: Tensor, mask: Tensor | None,
    s: Tensor, w: Tensor, t: Tensor,
) -> Tensor:  # fmt: skip
    """Weighted squared error (categories: cross-entropy) of one field, `[B]`; 0 for a given field (s = 0)."""
    f = row.output(raw, mask)
    if isinstance(row.geometry, Simplex):
        log_p = torch.log_softmax(raw, -1)
        values = -(target.detach() / row.geometry.scale * log_p).sum(-1)
        weight = torch.ones_like(s)
    else:
        if row.kind == "velocity":
            f, target = row.geometry.tangent(x, f, mask), row.geometry.tangent(x, target, mask)
        live = expand(s > 0, f)
        values = torch.where(live, f - target, torch.zeros_like(f)).square()
        weight = weight_of(recipe.weight, row, s, w, t)
    if recipe.per_alpha:
        back = w - t if recipe.kind == "lagrangian" else s - w
        alpha = torch.where(s == t, torch.ones_like(s), back / torch.where(s == t, torch.ones_like(s), s - t))
        weight = weight / alpha.clamp_min(1e-6)
    return torch.where(s > 0, masked_mean(values, mask) * weight, torch.zeros_like(s)).to(values.dtype)


def off_diagonal(times: Split) -> Tensor:
    """Samples in which some field moves: `[B]`."""
    return torch.stack([s != t for s, t in zip(leaves(times.s), leaves(times.t))]).any(0)


def merge(index: Tensor, diagonal: Tensor, split: Tensor, s: Tensor, t: Tensor) -> Tensor:
    """Split targets at rows `index`, but for a field that stays on its diagonal there."""
    full = diagonal.index_copy(0, index, split.to(diagonal.dtype))
    return torch.where(expand(s == t, full), diagonal, full)
