"""A small world for climate tests: coarse fields over hills and sea, and untrained models with drawn weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from sciconsist.domains.climate.adapter import from_config
from sciconsist.domains.climate.fields import Fields, Grid, Statics
from sciconsist.domains.climate.grids import refine
from sciconsist.flowmap import FlowMap
from sciconsist.random import stream

NETWORK = {"width": 12, "fine": 8, "decoder": 12, "dilations": [1, 2], "time_width": 8}


@dataclass(frozen=True)
class World:
    """Coarse fields, the lattice that splits their cells, and the ground of both."""

    coarse: Fields
    target: Grid
    statics_coarse: Statics
    statics_target: Statics


def world(h: int = 12, w: int = 14, factor: int = 4, times: int = 3, periodic: bool = False, seed: int = 0) -> World:
    rng = np.random.default_rng(seed)
    step = 360 / w if periodic else 1.0
    grid = Grid(40.0 - np.arange(h) * 1.0, 5.0 + step * np.arange(w), (1.0, step), periodic)
    values = np.stack(
        [
            280 + 5 * rng.standard_normal((times, h, w)),
            np.maximum(rng.gamma(0.4, 8.0, (times, h, w)) - 1, 0),  # dry cells among them
            3 * rng.standard_normal((times, h, w)),
        ],
        1,
    )
    stamps = tuple(f"2001-{m + 1:02d}-15T06:00:00" for m in range(times))
    fine = refine(grid, factor)
    height = np.maximum(rng.normal(300, 400, fine.shape), 0).astype(np.float32)
    land = (height > 0).astype(np.float32)
    blocks = [a.reshape(h, factor, w, factor).mean((1, 3)) for a in (height, land)]
    return World(
        Fields(values, ("t2m", "tp", "u10"), stamps, grid, np.ones((h, w), bool)),
        fine, Statics(blocks[0], blocks[1]), Statics(height, land),
    )  # fmt: skip


def untrained(site: World | None = None, factor: int = 4, seed: int = 0) -> FlowMap:
    """A model whose weights are all drawn, the zero-initialised ones, too."""
    config: dict = {
        "variables": ["t2m", "tp", "u10"], "factor": factor, "network": dict(NETWORK),
        "centre": [280.0, 1.0, 0.0], "scale": [5.0, 1.0, 3.0], "spread": [0.8, 0.3, 0.5],
    }  # fmt: skip
    if site is not None:
        grid = site.coarse.grid
        config["site"] = {"lat": grid.lat.tolist(), "lon": grid.lon.tolist(), "radius": 1, "varying": True}
        config["network"]["embedding"] = 2
    model = from_config(config).model()
    generator = stream(seed, "weights")
    with torch.no_grad():
        for p in model.net.parameters():
            p.copy_(0.25 * torch.randn(p.shape, generator=generator))
        if site is not None:
            mean = model.net.mean
            mean.beta.copy_(0.3 * torch.randn(mean.beta.shape, generator=generator))
            mean.centre.copy_(torch.tensor(site.coarse.values.mean(0)))
            mean.scale.copy_(torch.tensor(site.coarse.values.std(0) + 0.1))
            model.net.spread.uniform_(0.2, 1.0, generator=generator)
            model.net.law.copy_(0.3 * torch.randn(model.net.law.shape, generator=generator))
            model.net.ground[0], model.net.ground[1] = (
                torch.tensor(a) for a in (site.statics_target.orography, site.statics_target.land_sea_mask)
            )
            model.net.ground[2] = 1
    return model.eval()


@pytest.fixture
def make_world() -> Callable[..., World]:
    return world


@pytest.fixture
def make_model() -> Callable[..., FlowMap]:
    return untrained
