"""Taking the bias off a coarse input, a climate model's, before it is downscaled: quantile mapping to a reference.

For every cell, month and variable, values are carried from the distribution of the input in the reference's years to
that of the reference, averaged to the input's cells. What the input changes beyond those years stays: outside the
distribution the shift of its end holds (Cannon et al. 2015 discuss the alternatives).
"""

from __future__ import annotations

import numpy as np

from sciconsist.errors import UserError

from .baselines import clip, map_quantiles, season_kind, seasons
from .fields import NON_NEGATIVE
from .files import Source
from .grids import average_to, interpolate
from .times import year_of

FEWEST = 10  # values of a season to make a distribution of


def correct(source: Source, reference: Source) -> np.ndarray:
    """The input `[T, C, H, W]` on the reference's distribution, canonical units.

    Raises UserError when the two have no common years or places.
    """
    fields = source.read()
    known = reference.read(names=source.names)
    years = {year_of(t) for t in known.times}
    common = np.array([year_of(t) in years for t in fields.times])
    if common.sum() < FEWEST:
        raise UserError(
            f"{source.where}: {int(common.sum())} times in the years of {reference.where} "
            f"({min(years)} to {max(years)}); bias correction needs at least {FEWEST}"
        )
    if known.mask.all():
        target = average_to(known.values, known.grid, fields.grid)
    else:
        target = interpolate(known.values, known.grid, fields.grid, mask=known.mask)
    kind = season_kind(known.times)
    now, then = seasons(fields.times, kind), seasons(known.times, kind)
    out = fields.values.copy()
    valid = fields.mask & np.isfinite(target).all((0, 1))
    if not valid.any():
        raise UserError(f"{reference.where}: has no value in the area of {source.where}")
    for season in np.unique(now):
        here, past = now == season, common & (now == season)
        real = then == season
        if past.sum() < FEWEST or real.sum() < FEWEST:
            past, real = common, np.ones(len(then), bool)
        for c, name in enumerate(fields.names):
            column = fields.values[:, c][:, valid]
            mapped = map_quantiles(column[here], column[past], target[real, c][:, valid], name in NON_NEGATIVE)
            block = out[here, c]
            block[:, valid] = mapped
            out[here, c] = block
    return clip(out, fields.names)
