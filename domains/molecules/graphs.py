"""Molecules as heavy-atom graphs: RDKit Mol -> torch-geometric Data, and lists of Data -> padded tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rdkit import Chem
from torch import Tensor

from sciconsist.domains.molecules.vocabulary import AROMATIC, Vocabulary, atom_classes

_RAISED = {Chem.BondType.SINGLE: Chem.BondType.DOUBLE, Chem.BondType.DOUBLE: Chem.BondType.TRIPLE}


@dataclass
class HeavyGraph:
    """One molecule without its hydrogens: classes `[N]`, Kekulé orders `[N, N]`, positions `[N, 3]` in Å.

    `aromatic` `[N, N]` says which bonds are; None: none.
    """

    classes: np.ndarray
    orders: np.ndarray
    positions: np.ndarray | None = None
    aromatic: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.classes)


def close_shells(mol: Chem.Mol) -> Chem.Mol:
    """Pair radical electrons of bonded atoms into higher bond orders, on a Kekulized copy.

    QM9's SMILES write about nine percent of its closed-shell molecules with radicals on neighbours
    (`[NH][CH]OC` for `N=COC`); the geometry has the double bond.
    """
    mol = Chem.RWMol(mol)
    Chem.Kekulize(mol, clearAromaticFlags=True)
    if not any(a.GetNumRadicalElectrons() for a in mol.GetAtoms()):
        return mol.GetMol()
    changed = True
    while changed:
        changed = False
        for bond in mol.GetBonds():
            ends = (bond.GetBeginAtom(), bond.GetEndAtom())
            if all(a.GetNumRadicalElectrons() for a in ends) and bond.GetBondType() in _RAISED:
                bond.SetBondType(_RAISED[bond.GetBondType()])
                for atom in ends:
                    atom.SetNumRadicalElectrons(atom.GetNumRadicalElectrons() - 1)
                changed = True
    return mol.GetMol()


def heavy_graph(mol: Chem.Mol, vocabulary: Vocabulary) -> HeavyGraph:
    """The heavy-atom graph of a molecule, with its conformer when it has one.

    Raises KeyError for an atom the vocabulary does not know and ValueError for a radical.
    """
    positions = mol.GetConformer().GetPositions() if mol.GetNumConformers() else None
    heavy = np.array([a.GetAtomicNum() > 1 for a in mol.GetAtoms()])
    # every hydrogen is in its atom's class, also those RDKit keeps for a double bond's stereo
    bare = Chem.RemoveAllHs(mol) if not heavy.all() else mol
    bare = close_shells(bare)
    if any(a.GetNumRadicalElectrons() for a in bare.GetAtoms()):
        raise ValueError("the molecule is a radical")
    classes = np.array([vocabulary.index(c) for c in atom_classes(bare)])
    orders = np.zeros((len(classes), len(classes)), dtype=np.int64)
    for bond in bare.GetBonds():
        i, j, order = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), int(bond.GetBondTypeAsDouble())
        orders[i, j] = orders[j, i] = order
    return HeavyGraph(classes, orders, None if positions is None else positions[heavy], aromatic_bonds(bare))


def aromatic_bonds(mol: Chem.Mol) -> np.ndarray | None:
    """Which pairs of a Kekulized molecule's atoms have an aromatic bond, `[N, N]`; None where none has.

    RDKit's model. Raises its MolSanitizeException where valences are wrong.
    """
    double = sum(bond.GetBondType() == Chem.BondType.DOUBLE for bond in mol.GetBonds())
    if double < 2 or mol.GetNumBonds() < mol.GetNumAtoms():
        return None  # saves the time: the smallest aromatic ring has two double bonds (furan)
    mol = Chem.Mol(mol)
    Chem.SanitizeMol(mol)
    found = aromatic_pairs(mol)
    return found if found.any() else None


def aromatic_pairs(mol: Chem.Mol) -> np.ndarray:
    """Which pairs of a sanitised molecule's atoms have an aromatic bond, `[N, N]`."""
    return Chem.GetAdjacencyMatrix(mol, useBO=True) == 1.5


@dataclass
class PaddedGraphs:
    """Heavy graphs padded to one size: classes `[B, N]`, orders and aromatic `[B, N, N]`, positions `[B, N, 3]` Å, mask
    `[B, N]`."""

    classes: Tensor
    orders: Tensor
    aromatic: Tensor
    positions: Tensor
    mask: Tensor

    def __len__(self) -> int:
        return self.classes.shape[0]

    def __getitem__(self, index: Tensor | slice) -> PaddedGraphs:
        """A sub-batch, cut to the largest of its molecules."""
        mask = self.mask[index]
        n = int(mask.sum(1).max())
        return PaddedGraphs(
            self.classes[index][:, :n],
            self.orders[index][:, :n, :n],
            self.aromatic[index][:, :n, :n],
            self.positions[index][:, :n],
            mask[:, :n],
        )

    def graph(self, k: int) -> HeavyGraph:
        """The molecule at place k."""
        n = int(self.mask[k].sum())
        arrays = (self.classes[k, :n], self.orders[k, :n, :n], self.positions[k, :n], self.aromatic[k, :n, :n])
        return HeavyGraph(*(a.numpy() for a in arrays))

    def bonds(self, classes: int) -> Tensor:
        """Classes of all pairs, `[B, N, N]`, in a state of so many: the orders, or AROMATIC where there is such a class."""
        return torch.where(self.aromatic, AROMATIC, self.orders) if classes > AROMATIC else self.orders


def pad_graphs(graphs: Sequence[HeavyGraph]) -> PaddedGraphs:
    """Pad to the largest; positions are centred on the mean of the heavy atoms (zero where unknown)."""
    size, count = max(len(g) for g in graphs), len(graphs)
    classes = np.zeros((count, size), dtype=np.int64)
    orders = np.zeros((count, size, size), dtype=np.int64)
    aromatic = np.zeros((count, size, size), dtype=bool)
    positions = np.zeros((count, size, 3), dtype=np.float32)
    mask = np.zeros((count, size), dtype=bool)
    for k, g in enumerate(graphs):
        n = len(g)
        classes[k, :n], orders[k, :n, :n], mask[k, :n] = g.classes, g.orders, True
        if g.aromatic is not None:
            aromatic[k, :n, :n] = g.aromatic
        if g.positions is not None:
            positions[k, :n] = g.positions - g.positions.mean(0)
    return PaddedGraphs(*(torch.from_numpy(a) for a in (classes, orders, aromatic, positions, mask)))
