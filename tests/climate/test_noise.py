"""Keyed noise: standard normal, and a matter of place and time alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sciconsist.domains.climate.noise import cells, keyed_normal, mix

LAT, LON = np.meshgrid(np.linspace(60, 40, 50), np.linspace(0, 359, 80), indexing="ij")


def draw(lat: np.ndarray = LAT, lon: np.ndarray = LON, seed: int = 0, member: int = 0, name: str = "t2m") -> np.ndarray:
    return keyed_normal(seed, [member], [name], ["2001-01-01T00:00:00"], lat, lon)[0, 0, 0]


def test_the_finaliser_is_splitmix64() -> None:
    """First outputs of the published generator from states 0 and 1 (Steele et al. 2014; java.util.SplittableRandom)."""
    assert [int(v) for v in mix(np.array([0, 1], np.uint64))] == [0xE220A8397B1DCDAF, 0x910A2DEC89025CC1]


def test_it_is_standard_normal_and_white() -> None:
    noise = keyed_normal(3, range(10), ["t2m", "tp"], ["a", "b"], LAT, LON)
    flat = noise.ravel().astype(float)
    assert stats.kstest(flat, "norm").pvalue > 1e-3
    assert abs(flat.mean()) < 4 / np.sqrt(flat.size) and abs(flat.var() - 1) < 4 * np.sqrt(2 / flat.size)
    for axis in range(noise.ndim):
        near = np.corrcoef(np.moveaxis(noise, axis, 0)[:-1].ravel(), np.moveaxis(noise, axis, 0)[1:].ravel())[0, 1]
        assert abs(near) < 5 / np.sqrt(flat.size / 2), f"neighbours along axis {axis} correlate"


@given(st.integers(0, 40), st.integers(0, 70), st.integers(-3, 3))
@settings(max_examples=20, deadline=None)
def test_a_crop_and_other_longitudes_find_the_same_noise(i: int, j: int, turns: int) -> None:
    whole = draw()
    assert np.array_equal(draw(LAT[i:, j:], LON[i:, j:] + 360.0 * turns), whole[i:, j:])


def test_members_times_and_variables_do_not_depend_on_their_company() -> None:
    some = keyed_normal(1, [5, 2], ["tp", "t2m"], ["x", "y"], LAT, LON)
    assert np.array_equal(some[1, 0, 1], keyed_normal(1, [2], ["t2m"], ["x"], LAT, LON)[0, 0, 0])


@pytest.mark.parametrize("other", [{"seed": 1}, {"member": 1}, {"name": "tp"}])
def test_another_key_is_another_field(other: dict) -> None:
    assert abs(np.corrcoef(draw().ravel(), draw(**other).ravel())[0, 1]) < 5 / np.sqrt(LAT.size)


def test_a_pole_is_one_place_and_places_are_told_apart() -> None:
    assert len(np.unique(cells(np.full(5, 90.0), np.arange(5.0)))) == 1
    assert len(np.unique(cells(LAT, LON))) == LAT.size
