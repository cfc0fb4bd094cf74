"""When to train: samplers of the source time s, the target time t and the split point w, with t <= w <= s.

Densities are pure functions of a count and a generator, values in [0, 1]. An `AlphaSchedule` says how far the
split point lies from the evaluated end; a `TimeSampler` puts both together. `progress` is training progress
in [0, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from scipy.special import betaincinv
from torch import Tensor

from sciconsist.state import Times


class Split(NamedTuple):
    """Times of a batch, each `[B]` or a dict of them: from s to t, split at w; s = t is the diagonal."""

    s: Times
    w: Times
    t: Times


def uniform(count: int, generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Uniform on [low, high): `[count]` float32."""
    return low + (high - low) * torch.rand(count, generator=generator, device=generator.device)


def normal(count: int, generator: torch.Generator) -> Tensor:
    return torch.randn(count, generator=generator, device=generator.device)


def beta(count: int, generator: torch.Generator, a: float, b: float) -> Tensor:
    """Beta(a, b) by its inverse distribution function."""
    u = uniform(count, generator)
    if b == 1.0:
        return u ** (1.0 / a)
    return torch.as_tensor(betaincinv(a, b, u.double().cpu().numpy()), dtype=u.dtype, device=u.device)


def logit_normal(count: int, generator: torch.Generator, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Sigmoid of a normal (Esser et al. 2024, eq. 19)."""
    return torch.sigmoid(mean + std * normal(count, generator))


def log_normal(
    count: int, generator: torch.Generator, mean: float = -1.2, std: float = 1.2, sigma_max: float = 80.0
) -> Tensor:
    """EDM's ln sigma ~ N(mean, std^2) (Karras et al. 2022, table 1) as the VE path's time sigma / sigma_max
    <= 1.

    On the linear path sigma = t / (1 - t), so the same density of noise levels is `logit_normal(mean, std)`.
    """
    return (torch.exp(mean + std * normal(count, generator)) / sigma_max).clamp(max=1.0)


def karras_grid(steps: int, rho: float, low: float) -> Tensor:
    """Rising times from `low` to 1, even in t^(1/rho) (Karras et al. 2022, eq. 5): `[steps]`, steps >= 2."""
    return torch.linspace(low ** (1 / rho), 1.0, steps, dtype=torch.float64) ** rho


@dataclass(frozen=True)
class AlphaSchedule:
    """alpha in (0, 1], the share of the interval that the instantaneous velocity covers.

    constant     `end` throughout
    linear       from `start` to `end` over training
    exponential  the same, geometrically (alpha-Flow and SoFlow anneal so, each with its own constants)
    sigmoid      the same, along a sigmoid of steepness 25 in the middle (alpha-Flow, Zhang et al. 2025)
    ect          min(1, n(s) / 2^stage), n(s) = 1 + 8 sigmoid(-s), `stages` doublings (ECT, Geng et al. 2024,
                 sec. 3); its first stages have alpha = 1: diffusion
    """

    kind: str = "constant"
    start: float = 1.0
    end: float = 1.0
    stages: int = 8

    def __post_init__(self) -> None:
        if self.kind not in ("constant", "linear", "exponential", "sigmoid", "ect"):
            known = "constant, linear, exponential, sigmoid or ect"
            raise ValueError(f"alpha schedule {self.kind!r}: expected {known}")
        if not (0 < self.start <= 1 and 0 < self.end <= 1):
            raise ValueError(f"alpha must lie in (0, 1], found start {self.start} and end {self.end}")

    def value(self, progress: float) -> float:
        """alpha at this progress (for `ect` at s = infinity, where n = 1)."""
        p = min(max(progress, 0.0), 1.0)
        if self.kind == "constant":
            return self.end
        if self.kind == "linear":
            return self.start + (self.end - self.start) * p
        if self.kind == "exponential":
            return self.start * (self.end / self.start) ** p
        if self.kind == "sigmoid":
            ramp = 1 / (1 + math.exp(-25 * (p - 0.5)))
            return self.start + (self.end - self.start) * ramp
        return 1.0 / 2 ** min(int(p * (self.stages + 1)), self.stages)

    def __call__(self, progress: float, s: Tensor) -> Tensor:
        """alpha of each sample, `[B]`."""
        value = torch.full_like(s, self.value(progress))
        return (value * (1 + 8 * torch.sigmoid(-s))).clamp(max=1.0) if self.kind == "ect" else value


@dataclass(frozen=True)
class TimeSampler:
    """Draws `Split(s, w, t)`: a fraction on the diagonal, the rest off it.

    `density`: uniform, beta(a, b), lognormal(a, b) or logitnormal(a, b), drawn within [low, 1].
    `target` says where t lies, off the diagonal:
        below   s and t are two draws in order (MeanFlow)      zero    t = 0 (consistency models)
        grid    t = 0, and s, w neighbours on a Karras grid whose number of points rises from `grid[0]` to
                `grid[1]` (CT and iCT; Song et al. 2023, Song and Dhariwal 2024)
        dyadic  the gap is 2^-k, k = 0..levels-1 uniform, on its own grid (shortcut models, Frans et al. 2024)
        halving as dyadic, one gap at a time, which doubles over training (progressive distillation, Salimans
                and Ho 2022)
    `max_gap` is a curriculum: the gap is at most max(max_gap, progress), so 1 leaves all gaps at all times.
    """

    density: str = "uniform"
    a: float = 0.0
    b: float = 1.0
    sigma_max: float = 80.0
    target: str = "below"
    diagonal: float = 0.25
    low: float = 1e-3
    grid: tuple[int, int] = (10, 1280)
    rho: float = 7.0
    levels: int = 7
    max_gap: float = 1.0
    alpha: AlphaSchedule = field(default_factory=AlphaSchedule)

    def __post_init__(self) -> None:
        if self.density not in ("uniform", "beta", "lognormal", "logitnormal"):
            raise ValueError(f"density {self.density!r}: expected uniform, beta, lognormal or logitnormal")
        if self.target not in ("below", "zero", "grid", "dyadic", "halving"):
            raise ValueError(f"target {self.target!r}: expected below, zero, grid, dyadic or halving")
        if not 0 <= self.diagonal <= 1:
            raise ValueError(f"the diagonal's fraction must lie in [0, 1], found {self.diagonal}")

    def times(self, count: int, generator: torch.Generator) -> Tensor:
        """Single times from the density: `[count]` float32 in [low, 1]."""
        if self.density == "uniform":
            t = uniform(count, generator)
        elif self.density == "beta":
            t = beta(count, generator, self.a, self.b)
        elif self.density == "lognormal":
            t = log_normal(count, generator, self.a, self.b, self.sigma_max)
        else:
            t = logit_normal(count, generator, self.a, self.b)
        return t.clamp(self.low, 1.0)

    def grid_points(self, progress: float) -> int:
        """Points of the grid at this progress: doubling from grid[0] to grid[1] (iCT, eq. 12)."""
        first, last = self.grid
        doublings = int(math.log2(last / first))
        return int(min(first * 2 ** int(progress * (doublings + 1)), last)) + 1

    def draw(self, count: int, kind: str, progress: float, generator: torch.Generator) -> Split:
        """Times of one batch, `[count]` each. `kind` is the recipe's: eulerian, lagrangian or progressive."""
        if self.target == "grid":
            s, w, t = self._grid(count, progress, generator)
        else:
            if self.target in ("dyadic", "halving"):
                s, t = self._dyadic(count, progress, generator)
            else:
                s, t = self._pair(count, progress, generator)
            w = split_point(kind, s, t, self._alpha(kind, s, t, progress, generator))
        on = uniform(count, generator) < self.diagonal
        if self.target in ("dyadic", "halving", "grid"):  # their diagonal keeps the density
            s = torch.where(on, self.times(count, generator), s)
        w, t = torch.where(on, s, w), torch.where(on, s, t)
        return Split(s, w, t)

    def _alpha(self, kind: str, s: Tensor, t: Tensor, progress: float, generator: torch.Generator) -> Tensor:
        if kind == "progressive" and self.alpha.kind == "constant" and self.alpha.end == 1.0:
            # PSD with uniform splits; the very ends would compare the map with itself
            return uniform(s.shape[0], generator, 0.02, 0.98)
        return self.alpha(progress, s)

    def _pair(self, count: int, progress: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        first = self.times(count, generator)
        if self.target == "zero":
            return first, torch.zeros_like(first)
        second = self.times(count, generator)
        # one target in eight is the data's end itself: densities alone give t = 0 no mass
        second = torch.where(uniform(count, generator) < 0.125, torch.zeros_like(second), second)
        s, t = torch.maximum(first, second), torch.minimum(first, second)
        return s, torch.maximum(t, s - max(self.max_gap, progress))

    def _grid(self, count: int, progress: float, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        points = self.grid_points(progress)
        grid = karras_grid(points, self.rho, self.low).float().to(generator.device)
        if self.density == "uniform":
            index = torch.randint(1, points, (count,), generator=generator, device=generator.device)
        else:  # iCT, eq. 14: the density decides between neighbours
            index = torch.searchsorted(grid, self.times(count, generator)).clamp(1, points - 1)
        w = torch.where(index == 1, torch.zeros_like(grid[index]), grid[index - 1])
        return grid[index], w, torch.zeros_like(w)

    def _dyadic(self, count: int, progress: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        if self.target == "halving":
            stage = min(int(progress * self.levels), self.levels - 1)
            level = torch.full((count,), self.levels - 1 - stage, device=generator.device)
        else:
            level = torch.randint(0, self.levels, (count,), generator=generator, device=generator.device)
        gap = 0.5 ** level.float()
        cell = torch.floor(uniform(count, generator) / gap)
        return (cell + 1) * gap, cell * gap


def split_point(kind: str, s: Tensor, t: Tensor, alpha: Tensor) -> Tensor:
    """w: alpha of the way from s to t (eulerian, progressive), or alpha of the way back from t (lagrangian).

    On the diagonal w = s = t.
    """
    if kind == "lagrangian":
        return t + alpha * (s - t)
    return torch.where(alpha >= 1, t, s + alpha * (t - s))
