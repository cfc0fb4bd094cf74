"""What kinds cost so that samples have them as often as the training data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sciconsist.checkpoint import save_model
from sciconsist.domains.molecules.leanings import MOST, costs, lean
from sciconsist.training import FitResult
from sciconsist.workflows import train_molecules
from sciconsist.workflows.models import load
from sciconsist.workflows.runs import Until
from sciconsist.workflows.train_molecules import weigh_kinds


def test_a_trained_model_keeps_its_costs_where_there_was_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_molecules, "FEW_TO_CHANGE", 10)
    model = load("molecules-qm9gfn2")
    model.domain.config = model.domain.config.model_copy(
        update={"kinds": model.domain.config.kinds.model_copy(update={"costs": []})}
    )
    model.config["kinds"]["costs"] = []
    save_model(tmp_path / "model.safetensors", model)
    for steps, seconds, some in ((4, 600.0, False), (10, 0.0, False), (10, 600.0, True)):
        weigh_kinds(model, tmp_path, FitResult(steps, seconds, 0, 0.0), Until(seed=0))
        again = load(tmp_path / "model.safetensors")
        assert bool(again.domain.config.kinds.costs) == some
    before = load("molecules-qm9gfn2").state_dict()
    assert all((value == before[name]).all() for name, value in again.state_dict().items())


def test_costs_make_two_kinds_as_frequent_as_wanted() -> None:
    """Every sample may be of kind a or, at exponentially distributed nats more, of b: closed form log 2 for one half."""
    rng = np.random.default_rng(0)
    gaps = rng.exponential(size=20_000)
    a, b = np.array([1]), np.array([2])
    samples = [[(0.0, a), (float(gap), b)] for gap in gaps]
    found = costs(samples, np.array([1, 2]), np.array([0.5, 0.5]))
    assert found[0] - found[1] == pytest.approx(np.log(2), abs=0.03)
    assert costs(samples, np.array([1, 2]), np.array([1.0, 0.0]))[0] == 0.0


def test_what_cannot_be_had_costs_no_more_than_the_most() -> None:
    samples = [[(0.0, np.array([3, 5, 9]))]] * 100  # 9 is of a kind that the data do not have
    a, b, c = costs(samples, np.array([3, 4, 5]), np.array([0.1, 0.9, 1.0]))
    assert 0 < a <= MOST and b == c == 0.0


def test_the_shipped_models_samples_say_the_same_for_a_seed_and_nothing_when_stopped() -> None:
    model = load("molecules-qm9gfn2")
    table = lean(model, 16, seed=0)
    assert (table.keys, table.counts) == (model.domain.config.kinds.keys, model.domain.config.kinds.counts)
    assert all(0.0 <= cost <= MOST for cost in table.costs) and any(table.costs)
    assert table.costs == lean(model, 16, seed=0).costs
    assert lean(model, 16, seed=0, goes_on=lambda done: False).costs == []
