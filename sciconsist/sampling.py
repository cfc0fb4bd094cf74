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
from sciconsist.schedules import TimesLike, grid, karras, shifted, snr_uniform, uniform
from sciconsist.solvers import STAGES, hold, ode
from sciconsist.state import Mask, State, Times, apply_mask, expand, leaves, map_fields

__all__ = [
    "STAGES", "Level", "diffuse", "jump", "karras", "ode", "sample", "shifted", "snr_uniform", "stream", "uniform",
]  # fmt: skip


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
        preview = hold(before, model.apply_f(before, f, s, zero, mask), s, zero)
        yield Level(k, t, after, hold(after, preview, t, zero))


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
            y = model.each(diffuse, y, noise, w, t, gamma, mask)
        y = hold(x, y, s, t)
        yield s, t, x, f, y
        x = y


def diffuse(
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
