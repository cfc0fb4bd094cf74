"""Where the axes of a file are: which dimension is time, latitude, longitude, and how it orders them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from sciconsist.errors import UserError

from .fields import Grid

_LAT = ("latitude", "lat", "nav_lat", "xlat", "lats")
_LON = ("longitude", "lon", "nav_lon", "xlong", "lons", "long")
_TIME = ("time", "valid_time", "t", "date")


@dataclass(frozen=True)
class Axes:
    """Names and order of the axes. `grid` is north first and eastward whatever the file has.

    `time` is a dimension and `stamp` the coordinate with its dates; `y`, `x` are dimensions and `lat`, `lon` the
    coordinates (of one dimension each, or both of two on a curvilinear grid). `native` holds the file's own y and
    x values where they are not degrees.
    """

    time: str
    stamp: str
    y: str
    x: str
    lat: str
    lon: str
    grid: Grid
    flipped: tuple[bool, bool]
    native: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def dims(self) -> tuple[str, str, str]:
        return self.time, self.y, self.x

    def orient(self, values: np.ndarray) -> np.ndarray:
        """`[..., y, x]` from the file's order to the grid's, or back."""
        rows, columns = (slice(None, None, -1) if flip else slice(None) for flip in self.flipped)
        return values[..., rows, columns]

    def in_file(self, box: tuple[slice, slice]) -> tuple[slice, slice]:
        """Rows and columns of the grid as the file counts them."""
        lengths = self.grid.shape
        turned = [turn(part, n) if flip else part for part, n, flip in zip(box, lengths, self.flipped)]
        return turned[0], turned[1]


def turn(part: slice, length: int) -> slice:
    """The slice that picks the same entries of an axis turned round."""
    start, stop, _ = part.indices(length)
    return slice(length - stop, length - start)


def find_axes(dataset: xr.Dataset, variables: Sequence[str], where: str) -> tuple[Axes, xr.Dataset]:
    """The axes that all `variables` share, and the dataset without dimensions of one entry beside them.

    Raises UserError: no time axis, no latitudes, latitudes out of order, a dimension too many.
    """
    first = variables[0]
    time, stamp, dataset = _time(dataset, first, where)
    found, dataset = find_spatial(dataset, first, where)
    axes = replace(found, time=time, stamp=stamp)
    kept = (time, axes.y, axes.x)
    dataset = dataset.squeeze([d for d in dataset[first].dims if d not in kept and dataset.sizes[d] == 1])
    for name in variables:
        extra = [f"{d} of {dataset.sizes[d]}" for d in dataset[name].dims if d not in kept]
        if extra:
            raise UserError(f"{where}: {name} has another dimension, {', '.join(extra)}; select one entry of it")
        lacking = [d for d in kept if d not in dataset[name].dims]
        if lacking:
            raise UserError(f"{where}: {name} has no dimension {lacking[0]}, which {first} has; choose --variables")
    return axes, dataset


def find_spatial(dataset: xr.Dataset, first: str, where: str) -> tuple[Axes, xr.Dataset]:
    """The same without time, of one variable; a rotated grid gets its `lat` and `lon`. Raises UserError."""
    lat, lon = _coordinate(dataset, first, _LAT, "lat"), _coordinate(dataset, first, _LON, "lon")
    if lat is None or lon is None:
        dataset, lat, lon = _rotated(dataset, first, where)
    spatial = dataset[lat].dims if dataset[lat].ndim == 2 else (*dataset[lat].dims, *dataset[lon].dims)
    if len(spatial) != 2 or dataset[lat].ndim != dataset[lon].ndim:
        raise UserError(f"{where}: {lat} and {lon} have dimensions {dataset[lat].dims} and {dataset[lon].dims}; "
                        "expected one each, or the same two")  # fmt: skip
    y, x = map(str, spatial)
    grid, flipped, native = _grid(dataset, lat, lon, y, x, where)
    return Axes("", "", y, x, lat, lon, grid, flipped, native), dataset


def _time(dataset: xr.Dataset, first: str, where: str) -> tuple[str, str, xr.Dataset]:
    """Time's dimension and the coordinate with its dates; one time without a dimension gets one."""
    dims = dataset[first].dims
    dated = [str(n) for n in dataset.variables if _is_time(str(n), dataset[n])]
    for name in sorted(dated, key=lambda n: (n != "time", n != "valid_time")):
        if dataset[name].ndim == 1 and dataset[name].dims[0] in dims:
            return str(dataset[name].dims[0]), name, dataset.set_coords(name)
    for name in dated:
        if dataset[name].ndim == 0 and name in dataset.coords:
            return name, name, dataset.expand_dims(name)
    raise UserError(
        f"{where}: no time axis: {first} has dimensions {', '.join(map(str, dims)) or 'none'}; expected one with "
        "dates, such as time in 'days since 1900-01-01' (xarray: ds.expand_dims(time=[date]))"
    )


def _is_time(name: str, variable: xr.DataArray) -> bool:
    if variable.dtype.kind == "M":
        return not name.endswith(("_bnds", "_bounds"))
    if variable.dtype == object:
        return hasattr(np.ravel(variable.values[:1] if variable.ndim else variable.values)[0], "calendar")
    named = name.lower() in _TIME or variable.attrs.get("standard_name") == "time" or variable.attrs.get("axis") == "T"
    return named and variable.dtype.kind in "fiu" and variable.ndim == 1


def _coordinate(dataset: xr.Dataset, first: str, names: Sequence[str], short: str) -> str | None:
    """The coordinate of latitude or longitude along the dimensions of a variable."""
    standard, units = {"lat": ("latitude", "degrees_north"), "lon": ("longitude", "degrees_east")}[short]
    best: list[tuple[int, str]] = []
    for key, variable in dataset.variables.items():
        name = str(key)
        fits = variable.ndim in (1, 2) and set(variable.dims) <= set(dataset[first].dims)
        if not fits or name == first or variable.dtype.kind not in "fiu":
            continue
        if variable.attrs.get("standard_name") == standard:
            best.append((0, name))
        elif name.lower() in names and variable.attrs.get("standard_name") in (None, standard):
            best.append((1, name))
        elif str(variable.attrs.get("units", "")).lower() == units:
            best.append((2, name))
    return min(best)[1] if best else None


def _rotated(dataset: xr.Dataset, first: str, where: str) -> tuple[xr.Dataset, str, str]:
    """Adds `lat` and `lon` of a rotated pole grid whose grid mapping is there. Raises UserError otherwise."""
    mapping = dataset[first].attrs.get("grid_mapping") or dataset[first].encoding.get("grid_mapping")
    names = {dataset[n].attrs.get("standard_name"): str(n) for n in dataset.variables}
    rlat, rlon = names.get("grid_latitude"), names.get("grid_longitude")
    if mapping not in dataset.variables or rlat is None or rlon is None:
        dims = ", ".join(map(str, dataset[first].dims))
        hint = "a grid_mapping with the rotated pole" if rlat else "latitude and longitude coordinates"
        raise UserError(f"{where}: no latitudes and longitudes for {first} ({dims}); add {hint}")
    pole = dataset[mapping].attrs
    lat, lon = unrotate(
        dataset[rlat].values[:, None], dataset[rlon].values[None, :],
        float(pole.get("grid_north_pole_latitude", 90.0)), float(pole.get("grid_north_pole_longitude", 0.0)),
    )  # fmt: skip
    dims2 = (dataset[rlat].dims[0], dataset[rlon].dims[0])
    return dataset.assign_coords(lat=(dims2, lat), lon=(dims2, lon)), "lat", "lon"


def unrotate(rlat: np.ndarray, rlon: np.ndarray, pole_lat: float, pole_lon: float) -> tuple[np.ndarray, np.ndarray]:
    """True latitude and longitude of rotated coordinates, all degrees (CF-1.8, appendix F, rotated pole)."""
    phi, lam, theta = np.deg2rad(rlat), np.deg2rad(rlon), np.deg2rad(pole_lat)
    sine = np.sin(phi) * np.sin(theta) + np.cos(phi) * np.cos(lam) * np.cos(theta)
    east = np.cos(phi) * np.sin(lam)
    north = np.sin(phi) * np.cos(theta) - np.cos(phi) * np.cos(lam) * np.sin(theta)
    lon = pole_lon + np.rad2deg(np.arctan2(-east, north))
    return np.rad2deg(np.arcsin(np.clip(sine, -1, 1))), (lon + 180.0) % 360.0 - 180.0


def _grid(
    dataset: xr.Dataset, lat: str, lon: str, y: str, x: str, where: str
) -> tuple[Grid, tuple[bool, bool], tuple[np.ndarray, np.ndarray] | None]:
    lats, lons = (np.asarray(dataset[n].values, np.float64) for n in (lat, lon))
    for name, values in ((lat, lats), (lon, lons)):
        if not np.isfinite(values).all():
            raise UserError(f"{where}: {name} has missing or infinite values; every cell needs its place")
        if min(values.shape) < 2:
            raise UserError(f"{where}: {name} has {min(values.shape)} entry; expected at least 2 x 2 cells")
    if np.abs(lats).max() > 90.0 + 1e-3:
        raise UserError(f"{where}: {lat} goes to {lats[np.abs(lats).argmax() if lats.ndim == 1 else ...].max():g}; "
                        "expected -90 to 90 degrees")  # fmt: skip
    if lats.ndim == 2:
        return _curvilinear(dataset, lats, lons, y, x)
    lons = np.unwrap(lons, period=360.0)
    for name, values in ((lat, lats), (lon, lons)):
        step = np.diff(values)
        if not (np.all(step > 0) or np.all(step < 0)):
            place = int(np.argmax(np.sign(step) != np.sign(step[0]) if step[0] else step == 0))
            raise UserError(
                f"{where}: {name} is out of order after entry {place + 1} ({values[place]:g}, {values[place + 1]:g}); "
                f"sort it (xarray: ds.sortby('{name}'))"
            )
    flipped = (bool(lats[1] > lats[0]), bool(lons[1] < lons[0]))
    lats, lons = (np.round(a[::-1] if f else a, 9) for a, f in zip((lats, lons), flipped))
    width = round(float(lons[-1] - lons[0]) / (len(lons) - 1), 9)
    if np.abs(np.diff(lons) - width).max() > 0.05 * width:
        raise UserError(f"{where}: {lon} is not evenly spaced ({np.diff(lons).min():g} to {np.diff(lons).max():g}); "
                        "expected one spacing")  # fmt: skip
    periodic = abs(width * len(lons) - 360.0) < 0.01 * width
    if periodic:
        width = 360.0 / len(lons)
    height = round(float(lats[0] - lats[-1]) / (len(lats) - 1), 9)
    return Grid(lats, lons, (height, width), periodic), flipped, None


def _curvilinear(
    dataset: xr.Dataset, lats: np.ndarray, lons: np.ndarray, y: str, x: str
) -> tuple[Grid, tuple[bool, bool], tuple[np.ndarray, np.ndarray]]:
    """North is up where the first row lies north of the last."""
    flipped = (bool(lats[-1].mean() > lats[0].mean()), False)
    if flipped[0]:
        lats, lons = lats[::-1], lons[::-1]
    dlat = float(np.abs(np.diff(lats, axis=0)).mean())
    dlon = float(np.abs(np.diff(np.unwrap(lons, period=360.0, axis=1), axis=1)).mean())
    native = tuple(
        np.asarray(dataset[d].values, np.float64)
        if d in dataset.variables
        else np.arange(dataset.sizes[d], dtype=float)
        for d in (y, x)
    )
    if flipped[0]:
        native = (native[0][::-1], native[1])
    return Grid(lats, lons, (dlat, dlon), False, "curvilinear"), flipped, (native[0], native[1])
