"""Heavy atoms that carry hydrogens, and what decides where these are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from rdkit import Chem

from .compiled import compiled

SPREAD = {Chem.HybridizationType.SP: 1, Chem.HybridizationType.SP2: 2}


@dataclass(frozen=True)
class Sites:
    """The heavy atoms of a molecule: atomic `number`, `hydrogens`, and `spread` 1, 2, 3 for sp, sp2, sp3 `[N]`; which
    have a `double` bond of their own (an imine, not an amide), and are sp2 and a pyramid, `tilted` (an aniline, not an
    amide) `[N]`; which are `bonded` `[N, N]`."""

    number: np.ndarray
    hydrogens: np.ndarray
    spread: np.ndarray
    double: np.ndarray
    tilted: np.ndarray
    bonded: np.ndarray


def hydrogen_sites(mol: Chem.Mol) -> Sites:
    """The sites of a sanitised molecule of heavy atoms."""
    atoms = [
        (a.GetAtomicNum(), a.GetTotalNumHs(), SPREAD.get(a.GetHybridization(), 3), a.GetFormalCharge())
        for a in mol.GetAtoms()
    ]
    number, hydrogens, spread, charge = np.array(atoms, dtype=np.int64).reshape(-1, 4).T.copy()
    orders = Chem.GetAdjacencyMatrix(mol, useBO=True)
    double, tilted = _double_and_tilted(number, spread, charge, orders)
    return Sites(number, hydrogens, spread, double, tilted, orders > 0)


@compiled
def _double_and_tilted(
    number: np.ndarray, spread: np.ndarray, charge: np.ndarray, orders: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """An sp2 nitrogen is a pyramid all the same in an aniline, enamine or amidine, but in no amide.

    An amide's lone pair is drawn into C=O (or C=S, C=N+), and one between two sp2 atoms, or in an aromatic ring, into both.
    """
    n = len(number)
    double, tilted = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    drawing = np.zeros(n, np.bool_)  # has a double bond that a lone pair beside it is drawn into
    for i in range(n):
        for j in range(n):
            if orders[i, j] == 2.0:
                double[i] |= spread[i] == 2
                drawing[i] |= number[j] == 8 or number[j] == 16 or charge[j] > 0
    for i in range(n):
        tilted[i] = spread[i] == 2 and number[i] == 7 and charge[i] == 0 and not double[i]
        flat = 0
        for j in range(n):
            if orders[i, j] > 0:
                tilted[i] &= orders[i, j] != 1.5 and not drawing[j]
                flat += spread[j] == 2
        tilted[i] &= flat < 2
    return double, tilted
