"""Grids: finer ones, weights of area, and values carried from one to another.

Interpolation is local (two cells a side at most) and knows nothing of where an array starts: a tile with its rim
gives what the whole gives.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from scipy import sparse
from scipy.spatial import Delaunay, cKDTree

from .fields import Grid

Method = Literal["nearest", "bilinear", "bicubic"]
_ROUND = 9  # decimals of a degree: 0.1 mm, so that the same place is the same number however it was computed


def refine_axis(axis: np.ndarray, factor: float) -> np.ndarray:
    """Centres of the cells that split `axis` `[n]`: `floor(n factor)` of them, float64, evenly within each cell.

    Works in index space, so uneven axes (Gaussian latitudes) stay uneven. A single cell cannot be split.
    """
    n = len(axis)
    place = (np.arange(int(np.floor(n * factor + 1e-6))) + 0.5) / factor - 0.5
    low = np.clip(np.floor(place).astype(int), 0, max(n - 2, 0))
    x = np.asarray(axis, np.float64)
    return np.round(x[low] + (place - low) * (x[low + 1] - x[low]), _ROUND)


def refine(grid: Grid, factor: float, over_poles: bool = False) -> Grid:
    """The grid whose cells are `factor` times smaller each way and fill the same area.

    A whole number nests: every cell is split in factor x factor. Cells whose centre would lie beyond a pole are left
    out, unless `over_poles` keeps them, without area, so that a row centred on the pole nests too. A factor that
    does not divide the globe keeps it periodic by rounding the number of cells.
    """
    cell = (grid.cell[0] / factor, grid.cell[1] / factor)
    if grid.kind == "curvilinear":
        lon = np.unwrap(np.unwrap(grid.lon, period=360, axis=0), period=360, axis=1)
        lat, lon = (_refine_plane(plane, factor) for plane in (grid.lat, lon))
        return replace(grid, lat=lat, lon=lon, cell=cell)
    lat = refine_axis(grid.lat, factor)
    if not over_poles:
        lat = lat[np.abs(lat) <= 90 + 1e-6]
    if grid.periodic:
        number = round(len(grid.lon) * factor)
        exact = len(grid.lon) * grid.cell[1] / number
        lon = np.round(grid.lon[0] - grid.cell[1] / 2 + exact * (np.arange(number) + 0.5), _ROUND)
        return replace(grid, lat=lat, lon=lon, cell=(cell[0], exact))
    return replace(grid, lat=lat, lon=refine_axis(grid.lon, factor), cell=cell)


def _refine_plane(plane: np.ndarray, factor: float) -> np.ndarray:
    rows = np.stack([refine_axis(column, factor) for column in plane.T], 1)
    return np.stack([refine_axis(row, factor) for row in rows])


def coarsen(grid: Grid, factor: int) -> Grid:
    """The grid whose cells are blocks of factor x factor cells; what does not fill a block is left out."""
    rows, columns = (n // factor for n in grid.shape)
    lat, lon = grid.lat, grid.lon
    cell = (grid.cell[0] * factor, grid.cell[1] * factor)
    if grid.kind == "curvilinear":
        box = (slice(rows * factor), slice(columns * factor))
        lat, lon = (a[box].reshape(rows, factor, columns, factor).mean((1, 3)) for a in (lat, lon))
        return replace(grid, lat=lat, lon=lon, cell=cell)
    lat, lon = (np.round(a[: n * factor].reshape(n, factor).mean(1), _ROUND) for a, n in ((lat, rows), (lon, columns)))
    return replace(grid, lat=lat, lon=lon, cell=cell, periodic=grid.periodic and len(grid.lon) == columns * factor)


def area_weights(grid: Grid, mask: np.ndarray | None = None) -> np.ndarray:
    """Cosine of latitude in the shape of a field, 0 outside the mask; a cell cut by a pole has its part of area."""
    lat = np.abs(grid.mesh()[0])
    half = grid.cell[0] / 2
    if grid.kind == "rectilinear" and half > 0:
        north, south = np.minimum(lat + half, 90.0), np.maximum(lat - half, -90.0)
        weights = (np.sin(np.deg2rad(north)) - np.sin(np.deg2rad(south))) / (2 * np.sin(np.deg2rad(half)))
        weights = np.where(lat - half < 90.0, weights, 0.0)
    else:
        weights = np.cos(np.deg2rad(lat))
    return weights if mask is None else np.where(mask, weights, 0.0)


def block_mean(values: np.ndarray, weights: np.ndarray, factor: int) -> np.ndarray:
    """Weighted means `[..., H/factor, W/factor]` of blocks, over cells of weight above 0; NaN where there is none.

    Raises ValueError when the blocks do not fill the field.
    """
    *front, height, width = values.shape
    if height % factor or width % factor:
        raise ValueError(f"a field of {height} x {width} cells does not divide into blocks of {factor}")
    split = (height // factor, factor, width // factor, factor)
    w = weights.reshape(split)
    total = np.where(w > 0, values.reshape(*front, *split), 0.0) * w
    with np.errstate(invalid="ignore", divide="ignore"):
        return total.sum((-3, -1)) / w.sum((1, 3))


# --- interpolation


@dataclass(frozen=True)
class Carry:
    """A linear map from one grid to another: a matrix for rows and one for columns, or one for all cells."""

    matrices: tuple[Any, ...]
    shape: tuple[int, ...]

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """`[..., *source]` to `[..., *target]`, float64."""
        if len(self.matrices) == 2:
            rows, columns = self.matrices
            return rows @ values @ columns.T
        flat = values.reshape(-1, self.matrices[0].shape[1])
        front = values.shape[: values.ndim - 2]
        return np.asarray(self.matrices[0] @ flat.T).T.reshape(*front, *self.shape)


def interpolate(
    values: np.ndarray, source: Grid, target: Grid, method: Method = "bilinear", mask: np.ndarray | None = None
) -> np.ndarray:
    """Values `[..., *source.shape]` on another grid, `[..., *target.shape]` float64.

    Beyond the outermost centres the nearest ones count. Cells outside `mask` do not take part: their weight goes
    to the others, and a target cell with nothing near is NaN. Bicubic (Keys 1981, a = -1/2) turns to bilinear
    where one of its sixteen cells is missing.
    """
    carry = carrier(source, target, method)
    if mask is None or mask.all():
        return carry(np.asarray(values, np.float64))
    filled = np.where(mask, values, 0.0).astype(np.float64)
    near = carry if method != "bicubic" else carrier(source, target, "bilinear")
    share = near(mask.astype(np.float64))
    with np.errstate(invalid="ignore", divide="ignore"):
        out = np.where(share > 1e-9, near(filled) / share, np.nan)
    if method == "bicubic":
        whole = _all_present(carry, mask)
        out = np.where(whole, carry(filled), out)
    return out


def _all_present(carry: Carry, mask: np.ndarray) -> np.ndarray:
    """Where every cell that a map touches is in the mask."""
    touched = Carry(tuple(abs(m) for m in carry.matrices), carry.shape)
    return touched((~mask).astype(np.float64)) < 1e-12


def carrier(source: Grid, target: Grid, method: Method) -> Carry:
    """The map that `interpolate` applies; rows and columns apart between rectilinear grids."""
    if source.kind == "rectilinear" and target.kind == "rectilinear":
        rows = axis_matrix(source.lat, target.lat, False, method)
        columns = axis_matrix(source.lon, target.lon, source.periodic, method)
        return Carry((rows, columns), target.shape)
    if source.kind == "rectilinear":
        lat, lon = (a.ravel() for a in target.mesh())
        rows = sparse.csr_matrix(axis_matrix(source.lat, lat, False, method))
        columns = sparse.csr_matrix(axis_matrix(source.lon, lon, source.periodic, method))
        return Carry((_row_products(rows, columns),), target.shape)
    return Carry((_scattered(source, target, method),), target.shape)


def axis_matrix(source: np.ndarray, target: np.ndarray, periodic: bool, method: Method) -> np.ndarray:
    """Weights `[n_target, n_source]` along one axis; degrees, `source` in either order. `periodic`: 360 degrees."""
    x = np.asarray(source, np.float64)
    n, m = len(x), len(target)
    if n == 1:
        return np.ones((m, 1))
    place = _index(x, np.asarray(target, np.float64), periodic)
    out = np.zeros((m, n))
    row = np.arange(m)
    if method == "nearest":
        offsets, weights = [np.floor(place + 0.5).astype(int)], [np.ones(m)]
    else:
        low = np.floor(place).astype(int)
        t = place - low
        if method == "bilinear":
            offsets, weights = [low, low + 1], [1 - t, t]
        else:
            offsets = [low + k for k in (-1, 0, 1, 2)]
            weights = [_keys(t + 1), _keys(t), _keys(1 - t), _keys(2 - t)]
    for k, w in zip(offsets, weights):
        np.add.at(out, (row, k % n if periodic else np.clip(k, 0, n - 1)), w)
    return out


def _index(x: np.ndarray, target: np.ndarray, periodic: bool) -> np.ndarray:
    """Fractional index of targets on an axis, clamped to it unless it goes around."""
    n = len(x)
    if periodic:
        step = 360.0 / n
        place = ((target - x[0]) / step) % n
        return np.round(place, 9) % n
    turn = 360.0 if np.abs(x).max() > 90 or np.abs(target).max() > 90 else None
    if turn:  # longitudes of another convention: the copy nearest to the axis' middle
        middle = (x[0] + x[-1]) / 2
        target = target - turn * np.round((target - middle) / turn)
    order = slice(None) if x[-1] > x[0] else slice(None, None, -1)
    place = np.interp(target, x[order], np.arange(n, dtype=np.float64)[order])
    return np.round(place, 9)


def _keys(t: np.ndarray, a: float = -0.5) -> np.ndarray:
    """Keys' cubic convolution kernel for distances 0 <= t <= 2 (Keys 1981, eq. 15)."""
    near = (a + 2) * t**3 - (a + 3) * t**2 + 1
    far = a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
    return np.where(t <= 1, near, far)


def _row_products(rows: Any, columns: Any) -> Any:
    """Sparse `[P, H W]`: row p is the outer product of row p of `[P, H]` and of `[P, W]`, flattened."""
    width = columns.shape[1]
    r, c = rows.tocoo(), columns.tocsr()
    counts = np.diff(c.indptr)[r.row]
    pick = np.concatenate([np.arange(c.indptr[p], c.indptr[p + 1]) for p in r.row]) if len(r.row) else np.zeros(0, int)
    row = np.repeat(r.row, counts)
    column = np.repeat(r.col, counts) * width + c.indices[pick]
    return sparse.csr_matrix(
        (np.repeat(r.data, counts) * c.data[pick], (row, column)), (rows.shape[0], rows.shape[1] * width)
    )


def _scattered(source: Grid, target: Grid, method: Method) -> Any:
    """Weights from the centres of a curvilinear grid: nearest, or linear in the triangle a target lies in."""
    centre = (float(np.mean(source.lat)), float(np.mean(source.lon)))
    points = _plane(*source.mesh(), centre)
    wanted = _plane(*target.mesh(), centre)
    nearest = cKDTree(points).query(wanted)[1]
    rows = np.arange(len(wanted))
    size = (len(wanted), len(points))
    if method == "nearest":
        return sparse.csr_matrix((np.ones(len(rows)), (rows, nearest)), size)
    mesh = Delaunay(points)
    triangle = mesh.find_simplex(wanted, tol=1e-9)
    inside = triangle >= 0
    corner = mesh.transform[triangle[inside]]
    b = np.einsum("pij,pj->pi", corner[:, :2], wanted[inside] - corner[:, 2])
    weight = np.concatenate([b, 1 - b.sum(1, keepdims=True)], 1)
    row = np.concatenate([np.repeat(rows[inside], 3), rows[~inside]])
    column = np.concatenate([mesh.simplices[triangle[inside]].ravel(), nearest[~inside]])
    return sparse.csr_matrix((np.concatenate([weight.ravel(), np.ones((~inside).sum())]), (row, column)), size)


def _plane(lat: np.ndarray, lon: np.ndarray, centre: tuple[float, float]) -> np.ndarray:
    """Stereographic coordinates `[N, 2]` about a centre: circles stay circles, triangles nearly so."""
    phi, lam = np.deg2rad(np.ravel(lat)), np.deg2rad(np.ravel(lon) - centre[1])
    phi0 = np.deg2rad(centre[0])
    k = 2 / (1 + np.sin(phi0) * np.sin(phi) + np.cos(phi0) * np.cos(phi) * np.cos(lam))
    x = k * np.cos(phi) * np.sin(lam)
    y = k * (np.cos(phi0) * np.sin(phi) - np.sin(phi0) * np.cos(phi) * np.cos(lam))
    return np.stack([x, y], 1)


# --- means over cells


def overlap_matrix(source: np.ndarray, target: np.ndarray, size: tuple[float, float], periodic: bool) -> np.ndarray:
    """Share `[n_target, n_source]` of each target interval that source intervals cover; rows sum to 1 where any do.

    `size` is the width of source and target cells in degrees.
    """
    shift = np.asarray(source)[None, :] - np.asarray(target)[:, None]
    if periodic:
        shift = (shift + 180.0) % 360.0 - 180.0
    reach = (size[0] + size[1]) / 2
    cover = np.clip(reach - np.abs(shift), 0.0, min(size))
    total = cover.sum(1, keepdims=True)
    return cover / np.where(total > 0, total, 1.0)


def average_to(values: np.ndarray, source: Grid, target: Grid) -> np.ndarray:
    """Means of `[..., H, W]` over the cells of a coarser target; interpolated where the target is not coarser."""
    coarser = target.cell[0] > 1.25 * source.cell[0] and target.kind == source.kind == "rectilinear"
    if not coarser:
        return interpolate(values, source, target)
    rows = overlap_matrix(source.lat, target.lat, (source.cell[0], target.cell[0]), False)
    columns = overlap_matrix(source.lon, target.lon, (source.cell[1], target.cell[1]), True)
    weighted = rows * area_weights(source)[:, 0][None, :]
    weighted /= np.where((s := weighted.sum(1, keepdims=True)) > 0, s, 1.0)
    empty = (weighted.sum(1) == 0)[:, None] | (columns.sum(1) == 0)[None, :]  # beyond the source
    return np.where(empty, interpolate(values, source, target), weighted @ values @ columns.T)
