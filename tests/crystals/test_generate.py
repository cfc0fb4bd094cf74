"""Drawing crystals: what is asked holds exactly, a sample depends on its seed and index alone, and evaluations are counted."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Composition, Structure

import sciconsist as sc
from sciconsist.domains.crystals.generate import Plan, Request, annealed, generate
from sciconsist.errors import UserError
from sciconsist.flowmap import FlowMap
from sciconsist.workflows.crystal_requests import Requests, Wish, plan_for, size_range
from sciconsist.workflows.generate_crystals import STALE, TRIES, Crystals

from .conftest import SYMBOLS, small_model

FORMULAS = ("NaCl", "TiO2", "SrTiO3", "Li2O", "Fe")


def drawn(model: FlowMap, n: int, batch_size: int | None = None, steps: int = 2, seed: int = 0, **wish: Any) -> list:
    return list(Crystals(model, Wish(**wish), steps, seed, raw=True, batch_size=batch_size).take(n))


def same(first: Structure, second: Structure) -> None:
    assert first.composition == second.composition
    np.testing.assert_allclose(first.lattice.matrix, second.lattice.matrix, atol=1e-3)
    apart = first.frac_coords - second.frac_coords
    np.testing.assert_allclose((apart - np.round(apart)) @ first.lattice.matrix, 0, atol=1e-3)


@settings(max_examples=12, deadline=None)
@given(
    st.sets(st.sampled_from(sorted(SYMBOLS.values())), min_size=1, max_size=4), st.integers(1, 12), st.integers(0, 99)
)
def test_elements_and_atoms_hold(elements: set[str], atoms: int, seed: int) -> None:
    for model in (small_model(), small_model(composition=False)):
        for structure in drawn(model, 3, seed=seed, elements=sorted(elements), atoms=atoms):
            assert len(structure) == atoms
            assert {e.symbol for e in structure.composition} <= elements


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(FORMULAS), st.integers(1, 2), st.integers(0, 99))
def test_formulas_hold(formula: str, units: int, seed: int) -> None:
    size = units * int(Composition(formula).num_atoms)
    for structure in drawn(small_model(), 3, seed=seed, formula=formula, atoms=size):
        assert structure.composition.reduced_formula == formula
        assert len(structure) == size


def test_sizes_follow_the_histogram(small: FlowMap) -> None:
    request = Requests(small, Wish(atoms="2:4"), 0)
    sizes = [r.size for r in request.of(range(300))]
    assert set(sizes) == {2, 3, 4}
    assert all(60 < sizes.count(n) < 140 for n in (2, 3, 4))


@pytest.mark.parametrize("wish", [{}, {"elements": ["Na", "Cl"]}, {"formula": "TiO2"}, {"charge_balanced": True}])
def test_a_sample_does_not_depend_on_its_batch(small: FlowMap, wish: dict) -> None:
    together = drawn(small, 9, **wish)
    for k, structure in enumerate(drawn(small, 9, batch_size=2, **wish)):
        same(structure, together[k])
        assert structure.properties["index"] == k


def test_seeds_differ(small: FlowMap) -> None:
    first, second = drawn(small, 4, seed=0), drawn(small, 4, seed=1)
    assert any(
        a.composition != b.composition or not np.allclose(a.lattice.abc, b.lattice.abc) for a, b in zip(first, second)
    )


def test_charges_balance_before_any_structure_is_made(small: FlowMap) -> None:
    request = Crystals(small, Wish(elements=["Na", "Cl", "O"], charge_balanced=True), 1)
    made = list(request.take(5))
    assert made and not request.counts.rejected["charges do not balance"]
    for structure in made:
        counts = {e.symbol: n for e, n in structure.composition.items()}
        assert len(counts) == 1 or counts.get("Na", 0) <= counts.get("Cl", 0) * 7 + counts.get("O", 0) * 2


@pytest.mark.parametrize("steps", [1, 3, 8])
def test_every_evaluation_is_counted(small: FlowMap, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    forward = small.net.forward
    monkeypatch.setattr(small.net, "forward", lambda *a: calls.append(0) or forward(*a))
    drawn(small, 2, steps=steps, formula="NaCl", atoms=4)
    assert len(calls) == steps


@given(st.floats(0, 20), st.floats(0.01, 1.0), st.floats(0.0, 0.99))
def test_the_boost_never_passes_the_endpoint(boost: float, s: float, share: float) -> None:
    t = share * s
    factor = annealed(boost, s, t)
    assert factor >= 1 and (factor * (s - t) <= s * (1 + 1e-9) or factor == 1)


def test_times_go_from_noise_to_data() -> None:
    times = Plan(4, power=2.0).times()
    assert times[0] == 1 and times[-1] == 0 and len(times) == 5
    assert all(a > b for a, b in pairwise(times))


def test_a_card_has_samplers_by_the_number_of_steps() -> None:
    model = small_model()
    few, more = {"jumps": 1, "boost": 9.0}, {"jumps": False, "power": 1.5}
    model.card["sampler"] = {"prediction": {"jumps": True, "by_steps": {"4": few, "16": more}}}
    plans = [plan_for(model, steps, Wish(formula="NaCl")) for steps in (3, 4, 15, 16, 40)]
    assert plans == [Plan(3), Plan(4, **few), Plan(15, **few), Plan(16, **more), Plan(40, **more)]
    assert [plans[1].jumps_at(k) for k in range(4)] == [True, False, False, False]
    assert all(plans[0].jumps_at(k) for k in range(3)) and not plans[3].jumps_at(0)


def test_steps_after_the_jumps_follow_the_diagonal(small: FlowMap) -> None:
    """The network is told the end of the first step alone, and only the others are boosted."""
    request = [Request(4, np.array([11, 11, 17, 17]))]
    asked: list[bool] = []

    def raw(x: Any, s: Any, t: Any, *args: Any) -> Any:
        asked.append(bool((s["frac"] != t["frac"]).all()))
        return type(small).raw(small, x, s, t, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(small, "raw", raw)
        mixed, boosted = (next(iter(generate(small, request, Plan(3, jumps=1, boost=b)))) for b in (0.0, 4.0))
        assert asked == [True, False, False] * 2
    assert np.abs(mixed.frac - boosted.frac).max() > 0
    all_jumps = [next(iter(generate(small, request, Plan(3, boost=b)))).frac for b in (0.0, 4.0)]
    np.testing.assert_array_equal(*all_jumps)


def test_raw_is_in_order_and_the_default_has_no_duplicates(small: FlowMap) -> None:
    raw = Crystals(small, Wish(formula="NaCl", atoms=2), 1, raw=True)
    assert len(list(raw.take(6))) == 6 and raw.counts.drawn == 6
    usable = Crystals(small, Wish(formula="NaCl", atoms=2), 1)
    kept = list(usable.take(6))
    assert usable.counts.drawn == len(kept) + sum(usable.counts.rejected.values())
    assert all(math.isfinite(s.volume) for s in kept)


def test_the_facade(small: FlowMap) -> None:
    made = sc.generate("crystals", n=2, steps=1, elements=["Li", "O"], raw=True, model=small)
    assert all(isinstance(s, Structure) for s in made) and len(made) == 2
    assert made[0].properties["steps"] == 1


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"formula": "NaXq"}, "NaXq"), ({"formula": "UO2"}, "has not seen U"), ({"elements": ["Na", "Xx"]}, "'Xx'"),
        ({"formula": "TiO2", "atoms": 4}, "multiple"), ({"atoms": "9:2"}, "'9:2'"), ({"atoms": 40}, "trained on"),
        ({"formula": "NaCl", "elements": ["Na"]}, "Cl"), ({"space_group": 231}, "231"),
        ({"properties": {"colour": 1.0}}, "colour"), ({"properties": {"band_gap": (2.0, 1.0)}}, "band_gap"),
    ],
)  # fmt: skip
def test_bad_requests_are_named(small: FlowMap, wish: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        drawn(small, 1, **wish)


@given(st.integers(1, 12), st.integers(1, 12))
def test_size_ranges(low: int, high: int) -> None:
    histogram = {n: n for n in range(1, 13)}
    if low <= high:
        assert set(size_range(histogram, f"{low}:{high}")) == set(range(low, high + 1))
    else:
        with pytest.raises(UserError):
            size_range(histogram, f"{low}:{high}")


def test_duplicates_end_a_request_and_not_the_patience(small: FlowMap) -> None:
    """The network's few single-atom cells are soon all there."""
    request = Crystals(small, Wish(elements=["Fe"], atoms=1), 1)
    kept = list(request.take(40))
    assert 1 <= len(kept) < 40
    assert request.counts.rejected["duplicate"] >= STALE and request.counts.drawn < 40 * TRIES
    assert list(Crystals(small, Wish(elements=["Fe"], atoms=1), 1, batch_size=3).take(40)) == kept
