"""Changing samples that exist: inpainting, interpolation, and edits by jump and project. Any geometry, any mask."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from sciconsist.errors import UserError
from sciconsist.flowmap import FlowMap
from sciconsist.geometry import Torus
from sciconsist.parametrisations import Parametrisation
from sciconsist.random import Generators, draw_prior
from sciconsist.sampling import jump, ode
from sciconsist.schedules import TimesLike, grid, uniform
from sciconsist.state import Mask, State, Times, expand, map_fields
from sciconsist.targets import on_path


@torch.no_grad()
def inpaint(
    model: FlowMap,
    given: State,
    known: Any,
    times: TimesLike,
    generator: Generators,
    *,
    resample: int = 1,
    condition: Any = None,
    mask: Mask = None,
) -> State:
    """Fill what is not `known` (boolean, leading dimensions of the state; a dict of them) around `given`.

    Implements Algorithm 4 of Song et al. 2023 (multistep consistency) with the resampling of RePaint (Lugmayr
    et al. 2022): at every time the sample is foreseen at 0, its known part put in, and noised again,
    `resample` times over, so that the two parts get to agree. Fields that are known as a whole are better
    held: times 0 in any sampler cost nothing and are exact.
    """
    if resample < 1:
        raise UserError(f"resample = {resample}: expected 1 or more")
    clocks = grid(given, times)

    def renoised(x0: State, t: Times) -> State:
        noise = draw_prior(model.geometry, given, mask, generator=generator)
        return on_path(model, x0, noise, t, mask)

    def put_in(x0: State) -> State:
        return map_fields(lambda x, g, k: torch.where(expand(k, x), g, x), x0, given, known)

    x = renoised(put_in(draw_prior(model.geometry, given, mask, generator=generator)), clocks[0])
    zero = map_fields(torch.zeros_like, clocks[0])
    for s, t in pairwise(clocks):
        for round_ in range(resample):
            x0 = put_in(model(x, s, zero, condition, mask))
            x = renoised(x0, t if round_ == resample - 1 else s)
    return put_in(x)


@torch.no_grad()
def interpolate(
    model: FlowMap,
    x: State,
    y: State,
    weights: Tensor,
    *,
    steps: int = 32,
    condition: Any = None,
    mask: Mask = None,
) -> list[State]:
    """Samples on the way from x (weight 0) to y (weight 1): a great circle between their noises, brought back.

    Both are carried to 1 and the mixtures back by Runge-Kutta in `steps` steps of the ODE, so the ends return.
    On a torus the mixture is on the geodesic. Endpoint rows (categories) cannot leave 0: hold such fields or
    edit them.
    """
    if any(row.kind == "endpoint" for row in model.rows.values()):
        raise UserError("interpolate: an endpoint row's ODE cannot start at time 0; use edit")
    up, down = uniform(steps).flip(0), uniform(steps)
    a, b = (ode(model, z, up, "rk4", condition=condition, mask=mask) for z in (x, y))
    mixed = (model.each(_between, a, b, float(w), mask) for w in weights)
    return [ode(model, m, down, "rk4", condition=condition, mask=mask) for m in mixed]


def _between(row: Parametrisation, a: Tensor, b: Tensor, weight: float, mask: Tensor | None) -> Tensor:
    if isinstance(row.geometry, Torus):
        return row.geometry.project(row.geometry.exp(a, weight * row.geometry.log(a, b)), mask)
    u, v = a.flatten(1), b.flatten(1)
    cosine = (u * v).sum(1) / (u.norm(dim=1) * v.norm(dim=1)).clamp_min(1e-12)
    angle = torch.acos(cosine.clamp(-1, 1)).clamp_min(1e-6)
    left, right = torch.sin((1 - weight) * angle) / torch.sin(angle), torch.sin(weight * angle) / torch.sin(angle)
    return expand(left, a) * a + expand(right, b) * b


@torch.no_grad()
def edit(
    model: FlowMap,
    x: State,
    time: float,
    generator: Generators,
    project: Callable[[State], State] = lambda x: x,
    *,
    rounds: int = 1,
    steps: int = 1,
    condition: Any = None,
    mask: Mask = None,
) -> State:
    """Noise x up to `time`, jump back to 0 and project; `rounds` times (SDEdit, Meng et al. 2022).

    `project` puts a state at time 0 onto what is wanted (a fixed scaffold, a composition, a coarse mean); the
    jumps bring it back to the data. At time 0 only the projection is left; with none, the exact map keeps the
    data distribution at every time.
    """
    if not 0 <= time <= 1:
        raise UserError(f"time = {time}: expected a number from 0 (keep all) to 1 (keep nothing)")
    for _ in range(rounds):
        if time > 0:
            noise = draw_prior(model.geometry, x, mask, generator=generator)
            noisy = on_path(model, x, noise, model.times(x, time), mask)
            x = jump(model, noisy, time * uniform(steps), condition=condition, mask=mask)
        x = project(x)
    return x
