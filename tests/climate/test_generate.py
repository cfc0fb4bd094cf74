"""Ensembles: one seed is one realisation on any tile, chunk, order and turn of the globe; conservation to the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sciconsist.domains.climate.conserve import owners
from sciconsist.domains.climate.fields import Fields, Grid, Statics
from sciconsist.domains.climate.generate import generate, halo, nesting
from sciconsist.domains.climate.grids import area_weights, refine
from sciconsist.errors import UserError

K = 4


def run(model: Any, world: Any, **options: Any) -> np.ndarray:
    chosen = {"members": [0, 1], "steps": 2, "seed": 3} | options
    return generate(
        model, world.coarse, world.target,
        statics_coarse=world.statics_coarse, statics_target=world.statics_target, **chosen,
    )  # fmt: skip


def deviation(world: Any) -> np.ndarray:
    return world.coarse.values.std((0, 2, 3))[:, None, None]


def tile_of(world: Any, rows: slice, columns: slice) -> Any:
    fine = (slice(rows.start * K, rows.stop * K), slice(columns.start * K, columns.stop * K))
    return type(world)(
        world.coarse.crop(rows, columns), world.target.crop(*fine), world.statics_coarse.crop(rows, columns),
        world.statics_target.crop(*fine),
    )  # fmt: skip


@pytest.mark.parametrize("site", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_tile_gives_what_the_whole_gives(make_world: Callable, make_model: Callable, site: bool, steps: int) -> None:
    world = make_world(h=24, w=26, times=1)
    model = make_model(world if site else None)
    whole, rim = run(model, world, steps=steps), halo(model)
    rows, columns = slice(3, 22), slice(2, 24)  # a rim on each side, an odd origin
    part = run(model, tile_of(world, rows, columns), steps=steps)
    inner = (..., slice(rim * K, -rim * K), slice(rim * K, -rim * K))
    expected = whole[..., rows.start * K : rows.stop * K, columns.start * K : columns.stop * K]
    assert part[inner].size and (np.abs(part[inner] - expected[inner]) / deviation(world)).max() < 1e-5


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_block_means_are_the_coarse_values_and_rain_is_never_negative(
    make_world: Callable, make_model: Callable, steps: int
) -> None:
    world = make_world()
    out = run(make_model(), world, steps=steps)
    M, T, C, H, W = out.shape
    area = area_weights(world.target)
    blocks = (out.astype(np.float64) * area).reshape(M, T, C, H // K, K, W // K, K).sum((4, 6))
    means = blocks / area.reshape(H // K, K, W // K, K).sum((1, 3))
    assert (np.abs(means - world.coarse.values) / deviation(world)).max() < 1e-5
    assert out[:, :, 1].min() >= 0 and (out[0] != out[1]).mean() > 0.5


def test_a_rolled_globe_gives_the_rolled_result(make_world: Callable, make_model: Callable) -> None:
    world, model = make_world(w=16, times=1, periodic=True), make_model()
    half = 8
    grid = replace(world.coarse.grid, lon=world.coarse.grid.lon + 180.0)
    turned = type(world)(
        replace(world.coarse, values=np.roll(world.coarse.values, -half, -1), grid=grid),
        refine(grid, K),
        *(
            Statics(np.roll(s.orography, -half * n, -1), np.roll(s.land_sea_mask, -half * n, -1))
            for s, n in ((world.statics_coarse, 1), (world.statics_target, K))
        ),
    )
    found, expected = run(model, turned), np.roll(run(model, world), -half * K, -1)
    assert (np.abs(found - expected) / deviation(world)).max() < 1e-5


def test_time_chunks_members_and_order_do_not_matter(make_world: Callable, make_model: Callable) -> None:
    world, model = make_world(), make_model()
    whole = run(model, world, members=[0, 1, 7])
    late = replace(world, coarse=world.coarse.when(slice(2, 3)))
    assert np.abs(run(model, late, members=[7, 0]) - whole[[2, 0], 2:3]).max() < 1e-4
    assert np.array_equal(whole, run(model, world, members=[0, 1, 7]))
    assert np.abs(run(model, world, seed=4) - whole[:2]).max() > 1e-2


def test_latitudes_may_rise(make_world: Callable, make_model: Callable) -> None:
    world, model = make_world(times=1), make_model()

    def up(s: Statics) -> Statics:
        return Statics(s.orography[::-1], s.land_sea_mask[::-1])

    coarse = world.coarse
    grid, target = (replace(g, lat=g.lat[::-1]) for g in (coarse.grid, world.target))
    turned = replace(coarse, values=coarse.values[..., ::-1, :], mask=coarse.mask[::-1], grid=grid)
    other = type(world)(turned, target, up(world.statics_coarse), up(world.statics_target))
    assert np.abs(run(model, other) - run(model, world)[..., ::-1, :]).max() < 1e-4


def test_missing_cells_stay_missing_and_lend_nothing(make_world: Callable, make_model: Callable) -> None:
    world, model = make_world(times=1), make_model()
    mask = world.coarse.mask.copy()
    mask[4:7, 5:9] = False
    out = []
    for filler in (np.nan, 500.0):
        values = np.where(mask, world.coarse.values, filler)
        out.append(run(model, replace(world, coarse=replace(world.coarse, values=values, mask=mask))))
    assert np.array_equal(np.isnan(out[0][0, 0, 0]), ~mask.repeat(K, 0).repeat(K, 1))
    assert np.array_equal(out[0], out[1], equal_nan=True)


def test_a_subset_of_the_variables_comes_in_its_own_order(make_world: Callable, make_model: Callable) -> None:
    world, model = make_world(times=1), make_model()
    some = replace(world, coarse=world.coarse.pick(["u10", "t2m"]))
    out = run(model, some)
    assert out.shape[2] == 2 and abs(out[:, :, 1].mean() - 280) < 10 and abs(out[:, :, 0].mean()) < 3


# --- targets that do not split the coarse cells


def test_stations_have_values_of_the_field_there(make_world: Callable, make_model: Callable) -> None:
    """Stations at the centres of the lattice's own cells, of its cell size: the same members, but for conservation."""
    world, model = make_world(times=1), make_model()
    lat, lon = (a[8:-8, 8:-8] for a in world.target.mesh())
    ground = world.statics_target.crop(slice(8, -8), slice(8, -8))
    smooth = replace(world, statics_target=None)
    points = Grid(lat.ravel(), lon.ravel(), world.target.cell, False, "points")
    grid = generate(model, world.coarse, world.target, statics_coarse=smooth.statics_coarse, conserve=False)
    found = generate(model, world.coarse, points, statics_coarse=smooth.statics_coarse)
    assert found.shape == (1, 1, 3, lat.size) and ground.orography.size == lat.size
    error = np.abs(found.reshape(1, 1, 3, *lat.shape) - grid[..., 8:-8, 8:-8])
    assert (error / deviation(world)).max() < 1e-3


def test_any_grid_conserves_over_the_cells_it_has(make_world: Callable, make_model: Callable) -> None:
    """A rotated grid, and a factor of 2.5."""
    world, model = make_world(times=1), make_model()
    y, x = np.meshgrid(np.linspace(38, 31, 40), np.linspace(7, 16, 50), indexing="ij")
    rotated = Grid(y + 0.1 * (x - 11), x - 0.1 * (y - 35), (0.18, 0.18), False, "curvilinear")
    for target in (rotated, refine(world.coarse.grid, 2.5)):
        out = generate(model, world.coarse, target, statics_coarse=world.statics_coarse)
        lat, lon = target.mesh()
        cell = owners(lat, lon, world.coarse.grid.lat, world.coarse.grid.lon)
        inside = cell.ravel() >= 0
        area = area_weights(target).ravel()[inside]
        index = cell.ravel()[inside]
        for c in range(3):
            value = out[0, 0, c].ravel()[inside].astype(np.float64)
            mean = np.bincount(index, area * value) / np.maximum(np.bincount(index, area), 1e-12)
            used = np.bincount(index, area) > 0
            goal = world.coarse.values[0, c].ravel()[: len(mean)]
            assert np.abs(mean - goal)[used].max() < 1e-5 * world.coarse.values[:, c].std()
        assert np.isnan(out[0, 0, 0].ravel()[~inside]).all()


def test_a_station_higher_up_is_colder(make_world: Callable, make_model: Callable) -> None:
    world, model = make_world(times=1), make_model()
    place = Grid(np.array([35.2, 35.2]), np.array([12.3, 12.3]), (0.0, 0.0), False, "points")
    model.net.out.weight.data.zero_()
    model.net.out.bias.data.zero_()
    ground = Statics(np.array([100.0, 1100.0], np.float32), np.ones(2, np.float32))
    out = generate(model, world.coarse, place, statics_coarse=world.statics_coarse, statics_target=ground)
    assert abs(out[0, 0, 0, 1] - out[0, 0, 0, 0] + 6.5) < 1e-3


def test_nesting_is_told_from_the_coordinates(make_world: Callable) -> None:
    world = make_world()
    grid, fine = world.coarse.grid, world.target
    assert nesting(grid, fine) == K
    assert nesting(grid, replace(fine, lat=fine.lat + 0.3)) is None
    assert nesting(grid, refine(grid, 2.5)) is None
    assert nesting(grid, replace(fine, lon=fine.lon + 360)) == K


# --- mistakes


def test_mistakes_get_one_line(make_world: Callable, make_model: Callable) -> None:
    world = make_world(times=1)
    anywhere, site = make_model(), make_model(world)
    other = replace(world.coarse, names=("t2m", "tp", "snow"))
    shifted = replace(world.coarse, grid=replace(world.coarse.grid, lon=world.coarse.grid.lon + 0.5))
    cases: list[tuple[Any, Fields, dict, str]] = [
        (anywhere, other, {}, "snow"),
        (anywhere, world.coarse, {"steps": 0}, "steps"),
        (site, world.coarse.pick(["t2m"]), {}, "tp"),
        (site, shifted, {}, "longitudes"),
    ]
    for model, coarse, options, named in cases:
        with pytest.raises(UserError, match=named) as caught:
            run(model, replace(world, coarse=coarse), **options)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["climate-andes", "climate-kerala", "climate-uk"])
def test_a_trained_site_model_tiles_and_conserves(name: str) -> None:
    """On a synthetic coarse field near its own climate: no data needed."""
    from sciconsist.workflows.models import load

    model = load(name)
    net, site = model.net, model.domain.config.site
    lat, lon = np.array(site.lat), np.array(site.lon)
    grid = Grid(lat, lon, (abs(lat[1] - lat[0]), lon[1] - lon[0]))
    rng = np.random.default_rng(0)
    values = (net.mean.centre + net.mean.scale * rng.standard_normal(net.mean.centre.shape).astype(np.float32)).numpy()
    for c, variable in enumerate(model.domain.names):
        if variable == "tp":
            values[c] = np.maximum(values[c], 0)
    inside = net.ground[2].numpy().reshape(len(lat), K, len(lon), K).max((1, 3)) > 0
    coarse = Fields(values[None].astype(np.float64), model.domain.names, ("2003-03-01T12:00:00",), grid, inside)
    out = generate(model, coarse, refine(grid, K), members=[0, 5])
    area = area_weights(refine(grid, K)) * net.ground[2].numpy()
    h, w = inside.shape
    total = area.reshape(h, K, w, K).sum((1, 3))
    means = (np.nan_to_num(out).astype(np.float64) * area).reshape(2, 1, -1, h, K, w, K).sum((4, 6)) / np.where(
        total > 0, total, 1
    )
    scale = net.mean.scale.numpy()[:, inside].mean(1) + net.mean.centre.numpy()[:, inside].std(1)
    error = np.abs(means - coarse.values)[..., inside] / scale[:, None]
    assert error.max() < 1e-5
    if name == "climate-andes":  # the only one wider than twice its rim
        rim = halo(model)
        part = generate(
            model, coarse.crop(slice(0, h - 1), slice(0, w)), refine(grid, K).crop(slice(0, (h - 1) * K), slice(0, w * K)),
            members=[0, 5],
        )  # fmt: skip
        same = np.abs(part - out[..., : (h - 1) * K, :])[..., : (h - 1 - rim) * K, :]
        assert (same / scale[:, None, None]).max() < 1e-5
