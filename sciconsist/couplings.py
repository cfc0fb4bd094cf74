"""Couplings: which noise a datum is paired with. Straighter pairs, easier maps; marginals stay what they
were.

All are pure functions on tensors, and only permute, rotate or mirror draws from a prior that is invariant to
it.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def minibatch_ot(x0: Tensor, noise: Tensor, condition: Tensor | None = None, weight: float = 1e6) -> Tensor:
    """Order of the noise with the least squared distance to the data `[B, ...]` (Tong et al. 2024): `[B]`.

    Pairing across conditions lets the noise tell the condition, which it must not at sampling. With `condition`
    (labels `[B]` or numbers `[B, c]`) the cost has weight |c_i - c_j|^2 added, j's own condition travelling with
    its noise (Cheng and Schwing 2025): the default weight pairs within a label only; a smaller one trades.
    """
    cost = torch.cdist(x0.flatten(1).double(), noise.flatten(1).double()).square()
    if condition is not None:
        c = condition.reshape(len(condition), -1).double()
        cost = cost + weight * torch.cdist(c, c).square()
    return torch.from_numpy(linear_sum_assignment(cost.cpu().numpy())[1]).to(x0.device)


def kabsch(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Orthogonal matrices R `[B, 3, 3]` (reflections allowed) that minimise |x - y R| for point sets `[B, N,
    3]`.

    Unreal points must be zero in both. Degenerate clouds (lines, points) get one of the equal minimisers.
    """
    u, _, vt = np.linalg.svd(np.einsum("bni,bnj->bij", y, x))
    return u @ vt


def align_points(
    x0: Tensor,
    noise: Tensor,
    mask: Tensor,
    extra_cost: Tensor | None = None,
    permute: bool | Tensor = True,
    rounds: int = 2,
) -> tuple[Tensor, Tensor]:
    """Hungarian + Kabsch pairing of point clouds `[B, N, 3]` (Klein et al. 2023; Song et al. 2023, EquiFM).

    Returns the permuted and rotated noise and the permutation `[B, N]` (noise node for each data node).
    `extra_cost` `[B, N, N]` (data node, noise node) joins the squared distance; `permute` may be a flag per
    sample.
    """
    x, y = x0.double().numpy(), noise.double().numpy()
    real = mask.numpy()
    extra = None if extra_cost is None else extra_cost.double().numpy()
    flags = np.broadcast_to(np.asarray(permute), (len(x),))
    order = np.tile(np.arange(x.shape[1]), (len(x), 1))
    turned = y
    for round_ in range(rounds):
        if round_ == 0:
            # start from the principal axes of both clouds, so that the first assignment means something
            turned = y @ (principal_axes(y) @ principal_axes(x).transpose(0, 2, 1))
        for k in np.flatnonzero(flags):
            n = int(real[k].sum())
            cost = -2.0 * x[k, :n] @ turned[k, :n].T
            if extra is not None:
                cost = cost + extra[k, :n, :n]
            order[k, :n] = linear_sum_assignment(cost)[1]
        permuted = np.take_along_axis(y, order[..., None], 1)
        rotation = kabsch(x, permuted)
        turned = y @ rotation
    aligned = np.take_along_axis(turned, order[..., None], 1)
    return torch.from_numpy(aligned).to(x0.dtype), torch.from_numpy(order)


def principal_axes(x: np.ndarray) -> np.ndarray:
    """Eigenvectors of the second moment of each cloud, `[B, 3, 3]`, columns by rising eigenvalue."""
    return np.linalg.eigh(np.einsum("bni,bnj->bij", x, x))[1]
