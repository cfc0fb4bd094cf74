"""Closed-form means: the part of a fine field that needs no network.

Site     regression of every fine cell on the coarse neighbourhood, for a fixed domain
Lapse    interpolation, temperatures carried to the height of the ground by the lapse rate; for any domain

Both are local: a tile with a rim of `radius` coarse cells has what the whole has.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from sciconsist.domains.climate.fields import LAPSE_RATE
from sciconsist.domains.climate.network import edged, upsample
from sciconsist.domains.climate.pooling import pooled_regressions

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
    each other variable; with `squares` the nine nearest, and squares of the five of its own and one of each other.
    A missing neighbour counts as the cell itself. The ridge shrinks to the coarse value.
    `waves` are so many numbers of the time (`statics.harmonics`). With a `rank` R_v below k k of variable v the k k
    details of a coarse cell are combinations of R_v patterns (reduced-rank regression, Izenman 1975): fewer numbers to
    keep. Buffers: beta `[sum R, F + 1, h, w]`, patterns `[k k, sum R, h, w]`, the coarse cells' mean and standard
    deviation `[C, h, w]`.
    """

    def __init__(
        self, variables: int, factor: int, lattice: tuple[int, int], radius: int = 2, cross: bool = True,
        waves: int = 0, rank: int | Sequence[int] | None = None, squares: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.variables, self.factor, self.radius, self.cross, self.squares = variables, factor, radius, cross, squares
        self.others = [] if not cross else stencil(1) if squares else CROSS
        count = (2 * radius + 1) ** 2 + len(self.others) * (variables - 1) + waves
        count += len(CROSS) + variables - 1 if squares else 0
        ranks = [factor**2 if rank is None else rank] * variables if rank is None or isinstance(rank, int) else rank
        self.ranks = [min(r, factor**2) for r in ranks]
        self.beta: Tensor
        self.patterns: Tensor | None
        self.centre: Tensor
        self.scale: Tensor
        self.register_buffer("beta", torch.zeros(sum(self.ranks), count + 1, *lattice))
        fewer = min(self.ranks) < factor**2
        self.register_buffer("patterns", torch.zeros(factor**2, sum(self.ranks), *lattice) if fewer else None)
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
        others = [v for v in range(self.variables) if v != own]

        def near(v: int, offset: tuple[int, int]) -> Tensor:
            there = shifted(seen, *offset, reach)
            return shifted(x[:, v : v + 1], *offset, reach) * there + x[:, v : v + 1] * (1 - there)

        terms += [near(own, p) for p in stencil(self.radius)]
        terms += [near(v, p) for v in others for p in self.others]
        if self.squares:
            terms += [near(own, p).square() for p in CROSS] + [x[:, v : v + 1].square() for v in others]
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
        for v, part in enumerate(self.parts()):
            beta = self.beta[(part, slice(None), *box)].to(coarse)
            detail = torch.einsum("bfhw,sfhw->bshw", self.predictors(coarse, valid, v, box, waves), beta)
            if self.patterns is not None:
                patterns = self.patterns[(slice(None), part, *box)].to(coarse)
                detail = torch.einsum("brhw,srhw->bshw", detail, patterns)
            out.append(
                nn.functional.pixel_shuffle(detail, k) + nn.functional.interpolate(coarse[:, v : v + 1], scale_factor=k)
            )
        return torch.cat(out, 1)

    def parts(self) -> list[slice]:
        """Where each variable's patterns lie."""
        ends = np.cumsum([0, *self.ranks]).tolist()
        return [slice(a, b) for a, b in pairwise(ends)]

    @torch.no_grad()
    def fit(
        self, coarse: Tensor, fine: Tensor, valid: Tensor, ridge: float, waves: Tensor | None = None, rounds: int = 0
    ) -> SiteMean:  # fmt: skip
        """Least squares with penalty `ridge` |beta|^2 on standardised predictors, in closed form (float64).

        With `rounds` the cells learn from each other what coefficients are like, instead (`pooling`).
        coarse `[T, C, h, w]`, fine `[T, C, H, W]` (any number where missing), valid `[h, w]`.
        """
        coarse, fine = coarse.double(), fine.double()
        self.centre.copy_(coarse.mean(0))
        self.scale.copy_(coarse.std(0).clamp_min(1e-6 * (1 + coarse.abs().mean())))
        everywhere = (slice(None), slice(None))
        for v, part in enumerate(self.parts()):
            X = self.predictors(coarse, valid, v, everywhere, waves).permute(2, 3, 0, 1)  # [h, w, T, F + 1]
            up = nn.functional.interpolate(coarse[:, v : v + 1], scale_factor=self.factor)
            Y = nn.functional.pixel_unshuffle(fine[:, v : v + 1] - up, self.factor).permute(2, 3, 0, 1)
            gram = X.mT @ X
            if rounds:
                beta = torch.zeros(*X.shape[:2], X.shape[-1], Y.shape[-1], dtype=X.dtype)
                beta[valid] = pooled_regressions(X[valid], Y[valid], rounds)
            else:
                penalty = ridge * torch.eye(X.shape[-1], dtype=X.dtype)
                penalty[-1, -1] = 1e-9  # the constant is free
                beta = torch.linalg.solve(gram + penalty, X.mT @ Y)  # [h, w, F + 1, k k]
            beta = beta * valid[:, :, None, None]
            if self.patterns is not None:  # those that hold most of what is fitted
                patterns = torch.linalg.eigh(beta.mT @ gram @ beta).eigenvectors[..., -self.ranks[v] :]
                self.patterns[:, part].copy_(patterns.permute(2, 3, 0, 1))
                beta = beta @ patterns
            self.beta[part].copy_(beta.permute(3, 2, 0, 1))
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
