"""Targets of the loss: what a flow map from s to t is compared with.

With u the average velocity and gamma = (w - s) / (t - s), the target of u(x_s, s, t) is gamma P + (1 - gamma)
Q:

kind         P, from s to w            Q, from w to t           limit alpha -> 0 (JVP)
eulerian     v(x_s)                    u(x_w, w, t)             v + (t - s)(d_s + v.grad) u
lagrangian   u(x_s, s, w)              v(X_{s,w}, w)            v(X_{s,t}, t) - (t - s) d_t u
progressive  u(x_s, s, w)              u(X_{s,w}, w, t)         -

A piece has a row's natural form: u, or, in endpoint form, F itself. There the same three rows read
lambda P + (1 - lambda) Q with lambda = b_t (a_w b_s - a_s b_w) / (b_w (a_t b_s - a_s b_t)), in [0, 1]:
denoiser values are averaged, so a target never leaves the data's convex hull and categories stay on the
simplex. On the linear path lambda = (t/w - t/s) / (1 - t/s).

The conditional velocity moves along the path, x_w = a_w x0 + b_w eps (on a torus along the geodesic), and
makes a finite eulerian row biased by O(alpha). Targets carry no gradient. Finite and limit residuals agree to
first order: (u - target)(alpha) = alpha (u - target)(limit) + O(alpha^2). A limit's target may leave the
simplex.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from sciconsist.flowmap import FlowMap
from sciconsist.geometry import Torus
from sciconsist.parametrisations import Parametrisation
from sciconsist.recipes import Recipe
from sciconsist.state import Mask, State, expand, map_fields
from sciconsist.times import Split


@dataclass
class Pairs:
    """Samples off the diagonal: states at s, the pairs behind them, times, and what goes to the network."""

    x: Any
    x0: Any
    noise: Any
    times: Split
    condition: Any
    mask: Any


# --- the conditional path ---------------------------------------------------------------------------------


def path_point(row: Parametrisation, x0: Tensor, noise: Tensor, t: Tensor, mask: Tensor | None) -> Tensor:
    """x_t = a_t x0 + b_t eps; on a torus a fraction t of the geodesic from x0 to the noise."""
    if isinstance(row.geometry, Torus):
        v = path_velocity(row, x0, noise, t, mask)
        return row.geometry.exp(x0, expand(t, x0).to(x0.dtype) * v)
    a, b = expand(row.path.a(t), x0).to(x0.dtype), expand(row.path.b(t), x0).to(x0.dtype)
    return a * x0 + b * noise


def path_velocity(row: Parametrisation, x0: Tensor, noise: Tensor, t: Tensor, mask: Tensor | None) -> Tensor:
    """dx_t/dt of the pair: a' x0 + b' eps, or the geodesic's constant velocity."""
    if isinstance(row.geometry, Torus):
        return row.geometry.tangent(x0, row.geometry.log(x0, noise), mask)
    da, db = expand(row.path.da(t), x0).to(x0.dtype), expand(row.path.db(t), x0).to(x0.dtype)
    return da * x0 + db * noise


def on_path(model: FlowMap, x0: State, noise: State, t: Any, mask: Mask = None) -> State:
    """x_t of every field."""
    return model.each(path_point, x0, noise, t, mask)


def diagonal_target(model: FlowMap, x: State, x0: State, noise: State, t: Any, mask: Mask) -> State:
    """F of the conditional velocity: flow matching. In endpoint form it is x0 itself."""

    def one(row: Parametrisation, x_: Tensor, x0_: Tensor, e: Tensor, t_: Tensor, m: Tensor | None) -> Tensor:
        return x0_ if row.kind == "endpoint" else row.target(x_, path_velocity(row, x0_, e, t_, m), t_, t_)

    return model.each(one, x, x0, noise, t, mask)


def integrate(model: FlowMap, x: State, condition: Any, mask: Mask, steps: int) -> State:
    """The model's probability-flow ODE from 1 to 0 by Euler steps in each row's natural form."""
    with torch.no_grad():
        grid = torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64).tolist()
        for s, t in pairwise(grid):
            x = step(model, x, diagonal(model, model, x, model.times(x, s), condition, mask), s, t, mask)
    return x


# --- pieces: u, or F in endpoint form ---------------------------------------------------------------------


def share(row: Parametrisation, s: Tensor, w: Tensor, t: Tensor) -> Tensor:
    """Weight of the piece from s to w: gamma, or lambda in endpoint form; 0 where s = t."""
    if row.kind == "endpoint":
        path = row.path
        top = path.b(t) * (path.a(w) * path.b(s) - path.a(s) * path.b(w))
        bottom = path.b(w) * (path.a(t) * path.b(s) - path.a(s) * path.b(t))
    else:
        top, bottom = w - s, t - s
    flat = bottom.abs() < 1e-30
    ratio = torch.where(flat, torch.zeros_like(s), top / torch.where(flat, torch.ones_like(s), bottom))
    return torch.where((w == t) & (s != t), torch.ones_like(s), ratio)


def piece(model: FlowMap, x: State, s: Any, t: Any, condition: Any, mask: Mask) -> State:
    """The map from s to t in natural form."""
    f = model.f(x, s, t, condition, mask)
    return model.each(natural, x, f, model.times(x, s), model.times(x, t), mask)


def natural(row: Parametrisation, x: Tensor, f: Tensor, s: Tensor, t: Tensor, mask: Tensor | None) -> Tensor:
    return f if row.kind == "endpoint" else row.average(x, f, s, t, mask)


def diagonal(model: FlowMap, source: FlowMap, x: State, t: Any, condition: Any, mask: Mask) -> State:
    """The source's velocity at x in `model`'s natural form: the source may be parametrised otherwise."""
    if source.rows == model.rows:
        return piece(source, x, t, t, condition, mask)
    v = source.velocity(x, t, condition, mask)

    def one(row: Parametrisation, x_: Tensor, v_: Tensor, t_: Tensor) -> Tensor:
        return row.target(x_, v_, t_, t_) if row.kind == "endpoint" else v_

    return model.each(one, x, v, model.times(x, t))


def step(model: FlowMap, x: State, p: State, s: Any, t: Any, mask: Mask) -> State:
    """Move along a piece from s to t."""

    def one(row: Parametrisation, x_: Tensor, p_: Tensor, s_: Tensor, t_: Tensor, m: Tensor | None) -> Tensor:
        if row.kind == "endpoint":
            return row.jump(x_, p_, s_, t_, m)
        return row.geometry.exp(x_, expand(t_ - s_, x_).to(x_.dtype) * row.geometry.tangent(x_, p_, m))

    return model.each(one, x, p, model.times(x, s), model.times(x, t), mask)


# --- targets off the diagonal -----------------------------------------------------------------------------


def split_target(
    recipe: Recipe, source: FlowMap, teacher: FlowMap | None, model: FlowMap, b: Pairs, progress: float
) -> State:
    """The target of F(x, s, t) by the recipe's row: `[b, ...]`."""
    velocities = {"self": source, "teacher": teacher, "conditional": None}
    if recipe.limit == "jvp" or recipe.times.alpha.value(progress) <= recipe.jvp_below:
        return limit_target(recipe, source, velocities, model, b)
    s, w, t = b.times
    given = (b.condition, b.mask)
    v = velocities[recipe.velocity]
    if recipe.kind == "eulerian":
        if v is None:
            x_w = on_path(model, b.x0, b.noise, w, b.mask)
            p = model.each(_path_piece, b.x, x_w, b.x0, b.noise, s, w, b.mask)
        else:
            p, x_w = solve(model, v, b, recipe.solver_steps)
        q = piece(source, x_w, w, t, *given)
    else:
        # the first halving distils a teacher that knows its velocity only
        first = recipe.times.target == "halving" and progress * recipe.times.levels < 1
        p = diagonal(model, source, b.x, s, *given) if first else piece(source, b.x, s, w, *given)
        x_w = step(model, b.x, p, s, w, b.mask)
        if recipe.kind == "progressive" and not first:
            q = piece(source, x_w, w, t, *given)
        else:
            q = diagonal(model, v if v is not None else source, x_w, w, *given)

    mixed = join(model, p, q, s, w, t)
    return model.each(lambda row, *a: a[1] if row.kind == "endpoint" else row.target(*a), b.x, mixed, s, t)


def _path_piece(
    row: Parametrisation, x: Tensor, x_w: Tensor, x0: Tensor, noise: Tensor, s: Tensor, w: Tensor, mask: Any
) -> Tensor:
    """The conditional path from s to w as a piece."""
    if row.kind == "endpoint":
        return x0
    v = path_velocity(row, x0, noise, s, mask)
    if isinstance(row.geometry, Torus):
        return v
    still = w == s
    gap = expand(torch.where(still, torch.ones_like(s), w - s), x).to(x.dtype)
    return torch.where(expand(still, x), v, (x_w - x) / gap)


def solve(model: FlowMap, source: FlowMap, b: Pairs, steps: int) -> tuple[State, State]:
    """The source's ODE from s to w in equal steps, as one piece, and where it ends."""
    s, w, _ = b.times
    x, p, done = b.x, b.x, s
    for k in range(steps):
        now = map_fields(lambda s_, w_, k=k: s_ + (w_ - s_) * ((k + 1) / steps), s, w)
        q = diagonal(model, source, x, done, b.condition, b.mask)
        p = q if k == 0 else join(model, p, q, s, done, now)
        x, done = step(model, x, q, done, now, b.mask), now
    return p, x


def join(model: FlowMap, p: State, q: State, s: Any, w: Any, t: Any) -> State:
    """One piece from two: the weighted mean of s to w and w to t."""

    def one(row: Parametrisation, p_: Tensor, q_: Tensor, *times: Tensor) -> Tensor:
        lam = expand(share(row, *times), p_).to(p_.dtype)
        return lam * p_ + (1 - lam) * q_

    return model.each(one, p, q, s, w, t)


def jvp(function: Callable[..., Any], primals: tuple, tangents: tuple) -> tuple[Any, Any]:
    """Value and directional derivative in forward mode (attention needs the MATH backend, cdist has none)."""
    # times may be one number expanded over the batch, which forward mode refuses
    primals, tangents = (tuple(map_fields(Tensor.contiguous, v) for v in vs) for vs in (primals, tangents))
    value, derivative = torch.func.jvp(function, primals, tangents)[:2]
    return value, derivative


def limit_target(
    recipe: Recipe, source: FlowMap, velocities: Mapping[str, FlowMap | None], model: FlowMap, b: Pairs
) -> State:
    """alpha -> 0: the target is v + d/dalpha u along the split point's motion, one forward-mode derivative.

    The motion scales every field's own times, so a held field (s = t) has no tangent.
    """
    s, _, t = b.times
    given = (b.condition, b.mask)

    def velocity(name: str, x: State, at: Any) -> State:
        v = velocities[name]
        if v is None:
            return model.each(path_velocity, b.x0, b.noise, at, b.mask)
        return v.velocity(x, at, *given)

    gap = map_fields(lambda s_, t_: t_ - s_, s, t)
    if recipe.kind == "lagrangian":
        back = map_fields(torch.neg, gap)

        def both(t_: Any) -> tuple[State, State]:
            f = source.f(b.x, s, t_, *given)
            return source.average_of(b.x, f, s, t_, b.mask), source.apply_f(b.x, f, s, t_, b.mask)

        (_, end), (du, _) = jvp(both, (t,), (back,))
        v = velocity(recipe.velocity, end, t)
    else:
        v = velocity(recipe.velocity, b.x, s)
        tangent = v if recipe.tangent in (None, recipe.velocity) else velocity(str(recipe.tangent), b.x, s)
        motion = map_fields(lambda v_, g: expand(g, v_).to(v_.dtype) * v_, tangent, gap)
        _, du = jvp(lambda x_, s_: source.average_velocity(x_, s_, t, *given), (b.x, s), (motion, gap))
    return model.each(lambda row, x, v_, d, s_, t_: row.target(x, v_ + d, s_, t_), b.x, v, du, s, t)


def take(value: Any, index: Tensor, size: int) -> Any:
    """Rows `index` of everything in a nest of tensors whose first dimension is the batch."""
    if isinstance(value, Tensor):
        return value[index] if value.dim() and value.shape[0] == size else value
    if isinstance(value, Mapping):
        return {k: take(v, index, size) for k, v in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(take(v, index, size) for v in value))
    if isinstance(value, (list, tuple)):
        return type(value)(take(v, index, size) for v in value)
    return value
