"""Distances that a graph fixes: what is learned, and positions moved to it."""

from __future__ import annotations

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import AllChem

from sciconsist.domains.molecules.distances import Distances, learn, restraints, settle, shortest_paths
from sciconsist.domains.molecules.graphs import HeavyGraph, heavy_graph
from sciconsist.domains.molecules.vocabulary import Vocabulary

SMILES = ("CCO", "c1ccccc1C", "C1CC1N", "CC(=O)OC", "c1ccncc1", "C1CCCC1O", "CC#N", "C1CC2CC12", "FC(C)C=O")


def embedded(smiles: str, seed: int = 1) -> Chem.Mol:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert AllChem.EmbedMolecule(mol, randomSeed=seed) == 0
    AllChem.MMFFOptimizeMolecule(mol)
    return mol


@pytest.fixture(scope="module")
def data() -> tuple[list[HeavyGraph], Vocabulary, Distances]:
    mols = [embedded(s, seed) for s in SMILES for seed in range(1, 9)]
    bare = [Chem.RemoveAllHs(m) for m in mols]
    for mol in bare:
        Chem.Kekulize(mol, clearAromaticFlags=True)
    vocabulary = Vocabulary.from_molecules(bare)
    graphs = [heavy_graph(m, vocabulary) for m in mols]
    return graphs, vocabulary, learn(graphs, vocabulary)


def between(x: np.ndarray) -> np.ndarray:
    return np.linalg.norm(x[:, None] - x[None], axis=-1)


def test_shortest_paths_of_a_ring_of_six_with_a_tail() -> None:
    bonds = np.zeros((7, 7), dtype=int)
    for i, j in [*((k, (k + 1) % 6) for k in range(6)), (0, 6)]:
        bonds[i, j] = bonds[j, i] = 1
    paths = shortest_paths(bonds)
    assert paths[0, 1] == [(0, 1)] and paths[0, 2] == [(0, 1, 2)]
    assert sorted(paths[0, 3]) == [(0, 1, 2, 3), (0, 5, 4, 3)]  # both ways round
    assert (3, 6) not in paths and len(paths[2, 6][0]) == 4


def test_noise_on_bonds_and_angles_is_taken_off(data: tuple) -> None:
    graphs, vocabulary, distances = data
    rng = np.random.default_rng(0)
    noisy = [g.positions + 0.1 * rng.standard_normal(g.positions.shape) for g in graphs]
    moved = settle(restraints(graphs, vocabulary, distances), noisy, trust=0.1)
    for g, before, after in zip(graphs, noisy, moved):
        bonded = g.orders > 0
        error = [np.abs(between(x) - between(g.positions))[bonded].mean() for x in (before, after)]
        assert error[1] < 0.02 < error[0]


def test_what_is_right_hardly_moves(data: tuple) -> None:
    graphs, vocabulary, distances = data
    moved = settle(restraints(graphs, vocabulary, distances), [g.positions for g in graphs], trust=0.005)
    assert max(np.abs(m - g.positions).max() for m, g in zip(moved, graphs)) < 0.03


def test_it_turns_shifts_mirrors_and_permutes_with_its_input(data: tuple) -> None:
    graphs, vocabulary, distances = data
    rng = np.random.default_rng(1)
    graph = next(g for g in graphs if len(g) == 7)
    x = graph.positions + 0.05 * rng.standard_normal(graph.positions.shape)
    (plain,) = settle(restraints([graph], vocabulary, distances), [x], trust=0.1)
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    for matrix in (turn, -turn):
        (turned,) = settle(restraints([graph], vocabulary, distances), [x @ matrix + 3.0], trust=0.1)
        assert np.allclose(turned, plain @ matrix + 3.0, atol=1e-8)
    p = rng.permutation(len(graph))
    aromatic = None if graph.aromatic is None else graph.aromatic[np.ix_(p, p)]
    other = HeavyGraph(graph.classes[p], graph.orders[np.ix_(p, p)], None, aromatic)
    (permuted,) = settle(restraints([other], vocabulary, distances), [x[p]], trust=0.1)
    assert np.allclose(permuted, plain[p], atol=1e-8)


def test_neighbours_in_a_batch_change_nothing_and_fixed_atoms_stay(data: tuple) -> None:
    graphs, vocabulary, distances = data
    rng = np.random.default_rng(2)
    noisy = [g.positions + 0.1 * rng.standard_normal(g.positions.shape) for g in graphs]
    together = settle(restraints(graphs, vocabulary, distances), noisy, trust=0.1, fixed=2)
    for k in (0, 20, 40):
        (alone,) = settle(restraints([graphs[k]], vocabulary, distances), [noisy[k]], trust=0.1, fixed=2)
        assert np.array_equal(alone, together[k])
    assert all(np.array_equal(x[:2], y[:2]) for x, y in zip(noisy, together))


def test_atoms_that_no_path_holds_keep_their_distance(data: tuple) -> None:
    _, vocabulary, distances = data
    carbon = next(k for k, c in enumerate(vocabulary.classes) if (c.symbol, c.hydrogens) == ("C", 2))
    chain = np.zeros((8, 8), dtype=int)
    for i in range(7):
        chain[i, i + 1] = chain[i + 1, i] = 1
    x = np.cumsum(np.eye(8, 3) * 0.3 + [0.3, 0.2, 0.1], axis=0)  # far too near
    graph = HeavyGraph(np.full(8, carbon), chain)
    (moved,) = settle(restraints([graph], vocabulary, distances), [x], trust=1.0)
    assert np.isfinite(moved).all()
    assert between(moved)[np.triu_indices(8, 1)].min() > 1.2


def test_a_bond_is_as_long_as_its_surroundings_have_it_where_the_data_say_so(data: tuple) -> None:
    _, vocabulary, _ = data
    found = [(c.symbol, c.hydrogens) for c in vocabulary.classes]
    methyl, methylene = found.index(("C", 3)), found.index(("C", 2))
    chain = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]])

    def graph(end: tuple[str, int], length: float) -> HeavyGraph:
        x = np.array([[0.0, 0, 0], [length, 0, 0], [length + 0.5, 1.3, 0]])
        return HeavyGraph(np.array([methyl, methylene, found.index(end)]), chain, x)

    alcohol, amine = graph(("O", 1), 1.50), graph(("N", 2), 1.54)  # the bond between the same classes
    often = learn([alcohol, amine] * 8, vocabulary)
    for one, length in ((alcohol, 1.50), (amine, 1.54)):
        ((mean, _, _),) = restraints([one], vocabulary, often)
        assert mean[0, 1] == pytest.approx(length, abs=1e-4)
    seldom = learn([alcohol, amine] * 4, vocabulary)  # eight of the classes, four of either surroundings
    ((mean, _, _),) = restraints([alcohol], vocabulary, seldom)
    assert mean[0, 1] == pytest.approx(1.52, abs=1e-4)
