"""The decoder returns the likeliest consistent graph, whatever way it finds it."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rdkit import Chem

from sciconsist.domains.molecules import decode
from sciconsist.domains.molecules.decode import (
    DecodedGraph,
    Farther,
    decode_graph,
    decode_weighed,
    is_connected,
    near_best,
    problem_of,
)
from sciconsist.domains.molecules.integer_programme import integer_programme
from sciconsist.domains.molecules.ranking import Found, Search
from sciconsist.domains.molecules.repairs import Totals
from sciconsist.domains.molecules.vocabulary import AtomClass, Vocabulary, atom_classes
from sciconsist.domains.molecules.weighing import no_weighing

SMALL = Vocabulary(
    tuple(
        sorted(
            AtomClass(*row)
            for row in (
                ("C", 0, 4, 4), ("C", 0, 3, 4), ("C", 0, 2, 4), ("C", 0, 1, 4), ("C", 0, 0, 4),
                ("N", 1, 3, 4), ("O", -1, 0, 1), ("O", 0, 0, 2), ("F", 0, 0, 1),
            )
        )
    )
)  # fmt: skip
SMILES = (
    "CC(=O)O", "C1CC1", "N#CC1CO1", "c1ccoc1", "C[C@H](N)C(=O)O", "[NH3+]CC(=O)[O-]", "O=C1CC2CC12",
    "CC#CC1CN1", "NC(=O)C1CCC1", "c1c[nH]cn1", "FC(F)(F)C1CC1", "OC12CC1OC1(CC1)C2", "C", "O", "CC",
    "CC1(C)CN2C(CO)C21",
)  # fmt: skip


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def random_input(rng: np.random.Generator, n: int, k: int, scale: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    bonds = scale * rng.standard_normal((n, n, 4)) - np.array([0.0, 1.0, 2.0, 3.0])
    return log_softmax(scale * rng.standard_normal((n, k))), log_softmax((bonds + bonds.transpose(1, 0, 2)) / 2)


def is_consistent(graph: DecodedGraph, vocabulary: Vocabulary, charge: int | None = 0) -> bool:
    total = sum(vocabulary.classes[k].charge for k in graph.classes)
    balanced = (vocabulary.order_sums[graph.classes] == graph.orders.sum(1)).all()
    symmetric = (graph.orders == graph.orders.T).all() and not graph.orders.diagonal().any()
    return bool(balanced and symmetric and is_connected(graph.orders) and (charge is None or total == charge))


def brute_force(
    atom, bond, vocabulary, allowed=None, charge: int | None = 0, hydrogens: int | None = None, edges: int | None = None
) -> float:
    """The largest log-likelihood of a consistent graph; -inf where there is none."""
    n, pairs = len(atom), list(combinations(range(len(atom)), 2))
    charges = np.array([c.charge for c in vocabulary.classes])
    own_hydrogens = np.array([c.hydrogens for c in vocabulary.classes])
    order_sums, best = vocabulary.order_sums, -np.inf
    for orders in product(range(4), repeat=len(pairs)):
        matrix = np.zeros((n, n), int)
        for (i, j), o in zip(pairs, orders, strict=True):
            matrix[i, j] = matrix[j, i] = o
        if not is_connected(matrix) or edges not in (None, np.count_nonzero(orders)):
            continue
        bonds = sum(bond[i, j, o] for (i, j), o in zip(pairs, orders, strict=True))
        choices = [
            [k for k in np.flatnonzero(order_sums == matrix[i].sum()) if allowed is None or allowed[i, k]]
            for i in range(n)
        ]
        for classes in product(*choices):
            if hydrogens not in (None, own_hydrogens[list(classes)].sum()):
                continue
            if charge is None or charges[list(classes)].sum() == charge:
                best = max(best, bonds + sum(atom[i, k] for i, k in enumerate(classes)))
    return best


@pytest.mark.parametrize("seed", range(6))
def test_likely_graphs_are_all_weighed_in_order(seed: int) -> None:
    """A penalty that all have stops nothing before it is spent: every graph so near the likeliest is seen, none twice."""
    atom, bond = random_input(np.random.default_rng(seed), 3, len(SMALL), 1.0)
    slack, seen = 5.0, []

    def answer(found: Found, enough: float) -> float:
        classes, orders = found.classes, found.orders
        seen.append((*classes.tolist(), *orders.ravel().tolist()))
        values.append(
            atom[range(3), classes].sum() + sum(bond[i, j, orders[i, j]] for i, j in combinations(range(3), 2))
        )
        return slack

    values: list[float] = []
    graph = decode_weighed(atom, bond, SMALL, None, 0, answer, Search(slack, 10**6, 100_000), no_weighing(SMALL))
    assert graph.log_likelihood == pytest.approx(decode_graph(atom, bond, SMALL).log_likelihood)
    assert len(set(seen)) == len(seen) and values == sorted(values, reverse=True)
    everything = sorted((value for value, _ in all_graphs(atom, bond, SMALL)), reverse=True)
    expected = [value for value in everything if value >= graph.log_likelihood - slack + 1e-9]
    assert values[: len(expected)] == pytest.approx(expected)
    assert len(values) >= len(expected) > 1


@given(seed=st.integers(0, 10**6), n=st.integers(2, 3), hydrogens=st.integers(0, 8), nats=st.floats(0.0, 6.0))
@settings(max_examples=40, deadline=None)
def test_the_least_of_cost_and_penalty_is_that_of_brute_force(seed: int, n: int, hydrogens: int, nats: float) -> None:
    atom, bond = random_input(np.random.default_rng(seed), n, len(SMALL))
    own = np.array([c.hydrogens for c in SMALL.classes])

    def penalty(classes: np.ndarray, orders: np.ndarray, enough: float = np.inf) -> float:
        return nats * abs(int(own[classes].sum()) - hydrogens)

    def answer(found: Found, enough: float) -> float:
        return penalty(found.classes, found.orders)

    graph = decode_weighed(atom, bond, SMALL, None, 0, answer, Search(100.0, 10**6, 10**6), no_weighing(SMALL))
    best = max(
        (value - penalty(np.array(classes), bond) for value, classes in all_graphs(atom, bond, SMALL)), default=None
    )
    assert graph.consistent == (best is not None)
    if best is not None:
        assert is_consistent(graph, SMALL)
        assert graph.log_likelihood - penalty(graph.classes, graph.orders) == pytest.approx(best)


@given(seed=st.integers(0, 10**6), hydrogens=st.integers(0, 8), nats=st.floats(0.5, 20.0), lacking=st.floats(0.0, 10.0))
@settings(max_examples=40, deadline=None)
def test_a_second_look_finds_the_best_of_its_totals_where_too_much_is_lacking(
    seed: int, hydrogens: int, nats: float, lacking: float
) -> None:
    atom, bond = random_input(np.random.default_rng(seed), 3, len(SMALL))

    def answer(found: Found, enough: float) -> float:
        return nats * (SMALL.hydrogens[found.classes].sum() != hydrogens)

    likeliest = Search(0.0, 1, 0)
    farther = Farther(lacking, Search(100.0, 10**6, 10**6), Totals(0, hydrogens))
    arguments = (atom, bond, SMALL, None, 0, answer, likeliest, no_weighing(SMALL))
    first, found = decode_weighed(*arguments), decode_weighed(*arguments, farther)
    assert first.consistent and min(abs(first.lacking), abs(first.lacking - nats)) < 1e-9
    right = brute_force(atom, bond, SMALL, hydrogens=hydrogens)
    if first.lacking < lacking or first.log_likelihood - first.lacking >= right - 1e-9:
        assert (found.classes == first.classes).all() and (found.orders == first.orders).all()
    else:
        assert is_consistent(found, SMALL) and found.lacking == pytest.approx(0.0, abs=1e-9)
        assert found.log_likelihood == pytest.approx(right)


@given(seed=st.integers(0, 10**6), nats=st.floats(0.0, 6.0), margin=st.floats(0.1, 5.0), haste=st.floats(1.0, 4.0))
@settings(max_examples=40, deadline=None)
def test_near_the_best_are_all_so_near_and_a_hasty_search_finds_some(
    seed: int, nats: float, margin: float, haste: float
) -> None:
    atom, bond = random_input(np.random.default_rng(seed), 3, len(SMALL))
    own = np.array([c.hydrogens for c in SMALL.classes])

    def penalty(classes: np.ndarray, orders: np.ndarray, enough: float = np.inf) -> float:
        return nats * abs(int(own[np.asarray(classes)].sum()) - 3)

    def answer(found: Found, enough: float) -> float:
        return penalty(found.classes, found.orders)

    def costs(haste: float) -> list[float]:
        search = Search(100.0, 10**6, 10**6, haste)
        problem = problem_of(atom, bond, SMALL, None, Totals(0))
        assert problem is not None
        found = near_best(problem, answer, search, no_weighing(SMALL), margin)
        return sorted(cost for cost, _ in found)

    graphs = all_graphs(atom, bond, SMALL)
    whole = sorted(penalty(np.array(classes), bond) - value for value, classes in graphs)
    near = [cost - whole[0] for cost in whole if cost < whole[0] + margin - 1e-9]
    found = costs(1.0)
    assert [cost - found[0] for cost in found][: len(near)] == pytest.approx(near, abs=1e-9)
    assert len(found) <= len(near) + 1  # one may lie on the margin
    hasty = costs(haste)
    assert hasty and hasty[0] >= found[0] - 1e-9


def all_graphs(atom: np.ndarray, bond: np.ndarray, vocabulary: Vocabulary) -> list[tuple[float, tuple[int, ...]]]:
    """Log-likelihoods and classes of all neutral consistent graphs."""
    n, pairs = len(atom), list(combinations(range(len(atom)), 2))
    sums, charges = vocabulary.order_sums, np.array([c.charge for c in vocabulary.classes])
    found = []
    for orders in product(range(4), repeat=len(pairs)):
        matrix = np.zeros((n, n), int)
        for (i, j), o in zip(pairs, orders, strict=True):
            matrix[i, j] = matrix[j, i] = o
        if is_connected(matrix):
            bonds = sum(bond[i, j, o] for (i, j), o in zip(pairs, orders, strict=True))
            for classes in product(*(np.flatnonzero(sums == matrix[i].sum()) for i in range(n))):
                if charges[list(classes)].sum() == 0:
                    found.append(
                        (float(bonds + sum(atom[i, k] for i, k in enumerate(classes))), tuple(map(int, classes)))
                    )
    return found


@pytest.mark.parametrize("pops", [decode.MAX_POPS, 0])
@given(seed=st.integers(0, 10**6), n=st.integers(2, 3), hydrogens=st.integers(0, 8), edges=st.integers(1, 3))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_hydrogens_and_rings_that_were_asked_for(
    monkeypatch: pytest.MonkeyPatch, pops: int, seed: int, n: int, hydrogens: int, edges: int
) -> None:
    monkeypatch.setattr(decode, "MAX_POPS", pops)  # by the search, and by the integer programme alone
    atom, bond = random_input(np.random.default_rng(seed), n, len(SMALL))
    graph = decode_graph(atom, bond, SMALL, hydrogens=hydrogens, bonds=edges)
    best = brute_force(atom, bond, SMALL, None, 0, hydrogens, edges)
    assert graph.consistent == np.isfinite(best)
    if graph.consistent:
        assert is_consistent(graph, SMALL) and graph.log_likelihood == pytest.approx(best)
        assert sum(SMALL.classes[k].hydrogens for k in graph.classes) == hydrogens
        assert np.count_nonzero(np.triu(graph.orders)) == edges


@pytest.mark.parametrize("charge", [0, 1, None])
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 3), restrict=st.booleans())
@settings(max_examples=40, derandomize=True)
def test_optimum_is_that_of_brute_force(charge: int | None, seed: int, n: int, restrict: bool) -> None:
    rng = np.random.default_rng(seed)
    atom, bond = random_input(rng, n, len(SMALL))
    allowed = rng.random((n, len(SMALL))) < 0.6 if restrict else None
    graph = decode_graph(atom, bond, SMALL, allowed, charge)
    best = brute_force(atom, bond, SMALL, allowed, charge)
    assert graph.consistent == np.isfinite(best)
    if graph.consistent:
        assert graph.log_likelihood == pytest.approx(best, abs=1e-9)
        assert is_consistent(graph, SMALL, charge)
        assert allowed is None or allowed[np.arange(n), graph.classes].all()


@pytest.mark.parametrize("seed", range(3))
def test_optimum_is_that_of_brute_force_on_four_atoms(seed: int) -> None:
    atom, bond = random_input(np.random.default_rng(seed), 4, len(SMALL))
    assert decode_graph(atom, bond, SMALL).log_likelihood == pytest.approx(brute_force(atom, bond, SMALL), abs=1e-9)


@pytest.mark.parametrize("noise", [0.0, 1.0, 1.6, 2.5])
def test_search_and_integer_programme_agree_on_molecules(noise: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where nothing of the molecule is left in the probabilities, a consistent graph comes back."""
    mols = [kekulized(s) for s in SMILES]
    vocabulary = Vocabulary.from_molecules(mols)
    rng, repaired = np.random.default_rng(0), 0
    for mol in mols:
        classes, orders = truth(mol, vocabulary)
        atom, bond = noisy(classes, orders, len(vocabulary), noise, rng)
        graph = decode_graph(atom, bond, vocabulary)
        assert graph.consistent and is_consistent(graph, vocabulary)
        assert graph.gap >= 0 and graph.repaired == (graph.gap > 0)
        repaired += graph.repaired
        if noise == 0:
            assert (graph.classes == classes).all() and (graph.orders == orders).all()
        with monkeypatch.context() as patch:
            patch.setattr(decode, "MAX_POPS", 0)
            assert decode_graph(atom, bond, vocabulary).gap == pytest.approx(graph.gap, abs=1e-6)
    assert (repaired > 0) == (noise > 1)


@pytest.mark.parametrize("pops", [0, 10_000])
def test_pieces_are_joined(pops: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two balanced pieces far apart in likelihood: the cheapest link wins, by search and by cuts."""
    monkeypatch.setattr(decode, "MAX_POPS", pops)
    vocabulary = Vocabulary.from_molecules([kekulized(s) for s in ("CC", "CCC", "C1CC1", "CC(C)C")])
    k = vocabulary.index(AtomClass("C", 0, 3, 4))
    atom = np.full((4, len(vocabulary)), -9.0)
    atom[:, k] = 0
    bond = np.zeros((4, 4, 4)) + np.array([0.0, -8.0, -20.0, -20.0])
    for i, j in ((0, 1), (2, 3)):
        bond[i, j] = bond[j, i] = [-12.0, 0.0, -20.0, -20.0]
    bond[1, 2] = bond[2, 1] = [0.0, -5.0, -20.0, -20.0]
    graph = decode_graph(atom, bond, vocabulary)
    assert is_consistent(graph, vocabulary) and graph.gap == pytest.approx(9 + 9 + 5)
    assert graph.orders[1, 2] == 1


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20, derandomize=True)
def test_permuted_atoms_give_the_permuted_graph(seed: int) -> None:
    rng = np.random.default_rng(seed)
    atom, bond = random_input(rng, 5, len(SMALL))
    order = rng.permutation(5)
    graph = decode_graph(atom, bond, SMALL)
    permuted = decode_graph(atom[order], bond[np.ix_(order, order)], SMALL)
    assert (permuted.classes == graph.classes[order]).all()
    assert (permuted.orders == graph.orders[np.ix_(order, order)]).all()
    assert permuted.log_likelihood == pytest.approx(graph.log_likelihood)


def test_impossible_requests_say_so() -> None:
    atom, bond = random_input(np.random.default_rng(0), 3, len(SMALL))
    nothing = np.zeros((3, len(SMALL)), dtype=bool)
    fluorine = nothing.copy()
    fluorine[:, SMALL.index(AtomClass("F", 0, 0, 1))] = True
    for allowed in (nothing, fluorine):
        graph = decode_graph(atom, bond, SMALL, allowed)
        assert not graph.consistent and not graph.repaired and graph.orders.shape == (3, 3)
    assert decode_graph(atom, bond, SMALL, charge=7).consistent is False


def test_infinite_log_probabilities_are_dear_not_forbidden() -> None:
    """A network sure of two fluorines out of three atoms, all bonded to each other, is still answered."""
    atom, bond = np.full((3, len(SMALL)), -np.inf), np.full((3, 3, 4), -np.inf)
    atom[:, SMALL.index(AtomClass("F", 0, 0, 1))] = 0
    bond[..., 1] = 0
    graph = decode_graph(atom, bond, SMALL)
    assert is_consistent(graph, SMALL) and np.isfinite(graph.gap)


def test_the_diagonal_of_the_bonds_is_not_read() -> None:
    atom, bond = random_input(np.random.default_rng(3), 4, len(SMALL))
    expected = decode_graph(atom, bond, SMALL)
    bond[np.arange(4), np.arange(4)] = np.nan
    graph = decode_graph(atom, bond, SMALL)
    assert (graph.orders == expected.orders).all() and graph.log_likelihood == expected.log_likelihood


@pytest.mark.parametrize(
    ("atom", "bond", "words"),
    [
        (np.zeros((2, 3)), np.zeros((2, 2, 4)), "expected atom_logp"),
        (np.zeros((0, len(SMALL))), np.zeros((0, 0, 4)), "N > 0"),
        (np.full((1, len(SMALL)), np.nan), np.zeros((1, 1, 4)), "NaN"),
    ],
)
def test_wrong_input_is_an_error(atom: np.ndarray, bond: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        decode_graph(atom, bond, SMALL)


def test_the_integer_programme_alone_needs_no_window() -> None:
    atom, bond = random_input(np.random.default_rng(5), 5, len(SMALL), scale=12.0)
    problem = problem_of(atom, bond, SMALL, None, Totals())
    chosen = integer_programme(problem, 0.0)
    cost = sum(problem.gaps[a] for a in chosen)
    assert cost == pytest.approx(decode_graph(atom, bond, SMALL).gap, abs=1e-6) and cost > 0


def kekulized(smiles: str) -> Chem.Mol:
    mol = Chem.MolFromSmiles(smiles)
    Chem.Kekulize(mol, clearAromaticFlags=True)
    return mol


def truth(mol: Chem.Mol, vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    classes = np.array([vocabulary.index(c) for c in atom_classes(mol)])
    orders = np.zeros((len(classes), len(classes)), dtype=int)
    for bond in mol.GetBonds():
        i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        orders[i, j] = orders[j, i] = int(bond.GetBondTypeAsDouble())
    return classes, orders


def noisy(classes, orders, k: int, noise: float, rng) -> tuple[np.ndarray, np.ndarray]:
    """One-hot logits of a molecule plus noise: at 1 nearly all stay consistent, at 2.5 nearly none."""
    n = len(classes)
    bonds = noise * rng.standard_normal((n, n, 4))
    logits = 5 * np.eye(4)[orders] + (bonds + bonds.transpose(1, 0, 2)) / np.sqrt(2)
    return log_softmax(5 * np.eye(k)[classes] + noise * rng.standard_normal((n, k))), log_softmax(logits)
