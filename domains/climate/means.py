"""Closed-form means: the part of a fine field that needs no network.

Site     ridge regression of every fine cell on the coarse neighbourhood, for a fixed domain
Lapse    interpolation, temperatures carried to the height of the ground by the lapse rate; for any domain

Both are local: a tile with a rim of `radius` coarse cells has what the whole has.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from sciconsist.domains.climate.fields import LAPSE_RATE
from sciconsist.domains.climate.network import edged, upsample

LAPSE_NAMES = ("t2m", "d2m")


def stencil(radius: int) -> list[tuple[int, int]]:
    """Offsets of the (2 radius + 1)^2 cells around a cell, itself first."""
    span = range(-radius, radius + 1)
    return sorted(((i, j) for i in span for j in span), key=lambda p: (abs(p[0]) + abs(p[1]), p))


CROSS = [p for p in stencil(1) if abs(p[0]) + abs(p[1]) <= 1]


def shifted(x: Tensor, di: int, dj: int, radius: int) -> Tensor:
    """Every cell's neighbour at (di, dj); the edge's value beyond it."""
    wide = nn.functional.pad(x, (radius,) * 4, mode="replicate")
    h, w = x.shape[-2:]
    return wide[..., radius + di : radius + di + h, radius + dj : radius + dj + w]


class SiteMean(nn.Module):
    """fine = coarse + beta . (standardised coarse neighbourhood, waves) + b, of every fine cell of a fixed domain.

    The neighbourhood has the (2 radius + 1)^2 cells of the variable itself and, with `cross`, the five nearest of
    each other variable. A missing neighbour counts as the cell itself. The ridge shrinks to the coarse value.
    `waves` are so many numbers of the time (`statics.harmonics`). With `rank` R below k k the k k details of a
    coarse cell are combinations of R patterns (reduced-rank regression, Izenman 1975): fewer numbers to keep.
    Buffers: beta `[C, R, F + 1, h, w]`, patterns `[C, k k, R, h, w]`, the coarse cells' mean and standard deviation
    `[C, h, w]`.
    """

    def __init__(
        self, variables: int, factor: int, lattice: tuple[int, int], radius: int = 2, cross: bool = True,
        waves: int = 0, rank: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.variables, self.factor, self.radius, self.cross = variables, factor, radius, cross
        count = (2 * radius + 1) ** 2 + (len(CROSS) * (variables - 1) if cross else 0) + waves
        self.rank = factor**2 if rank is None else min(rank, factor**2)
        self.beta: Tensor
        self.patterns: Tensor | None
        self.centre: Tensor
        self.scale: Tensor
        self.register_buffer("beta", torch.zeros(variables, self.rank, count + 1, *lattice))
        fewer = self.rank < factor**2
        self.register_buffer("patterns", torch.zeros(variables, factor**2, self.rank, *lattice) if fewer else None)
        self.register_buffer("centre", torch.zeros(variables, *lattice))
        self.register_buffer("scale", torch.ones(variables, *lattice))

    def predictors(
        self, coarse: Tensor, valid: Tensor, own: int, box: tuple[slice, slice], waves: Tensor | None
    ) -> Tensor:
        """`[B, F + 1, h, w]` of variable `own`; the last is 1. `valid` `[h, w]`, `waves` `[B, waves]`."""
        centre, scale = self.centre[(slice(None), *box)].to(coarse), self.scale[(slice(None), *box)].to(coarse)
        x = torch.where(valid, (coarse - centre) / scale, torch.zeros_like(coarse))
        seen = valid.to(coarse.dtype)[None, None]
        terms, reach = [], max(self.radius, 1)
        for v in [own, *(v for v in range(self.variables) if v != own and self.cross)]:
            for i, j in stencil(self.radius) if v == own else CROSS:
                there = shifted(seen, i, j, reach)
                near = shifted(x[:, v : v + 1], i, j, reach)
                terms.append(near * there + x[:, v : v + 1] * (1 - there))
        if waves is not None:
            terms.append(waves.to(coarse)[:, :, None, None].expand(-1, -1, *coarse.shape[-2:]))
        return torch.cat([*terms, torch.ones_like(terms[0][:, :1])], 1)

    def forward(
        self, coarse: Tensor, valid: Tensor, origin: tuple[int, int] = (0, 0), waves: Tensor | None = None
    ) -> Tensor:
        """Means `[B, C, H, W]` of coarse fields `[B, C, h, w]` whose first cell is `origin` of the domain."""
        h, w = coarse.shape[-2:]
        box = (slice(origin[0], origin[0] + h), slice(origin[1], origin[1] + w))
        k, out = self.factor, []
        for v in range(self.variables):
            beta = self.beta[v][(slice(None), slice(None), *box)].to(coarse)
            detail = torch.einsum("bfhw,sfhw->bshw", self.predictors(coarse, valid, v, box, waves), beta)
            if self.patterns is not None:
                patterns = self.patterns[v][(slice(None), slice(None), *box)].to(coarse)
                detail = torch.einsum("brhw,srhw->bshw", detail, patterns)
            out.append(
                nn.functional.pixel_shuffle(detail, k) + nn.functional.interpolate(coarse[:, v : v + 1], scale_factor=k)
            )
        return torch.cat(out, 1)

    @torch.no_grad()
    def fit(self, coarse: Tensor, fine: Tensor, valid: Tensor, ridge: float, waves: Tensor | None = None) -> SiteMean:
        """Least squares with penalty `ridge` |beta|^2 on standardised predictors, in closed form (float64).

        coarse `[T, C, h, w]`, fine `[T, C, H, W]` (any number where missing), valid `[h, w]`.
        """
        coarse, fine = coarse.double(), fine.double()
        self.centre.copy_(coarse.mean(0))
        self.scale.copy_(coarse.std(0).clamp_min(1e-6 * (1 + coarse.abs().mean())))
        everywhere = (slice(None), slice(None))
        for v in range(self.variables):
            X = self.predictors(coarse, valid, v, everywhere, waves).permute(2, 3, 0, 1)  # [h, w, T, F + 1]
            up = nn.functional.interpolate(coarse[:, v : v + 1], scale_factor=self.factor)
            Y = nn.functional.pixel_unshuffle(fine[:, v : v + 1] - up, self.factor).permute(2, 3, 0, 1)
            penalty = ridge * torch.eye(X.shape[-1], dtype=X.dtype)
            penalty[-1, -1] = 1e-9  # the constant is free
            gram = X.mT @ X
            beta = torch.linalg.solve(gram + penalty, X.mT @ Y)  # [h, w, F + 1, k k]
            beta = beta * valid[:, :, None, None]
            if self.patterns is not None:  # those that hold most of what is fitted
                patterns = torch.linalg.eigh(beta.mT @ gram @ beta).eigenvectors[..., -self.rank :]
                self.patterns[v].copy_(patterns.permute(2, 3, 0, 1))
                beta = beta @ patterns
            self.beta[v].copy_(beta.permute(3, 2, 0, 1))
        return self


def lapse_mean(
    coarse: Tensor, valid: Tensor, coarse_height: Tensor, height: Tensor, names: tuple[str, ...], factor: int,
    around: bool,
) -> Tensor:  # fmt: skip
    """Interpolated fields `[B, C, H, W]`; temperatures interpolated at sea level and carried to `height` `[H, W]` m.

    T = I(T_coarse - L z_coarse) + L z with the standard atmosphere's lapse rate L.
    """
    lapse = torch.tensor([LAPSE_RATE if n in LAPSE_NAMES else 0.0 for n in names], dtype=coarse.dtype)
    lapse = lapse.to(coarse.device)[None, :, None, None]
    level = filled(coarse - lapse * coarse_height, valid, around)
    return upsample(level, factor, around) + lapse * height


def filled(x: Tensor, valid: Tensor, around: bool, rounds: int = 2) -> Tensor:
    """Missing cells take the mean of their valid neighbours, `rounds` cells far; 0 beyond."""
    seen = valid.to(x.dtype)[None, None]
    value = torch.where(valid, x, torch.zeros_like(x))
    for _ in range(rounds):
        if bool(seen.all()):
            break
        total = nn.functional.avg_pool2d(edged(value * seen, around), 3, 1)
        share = nn.functional.avg_pool2d(edged(seen, around), 3, 1)
        near = total / share.clamp_min(1e-9)
        value = torch.where(seen > 0, value, torch.where(share > 0, near, torch.zeros_like(near)))
        seen = (share > 0).to(x.dtype)
    return value


def folds(count: int, number: int) -> list[np.ndarray]:
    """`number` stretches of consecutive times, for residuals of fits that have not seen them."""
    return [part for part in np.array_split(np.arange(count), min(number, count)) if len(part)]
