"""Aromatic bonds as a class of their own: into the state, and back to one Kekulé form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from sciconsist.domains.molecules.adapter import MoleculeConfig, MoleculeDomain
from sciconsist.domains.molecules.completion import read_given
from sciconsist.domains.molecules.decode import decode_graph, kekule_choices
from sciconsist.domains.molecules.graphs import close_shells, heavy_graph, pad_graphs
from sciconsist.domains.molecules.hydrogens import aromatic, assemble, skeleton
from sciconsist.domains.molecules.vocabulary import AROMATIC, Vocabulary

AROMATICS = ("c1ccccc1", "Cc1ccncc1", "c1c[nH]cn1", "Oc1nccs1", "c1ccc2[nH]ccc2c1", "Cc1noc(N)n1", "O=c1cc[nH]cc1")
PLAIN = ("CCO", "C1CC1C#N", "C1=CC=CC1", "CC(=O)C=C")


def shaped(smiles: str) -> Chem.Mol:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    rdDistGeom.EmbedMolecule(mol, randomSeed=7)
    return mol


MOLS = [shaped(s) for s in (*AROMATICS, *PLAIN)]
VOCABULARY = Vocabulary.from_molecules([close_shells(Chem.RemoveAllHs(m)) for m in MOLS])


@pytest.mark.parametrize("smiles", AROMATICS)
def test_every_kekule_form_is_as_likely_and_one_is_found(smiles: str) -> None:
    """The class says which bonds are aromatic, the atoms' classes decide which of them are double."""
    graph = heavy_graph(shaped(smiles), VOCABULARY)
    assert graph.aromatic is not None
    n = len(graph)
    atoms, bonds = np.full((n, len(VOCABULARY)), -12.0), np.full((n, n, 5), -12.0)
    np.put_along_axis(atoms, graph.classes[:, None], 0.0, 1)
    np.put_along_axis(bonds, np.where(graph.aromatic, AROMATIC, graph.orders)[..., None], 0.0, 2)
    choices = kekule_choices(bonds)
    assert np.allclose(choices[graph.aromatic][:, 1], choices[graph.aromatic][:, 2])
    found = decode_graph(atoms, choices, VOCABULARY)
    assert found.consistent and found.gap == pytest.approx(0.0, abs=1e-4)
    mol = assemble(found.classes, found.orders, graph.positions, VOCABULARY)  # type: ignore[arg-type]
    assert Chem.MolToSmiles(Chem.RemoveHs(mol)) == Chem.CanonSmiles(smiles)
    again = aromatic(skeleton(found.classes, found.orders, VOCABULARY))
    assert again is not None and (again == graph.aromatic).all()


@pytest.mark.parametrize("smiles", PLAIN)
def test_others_have_none(smiles: str) -> None:
    assert heavy_graph(shaped(smiles), VOCABULARY).aromatic is None


def test_a_model_of_orders_does_not_see_them() -> None:
    graphs = pad_graphs([heavy_graph(m, VOCABULARY) for m in MOLS])
    config = {"vocabulary": VOCABULARY.to_config()}
    four, five = (MoleculeDomain(MoleculeConfig(**config, bond_classes=k)) for k in (4, 5))
    plain, told = four.encode(graphs)[0]["bonds"], five.encode(graphs)[0]["bonds"]
    assert plain.shape[-1] == 4 and told.shape[-1] == 5
    assert torch.equal(told[..., AROMATIC] > 0, graphs.aromatic)
    assert torch.equal(told[..., :4][~graphs.aromatic], plain[~graphs.aromatic])
    assert torch.equal(plain.argmax(-1)[graphs.mask[:, None] & graphs.mask[..., None]],
                       graphs.orders[graphs.mask[:, None] & graphs.mask[..., None]])  # fmt: skip
    raw = torch.randn(1, 3, 3, 4)
    assert np.array_equal(kekule_choices(raw.numpy()), raw.numpy())


def test_a_given_ring_stays_aromatic() -> None:
    given = read_given([shaped("Cc1ccncc1")], VOCABULARY, "ring.sdf")
    assert given.aromatic is not None and given.aromatic.sum() == 12
    choices = given.class_choices(9, 5)
    ring = np.zeros((9, 9), dtype=bool)
    ring[:7, :7] = given.aromatic
    assert (choices[ring] == np.eye(5, dtype=bool)[AROMATIC]).all()
    assert choices[7:, 7:].all() and not choices[:7, 7:, AROMATIC].any()
    assert np.array_equal(given.class_choices(9, 4), given.bond_choices(9))
