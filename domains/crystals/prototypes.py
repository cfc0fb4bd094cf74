"""Structure prediction without a network: the nearest known crystal of the same stoichiometry, atoms swapped, scaled.

The baseline that every structure-prediction figure stands beside. Elements are as near as their Mendeleev numbers
(Pettifor 1984, doi:10.1016/0038-1098(84)90765-8).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from pymatgen.core import Composition, Element, Structure
from scipy.optimize import nnls

_MAX_KINDS = 6  # elements of one count that are tried in every order


@dataclass
class Prototypes:
    """Known crystals by anonymous formula and atom count, and the volume that an atom of an element takes, Å^3."""

    by_kind: dict[tuple[str, int], list[Structure]]
    volumes: dict[str, float]

    @classmethod
    def of(cls, structures: Iterable[Structure]) -> Prototypes:
        """Index crystals; an element's volume is fitted to theirs by non-negative least squares."""
        by_kind: dict[tuple[str, int], list[Structure]] = defaultdict(list)
        everything = list(structures)
        for structure in everything:
            by_kind[_kind(structure.composition)].append(structure)
        elements = sorted({e.symbol for s in everything for e in s.composition.elements})
        column = {symbol: k for k, symbol in enumerate(elements)}
        counts = np.zeros((len(everything), len(elements)))
        for row, structure in enumerate(everything):
            for element, amount in structure.composition.items():
                counts[row, column[element.symbol]] = amount / len(structure)
        per_atom = np.array([s.volume / len(s) for s in everything])
        fitted = nnls(counts, per_atom)[0] if everything else np.zeros(0)
        return cls(dict(by_kind), dict(zip(elements, fitted.tolist())))

    def predict(self, composition: Composition, k: int = 1) -> list[Structure]:
        """The k nearest prototypes with this composition's atoms, at its expected volume; fewer where there are."""
        scored = []
        for index, prototype in enumerate(self.by_kind.get(_kind(composition), [])):
            distance, swap = _assignment(prototype.composition, composition)
            scored.append((distance, index, prototype, swap))
        scored.sort(key=lambda row: row[:2])
        return [self._swapped(prototype, swap) for _, _, prototype, swap in scored[:k]]

    def _swapped(self, prototype: Structure, swap: dict[str, str]) -> Structure:
        made = Structure(prototype.lattice, [swap[s.specie.symbol] for s in prototype], prototype.frac_coords)
        if set(swap) | set(swap.values()) <= set(self.volumes):
            before, after = (sum(self.volumes[s.specie.symbol] for s in x) for x in (prototype, made))
            if before > 0 and after > 0:  # the prototype's own deviation from the fit is kept
                made.scale_lattice(prototype.volume * after / before)
        return made


def _kind(composition: Composition) -> tuple[str, int]:
    return composition.anonymized_formula, round(composition.num_atoms)


def _assignment(old: Composition, new: Composition) -> tuple[float, dict[str, str]]:
    """Which element takes which one's place, elements of equal counts in the order of least distance."""
    groups_old, groups_new = _by_count(old), _by_count(new)
    total = 0.0
    swap: dict[str, str] = {}
    for count, members in groups_old.items():
        others = groups_new[count]
        orders: Iterable[Sequence[str]] = permutations(others) if len(others) <= _MAX_KINDS else [others]
        best = min(orders, key=lambda order: sum(map(_distance, members, order)))
        total += count * sum(map(_distance, members, best))
        swap.update(zip(members, best))
    return total / old.num_atoms, swap


def _by_count(composition: Composition) -> dict[int, list[str]]:
    groups: dict[int, list[str]] = defaultdict(list)
    for element, amount in sorted(composition.items(), key=lambda item: item[0].symbol):
        groups[round(amount)].append(element.symbol)
    return groups


def _distance(first: str, second: str) -> float:
    return abs(Element(first).mendeleev_no - Element(second).mendeleev_no)
