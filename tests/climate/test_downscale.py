"""Downscaling from file to file: what is kept, that tiles and chunks do not matter, and how mistakes are told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import sciconsist as sc
from sciconsist.cli import main
from sciconsist.errors import UserError
from sciconsist.workflows.downscale import downscale, plan
from sciconsist.workflows.tile_runs import blocks, fill, to_dataset, to_file
from tests.climate.datasets_of import globe, made_up

BILINEAR: dict[str, Any] = {"method": "bilinear"}


def means(fine: xr.DataArray, factor: int) -> np.ndarray:
    """Area means over blocks."""
    weights = np.cos(np.deg2rad(fine.latitude)) + 0 * fine.longitude
    blocks = {"latitude": factor, "longitude": factor}
    return ((fine * weights).coarsen(blocks).sum() / weights.coarsen(blocks).sum()).transpose(*fine.dims).values


def test_output_keeps_what_the_input_has() -> None:
    data = made_up(names=("t2m", "tp", "msl")).rename(t2m="tas", latitude="lat").isel(lat=slice(None, None, -1))
    data["msl"] = (data.msl / 100).assign_attrs(units="hPa")
    got = downscale(data, 2, **BILINEAR)
    assert got.tas.dims == ("realization", "time", "lat", "longitude") and got.tas.dtype == np.float32
    assert [got[v].attrs["units"] for v in ("tas", "tp", "msl")] == ["K", "m", "hPa"]
    assert np.all(np.diff(got.lat) > 0) and 900 < float(got.msl.mean()) < 1100
    assert got.tas.attrs["standard_name"] == "air_temperature" and got.attrs["Conventions"] == "CF-1.8"
    assert got.attrs["sciconsist_method"] == "bilinear" and got.attrs["institution"] == "made up"
    np.testing.assert_array_equal(got.time, data.time)


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_coarse_means_are_the_input(factor: int) -> None:
    data = made_up()
    got = downscale(data, factor, **BILINEAR)
    for name in ("t2m", "tp"):
        error = np.abs(means(got[name].astype(float)[0], factor) - data[name].values).max()
        assert error <= 1e-5 * float(data[name].std()), name
    assert float(got.tp.min()) >= 0


@pytest.mark.parametrize("factor", [1.5, 2.5, 7.3])
def test_factors_that_are_no_whole_numbers(factor: float) -> None:
    got = downscale(made_up(), factor, **BILINEAR)
    assert got.sizes["longitude"] == int(8 * factor) and np.isfinite(got.t2m).all()


@pytest.mark.parametrize("method", ["nearest", "bilinear", "bicubic", "lapse"])
def test_tiles_give_what_the_whole_gives(method: str) -> None:
    data = globe()
    whole, tiled = (downscale(data, 4, method=method, tile=tile) for tile in (256, 48))
    for name in ("t2m", "tp"):
        np.testing.assert_allclose(tiled[name], whole[name], atol=1e-5 * float(whole[name].std()))


def test_a_rolled_globe_gives_the_rolled_result() -> None:
    data = globe()
    rolled = data.roll(longitude=18, roll_coords=True)
    rolled = rolled.assign_coords(longitude=np.where(rolled.longitude >= 180, rolled.longitude - 360, rolled.longitude))
    a, b = (downscale(d, 4, method="lapse").t2m for d in (data, rolled))
    assert float(b.longitude.min()) < -179
    np.testing.assert_allclose(b, np.roll(a, 72, -1), atol=1e-4)


def test_rows_on_the_poles_are_halved() -> None:
    got = downscale(globe(poles=True), 4, **BILINEAR)
    assert got.sizes["latitude"] == 4 * 19 - 4 and float(got.latitude_bnds.max()) == 90.0
    assert np.isfinite(got.t2m).all()


def test_a_crop_gives_the_crop_away_from_its_rim() -> None:
    data = made_up(12, 12)
    whole = downscale(data, 4, method="bicubic").t2m
    crop = downscale(data.isel(latitude=slice(2, 10), longitude=slice(3, 11)), 4, method="bicubic").t2m
    inner = (..., slice(8, -8), slice(8, -8))
    np.testing.assert_allclose(crop.values[inner], whole.values[..., 8:40, 12:44][inner], atol=1e-4)


def test_missing_cells_and_moments_stay_missing() -> None:
    data = made_up()
    data["t2m"][:, 0, :3] = np.nan
    data["t2m"][2, 4, 4] = np.nan
    got = downscale(data[["t2m"]], 2, **BILINEAR).t2m[0]
    assert np.isnan(got[:, :2, :6]).all() and np.isnan(got[2, 8:10, 8:10]).all()
    assert int(np.isnan(got).sum()) == 5 * 12 + 4


def test_another_grid_and_stations(tmp_path: Path) -> None:
    data = made_up()
    like = xr.Dataset(coords={"lat": [51.3, 50.8, 49.1], "lon": [3.2, 4.7, 6.2, 7.7]})
    got = downscale(data, like=like, conserve=False, **BILINEAR)
    np.testing.assert_allclose(got.latitude, like.lat)
    want = data.t2m.astype(float).interp(latitude=like.lat.values, longitude=like.lon.values)
    np.testing.assert_allclose(got.t2m[0], want, atol=1e-3)
    (tmp_path / "s.csv").write_text("station,lat,lon,elevation\nA,51.3,3.2,10\nB,49.1,7.7,1200\nfar,10,10,0\n")
    at = downscale(data, points=tmp_path / "s.csv", **BILINEAR)
    assert at.t2m.dims == ("realization", "time", "station") and list(at.station.values) == ["A", "B", "far"]
    np.testing.assert_allclose(at.t2m[0, :, 0], want[:, 0, 0], atol=1e-3)
    assert np.isnan(at.t2m[0, :, 2]).all()  # outside
    high = downscale(data, points=tmp_path / "s.csv", method="lapse").t2m - at.t2m
    assert float(high[0, 0, 1]) < float(high[0, 0, 0])  # 1200 m is colder


def test_rotated_grids_are_split_in_their_own_coordinates() -> None:
    data = made_up().rename(latitude="rlat", longitude="rlon")
    data["rlat"] = ("rlat", 3.0 - np.arange(6) * 0.44, {"standard_name": "grid_latitude", "units": "degrees"})
    data["rlon"] = ("rlon", np.arange(8) * 0.44, {"standard_name": "grid_longitude", "units": "degrees"})
    pole = {"grid_mapping_name": "rotated_latitude_longitude", "grid_north_pole_latitude": 39.25,
            "grid_north_pole_longitude": -162.0}  # fmt: skip
    for name in ("t2m", "tp"):
        data[name].attrs["grid_mapping"] = "rotated_pole"
    got = downscale(data.assign_coords(rotated_pole=xr.DataArray(np.int32(0), attrs=pole)), 2, **BILINEAR)
    assert got.t2m.dims[2:] == ("rlat", "rlon") and got.lat.dims == ("rlat", "rlon")
    assert np.allclose(np.diff(got.rlat), -0.22) and "rotated_pole" in got.variables


def test_learning_from_the_past_is_the_same_in_tiles() -> None:
    times = np.datetime64("2001-01-01", "ns") + np.arange(60) * np.timedelta64(1, "D")
    fine = made_up(24, 32, times, step=0.25, lat0=52.375, lon0=1.625)
    coarse = downscale_back(fine)
    for method in ("delta", "quantile", "regression", "bootstrap"):
        whole, tiled = (
            downscale(coarse.isel(time=slice(3)), 4, method=method, reference=fine, members=2, tile=tile)
            for tile in (256, 9)
        )
        assert whole.sizes["realization"] == (2 if method == "bootstrap" else 1)
        for name in ("t2m", "tp"):
            np.testing.assert_allclose(tiled[name], whole[name], atol=1e-5 * float(whole[name].std()), err_msg=method)


def downscale_back(fine: xr.Dataset) -> xr.Dataset:
    """Area means over blocks of four, with the coordinates of their centres."""
    coarse = fine.coarsen(latitude=4, longitude=4).mean()
    for name in fine.data_vars:
        coarse[name].values[...] = means(fine[name].astype(float), 4)
        coarse[name].attrs = fine[name].attrs
    return coarse


def test_chunked_data_stay_lazy_and_are_the_same() -> None:
    dask = pytest.importorskip("dask.array")
    data = globe()
    lazy = data.chunk(time=1).sciconsist.downscale(2, tile=20, **BILINEAR)  # type: ignore[attr-defined]
    assert isinstance(lazy.t2m.data, dask.Array)
    eager = sc.downscale(data, 2, **BILINEAR)
    np.testing.assert_allclose(lazy.t2m, eager.t2m, atol=1e-4)
    assert lazy.t2m.dims == eager.t2m.dims and lazy.t2m.attrs == eager.t2m.attrs


# --- files


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_files_hold_what_memory_holds(suffix: str, tmp_path: Path) -> None:
    if suffix == ".zarr":
        pytest.importorskip("zarr")
    data = made_up().isel(latitude=slice(None, None, -1))
    data["t2m"][:, 0, :3] = np.nan
    data.to_netcdf(tmp_path / "in.nc")
    made = plan(tmp_path / "in.nc", 2, tile=8, **BILINEAR)
    made.chunk = 2
    to_file(made, tmp_path / f"out{suffix}")
    want = to_dataset(made)
    with xr.open_dataset(tmp_path / f"out{suffix}", engine="zarr" if suffix == ".zarr" else "netcdf4") as got:
        for name in ("t2m", "tp"):
            np.testing.assert_array_equal(got[name], want[name])
            assert got[name].dims == want[name].dims and got[name].attrs["units"] == want[name].attrs["units"]
        np.testing.assert_array_equal(got.latitude, want.latitude)
        assert got.attrs["sciconsist_seed"] == 0


@pytest.mark.parametrize("kind", ["grid", "stations", "noleap"])
def test_the_cf_checker_finds_no_error(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("compliance_checker")
    times: Any = 5
    if kind == "noleap":
        times = xr.date_range("2001-02-26", periods=5, freq="D", calendar="noleap", use_cftime=True)
    data = made_up(times=times, names=("t2m", "tp", "u10", "msl"))
    data.t2m.attrs |= {"standard_name": "unknown", "GRIB_paramId": 167, "long_name": "2 metre temperature"}
    data.to_netcdf(tmp_path / "in.nc")
    options = ["--factor", "3"]
    if kind == "stations":
        (tmp_path / "s.csv").write_text("id,lat,lon,elevation\nA,51.3,3.1,10\nB,49.1,7.7,1200\n")
        options = ["--points", str(tmp_path / "s.csv")]
    out = tmp_path / "out.nc"
    assert main(["downscale", str(tmp_path / "in.nc"), "-o", str(out), *options, "--method", "bilinear", "-q"]) == 0
    report = tmp_path / "cf.json"
    # a process of its own: the checker's libraries and ecCodes in one process abort when Python ends
    code = (
        "from compliance_checker.runner import CheckSuite, ComplianceChecker as C\n"
        "CheckSuite.load_all_available_checkers()\n"
        f"C.run_checker({str(out)!r}, ['cf:1.8'], 0, 'strict', output_filename={str(report)!r}, output_format='json')"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True, timeout=120)
    found = json.loads(report.read_text())["cf:1.8"]
    errors = [m for level in ("high_priorities", "medium_priorities") for c in found[level] for m in c["msgs"]]
    assert not errors, errors


@pytest.mark.slow
def test_workers_and_clusters_change_nothing(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    globe().to_netcdf(tmp_path / "in.nc")
    made = lambda: plan(tmp_path / "in.nc", 4, method="lapse", tile=48)  # noqa: E731
    to_file(made(), tmp_path / "a.nc")
    to_file(made(), tmp_path / "b.nc", workers=2)
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        to_file(made(), tmp_path / "c.nc", scheduler=cluster.scheduler_address)
    a, b, c = (xr.open_dataset(tmp_path / f"{k}.nc") for k in "abc")
    np.testing.assert_array_equal(a.t2m, b.t2m)
    np.testing.assert_array_equal(a.t2m, c.t2m)


def test_a_stop_keeps_the_blocks_that_are_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan(made_up(), 2, **BILINEAR)
    made.chunk = 2

    def stops(number: int) -> None:
        stops.seen = getattr(stops, "seen", 0) + number  # type: ignore[attr-defined]
        if stops.seen == 2:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        to_file(made, tmp_path / "out.nc", progress=stops)
    with xr.open_dataset(tmp_path / "out.nc") as got:
        done = np.isfinite(got.t2m[0]).all(("latitude", "longitude")).values
        assert done.tolist() == [True, True, True, True, False]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.nc"]


def test_memory_does_not_grow_with_time(tmp_path: Path) -> None:
    made = plan(made_up(times=50), 4, **BILINEAR)
    made.chunk = 5
    shapes = {values.shape for _, _, values in blocks(made)}
    assert shapes == {(1, 5, 2, 24, 32)} and len(made.steps) == 10

    class Counting:
        number = 0

        def write(self, values: np.ndarray, members: slice, times: slice, box: tuple[slice, slice]) -> None:
            self.number += values.size

        def close(self) -> None: ...

    sink = Counting()
    fill(sink, made, blocks(made), lambda n: None)
    assert sink.number == int(np.prod(made.layout.shape)) * 2


# --- mistakes


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "give one of --factor, --like and --points"),
        ({"factor": 4, "like": "x.nc"}, "give one of"),
        ({"factor": 0.5}, "--factor 0.5"),
        ({"factor": 4, "method": "magic"}, "expected one of flow, nearest"),
        ({"factor": 4, "method": "delta"}, "give --reference FILE"),
        ({"factor": 4, "method": "bilinear", "reference": "x.nc"}, "does not use it"),
        ({"factor": 2.5, "method": "regression", "reference": made_up()}, "with a whole number"),
        ({"factor": 4, "method": "lapse", "variables": ["tp"]}, "temperatures only"),
        ({"factor": 4, "members": 0}, "at least 1"),
    ],
)
def test_requests_that_make_no_sense(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        downscale(made_up(), **{"method": "bilinear", **options})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n1,2\n", "expected lat and lon"), ("lat,lon\n51,x\n", r"line 2: lon is 'x'"),
        ("lat,lon\n95,3\n", "no place on Earth"), ("lat,lon\n-51,3\n", "no station lies in"),
        ("", "expected lat and lon"),
    ],
)  # fmt: skip
def test_stations_that_are_none(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(UserError, match=says):
        downscale(made_up(), points=tmp_path / "s.csv", **BILINEAR)


def test_the_command_says_what_it_did_and_what_is_wrong(tmp_path: Path) -> None:
    made_up().to_netcdf(tmp_path / "in.nc")
    run = lambda *a: subprocess.run(  # noqa: E731
        [sys.executable, "-m", "sciconsist", "downscale", *a], capture_output=True, text=True, cwd=tmp_path,
        env=os.environ | {"PYTHONWARNINGS": "ignore"}, timeout=120, check=False,
    )  # fmt: skip
    done = run("in.nc", "-o", "out.nc", "--factor", "2", "--method", "bicubic", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["grid"] == [12, 16] and found["variables"] == ["t2m", "tp"] and found["members"] == 1
    bad = run("in.nc", "-o", "out.txt", "--factor", "2", "--method", "bicubic")
    assert bad.returncode == 2 and bad.stderr.count("\n") == 1 and ".nc or .zarr" in bad.stderr
