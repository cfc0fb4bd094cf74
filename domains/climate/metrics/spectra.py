"""Power at each scale: radial spectra, their log distance, and how much of the fine detail is there."""

from __future__ import annotations

import numpy as np


def radial_spectrum(fields: np.ndarray, mask: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Wavenumbers `[K]` in cycles a pixel and mean power `[K]` of fields `[..., H, W]`, averaged over the rest.

    Each field has its mean over the mask taken off and masked cells set to zero, so that two sets of fields of one
    mask compare. Power is summed in rings of width 1/max(H, W), without the mean itself.
    """
    height, width = fields.shape[-2:]
    flat = fields.reshape(-1, height, width)
    valid = np.ones((height, width), bool) if mask is None else mask
    window = np.hanning(height + 2)[1:-1, None] * np.hanning(width + 2)[None, 1:-1]
    ring = ring_numbers(height, width)
    total = np.zeros(ring.max() + 1)
    for one in flat:
        anomaly = np.where(valid, one, 0.0).astype(np.float64)
        anomaly -= np.where(valid, anomaly.sum() / max(valid.sum(), 1), 0.0)
        power = np.abs(np.fft.fft2(anomaly * window)) ** 2
        total += np.bincount(ring.ravel(), weights=power.ravel(), minlength=len(total))
    k = np.arange(len(total)) / max(height, width)
    return k[1:], total[1:] / len(flat)


def ring_numbers(height: int, width: int) -> np.ndarray:
    """The ring `[H, W]` of every Fourier coefficient: its wavenumber in units of 1/max(H, W), rounded."""
    k = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])
    return np.rint(k * max(height, width)).astype(np.int64)


def log_spectral_distance(power: np.ndarray, reference: np.ndarray) -> float:
    """Root mean square over wavenumbers of 10 log10 of the ratio of two spectra, in dB; 0 is perfect."""
    tiny = 1e-12 * reference.max()
    ratio = 10.0 * np.log10((power + tiny) / (reference + tiny))
    return float(np.sqrt(np.mean(ratio**2)))


def high_frequency_ratio(k: np.ndarray, power: np.ndarray, reference: np.ndarray, factor: float) -> float:
    """Power above 1 / (2 factor) cycles a pixel, which the coarse field cannot hold, over the reference's."""
    high = k > 1.0 / (2.0 * factor)
    return float(power[high].sum() / reference[high].sum())
