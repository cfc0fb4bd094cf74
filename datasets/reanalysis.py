"""Climate data sets of the registry as sources of fields: what each file is called, and where it is split."""

from __future__ import annotations

import numpy as np
import xarray as xr

from sciconsist.domains.climate.files import Source, open_paths, open_source

from .registry import find

UK_TRAIN_HOURS, UK_VALIDATE_FROM = 480, 504
# The rotated pole of EUR-44, which the file leaves out (CORDEX archive specifications, table 1).
_EUR44_POLE = {"grid_mapping_name": "rotated_latitude_longitude", "grid_north_pole_latitude": 39.25,
               "grid_north_pole_longitude": -162.0}  # fmt: skip


def andes(split: str) -> Source:
    """ERA5 monthly means, t2m, u10, v10, tp."""
    return open_source(_opened("era5-andes", split))


def kerala(split: str) -> Source:
    """ERA5-Land daily t2m, d2m, sp, u10, v10, tp."""
    return open_source(_opened("era5land-kerala", split))


def uk(split: str) -> Source:
    """ERA5 hourly t2m: hours before 480 train, from 504 validate."""
    data = _opened("era5-uk", split)
    return open_source(data.isel(time=slice(UK_TRAIN_HOURS) if split == "train" else slice(UK_VALIDATE_FROM, None)))


def france(split: str = "all") -> Source:
    """ERA5 monthly t2m, msl, tp."""
    return open_source(_opened("era5-france", split))


def iberia(split: str = "all") -> Source:
    """EURO-CORDEX EUR-44 daily winter tas, pr on a rotated pole."""
    data = _opened("cordex-iberia", split)
    for name in ("tas", "pr"):
        data[name].attrs["grid_mapping"] = "rotated_pole"
    return open_source(data.assign_coords(rotated_pole=xr.DataArray(np.int32(0), attrs=_EUR44_POLE)))


def arpege(split: str = "all") -> Source:
    """ARPEGE, hourly t2m of one day at 0.1 degrees."""
    return open_source(_opened("arpege-nw", split), ["t2m"])


def arome(split: str) -> Source:
    """Hourly precipitation of one forecast day: ARPEGE at 0.1 degrees ("coarse") and AROME at 0.025 ("fine")."""
    return open_source(_opened("arpege-arome", split))


def era_interim(split: str = "all") -> Source:
    """ERA-Interim, one global month: sp, t2m, tp, u10, v10 at 0.75 degrees."""
    return open_source(_opened("era-interim", split))


def ersst(split: str = "all") -> Source:
    """ERSST v5, global monthly sea surface temperature at 2 degrees."""
    return open_source(_opened("ersst", split))


def _opened(name: str, split: str) -> xr.Dataset:
    return open_paths(find(name, split), name)
