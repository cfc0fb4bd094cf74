"""A network for states that are vectors: what the benchmark and small problems use."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from sciconsist.nn.embeddings import Sinusoidal


class MLP(nn.Module):
    """F(x, s, t, condition) of a state `[B, ...]` with `size` numbers a sample.

    `periodic` gives sines and cosines of 2 pi x in place of x (a Torus). A condition is `[B, conditions]`.
    `embedding` is one of `nn.embeddings`; it reads s and the gap s - t.
    """

    def __init__(
        self,
        size: int,
        width: int = 128,
        layers: int = 3,
        *,
        conditions: int = 0,
        periodic: bool = False,
        embedding: Any = None,
    ) -> None:
        super().__init__()
        self.embedding = embedding if embedding is not None else Sinusoidal(16)
        self.periodic = periodic
        self.inputs = nn.Linear(size * (4 if periodic else 1) + conditions, width)
        self.clock = nn.Linear(2 * self.embedding.width, width)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise([*[width] * layers, size]))
        with torch.no_grad():  # keeps the variance through SiLU, where torch's default loses it layer by layer
            for layer in (self.inputs, self.clock, *self.layers):
                layer.weight.mul_(math.sqrt(3.0) * (1.0 if layer in (self.inputs, self.clock) else 1.6))

    def forward(self, x: Tensor, s: Tensor, t: Tensor, condition: Tensor | None = None, mask: Any = None) -> Tensor:
        h = x.flatten(1)
        if self.periodic:
            h = torch.cat([f(2 * math.pi * k * h) for k in (1, 2) for f in (torch.sin, torch.cos)], -1)
        if condition is not None:
            h = torch.cat([h, condition.to(h.dtype)], -1)
        clock = torch.cat([self.embedding(s), self.embedding(s - t)], -1).to(h.dtype)
        h = self.inputs(h) + self.clock(clock)
        for layer in self.layers:
            h = layer(nn.functional.silu(h))
        return h.view(x.shape)
