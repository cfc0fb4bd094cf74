"""What a downscaling asks for: the target of a factor, of another file's grid, or of a list of stations."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import xarray as xr

from sciconsist.errors import UserError

from .axes import find_spatial
from .fields import Grid
from .files import Source, open_dataset
from .grids import refine
from .output import Target, finer_target
from .tiles import cell_owners, nested_owners

SMALLEST, LARGEST = 1.0, 32.0  # factors
_STATION = {
    "lat": ("lat", "latitude", "y"), "lon": ("lon", "longitude", "long", "x"),
    "name": ("station", "id", "name", "station_id", "code"),
    "height": ("elevation", "height", "altitude", "alt", "z", "elev"),
}  # fmt: skip


def by_factor(source: Source, factor: float) -> tuple[Target, np.ndarray]:
    """Cells `factor` times smaller, and the coarse cell each lies in. Raises UserError."""
    if not SMALLEST < factor <= LARGEST:
        raise UserError(f"--factor {factor:g}: expected more than {SMALLEST:g} and at most {LARGEST:g}")
    coarse = source.axes.grid
    grid = refine(coarse, factor)
    cell = nested_owners(coarse, grid) if float(factor).is_integer() else None
    if cell is None:
        cell = cell_owners(coarse, grid)
    return finer_target(source, grid, factor), cell


def by_grid(source: Source, like: str | Path | xr.Dataset) -> tuple[Target, np.ndarray, np.ndarray]:
    """Another file's grid, the coarse cells, and the mask of the file's first variable (True where it has values).

    Dimensions keep the input's names; values, order and convention of the coordinates are the other file's.
    """
    data = like if isinstance(like, xr.Dataset) else open_dataset(like)
    label = "the grid's dataset" if isinstance(like, xr.Dataset) else str(like)
    fields = [str(n) for n in data.data_vars if data[n].ndim >= 2 and data[n].dtype.kind in "fiu"]
    if not fields:
        data, fields = _with_a_field(data, label)
    axes, data = find_spatial(data, fields[0], label)
    target = Target(
        axes.grid, (source.axes.y, source.axes.x), source.axes.lat, source.axes.lon, axes.flipped,
        {} if axes.native is None else {
            d: (d, v, {}) for d, v in zip((source.axes.y, source.axes.x), axes.native)
        },
    )  # fmt: skip
    cell = cell_owners(source.axes.grid, axes.grid)
    if not (cell >= 0).any():
        raise UserError(f"{label}: its grid does not touch the input's ({_extent(source.axes.grid)})")
    first = data[fields[0]]
    plane = first.isel({d: 0 for d in first.dims if d not in (axes.y, axes.x)}).transpose(axes.y, axes.x)
    values = axes.orient(np.asarray(plane.values))
    known = np.isfinite(values) if values.dtype.kind == "f" else np.ones(values.shape, bool)
    return target, cell, known if known.any() else np.ones(values.shape, bool)


def _with_a_field(data: xr.Dataset, label: str) -> tuple[xr.Dataset, list[str]]:
    """A file of coordinates alone gets an empty field on them."""
    dims = [d for d in data.dims if d in data.coords and data[d].ndim == 1 and not str(d).startswith("time")]
    if len(dims) < 2:
        raise UserError(f"{label}: no grid; expected latitude and longitude coordinates")
    shape = tuple(data.sizes[d] for d in dims[:2])
    return data.assign(sciconsist_grid=(dims[:2], np.zeros(shape, np.float32))), ["sciconsist_grid"]


def by_points(source: Source, path: str | Path) -> tuple[Target, np.ndarray, np.ndarray | None]:
    """Stations of a CSV file: columns lat, lon, and perhaps station and elevation (m), which comes third.

    Raises UserError: no such column, a line that is no place, no station inside the input's area.
    """
    names, lat, lon, height = read_stations(path)
    grid = Grid(lat, lon, (0.0, 0.0), False, "points")
    cell = cell_owners(source.axes.grid, grid)
    if not (cell >= 0).any():
        raise UserError(f"{path}: no station lies in the input's area ({_extent(source.axes.grid)})")
    coords = {
        "station": ("station", np.asarray(names, dtype=str), {"cf_role": "timeseries_id", "long_name": "station"})
    }
    if height is not None:
        coords["elevation"] = (
            "station", height,
            {"standard_name": "surface_altitude", "long_name": "height of the station", "units": "m"},
        )  # fmt: skip
    return Target(grid, ("station",), "lat", "lon", coords=coords), cell, height


def read_stations(path: str | Path) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray | None]:
    """Names, latitudes, longitudes and heights (None where the file has none). Raises UserError with the line."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected CSV with columns lat, lon, station, elevation")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: is no CSV text ({error})") from error
    have = {str(k).strip().lower(): k for k in (rows[0] if rows else {})}
    column = {key: next((have[n] for n in names if n in have), None) for key, names in _STATION.items()}
    if column["lat"] is None or column["lon"] is None:
        raise UserError(
            f"{path}: columns {', '.join(have) or 'none'}; expected lat and lon, and perhaps station, elevation"
        )
    numbers: dict[str, list[float]] = {"lat": [], "lon": [], "height": []}
    for line, row in enumerate(rows, 2):
        for key in numbers:
            own = column[key]
            if own is None:
                continue
            try:
                numbers[key].append(float(row[own]))
            except (TypeError, ValueError):
                raise UserError(f"{path}, line {line}: {own} is {row[own]!r}, expected a number") from None
        if not (abs(numbers["lat"][-1]) <= 90 and abs(numbers["lon"][-1]) <= 360):
            raise UserError(f"{path}, line {line}: {numbers['lat'][-1]:g}, {numbers['lon'][-1]:g} is no place on Earth")
    names = [str(row[column["name"]]) if column["name"] else str(k) for k, row in enumerate(rows)]
    height = np.asarray(numbers["height"]) if column["height"] else None
    return names, np.asarray(numbers["lat"]), np.asarray(numbers["lon"]), height


def _extent(grid: Grid) -> str:
    return f"{grid.lat.min():g} to {grid.lat.max():g} N, {grid.lon.min():g} to {grid.lon.max():g} E"
