"""What the climate domain passes around: fields on a grid, static fields, and the names and units they have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

# canonical name -> unit; tp is a rate over its own accumulation period, always per day
UNITS = {
    "t2m": "K", "d2m": "K", "tp": "mm/day", "u10": "m/s", "v10": "m/s", "sp": "Pa", "msl": "Pa", "sst": "K",
}  # fmt: skip
NON_NEGATIVE = frozenset({"tp"})
STANDARD_GRAVITY = 9.80665  # m/s2 (CGPM 1901): geopotential to height
LAPSE_RATE = -6.5e-3  # K/m, the standard atmosphere's (ISO 2533)


@dataclass(frozen=True)
class Grid:
    """Where values lie. Degrees, float64; latitudes in either order, longitudes rising along their axis.

    kind          lat, lon                   shape of a field
    rectilinear   [H], [W]                   (H, W)
    curvilinear   [H, W], [H, W]             (H, W)  (rotated poles, projections)
    points        [P], [P]                   (P,)
    `cell` is the size (dlat, dlon) of a cell in degrees, positive (of a point: the area it stands for; 0 is the
    point itself). `periodic`: the longitudes go once around the globe.
    """

    lat: np.ndarray
    lon: np.ndarray
    cell: tuple[float, float]
    periodic: bool = False
    kind: str = "rectilinear"

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.lat), len(self.lon)) if self.kind == "rectilinear" else self.lat.shape

    def mesh(self) -> tuple[np.ndarray, np.ndarray]:
        """Latitude and longitude of every cell, each in the shape of a field."""
        if self.kind != "rectilinear":
            return self.lat, self.lon
        lat, lon = np.meshgrid(self.lat, self.lon, indexing="ij")
        return lat, lon

    def crop(self, rows: slice, columns: slice) -> Grid:
        """A block of a rectilinear or curvilinear grid; no longer periodic unless all columns are in it."""
        whole = len(range(*columns.indices(self.shape[1]))) == self.shape[1]
        if self.kind == "curvilinear":
            return replace(self, lat=self.lat[rows, columns], lon=self.lon[rows, columns], periodic=False)
        return replace(self, lat=self.lat[rows], lon=self.lon[columns], periodic=self.periodic and whole)


@dataclass(frozen=True)
class Fields:
    """Values `[T, C, *grid.shape]` float32 or float64 in canonical units (`UNITS`); NaN where not `mask`.

    `times`: T strings, ISO 8601 in the file's own calendar ("2000-02-30T00:00:00" in a 360-day one): sorted in
    time as they sort as text, and the keys of the noise. `calendar` as in CF. `mask` `[*grid.shape]`: True
    where a cell is ever valid; a cell is missing at all times or never (readers see to it).
    """

    values: np.ndarray
    names: tuple[str, ...]
    times: tuple[str, ...]
    grid: Grid
    mask: np.ndarray
    calendar: str = "standard"
    attributes: dict[str, str] = field(default_factory=dict)  # source, licence, attribution, history

    def pick(self, names: Sequence[str]) -> Fields:
        """The same fields with these variables, in this order. Raises KeyError for one that is not there."""
        missing = [n for n in names if n not in self.names]
        if missing:
            raise KeyError(missing[0])
        return replace(self, values=self.values[:, [self.names.index(n) for n in names]], names=tuple(names))

    def when(self, steps: slice) -> Fields:
        """Some of the times."""
        return replace(self, values=self.values[steps], times=self.times[steps])

    def crop(self, rows: slice, columns: slice) -> Fields:
        """A block of cells."""
        return replace(
            self, values=self.values[..., rows, columns], mask=self.mask[rows, columns],
            grid=self.grid.crop(rows, columns),
        )  # fmt: skip


@dataclass(frozen=True)
class Statics:
    """Height in m and share of land in [0, 1] of every cell of a grid, float32 in the shape of its fields."""

    orography: np.ndarray
    land_sea_mask: np.ndarray

    def crop(self, rows: slice, columns: slice) -> Statics:
        return Statics(self.orography[rows, columns], self.land_sea_mask[rows, columns])
