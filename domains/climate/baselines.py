"""Downscaling without a network: interpolation, lapse rate, and what a past period of fine data teaches.

Every method is local (at most two coarse cells away) and works on a tile as on the whole. Those that learn take a
`Past`: fine fields of a past period on the target grid with the coarse fields of the same times. Values are in
canonical units, float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from sciconsist.errors import UserError

from .conserve import conserve as conserve_cells
from .fields import LAPSE_RATE, NON_NEGATIVE, Fields, Grid, Statics
from .grids import area_weights, block_mean, coarsen, interpolate
from .noise import key
from .times import DAY, hour_of, month_of, seconds_of, step_of

INTERPOLATIONS = ("nearest", "bilinear", "bicubic")
LEARNING = ("delta", "quantile", "regression", "bootstrap")
METHODS = (*INTERPOLATIONS, "lapse", *LEARNING)
ENSEMBLES = ("bootstrap",)
HALO = 2  # coarse cells around a tile that a method may look at
_DRY = 1e-3  # mm/day: a climatology below it makes no ratio


@dataclass(frozen=True)
class Place:
    """Where a method works: the target, which coarse cell each target cell lies in, and what is known there.

    `cell` `[*target.shape]` counts coarse cells row by row, -1 for none. `mask` `[*target.shape]`: cells wanted.
    """

    target: Grid
    cell: np.ndarray
    mask: np.ndarray
    statics_coarse: Statics | None = None
    statics_target: Statics | None = None


@dataclass(frozen=True)
class Past:
    """Fine fields `[T, C, *target.shape]` of a past period, and the coarse ones `[T, C, H, W]` of the same times."""

    fine: Fields
    coarse: Fields


def interpolated(coarse: Fields, place: Place, method: str) -> np.ndarray:
    """nearest, bilinear or bicubic: `[T, C, *target.shape]`."""
    out = interpolate(coarse.values, coarse.grid, place.target, method, coarse.mask)  # type: ignore[arg-type]
    return clip(out, coarse.names)


def lapse(coarse: Fields, place: Place) -> np.ndarray:
    """Bilinear, and temperatures moved along the standard atmosphere's -6.5 K/km from the coarse to the fine height."""
    if place.statics_coarse is None or place.statics_target is None:
        raise UserError("the lapse rate needs the height of the coarse and of the fine cells; give --orography FILE")
    out = interpolated(coarse, place, "bilinear")
    base = interpolate(place.statics_coarse.orography, coarse.grid, place.target)
    shift = LAPSE_RATE * (place.statics_target.orography - base)
    for c, name in enumerate(coarse.names):
        if name in ("t2m", "d2m"):
            out[:, c] += shift
    return out


def clip(values: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """`[..., C, *shape]` with precipitation at least 0."""
    for c, name in enumerate(names):
        if name in NON_NEGATIVE:
            np.maximum(values[:, c], 0.0, out=values[:, c])
    return values


def conserved(values: np.ndarray, coarse: Fields, place: Place) -> np.ndarray:
    """`[..., T, C, *target.shape]` moved so that its means over coarse cells are the coarse values."""
    area = area_weights(place.target, place.mask).ravel()
    shape = values.shape
    flat = values.reshape(*shape[: -len(place.target.shape)], -1)
    want = coarse.values.reshape(*coarse.values.shape[:2], -1)
    out = np.empty(flat.shape)
    for c, name in enumerate(coarse.names):
        goal = np.broadcast_to(want[:, c], (*flat.shape[:-2], want.shape[-1]))
        out[..., c, :] = conserve_cells(flat[..., c, :], goal, place.cell.ravel(), area, name in NON_NEGATIVE)
    return out.reshape(shape)


# --- what the past teaches


def season_kind(times: Sequence[str]) -> Literal["month", "hour"]:
    """By what a climatology is split: the month, or the hour of day for sub-daily data of less than a year."""
    step = step_of(times)
    span = seconds_of(times[-1]) - seconds_of(times[0])
    return "hour" if step is not None and step < 0.9 * DAY and span < 330 * DAY else "month"


def seasons(times: Sequence[str], kind: Literal["month", "hour"]) -> np.ndarray:
    """Season number `[T]`: 0-11 or 0-23."""
    return np.array([month_of(t) if kind == "month" else hour_of(t) for t in times])


def climatology(values: np.ndarray, season: np.ndarray, number: int) -> np.ndarray:
    """Mean `[number, ...]` of each season; a season without data has the mean of all."""
    return np.stack([values[season == k].mean(0) if (season == k).any() else values.mean(0) for k in range(number)])


def delta(coarse: Fields, place: Place, past: Past) -> np.ndarray:
    """Fine climatology plus the interpolated coarse anomaly; for precipitation times their ratio.

    The spatial step of BCSD (Wood et al. 2004), climatologies by month, or by hour of day for short records.
    """
    kind = season_kind(past.fine.times)
    number = 12 if kind == "month" else 24
    then, now = seasons(past.fine.times, kind), seasons(coarse.times, kind)
    fine, base = climatology(past.fine.values, then, number), climatology(past.coarse.values, then, number)[now]
    change = coarse.values - base
    for c, name in enumerate(coarse.names):
        if name in NON_NEGATIVE:
            change[:, c] = coarse.values[:, c] / np.maximum(base[:, c], _DRY)
    out = interpolate(change, coarse.grid, place.target, "bilinear", coarse.mask & past.coarse.mask)
    for c, name in enumerate(coarse.names):
        out[:, c] = out[:, c] * fine[now, c] if name in NON_NEGATIVE else out[:, c] + fine[now, c]
    return clip(out, coarse.names)


def quantile(coarse: Fields, place: Place, past: Past) -> np.ndarray:
    """Bilinear, then every cell's values moved from the distribution of its interpolated past to its fine past.

    Empirical quantile mapping by season (Panofsky and Brier 1968); beyond the past's ends the end's own correction
    holds, a shift or for precipitation a factor.
    """
    kind = season_kind(past.fine.times)
    then, now = seasons(past.fine.times, kind), seasons(coarse.times, kind)
    out = interpolated(coarse, place, "bilinear")
    before = interpolated(past.coarse, place, "bilinear")
    for season in np.unique(now):
        own = then == season if (then == season).sum() >= 10 else np.ones(len(then), bool)
        here = now == season
        for c, name in enumerate(coarse.names):
            out[here, c] = map_quantiles(out[here, c], before[own, c], past.fine.values[own, c], name in NON_NEGATIVE)
    return clip(out, coarse.names)


def map_quantiles(values: np.ndarray, source: np.ndarray, target: np.ndarray, ratio: bool = False) -> np.ndarray:
    """Values `[N, ...]` carried from the distribution of `source` `[T, ...]` to that of `target` `[T', ...]`, by cell.

    Between the quantiles at most 100 nodes apart linearly; beyond the ends by the shift (or factor) of the end.
    """
    nodes = min(len(source), len(target), 100)
    q = (np.arange(nodes) + 0.5) / nodes
    flat = values.reshape(len(values), -1)
    a, b = (np.quantile(x.reshape(len(x), -1), q, axis=0, method="hazen") for x in (source, target))
    cell = np.arange(flat.shape[1])
    out = np.empty(flat.shape)
    for n, x in enumerate(flat):
        low = np.clip((a <= x).sum(0) - 1, 0, max(nodes - 2, 0))
        high = np.minimum(low + 1, nodes - 1)
        x0, x1, y0, y1 = a[low, cell], a[high, cell], b[low, cell], b[high, cell]
        inner = y0 + np.clip((x - x0) / np.where(x1 > x0, x1 - x0, 1.0), 0.0, 1.0) * (y1 - y0)
        for beyond, end in ((x < a[0], 0), (x > a[-1], -1)):
            scaled = ratio & (a[end] > _DRY)
            moved = np.where(scaled, x * b[end] / np.where(scaled, a[end], 1.0), x + b[end] - a[end])
            inner = np.where(beyond, moved, inner)
        out[n] = inner
    return out.reshape(values.shape)


def bootstrap_times(seed: int, members: Sequence[int], time: str, number: int) -> np.ndarray:
    """Which past time `[M]` each member of a time takes its residual field from: by seed, member and time stamp."""
    return np.array([int(key(seed, m, "bootstrap", time)) % number for m in members])


def coarsened(fine: Fields, factor: int) -> Fields:
    """Fine fields as coarse ones: cosine-latitude means of factor x factor blocks over the cells that are valid.

    What does not fill a block at the southern and eastern rim is left out.
    """
    rows, columns = (n // factor * factor for n in fine.grid.shape)
    whole = fine.crop(slice(rows), slice(columns))
    values = block_mean(whole.values, area_weights(whole.grid, whole.mask), factor)
    mask = np.asarray(whole.mask.reshape(rows // factor, factor, columns // factor, factor).any((1, 3)))
    return replace(fine, values=values, mask=mask, grid=coarsen(whole.grid, factor))
