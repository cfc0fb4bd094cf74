"""Probability paths x_t = a_t x0 + b_t eps; t = 0 is data, t = 1 is noise.

A path is four functions of time: a, b and their derivatives da, db. Time arithmetic stays in the dtype
of `t`, which callers keep at float32 or better.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Path(Protocol):
    def a(self, t: Tensor) -> Tensor: ...
    def b(self, t: Tensor) -> Tensor: ...
    def da(self, t: Tensor) -> Tensor: ...
    def db(self, t: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Linear:
    """x_t = (1 - t) x0 + t eps (flow matching, Lipman et al. 2023; rectified flow, Liu et al. 2023)."""

    def a(self, t: Tensor) -> Tensor:
        return 1 - t

    def b(self, t: Tensor) -> Tensor:
        return t

    def da(self, t: Tensor) -> Tensor:
        return -torch.ones_like(t)

    def db(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)


@dataclass(frozen=True)
class Trigonometric:
    """x_t = cos(pi t / 2) x0 + sin(pi t / 2) eps (TrigFlow, Lu and Song 2025, with time scaled to [0, 1])."""

    def a(self, t: Tensor) -> Tensor:
        return torch.cos(0.5 * math.pi * t)

    def b(self, t: Tensor) -> Tensor:
        return torch.sin(0.5 * math.pi * t)

    def da(self, t: Tensor) -> Tensor:
        return -0.5 * math.pi * torch.sin(0.5 * math.pi * t)

    def db(self, t: Tensor) -> Tensor:
        return 0.5 * math.pi * torch.cos(0.5 * math.pi * t)


@dataclass(frozen=True)
class VP:
    """Variance preserving with a linear rate (Song et al. 2021, eq. 33): a = exp(-B/2), B = int beta."""

    beta_min: float = 0.1
    beta_max: float = 20.0

    def _integral(self, t: Tensor) -> Tensor:
        return self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t * t

    def _rate(self, t: Tensor) -> Tensor:
        return self.beta_min + (self.beta_max - self.beta_min) * t

    def a(self, t: Tensor) -> Tensor:
        return torch.exp(-0.5 * self._integral(t))

    def b(self, t: Tensor) -> Tensor:
        return torch.sqrt(-torch.expm1(-self._integral(t)))

    def da(self, t: Tensor) -> Tensor:
        return -0.5 * self._rate(t) * self.a(t)

    def db(self, t: Tensor) -> Tensor:
        # b b' = -a a'; b ~ sqrt(t) near 0, where the derivative diverges
        return 0.5 * self._rate(t) * self.a(t).square() / self.b(t).clamp_min(1e-12)


@dataclass(frozen=True)
class VE:
    """Variance exploding: x_t = x0 + sigma_max t eps (EDM, Karras et al. 2022, sigma ~ time)."""

    sigma_max: float = 80.0

    def a(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def b(self, t: Tensor) -> Tensor:
        return self.sigma_max * t

    def da(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def db(self, t: Tensor) -> Tensor:
        return torch.full_like(t, self.sigma_max)


PATHS: dict[str, type] = {"linear": Linear, "trigonometric": Trigonometric, "vp": VP, "ve": VE}
