"""Whether variables agree with each other: correlations, and bounds that physics sets."""

from __future__ import annotations

import numpy as np

from .ensemble import average

# (smaller, larger): a dew point above the temperature is more than saturated air
BOUNDS = (("d2m", "t2m"),)
LOWEST = {"tp": 0.0, "t2m": 150.0, "d2m": 100.0, "sp": 2e4, "msl": 8e4}  # canonical units


def correlation(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> float:
    """Weighted Pearson correlation of two variables, pooled over cells, times and members."""
    a = first - average(first, weights)
    b = second - average(second, weights)
    norm = np.sqrt(average(a**2, weights) * average(b**2, weights))
    return average(a * b, weights) / norm if norm > 0 else float("nan")


def bound_violations(values: dict[str, np.ndarray], weights: np.ndarray) -> dict[str, float]:
    """Share of cells that break each bound the variables have between and for themselves."""
    found = {}
    for low, high in BOUNDS:
        if low in values and high in values:
            found[f"{low} > {high}"] = average((values[low] > values[high] + 1e-4).astype(np.float64), weights)
    for name, limit in LOWEST.items():
        if name in values:
            found[f"{name} < {limit:g}"] = average((values[name] < limit).astype(np.float64), weights)
    return found
