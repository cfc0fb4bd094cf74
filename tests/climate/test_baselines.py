"""Baselines: what each is exact for, and that tiles, chunks and members do not change a draw."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sciconsist.domains.climate import baselines
from sciconsist.domains.climate.baselines import Past, Place, coarsened, conserved
from sciconsist.domains.climate.bias import correct
from sciconsist.domains.climate.fields import Fields, Grid, Statics
from sciconsist.domains.climate.files import open_source
from sciconsist.domains.climate.grids import area_weights, block_mean, refine
from sciconsist.domains.climate.metrics.ensemble import fair_crps
from sciconsist.domains.climate.regression import Regression
from sciconsist.domains.climate.tiles import nested_owners
from sciconsist.errors import UserError
from tests.climate.datasets_of import made_up

FACTOR = 4
COARSE = Grid(50.0 - np.arange(5), np.arange(6.0), (1.0, 1.0))
FINE = refine(COARSE, FACTOR)


def days(number: int, year: int = 2001) -> tuple[str, ...]:
    start = np.datetime64(f"{year}-01-01")
    return tuple(f"{start + k}T00:00:00" for k in range(number))


def weather(number: int, seed: int = 0, year: int = 2001) -> Fields:
    """Fine t2m and tp that follow the coarse weather cell by cell, with noise of their own."""
    g = np.random.default_rng(seed)
    pattern = np.random.default_rng(99).standard_normal(FINE.shape)
    smooth = np.kron(g.standard_normal((number, *COARSE.shape)), np.ones((FACTOR, FACTOR)))
    noise = g.standard_normal((number, *FINE.shape))
    t2m = 285 + 3 * smooth + (2 + smooth) * pattern + 0.3 * noise
    tp = np.exp(smooth + 0.5 * pattern + 0.3 * noise)
    mask = np.ones(FINE.shape, bool)
    return Fields(np.stack([t2m, tp], 1), ("t2m", "tp"), days(number, year), FINE, mask)


def place(statics: bool = False) -> Place:
    cell = nested_owners(COARSE, FINE)
    assert cell is not None
    ground = [Statics(np.zeros(g.shape), np.ones(g.shape)) for g in (COARSE, FINE)] if statics else [None, None]
    return Place(FINE, cell, np.ones(FINE.shape, bool), *ground)


PAST_FINE, NOW_FINE = weather(400), weather(20, seed=1, year=2003)
PAST, NOW = Past(PAST_FINE, coarsened(PAST_FINE, FACTOR)), coarsened(NOW_FINE, FACTOR)


def error(values: np.ndarray, variable: int) -> float:
    return float(np.sqrt(((values[:, variable] - NOW_FINE.values[:, variable]) ** 2).mean()))


@pytest.mark.parametrize("method", ["nearest", "bilinear", "bicubic"])
def test_conservation_is_exact_and_keeps_rain_positive(method: str) -> None:
    got = conserved(baselines.interpolated(NOW, place(), method), NOW, place())
    means = block_mean(got, area_weights(FINE), FACTOR)
    np.testing.assert_allclose(means, NOW.values, rtol=1e-12)
    assert (got[:, 1] >= 0).all()


def test_lapse_follows_the_standard_atmosphere() -> None:
    flat = replace(NOW, values=np.full_like(NOW.values, 280.0))
    hills = place(statics=True)
    height = np.random.default_rng(3).uniform(0, 3000, FINE.shape)
    hills = replace(hills, statics_target=Statics(height, np.ones(FINE.shape)))
    got = baselines.lapse(flat, hills)
    np.testing.assert_allclose(got[:, 0], 280 - 6.5e-3 * height[None].repeat(20, 0))
    np.testing.assert_allclose(got[:, 1], 280.0)  # rain does not care
    with pytest.raises(UserError, match="--orography"):
        baselines.lapse(flat, place())


def test_delta_returns_the_climatology_of_an_ordinary_month() -> None:
    january = [k for k, t in enumerate(PAST.fine.times) if t[5:7] == "01"]
    mean = replace(NOW, values=PAST.coarse.values[january].mean(0)[None], times=("2003-01-15T00:00:00",))
    got = baselines.delta(mean, place(), PAST)
    np.testing.assert_allclose(got[0], PAST.fine.values[january].mean(0), rtol=1e-9)


def test_quantile_mapping_gives_the_target_its_distribution() -> None:
    g = np.random.default_rng(0)
    source, target = g.normal(0, 1, (3000, 2)), g.normal(5, 2, (3000, 2))
    got = baselines.map_quantiles(g.normal(0, 1, (3000, 2)), source, target)
    np.testing.assert_allclose([got.mean(), got.std()], [5, 2], rtol=0.03)
    beyond = baselines.map_quantiles(np.array([[9.0, 9.0]]), source, target)
    assert (beyond > target.max(0)).all()
    rain = baselines.map_quantiles(
        np.array([[100.0]]), np.linspace(0, 10, 200)[:, None], np.linspace(0, 20, 200)[:, None], True
    )
    assert rain[0, 0] == pytest.approx(200, rel=0.01)  # the end's factor, not its shift


def test_what_is_learned_beats_what_is_not() -> None:
    bilinear = baselines.interpolated(NOW, place(), "bilinear")
    learned = {
        "delta": baselines.delta(NOW, place(), PAST),
        "quantile": baselines.quantile(NOW, place(), PAST),
        "regression": Regression(PAST, place()).predict(NOW),
    }
    for name, values in learned.items():
        assert error(values, 0) < error(bilinear, 0) and error(values, 1) < error(bilinear, 1), name
    assert error(learned["regression"], 0) < 0.45  # the noise is .3


def test_the_bootstrap_is_an_ensemble_and_one_draw_is_one_draw() -> None:
    fitted = Regression(PAST, place())
    both = fitted.bootstrap(NOW, range(8), seed=0)
    assert both.shape == (8, 20, 2, *FINE.shape)
    np.testing.assert_allclose(block_mean(both, area_weights(FINE), FACTOR)[3], NOW.values, rtol=1e-10)
    alone = fitted.bootstrap(NOW.when(slice(5, 7)), [6], seed=0)
    np.testing.assert_allclose(alone[0], both[6, 5:7], rtol=1e-12)
    assert np.abs(fitted.bootstrap(NOW, [0], seed=1) - both[0]).max() > 0.01
    single = np.abs(fitted.predict(NOW) - NOW_FINE.values).mean()
    assert fair_crps(both, NOW_FINE.values).mean() < 0.8 * single


def test_coarsening_skips_missing_cells() -> None:
    mask = np.ones(FINE.shape, bool)
    mask[:4, :4] = False
    mask[4, 4] = False
    sea = replace(PAST_FINE, values=np.where(mask, PAST_FINE.values, np.nan), mask=mask).when(slice(3))
    got = coarsened(sea, FACTOR)
    assert not got.mask[0, 0] and got.mask.sum() == 29 and np.isfinite(got.values[..., got.mask]).all()


def test_bias_correction_puts_a_warm_model_on_its_reference() -> None:
    real = made_up(times=np.datetime64("2001-01-01", "ns") + np.arange(700) * np.timedelta64(1, "D"), seed=5)
    model = real.copy(deep=True)
    model["t2m"] = (real.t2m + 3.0).assign_attrs(units="K")
    model["tp"] = (real.tp * 2.0).assign_attrs(units="m")
    source, reference = open_source(model), open_source(real)
    got = correct(source, reference)
    want = reference.read().values
    assert np.abs(got[:, 0] - want[:, 0]).mean() < 0.15
    np.testing.assert_allclose(got[:, 1].mean(), want[:, 1].mean(), rtol=0.02)
    with pytest.raises(UserError, match="bias correction needs at least"):
        later = model.assign_coords(time=model.time + np.timedelta64(40 * 366, "D"))
        correct(open_source(later), reference)
