"""Opening climate data a user has: NetCDF 3 and 4, GRIB, Zarr, one file or many, as fields in canonical units.

`open_source` looks at names, units, axes and calendar and reads no values; `Source.read` gives `Fields` of some
times. Everything that is wrong with a file is a UserError of one line.
"""

from __future__ import annotations

import glob
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from sciconsist.errors import UserError
from sciconsist.extras import need

from . import probe
from .accumulated import step_amounts
from .axes import Axes, find_axes
from .fields import Fields
from .times import iso, periods
from .variables import Conversion, canonical_name, check_values, conversion, static_name

_CHUNK = 16  # times looked at together when the mask is made
_OPTIONS = {"netcdf3": "netcdf4", "netcdf5": "netcdf4", "hdf5": "netcdf4", "grib": "cfgrib", "zarr": "zarr"}
Box = tuple[slice, slice]
EVERYWHERE: Box = (slice(None), slice(None))
ERA5_ATTRIBUTION = (
    "Contains modified Copernicus Climate Change Service information. Neither the European Commission nor ECMWF is "
    "responsible for any use that may be made of it."
)


@dataclass
class Source:
    """An opened data set: which of its variables are what, on which grid, at which times.

    `names` are canonical (or the file's own, for a variable that we do not know), `original` the file's.
    """

    dataset: xr.Dataset
    where: str
    names: tuple[str, ...]
    original: dict[str, str]
    conversions: dict[str, Conversion]
    axes: Axes
    times: tuple[str, ...]
    calendar: str
    mask: np.ndarray
    attributes: dict[str, str]
    has_holes: bool = False  # some cell of the mask lacks a value at some time

    def read(self, steps: slice = slice(None), names: Sequence[str] | None = None, box: Box = EVERYWHERE) -> Fields:
        """Fields `[T, C, H, W]` of some times, float64 in canonical units, north first and eastward.

        `box` are rows and columns of the grid, for a part of a domain that is too large to read.

        A value missing at one time only, in a cell that has others, is filled from its neighbours: `holes` tells
        where. Raises UserError for values that are not finite or that no weather makes.
        """
        chosen = tuple(names) if names is not None else self.names
        times, grid, mask = self.times[steps], self.axes.grid, self.mask[box]
        if box != EVERYWHERE:
            grid = grid.crop(*box)
        values = np.empty((len(times), len(chosen), *grid.shape))
        for c, name in enumerate(chosen):
            raw = self._raw(name, steps, box)
            where = f"{self.where}: {self.original[name]}"
            values[:, c] = check_values(
                name, self.conversions[name].to_canonical(raw), self.conversions[name].unit, where
            )
        holes = ~np.isfinite(values) & mask
        for t, c in {(t, c) for t, c, *_ in np.argwhere(holes)}:
            values[t, c] = _fill(values[t, c], mask)
        values[..., ~mask] = np.nan
        return Fields(values, chosen, times, grid, mask, self.calendar, self.attributes)

    def pick(self, names: Sequence[str]) -> Source:
        """The same source with some of its variables."""
        return replace(self, names=tuple(names), original={n: self.original[n] for n in names})

    def holes(self, steps: slice, name: str) -> np.ndarray:
        """Where `[T, H, W]` a cell of the mask has no value at that time."""
        return ~np.isfinite(self._raw(name, steps)) & self.mask

    def _raw(self, name: str, steps: slice, box: Box = EVERYWHERE) -> np.ndarray:
        rows, columns = self.axes.in_file(box)
        array = self.dataset[self.original[name]].isel({self.axes.time: steps, self.axes.y: rows, self.axes.x: columns})
        try:
            return self.axes.orient(np.asarray(array.transpose(*self.axes.dims).values, np.float64))
        except (OSError, RuntimeError, EOFError, ValueError) as error:
            raise UserError(f"{self.where}: {self.original[name]} cannot be read ({_short(error)})") from error


def open_source(where: str | Path | xr.Dataset, variables: Sequence[str] | None = None) -> Source:
    """Opens a file, a folder or pattern of files, or takes a dataset.

    `variables` picks some, by canonical name or the file's own. Raises UserError with one line.
    """
    dataset, label = (where, "the dataset") if isinstance(where, xr.Dataset) else (open_dataset(where), str(where))
    dataset = step_amounts(_one_expver(dataset), label)
    found = _variables(dataset, label, variables)
    axes, dataset = find_axes(dataset, list(found.values()), label)
    stamp = dataset[axes.stamp]
    times, calendar = iso(stamp, label)
    if len(set(times)) != len(times):
        twice = next(t for t in times if times.count(t) > 1)
        raise UserError(f"{label}: time {twice} comes twice; keep one (xarray: ds.drop_duplicates('{axes.time}'))")
    if list(times) != sorted(times):
        order = np.argsort(np.asarray(times), kind="stable")
        dataset, times = dataset.isel({axes.time: order}), tuple(times[k] for k in order)
    period, monthly = periods(dataset, axes.stamp, times)
    conversions = {}
    for name, own in found.items():
        unit = str(dataset[own].attrs.get("units", ""))
        conversions[name] = conversion(name, unit, period, f"{label}: {own}", monthly)
    source = Source(
        dataset, label, tuple(found), found, conversions, axes, times, calendar, np.ones(axes.grid.shape, bool),
        _attributes(dataset),
    )  # fmt: skip
    _look_for_missing(source)
    return source


def open_dataset(where: str | Path) -> xr.Dataset:
    """A lazy dataset of a file, a Zarr store, a folder or a pattern of files. Raises UserError."""
    return open_paths(_paths(str(where)), str(where))


def open_paths(paths: Sequence[Path], where: str) -> xr.Dataset:
    """A lazy dataset of files that follow each other in time (several need dask). Raises UserError."""
    kinds = {probe.kind_of(path) for path in paths}
    for path in paths:
        kind = probe.kind_of(path)
        if kind == "unknown":
            raise UserError(f"{path}: is neither NetCDF, GRIB nor Zarr")
        if kind == "folder":
            raise UserError(f"{path}: a folder without NetCDF files and no Zarr store")
        if kind == "grib" and path.suffix in (".nc", ".nc4", ".netcdf"):
            raise UserError(f"{path}: holds GRIB, not NetCDF; rename it to {path.with_suffix('.grib').name}")
    if classic := [path for path in paths if probe.kind_of(path) in ("netcdf3", "netcdf5", "hdf5")]:
        probe.check(classic)
    if len(kinds) > 1:
        raise UserError(f"{where}: files of several kinds ({', '.join(sorted(kinds))}); expected one")
    engine = _OPTIONS[kinds.pop()]
    if engine == "cfgrib":
        need("cfgrib", "climate", "reading GRIB")
    if engine == "zarr":
        need("zarr", "climate", "reading Zarr")
    options: dict[str, Any] = {"backend_kwargs": {"indexpath": ""}} if engine == "cfgrib" else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if len(paths) == 1:
                return xr.open_dataset(paths[0], engine=engine, **options)  # type: ignore[arg-type]
            need("dask", "climate", "reading many files")
            return xr.open_mfdataset(paths, engine=engine, combine="by_coords", **options)  # type: ignore[arg-type]
    except UserError:
        raise
    except Exception as error:  # readers leak up to ten types (STYLE: trust); one leaves here
        raise UserError(f"{where}: cannot be opened: {_short(error)}") from error


def _paths(where: str) -> list[Path]:
    path = Path(where)
    if path.is_dir() and probe.kind_of(path) == "folder":
        return sorted(p for p in path.iterdir() if p.suffix in (".nc", ".nc4", ".grib", ".grb", ".grib2")) or [path]
    if path.exists():
        return [path]
    found = sorted(Path(p) for p in glob.glob(where))
    if not found:
        raise UserError(f"{where}: no such file or folder")
    return found


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


def _one_expver(dataset: xr.Dataset) -> xr.Dataset:
    """ERA5 has a layer `expver` 1 of final and 5 of preliminary months: each month from the layer that has it."""
    if "expver" not in dataset.dims:
        return dataset.drop_vars("expver", errors="ignore")
    merged = dataset.isel(expver=0, drop=True)
    for layer in range(1, dataset.sizes["expver"]):
        merged = merged.combine_first(dataset.isel(expver=layer, drop=True))
    for name in merged.data_vars:
        merged[name].attrs = dict(dataset[name].attrs)
    return merged.assign_attrs(dataset.attrs)


def _variables(dataset: xr.Dataset, where: str, wanted: Sequence[str] | None) -> dict[str, str]:
    """Canonical name -> the file's name of the variables to take."""
    known: dict[str, str] = {}
    other: dict[str, str] = {}
    for own, variable in dataset.data_vars.items():
        own = str(own)
        if variable.ndim < 2 or variable.dtype.kind not in "fiu" or own.endswith(("_bnds", "_bounds")):
            continue
        canonical = canonical_name(own, variable.attrs)
        if canonical is not None and canonical not in known:
            known[canonical] = own
        elif static_name(own, variable.attrs) is None:
            other[own] = own
    if wanted is None:
        taken = known or other
        if not taken:
            names = ", ".join(map(str, dataset.data_vars)) or "none"
            raise UserError(f"{where}: no variable on a grid; it has: {names}")
        return taken
    taken = {}
    back = {own: canonical for canonical, own in known.items()} | other
    for name in wanted:
        if name in known:
            taken[name] = known[name]
        elif name in back:
            taken[back[name]] = name
        else:
            have = ", ".join(f"{o} ({c})" if o != c else o for c, o in {**known, **other}.items())
            raise UserError(f"{where}: no variable {name!r}; it has: {have or 'none'}")
    return taken


def _look_for_missing(source: Source) -> None:
    """Sets the mask: cells with a value at some time. Raises UserError for a variable without any.

    The first times tell where nothing is ever missing; else all are read once, chunk by chunk.
    """
    total = np.zeros(source.axes.grid.shape, bool)
    evers = []
    for name in source.names:
        ever, always = np.zeros_like(total), np.ones_like(total)
        for start in range(0, len(source.times), _CHUNK):
            present = ~np.isnan(source._raw(name, slice(start, start + _CHUNK)))
            ever |= present.any(0)
            always &= present.all(0)
        if not ever.any():
            raise UserError(f"{source.where}: {source.original[name]} is missing everywhere; expected some values")
        total |= ever
        evers.append(ever)
        source.has_holes |= bool((ever & ~always).any())
    source.has_holes |= any(bool((ever != total).any()) for ever in evers)
    source.mask = total


def _fill(field: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Holes of one field filled with the nearest cell that has a value, or 0 when the whole time is missing."""
    from scipy.ndimage import distance_transform_edt

    missing = ~np.isfinite(field)
    if missing.all():
        return np.where(mask, 0.0, np.nan)
    nearest = distance_transform_edt(missing, return_distances=False, return_indices=True)
    return np.where(mask, field[tuple(nearest)], np.nan)


def _attributes(dataset: xr.Dataset) -> dict[str, str]:
    """Who made the data and on what terms, to be carried to every output."""
    keep = ("title", "institution", "source", "references", "license", "licence", "attribution", "citation", "history")
    found = {k: str(dataset.attrs[k]) for k in keep if k in dataset.attrs}
    text = " ".join([str(v) for v in dataset.attrs.values()] + [str(dataset.encoding.get("source", ""))]).lower()
    if "attribution" not in found and any(
        word in text for word in ("ecmwf", "ecmf", "european centre", "mars", "era5")
    ):
        found["attribution"] = ERA5_ATTRIBUTION
    return found
