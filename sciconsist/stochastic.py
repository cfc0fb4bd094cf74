"""Samplers that add noise on the way: ancestral steps and churn. They forget errors that an ODE carries along."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from sciconsist.errors import UserError
from sciconsist.flowmap import FlowMap
from sciconsist.geometry import Torus
from sciconsist.parametrisations import Parametrisation
from sciconsist.random import Generators, draw_prior
from sciconsist.sampling import diffuse
from sciconsist.schedules import TimesLike, grid
from sciconsist.solvers import denoised, endpoint_step, hold, ode
from sciconsist.state import Mask, State, apply_mask, expand, leaves, map_fields


@torch.no_grad()
def ancestral(
    model: FlowMap,
    x: State,
    times: TimesLike,
    generator: Generators,
    *,
    eta: float | Mapping[str, float] = 1.0,
    condition: Any = None,
    mask: Mask = None,
) -> State:
    """Steps of the diffusion's own posterior, K evaluations: DDPM at eta = 1, DDIM at 0 (Song et al. 2021a, eq. 12).

    x_t = a_t D + b_t sqrt(1 - q^2) (x_s - a_s D) / b_s + b_t q eps with q^2 = eta^2 (1 - (r b_t / b_s)^2),
    r = a_s / a_t. On a torus the posterior given x0 is known by ends only: eta is 0 (Euler) or 1 (to 0, and
    out again on a fresh geodesic).
    """
    for value in eta.values() if isinstance(eta, Mapping) else [eta]:
        if not 0 <= value <= 1:
            raise UserError(f"eta = {value}: expected a number from 0 (DDIM) to 1 (DDPM)")
    for s, t in pairwise(grid(x, times)):
        if any(bool((end > begin).any()) for begin, end in zip(leaves(s), leaves(t))):
            raise UserError("ancestral: the times must fall, from 1 (noise) to 0 (data)")
        v = model.velocity(x, s, condition, mask)
        d = model.each(denoised, x, v, s)
        noise = draw_prior(model.geometry, x, mask, generator=generator)
        x = hold(x, model.each(_posterior_step, x, d, noise, s, t, eta, mask), s, t)
    return x


def _posterior_step(
    row: Parametrisation, x: Tensor, d: Tensor, noise: Tensor, s: Tensor, t: Tensor, eta: float, mask: Tensor | None
) -> Tensor:
    if isinstance(row.geometry, Torus):
        if eta not in (0, 1):
            raise UserError(f"eta = {eta}: a Torus field knows 0 (no noise) and 1 (noise anew from time 0) only")
        if eta == 0:
            return endpoint_step(row, x, d, s, t, mask)
        return diffuse(row, endpoint_step(row, x, d, s, torch.zeros_like(s), mask), noise, 0 * t, t, 1.0, mask)
    a_s, b_s, a_t, b_t = row.path.a(s), row.path.b(s), row.path.a(t), row.path.b(t)
    ratio = a_s / a_t * b_t / b_s.clamp_min(1e-12)
    q = eta * (1 - ratio.square()).clamp_min(0).sqrt()
    keep = b_t * (1 - q.square()).clamp_min(0).sqrt() / b_s.clamp_min(1e-12)
    a_t_, a_s_, keep_, fresh = (expand(v, x).to(x.dtype) for v in (a_t, a_s, keep, b_t * q))
    return apply_mask(a_t_ * d + keep_ * (x - a_s_ * d) + fresh * noise, mask)


@torch.no_grad()
def churn(
    model: FlowMap,
    x: State,
    times: TimesLike,
    generator: Generators,
    *,
    amount: float = 0.1,
    between: tuple[float, float] = (0.0, 1.0),
    method: str = "heun",
    condition: Any = None,
    mask: Mask = None,
) -> State:
    """Implements Algorithm 2 of Karras et al. 2022 on any path: noise up a little, then a solver's step down.

    Before each step that begins within `between`, the state goes up along the path from s to
    min(1, (1 + amount) s): their gamma_i in units of time. The last step, to 0, is as it is in `ode`. A torus
    cannot be noised up from where it is, so its fields follow the ODE.
    """
    if amount < 0:
        raise UserError(f"amount = {amount}: expected 0 (no churn) or more")
    for s, t in pairwise(grid(x, times)):
        up = model.each(lambda row, x_, a, b: _raised(row, a, b, amount, between), x, s, t)
        noise = draw_prior(model.geometry, x, mask, generator=generator)
        x = model.each(_noise_up, x, noise, s, up, mask)
        pair = map_fields(lambda a, b: torch.stack([a, b]), up, t)
        x = ode(model, x, pair, method, condition=condition, mask=mask)
    return x


def _raised(row: Parametrisation, s: Tensor, t: Tensor, amount: float, between: tuple[float, float]) -> Tensor:
    if isinstance(row.geometry, Torus):
        return s
    inside = (s != t) & (s >= between[0]) & (s <= between[1])
    return torch.where(inside, ((1 + amount) * s).clamp(max=1.0), s)


def _noise_up(row: Parametrisation, x: Tensor, noise: Tensor, s: Tensor, up: Tensor, mask: Tensor | None) -> Tensor:
    moved = diffuse(row, x, noise, s, up, 0.0 if isinstance(row.geometry, Torus) else 1.0, mask)
    return torch.where(expand(s == up, x), x, moved)
