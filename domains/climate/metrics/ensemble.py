"""Scores of an ensemble: fair CRPS, RMSE of its mean, spread-skill ratio, rank histogram.

Ensembles are `[M, ...]`, observations and weights `[...]` or what broadcasts to it; everything in float64.
"""

from __future__ import annotations

import numpy as np


def average(values: np.ndarray, weights: np.ndarray) -> float:
    """Weighted mean over all axes; weights (cosine of latitude, 0 where masked) broadcast to the values."""
    w = np.broadcast_to(weights, values.shape)
    return float(np.sum(values * w, where=w > 0, dtype=np.float64) / np.sum(w, dtype=np.float64))


def fair_crps(ensemble: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """E|X - y| - sum_ij |x_i - x_j| / (2 M (M - 1)) at every place, `[...]`, in the field's unit.

    Unbiased in M: it is what an infinite ensemble of the same distribution would score (Ferro 2014, eq. 8). The
    double sum is taken from the sorted members. One member has no spread: its score is the absolute error.
    """
    members = np.sort(np.asarray(ensemble, np.float64), axis=0)
    count = len(members)
    error = np.abs(members - observed).mean(0)
    if count == 1:
        return error
    order = 2.0 * np.arange(1, count + 1) - count - 1
    return error - np.tensordot(order, members, 1) / (count * (count - 1))


def rmse(ensemble: np.ndarray, observed: np.ndarray, weights: np.ndarray) -> float:
    """Root mean square error of the ensemble's mean; the root after the mean over time and area."""
    error = np.asarray(ensemble).mean(0, dtype=np.float64) - observed
    return float(np.sqrt(average(error**2, weights)))


def spread_skill(ensemble: np.ndarray, observed: np.ndarray, weights: np.ndarray) -> float:
    """sqrt((M + 1) / M x mean variance) over the RMSE of the mean: 1 when calibrated (Fortin et al. 2014, eq. 15).

    NaN for one member, which has no variance.
    """
    count = len(ensemble)
    if count < 2:
        return float("nan")
    variance = np.asarray(ensemble).var(0, ddof=1, dtype=np.float64)
    error = rmse(ensemble, observed, weights)
    spread = np.sqrt((count + 1) / count * average(variance, weights))
    return float(spread / error) if error > 0 else float("nan")


def rank_histogram(
    ensemble: np.ndarray, observed: np.ndarray, weights: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Shares `[M + 1]` of the observation's rank among the members; flat when calibrated (Hamill 2001).

    Equal values, as of dry days, get a random rank among them, drawn from `generator`.
    """
    below = (ensemble < observed).sum(0)
    equal = (ensemble == observed).sum(0)
    rank = below + np.floor(generator.random(below.shape) * (equal + 1)).astype(np.int64)
    w = np.broadcast_to(weights, rank.shape)
    counts = np.bincount(rank[w > 0], weights=w[w > 0], minlength=len(ensemble) + 1)
    return counts / counts.sum()


def reliability_index(histogram: np.ndarray) -> float:
    """Sum of |share - 1/(M + 1)|: 0 when flat, at most 2 (Delle Monache et al. 2006)."""
    return float(np.abs(histogram - 1.0 / len(histogram)).sum())


def reliability_curve(
    ensemble: np.ndarray, observed: np.ndarray, threshold: float, weights: np.ndarray, bins: int = 10
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Forecast probability of exceeding a threshold, how often it was exceeded, and the share of cases, by bin.

    Bins without a case are NaN.
    """
    probability = (ensemble > threshold).mean(0)
    happened = np.asarray(observed) > threshold
    w = np.broadcast_to(weights, probability.shape)
    place = np.minimum((probability * bins).astype(np.int64), bins - 1)
    use = w > 0
    total = np.bincount(place[use], weights=w[use], minlength=bins)
    with np.errstate(invalid="ignore", divide="ignore"):
        forecast = np.bincount(place[use], weights=(w * probability)[use], minlength=bins) / total
        frequency = np.bincount(place[use], weights=(w * happened)[use], minlength=bins) / total
    return forecast, frequency, total / total.sum()
