"""Whether fields move in time as the truth does: lag-1 autocorrelation and temporal spectrum."""

from __future__ import annotations

import numpy as np

from .ensemble import average


def lag1_autocorrelation(fields: np.ndarray, weights: np.ndarray) -> float:
    """Correlation of a cell with itself one step later, over time, area mean. Fields `[..., T, H, W]`.

    NaN with fewer than three times. Cells that never change count as fully correlated.
    """
    if fields.shape[-3] < 3:
        return float("nan")
    anomaly = fields - fields.mean(-3, keepdims=True, dtype=np.float64)
    variance = (anomaly**2).sum(-3)
    product = (anomaly[..., 1:, :, :] * anomaly[..., :-1, :, :]).sum(-3)
    still = variance == 0
    return average(np.where(still, 1.0, product / np.where(still, 1.0, variance)), weights)


def temporal_spectrum(fields: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies `[F]` in cycles a step and area-mean power `[F]` of fields `[..., T, H, W]`, without the mean."""
    steps = fields.shape[-3]
    anomaly = np.nan_to_num(fields - fields.mean(-3, keepdims=True, dtype=np.float64))
    power = np.abs(np.fft.rfft(anomaly, axis=-3)) ** 2 / steps
    power = np.moveaxis(power, -3, 0)
    return np.fft.rfftfreq(steps)[1:], np.array([average(p, weights) for p in power[1:]])
