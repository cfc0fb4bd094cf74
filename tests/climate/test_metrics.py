"""Scores against closed forms and against `scores` and `scoringrules`."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from sciconsist.domains.climate.metrics import distribution, ensemble, evaluate, joint, spectra, stations, temporal

G = np.random.default_rng(0)
ONE = np.ones((6, 7))


def test_fair_crps_is_what_scoringrules_and_scores_say() -> None:
    scoringrules, xr = pytest.importorskip("scoringrules"), pytest.importorskip("xarray")
    scores = pytest.importorskip("scores")
    x, y = G.standard_normal((9, 6, 7)), G.standard_normal((6, 7))
    mine = ensemble.fair_crps(x, y)
    np.testing.assert_allclose(mine, scoringrules.crps_ensemble(y, x, m_axis=0, estimator="fair"), atol=1e-6)
    names = ("member", "y", "x")
    theirs = scores.probability.crps_for_ensemble(
        xr.DataArray(x, dims=names), xr.DataArray(y, dims=names[1:]), "member", method="fair", preserve_dims="all"
    )
    np.testing.assert_allclose(mine, theirs.values, atol=1e-6)


def test_weighted_rmse_is_what_scores_says() -> None:
    scores, xr = pytest.importorskip("scores"), pytest.importorskip("xarray")
    x, y, w = G.standard_normal((4, 6, 7)), G.standard_normal((6, 7)), G.random((6, 7))
    dims = ("y", "x")
    theirs = scores.continuous.rmse(
        *(xr.DataArray(v, dims=dims) for v in (x.mean(0), y)), weights=xr.DataArray(w, dims=dims)
    )
    assert ensemble.rmse(x, y, w) == pytest.approx(float(theirs), abs=1e-6)


@pytest.mark.parametrize("members", [2, 5, 20])
def test_a_perfect_ensemble_scores_the_same_at_any_size(members: int) -> None:
    # E|X - y| - E|X - X'|/2 of standard normals is 1/sqrt(pi); the biased estimate gives .846 at two members
    x, y = G.standard_normal((members, 100_000)), G.standard_normal(100_000)
    assert ensemble.fair_crps(x, y).mean() == pytest.approx(1 / np.sqrt(np.pi), abs=6e-3)
    assert ensemble.spread_skill(x, y, np.ones(100_000)) == pytest.approx(1.0, abs=0.02)


def test_one_member_scores_its_absolute_error() -> None:
    np.testing.assert_allclose(ensemble.fair_crps(np.full((1, 3), 2.0), np.array([1.0, 2.0, 5.0])), [1, 0, 3])


def test_ranks_are_flat_when_calibrated_and_ties_are_shared() -> None:
    x, y, w = G.standard_normal((7, 20_000)), G.standard_normal(20_000), np.ones(20_000)
    flat = ensemble.rank_histogram(x, y, w, np.random.default_rng(1))
    assert ensemble.reliability_index(flat) < 0.05
    dry = ensemble.rank_histogram(np.zeros((7, 20_000)), np.zeros(20_000), w, np.random.default_rng(1))
    assert ensemble.reliability_index(dry) < 0.05
    low = ensemble.rank_histogram(x, np.full(20_000, -9.0), w, np.random.default_rng(1))
    assert low[0] == 1.0 and ensemble.reliability_index(low) == pytest.approx(2 - 2 / 8)


def test_reliability_of_a_sharp_forecast_that_is_right() -> None:
    y = G.random(1000)
    forecast, happened, share = ensemble.reliability_curve(np.stack([y, y]), y, 0.5, np.ones(1000))
    assert (forecast[0], happened[0]) == (0.0, 0.0) and (forecast[-1], happened[-1]) == (1.0, 1.0)
    assert np.nansum(share) == pytest.approx(1.0)


def test_weights_count() -> None:
    values, weights = np.array([[1.0, 3.0]]), np.array([[1.0, 3.0]])
    assert ensemble.average(values, weights) == pytest.approx(2.5)
    assert ensemble.average(np.array([[1.0, np.nan]]), np.array([[1.0, 0.0]])) == 1.0


# --- spectra


def test_a_wave_has_its_power_at_its_wavenumber() -> None:
    x = np.arange(64)
    field = np.sin(2 * np.pi * 8 / 64 * x)[None, :] * np.ones((64, 1))
    k, power = spectra.radial_spectrum(field[None])
    assert k[power.argmax()] == pytest.approx(8 / 64)


def test_truth_beside_itself_is_perfect_and_a_smooth_field_is_not() -> None:
    y = G.standard_normal((3, 32, 32))
    k, power = spectra.radial_spectrum(y)
    assert spectra.high_frequency_ratio(k, power, power, 4) == 1.0
    assert spectra.log_spectral_distance(power, power) == 0.0
    smooth = np.kron(y.reshape(3, 8, 4, 8, 4).mean((2, 4)), np.ones((4, 4)))
    assert spectra.high_frequency_ratio(k, spectra.radial_spectrum(smooth)[1], power, 4) < 0.2
    assert spectra.log_spectral_distance(spectra.radial_spectrum(2 * y)[1], power) == pytest.approx(20 * np.log10(2))


# --- distributions


def test_wasserstein_is_scipys() -> None:
    x, y = G.gamma(2.0, 3.0, (40, 50)), G.gamma(2.0, 4.0, (40, 50))
    mine = distribution.wasserstein_1(x, y, np.ones((40, 50)))
    assert mine == pytest.approx(stats.wasserstein_distance(x.ravel(), y.ravel()), rel=5e-3)


def test_quantiles_respect_weights() -> None:
    assert distribution.weighted_quantile(np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.0, 2.0]), 0.5) == 2.0
    assert distribution.weighted_quantile(np.arange(101.0), np.ones(101), 0.99) == pytest.approx(99, abs=1)


def test_wet_days() -> None:
    assert distribution.wet_day_frequency(np.array([0.0, 1.0, 1.1, 9.0]), np.ones(4)) == 0.5


@pytest.mark.parametrize("shape", [-0.15, 0.1])
def test_return_levels_of_a_known_extreme_value_distribution(shape: float) -> None:
    maxima = stats.genextreme.rvs(shape, 20.0, 5.0, size=(6000, 3), random_state=1)
    want = stats.genextreme.isf(1 / 50, shape, 20.0, 5.0)
    np.testing.assert_allclose(distribution.return_levels(maxima, 50.0), want, rtol=0.05)
    assert distribution.return_levels(np.full((30, 1), 4.0), 50.0) == pytest.approx(4.0)  # never changes


# --- time, variables, stations


def test_lag_one_of_an_autoregression() -> None:
    x = np.zeros((4000, 6, 7))
    for t in range(1, 4000):
        x[t] = 0.7 * x[t - 1] + G.standard_normal((6, 7))
    assert temporal.lag1_autocorrelation(x, ONE) == pytest.approx(0.7, abs=0.02)
    assert np.isnan(temporal.lag1_autocorrelation(x[:2], ONE))
    f, power = temporal.temporal_spectrum(x, ONE)
    assert power[: len(f) // 10].mean() > 5 * power[-len(f) // 10 :].mean()


def test_correlation_and_bounds() -> None:
    a = G.standard_normal((5, 6, 7))
    assert joint.correlation(a, -2 * a + 3, ONE) == pytest.approx(-1)
    t = np.full((2, 6, 7), 280.0)
    d = t - 1
    d[0] += 2
    found = joint.bound_violations({"t2m": t, "d2m": d, "tp": np.full((2, 6, 7), -1.0)}, ONE)
    assert found["d2m > t2m"] == 0.5 and found["tp < 0"] == 1.0 and found["t2m < 150"] == 0.0


def test_stations_skip_what_nobody_measured() -> None:
    x = np.stack([np.full((3, 2), 1.0), np.full((3, 2), 3.0)])
    y = np.array([[2.0, np.nan], [2.0, 0.0], [np.nan, np.nan]])
    found = stations.verify(x, y)
    assert found["observations"] == 3
    assert found["bias"] == pytest.approx((0 + 0 + 2) / 3)
    assert stations.verify(x, np.full((3, 2), np.nan)) == {"observations": 0}


def test_evaluate_says_perfect_of_the_truth_and_does_not_see_masked_cells() -> None:
    y = np.abs(G.gamma(0.7, 4.0, (8, 2, 16, 12)))
    w = np.ones((16, 12))
    w[:, :3] = 0
    spoiled = np.where(w > 0, y, np.nan)
    found = evaluate(spoiled[None], spoiled, ("tp", "u10"), w, factor=4, years=[2000 + k // 2 for k in range(8)])
    for name in ("tp", "u10"):
        one = found[name]
        assert one["rmse"] == one["crps"] == one["q99.9_error"] == one["log_spectral_distance"] == 0
        assert one["high_frequency"] == 1 and one["lag1"] == one["lag1_truth"]
    assert found["tp"]["wet_frequency_error"] == 0
    assert found["joint"]["correlations"]["tp u10"][0] == found["joint"]["correlations"]["tp u10"][1]
