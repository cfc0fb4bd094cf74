"""Compositions: atom counts and allowed elements exact, a likelihood that sums to one, draws that follow it, training."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Composition

from sciconsist.domains.crystals.adapter import CrystalConfig, CrystalDomain
from sciconsist.domains.crystals.composition import atoms_of, charge_balanced, formula_units
from sciconsist.domains.crystals.composition_network import (
    CompositionConfig,
    CompositionNetwork,
    Formulas,
    electronegativity_order,
    formulas_of,
)
from sciconsist.errors import UserError

K, LARGEST = 4, 6


def network(seed: int = 0) -> CompositionNetwork:
    table = [[0.1, 1.0], [0.5, -1.0], [-1.0, 0.3], [0.7, 0.2]]
    made = CompositionNetwork(table, CompositionConfig(order=[2, 0, 3, 1], largest=LARGEST, width=12, dropout=0.0))
    generator = torch.Generator().manual_seed(seed)
    for p in made.parameters():
        p.data = torch.randn(p.shape, generator=generator) * 0.7
    return made.double().eval()


def uniforms(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 2 * LARGEST + 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def every(atoms: int) -> Formulas:
    """All (units, elements, counts) that make so many atoms."""
    rows = []
    for units in (u for u in range(1, atoms + 1) if atoms % u == 0):
        for arity in range(1, K + 1):
            for places in combinations(range(K), arity):
                counts = product(range(1, atoms // units + 1), repeat=arity)
                rows += [(units, places, c) for c in counts if sum(c) == atoms // units]
    places, counts = np.full((len(rows), K), -1), np.zeros((len(rows), K), dtype=int)
    for k, (_, where, number) in enumerate(rows):
        places[k, : len(where)], counts[k, : len(where)] = where, number
    units = torch.tensor([u for u, *_ in rows])
    return Formulas(torch.full_like(units, atoms), units, torch.from_numpy(places), torch.from_numpy(counts))


@pytest.mark.parametrize("atoms", [1, 2, 5, 6])
def test_likelihood_sums_to_one(atoms: int) -> None:
    with torch.no_grad():
        total = network().log_likelihood(every(atoms)).exp().sum()
    assert float(total) == pytest.approx(1.0, abs=1e-12)


def test_draws_follow_the_likelihood() -> None:
    net, count = network(), 20_000
    rows = every(4)
    with torch.no_grad():
        p = net.log_likelihood(rows).exp().numpy()
    exact: Counter[tuple[int, ...]] = Counter()
    for units, places, counts, share in zip(rows.units, rows.places, rows.counts, p):
        amounts = [0] * K
        for place, number in zip(places, counts):
            if place >= 0:
                amounts[net.config.order[int(place)]] += int(number * units)
        exact[tuple(amounts)] += float(share)
    drawn = Counter(tuple(np.bincount(c, minlength=K)) for c in net.draw([4] * count, None, uniforms(count), 1.0))
    for key, share in exact.items():
        assert drawn[key] / count == pytest.approx(share, abs=5 * np.sqrt(share * (1 - share) / count) + 1e-9)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, LARGEST), min_size=1, max_size=8),
    allowed=st.lists(st.booleans(), min_size=K, max_size=K).filter(any),
    seed=st.integers(0, 100),
    temperature=st.sampled_from([0.3, 1.0, 2.0]),
)
def test_counts_and_allowed_elements_are_exact(sizes: list, allowed: list, seed: int, temperature: float) -> None:
    found = network(seed).draw(sizes, np.array(allowed), uniforms(len(sizes), seed), temperature)
    assert [len(c) for c in found] == sizes
    assert all(allowed[k] for c in found for k in c)


@settings(max_examples=40, deadline=None)
@given(
    each=st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=3).filter(lambda n: sum(n) <= LARGEST), min_size=1),
    barred=st.integers(0, K - 1),
    seed=st.integers(0, 100),
)
def test_atoms_of_each_element_are_exact(each: list, barred: int, seed: int) -> None:
    sizes, allowed = [sum(n) for n in each], np.arange(K) != barred
    for classes, wanted in zip(network(seed).draw(sizes, allowed, uniforms(len(sizes), seed), 1.0, each), each):
        assert sorted(np.unique(classes, return_counts=True)[1]) == sorted(wanted) and barred not in classes


def test_a_draw_does_not_depend_on_its_batch() -> None:
    net, u = network(), uniforms(12)
    sizes = [1, 2, 3, 4, 5, 6] * 2
    together = net.draw(sizes, None, u, 0.8)
    for k, size in enumerate(sizes):
        assert (net.draw([size], None, u[k : k + 1], 0.8)[0] == together[k]).all()


def test_too_many_atoms() -> None:
    with pytest.raises(UserError, match="7 atoms"):
        network().draw([7], None, uniforms(1), 1.0)


def test_formulas_are_reduced_and_in_order() -> None:
    x = formulas_of([np.array([0, 0, 1, 1, 1, 1]), np.array([3])], [2, 0, 3, 1])
    assert x.atoms.tolist() == [6, 1] and x.units.tolist() == [2, 1]
    assert x.places.tolist() == [[1, 3], [2, -1]] and x.counts.tolist() == [[1, 2], [1, 0]]


def test_electropositive_elements_come_first() -> None:
    assert electronegativity_order([8, 11, 26, 2]) == [3, 1, 2, 0]  # He (no value), Na, Fe, O


def test_a_model_without_compositions_keeps_its_weights() -> None:
    """The part is optional: weights of a model trained without it still fit."""
    base = {"elements": [3, 8, 11, 17], "table": [[0.1], [0.2], [0.3], [0.4]],
            "cell_mean": [[0.0] * 6], "cell_std": [[1.0] * 6], "size_histogram": {2: 1}}  # fmt: skip
    without = CrystalDomain(CrystalConfig(**base)).model()
    within = CrystalDomain(CrystalConfig(**base, composition=CompositionConfig(order=[2, 0, 3, 1]))).model()
    ours = {k for k in within.state_dict() if k.startswith("composition.")}
    assert ours and set(without.state_dict()) == set(within.state_dict()) - ours


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(["Li", "Fe", "P", "O", "Cl"]), st.integers(1, 6), min_size=1), st.integers(1, 4))
def test_formula_round_trip(counts: dict, multiples: int) -> None:
    units = formula_units("".join(f"{symbol}{n}" for symbol, n in counts.items()))
    numbers = atoms_of(units, multiples)
    assert len(numbers) == sum(units.values()) * multiples
    reduced = Composition(counts).reduced_composition
    assert {e.Z: int(n) for e, n in reduced.items()} == units


@pytest.mark.parametrize(
    ("formula", "balanced"),
    [("NaCl", True), ("LiFePO4", True), ("TiO2", True), ("FeNi", True), ("Na2Cl", False), ("LiF2", False)],
)
def test_charge_balance(formula: str, balanced: bool) -> None:
    assert charge_balanced(atoms_of(formula_units(formula), 1)) is balanced
