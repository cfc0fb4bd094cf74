"""Training on a user's own file and on several regions, to the end of the command; resuming; what is held out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from sciconsist.checkpoint import save_model
from sciconsist.cli import main
from sciconsist.domains.climate.conserve import block_mean
from sciconsist.domains.climate.network import NetworkConfig
from sciconsist.domains.climate.scores import fair_crps, field_score
from sciconsist.errors import UserError
from sciconsist.workflows.climate_data import coarsened, held_out, read_region
from sciconsist.workflows.models import load
from sciconsist.workflows.train_climate import TrainConfig, site_model, start_from

TINY = [
    "--set", "network.width=8", "--set", "network.fine=6", "--set", "network.decoder=8", "--set",
    "network.dilations=[1]", "--set", "folds=2", "--set", "crop=4", "--set", "radius=1", "--batch-size", "4", "--quiet",
]  # fmt: skip


def own_file(folder: Path, name: str = "mine.nc", times: int = 40, seed: int = 0) -> Path:
    """Daily t2m (degC, packed by the writer) and rain of a made-up valley, 24 x 28 cells at 0.25 degrees."""
    rng = np.random.default_rng(seed)
    lat, lon = 48 - 0.25 * np.arange(24), 5 + 0.25 * np.arange(28)
    height = 800 * np.sin(lat / 2)[:, None] * np.cos(lon)
    wave = np.cumsum(rng.standard_normal((times, 1, 1)), 0)
    t2m = 10 + wave + 0.006 * height + 0.4 * rng.standard_normal((times, 24, 28))
    rain = np.maximum(rng.gamma(0.6, 4, (times, 24, 28)) + 0.002 * height - 1, 0)
    data = xr.Dataset(
        {
            "tas": (("time", "lat", "lon"), t2m.astype("f4"), {"units": "degC", "standard_name": "air_temperature"}),
            "pr": (
                ("time", "lat", "lon"),
                rain.astype("f4"),
                {"units": "mm/day", "standard_name": "precipitation_flux"},
            ),
        },
        {
            "time": xr.date_range("2001-01-01", periods=times),
            "lat": ("lat", lat, {"units": "degrees_north", "standard_name": "latitude"}),
            "lon": ("lon", lon, {"units": "degrees_east", "standard_name": "longitude"}),
        },
    )
    path = folder / name
    data.to_netcdf(path)
    return path


def test_a_users_file_becomes_a_site_model(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path, run = own_file(tmp_path), tmp_path / "run"
    assert main(["train", "climate", "--data", str(path), "--steps", "9", "-o", str(run), "--json", *TINY]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["model"] == str(run / "model.safetensors")
    model = load(run)
    assert model.card["data"] == "mine.nc" and str(tmp_path) not in json.dumps(model.card)
    assert model.card["steps_tuned_for"] == [1, 2, 4] and model.card["flow_map"] is False
    assert len(model.domain.config.temperature) == 2
    net: Any = model.net
    assert net.mean.beta.abs().max() > 0 and net.ground[2].all()


def test_a_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """A run cut between its phases and resumed is the run that never stopped, weight for weight."""
    path = own_file(tmp_path)
    line = ["train", "climate", "--data", str(path), "--steps", "8", *TINY]
    assert main([*line, "-o", str(tmp_path / "whole")]) == 0
    assert main([*line, "-o", str(tmp_path / "cut")]) == 0
    for gone in ("2-map", "3-crps"):
        for file in sorted((tmp_path / "cut" / gone).rglob("*"), reverse=True):
            file.unlink() if file.is_file() else file.rmdir()
        (tmp_path / "cut" / gone).rmdir()
    assert main([*line, "-o", str(tmp_path / "cut"), "--resume"]) == 0
    whole, cut = (load(tmp_path / name).state_dict() for name in ("whole", "cut"))
    assert all(torch.equal(whole[k], cut[k]) for k in whole)


def test_a_run_starts_from_another_network_and_keeps_its_own_mean(tmp_path: Path) -> None:
    region = read_region(own_file(tmp_path))
    tiny = {"width": 8, "fine": 6, "decoder": 8, "dilations": [1]}
    first, second = (
        site_model(region, TrainConfig(folds=2, radius=r, network=NetworkConfig(**tiny)), seed=r)[0] for r in (1, 2)
    )
    save_model(tmp_path / "m.safetensors", first)
    mean = second.net.mean.beta.clone()
    start_from(second, tmp_path / "m.safetensors")
    assert torch.equal(second.net.mean.beta, mean)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters()))
    other = site_model(region, TrainConfig(folds=2, radius=1, network=NetworkConfig(**tiny | {"width": 16})))[0]
    with pytest.raises(UserError, match=r"network\.\*"):
        start_from(other, tmp_path / "m.safetensors")


def test_several_regions_become_a_model_for_any(tmp_path: Path) -> None:
    parts = [own_file(tmp_path, f"r{k}.nc", seed=k) for k in range(3)]
    run = tmp_path / "run"
    line = ["--data", ",".join(map(str, parts)), "--set", 'choose=["r2.nc"]', "--steps", "9", "-o", str(run)]
    assert main(["train", "climate", *line, *TINY]) == 0
    model = load(run)
    assert model.domain.config.site is None and model.card["chosen_on"] == ["r2.nc"]
    assert model.card["data"] == ["r0.nc", "r1.nc"]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (["--set", "factor=8"], "16"),
        (["--set", "folds=9"], "times"),
        (["--set", 'variables=["snow"]'], "snow"),
        (["--set", "colour=1"], "colour"),
    ],
)
def test_mistakes_get_one_line(tmp_path: Path, capsys: pytest.CaptureFixture, settings: list[str], named: str) -> None:
    path = own_file(tmp_path)
    if named == "16":
        xr.open_dataset(path).isel(lat=slice(0, 12)).to_netcdf(path := tmp_path / "low.nc")
        named = "12 x 28"
    line = ["train", "climate", "--data", str(path), "--steps", "3", "-o", str(tmp_path / "run"), *TINY, *settings]
    assert main(line) == 2
    error = capsys.readouterr().err
    assert named in error and len(error.strip().splitlines()) == 1


def test_the_closed_form_mean_is_cross_fitted(tmp_path: Path) -> None:
    """Residuals of times that the fit has not seen are larger than those it has: the spread is that of new data."""
    region = read_region(own_file(tmp_path))
    _, data = site_model(region, TrainConfig(folds=2, radius=1))
    fine, coarse, ground = coarsened(region, 4)
    seen = data.domain.base(data.net, coarse, ground, data.seasons)
    new, old = ((fine - mean).square().mean() for mean in (data.base, seen))
    assert new > 1.1 * old


def test_a_mean_of_the_transform_is_positive_and_conserves(tmp_path: Path) -> None:
    region = read_region(own_file(tmp_path))
    _, data = site_model(region, TrainConfig(folds=2, radius=1, transformed=True, cycle="year", rank=6))
    rain = data.base[:, data.domain.names.index("tp")]
    assert rain.min() >= 0
    area = data.ground.area[None, None]
    assert torch.allclose(block_mean(data.base, area, 4), data.coarse, atol=1e-4, rtol=1e-5)


def test_a_rank_is_positive_and_there_is_one_for_each_variable(tmp_path: Path) -> None:
    region = read_region(own_file(tmp_path))
    count = len(region.fields.names)
    with pytest.raises(UserError, match="one for each of"):
        site_model(region, TrainConfig(folds=2, radius=1, rank=[4] * (count + 1)))
    for rank in (0, [4, 0]):
        with pytest.raises(ValueError, match="greater than 0"):
            TrainConfig(rank=rank)
    _, data = site_model(region, TrainConfig(folds=2, radius=1, rank=list(range(2, 2 + count)), squares=True))
    assert data.net.mean is not None and data.net.mean.beta.shape[0] == sum(range(2, 2 + count))


def test_a_spread_that_varies_is_part_of_a_site(tmp_path: Path) -> None:
    """Residuals keep their unit size, times differ in width, and fields come back from them."""
    region = read_region(own_file(tmp_path))
    _, data = site_model(region, TrainConfig(folds=2, radius=1, cycle="year", varying=True))
    law = data.net.law
    assert law is not None and law.shape[1] == 4 and law.abs().max() > 0
    h, w = data.ground.valid.shape
    batch = data.window(torch.arange(len(data)), slice(0, h), slice(0, w))
    assert isinstance(batch.x0, torch.Tensor)
    assert 0.8 < float(batch.x0.square().mean().sqrt()) < 1.2
    assert batch.condition["spread"].std(0).max() > 0
    assert torch.allclose(data.domain.fields(batch.x0, batch.condition), batch.condition["truth"], atol=1e-2, rtol=1e-3)


def test_held_out_times_are_the_ends_of_stretches() -> None:
    train, late = held_out(100, 0.1, 5)
    assert late.tolist() == [18, 19, 38, 39, 58, 59, 78, 79, 98, 99]
    assert sorted([*train, *late]) == list(range(100))


def test_the_fair_crps_does_not_depend_on_the_members() -> None:
    """Of a perfect ensemble it is 1 / sqrt(pi) at any M (standard normal)."""
    g = torch.Generator().manual_seed(0)
    for members in (2, 3, 8):
        draws = torch.randn(members + 1, 200_000, generator=g)
        assert abs(float(fair_crps(draws[1:], draws[0]).mean()) - np.pi**-0.5) < 5e-3


def test_the_score_of_differences_tells_rough_members_from_smooth_ones() -> None:
    g = torch.Generator().manual_seed(0)

    def smooth(*shape: int) -> torch.Tensor:
        rough = torch.randn(*shape, 20, 20, generator=g)
        flat = torch.nn.functional.avg_pool2d(rough.flatten(0, -3), 5, 1)
        return (flat / flat.std()).reshape(*shape, 16, 16)

    truth, area = smooth(64, 1), torch.ones(64, 1, 16, 16)
    likes, rough = smooth(2, 64, 1), torch.randn(2, 64, 1, 16, 16, generator=g)
    plain = [float(field_score(x, truth, area, 0.0, 0.0).mean()) for x in (likes, rough)]
    whole = [float(field_score(x, truth, area, 1.0, 1.0).mean()) for x in (likes, rough)]
    assert abs(plain[0] - plain[1]) < 0.06 and whole[1] > whole[0] + 0.08
