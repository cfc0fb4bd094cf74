"""The classes of a heavy atom: element, formal charge, attached hydrogens and total valence.

A class fixes how much bond order an atom spends on its heavy neighbours, so a graph of classes and
Kekulé bond orders can be checked, and decoded, without any table of allowed valences.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from rdkit import Chem

BOND_ORDERS = (0, 1, 2, 3)  # Kekulé orders, which a decoded graph has
AROMATIC = 4  # a pair's class in the state of a model of five: which of its bonds are double is not asked yet


@dataclass(frozen=True, order=True)
class AtomClass:
    """One class of heavy atom. `valence` counts all Kekulé bond orders, hydrogens included."""

    symbol: str
    charge: int
    hydrogens: int
    valence: int

    @property
    def order_sum(self) -> int:
        """Bond order this atom spends on heavy neighbours."""
        return self.valence - self.hydrogens

    @property
    def atomic_number(self) -> int:
        return Chem.GetPeriodicTable().GetAtomicNumber(self.symbol)


@dataclass(frozen=True)
class Vocabulary:
    """The ordered classes a model knows; a state's one-hot index refers to this order."""

    classes: tuple[AtomClass, ...]

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(sorted({c.symbol for c in self.classes}))

    @cached_property
    def order_sums(self) -> np.ndarray:
        """Bond order to heavy neighbours of every class, `[K]` int."""
        return np.array([c.order_sum for c in self.classes])

    @cached_property
    def hydrogens(self) -> np.ndarray:
        """Hydrogens of every class, `[K]` int."""
        return np.array([c.hydrogens for c in self.classes])

    @cached_property
    def charges(self) -> np.ndarray:
        """Formal charge of every class, `[K]` int."""
        return np.array([c.charge for c in self.classes])

    @cached_property
    def elements(self) -> np.ndarray:
        """Atomic number of every class, `[K]` int."""
        return np.array([c.atomic_number for c in self.classes])

    def same_element(self) -> np.ndarray:
        """Which classes are of the same element, `[K, K]` bool."""
        symbols = np.array([c.symbol for c in self.classes])
        return symbols[:, None] == symbols[None]

    def index(self, atom: AtomClass) -> int:
        """Index of a class. Raises KeyError when the model does not know it."""
        try:
            return self.classes.index(atom)
        except ValueError:
            raise KeyError(f"{atom.symbol} with charge {atom.charge:+d} and {atom.hydrogens} hydrogens") from None

    def to_config(self) -> list[list]:
        return [[c.symbol, c.charge, c.hydrogens, c.valence] for c in self.classes]

    @classmethod
    def from_config(cls, rows: Iterable[list]) -> Vocabulary:
        return cls(tuple(AtomClass(str(r[0]), int(r[1]), int(r[2]), int(r[3])) for r in rows))

    @classmethod
    def from_molecules(cls, molecules: Iterable[Chem.Mol], min_count: int = 1) -> Vocabulary:
        """Classes seen in Kekulized molecules at least `min_count` times, sorted."""
        counts: Counter[AtomClass] = Counter()
        for mol in molecules:
            counts.update(atom_classes(mol))
        return cls(tuple(sorted(c for c, n in counts.items() if n >= min_count)))


def atom_classes(mol: Chem.Mol) -> list[AtomClass]:
    """Classes of the heavy atoms of a Kekulized molecule (hydrogens implicit), in atom order."""
    classes = []
    for atom in mol.GetAtoms():
        hydrogens = atom.GetTotalNumHs()
        orders = sum(int(bond.GetBondTypeAsDouble()) for bond in atom.GetBonds())
        classes.append(AtomClass(atom.GetSymbol(), atom.GetFormalCharge(), hydrogens, orders + hydrogens))
    return classes
