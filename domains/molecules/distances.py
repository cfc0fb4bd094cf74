"""Positions at the distances that a graph fixes: bonds, angles and flat torsions.

Few evaluations leave positions right but for tenths of an Å. What a graph says of its distances needs no coordinates
(`distance_network`): positions move to where the distances are likeliest beside what the generating network said of each atom
(a maximum a posteriori estimate with Gaussian priors, by Gauss-Newton; restraints as in crystallographic refinement,
Hendrickson 1985).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from sciconsist.domains.molecules.distance_network import KINDS, DistanceNetwork, near_pairs
from sciconsist.domains.molecules.graphs import HeavyGraph, PaddedGraphs, pad_graphs

SHARPEST = np.array([0.003, 0.015, 0.015])  # Å: the least standard deviation, by the number of bonds between
FLAT = 0.06  # Å: the ends of three bonds that spread more are free to turn
SEEN = 0.002  # quantile of the data's distances: atoms whose distance is free come no nearer
CLASH = 0.05  # Å: standard deviation of what is nearer
ITERATIONS, STRIDE, ENOUGH = 8, 0.3, 1e-3  # of Gauss-Newton; Å an atom may move in one, and by which the last moved it

Restraint = tuple[np.ndarray, np.ndarray, np.ndarray]  # of all pairs [N, N]: mean, weight, least
Nearest = tuple[float, float]  # Å between free atoms three bonds apart, and farther


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
    """What `settle` asks of each graph, of all pairs `[N, N]`: the mean distance, its weight 1 / variance (0: free), and how
    near they may come. Nothing where `least` (`nearest` of the training data) is None: the network was not fitted."""
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
    return [(asked[0, k, :n, :n], asked[1, k, :n, :n], asked[2, k, :n, :n]) for k, n in enumerate(map(len, graphs))]


def settle(
    asked: Sequence[Restraint], positions: Sequence[np.ndarray], trust: float, fixed: int = 0
) -> list[np.ndarray]:  # fmt: skip
    """Positions `[N, 3]` Å at the likeliest distances of each one's `restraints`.

    `trust`, Å, is the standard deviation that the given coordinates are taken to have (0, or nothing asked: they stay).
    The first `fixed` atoms stay where they are. A molecule's result does not depend on those beside it.
    """
    out: list[np.ndarray] = [np.asarray(x, dtype=np.float64) for x in positions]
    if not asked or not trust:
        return out
    by_size: defaultdict[int, list[int]] = defaultdict(list)
    for k, x in enumerate(out):
        by_size[len(x)].append(k)
    for members in by_size.values():
        mean, weight, least = (np.stack(p) for p in zip(*(asked[k] for k in members)))
        for k, x in zip(members, _settled(np.stack([out[k] for k in members]), mean, weight, least, trust, fixed)):
            out[k] = x
    return out


def _settled(
    start: np.ndarray, mean: np.ndarray, weight: np.ndarray, least: np.ndarray, trust: float, fixed: int
) -> np.ndarray:  # fmt: skip
    """Gauss-Newton on sum w (d - mean)^2 + |x - start|^2 / trust^2, `[B, N, 3]`, each until it hardly moves."""
    x, left = start.copy(), np.arange(len(start))
    for _ in range(ITERATIONS):
        step = _step(x[left], start[left], mean[left], weight[left], least[left], trust, fixed)
        longest = np.sqrt(np.square(step).sum(-1)).max(1)
        x[left] += step * np.minimum(1.0, STRIDE / np.maximum(longest, 1e-12))[:, None, None]
        left = left[longest > ENOUGH]
        if not len(left):
            break
    return x


def _step(
    x: np.ndarray, start: np.ndarray, mean: np.ndarray, weight: np.ndarray, least: np.ndarray, trust: float, fixed: int
) -> np.ndarray:  # fmt: skip
    B, N, _ = x.shape
    prior = np.full(N, trust**-2.0)
    held = np.repeat(np.arange(N) < fixed, 3)
    diagonal = np.arange(N)
    r = x[:, :, None] - x[:, None]
    d = np.sqrt(np.square(r).sum(-1) + 1e-12)
    close = d < least
    w = np.where(close, CLASH**-2.0, weight)
    off = w * (d - np.where(close, least, mean))
    unit = r / d[..., None]
    slope = (off[..., None] * unit).sum(2) + prior[:, None] * (x - start)
    blocks = -w[..., None, None] * unit[..., :, None] * unit[..., None, :]  # B N N 3 3
    blocks[:, diagonal, diagonal] = -blocks.sum(2) + prior[:, None, None] * np.eye(3)
    matrix = blocks.transpose(0, 1, 3, 2, 4).reshape(B, 3 * N, 3 * N)
    right = -slope.reshape(B, 3 * N, 1)
    matrix[:, held], matrix[:, :, held], right[:, held] = 0.0, 0.0, 0.0
    matrix[:, held, held] = 1.0
    return np.linalg.solve(matrix, right).reshape(B, N, 3)
