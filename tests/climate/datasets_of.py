"""Small datasets of weather that is made up, in every shape that files come in."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr


def made_up(
    rows: int = 6,
    columns: int = 8,
    times: Any = 5,
    *,
    lat0: float = 52.0,
    lon0: float = 2.0,
    step: float = 1.0,
    names: tuple[str, ...] = ("t2m", "tp"),
    seed: int = 0,
) -> xr.Dataset:
    """t2m (K) and tp (m a day) on a grid whose first centre is (lat0, lon0), north first, daily from 2001-03-30."""
    g = np.random.default_rng(seed)
    stamps = (
        np.datetime64("2001-03-30", "ns") + np.arange(times) * np.timedelta64(1, "D") if np.isscalar(times) else times
    )
    shape = (len(stamps), rows, columns)
    lat, lon = lat0 - step * np.arange(rows), lon0 + step * np.arange(columns)
    values = {
        "t2m": 285 + 4 * g.standard_normal(shape) - 0.5 * (lat - lat.mean())[:, None],
        "d2m": 280 + 3 * g.standard_normal(shape),
        "tp": np.maximum(g.gamma(0.6, 5e-3, shape) - 1e-3, 0.0),
        "u10": 6 * g.standard_normal(shape),
        "msl": 101000 + 500 * g.standard_normal(shape),
    }
    units = {"t2m": "K", "d2m": "K", "tp": "m", "u10": "m s**-1", "msl": "Pa"}
    data = {n: (("time", "latitude", "longitude"), values[n].astype(np.float32), {"units": units[n]}) for n in names}
    return xr.Dataset(
        data,
        {
            "time": stamps,
            "latitude": ("latitude", lat, {"units": "degrees_north", "standard_name": "latitude"}),
            "longitude": ("longitude", lon, {"units": "degrees_east", "standard_name": "longitude"}),
        },
        {"institution": "made up"},
    )


def globe(step: float = 10.0, times: int = 2, poles: bool = False, seed: int = 0) -> xr.Dataset:
    """The whole globe, longitudes from 0; with `poles` rows are centred on +-90."""
    rows = round(180 / step) + poles
    top = 90.0 if poles else 90.0 - step / 2
    return made_up(rows, round(360 / step), times, lat0=top, lon0=0.0, step=step, seed=seed)
