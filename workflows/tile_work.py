"""What one tile of a downscaling takes: the same function here, in a process of a pool and on a cluster.

Everything a tile needs travels with it (its coarse fields with their rim) or is found again by name (a model, a
reference of the past, the ground); what is found is kept for the next tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import xarray as xr

from sciconsist.domains.climate import baselines
from sciconsist.domains.climate.baselines import ENSEMBLES, LEARNING, Past, Place
from sciconsist.domains.climate.fields import Fields, Grid, Statics
from sciconsist.domains.climate.files import Source, open_source
from sciconsist.domains.climate.grids import area_weights, average_to, block_mean, refine
from sciconsist.domains.climate.orography import read_statics, shipped, statics_on
from sciconsist.domains.climate.tiles import cell_owners, nested_owners
from sciconsist.errors import UserError

Key = tuple[tuple[float, ...], tuple[float, ...], tuple[float, float], bool]


class Held:
    """A dataset in place of a file's name; two are the same only if they are one object."""

    def __init__(self, dataset: xr.Dataset) -> None:
        self.dataset = dataset

    def __str__(self) -> str:
        return "a dataset"


@dataclass(frozen=True)
class Job:
    """What all tiles of a request share. `nested`: fine cells a side in a coarse cell, None where they do not nest."""

    method: str
    members: tuple[int, ...]
    seed: int
    steps: int
    conserve: bool
    nested: int | None
    model: str | None = None
    device: str | None = None
    reference: str | Held | None = None
    orography: str | Held | None = None

    @property
    def count(self) -> int:
        """Members that are written: one for a method that gives one."""
        return len(self.members) if self.method in ("flow", *ENSEMBLES) else 1


@dataclass(frozen=True)
class Task:
    """One tile at some times. `core` is the block of the coarse fields (rows, columns) that the target lies in."""

    job: Job
    coarse: Fields
    core: tuple[slice, slice]
    target: Grid
    cell: np.ndarray
    mask: np.ndarray
    heights: np.ndarray | None = None  # of stations, m


def work(task: Task) -> np.ndarray:
    """Members of the tile, `[M, T, C, *target.shape]` float32, NaN outside the mask."""
    job, coarse = task.job, task.coarse
    if job.nested is not None and job.method in ("flow", *LEARNING):
        wide = wide_place(job.nested, coarse)
        values = cropped(_make(job, coarse, with_ground(job, coarse.grid, wide)), coarse.grid, wide.target, task.core)
    else:
        place = Place(task.target, task.cell, task.mask)
        values = _make(job, coarse, with_ground(job, coarse.grid, place, task.heights))
    return np.where(task.mask, values, np.nan).astype(np.float32)


def _make(job: Job, coarse: Fields, place: Place) -> np.ndarray:
    if job.method == "flow":
        from sciconsist.domains.climate.generate import generate

        return generate(
            model_of(job.model, job.device), coarse, place.target, statics_coarse=place.statics_coarse,
            statics_target=place.statics_target, members=job.members, steps=job.steps, seed=job.seed,
            conserve=job.conserve,
        )  # fmt: skip
    if job.method in ("regression", "bootstrap"):
        fitted, place = regression_of(job, key_of(coarse.grid), coarse.names, place)
        boot = job.method == "bootstrap"
        values = fitted.bootstrap(coarse, job.members, job.seed) if boot else fitted.predict(coarse)[None]
        return np.where(place.mask, values, np.nan)
    if job.method in LEARNING:
        past = past_of(job, key_of(coarse.grid), coarse.names, place.target if job.nested is None else None)
        place = replace(place, mask=place.mask & past.fine.mask)
        values = getattr(baselines, job.method)(coarse, place, past)
    elif job.method == "lapse":
        values = baselines.lapse(coarse, place)
    else:
        values = baselines.interpolated(coarse, place, job.method)
    if job.conserve and place.target.kind != "points":
        values = baselines.conserved(values, coarse, place)
    return np.where(place.mask, values, np.nan)[None]


def wide_place(factor: int, coarse: Fields) -> Place:
    """All fine cells of the coarse fields, rim and what lies over a pole included."""
    target = refine(coarse.grid, factor, over_poles=True)
    cell = nested_owners(coarse.grid, target)
    assert cell is not None
    return Place(target, cell, coarse.mask.repeat(factor, 0).repeat(factor, 1) & (area_weights(target) > 0))


def cropped(values: np.ndarray, coarse: Grid, wide: Grid, core: tuple[slice, slice]) -> np.ndarray:
    """The block of fine cells that lie in the core and not beyond a pole."""
    factor = wide.shape[0] // coarse.shape[0]
    rows, columns = (
        slice(start * factor, stop * factor)
        for start, stop, _ in (part.indices(n) for part, n in zip(core, coarse.shape))
    )
    values = values[..., rows, columns]
    return values[..., np.abs(wide.lat[rows]) <= 90 + 1e-6, :] if wide.kind == "rectilinear" else values


# --- what is found again by name


def with_ground(job: Job, coarse: Grid, place: Place, heights: np.ndarray | None = None) -> Place:
    """The place with the height of the ground, where the method looks at it."""
    if job.method not in ("flow", "lapse"):
        return place
    ground = ground_of(job.orography)
    fine = statics_on(place.target, ground)
    if heights is not None:
        fine = Statics(heights.astype(np.float32), fine.land_sea_mask)
    return replace(place, statics_coarse=statics_on(coarse, ground), statics_target=fine)


@lru_cache(maxsize=2)
def ground_of(orography: str | Held | None) -> tuple[Grid, Statics]:
    if orography is None:
        return shipped()
    return read_statics(orography.dataset if isinstance(orography, Held) else orography)


@lru_cache(maxsize=2)
def model_of(name: str | None, device: str | None) -> Any:
    from sciconsist.workflows.devices import on_device
    from sciconsist.workflows.models import DEFAULTS, load_for

    if name is None and "climate" not in DEFAULTS:
        raise UserError("no climate model comes with this version: name one with --model, or choose another --method")
    return on_device(load_for("climate", name), device)


@lru_cache(maxsize=2)
def reference_of(reference: str | Held, names: tuple[str, ...]) -> Source:
    """The fine data of the past. Raises UserError when it lacks a variable."""
    return open_source(reference.dataset if isinstance(reference, Held) else reference, names)


def key_of(grid: Grid) -> Key:
    """A grid as something that can be looked up."""
    return tuple(grid.lat.ravel().tolist()), tuple(grid.lon.ravel().tolist()), grid.cell, grid.periodic


def grid_of(key: Key) -> Grid:
    return Grid(np.array(key[0]), np.array(key[1]), key[2], key[3])


@lru_cache(maxsize=1)
def _nested_past(job: Job, key: Key, names: tuple[str, ...]) -> Past:
    assert job.nested is not None
    return _past(job, grid_of(key), names, job.nested)


def past_of(job: Job, key: Key, names: tuple[str, ...], target: Grid | None) -> Past:
    """Past fields of a tile: on its own fine lattice, or brought to a target that does not nest."""
    assert job.reference is not None
    if target is None:
        return _nested_past(job, key, names)
    source = reference_of(job.reference, names)
    coarse = grid_of(key)
    factor = max(1, round(coarse.cell[0] / source.axes.grid.cell[0]))
    past = _past(job, coarse, names, factor)
    fine = past.fine
    values = baselines.interpolate(fine.values, fine.grid, target, "bilinear", fine.mask)
    mask = np.isfinite(values).all((0, 1))
    return Past(replace(fine, values=np.nan_to_num(values), grid=target, mask=mask), past.coarse)


def _past(job: Job, coarse: Grid, names: tuple[str, ...], factor: int) -> Past:
    assert job.reference is not None
    source = reference_of(job.reference, names)
    lattice = refine(coarse, factor, over_poles=True)
    fine = on_lattice(source, lattice, names)
    weights = area_weights(lattice, fine.mask)
    values = block_mean(fine.values, weights, factor)
    known = np.isfinite(values).all((0, 1))
    return Past(fine, replace(fine, values=values, grid=coarse, mask=known))


def on_lattice(source: Source, lattice: Grid, names: Sequence[str]) -> Fields:
    """Fields of all times of a source on a lattice: as they are where cells agree, else averaged or interpolated."""
    own = source.axes.grid
    box = _box(own, lattice)
    fields = source.read(names=names, box=box)
    rows, columns = _matching(fields.grid.lat, lattice.lat), _matching(fields.grid.lon, lattice.lon, 360.0)
    values: np.ndarray = np.full((*fields.values.shape[:2], *lattice.shape), np.nan)
    if rows is not None and columns is not None:
        down, across = np.ix_(rows >= 0, columns >= 0)
        row, column = np.ix_(rows[rows >= 0], columns[columns >= 0])
        values[..., down, across] = fields.values[..., row, column]
    elif fields.mask.all():
        near = cell_owners(fields.grid, lattice) >= 0
        values[..., near] = average_to(fields.values, fields.grid, lattice)[..., near]
    else:
        near = cell_owners(fields.grid, lattice) >= 0
        values[..., near] = baselines.interpolate(fields.values, fields.grid, lattice, mask=fields.mask)[..., near]
    return replace(fields, values=values, grid=lattice, mask=np.isfinite(values).all((0, 1)))


def _box(own: Grid, lattice: Grid) -> tuple[slice, slice]:
    """Rows and columns of a grid that a lattice needs, with two to spare; all columns of a globe."""
    reach = 2 * max(*own.cell, *lattice.cell)
    rows = np.flatnonzero((own.lat <= lattice.lat.max() + reach) & (own.lat >= lattice.lat.min() - reach))
    if not len(rows):
        rows = np.arange(len(own.lat))
    columns = np.arange(len(own.lon))
    if not own.periodic:
        offset = (own.lon - lattice.lon.mean() + 180.0) % 360.0 - 180.0
        half = (lattice.lon.max() - lattice.lon.min()) / 2 + reach
        near = np.flatnonzero(np.abs(offset) <= half)
        columns = near if len(near) >= 2 else columns
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _matching(own: np.ndarray, wanted: np.ndarray, turn: float | None = None) -> np.ndarray | None:
    """Index of each wanted centre among a file's own, -1 outside; None when the cells are others."""
    distance = np.abs(own[None, :] - wanted[:, None])
    if turn is not None:
        distance = np.minimum(distance % turn, turn - distance % turn)
    width = abs(wanted[-1] - wanted[0]) / max(1, len(wanted) - 1)
    nearest = distance.argmin(1)
    off = distance[np.arange(len(wanted)), nearest]
    matched = off < 0.02 * width
    outside = off > 0.5 * width
    return np.where(matched, nearest, -1) if (matched | outside).all() and matched.any() else None


@lru_cache(maxsize=1)
def _regression(job: Job, key: Key, names: tuple[str, ...]) -> Any:
    from sciconsist.domains.climate.regression import Regression

    past = _nested_past(job, key, names)
    assert job.nested is not None
    target = past.fine.grid
    cell = nested_owners(past.coarse.grid, target)
    assert cell is not None
    return Regression(past, Place(target, cell, past.fine.mask))


def regression_of(job: Job, key: Key, names: tuple[str, ...], place: Place) -> tuple[Any, Place]:
    """The regression fitted to a tile's past, and its place."""
    fitted = _regression(job, key, names)
    return fitted, replace(place, mask=place.mask & fitted.place.mask)
