"""Flow maps put together: around an autoencoder, and one after the other from coarse to fine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sciconsist.flowmap import FlowMap
from sciconsist.random import Generators
from sciconsist.sampling import sample
from sciconsist.schedules import TimesLike
from sciconsist.state import State


class Autoencoder(nn.Module):
    """A small one for vectors: `encode` `[B, size] -> [B, latent]`, standardised by `standardise`; `decode` back."""

    mean: Tensor
    std: Tensor

    def __init__(self, size: int, latent: int, width: int = 128) -> None:
        super().__init__()

        def layers(a: int, b: int) -> nn.Module:
            return nn.Sequential(
                nn.Linear(a, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, b)
            )

        self.inward, self.outward = layers(size, latent), layers(latent, size)
        self.register_buffer("mean", torch.zeros(latent))
        self.register_buffer("std", torch.ones(latent))

    def encode(self, x: Tensor) -> Tensor:
        z: Tensor = (self.inward(x) - self.mean) / self.std
        return z

    def decode(self, z: Tensor) -> Tensor:
        x: Tensor = self.outward(z * self.std + self.mean)
        return x

    def loss(self, x: Tensor) -> Tensor:
        """Mean squared error of the reconstruction, and a thousandth of the latents' size to keep them near 0."""
        z = self.inward(x)
        return (self.outward(z) - x).square().mean() + 1e-3 * z.square().mean()

    @torch.no_grad()
    def standardise(self, x: Tensor) -> None:
        """Latents of the data `[M, size]` to zero mean and unit variance: what a flow map with data_std 1 wants."""
        z = self.inward(x)
        self.mean.copy_(z.mean(0))
        self.std.copy_(z.std(0).clamp_min(1e-6))


@dataclass
class Latent:
    """A flow map of codes, and the way in and out: train `model` on `encode(x)`, then draw."""

    model: FlowMap
    encode: Callable[[Any], State]
    decode: Callable[[State], Any]

    def sample(self, shape: Any, times: TimesLike, generator: Generators, **extra: Any) -> Any:
        """As `sampling.sample`, of codes of a `shape`; decoded."""
        with torch.no_grad():
            return self.decode(sample(self.model, shape, times, generator, **extra))


@dataclass
class Stage:
    """One level of a cascade: its model, its shape, and what the level before becomes as its condition."""

    model: FlowMap
    shape: Any
    condition: Callable[[Any], Any] = lambda coarse: coarse


def cascade(
    stages: Sequence[Stage], times: TimesLike, generator: Generators, condition: Any = None, **extra: Any
) -> Iterator[State]:
    """Draw level after level, each under the one before (the first under `condition`); yields each as it is done."""
    before = condition
    for k, stage in enumerate(stages):
        given = before if k == 0 else stage.condition(before)
        before = sample(stage.model, stage.shape, times, generator, condition=given, **extra)
        yield before
