"""Forecast sums become amounts of a step; radar and forecast files of the registry as fields."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from sciconsist.datasets import registry
from sciconsist.datasets.radar import places
from sciconsist.domains.climate.accumulated import step_amounts
from sciconsist.domains.climate.files import open_source
from sciconsist.errors import UserError

AMOUNTS = np.random.default_rng(0).gamma(0.5, 1.0, (6, 4, 5)).astype("f4")


def forecast(hours: np.ndarray | None = None) -> xr.Dataset:
    """What cfgrib makes of an hourly forecast: kg m-2 since its beginning."""
    hours = np.arange(1, 7) if hours is None else hours
    step = hours.astype("timedelta64[h]").astype("timedelta64[ns]")
    start = np.datetime64("2018-05-01", "ns")
    attributes = {"GRIB_stepType": "accum", "GRIB_shortName": "tp", "units": "kg m**-2"}
    return xr.Dataset(
        {"tp": (("step", "latitude", "longitude"), AMOUNTS.cumsum(0), attributes)},
        {"step": step, "time": start, "valid_time": ("step", start + step),
         "latitude": ("latitude", 50 - np.arange(4.0), {"units": "degrees_north"}),
         "longitude": ("longitude", np.arange(5.0), {"units": "degrees_east"})},
    )  # fmt: skip


def test_sums_since_the_beginning_become_amounts_of_a_step() -> None:
    out = step_amounts(forecast(), "f.grib")
    np.testing.assert_allclose(out.tp.values, AMOUNTS, atol=1e-5)
    assert "accum" not in out.tp.attrs["GRIB_stepType"] and out.tp.attrs["units"] == "kg m**-2"
    rain = open_source(forecast()).read()
    np.testing.assert_allclose(rain.values[:, 0], AMOUNTS * 24, atol=1e-3)  # mm/day of hourly amounts
    assert rain.times[0] == "2018-05-01T01:00:00"


def test_a_missing_sum_stays_missing_and_other_variables_stay_as_they_are() -> None:
    data = forecast()
    data.tp[2, 1, 1] = np.nan
    data["t2m"] = data.tp.fillna(1.0).assign_attrs(GRIB_stepType="instant")
    out = step_amounts(data, "f.grib")
    assert np.isnan(out.tp[2, 1, 1]) and np.isnan(out.tp.values).sum() == 1
    assert out.t2m.identical(data.t2m)


def test_uneven_steps_are_refused() -> None:
    with pytest.raises(UserError, match=r"1, 2, 3, 6, \.\.\. hours"):
        step_amounts(forecast(np.array([1, 2, 3, 6, 9, 12])), "f.grib")


def test_the_corners_of_the_radar_composite_are_where_its_makers_say() -> None:
    """57.93 N 18.6 E and 69.005 N 34.903 E, of the outer corners (header of FMI's PGM files)."""
    lat, lon = places(1226, 760)
    assert abs(lat[-1, 0] - 57.93) < 0.01 and abs(lon[-1, 0] - 18.6) < 0.02
    assert abs(lat[0, -1] - 69.005) < 0.01 and abs(lon[0, -1] - 34.903) < 0.02
    assert (np.diff(lat[:, 380]) < 0).all() and (np.diff(lon, axis=1) > 0).all()


def test_the_files_of_the_registry(data_dir: Path) -> None:
    coarse, fine = (registry.load("arpege-arome", split) for split in ("coarse", "fine"))
    assert coarse.axes.grid.shape == (58, 80) and fine.axes.grid.shape == (227, 315) and len(fine.times) == 24
    assert 0 < fine.read(slice(0, 2)).values.mean() < 10
    radar = registry.load("fmi-radar", "all")
    assert radar.names == ("tp",) and radar.axes.grid.kind == "curvilinear" and 0.7 < radar.mask.mean() < 0.8
