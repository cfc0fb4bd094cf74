"""Blocks of work: which coarse cells and which target cells belong together, so that tiles give what the whole gives.

A tile is a block of coarse cells, with the target cells that lie in them and a rim of coarse cells to look at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import cKDTree

from .baselines import Place
from .conserve import owners
from .fields import Fields, Grid, Statics
from .grids import _plane

Box = tuple[slice, slice]


def cell_owners(coarse: Grid, target: Grid) -> np.ndarray:
    """The coarse cell `[*target.shape]` each target cell's centre lies in, counted row by row, -1 for none.

    Of a curvilinear coarse grid: the nearest cell, unless it is more than a cell away.
    """
    lat, lon = target.mesh()
    if coarse.kind == "rectilinear":
        return owners(lat, lon, coarse.lat, coarse.lon)
    centre = (float(coarse.lat.mean()), float(coarse.lon.mean()))
    points = _plane(*coarse.mesh(), centre)
    tree = cKDTree(points)
    spacing = np.median(tree.query(points, k=2)[0][:, 1])
    distance, index = tree.query(_plane(lat, lon, centre))
    return np.where(distance <= spacing, index, -1).reshape(target.shape)


def nested_owners(coarse: Grid, target: Grid) -> np.ndarray | None:
    """The same by index for a grid made by `refine` with a whole number; None when it does not nest so."""
    height, width = coarse.shape
    if len(target.shape) != 2 or target.shape[0] % height or target.shape[1] % width:
        return None
    index = np.arange(height * width).reshape(height, width)
    return index.repeat(target.shape[0] // height, 0).repeat(target.shape[1] // width, 1)


@dataclass(frozen=True)
class Tile:
    """`target` are the cells to make (rows and columns, or a run of points); `rows`, `columns` the coarse ones.

    `rows`, `columns` are indices with the rim, columns modulo the globe where it is periodic; `core` is the block
    of them that the target lies in.
    """

    target: Box
    rows: np.ndarray
    columns: np.ndarray
    core: Box


def tiles(coarse: Grid, target: Grid, cell: np.ndarray, size: int, halo: int) -> Iterator[Tile]:
    """Tiles of at most about `size` target cells a side (`size`^2 points), north to south and west to east.

    Targets that are no rectilinear grid in a rectilinear one cannot be cut along coarse cells: grids are one tile.
    """
    height, width = coarse.shape
    every = (slice(None), slice(None))
    if target.kind == "points" and coarse.kind == "rectilinear":
        for start in range(0, len(target.lat), size * size):
            part = slice(start, min(start + size * size, len(target.lat)))
            used = cell[part][cell[part] >= 0]
            if len(used):
                yield _around((part, slice(None)), used // width, used % width, coarse, halo)
        return
    if coarse.kind != "rectilinear" or target.kind != "rectilinear":
        yield Tile(every, np.arange(height), np.arange(width), every)
        return
    row_of, column_of = np.full(target.shape[0], -1), np.full(target.shape[1], -1)
    inside = cell >= 0
    if not inside.any():
        return
    some_column, some_row = inside.any(0).argmax(), inside.any(1).argmax()
    row_of[inside.any(1)] = cell[inside.any(1), some_column] // width
    column_of[inside.any(0)] = cell[some_row, inside.any(0)] % width
    for rows in _runs(row_of, size):
        for columns in _runs(column_of, size):
            yield _around((rows, columns), row_of[rows], column_of[columns], coarse, halo)


def _runs(owner: np.ndarray, size: int) -> Iterator[slice]:
    """Slices of an axis of target cells that end where a coarse cell ends, each at most `size` long if it can."""
    places = np.flatnonzero(owner >= 0)
    start = places[0]
    stop = places[-1] + 1
    ends = [k + 1 for k in range(start, stop) if k + 1 == stop or owner[k + 1] != owner[k]]
    while start < stop:
        fitting = [e for e in ends if start < e <= start + size]
        end = fitting[-1] if fitting else next(e for e in ends if e > start)
        yield slice(int(start), int(end))
        start = end


def _around(target: Box, rows: np.ndarray, columns: np.ndarray, coarse: Grid, halo: int) -> Tile:
    height, width = coarse.shape
    top, bottom = int(rows.min()), int(rows.max()) + 1
    first, last = max(0, top - halo), min(height, bottom + halo)
    if not coarse.periodic:
        left, right = int(columns.min()), int(columns.max()) + 1
        west, east = max(0, left - halo), min(width, right + halo)
    else:
        left, right = _shortest_arc(columns, width)
        west, east = left - halo, right + halo
        if east - west >= width:  # the rim meets itself: the whole globe
            return Tile(target, np.arange(first, last), np.arange(width), (slice(top - first, bottom - first),
                        slice(None)))  # fmt: skip
    core = (slice(top - first, bottom - first), slice(left - west, right - west))
    return Tile(target, np.arange(first, last), np.arange(west, east), core)


def _shortest_arc(columns: np.ndarray, width: int) -> tuple[int, int]:
    """First column and end of the shortest run on a circle that holds all columns."""
    used = np.unique(columns)
    gaps = np.diff(np.append(used, used[0] + width))
    widest = int(gaps.argmax())
    start = int(used[(widest + 1) % len(used)])
    return start, start + width - int(gaps[widest]) + 1


def cut(coarse: Fields, tile: Tile) -> Fields:
    """The coarse fields of a tile, longitudes continuous across the seam."""
    width = coarse.grid.shape[1]
    columns = tile.columns % width
    box = np.ix_(tile.rows, columns)
    grid = cut_grid(coarse.grid, tile)
    return replace(coarse, values=coarse.values[..., box[0], box[1]], mask=coarse.mask[box], grid=grid)


def cut_grid(grid: Grid, tile: Tile) -> Grid:
    """The coarse grid of a tile; periodic only when it is the whole globe in order."""
    width = grid.shape[1]
    columns = tile.columns % width
    if grid.kind == "curvilinear":
        box = np.ix_(tile.rows, columns)
        return replace(grid, lat=grid.lat[box], lon=grid.lon[box])
    whole = len(columns) == width and tile.columns[0] == 0
    lon = grid.lon[columns] + 360.0 * np.floor_divide(tile.columns, width)
    return replace(grid, lat=grid.lat[tile.rows], lon=lon, periodic=grid.periodic and whole)


def cut_place(place: Place, tile: Tile, coarse: Grid) -> Place:
    """The part of a place that a tile makes; `cell` counts the tile's own coarse cells."""
    target, cell = cut_target(place.target, tile), place.cell[_box(tile, place.cell)]
    width = coarse.shape[1]
    row = np.full(coarse.shape[0], -1)
    column = np.full(width, -1)
    row[tile.rows] = np.arange(len(tile.rows))
    column[tile.columns % width] = np.arange(len(tile.columns))
    own = np.where(cell >= 0, row[cell // width] * len(tile.columns) + column[cell % width], -1)
    statics = place.statics_coarse
    if statics is not None:
        box = np.ix_(tile.rows, tile.columns % width)
        statics = Statics(statics.orography[box], statics.land_sea_mask[box])
    fine = place.statics_target
    if fine is not None:
        part = _box(tile, fine.orography)
        fine = Statics(fine.orography[part], fine.land_sea_mask[part])
    return Place(target, own, place.mask[_box(tile, place.mask)], statics, fine)


def cut_target(target: Grid, tile: Tile) -> Grid:
    """The target cells of a tile."""
    if target.kind == "points":
        return replace(target, lat=target.lat[tile.target[0]], lon=target.lon[tile.target[0]])
    return target.crop(*tile.target)


def _box(tile: Tile, array: np.ndarray) -> tuple[slice, ...]:
    return tile.target[: array.ndim]
