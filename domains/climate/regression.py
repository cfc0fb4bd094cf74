"""Baselines that learn every cell's regression on its coarse neighbourhood, with past residuals for an ensemble.

The regression is `means.SiteMean` (its docstring has the equation); fields must nest in coarse cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from sciconsist.errors import UserError

from .baselines import Past, Place, bootstrap_times, climatology, clip, conserved, season_kind, seasons
from .fields import Fields
from .means import SiteMean

RADIUS, RIDGE = 1, 1.0  # coarse cells; penalty on standardised predictors
FEWEST = 10  # times of a season to draw from; below it, from all


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
    """The regression of one place, fitted to anomalies of its past from the season's mean.

    The past's residuals, truth less prediction, are what the bootstrap draws from.
    """

    def __init__(self, past: Past, place: Place) -> None:
        self.place, self.past = place, past
        self.factor = factor_of(past.coarse, place)
        self.valid = torch.as_tensor(np.ascontiguousarray(past.coarse.mask))
        self.kind = season_kind(past.fine.times)
        number = 12 if self.kind == "month" else 24
        self.season = seasons(past.fine.times, self.kind)
        self.base = climatology(np.nan_to_num(past.coarse.values), self.season, number)
        self.fine_base = climatology(np.nan_to_num(past.fine.values), self.season, number)
        height, width = past.coarse.grid.shape
        self.mean = SiteMean(len(past.fine.names), self.factor, (height, width), RADIUS, cross=False).double()
        coarse, fine = (np.nan_to_num(f.values) for f in (past.coarse, past.fine))
        anomalies = (coarse - self.base[self.season], fine - self.fine_base[self.season])
        self.mean.fit(torch.as_tensor(anomalies[0]), torch.as_tensor(anomalies[1]), self.valid, RIDGE)

    def predict(self, coarse: Fields) -> np.ndarray:
        """`[T, C, H, W]`, conserving."""
        season = seasons(coarse.times, self.kind)
        anomaly = torch.as_tensor(np.nan_to_num(coarse.values) - self.base[season])
        with torch.no_grad():
            out = self.mean(anomaly, self.valid).numpy() + self.fine_base[season]
        return conserved(clip(out, coarse.names), coarse, self.place)

    def residuals(self, steps: Sequence[int]) -> np.ndarray:
        """Truth less prediction `[N, C, H, W]` of some times of the past, 0 where the past has no value."""
        chosen = np.asarray(steps)
        times = tuple(self.past.coarse.times[k] for k in chosen)
        then = replace(self.past.coarse, values=self.past.coarse.values[chosen], times=times)
        return np.nan_to_num(self.past.fine.values[chosen] - self.predict(then))

    def bootstrap(self, coarse: Fields, members: Sequence[int], seed: int) -> np.ndarray:
        """`[M, T, C, H, W]`: the prediction plus the whole residual field of a past time drawn for each member.

        Drawing whole fields, of the same season, keeps their correlation in space and between variables.
        """
        base = self.predict(coarse)
        out = np.empty((len(members), *base.shape))
        for t, (time, season) in enumerate(zip(coarse.times, seasons(coarse.times, self.kind))):
            pool = np.flatnonzero(self.season == season)
            pool = pool if len(pool) >= FEWEST else np.arange(len(self.season))
            out[:, t] = base[t] + self.residuals(pool[bootstrap_times(seed, members, time, len(pool))])
        return conserved(clip_members(out, coarse.names), coarse, self.place)


def clip_members(values: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """`[M, T, C, H, W]` with precipitation at least 0."""
    return np.stack([clip(member, names) for member in values])
