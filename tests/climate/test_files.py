"""Reading what users have: every convention comes out as the same fields, everything wrong as one clear line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from sciconsist.domains.climate import probe
from sciconsist.domains.climate.axes import unrotate
from sciconsist.domains.climate.files import open_source
from sciconsist.domains.climate.grids import area_weights
from sciconsist.domains.climate.metrics.ensemble import average
from sciconsist.domains.climate.orography import heights, read_statics, shipped, statics_on
from sciconsist.domains.climate.variables import conversion
from sciconsist.errors import UserError
from tests.climate.datasets_of import globe, made_up

Change = Callable[[xr.Dataset], xr.Dataset]


def renamed(data: xr.Dataset) -> xr.Dataset:
    new = data.rename(t2m="tas", tp="pr", latitude="lat", longitude="lon")
    new["pr"] = new.pr * 1000 / 86400
    new["pr"].attrs = {"units": "kg m-2 s-1", "standard_name": "precipitation_flux"}
    return new


def valid_time(data: xr.Dataset) -> xr.Dataset:
    return data.rename(time="valid_time").assign_coords(number=0, expver=("valid_time", ["0001"] * data.sizes["time"]))


def celsius(data: xr.Dataset) -> xr.Dataset:
    data["t2m"] = (data.t2m - 273.15).assign_attrs(units="degC")
    data["tp"] = (data.tp * 1000).assign_attrs(units="mm")
    return data


def expver(data: xr.Dataset) -> xr.Dataset:
    late = np.arange(data.sizes["time"]) >= 3
    layers = [data.where(~xr.DataArray(late, dims="time")), data.where(xr.DataArray(late, dims="time"))]
    joined = xr.concat(layers, xr.DataArray([1, 5], dims="expver", name="expver"))
    for name in data.data_vars:
        joined[name].attrs = data[name].attrs
    return joined


SAME: dict[str, Change] = {
    "as it is": lambda d: d,
    "south first": lambda d: d.isel(latitude=slice(None, None, -1)),
    "0 to 360": lambda d: d.assign_coords(longitude=("longitude", d.longitude.values % 360, d.longitude.attrs)),
    "CMIP names and rates": renamed,
    "valid_time": valid_time,
    "degrees Celsius and mm": celsius,
    "another order of dimensions": lambda d: d.transpose("longitude", "time", "latitude"),
    "a level of one": lambda d: d.expand_dims(height=[2.0]).transpose("time", "height", "latitude", "longitude"),
    "two layers of ERA5": expver,
    "times out of order": lambda d: d.isel(time=[3, 0, 1, 4, 2]),
}


@pytest.mark.parametrize("name", SAME)
def test_conventions_make_no_difference(name: str, tmp_path: Path) -> None:
    data = made_up(lon0=-3.0)
    SAME[name](data.copy(deep=True)).to_netcdf(tmp_path / "a.nc")
    want, got = open_source(data).read(), open_source(tmp_path / "a.nc").read()
    assert got.names == want.names == ("t2m", "tp") and got.times == want.times
    np.testing.assert_allclose(got.values, want.values, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose((got.grid.lon - want.grid.lon) % 360, 0)
    np.testing.assert_allclose(got.grid.lat, want.grid.lat)
    np.testing.assert_allclose(want.values[:, 1], data.tp.values.astype(float) * 1000, rtol=1e-6)  # m a day to mm/day


@pytest.mark.parametrize("format", ["NETCDF3_CLASSIC", "NETCDF3_64BIT", "NETCDF4", "NETCDF4_CLASSIC"])
def test_packed_integers_unlimited_time_and_old_formats(format: str, tmp_path: Path) -> None:
    data = made_up()
    data["t2m"][:, 1, 2] = np.nan
    packed = {"t2m": {"dtype": "i2", "scale_factor": 0.002, "add_offset": 285.0, "_FillValue": -32767}}
    data.to_netcdf(tmp_path / "a.nc", format=format, encoding=packed, unlimited_dims=["time"])  # type: ignore[call-overload]
    got = open_source(tmp_path / "a.nc", ["t2m"])
    assert not got.mask[1, 2] and got.mask.sum() == 47
    np.testing.assert_allclose(got.read().values[:, 0], data.t2m.values, atol=2e-3)


@pytest.mark.parametrize("calendar", ["noleap", "360_day", "standard"])
def test_calendars(calendar: str, tmp_path: Path) -> None:
    days = 35  # over the end of February
    times = xr.date_range("2000-02-01", periods=days, freq="D", calendar=calendar, use_cftime=True)
    made_up(times=times).to_netcdf(tmp_path / "a.nc")
    got = open_source(tmp_path / "a.nc")
    there = {"noleap": "2000-02-29" not in str(got.times), "360_day": "2000-02-30T00:00:00" in got.times,
             "standard": "2000-02-29T00:00:00" in got.times}  # fmt: skip
    assert there[calendar] and len(got.times) == days == len(set(got.times)) and list(got.times) == sorted(got.times)


def test_zarr_and_many_files(tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    pytest.importorskip("dask")
    data = made_up(times=6)
    data.to_zarr(tmp_path / "a.zarr")
    (tmp_path / "many").mkdir()
    data.isel(time=slice(3, None)).to_netcdf(tmp_path / "many" / "b.nc")
    data.isel(time=slice(3)).to_netcdf(tmp_path / "many" / "c.nc")
    want = open_source(data).read().values
    for where in (tmp_path / "a.zarr", tmp_path / "many", f"{tmp_path}/many/*.nc"):
        np.testing.assert_allclose(open_source(where).read().values, want, rtol=1e-6)


def test_monthly_metres_are_a_day() -> None:
    months = np.arange("2001-01", "2001-07", dtype="datetime64[M]").astype("datetime64[ns]")
    data = made_up(times=months)
    np.testing.assert_allclose(open_source(data).read().values[:, 1], data.tp.values.astype(float) * 1000, rtol=1e-6)
    data.tp.attrs["units"] = "mm"  # an amount of a month: divided by its days
    assert open_source(data).read().values[:, 1].max() == pytest.approx(float(data.tp.max()) / 30.4375, rel=0.03)


def test_hourly_amounts_become_rates() -> None:
    hours = np.datetime64("2001-01-01", "ns") + np.arange(5) * np.timedelta64(3, "h")
    data = made_up(times=hours)
    np.testing.assert_allclose(open_source(data).read().values[:, 1], data.tp.values * 8000.0, rtol=1e-5)


def test_units() -> None:
    assert conversion("tp", "kg m**-2 s**-1", None, "x").to_canonical(np.array(1e-5)) == pytest.approx(0.864)
    assert conversion("sp", "hPa", None, "x").to_canonical(np.array(1013.0)) == pytest.approx(101300)
    assert conversion("t2m", "degF", None, "x").to_canonical(np.array(32.0)) == pytest.approx(273.15)
    assert conversion("u10", "m s-1", None, "x").scale == 1
    there = conversion("tp", "mm/h", None, "x")
    assert there.to_file(there.to_canonical(np.array(2.5))) == pytest.approx(2.5)


def test_holes_in_time_are_filled_for_the_model_and_remembered() -> None:
    data = made_up()
    data["t2m"][2, 1, 1] = np.nan
    source = open_source(data)
    assert source.has_holes and source.mask.all()
    assert np.isfinite(source.read().values).all()
    assert source.holes(slice(None), "t2m").sum() == 1


def test_a_box_is_the_crop_of_the_whole() -> None:
    data = made_up().isel(latitude=slice(None, None, -1))
    source = open_source(data)
    box = (slice(1, 4), slice(2, 7))
    np.testing.assert_array_equal(source.read(box=box).values, source.read().crop(*box).values)


def test_the_globe_is_periodic_and_a_seam_in_the_file_is_none() -> None:
    assert open_source(globe()).axes.grid.periodic
    west = globe().isel(longitude=slice(30, 36)).pipe(lambda d: d.assign_coords(longitude=d.longitude - 360))
    east = globe().isel(longitude=slice(0, 6))
    joined = xr.concat([west, east], "longitude")
    assert not open_source(joined).axes.grid.periodic and open_source(joined).axes.grid.lon[-1] == 50
    dateline = made_up().assign_coords(longitude=(np.arange(176, 184) + 180) % 360 - 180)
    assert np.all(np.diff(open_source(dateline).axes.grid.lon) == 1)


# --- what is wrong


def no_time(data: xr.Dataset) -> xr.Dataset:
    return data.isel(time=0, drop=True)


def twice(data: xr.Dataset) -> xr.Dataset:
    return xr.concat([data, data.isel(time=[1])], "time")


def shuffled(data: xr.Dataset) -> xr.Dataset:
    return data.isel(latitude=[0, 2, 1, 3, 4, 5])


def infinite(data: xr.Dataset) -> xr.Dataset:
    data["t2m"][0, 0, 0] = np.inf
    return data


def unit(name: str, value: str) -> Change:
    return lambda d: d.assign({name: d[name].assign_attrs(units=value)})


BAD: dict[str, tuple[Change, str]] = {
    "no time axis": (no_time, "no time axis"),
    "wrong unit": (unit("t2m", "mm"), "found units 'mm', expected a temperature"),
    "no unit": (unit("t2m", ""), "found no units"),
    "degrees Celsius that say K": (lambda d: d.assign(t2m=(d.t2m - 273.15).assign_attrs(units="K")), "150 to 350"),
    "all missing": (lambda d: d.assign(t2m=d.t2m * np.nan), "missing everywhere"),
    "latitudes out of order": (shuffled, "latitude is out of order after entry 2 (50, 51)"),
    "infinite": (infinite, "infinite"),
    "a time twice": (twice, "time 2001-03-31T00:00:00 comes twice"),
    "no latitudes": (lambda d: d.drop_vars("latitude").rename(latitude="j"), "no latitudes and longitudes"),
    "latitudes beyond the pole": (lambda d: d.assign_coords(latitude=d.latitude + 50), "expected -90 to 90"),
    "missing places": (lambda d: d.assign_coords(longitude=[np.nan, *range(7)]), "missing or infinite"),
    "levels": (lambda d: d.expand_dims(level=[1, 2]), "another dimension, level of 2"),
    "uneven longitudes": (lambda d: d.assign_coords(longitude=[0, 1, 2, 3, 4, 5, 6, 9]), "not evenly spaced"),
    "one column": (lambda d: d.isel(longitude=[0]), "expected at least 2 x 2"),
    "no fields": (lambda d: d.drop_vars(["t2m", "tp"]), "no variable on a grid"),
    "rain below zero": (lambda d: d.assign(tp=(d.tp - 1).assign_attrs(units="m")), "expected -0.5 to 5000"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_each_fault_is_one_clear_line(name: str, tmp_path: Path) -> None:
    change, says = BAD[name]
    change(made_up()).to_netcdf(tmp_path / "bad.nc")
    with pytest.raises(UserError) as caught:
        open_source(tmp_path / "bad.nc").read()
    line = str(caught.value)
    assert says in line and "bad.nc" in line and "\n" not in line, line


@pytest.mark.parametrize("format", ["NETCDF3_64BIT", "NETCDF4"])
def test_a_cut_file(format: str, tmp_path: Path) -> None:
    made_up(40, 40, 10).to_netcdf(tmp_path / "whole.nc", format=format)  # type: ignore[call-overload]
    data = (tmp_path / "whole.nc").read_bytes()
    (tmp_path / "cut.nc").write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(UserError, match=r"cut.nc: damaged NetCDF"):
        open_source(tmp_path / "cut.nc")


def test_grib_under_a_false_name_and_what_is_no_data(tmp_path: Path) -> None:
    (tmp_path / "a.nc").write_bytes(b"GRIB" + bytes(100))
    with pytest.raises(UserError, match=r"a.nc: holds GRIB, not NetCDF; rename it to a.grib"):
        open_source(tmp_path / "a.nc")
    (tmp_path / "b.nc").write_text("hello")
    with pytest.raises(UserError, match="neither NetCDF, GRIB nor Zarr"):
        open_source(tmp_path / "b.nc")
    with pytest.raises(UserError, match="no such file"):
        open_source(tmp_path / "c.nc")


def test_a_file_that_never_opens_meets_a_deadline(tmp_path: Path) -> None:
    made_up().to_netcdf(tmp_path / "slow.nc")
    with pytest.raises(UserError, match="does not open within"):
        probe.check([tmp_path / "slow.nc"], seconds=1e-3)


def test_a_variable_that_is_not_there() -> None:
    with pytest.raises(UserError, match=r"no variable 'msl'; it has: t2m, tp"):
        open_source(made_up(), ["msl"])


# --- rotated poles and the ground


def test_rotated_poles() -> None:
    lat, lon = unrotate(np.array([0.0, 90.0]), np.array([0.0, 0.0]), 39.25, -162.0)
    assert lat[0] == pytest.approx(50.75) and lon[0] == pytest.approx(18.0)  # EURO-CORDEX's centre
    assert (lat[1], lon[1]) == pytest.approx((39.25, -162.0))
    data = made_up().rename(latitude="rlat", longitude="rlon")
    data["rlat"] = ("rlat", 3.0 - np.arange(6) * 0.44, {"standard_name": "grid_latitude", "units": "degrees"})
    data["rlon"] = ("rlon", np.arange(8) * 0.44, {"standard_name": "grid_longitude", "units": "degrees"})
    pole = {"grid_mapping_name": "rotated_latitude_longitude", "grid_north_pole_latitude": 39.25,
            "grid_north_pole_longitude": -162.0}  # fmt: skip
    data = data.assign_coords(rotated_pole=xr.DataArray(np.int32(0), attrs=pole))
    with pytest.raises(UserError, match="grid_mapping with the rotated pole"):
        open_source(data)
    data.t2m.attrs["grid_mapping"] = "rotated_pole"
    data.tp.attrs["grid_mapping"] = "rotated_pole"
    grid = open_source(data).axes.grid
    assert (
        grid.kind == "curvilinear"
        and grid.lat[0, 0] == pytest.approx(53.75)
        and grid.cell[0] == pytest.approx(0.44, rel=0.01)
    )


def test_heights_from_geopotential_and_from_metres_that_call_themselves_so() -> None:
    z = np.array([0.0, 9806.65])
    np.testing.assert_allclose(heights(z, {"units": "m**2 s**-2", "long_name": "Geopotential"}, "x"), [0, 1000])
    np.testing.assert_allclose(
        heights(z / 10, {"units": "m**2 s**-2", "long_name": "orographic height [m]"}, "x"), z / 10
    )
    with pytest.raises(UserError, match="set its units"):
        heights(z * 10, {"units": "m"}, "x")


def test_the_shipped_ground_is_the_earths() -> None:
    grid, ground = shipped()
    here = lambda lat, lon: ground.orography[round((90 - lat) * 4), round(lon * 4) % 1440]  # noqa: E731
    assert here(28.0, 87.0) > 4500 and here(0.0, -30.0) == 0  # the Himalaya, the Atlantic
    assert 0.28 < average(ground.land_sea_mask, area_weights(grid)) < 0.31
    coarse = statics_on(open_source(globe()).axes.grid, (grid, ground))
    assert coarse.orography.shape == (18, 36) and coarse.orography.max() > 3000


def test_ground_of_a_file(data_dir: Path) -> None:
    grid, ground = read_statics(data_dir / "climate/static/ERA5_const_sfc_variables.nc")
    ours = statics_on(grid, shipped())
    land = ground.land_sea_mask > 0.1
    assert np.abs(ours.orography - ground.orography)[land].max() <= 2.51
    ifs = read_statics(data_dir / "climate/static/IFS_TCO1279_orography_2048x1024.nc")[1]
    assert 5500 < ifs.orography.max() < 7000  # metres, whatever its units say


def test_the_real_files(data_dir: Path) -> None:
    folder = data_dir / "climate"
    andes = open_source(folder / "andes/era5_1960.nc")
    assert set(andes.names) == {"t2m", "u10", "v10", "tp"} and andes.axes.grid.shape == (89, 81)
    assert 3 < andes.read(slice(1)).pick(["tp"]).values.mean() < 6  # mm/day
    kerala = open_source(folder / "kerala/kerala_era5_2022.nc")
    assert kerala.mask.mean() == pytest.approx(0.56, abs=0.01) and not kerala.has_holes
    france = open_source(folder / "france_era5_monthly_1979-2022.nc")
    assert np.isfinite(france.read(slice(-2, None)).values).all()  # the preliminary layer
    assert open_source(folder / "global/ERA_Interim_2017a.nc").axes.grid.periodic
    pytest.importorskip("cfgrib")
    assert len(open_source(folder / "era5-2mt-2019-03-uk.grib").times) == 744
