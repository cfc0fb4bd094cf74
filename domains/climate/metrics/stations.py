"""Verification at stations: what a gridded ensemble says where somebody measured."""

from __future__ import annotations

from typing import Any

import numpy as np

from .ensemble import fair_crps, spread_skill


def verify(ensemble: np.ndarray, observed: np.ndarray) -> dict[str, Any]:
    """Scores of an ensemble `[M, T, P]` at P stations against observations `[T, P]`, NaN where none was made.

    Every observation counts the same: stations have no area. `by_station` has the mean error and CRPS of each.
    """
    made = np.isfinite(observed) & np.isfinite(ensemble).all(0)
    if not made.any():
        return {"observations": 0}
    y, x = np.where(made, observed, 0.0), np.where(made, ensemble, 0.0)
    weights = made.astype(np.float64)
    error, score = (x.mean(0) - y) * made, fair_crps(x, y) * made
    count = np.maximum(made.sum(0), 1)
    return {
        "observations": int(made.sum()),
        "bias": float(error.sum() / made.sum()),
        "rmse": float(np.sqrt((error**2).sum() / made.sum())),
        "crps": float(score.sum() / made.sum()),
        "spread_skill": spread_skill(x, y, weights),
        "by_station": {"bias": (error.sum(0) / count).tolist(), "crps": (score.sum(0) / count).tolist()},
    }
