"""Solvers of the map's diagonal, the probability-flow ODE, on a given list of times: pure functions on states.

Steps are straight lines in the tangent space, closed by each geometry's exp, so that a torus goes round.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from sciconsist.errors import UserError
from sciconsist.flowmap import FlowMap
from sciconsist.geometry import Torus
from sciconsist.parametrisations import Parametrisation
from sciconsist.schedules import TimesLike, grid
from sciconsist.state import Mask, State, Times, expand, field_of, leaves, map_fields


@torch.no_grad()
def ode(
    model: FlowMap,
    x: State,
    times: TimesLike,
    method: str = "heun",
    *,
    condition: Any = None,
    mask: Mask = None,
) -> State:
    """Follow the map's diagonal, the probability-flow ODE, through `times`, in either direction.

    euler     order 1, K evaluations
    midpoint  order 2, 2K
    heun      order 2, 2K: Implements Algorithm 1 of Karras et al. 2022
    rk4       order 4, 4K: the classical Runge-Kutta method
    dpmpp_2m  order 2, K: see `dpmpp_2m`

    Where the velocity is singular at 0 (endpoint rows, the VP path) the step that ends there is the map's own
    algebra with the diagonal's F, X = A(s,0) x + B(s,0) F: the denoiser itself in endpoint form, what EDM's
    last step is. It costs 1 evaluation if all fields are such, and its local error is of second order.
    """
    if method == "dpmpp_2m":
        return dpmpp_2m(model, x, times, condition=condition, mask=mask)
    if method not in STAGES:
        raise UserError(f"method {method!r}: expected one of {', '.join([*STAGES, 'dpmpp_2m'])}")
    singular: dict[Any, bool] = {name: is_singular(row) for name, row in model.rows.items()}
    for s, t in pairwise(grid(x, times)):
        last = {n: singular[n] and bool(((field_of(t, n) == 0) & (field_of(s, n) > 0)).any()) for n in singular}
        still = {n: bool((field_of(t, n) == field_of(s, n)).all()) for n in singular}
        y = x
        if not all(last[n] or still[n] for n in singular):
            y = STAGES[method](model, x, s, t, condition, mask)
        if any(last.values()):
            closed = model.apply_f(x, model.f(x, s, s, condition, mask), s, t, mask)
            y = merge(y, closed, t, last)
        x = hold(x, y, s, t)
    return x


def merge(y: State, closed: State, t: Times, last: Mapping[str | None, bool]) -> State:
    """Take `closed` where a singular field arrives at 0."""

    def one(old: Tensor, new: Tensor, end: Tensor) -> Tensor:
        return torch.where(expand(end == 0, old), new, old)

    if isinstance(y, Mapping):
        assert isinstance(closed, Mapping)
        return {n: one(v, closed[n], field_of(t, n)) if last[n] else v for n, v in y.items()}
    assert isinstance(closed, Tensor) and isinstance(t, Tensor)
    return one(y, closed, t)


def is_singular(row: Parametrisation) -> bool:
    """Whether the velocity diverges at time 0."""
    return row.kind == "endpoint" or float(row.path.db(torch.zeros(()))) > 1e6


def move(model: FlowMap, x: State, v: State, h: Times) -> State:
    """exp_x(h v)."""
    step = map_fields(lambda v_, h_: expand(h_, v_).to(v_.dtype) * v_, v, h)
    return model.geometry.exp(x, step)  # type: ignore[arg-type]


def between(s: Times, t: Times, part: float) -> Times:
    return map_fields(lambda a, b: a + part * (b - a), s, t)


def euler(model: FlowMap, x: State, s: Times, t: Times, condition: Any, mask: Mask) -> State:
    return move(model, x, model.velocity(x, s, condition, mask), gap(s, t))


def midpoint(model: FlowMap, x: State, s: Times, t: Times, condition: Any, mask: Mask) -> State:
    half = between(s, t, 0.5)
    middle = euler(model, x, s, half, condition, mask)
    return move(model, x, model.velocity(middle, half, condition, mask), gap(s, t))


def heun(model: FlowMap, x: State, s: Times, t: Times, condition: Any, mask: Mask) -> State:
    h = gap(s, t)
    d = model.velocity(x, s, condition, mask)
    d_next = model.velocity(move(model, x, d, h), t, condition, mask)
    return move(model, x, map_fields(lambda a, b: 0.5 * (a + b), d, d_next), h)


def rk4(model: FlowMap, x: State, s: Times, t: Times, condition: Any, mask: Mask) -> State:
    h, half = gap(s, t), between(s, t, 0.5)
    k1 = model.velocity(x, s, condition, mask)
    k2 = model.velocity(move(model, x, k1, gap(s, half)), half, condition, mask)
    k3 = model.velocity(move(model, x, k2, gap(s, half)), half, condition, mask)
    k4 = model.velocity(move(model, x, k3, h), t, condition, mask)
    return move(model, x, map_fields(lambda a, b, c, d: (a + 2 * b + 2 * c + d) / 6, k1, k2, k3, k4), h)


def gap(s: Times, t: Times) -> Times:
    return map_fields(lambda a, b: b - a, s, t)


STAGES = {"euler": euler, "midpoint": midpoint, "heun": heun, "rk4": rk4}


@torch.no_grad()
def dpmpp_2m(model: FlowMap, x: State, times: TimesLike, *, condition: Any = None, mask: Mask = None) -> State:
    """Implements DPM-Solver++(2M), Algorithm 2 of Lu et al. 2022b: order 2 at one evaluation a step, down to 0.

    The denoiser D is extrapolated in half the logarithm of the signal to noise ratio, lambda = log a/b, and a
    step is the endpoint form's X = A x + B D. The first step, and one to or from infinite lambda, has order 1.
    A torus has no lambda: there the velocity is extrapolated in time (Adams and Bashforth, order 2).
    """
    before: State | None = None
    earlier: Times | None = None
    for s, t in pairwise(grid(x, times)):
        if any(bool((end > begin).any()) for begin, end in zip(leaves(s), leaves(t))):
            raise UserError("dpmpp_2m goes down to 0 only: take rk4, or adaptive.dopri5, for times that rise")
        now = model.velocity(x, s, condition, mask)
        now = model.each(denoised, x, now, s)
        mixed = now
        if before is not None:
            mixed = model.each(_extrapolate, now, before, earlier, s, t)
        y = model.each(endpoint_step, x, mixed, s, t, mask)
        before, earlier, x = now, s, hold(x, y, s, t)
    return x


def denoised(row: Parametrisation, x: Tensor, v: Tensor, t: Tensor) -> Tensor:
    """D from v; a torus keeps v."""
    return v if isinstance(row.geometry, Torus) else replace(row, kind="endpoint").target(x, v, t, t)


def endpoint_step(row: Parametrisation, x: Tensor, d: Tensor, s: Tensor, t: Tensor, mask: Tensor | None) -> Tensor:
    kind = "velocity" if isinstance(row.geometry, Torus) else "endpoint"
    return replace(row, kind=kind).jump(x, d, s, t, mask)


def _extrapolate(row: Parametrisation, now: Tensor, before: Tensor, earlier: Tensor, s: Tensor, t: Tensor) -> Tensor:
    """(1 + c) D_i - c D_{i-1}, c = h_i / (2 h_{i-1}); c = 0 where that means nothing."""
    if isinstance(row.geometry, Torus):
        h, h_before = t - s, s - earlier
    else:
        h, h_before = (_half_log_snr(row, b) - _half_log_snr(row, a) for a, b in ((s, t), (earlier, s)))
    usable = torch.isfinite(h) & torch.isfinite(h_before) & (h_before != 0)
    c = torch.where(usable, 0.5 * h / torch.where(usable, h_before, torch.ones_like(h)), torch.zeros_like(h))
    c_ = expand(c, now).to(now.dtype)
    return (1 + c_) * now - c_ * before


def _half_log_snr(row: Parametrisation, t: Tensor) -> Tensor:
    return torch.log(row.path.a(t)) - torch.log(row.path.b(t))


def hold(old: State, new: State, s: Times, t: Times) -> State:
    """`new`, but `old` bit by bit where the time stands still."""
    return map_fields(lambda x, y, a, b: torch.where(expand(a == b, x), x, y), old, new, s, t)
