"""Scores that a network is tuned on: the fair CRPS of fields, of their means and of their differences."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def fair_crps(ensemble: Tensor, truth: Tensor) -> Tensor:
    """E|X - y| - sum |x_i - x_j| / (2 M (M - 1)) of members `[M, ...]`, pointwise: the shape of `truth`.

    Its expectation does not depend on M (Ferro 2014). The pair sum is taken over sorted members.
    """
    M = len(ensemble)
    ranked = ensemble.sort(0).values
    weight = 2.0 * torch.arange(M, dtype=ensemble.dtype, device=ensemble.device) - M + 1
    pairs = (ranked * weight.view(-1, *[1] * truth.dim())).sum(0)
    return (ensemble - truth).abs().mean(0) - pairs / (M * (M - 1))


def field_score(ensemble: Tensor, truth: Tensor, area: Tensor, pooled: float, sharp: float) -> Tensor:
    """Area-weighted fair CRPS `[B, C]` of fields `[M, B, C, H, W]`.

    `pooled` is the weight of the same for means over 2 x 2 and 4 x 4 cells that straddle the coarse ones (their own
    means are given), `sharp` that for differences of neighbours. The field alone has the right spread at every cell
    for any correlation between cells: these two tell a smooth member from a rough one.
    """
    total = weighted(fair_crps(ensemble, truth), area)
    M, B, C = ensemble.shape[:3]
    stacked = torch.cat([ensemble.flatten(0, 2), truth.flatten(0, 1)])[:, None]  # [(M + 1) B C, 1, H, W]

    def parts(x: Tensor) -> tuple[Tensor, Tensor]:
        x = x[:, 0]
        return x[: M * B * C].reshape(M, B, C, *x.shape[-2:]), x[M * B * C :].reshape(B, C, *x.shape[-2:])

    if pooled:
        for size in (2, 4):
            mean = functional.avg_pool2d(stacked, size, stride=max(1, size // 2), padding=0)
            weight = functional.avg_pool2d(area, size, stride=max(1, size // 2), padding=0)
            total = total + 0.5 * pooled * weighted(fair_crps(*parts(mean)), weight)
    if sharp:
        south, east = stacked[..., 1:, :] - stacked[..., :-1, :], stacked[..., 1:] - stacked[..., :-1]
        both = torch.minimum(area[..., 1:, :], area[..., :-1, :]), torch.minimum(area[..., 1:], area[..., :-1])
        for difference, weight in zip((south, east), both):
            total = total + 0.5 * sharp * weighted(fair_crps(*parts(difference)), weight)
    return total


def weighted(score: Tensor, area: Tensor) -> Tensor:
    """Area mean of `[B, C, H, W]`: `[B, C]`."""
    return (score * area).sum((-2, -1)) / area.sum((-2, -1)).clamp_min(1e-9)
