"""How much a noisy state tells about the clean one: mutual information by I-MMSE, and a rate-distortion curve.

Guo, Shamai and Verdu 2005: dI / dsnr = mmse(snr) / 2 for y = sqrt(snr) x + eps, and every path is such a channel
at each time, snr = (a / b)^2. A denoiser is all that is needed; a model that is not optimal gives an upper bound
of mmse, so of the information between two times.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sciconsist.flowmap import FlowMap
from sciconsist.likelihood import refuse_tuned
from sciconsist.state import expand

Denoise = Callable[[Tensor, Tensor], Tensor]  # (y [B, ...] = sqrt(snr) x + eps, snr [B]) -> E[x | y]


@torch.no_grad()
def mmse(denoise: Denoise, x: Tensor, snr: Tensor, generator: torch.Generator, repeats: int = 1) -> Tensor:
    """Mean of |x - E[x|y]|^2, summed over coordinates, at each `snr` `[K]` over samples x `[B, ...]`: `[K]` float64.

    The noise is the same at every snr and comes in pairs of opposite signs, so that curves are smooth.
    """
    total = torch.zeros(len(snr), dtype=torch.float64)
    for _ in range(repeats):
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        for k, value in enumerate(snr.tolist()):
            level = torch.full((len(x),), value, dtype=x.dtype)
            for sign in (1, -1):
                y = value**0.5 * x + sign * noise
                total[k] += (denoise(y, level) - x).double().square().flatten(1).sum(1).mean() / (2 * repeats)
    return total


def denoiser_of(model: FlowMap, condition: Any = None, mask: Any = None) -> Denoise:
    """The model's diagonal as a denoiser of the unit-noise channel; the state is one Euclidean tensor.

    The path's time at which (a / b)^2 = snr is found by bisection. Refuses models tuned for few steps.
    """
    refuse_tuned(model, "denoiser_of")
    path = model.path

    def denoise(y: Tensor, snr: Tensor) -> Tensor:
        low, high = torch.full_like(snr, 1e-6), torch.ones_like(snr)
        for _ in range(60):
            middle = 0.5 * (low + high)
            clean = (path.a(middle) / path.b(middle)).square() > snr
            low, high = torch.where(clean, middle, low), torch.where(clean, high, middle)
        t = 0.5 * (low + high)
        a, b, da, db = (expand(f(t), y) for f in (path.a, path.b, path.da, path.db))
        x = b * y
        v = model.velocity(x, t, condition, mask)
        assert isinstance(v, Tensor)
        return (v - db / b * x) / (da - a * db / b)

    return denoise


def mutual_information(snr: Tensor, errors: Tensor) -> Tensor:
    """I(x; y) in nats at each `snr` `[K]`, rising, from mmse at them: `[K]`; the integral of mmse / 2 from snr[0].

    Trapezium rule in log snr (in snr itself below the first point, if that is 0): take some tens of points.
    """
    snr, errors = snr.double(), errors.double()
    if snr[0] == 0:
        rest = mutual_information(snr[1:], errors[1:])
        return torch.cat([snr.new_zeros(1), 0.25 * (errors[0] + errors[1]) * snr[1] + rest])
    steps = torch.diff(snr.log()) * 0.5 * (snr[1:] * errors[1:] + snr[:-1] * errors[:-1])
    return torch.cat([snr.new_zeros(1), 0.5 * torch.cumsum(steps, 0)])


def rate_distortion(snr: Tensor, errors: Tensor) -> tuple[Tensor, Tensor]:
    """(distortion, rate in nats) of sending y and denoising it, at each snr: a curve above R(D), for one Gaussian on it.

    Distortion is the mmse; the rate I(x; y) is what relative entropy coding of y costs (Theis et al. 2022).
    """
    return errors.double(), mutual_information(snr, errors)
