"""Closed shells: QM9's SMILES that draw radicals where the molecule has none.

About 9 % of GDB9's SMILES (perceived from coordinates) carry unpaired electrons, `[NH][CH]OC(N)=O` for
`N=COC(N)=O`, although the calculation and the geometry are closed shell. One in six of those cannot be paired
up: a hydrogen was miscounted, and the molecule built from the SMILES is a radical indeed.
"""

from __future__ import annotations

from itertools import pairwise

from rdkit import Chem

_ORDERS = {1: Chem.BondType.SINGLE, 2: Chem.BondType.DOUBLE, 3: Chem.BondType.TRIPLE}


def has_radicals(mol: Chem.Mol) -> bool:
    """Whether any atom carries an unpaired electron."""
    return any(atom.GetNumRadicalElectrons() for atom in mol.GetAtoms())


def close_shells(mol: Chem.Mol) -> Chem.Mol:
    """A sanitised copy in which unpaired electrons are paired along bonds, as far as they go.

    Neighbouring radicals get a higher bond order; radicals at the ends of a chain of alternating bonds
    (`[CH2]C=C[CH2]`) shift it (`C=CC=C`). Hydrogens, charges, atom order and conformers stay. What cannot be
    paired keeps its radicals: ask `has_radicals`.
    """
    if not has_radicals(mol):
        return mol
    closed = Chem.RWMol(mol)
    Chem.Kekulize(closed, clearAromaticFlags=True)
    while path := _pairing_path(closed):
        for step, (i, j) in enumerate(pairwise(path)):
            bond = closed.GetBondBetweenAtoms(i, j)
            bond.SetBondType(_ORDERS[_order(bond) + (1 if step % 2 == 0 else -1)])
        for index in (path[0], path[-1]):
            atom = closed.GetAtomWithIdx(index)
            atom.SetNumRadicalElectrons(atom.GetNumRadicalElectrons() - 1)
            atom.SetNoImplicit(True)  # otherwise sanitising would fill the place with a hydrogen
    Chem.SanitizeMol(closed)
    return closed.GetMol()


def _order(bond: Chem.Bond) -> int:
    return int(bond.GetBondTypeAsDouble())


def _pairing_path(mol: Chem.RWMol) -> list[int] | None:
    """The shortest path between two radicals whose bonds can be raised, lowered, ..., raised in turn."""
    radicals = {atom.GetIdx() for atom in mol.GetAtoms() if atom.GetNumRadicalElectrons()}
    frontier = [[index] for index in sorted(radicals)]
    while frontier:
        longer = []
        for path in frontier:
            raising = len(path) % 2 == 1
            for bond in mol.GetAtomWithIdx(path[-1]).GetBonds():
                index = bond.GetOtherAtomIdx(path[-1])
                if index in path or (_order(bond) > 2 if raising else _order(bond) < 2):
                    continue
                if raising and index in radicals:
                    return [*path, index]
                longer.append([*path, index])
        frontier = longer
    return None
