"""As many steps as a sample needs: dopri5 with an error norm and a step of its own, and jumps that settle.

No sample waits for, or is slowed by, the others of its batch, so that the batch does not change a result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sciconsist.errors import UserError
from sciconsist.flowmap import FlowMap
from sciconsist.sampling import jump
from sciconsist.schedules import uniform
from sciconsist.solvers import gap, is_singular
from sciconsist.state import Mask, State, Times, apply_mask, batch_size, expand, leaves, map_fields
from sciconsist.targets import take

# Dormand and Prince 1980, table 2: nodes, stages, fifth-order weights (the last stage), error weights
NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
CLOSE = 1e-3  # where the closing step of a field with a singular velocity begins

Field = Callable[[Any, Tensor], Any]  # (state, tau [B]) -> its rate, a state
Move = Callable[[Any, Any], Any]  # (state, displacement) -> state


@dataclass(frozen=True)
class Solution:
    """The end of a solve, and for every sample `[B]` the steps it took and those it had to repeat."""

    state: Any
    steps: Tensor
    rejected: Tensor


def integrate(
    rate: Field,
    x: Any,
    *,
    move: Move | None = None,
    mask: Any = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_steps: int = 1000,
) -> Solution:
    """Implements the Dormand-Prince 5(4) pair from tau = 0 to 1, with an error and a step for every sample.

    The error of a sample is the root mean square over its own real entries of error / (atol + rtol |x|); it is
    at most 1 in an accepted step. Raises UserError after `max_steps` tries.
    """
    step_of = move if move is not None else (lambda a, b: map_fields(torch.add, a, b))
    size, like = batch_size(x), leaves(x)[0]
    tau = torch.zeros(size, dtype=torch.float64, device=like.device)
    steps, rejected = torch.zeros_like(tau, dtype=torch.long), torch.zeros_like(tau, dtype=torch.long)
    k = [rate(x, tau)]
    h = _first_step(x, k[0], mask, rtol, atol)
    for _ in range(max_steps):
        h = torch.minimum(h, 1 - tau)
        for row, node in zip(STAGES, NODES[1:]):
            y = step_of(x, _combine(row, k, h))
            k.append(rate(y, tau + node * h))
        error = _norm(_combine(ERROR, k, h), x, y, mask, rtol, atol)
        live = h > 0
        accepted = live & (error <= 1)
        x = map_fields(lambda a, b, go=accepted: torch.where(expand(go, a), b, a), x, y)
        k = [map_fields(lambda a, b, go=accepted: torch.where(expand(go, a), b, a), k[0], k[-1])]
        tau = torch.where(accepted, tau + h, tau)
        steps, rejected = steps + accepted, rejected + (live & ~accepted)
        tau = torch.where(1 - tau < 1e-12, torch.ones_like(tau), tau)
        if bool((tau >= 1).all()):
            return Solution(x, steps, rejected)
        factor = (0.9 * error.clamp_min(1e-10) ** -0.2).clamp(0.2, 5.0)
        h = torch.where(torch.isfinite(error), h * factor, 0.2 * h)
        h = torch.where(tau < 1, h, torch.zeros_like(h))
    raise UserError(
        f"dopri5: {int((tau < 1).sum())} of {size} samples not done after {max_steps} steps; loosen rtol and atol"
    )


def _combine(weights: tuple[float, ...], k: list[Any], h: Tensor) -> Any:
    """h sum_i w_i k_i."""
    used = [(w, part) for w, part in zip(weights, k) if w]

    def one(*parts: Tensor) -> Tensor:
        total = sum(w * p for (w, _), p in zip(used, parts))
        return expand(h, parts[0]).to(parts[0].dtype) * torch.as_tensor(total)

    return map_fields(one, *(part for _, part in used))


def _norm(error: Any, x: Any, y: Any, mask: Any, rtol: float, atol: float) -> Tensor:
    """Root mean square of error / tolerance over a sample's real entries: `[B]` float64."""

    def one(e: Tensor, a: Tensor, b: Tensor, m: Tensor | None) -> tuple[Tensor, Tensor]:
        ratio = e / (atol + rtol * torch.maximum(a.abs(), b.abs()))
        real = apply_mask(torch.ones_like(e), m)
        size = len(e)  # a field may be one number a sample
        return ratio.square().mul(real).reshape(size, -1).sum(1).double(), real.reshape(size, -1).sum(1).double()

    parts = map_fields(one, error, x, y, mask)
    pairs = list(parts.values()) if isinstance(parts, dict) else [parts]
    total, count = torch.stack([p[0] for p in pairs]).sum(0), torch.stack([p[1] for p in pairs]).sum(0)
    return (total / count.clamp_min(1)).sqrt()


def _first_step(x: Any, k: Any, mask: Any, rtol: float, atol: float) -> Tensor:
    """A hundredth of |x| / |x'| (Hairer, Norsett and Wanner, II.4), in the error's norm: `[B]`."""
    size, speed = _norm(x, x, x, mask, rtol, atol), _norm(k, x, x, mask, rtol, atol)
    return (0.01 * size / speed.clamp_min(1e-12)).clamp(1e-4, 0.1)


@torch.no_grad()
def dopri5(
    model: FlowMap,
    x: State,
    s: Times = 1.0,
    t: Times = 0.0,
    *,
    condition: Any = None,
    mask: Mask = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_steps: int = 1000,
) -> Solution:
    """The probability-flow ODE from time s to t, numbers or one a sample or a field, in either direction.

    A field whose two times are equal is held. Fields whose velocity is singular at 0 (endpoint rows, the VP
    path) leave or arrive there by one step of the endpoint's algebra, from or to 10^-3: an error of second order.
    """
    begin, end = model.times(x, s), model.times(x, t)
    singular = [is_singular(row) for row in model.rows.values()]
    for s_, t_, wild in zip(leaves(begin), leaves(end), singular):
        if wild and bool(((s_ == 0) & (t_ > 0)).any()):
            raise UserError("dopri5: the velocity is singular at 0; start from a small time, or take velocity rows")

    def short(row: Any, x_: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return torch.where((b == 0) & (a > CLOSE), CLOSE, b) if is_singular(row) else b

    goal = model.each(short, x, begin, end)
    span = gap(begin, goal)

    def rate(y: State, tau: Tensor) -> State:
        now = map_fields(lambda a, g: a + tau.to(a.dtype) * g, begin, span)
        v = model.velocity(y, now, condition, mask)
        return map_fields(lambda v_, g: expand(g, v_).to(v_.dtype) * v_, v, span)

    found = integrate(
        rate, x, move=model.geometry.exp, mask=_solver_mask(model, x, mask), rtol=rtol, atol=atol, max_steps=max_steps
    )
    y = found.state
    if any(not torch.equal(a, b) for a, b in zip(leaves(goal), leaves(end))):
        closed = model.apply_f(y, model.f(y, goal, goal, condition, mask), goal, end, mask)
        y = map_fields(lambda o, n, a, b: torch.where(expand(a == b, o), o, n), y, closed, goal, end)
    held = map_fields(lambda a, b, o, n: torch.where(expand(a == b, o), o, n), begin, end, x, y)
    return Solution(held, found.steps, found.rejected)


def _solver_mask(model: FlowMap, x: State, mask: Mask) -> Any:
    return mask if mask is None or isinstance(mask, dict) or not isinstance(x, dict) else dict.fromkeys(x, mask)


@torch.no_grad()
def settle(
    model: FlowMap,
    x: State,
    tolerance: float,
    *,
    condition: Any = None,
    mask: Mask = None,
    max_steps: int = 32,
) -> Solution:
    """From 1 to 0 in 1, 2, 4, ... jumps until halving all of them moves a sample by less than `tolerance`.

    That move, the root mean square over real coordinates, is the semigroup's own error: an exact map settles
    at two jumps. Samples that have settled leave the batch. `steps` is the number of jumps of the answer; a
    sample that `max_steps` jumps have not settled keeps that many (compare `steps` with it).
    """
    size = batch_size(x)
    steps = torch.ones(size, dtype=torch.long)
    coarse = jump(model, x, uniform(1), condition=condition, mask=mask)
    count = _coordinates(x, mask)
    left, answer = torch.arange(size), map_fields(torch.clone, coarse)
    n = 1
    while len(left) and 2 * n <= max_steps:
        n *= 2
        part = [take(v, left, size) for v in (x, condition, mask)]
        fine = jump(model, part[0], uniform(n), condition=part[1], mask=part[2])
        apart = model.geometry.sq_norm(model.geometry.log(take(answer, left, size), fine), part[2])  # type: ignore[arg-type]
        answer = map_fields(lambda a, f, i=left: a.index_copy(0, i, f), answer, fine)
        steps[left] = n
        left = left[(apart / count[left]).sqrt() >= tolerance]
    return Solution(answer, steps, torch.zeros_like(steps))


def _coordinates(x: State, mask: Mask) -> Tensor:
    ones = map_fields(lambda v, m: apply_mask(torch.ones_like(v), m).flatten(1).sum(1), x, mask)
    return torch.stack(leaves(ones)).sum(0).clamp_min(1)
