"""Distances that a graph fixes: what is learned, and positions moved to it."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rdkit import Chem
from rdkit.Chem import AllChem

from sciconsist.domains.molecules.distance_network import DistanceNetwork, calibrate, errors, fit, near_pairs, surprise
from sciconsist.domains.molecules.distances import BEND, Nearest, Restraint, nearest, restraints, settle
from sciconsist.domains.molecules.graphs import HeavyGraph, heavy_graph, pad_graphs
from sciconsist.domains.molecules.network import NetworkConfig
from sciconsist.domains.molecules.vocabulary import Vocabulary
from sciconsist.random import fresh_weights
from sciconsist.workflows.models import load
from sciconsist.workflows.runs import Until
from sciconsist.workflows.train_molecules import TrainConfig, train

SMILES = ("CCO", "c1ccccc1C", "C1CC1N", "CC(=O)OC", "c1ccncc1", "C1CCCC1O", "CC#N", "C1CC2CC12", "FC(C)C=O")
SMALL = NetworkConfig(layers=1, width=16, pair_width=8, vectors=4, heads=2)
Data = tuple[list[HeavyGraph], Vocabulary, DistanceNetwork, Nearest]


def embedded(smiles: str, seed: int = 1) -> Chem.Mol:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert AllChem.EmbedMolecule(mol, randomSeed=seed) == 0
    AllChem.MMFFOptimizeMolecule(mol)
    return mol


def fitted(graphs: list[HeavyGraph], classes: int, steps: int) -> DistanceNetwork:
    with fresh_weights(0):
        network = DistanceNetwork(classes)
    fit(network, pad_graphs(graphs), steps=steps)
    return network


@pytest.fixture(scope="module")
def data() -> Data:
    mols = [embedded(s, seed) for s in SMILES for seed in range(1, 9)]
    bare = [Chem.RemoveAllHs(m) for m in mols]
    for mol in bare:
        Chem.Kekulize(mol, clearAromaticFlags=True)
    vocabulary = Vocabulary.from_molecules(bare)
    graphs = [heavy_graph(m, vocabulary) for m in mols]
    return graphs, vocabulary, fitted(graphs, len(vocabulary), 600), nearest(pad_graphs(graphs))


def between(x: np.ndarray) -> np.ndarray:
    return np.linalg.norm(x[:, None] - x[None], axis=-1)


def test_pairs_of_a_ring_of_six_with_a_tail() -> None:
    bonded = torch.zeros(2, 8, 8, dtype=torch.bool)  # the second is a bond and lone atoms
    for i, j in [*((k, (k + 1) % 6) for k in range(6)), (0, 6)]:
        bonded[0, i, j] = bonded[0, j, i] = True
    bonded[1, 2, 7] = bonded[1, 7, 2] = True
    pairs = near_pairs(bonded)
    apart = {
        tuple(p): int(d)
        for *p, d in zip(pairs.graph.tolist(), pairs.first.tolist(), pairs.second.tolist(), pairs.apart)
    }
    assert apart[0, 0, 1] == 1 and apart[0, 0, 2] == 2 and apart[0, 0, 3] == 3 and apart[0, 0, 6] == 1
    assert (0, 3, 6) not in apart and apart[0, 2, 6] == 3  # four bonds are too far
    assert {k: v for k, v in apart.items() if k[0]} == {(1, 2, 7): 1}
    both_ways = [k for k in range(len(pairs.graph)) if (pairs.first[k], pairs.second[k]) == (0, 3)]
    assert pairs.walks[both_ways[0], 2].exp() == pytest.approx(3)  # 1 + two walks of three bonds: either way round


def test_the_loss_of_means_that_are_right_is_the_scale(data: Data) -> None:
    graphs, vocabulary, _, _ = data

    class Right(DistanceNetwork):
        def forward(self, classes, bonds, pairs):  # type: ignore[no-untyped-def]
            x = padded.positions
            d = torch.linalg.vector_norm(x[pairs.graph, pairs.first] - x[pairs.graph, pairs.second], dim=-1)
            return d + off, torch.full_like(d, -2.0)

    padded = pad_graphs(graphs)
    off = 0.0
    assert float(surprise(Right(len(vocabulary)), padded)) == pytest.approx(-2.0)
    off = 0.1  # t of four degrees of freedom: 5/2 log(1 + (d / s)^2 / 4)
    expected = 2.5 * np.log1p((0.1 / np.exp(-2.0)) ** 2 / 4) - 2.0
    assert float(surprise(Right(len(vocabulary)), padded)) == pytest.approx(expected, rel=1e-4)


def test_a_fit_is_of_its_seed_and_better_than_none(data: Data) -> None:
    graphs, vocabulary, network, _ = data
    one, two = (fitted(graphs, len(vocabulary), 20) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values()))
    losses = [surprise(n, pad_graphs(graphs)).item() for n in (fitted(graphs, len(vocabulary), 1), one, network)]
    assert losses[0] > losses[1] > losses[2]


def test_scales_are_widened_by_what_the_fit_has_not_seen(data: Data) -> None:
    graphs, _, network, _ = data
    narrow = copy.deepcopy(network)
    rng = np.random.default_rng(3)
    unseen = [replace(g, positions=g.positions + 0.1 * rng.standard_normal(g.positions.shape)) for g in graphs]
    calibrate(narrow, pad_graphs(unseen))
    away, _, apart = errors(narrow, pad_graphs(unseen))
    for k in (1, 2):
        assert float(narrow.temper[k - 1]) > float(network.temper[k - 1])
        assert float(away[apart == k].abs().median()) == pytest.approx(
            0.741, abs=1e-3
        )  # of Student's t of four degrees
    before = narrow.temper.clone()
    calibrate(narrow, pad_graphs(graphs))  # errors smaller than they should be: nothing is narrowed
    assert torch.equal(before[:2], narrow.temper[:2])


def test_noise_on_bonds_and_angles_is_taken_off(data: Data) -> None:
    graphs, _, *learned = data
    rng = np.random.default_rng(0)
    noisy = [g.positions + 0.1 * rng.standard_normal(g.positions.shape) for g in graphs]
    moved = settle(restraints(graphs, *learned), noisy, trust=0.1)
    errors = np.array(
        [
            [np.abs(between(x) - between(g.positions))[g.orders > 0].mean() for x in both]
            for g, *both in zip(graphs, noisy, moved)
        ]
    )
    assert errors[:, 1].mean() < 0.015 and (errors[:, 1] < errors[:, 0]).all()


def test_what_is_right_hardly_moves(data: Data) -> None:
    graphs, _, *learned = data
    moved = settle(restraints(graphs, *learned), [g.positions for g in graphs], trust=0.005)
    assert max(np.abs(m - g.positions).max() for m, g in zip(moved, graphs)) < 0.05


def test_a_network_that_was_not_fitted_moves_nothing(data: Data) -> None:
    graphs, _, network, _ = data
    positions = [g.positions for g in graphs]
    moved = settle(restraints(graphs, network, None), positions, trust=0.1)
    assert all(np.array_equal(a, b) for a, b in zip(moved, positions))


def test_it_turns_shifts_mirrors_and_permutes_with_its_input(data: Data) -> None:
    graphs, _, network, least = data
    network = network.double()
    rng = np.random.default_rng(1)
    graph = next(g for g in graphs if len(g) == 7)
    x = graph.positions + 0.05 * rng.standard_normal(graph.positions.shape)
    (plain,) = settle(restraints([graph], network, least), [x], trust=0.1)
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    for matrix in (turn, -turn):
        (turned,) = settle(restraints([graph], network, least), [x @ matrix + 3.0], trust=0.1)
        assert np.allclose(turned, plain @ matrix + 3.0, atol=1e-8)
    p = rng.permutation(len(graph))
    aromatic = None if graph.aromatic is None else graph.aromatic[np.ix_(p, p)]
    other = HeavyGraph(graph.classes[p], graph.orders[np.ix_(p, p)], None, aromatic)
    (permuted,) = settle(restraints([other], network, least), [x[p]], trust=0.1)
    assert np.allclose(permuted, plain[p], atol=1e-8)
    network.float()


def test_a_bend_shrinks_as_two_normal_distributions_say() -> None:
    """Nothing but the line is asked: the product of the prior's and the line's densities has its maximum here."""
    none = np.zeros((3, 3))
    x = np.array([[0.0, 0.2, 0.1], [-1.0, 0.0, 0.0], [1.5, 0.1, 0.0]])
    share, trust = 0.4, 0.07
    (moved,) = settle([Restraint(none, none, none, np.array([[0, 1, 2]]), np.array([share]))], [x], trust)
    parts = np.array([1.0, share - 1.0, -share])
    spread = trust**2 * (parts**2).sum()
    np.testing.assert_allclose(parts @ moved, parts @ x * BEND**2 / (BEND**2 + spread), atol=1e-12)


def test_lines_are_what_the_distances_say_is_straight() -> None:
    model = load("molecules-qm9gfn2")
    vocabulary, learned = model.domain.vocabulary, (model.distances, model.domain.config.nearest)
    lines = {"C1CC1CC#N": [[4, 5, 3]], "OCC#CCN": [[2, 3, 1], [3, 4, 2]], "C=CCCO": [], "CC1CC1C=O": []}
    for smiles, wanted in lines.items():
        (asked,) = restraints([heavy_graph(Chem.MolFromSmiles(smiles), vocabulary)], *learned)
        assert asked.lines.tolist() == wanted
    (asked,) = restraints([heavy_graph(Chem.MolFromSmiles("CCC#N"), vocabulary)], *learned)
    bent = np.array([[-2.0, 1.6, 0.0], [-1.4, 0.2, 0.0], [0.0, 0.0, 0.0], [1.1, 0.2, 0.0]])  # 162 degrees
    (moved,) = settle([asked], [bent], 0.05)
    one, other = moved[1] - moved[2], moved[3] - moved[2]
    assert np.degrees(np.arccos(one @ other / np.linalg.norm(one) / np.linalg.norm(other))) > 172


def test_neighbours_in_a_batch_change_nothing_and_fixed_atoms_stay(data: Data) -> None:
    graphs, _, *learned = data
    rng = np.random.default_rng(2)
    noisy = [g.positions + 0.1 * rng.standard_normal(g.positions.shape) for g in graphs]
    together = settle(restraints(graphs, *learned), noisy, trust=0.1, fixed=2)
    for k in (0, 20, 40):
        (alone,) = settle(restraints([graphs[k]], *learned), [noisy[k]], trust=0.1, fixed=2)
        assert np.allclose(alone, together[k], atol=1e-5)  # the network's round-off, in float32
    assert all(np.array_equal(x[:2], y[:2]) for x, y in zip(noisy, together))


def test_atoms_that_no_path_holds_keep_their_distance(data: Data) -> None:
    _, vocabulary, network, _ = data
    carbon = next(k for k, c in enumerate(vocabulary.classes) if (c.symbol, c.hydrogens) == ("C", 2))
    chain = np.zeros((8, 8), dtype=int)
    for i in range(7):
        chain[i, i + 1] = chain[i + 1, i] = 1
    x = np.cumsum(np.eye(8, 3) * 0.3 + [0.3, 0.2, 0.1], axis=0)  # far too near
    graph = HeavyGraph(np.full(8, carbon), chain)
    (moved,) = settle(restraints([graph], network, (2.5, 2.7)), [x], trust=1.0)
    assert np.isfinite(moved).all()
    assert between(moved)[np.triu_indices(8, 1)].min() > 1.2


def test_how_near_free_atoms_come_is_the_datas(data: Data) -> None:
    graphs, _, _, least = data
    three, farther = [], []
    for g in graphs:
        d, steps = between(g.positions), g.orders > 0
        reach = [np.linalg.matrix_power(steps + np.eye(len(g), dtype=int), k) > 0 for k in (2, 3)]
        upper = np.triu(np.ones(d.shape, dtype=bool), 1)
        three.extend(d[upper & reach[1] & ~reach[0]])
        farther.extend(d[upper & ~reach[1]])
    assert least == pytest.approx((np.quantile(three, 0.002), np.quantile(farther, 0.002)), abs=1e-3)


def test_a_bond_is_as_long_as_its_surroundings_have_it(data: Data) -> None:
    graphs, _, network, least = data
    by_smiles = {s: graphs[8 * k] for k, s in enumerate(SMILES)}
    for smiles in ("CCO", "CC#N", "C1CC1N", "CC(=O)OC"):  # single bonds of carbon between 1.45 and 1.53 Å
        graph = by_smiles[smiles]
        ((mean, weight, *_),) = restraints([replace(graph, positions=None)], network, least)
        bonded = graph.orders > 0
        assert np.abs(mean - between(graph.positions))[bonded].max() < 0.012
        assert (weight[bonded] > 0).all()


def test_training_leaves_the_fitted_network_as_it_is(tmp_path: Path) -> None:
    mols = [embedded(s, seed) for s in SMILES for seed in (1, 2, 3)]
    weights = []
    for decay in (0.0, 10.0):
        out = tmp_path / str(decay)
        config = TrainConfig(weight_decay=decay, lr=1e-2, network=SMALL, min_count=1)
        train(mols, out, config, until=Until(steps=3, quiet=True))
        weights.append(load(out).distances.state_dict())  # type: ignore[operator]
        assert not any(p.requires_grad for p in load(out).distances.parameters())  # type: ignore[operator]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_few_molecules_say_nothing_of_distances_and_do_not_change_a_models(tmp_path: Path) -> None:
    mols = [embedded(s, seed) for s in SMILES for seed in (1, 2, 3)]
    config, until = TrainConfig(network=SMALL, min_count=1), Until(steps=1, quiet=True)
    train(mols[:3], tmp_path / "few", config, until=until)
    assert load(tmp_path / "few").domain.config.nearest is None
    train(mols, tmp_path / "more", config, until=until)
    first = load(tmp_path / "more")
    assert first.domain.config.nearest is not None
    train(mols, tmp_path / "on", config, until=until, init=tmp_path / "more")
    before, after = (m.distances.state_dict() for m in (first, load(tmp_path / "on")))  # type: ignore[operator]
    assert all(torch.equal(before[name], after[name]) for name in before)
