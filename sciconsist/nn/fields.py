"""Fields `[B, C, H, W]` on a periodic grid: a small convolutional network that moves with its input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sciconsist.nn.embeddings import Sinusoidal


class Fields(nn.Module):
    """F(x, s, t, condition): residual 3 x 3 convolutions under scales and shifts of s and the gap s - t.

    A condition is fields of `conditions` channels on the same grid.
    """

    def __init__(self, channels: int = 1, width: int = 12, layers: int = 3, *, conditions: int = 0) -> None:
        super().__init__()
        self.embedding = Sinusoidal(16)
        self.start = convolution(channels + conditions, width)
        self.clocks = nn.ModuleList(nn.Linear(2 * self.embedding.width, 2 * width) for _ in range(layers))
        self.layers = nn.ModuleList(convolution(width, width) for _ in range(layers))
        self.out = convolution(width, channels)

    def forward(self, x: Tensor, s: Tensor, t: Tensor, condition: Tensor | None = None, mask: Any = None) -> Tensor:
        h = self.start(x if condition is None else torch.cat([x, condition.to(x.dtype)], 1))
        clock = torch.cat([self.embedding(s), self.embedding(s - t)], -1).to(h.dtype)
        for read, layer in zip(self.clocks, self.layers):
            scale, shift = read(clock)[..., None, None].chunk(2, 1)
            h = h + layer(nn.functional.silu(h * (1 + scale) + shift))
        out: Tensor = self.out(h)
        return out


def convolution(inputs: int, outputs: int) -> nn.Module:
    return nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="circular")
