"""Height of the ground and share of land on any grid: from a file, or from ERA5's own in the package (0.25 degrees)."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib import resources
from pathlib import Path

import numpy as np
import xarray as xr

from sciconsist.errors import UserError

from .axes import find_spatial
from .fields import STANDARD_GRAVITY, Grid, Statics
from .files import open_dataset
from .grids import average_to
from .variables import static_name

HIGHEST = 9000.0  # m, above the highest mountain


def statics_on(grid: Grid, source: tuple[Grid, Statics]) -> Statics:
    """Statics of a grid: means over its cells where they are larger than the source's, else interpolated."""
    own, statics = source
    if grid.shape == own.shape and np.array_equal(grid.lat, own.lat) and np.array_equal(grid.lon, own.lon):
        return statics
    if own.kind == "rectilinear":
        own, statics = _near(own, statics, grid)
    height, land = (average_to(a, own, grid) for a in (statics.orography, statics.land_sea_mask))
    return Statics(height.astype(np.float32), np.clip(land, 0.0, 1.0).astype(np.float32))


def _near(own: Grid, statics: Statics, grid: Grid) -> tuple[Grid, Statics]:
    """The rows of a ground that a grid's cells and their neighbours lie in: a tile need not look at the globe."""
    reach = 2 * (own.cell[0] + grid.cell[0])
    near = np.flatnonzero((own.lat >= grid.lat.min() - reach) & (own.lat <= grid.lat.max() + reach))
    if len(near) < 2:
        return own, statics
    rows, columns = slice(int(near[0]), int(near[-1]) + 1), slice(None)
    return own.crop(rows, columns), statics.crop(rows, columns)


@lru_cache(maxsize=1)
def shipped() -> tuple[Grid, Statics]:
    """ERA5's ground in the package: 721 x 1440 cells, heights exact to 2.5 m (the sea is 0), land to 0.025."""
    from PIL import Image

    folder = resources.files("sciconsist.domains.climate").joinpath("ground")
    about = json.loads(folder.joinpath("era5.json").read_text(encoding="utf-8"))
    with folder.joinpath("era5_height.png").open("rb") as file:
        height = np.asarray(Image.open(file), np.float32) * about["height_scale"] + about["height_offset"]
    with folder.joinpath("era5_land.png").open("rb") as file:
        land = np.asarray(Image.open(file), np.float32) * about["land_scale"]
    grid = Grid(np.linspace(90.0, -90.0, 721), np.arange(1440) * 0.25, (0.25, 0.25), True)
    return grid, Statics(height.astype(np.float32), land.astype(np.float32))


def attribution() -> str:
    """The line that outputs made with the shipped ground carry."""
    folder = resources.files("sciconsist.domains.climate").joinpath("ground")
    return str(json.loads(folder.joinpath("era5.json").read_text(encoding="utf-8"))["attribution"])


def read_statics(where: str | Path | xr.Dataset) -> tuple[Grid, Statics]:
    """Height, and land where the file has it (else the shipped one), of a NetCDF, GRIB or Zarr file.

    Raises UserError when it has no height, or heights that are none.
    """
    data = where if isinstance(where, xr.Dataset) else open_dataset(where)
    label = "the dataset" if isinstance(where, xr.Dataset) else str(where)
    found = {static_name(str(n), data[n].attrs): str(n) for n in data.data_vars if data[n].ndim >= 2}
    if "orography" not in found:
        have = ", ".join(map(str, data.data_vars)) or "nothing"
        raise UserError(
            f"{label}: no height of the ground; expected a variable such as orog (m) or z (m2 s-2), it has: {have}"
        )
    name = found["orography"]
    grid, values = _plane(data, name, label)
    height = heights(values, data[name].attrs, f"{label}: {name}")
    if "land_sea_mask" in found:
        land = _plane(data, found["land_sea_mask"], label)[1]
        land = land / 100.0 if np.nanmax(land) > 1.5 else land  # sftlf is in percent
    else:
        land = statics_on(grid, shipped()).land_sea_mask
    return grid, Statics(np.nan_to_num(height).astype(np.float32), np.nan_to_num(land).astype(np.float32))


def heights(values: np.ndarray, attributes: dict[str, object], where: str) -> np.ndarray:
    """Metres from metres or geopotential. The IFS orography says m2 s-2 and holds metres: its long name tells."""
    unit = str(attributes.get("units", "")).replace(" ", "").replace("**", "").replace("^", "").lower()
    said = f"{attributes.get('long_name', '')}".lower()
    potential = unit in ("m2s-2", "m2/s2", "jkg-1") and "[m]" not in said and "height" not in said
    height = values / STANDARD_GRAVITY if potential else values
    if not (np.nanmin(height) > -2000.0 and np.nanmax(height) < HIGHEST):
        raise UserError(
            f"{where}: {np.nanmin(height):.0f} to {np.nanmax(height):.0f} m, expected -500 to {HIGHEST:.0f} m; "
            "set its units to m or m2 s-2"
        )
    return height


def _plane(data: xr.Dataset, name: str, label: str) -> tuple[Grid, np.ndarray]:
    """Grid and values `[H, W]`, the first of what other dimensions it has."""
    axes, data = find_spatial(data, name, label)
    array = data[name]
    array = array.isel({d: 0 for d in array.dims if d not in (axes.y, axes.x)}).transpose(axes.y, axes.x)
    return axes.grid, axes.orient(np.asarray(array.values, np.float64))
