"""Keyed noise: standard normal, and a matter of place and time alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sciconsist.domains.climate.noise import cells, keyed_normal, likeness, memory_of, mix, remembered, window
from sciconsist.domains.climate.times import seconds_since

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


def at(second: float, memory: float = 3.5, stamp: str = "x") -> np.ndarray:
    return remembered(0, [0], ["t2m"], stamp, second, [memory], 3600.0, LAT, LON)[0, 0]


@pytest.mark.parametrize("memory", [1.0, 2.0, 3.5, 6.25])
def test_remembered_noise_is_standard_normal_with_the_correlation_that_is_said(memory: float) -> None:
    start = 1.7e9
    series = np.stack([at(start + 3600 * k, memory).ravel() for k in range(int(memory) + 3)])
    assert np.allclose(series.var(1), 1, atol=0.1)
    found = [float((series[0] * series[k]).mean()) for k in range(1, len(series))]
    assert abs(found[0] - likeness(memory)) < 0.07
    assert all(abs(c) < 0.07 for k, c in enumerate(found, 1) if k >= memory)


def test_remembered_noise_does_not_know_where_a_file_begins() -> None:
    assert np.array_equal(at(1.7e9), at(1.7e9, stamp="elsewhere"))
    assert abs(np.corrcoef(at(1.7e9).ravel(), at(1.7e9, memory=0).ravel())[0, 1]) < 5 / np.sqrt(LAT.size)


@given(st.integers(0, 10**6), st.floats(0.05, 30))
@settings(max_examples=50, deadline=None)
def test_a_window_has_norm_one_and_covers_its_length(end: int, length: float) -> None:
    numbers, weights = window(end, length)
    assert abs(float((weights**2).sum()) - 1) < 1e-9 and (weights > 0).all()
    assert numbers == list(range(end, end - len(numbers), -1)) and length <= len(numbers) < length + 1.1


@pytest.mark.parametrize("correlation", [0.1, 0.4, 0.5, 0.8, 0.9])
def test_the_memory_of_a_correlation_has_it(correlation: float) -> None:
    assert abs(likeness(memory_of(correlation)) - correlation) < 0.03
    assert memory_of(0.0) == 0.0


def test_seconds_are_those_of_the_calendar() -> None:
    def apart(a: str, b: str, calendar: str) -> float:
        return (seconds_since(b, calendar) - seconds_since(a, calendar)) / 86400

    assert apart("2000-02-28T00:00:00", "2000-03-01T00:00:00", "standard") == 2
    assert apart("2000-02-28T00:00:00", "2000-03-01T00:00:00", "noleap") == 1
    assert apart("2000-02-30T12:00:00", "2000-03-01T00:00:00", "360_day") == 0.5
