"""Scoring downscaled files, the report page, the benchmark, and the flow method from command to file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from sciconsist.cli import main
from sciconsist.domains.climate.noise import keyed_normal
from sciconsist.errors import UserError
from sciconsist.workflows.climate_report import write_climate_report
from sciconsist.workflows.downscale import downscale, plan
from sciconsist.workflows.evaluate_climate import evaluate_climate
from sciconsist.workflows.models import shipped
from tests.climate.datasets_of import globe, made_up

needs_model = pytest.mark.skipif("climate-zeroshot" not in shipped(), reason="the model is not in this package")


@pytest.fixture(scope="module")
def truth() -> xr.Dataset:
    """24 x 32 cells of half a degree, 20 days."""
    return made_up(24, 32, 20, step=0.5, lat0=52.25)


@pytest.fixture(scope="module")
def coarse(truth: xr.Dataset) -> xr.Dataset:
    """Its area means over 4 x 4 cells, computed by xarray."""
    weights = np.cos(np.deg2rad(truth.latitude)) + 0 * truth.longitude
    blocks = {"latitude": 4, "longitude": 4}
    out = (truth * weights).coarsen(blocks).sum() / weights.coarsen(blocks).sum()
    for name in ("t2m", "tp", "latitude", "longitude"):
        out[name].attrs = truth[name].attrs
    return out.transpose("time", "latitude", "longitude")


def test_the_truth_itself_is_perfect(truth: xr.Dataset) -> None:
    found = evaluate_climate(truth.assign_attrs(sciconsist_factor=4), truth, with_baselines=False)
    for name in ("t2m", "tp"):
        figures = found.figures["samples"][name]
        assert figures["rmse"] < 1e-6 and figures["crps"] < 1e-6 and abs(figures["high_frequency"] - 1) < 1e-6
        assert figures["conservation"] < 1e-5 and figures["q99.9_error"] < 1e-5


def test_a_baseline_that_was_written_scores_as_the_one_beside_it(truth: xr.Dataset, coarse: xr.Dataset) -> None:
    made = downscale(coarse, 4, method="bilinear", conserve=False)
    found = evaluate_climate(made, truth, training=truth)
    assert set(found.figures) == {"samples", "bilinear", "lapse", "delta", "quantile", "regression", "bootstrap"}
    for name in ("t2m", "tp"):
        mine, theirs = (found.figures[m][name] for m in ("samples", "bilinear"))
        assert mine["rmse"] == pytest.approx(theirs["rmse"], rel=2e-3)
        # the ridge has seen these very times
        assert found.figures["regression"][name]["rmse"] < theirs["rmse"]
        assert found.figures["bootstrap"][name]["conservation"] < 1e-5
    rows = dict(found.table("tp"))
    assert len(rows["crps"]) == len(found.figures)


def test_a_calibrated_ensemble_is_told_from_a_narrow_one(truth: xr.Dataset) -> None:
    rng = np.random.default_rng(0)
    found = {}
    for size in (1.0, 0.3):
        noise = rng.standard_normal((8, *truth.t2m.shape)).astype("f4")
        centre = truth.t2m.values + rng.standard_normal(truth.t2m.shape).astype("f4")
        samples = truth[["t2m"]].drop_vars("t2m").assign_attrs(sciconsist_factor=4)
        samples["t2m"] = (("realization", *truth.t2m.dims), centre + size * noise, truth.t2m.attrs)
        found[size] = evaluate_climate(samples, truth, with_baselines=False).figures["samples"]["t2m"]
    assert abs(found[1.0]["spread_skill"] - 1) < 0.1 and found[0.3]["spread_skill"] < 0.4
    assert found[1.0]["reliability_index"] < 0.5 * found[0.3]["reliability_index"]


def test_the_command_writes_figures_and_a_page(
    truth: xr.Dataset, coarse: xr.Dataset, tmp_path: Path, capsys: Any
) -> None:
    pytest.importorskip("matplotlib")
    truth.to_netcdf(tmp_path / "truth.nc")
    downscale(coarse, 4, method="bootstrap", members=4, reference=truth).to_netcdf(tmp_path / "fine.nc")
    line = [str(tmp_path / "fine.nc"), "--reference", str(tmp_path / "truth.nc"), "-o", str(tmp_path / "r.json")]
    assert main(["evaluate", "climate", *line, "--html", str(tmp_path / "r.html")]) == 0
    assert "spread_skill" in capsys.readouterr().out
    figures = json.loads((tmp_path / "r.json").read_text())
    assert figures["members"] == 4 and figures["factor"] == 4 and figures["origin"]["sciconsist_method"] == "bootstrap"
    assert 0 < figures["figures"]["samples"]["tp"]["crps"] < figures["figures"]["bilinear"]["tp"]["crps"]
    page = (tmp_path / "r.html").read_text()
    for said in ("tp: maps", "t2m: spectra", "tp: calibration", "data:image/png;base64", "Fair CRPS"):
        assert said in page
    assert "http://" not in page.replace("http://www.w3.org", "") or 'src="http' not in page


def test_stations_against_a_grid_and_against_observations(
    truth: xr.Dataset, coarse: xr.Dataset, tmp_path: Path
) -> None:
    (tmp_path / "s.csv").write_text("station,lat,lon\nA,50.25,5\nB,46.75,11.5\n")
    made = downscale(coarse, points=tmp_path / "s.csv", method="bilinear", conserve=False)
    found = evaluate_climate(made, truth)
    assert set(found.figures["samples"]) == {"t2m", "tp"} and found.scored is None
    assert found.figures["samples"]["t2m"]["rmse"] > 0.5
    with pytest.raises(UserError, match="at stations"):
        write_climate_report(tmp_path / "r.html", found)
    own = made.isel(realization=0, drop=True)
    assert evaluate_climate(made, own).figures["samples"]["t2m"]["rmse"] < 1e-5


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.drop_attrs(), "give --factor"),
        (lambda d: d.assign_coords(time=d.time + np.timedelta64(9000, "D")), "no time of the reference"),
        (lambda d: d[["t2m"]].rename(t2m="snow").assign_attrs(d.attrs), "expected some in common"),
        (lambda d: d.assign_coords(longitude=d.longitude + 100), "no cell has values"),
    ],
)
def test_mistakes_get_one_line(truth: xr.Dataset, change: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        evaluate_climate(change(truth.assign_attrs(sciconsist_factor=4)), truth)


@pytest.mark.parametrize("case", ["uk"])
def test_the_benchmark_has_a_row_for_each_method(case: str, data_dir: Path) -> None:
    from sciconsist.workflows.benchmark_climate import benchmark_climate

    rows = {r["method"]: r for r in benchmark_climate(case, members=3, steps=1, limit=4)}
    assert {"bilinear", "delta", "regression + conservation", "bootstrap ensemble"} <= set(rows)
    assert rows["bootstrap ensemble"]["crps"] < rows["regression + conservation"]["crps"] < rows["bilinear"]["crps"]
    assert rows["bootstrap ensemble"]["conservation"] < 1e-5
    with pytest.raises(UserError, match="no case"):
        list(benchmark_climate("moon"))


# --- the flow method with the model in the package


@needs_model
def test_a_flow_conserves_repeats_and_differs_between_members(coarse: xr.Dataset) -> None:
    day = coarse.isel(time=slice(2))
    fine, again = (downscale(day, 4, members=2, steps=2, seed=3) for _ in range(2))
    assert fine.equals(again) and fine.attrs["sciconsist_model"] == "climate-zeroshot"
    other = downscale(day, 4, members=2, steps=2, seed=4)
    assert float(np.abs(fine.t2m[0] - fine.t2m[1]).mean()) > 0.01 and not fine.equals(other)
    weights = np.cos(np.deg2rad(fine.latitude)) + 0 * fine.longitude
    blocks = {"latitude": 4, "longitude": 4}
    means = (fine.astype("f8") * weights).coarsen(blocks).sum() / weights.coarsen(blocks).sum()
    for name in ("t2m", "tp"):
        off = np.abs(means[name].transpose(*fine[name].dims).values - day[name].values)
        assert off.max() <= 1e-5 * float(day[name].std()) and float(fine.tp.min()) >= 0


@needs_model
def test_monthly_means_get_a_warning_and_the_output_names_what_its_model_learned_from() -> None:
    months = np.array(["2001-01-01", "2001-02-01", "2001-03-01"], "datetime64[ns]")
    said = plan(made_up(times=months, names=("t2m",)), 4, members=1).notes
    assert any("monthly means" in note for note in said)
    day = plan(made_up(times=2, names=("t2m",)), 4, members=1)
    assert not any("monthly" in note for note in day.notes)
    assert "era5-andes" in day.layout.frame.attrs["sciconsist_training_data"]


@needs_model
@pytest.mark.slow
def test_a_flow_in_tiles_is_the_whole_and_a_rolled_globe_is_rolled() -> None:
    data = globe(8.0, 1)
    whole = downscale(data, 2, members=1, steps=1, tile=256)
    tiled = downscale(data, 2, members=1, steps=1, tile=24)
    for name in ("t2m", "tp"):
        scale = float(whole[name].std())
        assert np.abs(whole[name] - tiled[name]).max() <= 1e-5 * scale
    rolled = downscale(data.roll(longitude=data.sizes["longitude"] // 2, roll_coords=True), 2, members=1, steps=1)
    back, there = (d.assign_coords(longitude=d.longitude % 360).sortby("longitude") for d in (rolled, whole))
    assert np.allclose(back.longitude, there.longitude)
    for name in ("t2m", "tp"):
        assert np.abs(back[name].values - there[name].values).max() <= 1e-5 * float(whole[name].std())


@needs_model
def test_members_of_hourly_fields_do_not_flicker() -> None:
    """The noise that two hours share is theirs in any file: a member's hours are alike, and the same from elsewhere."""
    from sciconsist.workflows.models import load

    memory = load("climate-zeroshot").domain.config.memory
    if not any(memory):
        pytest.skip("this model has no memory")
    hours = np.datetime64("2001-03-30", "ns") + np.arange(4) * np.timedelta64(1, "h")
    day = made_up(8, 8, hours, names=("t2m",))
    day["t2m"][:] = day.t2m[0].values
    fine = downscale(day, 4, members=1, steps=1).t2m[0]
    late = downscale(day.isel(time=slice(2, None)), 4, members=1, steps=1).t2m[0]
    assert np.array_equal(fine[2:], late)
    assert float(np.abs(fine[1] - fine[0]).mean()) < float(np.abs(fine[3] - fine[0]).mean())


def test_noise_of_other_hours_is_white_without_a_memory() -> None:
    lat, lon = np.meshgrid(np.arange(40.0), np.arange(40.0), indexing="ij")
    a, b = keyed_normal(0, [0], ["t2m"], ["2001-01-01T00:00:00", "2001-01-01T01:00:00"], lat, lon)[0, :, 0]
    assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.1


# --- signals


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_what_a_signal_leaves(number: int, status: int, tmp_path: Path) -> None:
    """SIGTERM keeps the finished blocks under the file's name; after SIGKILL there is no file that looks whole."""
    made_up(40, 40, 4000, names=("t2m",)).to_netcdf(tmp_path / "in.nc")
    line = ["downscale", "in.nc", "-o", "out.nc", "--factor", "8", "--method", "bicubic", "--quiet"]
    run = subprocess.Popen(
        [sys.executable, "-m", "sciconsist", *line], cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    deadline = time.monotonic() + 300
    grown = 0
    while run.poll() is None and time.monotonic() < deadline and grown < 80_000_000:  # some blocks of 24 MB
        time.sleep(0.1)
        grown = max((p.stat().st_size for p in tmp_path.iterdir() if p.name != "in.nc"), default=0)
    run.send_signal(number)
    assert run.wait(60) == status
    if number == signal.SIGKILL:
        assert not (tmp_path / "out.nc").exists()
        return
    with xr.open_dataset(tmp_path / "out.nc") as got:
        done = np.isfinite(got.t2m[0]).all(("latitude", "longitude")).values
    assert done[0] and not done[-1]
