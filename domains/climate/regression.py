"""Baselines that learn every cell's regression on its coarse neighbourhood, with past residuals for an ensemble.

The regression is `means.SiteMean` (its docstring has the equation); fields must nest in coarse cells.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from sciconsist.errors import UserError

from .baselines import Past, Place, bootstrap_times, clip, conserved
from .fields import Fields
from .means import SiteMean

RADIUS, RIDGE = 1, 1.0  # coarse cells; penalty on standardised predictors
CHUNK = 64  # times whose residuals are in memory twice


def factor_of(coarse: Fields, place: Place) -> int:
    """How many fine cells a coarse cell has along an axis. Raises UserError when the grids do not nest."""
    height, width = coarse.grid.shape
    shape = place.target.shape
    factor = shape[0] // height if len(shape) == 2 else 0
    nested = factor > 0 and shape == (height * factor, width * factor)
    if nested:
        index = np.arange(height * width).reshape(height, width)
        nested = bool((place.cell == index.repeat(factor, 0).repeat(factor, 1)).all())
    if not nested:
        raise UserError("cell regression needs target cells that nest in the coarse ones; give --factor a whole number")
    return factor


class Regression:
    """The regression of one place, fitted to its past; the past's residuals are what the bootstrap draws from."""

    def __init__(self, past: Past, place: Place) -> None:
        self.place = place
        self.factor = factor_of(past.coarse, place)
        self.valid = torch.as_tensor(np.ascontiguousarray(past.coarse.mask))
        count = len(past.fine.names)
        self.mean = SiteMean(count, self.factor, past.coarse.grid.shape, RADIUS, cross=False).double()
        fine = torch.as_tensor(np.nan_to_num(past.fine.values))
        self.mean.fit(torch.as_tensor(np.nan_to_num(past.coarse.values)), fine, self.valid, RIDGE)
        self.past = past

    def predict(self, coarse: Fields) -> np.ndarray:
        """`[T, C, H, W]`, conserving: both ensembles and figures start from it."""
        with torch.no_grad():
            out = self.mean(torch.as_tensor(np.nan_to_num(coarse.values)), self.valid).numpy()
        return conserved(clip(out, coarse.names), coarse, self.place)

    def residuals(self, steps: Sequence[int]) -> np.ndarray:
        """Truth less prediction `[N, C, H, W]` of some times of the past, 0 where the past has no value."""
        chosen = np.asarray(steps)
        times = tuple(self.past.coarse.times[k] for k in chosen)
        then = Fields(
            self.past.coarse.values[chosen], self.past.coarse.names, times, self.past.coarse.grid,
            self.past.coarse.mask,
        )  # fmt: skip
        return np.nan_to_num(self.past.fine.values[chosen] - self.predict(then))

    def bootstrap(self, coarse: Fields, members: Sequence[int], seed: int) -> np.ndarray:
        """`[M, T, C, H, W]`: the prediction plus the whole residual field of a past time drawn for each member.

        Drawing whole fields keeps their correlation in space and between variables.
        """
        base = self.predict(coarse)
        out = np.empty((len(members), *base.shape))
        for t, time in enumerate(coarse.times):
            drawn = bootstrap_times(seed, members, time, len(self.past.fine.times))
            out[:, t] = base[t] + self.residuals(drawn)
        return conserved(clip_members(out, coarse.names), coarse, self.place)


def clip_members(values: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """`[M, T, C, H, W]` with precipitation at least 0."""
    return np.stack([clip(member, names) for member in values])
