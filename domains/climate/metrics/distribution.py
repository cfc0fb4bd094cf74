"""Whether values are distributed as the truth's: quantiles, wet days, Wasserstein distance, return levels."""

from __future__ import annotations

import math

import numpy as np

WET_DAY = 1.0  # mm/day, WMO's definition of a wet day


def weighted_quantile(values: np.ndarray, weights: np.ndarray, q: float) -> float:
    """The value below which a share `q` of the weight lies (pooled over all axes)."""
    w = np.broadcast_to(weights, values.shape)
    use = w > 0
    v, w = np.asarray(values)[use], w[use]
    order = np.argsort(v, kind="stable")
    mass = np.cumsum(w[order], dtype=np.float64)
    return float(v[order][np.searchsorted(mass, q * mass[-1])])


def wet_day_frequency(values: np.ndarray, weights: np.ndarray, threshold: float = WET_DAY) -> float:
    """Share of cells and times with more than `threshold` (mm/day)."""
    w = np.broadcast_to(weights, values.shape)
    return float(np.sum(w * (np.asarray(values) > threshold)) / np.sum(w))


def wasserstein_1(values: np.ndarray, observed: np.ndarray, weights: np.ndarray, points: int = 2000) -> float:
    """Area between the pooled quantile functions, in the field's unit, by the midpoint rule at `points` levels."""
    q = (np.arange(points) + 0.5) / points
    return float(np.mean(np.abs(_quantiles(values, weights, q) - _quantiles(observed, weights, q))))


def _quantiles(values: np.ndarray, weights: np.ndarray, q: np.ndarray) -> np.ndarray:
    w = np.broadcast_to(weights, values.shape)
    use = w > 0
    v, w = np.asarray(values, np.float64)[use], w[use]
    order = np.argsort(v, kind="stable")
    mass = np.cumsum(w[order], dtype=np.float64)
    return v[order][np.searchsorted(mass, q * mass[-1])]


def return_levels(maxima: np.ndarray, years: float) -> np.ndarray:
    """Level `[...]` exceeded once in `years` blocks, from block maxima `[N, ...]` (a year's, a month's).

    A generalised extreme value distribution fitted by L-moments (Hosking, Wallis and Wood 1985, eqs. 14-15).
    """
    x = np.sort(np.asarray(maxima, np.float64), axis=0)
    n = len(x)
    i = np.arange(1, n + 1).reshape(-1, *[1] * (x.ndim - 1))
    b0 = x.mean(0)
    b1 = ((i - 1) / (n - 1) * x).mean(0)
    b2 = ((i - 1) * (i - 2) / ((n - 1) * (n - 2)) * x).mean(0)
    l2, l3 = 2 * b1 - b0, 6 * b2 - 6 * b1 + b0
    safe = np.where(l2 > 0, l2, 1.0)
    c = 2.0 / (3.0 + l3 / safe) - math.log(2) / math.log(3)
    k = 7.8590 * c + 2.9554 * c**2
    k = np.where(np.abs(k) < 1e-6, 1e-6, k)
    gamma = np.vectorize(math.gamma)(np.clip(1 + k, 0.05, 20.0))
    scale = l2 * k / ((1 - 2.0**-k) * gamma)
    location = b0 - scale * (1 - gamma) / k
    level = location + scale / k * (1 - (-math.log(1 - 1 / years)) ** k)
    return np.where(l2 > 0, level, b0)
