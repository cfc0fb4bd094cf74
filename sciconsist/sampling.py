"""Samplers: pure functions `(model, x, times, ...) -> x` over a FlowMap; `schedules` has tensors of times.

Times go from where `x` is to where it shall be, mostly from 1 (noise) down to 0 (data). They are one list for
all fields or a dict with one a field; a list may also be a tensor `[K + 1, B]`, a clock a sample. A number in
such a dict holds its field: a field whose time does not change stays bit-identical, and the network is told
that time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from sciconsist.errors import UserError
from sciconsist.flowmap import FlowMap
from sciconsist.geometry import Torus
from sciconsist.parametrisations import Parametrisation
from sciconsist.random import Generators, draw_prior
from sciconsist.schedules import TimesLike, grid, karras, shifted, uniform
from sciconsist.state import Mask, State, Times, apply_mask, expand, field_of, leaves, map_fields

__all__ = ["Level", "jump", "karras", "ode", "sample", "shifted", "stream", "uniform"]


@torch.no_grad()
def jump(
    model: FlowMap,
    x: State,
    times: TimesLike,
    *,
    condition: Any = None,
    mask: Mask = None,
    gamma: float | Mapping[str, float] = 0.0,
    generator: Generators | None = None,
) -> State:
    """Jumps of the flow map, K network evaluations for K + 1 times.

    Each step from s to t jumps to (1 - gamma) t and noises again up to t along the path. At gamma = 0 that is
    the map alone, at gamma = 1 it Implements Algorithm 1 (multistep consistency sampling) of Song et al.
    2023; between them it is the gamma-sampling of Kim et al. 2024 (CTM) with gamma counted in
    time. The exact map preserves the marginal of every time at every gamma. A torus knows 0 and 1 only.
    `generator` may be one a sample.
    """
    *_, y = deque(_jumps(model, x, times, condition, mask, gamma, generator), maxlen=1)[0]
    return y


@dataclass(frozen=True)
class Level:
    """One step of a stream: `state` at `time`, and `preview`, its guess of the sample at time 0."""

    step: int
    time: Times
    state: State
    preview: State


@torch.no_grad()
def stream(
    model: FlowMap,
    x: State,
    times: TimesLike,
    *,
    condition: Any = None,
    mask: Mask = None,
    gamma: float | Mapping[str, float] = 0.0,
    generator: Generators | None = None,
) -> Iterator[Level]:
    """`jump`, coarse to fine: every step yields a free preview; the last one's is the sample."""
    steps = _jumps(model, x, times, condition, mask, gamma, generator)
    for k, (s, t, before, f, after) in enumerate(steps, 1):
        zero = map_fields(torch.zeros_like, s)
        preview = _hold(before, model.apply_f(before, f, s, zero, mask), s, zero)
        yield Level(k, t, after, _hold(after, preview, t, zero))


def _jumps(
    model: FlowMap,
    x: State,
    times: TimesLike,
    condition: Any,
    mask: Mask,
    gamma: Any,
    generator: Generators | None,
) -> Iterator[tuple[Times, Times, State, State, State]]:
    """(s, t, x_s, F, x_t) of every jump."""
    noisy = any(g != 0 for g in (gamma.values() if isinstance(gamma, Mapping) else [gamma]))
    if noisy and generator is None:
        raise UserError("gamma > 0 draws fresh noise: pass a torch.Generator as generator")
    for s, t in pairwise(grid(x, times)):
        w = map_fields(lambda end, g: (1 - g) * end, t, gamma) if noisy else t
        f = model.f(x, s, w, condition, mask)
        y = model.apply_f(x, f, s, w, mask)
        if noisy and any(bool((end > 0).any()) for end in leaves(t)):
            assert generator is not None
            noise = draw_prior(model.geometry, x, mask, generator=generator)
            y = model.each(_diffuse, y, noise, w, t, gamma, mask)
        y = _hold(x, y, s, t)
        yield s, t, x, f, y
        x = y


def _diffuse(
    row: Parametrisation, x: Tensor, noise: Tensor, w: Tensor, t: Tensor, gamma: float, mask: Tensor | None
) -> Tensor:
    """x at time w noised up to t > w: x_t = r x_w + sqrt(b_t^2 - r^2 b_w^2) eps, r = a_t / a_w."""
    if not 0 <= gamma <= 1:
        raise UserError(f"gamma = {gamma}: expected a number from 0 (the map alone) to 1 (all noise fresh)")
    if gamma == 0:
        return x
    if isinstance(row.geometry, Torus):
        if gamma != 1:
            raise UserError(f"gamma = {gamma}: a Torus field is noised again from time 0 (gamma 1) or not at all (0)")
        arc = expand(t, x).to(x.dtype) * row.geometry.log(x, noise)
        return apply_mask(row.geometry.exp(x, arc), mask)
    ratio = row.path.a(t) / row.path.a(w)
    spread = (row.path.b(t).square() - (ratio * row.path.b(w)).square()).clamp_min(0).sqrt()
    return expand(ratio, x).to(x.dtype) * x + expand(spread, x).to(x.dtype) * noise


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

    Where the velocity is singular at 0 (endpoint rows, the VP path) the step that ends there is the map's own
    algebra with the diagonal's F, X = A(s,0) x + B(s,0) F: the denoiser itself in endpoint form, what EDM's
    last step is. It costs 1 evaluation if all fields are such, and its local error is of second order.
    """
    if method not in STAGES:
        raise UserError(f"method {method!r}: expected one of {', '.join(STAGES)}")
    singular: dict[Any, bool] = {name: _singular(row) for name, row in model.rows.items()}
    for s, t in pairwise(grid(x, times)):
        last = {n: singular[n] and bool(((field_of(t, n) == 0) & (field_of(s, n) > 0)).any()) for n in singular}
        still = {n: bool((field_of(t, n) == field_of(s, n)).all()) for n in singular}
        y = x
        if not all(last[n] or still[n] for n in singular):
            y = STAGES[method](model, x, s, t, condition, mask)
        if any(last.values()):
            closed = model.apply_f(x, model.f(x, s, s, condition, mask), s, t, mask)
            y = _merge(y, closed, t, last)
        x = _hold(x, y, s, t)
    return x


def _merge(y: State, closed: State, t: Times, last: Mapping[str | None, bool]) -> State:
    """Take `closed` where a singular field arrives at 0."""

    def one(old: Tensor, new: Tensor, end: Tensor) -> Tensor:
        return torch.where(expand(end == 0, old), new, old)

    if isinstance(y, Mapping):
        assert isinstance(closed, Mapping)
        return {n: one(v, closed[n], field_of(t, n)) if last[n] else v for n, v in y.items()}
    assert isinstance(closed, Tensor) and isinstance(t, Tensor)
    return one(y, closed, t)


def _singular(row: Parametrisation) -> bool:
    """Whether the velocity diverges at time 0."""
    return row.kind == "endpoint" or float(row.path.db(torch.zeros(()))) > 1e6


def _move(model: FlowMap, x: State, v: State, h: Times) -> State:
    """exp_x(h v)."""
    step = map_fields(lambda v_, h_: expand(h_, v_).to(v_.dtype) * v_, v, h)
    return model.geometry.exp(x, step)  # type: ignore[arg-type]


def _between(s: Times, t: Times, part: float) -> Times:
    return map_fields(lambda a, b: a + part * (b - a), s, t)


def _euler(model: FlowMap, x: State, s: Times, t: Times, condition: Any, mask: Mask) -> State:
    return _move(model, x, model.velocity(x, s, condition, mask), _gap(s, t))


def _midpoint(model: FlowMap, x: State, s: Times, t: Times, condition: Any, mask: Mask) -> State:
    half = _between(s, t, 0.5)
    middle = _euler(model, x, s, half, condition, mask)
    return _move(model, x, model.velocity(middle, half, condition, mask), _gap(s, t))


def _heun(model: FlowMap, x: State, s: Times, t: Times, condition: Any, mask: Mask) -> State:
    h = _gap(s, t)
    d = model.velocity(x, s, condition, mask)
    d_next = model.velocity(_move(model, x, d, h), t, condition, mask)
    return _move(model, x, map_fields(lambda a, b: 0.5 * (a + b), d, d_next), h)


def _rk4(model: FlowMap, x: State, s: Times, t: Times, condition: Any, mask: Mask) -> State:
    h, half = _gap(s, t), _between(s, t, 0.5)
    k1 = model.velocity(x, s, condition, mask)
    k2 = model.velocity(_move(model, x, k1, _gap(s, half)), half, condition, mask)
    k3 = model.velocity(_move(model, x, k2, _gap(s, half)), half, condition, mask)
    k4 = model.velocity(_move(model, x, k3, h), t, condition, mask)
    return _move(model, x, map_fields(lambda a, b, c, d: (a + 2 * b + 2 * c + d) / 6, k1, k2, k3, k4), h)


def _gap(s: Times, t: Times) -> Times:
    return map_fields(lambda a, b: b - a, s, t)


STAGES = {"euler": _euler, "midpoint": _midpoint, "heun": _heun, "rk4": _rk4}


@torch.no_grad()
def sample(
    model: FlowMap,
    shape_or_condition: Any,
    times: TimesLike,
    generator: Generators,
    *,
    condition: Any = None,
    mask: Mask = None,
    method: str = "jump",
    gamma: float | Mapping[str, float] = 0.0,
) -> State:
    """Samples from prior noise, which stands at the first of `times`.

    `shape_or_condition` is a shape `(B, ...)`, a dict of them, or a request that the model's domain
    understands. `method` is "jump" or one of `ode`'s.
    """
    like: Any
    if _is_shape(shape_or_condition):
        like = _empty(model, shape_or_condition)
    elif isinstance(shape_or_condition, Mapping) and all(_is_shape(s) for s in shape_or_condition.values()):
        like = {name: _empty(model, shape) for name, shape in shape_or_condition.items()}
    elif hasattr(model.domain, "template"):
        batch = model.domain.template(shape_or_condition)
        like, condition, mask = batch.x0, batch.condition, batch.mask
    else:
        raise UserError("sample: expected a shape (B, ...) or a dict of them; this model's domain knows no requests")
    start = grid(like, times)[0]
    x = model.each(_scale_prior, draw_prior(model.geometry, like, mask, generator=generator), start)
    if method == "jump":
        return jump(model, x, times, condition=condition, mask=mask, gamma=gamma, generator=generator)
    return ode(model, x, times, method, condition=condition, mask=mask)


def _scale_prior(row: Parametrisation, noise: Tensor, t: Tensor) -> Tensor:
    """b_t eps, the path's own end."""
    return noise if isinstance(row.geometry, Torus) else expand(row.path.b(t), noise).to(noise.dtype) * noise


def _is_shape(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(n, int) for n in value)


def _empty(model: FlowMap, shape: Sequence[int]) -> Tensor:
    weight = next(model.parameters(), torch.zeros(()))
    return torch.zeros(tuple(shape), dtype=weight.dtype, device=weight.device)


def _hold(old: State, new: State, s: Times, t: Times) -> State:
    """`new`, but `old` bit by bit where the time stands still."""
    return map_fields(lambda x, y, a, b: torch.where(expand(a == b, x), x, y), old, new, s, t)
