"""What kinds cost so that samples have them as often as the training data."""

from __future__ import annotations

import numpy as np
import pytest

from sciconsist.domains.molecules.leanings import MOST, costs, lean
from sciconsist.workflows.models import load


def test_costs_make_two_kinds_as_frequent_as_wanted() -> None:
    """Every sample may be of kind a or, at exponentially distributed nats more, of b: closed form log 2 for one half."""
    rng = np.random.default_rng(0)
    gaps = rng.exponential(size=20_000)
    samples = [[(0.0, ["a"]), (float(gap), ["b"])] for gap in gaps]
    found = costs(samples, {"a": 0.5, "b": 0.5})
    assert found["a"] - found.get("b", 0.0) == pytest.approx(np.log(2), abs=0.03)
    assert costs(samples, {"a": 1.0, "b": 0.0}).get("a", 0.0) == 0.0


def test_what_cannot_be_had_costs_no_more_than_the_most() -> None:
    samples = [[(0.0, ["a", "c"])]] * 100
    found = costs(samples, {"a": 0.1, "b": 0.9, "c": 1.0})
    assert 0 < found["a"] <= MOST and "c" not in found and "b" not in found


def test_the_shipped_models_samples_say_the_same_for_a_seed_and_nothing_when_stopped() -> None:
    model = load("molecules-qm9gfn2")
    table = lean(model, 16, seed=0)
    assert table.counts == model.domain.config.kinds.counts
    assert all(0.05 <= cost <= MOST for cost in table.costs.values())
    assert table.costs == lean(model, 16, seed=0).costs
    assert lean(model, 16, seed=0, goes_on=lambda done: False).costs == {}
