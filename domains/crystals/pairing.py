"""Pairing noise with a crystal: like atoms exchanged, origins moved together and the cell's own symmetry used.

Shorter and fewer crossing paths, an easier map; the prior does not change, as uniform noise is invariant to all three
(minibatch OT within a crystal; Klein et al. 2023 for molecules, here on the torus).
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

NEVER = 1e6  # cost of giving an atom another element's noise


def wrapped(x: np.ndarray) -> np.ndarray:
    """Shortest displacement on the unit torus, in [-1/2, 1/2)."""
    return x - np.floor(x + 0.5)


def centre(frac: np.ndarray, noise: np.ndarray, rounds: int = 4) -> np.ndarray:
    """Noise moved as a whole so that its mean displacement from `frac` `[N, 3]` is zero."""
    for _ in range(rounds):
        noise = noise - wrapped(noise - frac).mean(0)
    return noise - np.floor(noise)


def pair(
    frac: np.ndarray, noise: np.ndarray, extra: np.ndarray, bases: np.ndarray, free: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The best of several equivalent descriptions of a crystal for given noise.

    `frac`, `noise` `[N, 3]`; `extra` `[N, N]` is the cost of data atom i with noise atom j in units of the squared
    displacement; `bases` `[A, 3, 3]` are inverse changes of basis (`frac @ basis`). `free`: the origin may move too.
    Returns the chosen coordinates, the noise in the data's order, and that order `[N]`.
    """
    best: tuple[float, np.ndarray, np.ndarray, np.ndarray] | None = None
    for basis in bases:
        x, y = frac @ basis, noise
        x = x - np.floor(x)
        if free:  # bring the two circular means together, so that the first assignment means something
            y = y + circular_mean(x) - circular_mean(y)
        for _ in range(2 if free else 1):
            cost = np.square(wrapped(y[None] - x[:, None])).sum(-1) + extra
            order = linear_sum_assignment(cost)[1]
            chosen = y[order]
            if free:
                shift = wrapped(chosen - x).mean(0)
                y, chosen = y - shift, chosen - shift
        total = float(np.square(wrapped(chosen - x)).sum() + extra[np.arange(len(x)), order].sum())
        if best is None or total < best[0]:
            best = total, x, chosen, order
    assert best is not None
    _, x, y, order = best
    return x, centre(x, y) if free else y - np.floor(y), order


def circular_mean(x: np.ndarray) -> np.ndarray:
    """Mean direction of points on the unit torus, `[N, 3] -> [3]`."""
    return np.angle(np.exp(2j * np.pi * x).mean(0)) / (2 * np.pi)
