"""Hydrogens at the distances that their surroundings fix."""

from __future__ import annotations

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import AllChem

from sciconsist.domains.molecules.hydrogen_distances import SHARPEST, TRUST, distances, learn, settled, table
from sciconsist.domains.molecules.hydrogen_sites import hydrogen_sites

SMILES = ("CO", "CC(=O)N", "Nc1ccccc1", "C1CN1", "OC1CC2CC12", "C#CC=O", "[NH3+]CC(=O)[O-]")


def embedded(smiles: str) -> tuple[Chem.Mol, np.ndarray]:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert AllChem.EmbedMolecule(mol, randomSeed=7) == 0
    return mol, mol.GetConformer().GetPositions()


@pytest.mark.parametrize("smiles", SMILES)
def test_hydrogens_come_closer_to_the_distances_and_heavy_atoms_stay(smiles: str) -> None:
    mol, x = embedded(smiles)
    heavy = mol.GetNumHeavyAtoms()
    sites = list(hydrogen_sites(mol, heavy))

    def off(x: np.ndarray) -> float:
        total = 0.0
        for names, i, j in distances(mol, sites):
            row = next((table()[name] for name in names if name in table()), None)
            if row is not None:
                total += ((np.linalg.norm(x[i] - x[j]) - row[0]) / max(row[1], SHARPEST)) ** 2
        return total

    y = settled(mol, sites, x)
    np.testing.assert_array_equal(y[:heavy], x[:heavy])
    assert off(y) < 0.9 * off(x)
    assert off(settled(mol, sites, y)) <= 1.001 * off(y)


@pytest.mark.parametrize("smiles", ["CC(=O)N", "OC1CC2CC12"])
def test_the_order_of_the_atoms_does_not_matter(smiles: str) -> None:
    mol, x = embedded(smiles)
    heavy = mol.GetNumHeavyAtoms()
    order = [*reversed(range(heavy)), *reversed(range(heavy, len(x)))]
    turned = Chem.RenumberAtoms(mol, order)
    found = settled(turned, list(hydrogen_sites(turned, heavy)), x[order])
    np.testing.assert_allclose(found, settled(mol, list(hydrogen_sites(mol, heavy)), x)[order], atol=1e-8)


def test_on_a_line_the_answer_is_a_weighted_mean() -> None:
    mol, _ = embedded("C#CF")
    x = np.array([[0.0, 0, 0], [1.21, 0, 0], [2.5, 0, 0], [-1.0, 0, 0]])
    (site,) = hydrogen_sites(mol, 3)
    said = []
    for names, _, j in distances(mol, [site]):
        mean, std = next(table()[name] for name in names if name in table())
        said.append((x[j, 0] - mean, max(std, SHARPEST) ** -2.0))
    said.append((-1.0, TRUST**-2.0))
    places, weights = np.array(said).T
    assert len(said) == 3
    np.testing.assert_allclose(settled(mol, [site], x)[3], [places @ weights / weights.sum(), 0, 0], atol=1e-9)


def test_an_atom_that_the_table_does_not_know_keeps_its_hydrogens() -> None:
    mol, x = embedded("C[SiH3]")
    silicon = [s for s in hydrogen_sites(mol, 2) if s.symbol == "Si"]
    np.testing.assert_array_equal(settled(mol, silicon, x), x)


def test_what_is_learned_are_means_of_what_was_seen_often() -> None:
    mols = []
    for k in range(10):
        mol, x = embedded("CO")
        mol.GetConformer().SetPositions(np.ascontiguousarray(x * (1 + 0.01 * k)))
        mols.append(mol)
    rows = {name: (mean, std) for name, mean, std in learn((m, list(hydrogen_sites(m, 2))) for m in mols)}
    seen = [np.linalg.norm(np.subtract(*m.GetConformer().GetPositions()[[1, 5]])) for m in mols]
    assert rows["OH1(-C30)"] == pytest.approx((np.mean(seen), np.std(seen)), abs=1e-4)
    assert not learn((m, list(hydrogen_sites(m, 2))) for m in mols[:2])  # one OH each: seen twice
