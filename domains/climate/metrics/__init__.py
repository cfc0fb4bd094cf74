"""Every score of a downscaled ensemble against the truth, by variable; all of them weighted with area."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .distribution import WET_DAY, return_levels, wasserstein_1, weighted_quantile, wet_day_frequency
from .ensemble import average, fair_crps, rank_histogram, reliability_curve, reliability_index, rmse, spread_skill
from .joint import bound_violations, correlation
from .spectra import high_frequency_ratio, log_spectral_distance, radial_spectrum
from .temporal import lag1_autocorrelation, temporal_spectrum

RETURN_YEARS = 20.0  # blocks
FEWEST_TIMES = 8  # for a spectrum over time


def evaluate(
    samples: np.ndarray,
    truth: np.ndarray,
    names: Sequence[str],
    weights: np.ndarray,
    *,
    factor: float,
    seed: int = 0,
    years: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Scores of samples `[M, T, C, H, W]` against the truth `[T, C, H, W]` in canonical units.

    `weights` `[H, W]`: cosine of latitude, 0 where a cell is masked. `factor` sets what high frequency means.
    `years` `[T]` numbers the blocks whose maxima give return levels. Ties of ranks are broken from `seed`.
    """
    found: dict[str, Any] = {"members": len(samples), "times": len(truth), "cells": int((weights > 0).sum())}
    valid = weights > 0
    fill = {n: np.where(valid, samples[:, :, c], 0.0) for c, n in enumerate(names)}
    real = {n: np.where(valid, truth[:, c], 0.0) for c, n in enumerate(names)}
    for name in names:
        found[name] = one_variable(fill[name], real[name], weights, name, factor, seed, years)
    found["joint"] = {
        "correlations": {
            f"{a} {b}": [correlation(fill[a], fill[b], weights), correlation(real[a], real[b], weights)]
            for k, a in enumerate(names)
            for b in list(names)[k + 1 :]
        },
        "bound_violations": bound_violations(fill, weights),
    }
    return found


def one_variable(
    x: np.ndarray, y: np.ndarray, w: np.ndarray, name: str, factor: float, seed: int, years: Sequence[int] | None
) -> dict[str, Any]:
    """Scores of one variable: `x` `[M, T, H, W]`, `y` `[T, H, W]`, weights `[H, W]`."""
    k, power, power_true = mean_spectra(x, y, w)
    ranks = rank_histogram(x, y, w, np.random.default_rng([seed, len(x)]))
    high = [weighted_quantile(v, w, q) for q in (0.99, 0.999) for v in (x, y)]
    found: dict[str, Any] = {
        "rmse": rmse(x, y, w),
        "crps": crps(x, y, w),
        "spread_skill": spread_skill(x, y, w),
        "rank_histogram": ranks.tolist(),
        "reliability_index": reliability_index(ranks),
        "log_spectral_distance": log_spectral_distance(power, power_true),
        "high_frequency": high_frequency_ratio(k, power, power_true, factor),
        "q99": high[0], "q99_error": high[0] - high[1],
        "q99.9": high[2], "q99.9_error": high[2] - high[3],
        "wasserstein": wasserstein_1(x, y, w),
        "lag1": lag1_autocorrelation(x, w), "lag1_truth": lag1_autocorrelation(y, w),
        "bias": average(x.mean(0) - y, w),
    }  # fmt: skip
    if len(y) >= FEWEST_TIMES:
        found["temporal_spectral_distance"] = log_spectral_distance(
            temporal_spectrum(x, w)[1], temporal_spectrum(y, w)[1]
        )
    if name == "tp":
        wet, wet_true = wet_day_frequency(x, w), wet_day_frequency(y, w)
        found |= {"wet_frequency": wet, "wet_frequency_error": wet - wet_true}
        found["reliability"] = [part.tolist() for part in reliability_curve(x, y, WET_DAY, w)]
    else:
        middle = weighted_quantile(y, w, 0.5)
        found["reliability"] = [part.tolist() for part in reliability_curve(x, y, middle, w)]
    if years is not None and len(set(years)) >= 5:
        level = return_levels(block_maxima(y, years), RETURN_YEARS)
        mine = np.mean([return_levels(block_maxima(m, years), RETURN_YEARS) for m in x], 0)
        found["return_level"], found["return_level_error"] = average(mine, w), average(np.abs(mine - level), w)
    return found


def crps(x: np.ndarray, y: np.ndarray, w: np.ndarray) -> float:
    """Area-mean fair CRPS of `[M, T, H, W]`, one time after the other: it sorts, and needs the memory."""
    return float(np.mean([average(fair_crps(x[:, t], y[t]), w) for t in range(len(y))]))


def mean_spectra(x: np.ndarray, y: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Wavenumbers, and mean power of single members `[M, T, H, W]` and of the truth `[T, H, W]`."""
    k, power_true = radial_spectrum(y, w > 0)
    return k, radial_spectrum(x, w > 0)[1], power_true


def block_maxima(fields: np.ndarray, blocks: Sequence[int]) -> np.ndarray:
    """Largest value of each block of times: `[T, H, W]` to `[N, H, W]`."""
    numbers = np.asarray(blocks)
    return np.stack([fields[numbers == b].max(0) for b in np.unique(numbers)])
