"""The memory of the noise, fitted so that members move in time as the truth does."""

from __future__ import annotations

from typing import Any

import torch

from sciconsist.domains.climate.noise import likeness
from sciconsist.workflows.climate_memory import lag1, moving


def test_lag1_of_an_autoregression_is_its_coefficient() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(3000, 1, 6, 5, generator=g)
    for t in range(1, len(x)):
        x[t] = 0.7 * x[t - 1] + (1 - 0.7**2) ** 0.5 * x[t]
    assert abs(float(lag1(x, torch.ones(6, 5))) - 0.7) < 0.02


def test_moving_means_have_variance_one_and_the_likeness_that_is_said() -> None:
    white = torch.randn(1, 6000, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    for memory in (0.0, 1.0, 2.5, 4.0):
        x = moving(white, memory)
        assert abs(float(x.var()) - 1) < 0.03
        assert abs(float(lag1(x[0], torch.ones(4, 4))) - likeness(memory)) < 0.03


def test_members_get_the_truths_correlation(tmp_path: Any) -> None:
    """A site whose detail is an hour-to-hour autoregression, and a network that passes the noise through."""
    import numpy as np
    import xarray as xr

    from sciconsist.workflows.climate_data import read_region
    from sciconsist.workflows.climate_memory import lag1_of_members, set_memory, standardised
    from sciconsist.workflows.train_climate import TrainConfig, site_model

    rng = np.random.default_rng(0)
    values = rng.standard_normal((90, 16, 20)).astype("f4")
    for t in range(1, len(values)):
        values[t] = 0.6 * values[t - 1] + 0.8 * values[t]
    path = tmp_path / "hourly.nc"
    xr.Dataset(
        {"t2m": (("time", "lat", "lon"), 280 + values, {"units": "K", "standard_name": "air_temperature"})},
        {"time": xr.date_range("2001-01-01", periods=90, freq="h"),
         "lat": ("lat", 50 - 0.25 * np.arange(16), {"units": "degrees_north"}),
         "lon": ("lon", 0.25 * np.arange(20), {"units": "degrees_east"})},
    ).to_netcdf(path)  # fmt: skip
    model, site = site_model(read_region(path), TrainConfig(folds=2, radius=0))
    model.net.forward = lambda x, s, t, *_: x if float(t[0]) == 0 else 0 * x  # the noise itself at the end
    set_memory(model, site, 3600.0)
    assert model.domain.config.slot == 3600.0
    truth = float(lag1(standardised(model, site), site.ground.area))
    found = float(lag1_of_members(model, site, torch.arange(42, 90), model.domain.config.memory[0]))
    assert truth > 0.4 and abs(found - truth) < 0.08
