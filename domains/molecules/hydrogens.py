"""From decoded heavy atoms to an RDKit molecule with explicit hydrogens."""

from __future__ import annotations

from functools import cache

import numpy as np
from rdkit import Chem
from rdkit.rdBase import BlockLogs

from .graphs import aromatic_pairs
from .hydrogen_sites import hydrogen_sites
from .placement import place_hydrogens
from .vocabulary import AtomClass, Vocabulary

FAILED = "sanitisation_failed"  # property that says why a molecule carries no bonds
BOND_TYPES = {1: Chem.BondType.SINGLE, 2: Chem.BondType.DOUBLE, 3: Chem.BondType.TRIPLE}


def assemble(classes: np.ndarray, orders: np.ndarray, positions: np.ndarray, vocabulary: Vocabulary) -> Chem.Mol:
    """Sanitised molecule of N heavy atoms in the given order, hydrogens appended, one conformer.

    `classes` `[N]` int, `orders` `[N, N]` Kekulé orders, `positions` `[N, 3]` Å: heavy coordinates are kept
    as given, hydrogens placed from them, stereochemistry read from 3D. Where the graph breaks a valence or
    RDKit refuses it, the result has the heavy atoms and coordinates, no bonds, and the property `FAILED`.
    Raises ValueError on wrong shapes or non-finite positions.
    """
    bare = skeleton(classes, orders, vocabulary)
    return whole_molecule(bare, all_positions(bare, positions))


def skeleton(classes: np.ndarray, orders: np.ndarray, vocabulary: Vocabulary) -> Chem.Mol:
    """Sanitised heavy atoms `[N]` with their Kekulé bonds `[N, N]`; where that cannot be, atoms alone and `FAILED`.

    Raises ValueError on wrong shapes.
    """
    classes, orders = np.asarray(classes), np.asarray(orders)
    n = len(classes)
    if orders.shape != (n, n):
        raise ValueError(f"{n} classes need orders [{n}, {n}], found {orders.shape}")
    spent = vocabulary.order_sums[classes]
    wrong = np.flatnonzero(spent != orders.sum(1))
    if len(wrong):
        i = wrong[0]
        return _atoms_only(classes, vocabulary, f"atom {i} needs bond order {spent[i]}, found {orders[i].sum()}")
    heavy = bonded(classes, orders, vocabulary)
    try:
        with BlockLogs():
            Chem.SanitizeMol(heavy)
    except Chem.MolSanitizeException as error:
        return _atoms_only(classes, vocabulary, str(error))
    return heavy


def aromatic(heavy: Chem.Mol) -> np.ndarray | None:
    """Which pairs of a `skeleton`'s atoms have an aromatic bond, `[N, N]`; None where none has."""
    return aromatic_pairs(heavy) if any(heavy.GetAromaticAtoms()) else None


def all_positions(heavy: Chem.Mol, positions: np.ndarray) -> np.ndarray:
    """Of the atoms of a `skeleton` at `positions` `[N, 3]` Å and, unless it `FAILED`, of hydrogens after them, `[A, 3]`.

    Raises ValueError on wrong shapes or non-finite positions.
    """
    positions = np.ascontiguousarray(positions, dtype=np.float64)
    if positions.shape != (n := heavy.GetNumAtoms(), 3):
        raise ValueError(f"{n} atoms need positions [{n}, 3], found {positions.shape}")
    if not np.isfinite(positions).all():
        raise ValueError("positions are not finite")
    return positions if heavy.HasProp(FAILED) else place_hydrogens(hydrogen_sites(heavy), positions)


def whole_molecule(heavy: Chem.Mol, positions: np.ndarray) -> Chem.Mol:
    """A `skeleton` with its hydrogens, at `all_positions` `[A, 3]` Å; stereochemistry is read from these."""
    failed = heavy.HasProp(FAILED)
    mol = Chem.Mol(heavy) if failed else Chem.AddHs(heavy)
    conformer = Chem.Conformer(mol.GetNumAtoms())
    conformer.SetPositions(positions)
    conformer.Set3D(True)
    mol.AddConformer(conformer, assignId=True)
    if failed:
        return mol
    try:
        Chem.AssignStereochemistryFrom3D(mol)
    except RuntimeError:  # atoms on top of each other have no configuration
        Chem.AssignStereochemistry(mol, cleanIt=True, force=True)
    return mol


def bonded(classes: np.ndarray, orders: np.ndarray, vocabulary: Vocabulary) -> Chem.RWMol:
    """Heavy atoms `[N]` and their Kekulé bonds `[N, N]` as a molecule, not yet sanitised."""
    heavy = _atoms(classes, vocabulary)
    first, second = np.nonzero(orders)
    for i, j, order in zip(first.tolist(), second.tolist(), orders[first, second].tolist()):
        if i < j:
            heavy.AddBond(i, j, BOND_TYPES[order])
    return heavy


def _atoms_only(classes: np.ndarray, vocabulary: Vocabulary, reason: str) -> Chem.Mol:
    mol = _atoms(classes, vocabulary).GetMol()
    mol.UpdatePropertyCache(strict=False)
    mol.SetProp(FAILED, reason)
    return mol


def _atoms(classes: np.ndarray, vocabulary: Vocabulary) -> Chem.RWMol:
    mol = Chem.RWMol()
    for k in classes.tolist():
        mol.AddAtom(_atom(vocabulary.classes[k]))  # a copy
    return mol


@cache
def _atom(kind: AtomClass) -> Chem.Atom:
    atom = Chem.Atom(kind.symbol)
    atom.SetFormalCharge(kind.charge)
    atom.SetNumExplicitHs(kind.hydrogens)
    atom.SetNoImplicit(True)  # the class says how many hydrogens, RDKit is not to guess
    return atom
