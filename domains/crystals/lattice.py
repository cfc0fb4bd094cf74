"""Cells: Niggli reduction, and the six numbers of a lattice that the model works on.

A cell is lower triangular, rows are vectors (Å): a = (l11, 0, 0), b = (l21, l22, 0), c = (l31, l32, l33), which is the
Cholesky factor of its Gram matrix, so it does not change when the crystal is turned. Its coordinates are

    (log V/N, log l11/V^(1/3), log l22/V^(1/3), l21/l11, l31/l11, l32/l22)

with volume V in Å^3 and N atoms; l33 follows from the volume. In a Niggli cell the last three lie in [-1/2, 1/2].
"""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np
import torch
from torch import Tensor


def niggli(lattice: np.ndarray, frac: np.ndarray, tolerance: float = 1e-3) -> tuple[np.ndarray, np.ndarray]:
    """A crystal in its Niggli-reduced cell: triangular lattice `[3, 3]` Å and fractional coordinates `[N, 3]`.

    The atoms keep their order and their positions in space up to a rotation. Raises ValueError when the cell is flat.
    """
    basis = niggli_basis(lattice, tolerance)
    moved = np.asarray(frac, dtype=np.float64) @ np.linalg.inv(basis)
    return triangular(basis @ np.asarray(lattice, dtype=np.float64)), moved - np.floor(moved)


def niggli_basis(lattice: np.ndarray, tolerance: float = 1e-3) -> np.ndarray:
    """The integer matrix M `[3, 3]` with M @ lattice Niggli-reduced and right-handed; frac = reduced frac @ M."""
    import spglib

    lattice = np.asarray(lattice, dtype=np.float64)
    if not np.isfinite(lattice).all() or abs(np.linalg.det(lattice)) < 1e-3:
        raise ValueError(f"a cell of volume {np.linalg.det(lattice):.2g} Å^3, expected at least 0.001")
    reduced = spglib.niggli_reduce(lattice, eps=tolerance)
    if reduced is None:
        reduced = lattice
    if np.linalg.det(reduced) < 0:  # the same lattice with right-handed vectors
        reduced = -reduced
    return np.round(reduced @ np.linalg.inv(lattice))


def triangular(lattice: np.ndarray) -> np.ndarray:
    """The rotated cell `[..., 3, 3]` with a along x and b in the xy plane; right-handed."""
    return np.linalg.cholesky(lattice @ np.swapaxes(lattice, -1, -2))


def to_vector(lattice: np.ndarray, count: int | np.ndarray) -> np.ndarray:
    """Six coordinates `[..., 6]` of triangular cells `[..., 3, 3]` with `count` atoms `[...]`."""
    first, second = lattice[..., 0, 0], lattice[..., 1, 1]
    volume = first * second * lattice[..., 2, 2]
    edge = volume ** (1 / 3)
    return np.stack(
        [
            np.log(volume / count), np.log(first / edge), np.log(second / edge),
            lattice[..., 1, 0] / first, lattice[..., 2, 0] / first, lattice[..., 2, 1] / second,
        ], -1,
    )  # fmt: skip


def from_vector(vector: Tensor, count: Tensor) -> Tensor:
    """Triangular cells `[B, 3, 3]` Å of coordinates `[B, 6]` and atom counts `[B]`; volumes within 1 to 10^4 Å^3/atom."""
    log_volume = vector[:, 0].clamp(0.0, 9.2) + count.to(vector.dtype).log()
    edge = (log_volume / 3).exp()
    first, second = vector[:, 1].clamp(-3, 3), vector[:, 2].clamp(-3, 3)
    l11, l22, l33 = edge * first.exp(), edge * second.exp(), edge * (-first - second).exp()
    zero = torch.zeros_like(l11)
    l21, l31, l32 = vector[:, 3] * l11, vector[:, 4] * l11, vector[:, 5] * l22
    return torch.stack([l11, zero, zero, l21, l22, zero, l31, l32, l33], -1).view(-1, 3, 3)


@cache
def unimodular() -> np.ndarray:
    """Every integer matrix with entries -1, 0, 1 and determinant 1 or -1: `[K, 3, 3]`, the identity first."""
    every = np.array(list(product((-1, 0, 1), repeat=9)), dtype=np.int8).reshape(-1, 3, 3)
    kept = every[np.abs(np.round(np.linalg.det(every.astype(np.float64)))) == 1]
    identity = (kept == np.eye(3, dtype=np.int8)).all((1, 2))
    return np.concatenate([kept[identity], kept[~identity]])


def automorphisms(lattice: np.ndarray, tolerance: float = 5e-3) -> np.ndarray:
    """Changes of basis `[K, 3, 3]` that carry a cell onto itself: rows of W L have the lengths and angles of L's.

    Fractional coordinates go with `frac @ inv(W)`. The identity comes first and -1, the inversion, is among them: the
    mirror image of a crystal is one as good. `tolerance` is relative to the squared longest edge.
    """
    gram = lattice @ lattice.T
    candidates = unimodular()
    floats = candidates.astype(np.float64)
    other = floats @ gram @ floats.transpose(0, 2, 1)
    scale = np.sqrt(np.outer(np.diag(gram), np.diag(gram)))
    return candidates[(np.abs(other - gram) <= tolerance * scale).all((1, 2))]
