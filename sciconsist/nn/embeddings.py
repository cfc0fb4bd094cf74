"""Embeddings of times in [0, 1]: `[B] -> [B, width]`, smooth enough to be differentiated along a path.

Sinusoidal  fixed sines and cosines; the highest frequency is low, because JVP recipes multiply by it
Learned     a table over equal times, read by linear interpolation
Continuous  a small network of the time itself
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Sinusoidal(nn.Module):
    """cos and sin of pi f t, f from 1 to `top` in equal ratios."""

    frequencies: Tensor

    def __init__(self, width: int, top: float = 8.0) -> None:
        super().__init__()
        if width % 2:
            raise ValueError(f"width {width}: expected an even number, a sine and a cosine each")
        self.width = width
        self.register_buffer("frequencies", math.pi * top ** torch.linspace(0, 1, width // 2), persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        angle = t[:, None] * self.frequencies.to(t.dtype)
        return torch.cat([angle.cos(), angle.sin()], -1)


class Learned(nn.Module):
    """`points` vectors at equal times from 0 to 1; between them the straight line."""

    def __init__(self, width: int, points: int = 33) -> None:
        super().__init__()
        self.width, self.points = width, points
        self.table = nn.Parameter(torch.empty(points, width))
        with torch.no_grad():  # begins as a smooth curve, not as independent draws
            self.table.copy_(Sinusoidal(width + width % 2)(torch.linspace(0, 1, points))[:, :width])

    def forward(self, t: Tensor) -> Tensor:
        position = t.clamp(0, 1) * (self.points - 1)
        left = position.detach().floor().clamp(max=self.points - 2)
        share = (position - left)[:, None]
        index = left.long()
        table = self.table.to(t.dtype)
        return (1 - share) * table[index] + share * table[index + 1]


class Continuous(nn.Module):
    """Two layers of the time, which find their own scale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(nn.Linear(1, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        out: Tensor = self.layers(t[:, None].to(next(self.parameters()).dtype))
        return out
