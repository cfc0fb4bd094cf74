"""Distances between samples, in float64: exact, sliced and Sinkhorn W2, Bures; the energy of a transport.

Samples are states `[n, ...]`, tensors or dicts. The ground distance is their geometry's: a straight line, the
short way round a torus, the sum over the fields of a product. Nothing here draws without a generator.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from sciconsist import exact
from sciconsist.errors import UserError
from sciconsist.flowmap import FlowMap
from sciconsist.geometry import Euclidean, Geometry, Product
from sciconsist.schedules import TimesLike, grid
from sciconsist.state import Mask, State, batch_size, expand, leaves, map_fields


def squared_distances(x: State, y: State, geometry: Geometry | Product | None = None) -> Tensor:
    """Squared ground distances of all pairs: `[n, m]` float64. Unreal entries must be zero in both."""
    geometry = geometry if geometry is not None else Euclidean()
    x, y = (map_fields(lambda v: v.detach().cpu().double(), z) for z in (x, y))
    if isinstance(geometry, Euclidean):
        assert isinstance(x, Tensor) and isinstance(y, Tensor)
        return torch.cdist(x.flatten(1), y.flatten(1), compute_mode="donot_use_mm_for_euclid_dist").square()
    flat = Product({n: _free(g) for n, g in geometry.fields.items()}) if isinstance(geometry, Product) else geometry
    rows = []
    for k in range(batch_size(x)):
        one = map_fields(lambda a, b, k=k: a[k : k + 1].expand_as(b), x, y)
        rows.append(flat.sq_norm(flat.log(one, y)))  # type: ignore[arg-type]
    return torch.stack(rows)


def _free(geometry: Geometry) -> Geometry:
    """Of pairs of samples the differences are taken as they are."""
    return Euclidean() if isinstance(geometry, Euclidean) else geometry


def wasserstein2(x: State, y: State, geometry: Geometry | Product | None = None) -> float:
    """W2 between two samples of the same size, by the optimal assignment (n = 1000 takes a tenth of a second).

    It has a floor: two samples of one distribution are not at zero. Report theirs beside it.
    """
    n, m = batch_size(x), batch_size(y)
    if n != m or n == 0:
        raise UserError(f"wasserstein2: {n} and {m} samples; expected as many in both")
    cost = squared_distances(x, y, geometry).numpy()
    if not math.isfinite(cost.sum()):
        return math.inf
    rows, columns = linear_sum_assignment(cost)
    return math.sqrt(float(cost[rows, columns].mean()))


def wasserstein2_1d(x: Tensor, y: Tensor) -> Tensor:
    """W2 between samples on a line, `[n, ...]` and `[m, ...]` along the first dimension, of any sizes: `[...]`."""
    x, y = x.double().sort(0).values, y.double().sort(0).values
    steps = torch.cat([torch.arange(1, k + 1, dtype=torch.float64) / k for k in (len(x), len(y))]).unique()
    middle = steps - 0.5 * torch.diff(steps, prepend=steps.new_zeros(1))
    a, b = (z[(middle * len(z)).long().clamp(max=len(z) - 1)] for z in (x, y))
    weight = expand(torch.diff(steps, prepend=steps.new_zeros(1)), a)
    return ((a - b).square() * weight).sum(0).sqrt()


def sliced_wasserstein2(x: Tensor, y: Tensor, generator: torch.Generator, projections: int = 256) -> float:
    """Root mean of squared W2 over random directions (Bonneel et al. 2015); samples of any sizes.

    For N(0, I) against N(m, I) it is |m| / sqrt(d).
    """
    x, y = x.double().flatten(1), y.double().flatten(1)
    direction = torch.randn(x.shape[1], projections, generator=generator, dtype=torch.float64)
    direction = direction / direction.norm(dim=0)
    return wasserstein2_1d(x @ direction, y @ direction).square().mean().sqrt().item()


def sinkhorn_plan(cost: Tensor, reg: float, iterations: int = 2000, tolerance: float = 1e-9) -> Tensor:
    """The plan `[n, m]` that minimises <P, cost> + reg KL(P | uniform), marginals uniform (Cuturi 2013).

    Iterations in the log domain, so that a small `reg` is slow but right; they end when the row sums are right
    to `tolerance`.
    """
    cost = cost.double()
    n, m = cost.shape
    kernel = -cost / reg
    v = cost.new_zeros(m)
    for k in range(iterations):
        u = -torch.logsumexp(kernel + v, 1) - math.log(n)
        v = -torch.logsumexp(kernel + u[:, None], 0) - math.log(m)
        if k % 10 == 9 and float((torch.logsumexp(kernel + u[:, None] + v, 1).exp() * n - 1).abs().max()) < tolerance:
            break
    return (kernel + u[:, None] + v).exp()


def sinkhorn_w2(x: State, y: State, reg: float, geometry: Geometry | Product | None = None) -> float:
    """Square root of the Sinkhorn divergence (Feydy et al. 2019): entropic W2^2 without its bias at x = y."""

    def entropic(a: State, b: State) -> float:
        cost = squared_distances(a, b, geometry)
        plan = sinkhorn_plan(cost, reg)
        relative = (plan * (plan * plan.numel()).clamp_min(1e-300).log()).sum()
        return float((plan * cost).sum() + reg * relative)

    square = entropic(x, y) - 0.5 * (entropic(x, x) + entropic(y, y))
    return math.sqrt(max(0.0, square))


def bures(x: Tensor, y: Tensor) -> float:
    """W2 between the Gaussians with the samples' means and covariances: a lower bound of W2 (Gelbrich 1990)."""
    x, y = x.double().flatten(1), y.double().flatten(1)
    return exact.bures_wasserstein(x.mean(0), _covariance(x), y.mean(0), _covariance(y)).item()


def _covariance(x: Tensor) -> Tensor:
    centred = x - x.mean(0)
    return centred.T @ centred / len(x)


@torch.no_grad()
def transport_energy(
    model: FlowMap, x: State, times: TimesLike, *, condition: Any = None, mask: Mask = None
) -> tuple[float, float]:
    """(mean action, mean squared displacement) of the model's ODE from the first to the last of `times`.

    The action |t - s| integral |v|^2 is never below the squared displacement; both are W2^2 for the optimal
    map (Benamou and Brenier 2000), so their gap is what straightness there is to win. Heun's steps, and the
    trapezium rule in between: take some tens of times. One clock for all fields.
    """
    from sciconsist.solvers import heun

    def speed(y: State, t: Any) -> Tensor:
        return model.geometry.sq_norm(model.velocity(y, t, condition, mask), mask)  # type: ignore[arg-type]

    clocks = grid(x, times)
    action = torch.zeros(batch_size(x), dtype=torch.float64)
    path: Any = map_fields(torch.zeros_like, x)
    y = x
    for s, t in pairwise(clocks):
        moved = heun(model, y, s, t, condition, mask)
        gap = (leaves(t)[0] - leaves(s)[0]).abs().double()
        action += gap * 0.5 * (speed(y, s) + speed(moved, t)).double()
        step = model.geometry.log(y, moved)  # type: ignore[arg-type]
        path = map_fields(torch.add, path, step)
        y = moved
    total = (leaves(clocks[-1])[0] - leaves(clocks[0])[0]).abs().double()
    displacement = model.geometry.sq_norm(path, mask)  # type: ignore[arg-type]
    return (action * total).mean().item(), displacement.double().mean().item()
