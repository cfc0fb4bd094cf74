"""Positions at the distances that a graph fixes: bonds, angles and flat torsions.

Few evaluations leave positions right but for tenths of an Å. What a graph says of its distances needs no coordinates
(`distance_network`): positions move to where the distances are likeliest beside what the generating network said of each atom
(a maximum a posteriori estimate with Gaussian priors, by Gauss-Newton; restraints as in crystallographic refinement,
Hendrickson 1985).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from sciconsist.domains.molecules.compiled import compiled
from sciconsist.domains.molecules.distance_network import KINDS, DistanceNetwork, near_pairs
from sciconsist.domains.molecules.graphs import HeavyGraph, PaddedGraphs, pad_graphs

SHARPEST = np.array([0.003, 0.006, 0.006])  # Å: the least standard deviation, by the number of bonds between
FLAT = 0.06  # Å: the ends of three bonds that spread more are free to turn
SEEN = 0.002  # quantile of the data's distances: atoms whose distance is free come no nearer
CLASH = 0.05  # Å: standard deviation of what is nearer
LINE = 0.997  # of two bonds: ends that are as far apart as this lie on a line, and the atom between them
BEND = 0.04  # Å: standard deviation of that atom's distance from the line
ITERATIONS, STRIDE, ENOUGH = 8, 0.3, 1e-3  # of Gauss-Newton; Å an atom may move in one, and by which the last moved it

Nearest = tuple[float, float]  # Å between free atoms three bonds apart, and farther


class Restraint(NamedTuple):
    """What `settle` asks of a graph: of all pairs `[N, N]` the `mean` distance, its `weight` 1 / variance (0: free), and how
    near they may come (`least`); `lines` `[L, 3]` of atoms, the middle one first, and what part of the way from the second to
    the third it lies, `shares` `[L]`."""

    mean: np.ndarray
    weight: np.ndarray
    least: np.ndarray
    lines: np.ndarray
    shares: np.ndarray


def nearest(graphs: PaddedGraphs) -> Nearest:
    """How near atoms three bonds apart come in graphs with positions, and those farther apart."""
    pairs = near_pairs(graphs.orders > 0)
    between = torch.cdist(graphs.positions, graphs.positions)
    far = (graphs.mask[:, :, None] & graphs.mask[:, None]).triu(1)
    far[pairs.graph, pairs.first, pairs.second] = False
    turning = between[pairs.graph, pairs.first, pairs.second][pairs.apart == 3]
    three, more = (
        round(float(np.quantile(found.numpy(), SEEN)), 3) if len(found) else 0.0 for found in (turning, between[far])
    )
    return three, more


@torch.no_grad()
def restraints(
    graphs: Sequence[HeavyGraph], network: DistanceNetwork, least: Nearest | None
) -> list[Restraint]:  # fmt: skip
    """What `settle` asks of each graph. Nothing where `least` (`nearest` of the training data) is None: the network was not
    fitted."""
    if least is None:
        return []
    padded = pad_graphs([replace(graph, positions=None) for graph in graphs])
    bonds = padded.bonds(KINDS)
    pairs = near_pairs(bonds > 0)
    mean, scale = (found.double().numpy() for found in network(padded.classes, bonds, pairs))
    place, apart = tuple(k.numpy() for k in (pairs.graph, pairs.first, pairs.second)), pairs.apart.numpy()
    std = np.maximum(np.exp(scale), SHARPEST[apart - 1])
    fixed = (apart < 3) | (std <= FLAT)
    asked = np.zeros((3, *bonds.shape))
    asked[2] = least[1] * ~np.eye(bonds.shape[1], dtype=bool)
    for values, found in zip(asked, (mean * fixed, fixed * std**-2.0, least[0] * ~fixed)):
        values[place] = values[place[0], place[2], place[1]] = found
    own = [np.ascontiguousarray(asked[:, k, : len(graph), : len(graph)]) for k, graph in enumerate(graphs)]
    return [Restraint(a[0], a[1], a[2], *_lines(a[0], graph.orders)) for a, graph in zip(own, graphs)]


@compiled
def _lines(mean: np.ndarray, orders: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Atoms between two others on a line, as the mean distances say; a distance between the ends hardly feels a bend."""
    n = len(mean)
    lines, shares, many = np.empty((n, 3), np.int64), np.empty(n), 0
    for i in range(n):
        near, one, other = 0, 0, 0
        for j in range(n):
            if orders[i, j] > 0:
                near, one, other = near + 1, j, one
        if near == 2 and orders[one, other] == 0 and mean[one, other] > LINE * (mean[i, one] + mean[i, other]):
            lines[many, 0], lines[many, 1], lines[many, 2] = i, one, other
            shares[many] = mean[i, one] / (mean[i, one] + mean[i, other])
            many += 1
    return lines[:many], shares[:many]


def settle(
    asked: Sequence[Restraint], positions: Sequence[np.ndarray], trust: float, fixed: int = 0
) -> list[np.ndarray]:  # fmt: skip
    """Positions `[N, 3]` Å at the likeliest distances of each one's `restraints`.

    `trust`, Å, is the standard deviation that the given coordinates are taken to have (0, or nothing asked: they stay).
    The first `fixed` atoms stay where they are. A molecule's result does not depend on those beside it.
    """
    out: list[np.ndarray] = [np.ascontiguousarray(x, dtype=np.float64) for x in positions]
    if not asked or not trust:
        return out
    return [_settled(x, *own, trust, fixed) for x, own in zip(out, asked, strict=True)]


@compiled
def _settled(
    start: np.ndarray, mean: np.ndarray, weight: np.ndarray, least: np.ndarray, lines: np.ndarray, shares: np.ndarray,
    trust: float, fixed: int,
) -> np.ndarray:  # fmt: skip
    """Gauss-Newton on sum w (d - mean)^2 + |x - start|^2 / trust^2 + bends^2 / `BEND`^2, `[N, 3]`, until it hardly moves."""
    n = len(start)
    x = start.copy()
    matrix, step = np.empty((3 * n, 3 * n)), np.empty(3 * n)
    for _ in range(ITERATIONS):
        _linearise(x, start, mean, weight, least, trust**-2.0, matrix, step)
        _straighten(x, lines, shares, matrix, step)
        _solve(matrix, step, 3 * fixed)
        longest = 0.0
        for i in range(n):
            longest = max(longest, math.sqrt(step[3 * i] ** 2 + step[3 * i + 1] ** 2 + step[3 * i + 2] ** 2))
        times = min(1.0, STRIDE / max(longest, 1e-12))
        for i in range(n):
            for k in range(3):
                x[i, k] -= times * step[3 * i + k]
        if longest <= ENOUGH:
            break
    return x


@compiled
def _linearise(
    x: np.ndarray, start: np.ndarray, mean: np.ndarray, weight: np.ndarray, least: np.ndarray, prior: float,
    matrix: np.ndarray, slope: np.ndarray,
) -> None:  # fmt: skip
    """The normal equations of half that sum at `x`: the lower half of `matrix` `[3 N, 3 N]`, and `slope` `[3 N]`."""
    n = len(x)
    for a in range(3 * n):
        slope[a] = prior * (x[a // 3, a % 3] - start[a // 3, a % 3])
        for b in range(a):
            matrix[a, b] = 0.0
        matrix[a, a] = prior
    for i in range(n):
        for j in range(i):
            d = math.sqrt((x[i, 0] - x[j, 0]) ** 2 + (x[i, 1] - x[j, 1]) ** 2 + (x[i, 2] - x[j, 2]) ** 2 + 1e-12)
            close = d < least[i, j]
            w = CLASH**-2.0 if close else weight[i, j]
            if w == 0.0:
                continue
            off = w * (d - (least[i, j] if close else mean[i, j]))
            for k in range(3):
                along = (x[i, k] - x[j, k]) / d
                slope[3 * i + k] += off * along
                slope[3 * j + k] -= off * along
                for m in range(3):
                    both = w * along * (x[i, m] - x[j, m]) / d
                    matrix[3 * i + k, 3 * j + m] -= both
                    if m <= k:
                        matrix[3 * i + k, 3 * i + m] += both
                        matrix[3 * j + k, 3 * j + m] += both


@compiled
def _straighten(
    x: np.ndarray, lines: np.ndarray, shares: np.ndarray, matrix: np.ndarray, slope: np.ndarray
) -> None:  # fmt: skip
    """Add the atoms that lie on a line, each with where it is between its neighbours."""
    weight, parts = BEND**-2.0, np.empty(3)
    for line in range(len(lines)):
        parts[0], parts[1], parts[2] = 1.0, shares[line] - 1.0, -shares[line]
        for k in range(3):
            off = 0.0
            for a in range(3):
                off += parts[a] * x[lines[line, a], k]
            for a in range(3):
                i = lines[line, a]
                slope[3 * i + k] += weight * parts[a] * off
                for b in range(3):
                    j = lines[line, b]
                    if j <= i:
                        matrix[3 * i + k, 3 * j + k] += weight * parts[a] * parts[b]


@compiled
def _solve(matrix: np.ndarray, right: np.ndarray, first: int) -> None:
    """Solve from row `first` on by Cholesky's factors, in the lower half of `matrix`; `right` becomes the solution."""
    for a in range(len(right)):
        if a < first:
            right[a] = 0.0
            continue
        for b in range(first, a + 1):
            total = matrix[a, b]
            for c in range(first, b):
                total -= matrix[a, c] * matrix[b, c]
            matrix[a, b] = math.sqrt(total) if a == b else total / matrix[b, b]
        for b in range(first, a):
            right[a] -= matrix[a, b] * right[b]
        right[a] /= matrix[a, a]
    for a in range(len(right) - 1, first - 1, -1):
        for b in range(a + 1, len(right)):
            right[a] -= matrix[b, a] * right[b]
        right[a] /= matrix[a, a]
