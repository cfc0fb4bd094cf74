"""Guidance: by the condition, by a weaker model, by a reward or a measurement of what will come out.

The first two act on the network's output, in which the map is affine, so one wrapper serves jumps, the ODE
and streams; categories mix their logits, so p = p_c^w p_u^(1-w) up to a constant. Off the diagonal a guided
jump is an approximation that more steps make good. The third steers a sampler step by step.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from sciconsist.errors import UserError
from sciconsist.flowmap import FlowMap
from sciconsist.geometry import Torus
from sciconsist.losses import part_of
from sciconsist.parametrisations import Parametrisation
from sciconsist.schedules import TimesLike, grid
from sciconsist.solvers import hold
from sciconsist.state import Mask, State, Times, apply_mask, expand, map_fields

Reward = Callable[[Any, Times], Tensor]  # (state at time 0, the time it was foreseen from) -> [B]
SAME = object()  # the condition is the strong model's


class Guided(nn.Module):
    """strong + (weight - 1)(strong - weak) where s lies in `interval`, the strong network elsewhere."""

    def __init__(
        self, net: nn.Module, weak: nn.Module, weight: float, null: Any, interval: tuple[float, float]
    ) -> None:
        super().__init__()
        self.net, self.weak, self.weight, self.null, self.interval = net, weak, weight, null, interval

    def forward(self, x: State, s: Times, t: Times, condition: Any = None, mask: Mask = None) -> State:
        strong = _call(self.net, x, s, t, condition, mask)
        weak = _call(self.weak, x, s, t, condition if self.null is SAME else self.null, mask)
        low, high = self.interval

        def mix(a: Tensor, b: Tensor, s_: Tensor) -> Tensor:
            extra = torch.where((s_ >= low) & (s_ <= high), self.weight - 1.0, 0.0)
            return a + expand(extra, a).to(a.dtype) * (a - b)

        return map_fields(mix, strong, weak, s)


def _call(net: nn.Module, x: State, s: Times, t: Times, condition: Any, mask: Mask) -> Any:
    """As FlowMap does: a network of times alone is fine where there is nothing else."""
    return net(x, s, t) if condition is None and mask is None else net(x, s, t, condition, mask)


def classifier_free(
    model: FlowMap, weight: float, *, null: Any = None, interval: tuple[float, float] = (0.0, 1.0)
) -> FlowMap:
    """The model pushed from its unconditional answer (condition `null`) by `weight`; 1 is the model itself.

    Ho and Salimans 2022; `interval` of times s as in Kynkaanniemi et al. 2024. Two evaluations a step.
    """
    return _with(model, Guided(model.net, model.net, weight, null, interval))


def autoguided(model: FlowMap, weak: FlowMap, weight: float, *, interval: tuple[float, float] = (0.0, 1.0)) -> FlowMap:
    """The model pushed from a smaller or less trained one under the same condition (Karras et al. 2024b).

    Weight 1, or a weak model that is the model, changes nothing.
    """
    if weak.rows != model.rows:
        raise ValueError("autoguided: the weak model's path and parametrisation must be the model's")
    return _with(model, Guided(model.net, weak.net, weight, SAME, interval))


def _with(model: FlowMap, net: nn.Module) -> FlowMap:
    twin = copy.copy(model)
    twin._modules = {**model._modules, "net": net}
    return twin


def steer(
    model: FlowMap,
    x: State,
    times: TimesLike,
    reward: Reward,
    strength: float = 1.0,
    *,
    look: str = "map",
    condition: Any = None,
    mask: Mask = None,
) -> State:
    """Jumps toward the data distribution tilted by exp(strength * reward), with the flow map's look-ahead.

    Each jump from s to t is shifted by what Cov[x0 | x_s] grad reward does to the endpoint, with Cov = b^2 / a
    dD/dx, the denoiser's Jacobian: exact, in the limit of small steps, for rewards that are linear in x0. With
    `look` "map" the reward sees X_{s,0}(x), a sharp sample; with "mean" the denoiser D, as `measurement` wants
    it. On a torus Cov is taken as s^2 / 12, the variance of a window of width s. Two evaluations and their
    gradients a step; `reward` must be differentiable.
    """
    if look not in ("map", "mean"):
        raise UserError(f"look {look!r}: expected map or mean")
    for s, t in pairwise(grid(x, times)):
        with torch.enable_grad():
            near = map_fields(lambda v: v.clamp(max=0.98), s)  # at 1 there is no dependence on x left to divide by
            start = map_fields(lambda v: v.detach().requires_grad_(), x)
            d = model.each(_denoiser, start, model.f(start, near, near, condition, mask), near, mask)
            ahead = d if look == "mean" else _foresee(model, x, s, condition, mask)
            seen = map_fields(lambda v: v.detach().requires_grad_(), ahead)
            gradient = _gradients(reward(seen, s).sum(), seen)
            product = sum((a * b).sum() for a, b in zip(_leaves(d), _leaves(gradient)))
            pulled = _gradients(product, start)
        with torch.no_grad():
            y = model(x, s, t, condition, mask)
            y = model.each(_shift, y, pulled, gradient, s, near, t, strength, mask)
            x = hold(x, y, s, t)
    return x


@torch.no_grad()
def _foresee(model: FlowMap, x: State, s: Times, condition: Any, mask: Mask) -> State:
    return model(x, s, map_fields(torch.zeros_like, s), condition, mask)


def _leaves(state: State) -> list[Tensor]:
    return list(state.values()) if isinstance(state, dict) else [state]


def _gradients(value: Any, state: State) -> State:
    found = torch.autograd.grad(value, _leaves(state), allow_unused=True, materialize_grads=True)
    return dict(zip(state, found)) if isinstance(state, dict) else found[0]


def _denoiser(row: Parametrisation, x: Tensor, f: Tensor, t: Tensor, mask: Tensor | None) -> Tensor:
    if isinstance(row.geometry, Torus):  # where the path began, if it went straight
        return row.geometry.exp(x, -expand(t, x).to(x.dtype) * row.velocity(x, f, t, mask))
    d = row.velocity(x, f, t, mask)
    a, b, da, db = row.path.a(t), row.path.b(t), row.path.da(t), row.path.db(t)
    gain, rest = expand(1 / (da - a * db / b), x).to(x.dtype), expand(db / b, x).to(x.dtype)
    return gain * (d - rest * x)


def _shift(
    row: Parametrisation, y: Tensor, pulled: Tensor, gradient: Tensor, s: Tensor, near: Tensor, t: Tensor,
    strength: float, mask: Tensor | None,
) -> Tensor:  # fmt: skip
    """y + B(s,t) strength Cov grad, with B the endpoint form's."""
    if isinstance(row.geometry, Torus):
        size = strength * (1 - t / s.clamp_min(1e-12)) * s.square() / 12
        return row.geometry.exp(y, row.geometry.tangent(y, expand(size, y).to(y.dtype) * gradient, mask))
    path = row.path
    move = path.a(t) - path.a(s) * path.b(t) / path.b(s).clamp_min(1e-12)
    size = strength * move * path.b(near).square() / path.a(near)
    return y + row.geometry.tangent(y, apply_mask(expand(size, y).to(y.dtype) * pulled, mask), mask)


def measurement(
    operator: Callable[[Any], Tensor], observed: Tensor, noise: float, model: FlowMap, field: str | None = None
) -> Reward:
    """log p(observed | x0) for `steer(..., look="mean")`: observed `[B, m]` = operator(x0) + noise eps.

    The variance has the posterior's own added, b^2 sd^2 / (a^2 sd^2 + b^2), as in PiGDM (Song et al. 2023b,
    eq. 8): exact for operators with orthonormal rows and isotropic Gaussian data of standard deviation sd. The
    times are those of `field`.
    """
    row = model.rows[field]

    def reward(x0: Any, s: Times) -> Tensor:
        clock: Any = part_of(s, field)
        a2, b2, sd2 = row.path.a(clock).square(), row.path.b(clock).square(), row.data_std**2
        variance = noise**2 + b2 * sd2 / (a2 * sd2 + b2)
        return -0.5 * (operator(x0) - observed).square().flatten(1).sum(1) / variance

    return reward
