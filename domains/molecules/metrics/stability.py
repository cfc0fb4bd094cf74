"""Stability from distances: bond orders read off interatomic distances, valences checked.

The rule, the bond lengths and the margins are those of EDM (Hoogeboom et al. 2022, arXiv:2203.17003); every
paper that prints "atom stability" on QM9 uses them. No charge, no aromatic type; connectivity is not
required, so two stable molecules side by side are one stable molecule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rdkit import Chem

# Typical bond lengths in pm, as EDM prints them. A pair that is not listed has no bond of that order.
SINGLE = {
    "H": {"H": 74, "C": 109, "N": 101, "O": 96, "F": 92, "P": 144, "S": 134, "Cl": 127, "Br": 141},
    "C": {"C": 154, "N": 147, "O": 143, "F": 135, "P": 184, "S": 182, "Cl": 177, "Br": 194},
    "N": {"N": 145, "O": 140, "F": 136, "P": 177, "S": 168, "Cl": 175, "Br": 214},
    "O": {"O": 148, "F": 142, "P": 163, "S": 151, "Cl": 164, "Br": 172},
    "F": {"F": 142, "P": 156, "S": 158, "Cl": 166, "Br": 178},
    "P": {"P": 221, "S": 210, "Cl": 203, "Br": 222},
    "S": {"S": 204, "Cl": 207, "Br": 225},
    "Cl": {"Cl": 199, "Br": 214},
    "Br": {"Br": 228},
}
DOUBLE = {
    "C": {"C": 134, "N": 129, "O": 120, "S": 160},
    "N": {"N": 125, "O": 121},
    "O": {"O": 121, "P": 150},
    "P": {"S": 186},
}
TRIPLE = {"C": {"C": 120, "N": 116, "O": 113}, "N": {"N": 110}}
MARGINS = (10, 5, 3)  # pm, added to the single, double and triple lengths

# EDM allows sulphur four bonds and no other number: thiols and sulphones count as unstable. Kept, because the
# figures of EDM's GEOM-Drugs tables are made that way; on H, C, N, O and F nothing hangs on it.
VALENCES = {
    "H": (1,),
    "C": (4,),
    "N": (3,),
    "O": (2,),
    "F": (1,),
    "P": (3, 5),
    "S": (4,),
    "Cl": (1,),
    "Br": (1,),
}

_MAX_Z, _MAX_VALENCE = 118, 8


@dataclass(frozen=True)
class Stability:
    """Fractions in [0, 1] over all atoms and over all molecules."""

    molecules: int
    atoms: int
    atom_stable: float
    molecule_stable: float


def _thresholds() -> np.ndarray:
    """Distance limits in Å of the orders 1, 2, 3 by atomic numbers, `[3, Z, Z]`; -inf where there is none."""
    number = Chem.GetPeriodicTable().GetAtomicNumber
    limits = np.full((3, _MAX_Z + 1, _MAX_Z + 1), -np.inf)
    for order, (table, margin) in enumerate(zip((SINGLE, DOUBLE, TRIPLE), MARGINS, strict=True)):
        for first, row in table.items():
            for second, length in row.items():
                i, j = number(first), number(second)
                limits[order, i, j] = limits[order, j, i] = (length + margin) / 100
    return limits


def _allowed() -> np.ndarray:
    """Which order sums make an atom stable, `[Z, valence]` bool."""
    allowed = np.zeros((_MAX_Z + 1, _MAX_VALENCE + 1), dtype=bool)
    for symbol, valences in VALENCES.items():
        allowed[Chem.GetPeriodicTable().GetAtomicNumber(symbol), list(valences)] = True
    return allowed


_LIMITS, _ALLOWED = _thresholds(), _allowed()


def bond_orders(numbers: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Bond orders 0 to 3 of all pairs, `[N, N]` int, from atomic numbers `[N]` and positions `[N, 3]` in Å.

    Every order's limit lies above that of the next one, so the order is the number of limits undercut.
    Distances that are not finite bind nothing.
    """
    numbers, positions = np.asarray(numbers, dtype=np.int64), np.asarray(positions, dtype=np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
        np.fill_diagonal(distances, np.inf)
        return (distances < _LIMITS[:, numbers[:, None], numbers[None]]).sum(axis=0)


def stable_atoms(numbers: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Which atoms have the valence of their element, `[N]` bool; arguments as in `bond_orders`."""
    valences = np.minimum(bond_orders(numbers, positions).sum(axis=1), _MAX_VALENCE)
    return _ALLOWED[np.asarray(numbers, dtype=np.int64), valences]


def arrays(mol: Chem.Mol) -> tuple[np.ndarray, np.ndarray]:
    """Atomic numbers `[N]` and positions `[N, 3]` in Å of the first conformer (NaN when there is none)."""
    numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()], dtype=np.int64)
    if mol.GetNumConformers() == 0:
        return numbers, np.full((len(numbers), 3), np.nan)
    return numbers, mol.GetConformer().GetPositions()


def stability(samples: Sequence[Chem.Mol]) -> Stability:
    """Stability of molecules with explicit hydrogens and one conformer; the denominator is every sample."""
    flags = [stable_atoms(*arrays(mol)) for mol in samples]
    atoms = sum(len(f) for f in flags)
    return Stability(
        molecules=len(flags),
        atoms=atoms,
        atom_stable=float(sum(f.sum() for f in flags) / max(atoms, 1)),
        molecule_stable=float(sum(bool(len(f)) and bool(f.all()) for f in flags) / max(len(flags), 1)),
    )
