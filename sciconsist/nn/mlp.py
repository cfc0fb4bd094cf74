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
        inputs = size * (4 if periodic else 1) + 2 * self.embedding.width + conditions
        sizes = [inputs, *[width] * layers, size]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, x: Tensor, s: Tensor, t: Tensor, condition: Tensor | None = None, mask: Any = None) -> Tensor:
        h = x.flatten(1)
        if self.periodic:
            h = torch.cat([f(2 * math.pi * k * h) for k in (1, 2) for f in (torch.sin, torch.cos)], -1)
        h = torch.cat([h, self.embedding(s).to(h.dtype), self.embedding(s - t).to(h.dtype)], -1)
        if condition is not None:
            h = torch.cat([h, condition.to(h.dtype)], -1)
        for layer in self.layers[:-1]:
            h = nn.functional.silu(layer(h))
        return self.layers[-1](h).view(x.shape)
