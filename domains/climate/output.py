"""Writing fields as the CF conventions want them: NetCDF, Zarr or a dataset in memory, block by block.

`describe` makes the coordinates, bounds and attributes from the input's own and a target; the three sinks take
blocks `[M, T, C, *box]` in canonical units, in any order, and put them where they belong in the file's own unit,
latitude order and dimension names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import xarray as xr

from sciconsist.extras import need

from .axes import turn
from .fields import Grid
from .files import Source
from .grids import refine_axis
from .variables import STANDARD_NAMES, Conversion

FILL = np.float32(9.969209968386869e36)  # NetCDF's own fill value of float32
COMPRESSION: Final = 4
_KEPT = ("long_name", "standard_name", "units", "axis", "positive", "comment", "cell_methods")
_BOUNDS = "bnds"


@dataclass(frozen=True)
class Target:
    """What to write on. `grid` is north first; `flipped` says which axes the file has the other way round.

    `dims` are the dimensions in space, `lat` and `lon` the coordinates' names, `coords` further coordinates
    (a station's name, rotated axes) as xarray takes them.
    """

    grid: Grid
    dims: tuple[str, ...]
    lat: str
    lon: str
    flipped: tuple[bool, bool] = (False, False)
    coords: Mapping[str, Any] = field(default_factory=dict)

    def to_file(self, values: np.ndarray, box: tuple[slice, slice]) -> tuple[np.ndarray, tuple[slice, ...]]:
        """Values `[..., *box]` and their place, as the file orders its axes."""
        if self.grid.kind == "points":
            return values, (box[0],)
        parts = list(box)
        for axis, flip in enumerate(self.flipped):
            if flip:
                values = np.flip(values, axis - 2)
                parts[axis] = turn(parts[axis], self.grid.shape[axis])
        return values, tuple(parts)


@dataclass(frozen=True)
class Layout:
    """Everything of an output but its values: coordinates, and name, dimensions, unit and attributes by variable."""

    frame: xr.Dataset
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    target: Target
    names: tuple[str, ...]
    original: Mapping[str, str]
    conversions: Mapping[str, Conversion]
    attributes: Mapping[str, dict[str, Any]]


class Sink(Protocol):
    """Takes blocks of an output."""

    def write(self, values: np.ndarray, members: slice, times: slice, box: tuple[slice, slice]) -> None:
        """Values `[M, T, C, *box]` in canonical units."""

    def close(self) -> None:
        """Nothing more comes."""


# --- coordinates and attributes


def finer_target(source: Source, grid: Grid, factor: float) -> Target:
    """The target of a request for a factor: the source's own names, order and native axes, refined."""
    axes = source.axes
    coords: dict[str, Any] = {}
    if axes.native is not None:
        for dim, values in zip((axes.y, axes.x), axes.native):
            attrs = _attributes(source.dataset[dim].attrs) if dim in source.dataset.variables else {}
            coords[dim] = (dim, refine_axis(values, factor), attrs)
    return Target(grid, (axes.y, axes.x), axes.lat, axes.lon, axes.flipped, coords)


def describe(
    source: Source, target: Target, members: Sequence[int], provenance: Mapping[str, Any], command: str = ""
) -> Layout:
    """The frame of an output. `provenance` is written as global attributes after the source's own."""
    time = source.axes.time
    frame = xr.Dataset(coords={"realization": ("realization", np.asarray(members, np.int32))})
    frame["realization"].attrs = {"standard_name": "realization", "long_name": "ensemble member", "units": "1"}
    frame = _times(frame, source)
    frame = _places(frame, source, target)
    dims = ("realization", time, *target.dims)
    shape = (len(members), len(source.times), *target.grid.shape)
    attributes = {name: _variable(source, name, target) for name in source.names}
    frame.attrs = _global(source, provenance, command)
    return Layout(frame, dims, shape, target, source.names, source.original, source.conversions, attributes)


def _times(frame: xr.Dataset, source: Source) -> xr.Dataset:
    """Time and what runs along it (validity, lead time, bounds), units and calendar as they were."""
    data, axes = source.dataset, source.axes
    for key, variable in data.variables.items():
        name = str(key)
        bounds = variable.dims[:1] == (axes.time,) and name == _bounds_of(data, axes.stamp)
        if (variable.dims == (axes.time,) and variable.dtype.kind in "fiumMO" and name in data.coords) or bounds:
            if name in ("number", "expver"):
                continue
            copy = variable.copy()
            copy.attrs = {k: v for k, v in variable.attrs.items() if k in (*_KEPT, "bounds")}
            keep = ("units", "calendar", "dtype")
            copy.encoding = {k: v for k, v in variable.encoding.items() if k in keep and not bounds}
            frame[name] = copy
            if not bounds:
                frame = frame.set_coords(name)
    stamp = frame[axes.stamp]
    stamp.encoding |= {"dtype": "float64", "_FillValue": None}  # CF-1.8 knows no 64-bit integers
    stamp.attrs = {"standard_name": "time", "long_name": "time", "axis": "T"} | {
        k: v for k, v in stamp.attrs.items() if k not in ("units", "calendar")
    }
    return frame


def _bounds_of(data: xr.Dataset, name: str) -> str | None:
    found = data[name].attrs.get("bounds") or data[name].encoding.get("bounds")
    return str(found) if found in data.variables else None


def _places(frame: xr.Dataset, source: Source, target: Target) -> xr.Dataset:
    grid, data = target.grid, source.dataset
    named = {"lat": target.lat, "lon": target.lon}
    standard = {
        "lat": {"standard_name": "latitude", "long_name": "latitude", "units": "degrees_north"},
        "lon": {"standard_name": "longitude", "long_name": "longitude", "units": "degrees_east"},
    }
    for name, value in target.coords.items():
        frame = frame.assign_coords({name: _turned(value, target)})
    for axis, (short, name) in enumerate(named.items()):
        values = getattr(grid, short)
        if grid.kind == "rectilinear":
            edges = bounds_of(values, grid.cell[axis], 90.0 if short == "lat" else None)
            if target.flipped[axis]:
                values, edges = values[::-1], edges[::-1, ::-1]
            dtype = np.float64 if name not in data.variables else _float(data[name].dtype)
            bounds = f"{name}_{_BOUNDS}"
            attrs = {**standard[short], "axis": "Y" if short == "lat" else "X", "bounds": bounds}
            frame = frame.assign_coords({name: (target.dims[axis], values.astype(dtype), attrs)})
            frame[bounds] = ((target.dims[axis], _BOUNDS), edges.astype(dtype))
        else:
            if grid.kind == "curvilinear" and target.flipped[0]:
                values = values[::-1]
            frame = frame.assign_coords({name: (target.dims, values, standard[short])})
    mapping = _mapping(source)
    if grid.kind == "curvilinear" and mapping is not None and mapping in data.variables:
        frame[mapping] = ((), np.int32(0), dict(data[mapping].attrs))
    for variable in frame.variables.values():
        if variable.dtype.kind == "f":
            variable.encoding.setdefault("_FillValue", None)
    return frame


def _turned(value: Any, target: Target) -> Any:
    """A native axis in the file's order."""
    dims, values, attrs = value
    for axis, dim in enumerate(target.dims[:2]):
        if dims == dim and target.flipped[axis]:
            return dims, values[::-1], attrs
    return value


def _float(dtype: np.dtype) -> np.dtype:
    return np.dtype(np.float32) if dtype == np.float32 else np.dtype(np.float64)


def bounds_of(axis: np.ndarray, width: float, limit: float | None = None) -> np.ndarray:
    """Edges `[n, 2]` of cells around centres, in the axis' direction; half-way between uneven ones."""
    if len(axis) == 1:
        middle = np.array([axis[0] - width / 2, axis[0] + width / 2])
    else:
        inner = (axis[1:] + axis[:-1]) / 2
        middle = np.concatenate([[2 * axis[0] - inner[0]], inner, [2 * axis[-1] - inner[-1]]])
    if limit is not None:
        middle = np.clip(middle, -limit, limit)
    return np.round(np.stack([middle[:-1], middle[1:]], 1), 9)


def _mapping(source: Source) -> str | None:
    variable = source.dataset[source.original[source.names[0]]]
    found = variable.attrs.get("grid_mapping") or variable.encoding.get("grid_mapping")
    return str(found) if found else None


def _attributes(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """What of a variable's attributes still holds; GRIB's own keys and ranges of the values do not."""
    kept = {k: v for k, v in attrs.items() if k in _KEPT and v not in ("", "unknown", "~")}
    return {k: v for k, v in kept.items() if k != "standard_name" or " " not in str(v)}


def _variable(source: Source, name: str, target: Target) -> dict[str, Any]:
    own = source.original[name]
    attrs = _attributes(source.dataset[own].attrs)
    attrs.setdefault("long_name", own)
    unit = source.conversions[name].unit
    if unit:
        attrs["units"] = unit
    standard = _standard_name(name, unit)
    if "standard_name" not in attrs and standard:
        attrs["standard_name"] = standard
    space = "area: point" if target.grid.kind == "points" else "area: mean"
    methods = str(attrs.pop("cell_methods", ""))
    attrs["cell_methods"] = f"{methods} {space}".strip() if "area:" not in methods else methods
    extra = [c for c in (target.lat, target.lon, *target.coords) if c not in target.dims]
    if extra:
        attrs["coordinates"] = " ".join(extra)
    if target.grid.kind == "curvilinear" and (mapping := _mapping(source)) in source.dataset.variables:
        attrs["grid_mapping"] = str(mapping)
    return attrs


def _standard_name(name: str, unit: str) -> str | None:
    """The standard name a variable may have; precipitation's depends on its unit."""
    if name != "tp":
        return STANDARD_NAMES.get(name)
    spelling = unit.replace(" ", "").replace("**", "").replace("^", "")
    if spelling in ("m", "mm", "cm"):
        return "lwe_thickness_of_precipitation_amount"
    if spelling in ("kgm-2", "kg/m2"):
        return "precipitation_amount"
    return "precipitation_flux" if spelling.startswith("kg") else "lwe_precipitation_rate"


def _global(source: Source, provenance: Mapping[str, Any], command: str) -> dict[str, Any]:
    attrs: dict[str, Any] = {"Conventions": "CF-1.8"}
    own = dict(source.attributes)
    attrs["title"] = f"{own.pop('title', 'Fields')} (downscaled)".strip()
    attrs["institution"] = own.pop("institution", "see source")
    attrs["source"] = f"{own.pop('source', source.where)}; downscaled by sciconsist {provenance.get('version', '')}"
    attrs["references"] = own.pop("references", "CF conventions 1.8")
    history = own.pop("history", "")
    line = command or "sciconsist downscale"
    attrs["history"] = f"{line}\n{history}".strip()
    attrs |= own
    attrs["comment"] = "Computer-generated detail: every realization is one of many fine fields the input allows."
    for key, value in provenance.items():
        if value is not None:
            attrs[f"sciconsist_{key}"] = int(value) if isinstance(value, bool) else value
    return attrs


# --- sinks


class Memory:
    """Blocks gathered in a dataset."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.arrays = {name: np.full(layout.shape, np.nan, np.float32) for name in layout.names}

    def write(self, values: np.ndarray, members: slice, times: slice, box: tuple[slice, slice]) -> None:
        for c, name in enumerate(self.layout.names):
            block, place = self.layout.target.to_file(values[:, :, c], box)
            self.arrays[name][(members, times, *place)] = self.layout.conversions[name].to_file(block)

    def close(self) -> None:
        pass

    def dataset(self) -> xr.Dataset:
        """The finished dataset, ready for `to_netcdf` too."""
        out = self.layout.frame.copy()
        for name, array in self.arrays.items():
            out[self.layout.original[name]] = (self.layout.dims, array, variable_attributes(self.layout, name))
        return out


def variable_attributes(layout: Layout, name: str) -> dict[str, Any]:
    """A variable's attributes for xarray, which writes `coordinates` itself."""
    return {k: v for k, v in layout.attributes[name].items() if k != "coordinates"}


class NetCDF:
    """Blocks written to a NetCDF-4 file: float32, deflated and shuffled; a packed integer would not conserve."""

    def __init__(self, path: Path, layout: Layout, chunk: tuple[int, ...]) -> None:
        import netCDF4

        self.layout = layout
        unlimited = [d for d in layout.frame.dims if d == layout.dims[1]]
        layout.frame.to_netcdf(path, engine="netcdf4", format="NETCDF4", unlimited_dims=unlimited)
        self.file = netCDF4.Dataset(str(path), "a")
        for dim, size in zip(layout.dims, layout.shape):
            if dim not in self.file.dimensions:
                self.file.createDimension(dim, size)
        for name in layout.names:
            variable = self.file.createVariable(
                layout.original[name], "f4", layout.dims, zlib=True, complevel=COMPRESSION, shuffle=True,
                chunksizes=tuple(map(min, chunk, layout.shape)), fill_value=FILL,
            )  # fmt: skip
            variable.set_auto_maskandscale(False)
            variable.setncatts(layout.attributes[name])

    def write(self, values: np.ndarray, members: slice, times: slice, box: tuple[slice, slice]) -> None:
        for c, name in enumerate(self.layout.names):
            block, place = self.layout.target.to_file(values[:, :, c], box)
            out = self.layout.conversions[name].to_file(block).astype(np.float32)
            self.file[self.layout.original[name]][(members, times, *place)] = np.where(np.isnan(out), FILL, out)

    def close(self) -> None:
        self.file.close()


class Zarr:
    """Blocks written to a Zarr store (format 2, which every reader knows)."""

    def __init__(self, path: Path, layout: Layout, chunk: tuple[int, ...]) -> None:
        zarr = need("zarr", "climate", "writing Zarr")
        self.layout, self.path, self.zarr = layout, path, zarr
        layout.frame.to_zarr(path, mode="w", zarr_format=2, consolidated=False)
        self.group = zarr.open_group(str(path), mode="a", zarr_format=2)
        self.arrays = {}
        for name in layout.names:
            array = self.group.create_array(
                layout.original[name], shape=layout.shape, chunks=tuple(map(min, chunk, layout.shape)),
                dtype="float32", fill_value=float("nan"),
            )  # fmt: skip
            array.attrs.update({**layout.attributes[name], "_ARRAY_DIMENSIONS": list(layout.dims)})
            self.arrays[name] = array

    def write(self, values: np.ndarray, members: slice, times: slice, box: tuple[slice, slice]) -> None:
        for c, name in enumerate(self.layout.names):
            block, place = self.layout.target.to_file(values[:, :, c], box)
            self.arrays[name][(members, times, *place)] = self.layout.conversions[name].to_file(block)

    def close(self) -> None:
        self.zarr.consolidate_metadata(str(self.path))
