"""Point clouds `[B, N, 3]`: a small network that turns, mirrors, shifts and permutes with its input.

Satorras et al. 2021 (EGNN), eq. 3-6, on dense pairs with a mask of real points.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sciconsist.nn.embeddings import Sinusoidal
from sciconsist.state import expand


class Points(nn.Module):
    """F(x, s, t, condition, mask): vectors `[B, N, 3]` from positions alone."""

    def __init__(self, width: int = 32, layers: int = 3) -> None:
        super().__init__()
        self.embedding = Sinusoidal(16)
        self.start = nn.Linear(2 * self.embedding.width + 1, width)
        self.message = nn.ModuleList(mlp(2 * width + 1, width, width) for _ in range(layers))
        self.move = nn.ModuleList(mlp(width, width, 1) for _ in range(layers))
        self.update = nn.ModuleList(mlp(2 * width, width, width) for _ in range(layers))

    def forward(self, x: Tensor, s: Tensor, t: Tensor, condition: Any = None, mask: Tensor | None = None) -> Tensor:
        real = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask
        node = real[..., None].to(x.dtype)
        apart = ~torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
        pair = (real[:, :, None] & real[:, None] & apart)[..., None].to(x.dtype)
        count = node.sum(1, keepdim=True)
        clock = torch.cat([self.embedding(s), self.embedding(s - t)], -1).to(x.dtype)
        size = count.expand(-1, x.shape[1], -1) / 8
        h = self.start(torch.cat([clock[:, None].expand(-1, x.shape[1], -1), size], -1))
        y = x
        for message, move, update in zip(self.message, self.move, self.update):
            d = y[:, :, None] - y[:, None]
            square = d.square().sum(-1, keepdim=True)
            both = [v.expand(*square.shape[:3], h.shape[-1]) for v in (h[:, :, None], h[:, None])]
            m = message(torch.cat([*both, torch.log1p(square)], -1)) * pair
            y = y + (d / (1 + (square + 1e-8).sqrt()) * move(m) * pair).sum(2) / expand(count[:, 0, 0], y)
            h = (h + update(torch.cat([h, m.sum(2) / count], -1))) * node
        return (y - x) * node


def mlp(inputs: int, width: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, outputs))
