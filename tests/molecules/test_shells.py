"""Closing shells: neighbours, alternating chains, and what cannot be paired."""

from __future__ import annotations

import pytest
from rdkit import Chem

from sciconsist.domains.molecules.shells import close_shells, has_radicals


@pytest.mark.parametrize(
    ("smiles", "closed"),
    [
        ("[NH][CH]OC(N)=O", "N=COC(N)=O"),
        ("[CH2][CH2]", "C=C"),
        ("[CH][CH]", "C#C"),
        ("[CH2]C=C[CH2]", "C=CC=C"),
        ("C[C]1C=C([NH])NC1=O", "CC1=CC(=N)NC1=O"),
        ("[CH2][CH][CH][CH2]", "C=CC=C"),
        ("CCO", "CCO"),
    ],
)
@pytest.mark.parametrize("explicit", [False, True])
def test_pairs_become_bonds(smiles, closed, explicit):
    mol = Chem.MolFromSmiles(smiles)
    mol = Chem.AddHs(mol) if explicit else mol
    found = close_shells(mol)
    assert Chem.MolToSmiles(Chem.RemoveHs(found)) == Chem.CanonSmiles(closed)
    assert not has_radicals(found)
    assert [a.GetTotalNumHs(True) for a in found.GetAtoms()] == [a.GetTotalNumHs(True) for a in mol.GetAtoms()]


@pytest.mark.parametrize("smiles", ["[CH3]", "CN1N=NOC1[NH]", "[CH2]CC[CH2]"])
def test_a_radical_stays_a_radical(smiles):
    assert has_radicals(close_shells(Chem.AddHs(Chem.MolFromSmiles(smiles))))
