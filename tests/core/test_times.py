"""Time samplers: ordered splits, densities, schedules, the diagonal's share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from sciconsist import times
from sciconsist.recipes import RECIPES
from sciconsist.times import AlphaSchedule, TimeSampler, split_point


@pytest.mark.parametrize("name", list(RECIPES))
@pytest.mark.parametrize("progress", [0.0, 0.4, 1.0])
def test_every_recipe_draws_ordered_times(name: str, progress: float, generator: torch.Generator) -> None:
    recipe = RECIPES[name]
    s, w, t = recipe.times.draw(4000, recipe.kind, progress, generator)
    assert (t >= 0).all() and (t <= w).all() and (w <= s).all() and (s <= 1).all() and (s > 0).all()
    on = s == t
    assert torch.equal(w[on], s[on])
    assert abs(on.double().mean().item() - recipe.anchor) < 0.04


def test_draws_depend_on_the_generator_alone() -> None:
    sampler = TimeSampler("beta", 1.6, 2.0)
    first, second = (sampler.draw(50, "eulerian", 0.5, torch.Generator().manual_seed(3)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second))


@pytest.mark.parametrize(
    ("draw", "law"),
    [
        (lambda n, g: times.uniform(n, g), stats.uniform()),
        (lambda n, g: times.beta(n, g, 1.6, 1.0), stats.beta(1.6, 1.0)),
        (lambda n, g: times.beta(n, g, 2.0, 3.0), stats.beta(2.0, 3.0)),
        (lambda n, g: torch.logit(times.logit_normal(n, g, -0.4, 1.2)), stats.norm(-0.4, 1.2)),
        (lambda n, g: torch.log(80 * times.log_normal(n, g, -1.2, 1.2)), stats.norm(-1.2, 1.2)),
    ],
)
def test_densities(draw, law, generator: torch.Generator) -> None:  # type: ignore[no-untyped-def]
    assert stats.kstest(draw(20_000, generator).double().numpy(), law.cdf).pvalue > 1e-3


def test_alpha_schedules() -> None:
    s = torch.tensor([0.0, 1.0])
    annealed = AlphaSchedule("linear", 1.0, 0.05)
    assert annealed.value(0.0) == 1.0
    assert annealed.value(1.0) == pytest.approx(0.05)
    assert AlphaSchedule("exponential", 0.1, 0.001).value(0.5) == pytest.approx(0.01)
    assert AlphaSchedule("sigmoid", 1.0, 0.005).value(0.5) == pytest.approx(0.5025)
    assert torch.equal(AlphaSchedule(end=0.5)(0.3, s), torch.full((2,), 0.5))
    ect = AlphaSchedule("ect")
    assert torch.equal(ect(0.0, s), torch.ones(2))  # the first stage is diffusion
    assert torch.allclose(ect(1.0, s), (1 + 8 * torch.sigmoid(-s)) / 256)
    values = [ect(p, s)[0].item() for p in np.linspace(0, 1, 50)]
    assert values == sorted(values, reverse=True)


def test_split_point_lies_at_the_evaluated_end() -> None:
    s, t, alpha = torch.tensor([0.9]), torch.tensor([0.1]), torch.tensor([0.25])
    assert split_point("eulerian", s, t, alpha).item() == pytest.approx(0.7)
    assert split_point("lagrangian", s, t, alpha).item() == pytest.approx(0.3)
    assert split_point("eulerian", s, t, torch.ones(1)).item() == t.item()


def test_grid_neighbours_double_over_training(generator: torch.Generator) -> None:
    sampler = TimeSampler(target="grid", diagonal=0.0, grid=(10, 1280))
    assert sampler.grid_points(0.0) == 11
    assert sampler.grid_points(1.0) == 1281
    s, w, t = sampler.draw(2000, "eulerian", 0.0, generator)
    assert (t == 0).all()
    points = set(times.karras_grid(11, 7.0, 1e-3).float().tolist())
    assert set(s.tolist()) <= points
    assert set(w.tolist()) <= points | {0.0}


def test_dyadic_gaps_and_halvings(generator: torch.Generator) -> None:
    sampler = TimeSampler(target="dyadic", diagonal=0.0, alpha=AlphaSchedule(end=0.5), levels=5)
    s, w, t = sampler.draw(3000, "progressive", 0.0, generator)
    assert set((s - t).tolist()) == {1.0, 0.5, 0.25, 0.125, 0.0625}
    assert torch.equal(w, 0.5 * (s + t))
    halving = TimeSampler(target="halving", diagonal=0.0, alpha=AlphaSchedule(end=0.5), levels=5)
    for progress, gap in ((0.0, 0.0625), (0.5, 0.25), (1.0, 1.0)):
        s, w, t = halving.draw(100, "progressive", progress, generator)
        assert (s - t == gap).all()


def test_gap_curriculum(generator: torch.Generator) -> None:
    s, _, t = TimeSampler(diagonal=0.0, max_gap=0.1).draw(2000, "eulerian", 0.0, generator)
    assert (s - t).max() <= 0.1 + 1e-6
    s, _, t = TimeSampler(diagonal=0.0, max_gap=0.1).draw(2000, "eulerian", 1.0, generator)
    assert (s - t).max() > 0.8


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="density"):
        TimeSampler("gamma")
    with pytest.raises(ValueError, match="target"):
        TimeSampler(target="above")
    with pytest.raises(ValueError, match="alpha"):
        AlphaSchedule(end=0.0)
