"""Conservation: a fine field's area mean over every coarse cell is the coarse value.

Temperature, wind and pressure are corrected by a constant a cell (the orthogonal projection in the area's own
inner product), precipitation by a factor a cell, so that it stays non-negative. On a lattice (every coarse
cell is k x k fine ones) this runs inside training; on any other grid a fine cell belongs to the coarse cell
that its centre lies in.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

TRACE = 1e-4  # of the mean's own pattern is left in a share, so that a coarse cell's rain always has a place


def block_mean(x: Tensor, area: Tensor, factor: int) -> Tensor:
    """Area-weighted mean of `[B, C, H, W]` over factor x factor blocks: `[B, C, h, w]`; 0 where no area is."""
    total = functional.avg_pool2d(area, factor)
    return functional.avg_pool2d(x * area, factor) / total.clamp_min(1e-12)


def spread_out(x: Tensor, factor: int) -> Tensor:
    """A coarse field on the fine lattice: every block has its cell's value."""
    return x.repeat_interleave(factor, -2).repeat_interleave(factor, -1)


def zero_mean(detail: Tensor, area: Tensor, factor: int) -> Tensor:
    """Detail without its block means."""
    return detail - spread_out(block_mean(detail, area, factor), factor)


def shares(amount: Tensor, base: Tensor, coarse: Tensor, area: Tensor, factor: int) -> Tensor:
    """Non-negative `amount` scaled block by block to the `coarse` means; `base` says where, if all are zero."""
    amount = amount + TRACE * base
    mean = block_mean(amount, area, factor)
    flat = mean <= 1e-12  # nothing to scale: spread evenly
    ratio = torch.where(flat, torch.zeros_like(mean), coarse / torch.where(flat, torch.ones_like(mean), mean))
    rest = torch.where(flat, coarse, torch.zeros_like(coarse))
    return amount * spread_out(ratio, factor) + spread_out(rest, factor)


def conserve(
    fine: np.ndarray, coarse: np.ndarray, cell: np.ndarray, area: np.ndarray, share: bool, floor: float = 0.0
) -> np.ndarray:
    """The same in float64 on any grid: the last digits, and grids that are no lattice.

    `fine` `[..., N]`; `coarse` `[..., K]`; `cell` `[N]` is each fine cell's coarse cell, -1 for none; `area`
    `[N]`. Cells of no coarse cell, and those whose coarse value is missing, stay as they are.
    """
    inside = (cell >= 0) & (area > 0)
    index, weight = cell[inside], area[inside].astype(np.float64)
    total = np.bincount(index, weight, coarse.shape[-1])
    values, want = fine.reshape(-1, fine.shape[-1]), coarse.reshape(-1, coarse.shape[-1])
    out = values.astype(np.float64)
    for row in range(len(out)):
        here = np.maximum(out[row, inside], floor) if share else out[row, inside]
        mean = np.bincount(index, weight * here, coarse.shape[-1]) / np.where(total > 0, total, 1)
        goal = np.where(np.isfinite(want[row]), want[row], mean)
        if share:
            factor = np.where(mean > 0, goal / np.where(mean > 0, mean, 1), 0)
            out[row, inside] = np.where(mean[index] > 0, here * factor[index], goal[index])
        else:
            out[row, inside] = here + (goal - mean)[index]
    return out.reshape(fine.shape)


def owners(fine_lat: np.ndarray, fine_lon: np.ndarray, lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    """The cell of a rectilinear grid that each place lies in, row-major, -1 outside; `lat`, `lon` are centres."""
    rows, columns = nearest(lat, fine_lat), nearest(lon, wrap_near(fine_lon, lon))
    return np.where((rows >= 0) & (columns >= 0), rows * len(lon) + columns, -1)


def nearest(axis: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Index of the cell of a monotonic axis that holds x, -1 beyond half a cell from its ends."""
    if len(axis) == 1:
        return np.zeros(np.shape(x), int)
    step = np.diff(axis)
    edges = np.concatenate([[axis[0] - step[0] / 2], axis[:-1] + step / 2, [axis[-1] + step[-1] / 2]])
    sign = np.sign(step[0])
    slack = 1e-6 * abs(step[0])
    index = np.searchsorted(sign * edges, sign * np.asarray(x) + 1e-9, side="right") - 1
    inside = (sign * x >= sign * edges[0] - slack) & (sign * x <= sign * edges[-1] + slack)
    return np.where(inside, np.clip(index, 0, len(axis) - 1), -1)


def wrap_near(x: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Longitudes shifted by whole turns into the half-open turn around the middle of `axis`."""
    middle = (axis[0] + axis[-1]) / 2
    return np.asarray(x) - 360.0 * np.floor((np.asarray(x) - middle) / 360.0 + 0.5)
