"""Grids: refined ones nest, weights are areas, interpolation is exact where it should be and knows no seam."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sciconsist.domains.climate.conserve import owners
from sciconsist.domains.climate.fields import Grid
from sciconsist.domains.climate.grids import (
    area_weights,
    average_to,
    block_mean,
    coarsen,
    interpolate,
    refine,
    refine_axis,
)


def grid(rows: int = 6, columns: int = 8, step: float = 1.0, lat0: float = 50.0, lon0: float = 0.0) -> Grid:
    return Grid(lat0 - step * np.arange(rows), lon0 + step * np.arange(columns), (step, step))


GLOBE = Grid(np.arange(85.0, -90, -10), np.arange(0.0, 360, 10), (10.0, 10.0), True)
POLES = Grid(np.arange(90.0, -91, -10), np.arange(0.0, 360, 10), (10.0, 10.0), True)


@given(st.integers(2, 8), st.integers(2, 7), st.integers(2, 7))
def test_a_refined_grid_coarsens_to_itself(factor: int, rows: int, columns: int) -> None:
    coarse = grid(rows, columns)
    again = coarsen(refine(coarse, factor), factor)
    np.testing.assert_allclose(again.lat, coarse.lat, atol=1e-8)
    np.testing.assert_allclose(again.lon, coarse.lon, atol=1e-8)
    assert again.cell == pytest.approx(coarse.cell)


@given(st.floats(1.2, 8.0))
def test_any_factor_fills_the_same_area(factor: float) -> None:
    coarse = grid()
    fine = refine(coarse, factor)
    assert fine.cell[0] == pytest.approx(1 / factor)
    assert fine.lat[0] + fine.cell[0] / 2 == pytest.approx(50.5)  # begins where the first cell begins
    assert 44.5 - 1e-6 <= fine.lat[-1] - fine.cell[0] / 2 < 44.5 + fine.cell[0]


def test_uneven_axes_stay_uneven() -> None:
    gauss = np.array([87.86, 85.10, 82.31, 79.53])
    fine = refine_axis(gauss, 2)
    np.testing.assert_allclose((fine[0::2] + fine[1::2])[1:-1] / 2, gauss[1:-1], atol=0.05)
    assert np.all(np.diff(fine) < 0)


def test_the_globe_stays_a_globe() -> None:
    fine = refine(GLOBE, 2.5)
    assert fine.periodic and len(fine.lon) * fine.cell[1] == pytest.approx(360)


def test_cells_over_a_pole_have_no_area() -> None:
    fine, over = refine(POLES, 4), refine(POLES, 4, over_poles=True)
    assert np.abs(fine.lat).max() <= 90 and len(over.lat) == 4 * 19 == len(fine.lat) + 4
    assert (area_weights(over)[np.abs(over.lat) > 90] == 0).all() and (area_weights(fine) > 0).all()
    # the sphere's area, whichever way it is cut
    for one in (POLES, GLOBE, fine):
        area = area_weights(one).sum() * 2 * np.sin(np.deg2rad(one.cell[0] / 2)) * np.deg2rad(one.cell[1])
        assert area == pytest.approx(4 * np.pi, rel=1e-9)


def test_block_means_weigh_by_area_and_skip_what_is_missing() -> None:
    fine = refine(grid(2, 2, 20.0), 2)
    values = np.arange(16.0).reshape(4, 4)
    mask = np.ones((4, 4), bool)
    mask[0, 0] = False
    w = np.cos(np.deg2rad(fine.lat))
    got = block_mean(np.where(mask, values, np.nan), area_weights(fine, mask), 2)
    assert got[0, 0] == pytest.approx((w[0] * 1 + w[1] * (4 + 5)) / (w[0] + 2 * w[1]))
    assert np.isnan(block_mean(values, area_weights(fine, np.zeros((4, 4), bool)), 2)).all()
    with pytest.raises(ValueError, match="does not divide"):
        block_mean(values, np.ones((4, 4)), 3)


@pytest.mark.parametrize(("method", "degree"), [("bilinear", 1), ("bicubic", 2)])
def test_polynomials_are_carried_exactly_inside(method: str, degree: int) -> None:
    coarse = grid(9, 10)
    fine = refine(coarse, 3)
    f = lambda lat, lon: (lat - 45) ** degree - 2 * (lon - 4) ** degree + (lat - 45) * (lon - 4)  # noqa: E731
    got = interpolate(f(*coarse.mesh()), coarse, fine, method)  # type: ignore[arg-type]
    inner = (slice(6, -6), slice(6, -6))
    np.testing.assert_allclose(got[inner], f(*fine.mesh())[inner], atol=1e-9)


def test_nearest_repeats_blocks() -> None:
    coarse = grid(3, 4)
    values = np.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(
        interpolate(values, coarse, refine(coarse, 4), "nearest"), np.kron(values, np.ones((4, 4)))
    )


@pytest.mark.parametrize("method", ["nearest", "bilinear", "bicubic"])
def test_a_rolled_globe_gives_the_rolled_result(method: str) -> None:
    values = np.random.default_rng(0).standard_normal(GLOBE.shape)
    fine = refine(GLOBE, 4)
    half = len(GLOBE.lon) // 2
    rolled = Grid(GLOBE.lat, np.roll(GLOBE.lon, half) - 360 * (np.arange(36) < half), GLOBE.cell, True)
    there = interpolate(np.roll(values, half, -1), rolled, refine(rolled, 4), method)  # type: ignore[arg-type]
    here = interpolate(values, GLOBE, fine, method)  # type: ignore[arg-type]
    np.testing.assert_allclose(there, np.roll(here, 4 * half, -1), atol=1e-9)


@pytest.mark.parametrize("method", ["nearest", "bilinear", "bicubic"])
def test_points_agree_with_the_grid_they_lie_on(method: str) -> None:
    coarse, fine = grid(), refine(grid(), 2)
    values = np.random.default_rng(1).standard_normal((3, *coarse.shape))
    lat, lon = fine.mesh()
    points = Grid(lat.ravel(), lon.ravel() - 360.0, (0.0, 0.0), False, "points")  # another convention of longitude
    on_points = interpolate(values, coarse, points, method)  # type: ignore[arg-type]
    np.testing.assert_allclose(on_points, interpolate(values, coarse, fine, method).reshape(3, -1), atol=1e-9)  # type: ignore[arg-type]


def test_missing_cells_lend_nothing() -> None:
    coarse = grid(4, 4)
    values, mask = np.full((4, 4), 7.0), np.ones((4, 4), bool)
    values[1, 1], mask[1, 1] = np.nan, False
    for method in ("nearest", "bilinear", "bicubic"):
        got = interpolate(values, coarse, refine(coarse, 4), method, mask)  # type: ignore[arg-type]
        known = np.isfinite(got)
        np.testing.assert_allclose(got[known], 7.0)
        assert known[np.kron(mask, np.ones((4, 4), bool))].all()


def test_curvilinear_grids_carry_linear_fields() -> None:
    lat, lon = np.meshgrid(np.arange(50.0, 44, -1), np.arange(0.0, 8), indexing="ij")
    turned = Grid(lat + 0.1 * lon, lon - 0.1 * (lat - 47), (1.0, 1.0), False, "curvilinear")
    target = Grid(np.array([47.3, 46.6]), np.array([3.2, 4.9]), (0.0, 0.0), False, "points")
    got = interpolate(2 * turned.lat - turned.lon, turned, target)
    np.testing.assert_allclose(got, 2 * target.lat - target.lon, atol=0.02)  # the plane is stereographic
    fine = refine(turned, 3)
    np.testing.assert_allclose(fine.lat.reshape(6, 3, 8, 3).mean((1, 3)), turned.lat, atol=1e-8)


def test_averages_keep_the_integral() -> None:
    fine, coarse = refine(grid(6, 8), 4), grid(6, 8)
    values = np.random.default_rng(2).standard_normal(fine.shape)
    got = average_to(values, fine, coarse)
    np.testing.assert_allclose(got, block_mean(values, area_weights(fine), 4), atol=1e-9)


@settings(max_examples=30)
@given(st.integers(2, 6))
def test_every_fine_cell_lies_in_the_coarse_cell_it_was_split_from(factor: int) -> None:
    fine = refine(GLOBE, factor)
    index = np.arange(GLOBE.lat.size * GLOBE.lon.size).reshape(GLOBE.shape)
    found = owners(*fine.mesh(), GLOBE.lat, GLOBE.lon)
    np.testing.assert_array_equal(found, index.repeat(factor, 0).repeat(factor, 1))
