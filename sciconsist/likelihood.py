"""Log densities: the divergence of the velocity along the ODE (CNF), or the volume change of one jump.

Chen et al. 2018 (instantaneous change of variables), Grathwohl et al. 2019 (Hutchinson's trace). States of any
shape; the density is over the real, free coordinates of the geometry (a centre of mass held at zero is none).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from sciconsist.adaptive import integrate
from sciconsist.errors import UserError
from sciconsist.flowmap import FlowMap
from sciconsist.geometry import Euclidean, Simplex, Torus, geometry_of, real_count
from sciconsist.state import Mask, State, apply_mask, batch_size, leaves, map_fields

LOG_2 = math.log(2)


def refuse_tuned(model: FlowMap, tool: str) -> None:
    """UserError when the card says that the model is no flow map any more.

    A model that was tuned for some step counts (`card["tuned_for"]`, e.g. [1, 4], and perhaps `tuned_by`) has
    a diagonal that is not the velocity of its samples.
    """
    if steps := model.card.get("tuned_for"):
        how = f" by {model.card['tuned_by']}" if "tuned_by" in model.card else ""
        raise UserError(
            f"{tool}: {model.card.get('name', 'this model')} was tuned{how} for {steps} steps and is no flow map "
            "any more: its velocity is not that of its samples; take the model it was tuned from"
        )


def flatten(x: State) -> Tensor:
    """A state as `[B, n]`."""
    return torch.cat([v.flatten(1) for v in leaves(x)], 1)


def unflatten(flat: Tensor, like: State) -> Any:
    """Back from `[B, n]` to the shapes of `like`."""
    parts = flat.split([v[0].numel() for v in leaves(like)], 1)
    whole = [p.view(len(flat), *v.shape[1:]) for p, v in zip(parts, leaves(like))]
    return dict(zip(like, whole)) if isinstance(like, dict) else whole[0]


def divergence(velocity: Callable[[State], State], x: State, probes: list[State] | None = None) -> tuple[State, Tensor]:
    """v(x) and its divergence `[B]`: exact, a forward derivative a coordinate, or Hutchinson's over `probes`.

    Masked coordinates must not move; they then add nothing. With Rademacher probes the estimate's mean is
    exact and its variance 2 (|S|_F^2 - sum S_ii^2), S the symmetric part of the Jacobian.
    """
    flat = flatten(x)

    def rate(y: Tensor) -> Tensor:
        return flatten(velocity(unflatten(y, x)))

    value = rate(flat)
    total = torch.zeros(len(flat), dtype=flat.dtype, device=flat.device)
    if probes is not None:
        for probe in probes:
            direction = flatten(probe)
            total = total + (direction * torch.func.jvp(rate, (flat,), (direction,))[1]).sum(1) / len(probes)
    else:
        for k in range(flat.shape[1]):
            direction = torch.zeros_like(flat)
            direction[:, k] = 1
            total = total + torch.func.jvp(rate, (flat,), (direction,))[1][:, k]
    return unflatten(value, x), total


def rademacher(x: State, mask: Mask, generator: torch.Generator, count: int = 1) -> list[Any]:
    """`count` probes of +-1 on the real coordinates."""

    def one(v: Tensor, m: Tensor | None) -> Tensor:
        signs = torch.randint(0, 2, v.shape, generator=generator, device=generator.device) * 2 - 1
        return apply_mask(signs.to(v.device, v.dtype), m)

    return [map_fields(one, x, mask) for _ in range(count)]


@torch.no_grad()
def log_density(
    model: FlowMap,
    x: State,
    *,
    end: float = 1e-3,
    generator: torch.Generator | None = None,
    probes: int = 1,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    condition: Any = None,
    mask: Mask = None,
) -> Tensor:
    """log p(x) of states at time `end` (x_t of the path, almost data), in nats: `[B]` float64.

    The ODE carries x to time 1 in adaptive steps of each sample's own, with the divergence beside it; the
    prior gives the rest. Exact divergence without a `generator`, else Hutchinson's with `probes`, the same
    ones along the whole path. Endpoint rows other than categories may start at `end` > 0 only. Raises
    UserError for categories (no density) and for a model that was tuned for few steps.
    """
    refuse_tuned(model, "log_density")
    for name, row in model.rows.items():
        if isinstance(row.geometry, Simplex):
            raise UserError(f"log_density: field {name!r} is a category, which has no density; hold it as a condition")
    seeds = None if generator is None else rademacher(x, mask, generator, probes)

    def rate(state: dict[str, Any], tau: Tensor) -> dict[str, Any]:
        now = end + (1 - end) * tau
        like = state if not nested else {k: v for k, v in state.items() if k != LOG}
        y = like if nested else state["x"]
        first = leaves(y)[0]
        t = model.times(y, now.to(torch.float64 if first.dtype == torch.float64 else torch.float32))
        v, div = divergence(lambda z: model.velocity(z, t, condition, mask), y, seeds)
        scale = 1 - end
        moved = map_fields(lambda a: scale * a, v)
        return {**(moved if nested else {"x": moved}), LOG: scale * div.double()}

    nested = isinstance(x, dict)
    start: dict[str, Any] = {**x} if isinstance(x, dict) else {"x": x}
    start[LOG] = torch.zeros(batch_size(x), dtype=torch.float64)

    def move(state: dict[str, Any], step: dict[str, Any]) -> dict[str, Any]:
        return {
            n: v + step[n] if n == LOG else geometry_of(model.geometry, n if nested else None).exp(v, step[n])
            for n, v in state.items()
        }

    masks = {n: None if n == LOG else (mask.get(n) if isinstance(mask, dict) else mask) for n in start}
    found = integrate(rate, start, move=move, mask=masks, rtol=rtol, atol=atol).state
    end_state = {k: v for k, v in found.items() if k != LOG} if nested else found["x"]
    return log_prior(model, end_state, mask) + found[LOG]


LOG = "log density"  # the field beside the state's own


def log_prior(model: FlowMap, x: State, mask: Mask) -> Tensor:
    """Log density at time 1 of b_1 eps: `[B]` float64. On the VE path it leaves the data's own variance out."""
    b = float(model.path.b(torch.ones(())))
    unscaled = model.each(lambda row, v: v if isinstance(row.geometry, Torus) else v / b, x)
    value: Tensor = model.geometry.log_prior(unscaled, mask).double()  # type: ignore[arg-type]
    return value - math.log(b) * free_coordinates(model, x, mask)


def free_coordinates(model: FlowMap, x: State, mask: Mask = None) -> Tensor:
    """Real coordinates of each sample less those a geometry holds, a torus's left out: `[B]` float64."""

    def one(row: Any, v: Tensor, m: Tensor | None) -> Tensor:
        if isinstance(row.geometry, Torus):
            return torch.zeros(len(v), dtype=torch.float64)
        held = v.shape[-1] if isinstance(row.geometry, Euclidean) and row.geometry.zero_com else 0
        return real_count(v, m).double() - held

    return torch.stack(leaves(model.each(one, x, mask))).sum(0)


@torch.no_grad()
def jump_log_density(
    model: FlowMap, noise: State, times: Any = (1.0, 0.0), *, condition: Any = None, mask: Mask = None
) -> tuple[State, Tensor]:
    """Samples from `noise`, and log p of each from the Jacobian of the jumps themselves: a state and `[B]`.

    log p(X(z)) = log p(z) - log |det dX / dz|: exact for the model as it stands, with as many derivatives a
    step as there are coordinates. No masks of different sizes, no centre of mass, no categories.
    """
    refuse_tuned(model, "jump_log_density")
    if any(isinstance(r.geometry, Simplex) or getattr(r.geometry, "zero_com", False) for r in model.rows.values()):
        raise UserError("jump_log_density: categories and centred clouds have no square Jacobian; use log_density")
    if mask is not None:
        raise UserError("jump_log_density: masks are not supported; use log_density")
    x, value = noise, log_prior(model, noise, mask)
    clocks = [float(t) for t in times]
    for s, t in pairwise(clocks):
        flat = flatten(x)

        def carried(y: Tensor, s: float = s, t: float = t, like: State = x) -> Tensor:
            return flatten(model(unflatten(y, like), s, t, condition, mask))

        columns = []
        for k in range(flat.shape[1]):
            direction = torch.zeros_like(flat)
            direction[:, k] = 1
            columns.append(torch.func.jvp(carried, (flat,), (direction,))[1])
        value = value - torch.linalg.slogdet(torch.stack(columns, -1).double())[1]
        x = unflatten(carried(flat), x)
    return x, value


def bits_per_dimension(log_p: Tensor, dimensions: int | Tensor, scale: float = 1.0) -> Tensor:
    """-log2 p / dimensions of data that were divided by `scale` before (255 / 2 for bytes on [-1, 1]): `[B]`."""
    return (-log_p / dimensions + math.log(scale)) / LOG_2
