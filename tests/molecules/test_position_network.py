"""Atoms that a network moves to where the atoms around have them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from rdkit import Chem
from rdkit.Chem import AllChem

from sciconsist.datasets import registry
from sciconsist.domains.molecules.distance_network import KINDS, DistanceNetwork
from sciconsist.domains.molecules.graphs import HeavyGraph, heavy_graph
from sciconsist.domains.molecules.hydrogens import all_positions, skeleton, whole_molecule
from sciconsist.domains.molecules.position_network import (
    PositionNetwork,
    Whole,
    correct_positions,
    examples,
    fit,
    misplaced,
    whole,
)
from sciconsist.domains.molecules.vocabulary import Vocabulary
from sciconsist.random import fresh_weights
from sciconsist.workflows.models import load

SMILES = ("CCO", "CC(=O)N", "Nc1ccccc1", "C1CN1", "OC1CC2CC12", "C#CC=O", "C[NH3+]", "CC(C)C", "N=CC", "O=CO")


def embedded(smiles: str) -> Chem.Mol:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert AllChem.EmbedMolecule(mol, randomSeed=7) == 0
    AllChem.MMFFOptimizeMolecule(mol)
    Chem.Kekulize(mol, clearAromaticFlags=True)
    return mol


@pytest.fixture(scope="module")
def mols() -> list[Chem.Mol]:
    return [embedded(s) for s in SMILES]


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    bare = [Chem.MolFromSmiles(smiles) for smiles in SMILES]
    for mol in bare:
        Chem.Kekulize(mol, clearAromaticFlags=True)
    return Vocabulary.from_molecules(bare)


def ruled(graph: HeavyGraph, vocabulary: Vocabulary) -> np.ndarray:
    """Positions of all atoms, hydrogens where rules put them."""
    assert graph.positions is not None
    return all_positions(skeleton(graph.classes, graph.orders, vocabulary), graph.positions)


def restless(vocabulary: Vocabulary, seed: int = 0) -> PositionNetwork:
    """One of float64 that moves atoms, though nowhere in particular."""
    network = PositionNetwork(len(vocabulary)).double()
    generator = torch.Generator().manual_seed(seed)
    for value in network.parameters():
        value.data = 0.3 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
    return network.requires_grad_(False)


def pair(mols: list[Chem.Mol], vocabulary: Vocabulary) -> tuple[Whole, torch.Tensor]:
    """Examples that do not settle: there is no fitted network of distances."""
    found = examples(mols, vocabulary, DistanceNetwork(len(vocabulary)), None, seed=0)
    assert found is not None
    return found


def test_it_turns_mirrors_and_shifts_with_the_molecule_and_atoms_that_are_not_free_stay(
    mols: list[Chem.Mol], vocabulary: Vocabulary
) -> None:
    molecules, _ = pair(mols, vocabulary)
    free = molecules.mask & (torch.arange(molecules.mask.shape[1]) >= 2)
    molecules = replace(molecules, free=free)
    network = restless(vocabulary)
    found = network(molecules)
    moved = (found - molecules.positions).norm(dim=-1)
    assert moved[free].min() > 1e-4 and not moved[~free].any()
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[0]
    for motion in (turn, -turn):
        other = network(replace(molecules, positions=molecules.positions @ motion + 2.0))
        torch.testing.assert_close(other[molecules.mask], (found @ motion + 2.0)[molecules.mask], atol=1e-9, rtol=0)


def test_neither_the_order_of_atoms_nor_the_molecules_beside_it_matter(
    mols: list[Chem.Mol], vocabulary: Vocabulary
) -> None:
    molecules, _ = pair(mols, vocabulary)
    network = restless(vocabulary)
    together = network(molecules)
    for k in range(len(molecules)):
        alone = molecules[torch.tensor([k])]
        n = alone.mask.shape[1]
        torch.testing.assert_close(network(alone)[0], together[k, :n], atol=1e-10, rtol=0)
        order = torch.randperm(n, generator=torch.Generator().manual_seed(k))
        turned = Whole(
            alone.kinds[:, order], alone.bonds[:, order][:, :, order], alone.positions[:, order],
            alone.free[:, order], alone.mask[:, order],
        )  # fmt: skip
        torch.testing.assert_close(network(turned)[0], together[k, order], atol=1e-10, rtol=0)


def test_one_that_was_not_fitted_leaves_atoms_where_they_are(mols: list[Chem.Mol], vocabulary: Vocabulary) -> None:
    graphs = [heavy_graph(mol, vocabulary) for mol in mols]
    before = [ruled(graph, vocabulary) for graph in graphs]
    network = PositionNetwork(len(vocabulary)).requires_grad_(False)
    for x, moved in zip(before, correct_positions(network, graphs, before, vocabulary), strict=True):
        np.testing.assert_allclose(moved, x, atol=1e-5)


def test_a_molecule_that_could_not_be_made_is_left_alone(mols: list[Chem.Mol], vocabulary: Vocabulary) -> None:
    graph = heavy_graph(mols[0], vocabulary)
    apart = HeavyGraph(graph.classes, np.zeros_like(graph.orders), graph.positions)
    before = [ruled(apart, vocabulary), ruled(graph, vocabulary)]
    first, second = correct_positions(restless(vocabulary), [apart, graph], before, vocabulary)
    np.testing.assert_array_equal(first, apart.positions)
    assert len(second) == mols[0].GetNumAtoms() and not np.isclose(second, before[1]).all(1).any()


def test_given_atoms_stay_to_the_last_digit(mols: list[Chem.Mol], vocabulary: Vocabulary) -> None:
    graphs = [heavy_graph(mol, vocabulary) for mol in mols]
    before = [ruled(graph, vocabulary) for graph in graphs]
    for x, moved in zip(before, correct_positions(restless(vocabulary), graphs, before, vocabulary, 2), strict=True):
        np.testing.assert_array_equal(moved[:2], x[:2])
        assert not np.isclose(moved[2:], x[2:]).all(1).any()


def test_hydrogens_that_are_alike_are_told_apart_by_where_they_are(vocabulary: Vocabulary) -> None:
    """The numbers of a methyl's hydrogens say nothing: turned by a third they are where they were."""
    mol = embedded("CC(C)C")
    other = Chem.RenumberAtoms(mol, [0, 1, 2, 3, *range(mol.GetNumAtoms() - 1, 3, -1)])
    (one, ends), (two, other_ends) = pair([mol], vocabulary), pair([other], vocabulary)
    torch.testing.assert_close(one.positions, two.positions)
    torch.testing.assert_close(ends, other_ends)
    assert (one.positions - ends).norm(dim=-1).max() < 0.3


def test_what_the_rules_or_the_vocabulary_do_not_take_is_left_out(vocabulary: Vocabulary) -> None:
    radical = Chem.AddHs(Chem.MolFromSmiles("C[CH2]"))
    AllChem.EmbedMolecule(radical, randomSeed=1)
    assert examples([radical, embedded("CF")], vocabulary, DistanceNetwork(len(vocabulary)), None, 0) is None


def test_where_atoms_belong_is_nearest_to_where_they_start(mols: list[Chem.Mol], vocabulary: Vocabulary) -> None:
    """Noise turns and shifts a molecule: what is fitted to is the molecule turned and shifted with it, unchanged within."""
    molecules, ends = pair(mols, vocabulary)
    for k, mol in enumerate(mols):
        graph, n = heavy_graph(mol, vocabulary), len(heavy_graph(mol, vocabulary))
        assert graph.positions is not None
        x, start = ends[k, :n].double(), molecules.positions[k, :n]
        torch.testing.assert_close(
            torch.cdist(x, x), torch.cdist(*[torch.from_numpy(graph.positions)] * 2), atol=1e-5, rtol=0
        )
        assert (x - start).mean(0).abs().max() < 1e-5
        torque = torch.linalg.cross(x - x.mean(0), start - start.mean(0)).sum(0)
        assert n < 3 or torque.norm() < 0.02


def test_a_fit_brings_atoms_nearer(mols: list[Chem.Mol], vocabulary: Vocabulary) -> None:
    with fresh_weights(0):
        network = PositionNetwork(len(vocabulary))
    molecules, ends = pair(mols, vocabulary)
    molecules = replace(molecules, positions=molecules.positions.float())
    with torch.no_grad():
        before = misplaced(network, molecules, ends)
    fit(network, mols, vocabulary, DistanceNetwork(len(vocabulary)), None, steps=400)
    with torch.no_grad():
        after = misplaced(network, molecules, ends)
    assert after < 0.6 * before
    assert not any(value.requires_grad for value in network.parameters())


def test_the_shipped_one_brings_molecules_nearer_that_it_has_not_seen(data_dir: Path) -> None:
    """Angles of heavy atoms after they have settled, and hydrogens after the rules."""
    model = load("molecules-qm9gfn2")
    real = [record.mol for record in registry.load("qm9-gfn2", "val", limit=100)]
    vocabulary, learned = model.domain.vocabulary, cast(DistanceNetwork, model.distances)
    found = examples(real, vocabulary, learned, model.domain.config.nearest, 0)
    assert found is not None
    molecules, ends = found
    network = cast(PositionNetwork, model.positions)
    near = molecules.mask & ((molecules.positions - ends).norm(dim=-1) < 0.4)
    hydrogen = molecules.kinds >= len(vocabulary)
    two_apart = network.kinds_of_pairs(molecules.bonds) == KINDS
    after, before = network(molecules), molecules.positions.float()
    off, rules = ((x - ends).norm(dim=-1)[near & hydrogen].median() for x in (after, before))
    assert off < 0.7 * rules
    pairs = two_apart & near[:, :, None] & near[:, None] & ~hydrogen[:, :, None] & ~hydrogen[:, None]
    off, settled = ((torch.cdist(x, x) - torch.cdist(ends, ends))[pairs].square().mean() for x in (after, before))
    assert off < 0.95 * settled


def test_a_batch_of_whole_molecules_knows_its_hydrogens(mols: list[Chem.Mol], vocabulary: Vocabulary) -> None:
    graph = heavy_graph(mols[0], vocabulary)  # ethanol
    bare = skeleton(graph.classes, graph.orders, vocabulary)
    made = whole_molecule(bare, ruled(graph, vocabulary))
    other = heavy_graph(mols[3], vocabulary)
    one = whole([graph, other], [ruled(graph, vocabulary), ruled(other, vocabulary)], vocabulary)[torch.tensor([0])]
    bonds = {(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in made.GetBonds()}
    assert {tuple(p) for p in torch.nonzero(one.bonds[0].triu()).tolist()} == {tuple(sorted(b)) for b in bonds}
    hydrogens = one.kinds[0] >= len(vocabulary)
    assert hydrogens.tolist() == [a.GetAtomicNum() == 1 for a in made.GetAtoms()] and one.free[0].all()
