"""From decoded heavy atoms to an RDKit molecule with explicit hydrogens."""

from __future__ import annotations

from functools import cache

import numpy as np
from rdkit import Chem
from rdkit.rdBase import BlockLogs

from .graphs import aromatic_bonds
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
    classes, orders = np.asarray(classes), np.asarray(orders)
    positions = np.ascontiguousarray(positions, dtype=np.float64)
    n = len(classes)
    if orders.shape != (n, n) or positions.shape != (n, 3):
        raise ValueError(
            f"{n} classes need orders [{n}, {n}], positions [{n}, 3]; found {orders.shape}, {positions.shape}"
        )
    if not np.isfinite(positions).all():
        raise ValueError("positions are not finite")
    spent = vocabulary.order_sums()[classes]
    wrong = np.flatnonzero(spent != orders.sum(1))
    if len(wrong):
        i = wrong[0]
        return _atoms_only(
            classes, positions, vocabulary, f"atom {i} needs bond order {spent[i]}, found {orders[i].sum()}"
        )
    try:
        with BlockLogs():
            return _molecule(classes, orders, positions, vocabulary)
    except Chem.MolSanitizeException as error:
        return _atoms_only(classes, positions, vocabulary, str(error))


def aromatic(classes: np.ndarray, orders: np.ndarray, vocabulary: Vocabulary) -> np.ndarray | None:
    """Which pairs of a graph, classes `[N]` and Kekulé orders `[N, N]`, have an aromatic bond, `[N, N]`; None where none has,
    or it is no molecule."""
    try:
        with BlockLogs():
            return aromatic_bonds(bonded(classes, orders, vocabulary))
    except Chem.MolSanitizeException:
        return None


def bonded(classes: np.ndarray, orders: np.ndarray, vocabulary: Vocabulary) -> Chem.RWMol:
    """Heavy atoms `[N]` and their Kekulé bonds `[N, N]` as a molecule, not yet sanitised."""
    heavy = _atoms(classes, vocabulary)
    for i, j in np.argwhere(np.triu(orders)).tolist():
        heavy.AddBond(i, j, BOND_TYPES[int(orders[i, j])])
    return heavy


def _molecule(classes: np.ndarray, orders: np.ndarray, positions: np.ndarray, vocabulary: Vocabulary) -> Chem.Mol:
    heavy = bonded(classes, orders, vocabulary)
    Chem.SanitizeMol(heavy)
    mol = Chem.AddHs(heavy)
    expected = sum(vocabulary.classes[k].hydrogens for k in classes.tolist())
    if mol.GetNumAtoms() != len(classes) + expected:
        raise Chem.MolSanitizeException(f"{expected} hydrogens expected, {mol.GetNumAtoms() - len(classes)} added")
    _set_positions(mol, place_hydrogens(mol, positions))
    try:
        Chem.AssignStereochemistryFrom3D(mol)
    except RuntimeError:  # atoms on top of each other have no configuration
        Chem.AssignStereochemistry(mol, cleanIt=True, force=True)
    return mol


def _atoms_only(classes: np.ndarray, positions: np.ndarray, vocabulary: Vocabulary, reason: str) -> Chem.Mol:
    mol = _atoms(classes, vocabulary).GetMol()
    mol.UpdatePropertyCache(strict=False)
    _set_positions(mol, positions)
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


def _set_positions(mol: Chem.Mol, positions: np.ndarray) -> None:
    conformer = Chem.Conformer(mol.GetNumAtoms())
    conformer.SetPositions(positions)
    conformer.Set3D(True)
    mol.AddConformer(conformer, assignId=True)
