"""When two crystals are one: duplicates and novelty.

pymatgen's StructureMatcher is slow, so only crystals of one reduced formula meet. Tolerances are on every result.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure


class Tolerances(NamedTuple):
    """StructureMatcher's: lattice lengths (fraction), sites (fraction of (V/N)^(1/3)), angles (degrees)."""

    ltol: float
    stol: float
    angle_tol: float


SAME = Tolerances(0.2, 0.3, 5.0)  # pymatgen's own


def matcher(tolerances: Tolerances) -> StructureMatcher:
    return StructureMatcher(ltol=tolerances.ltol, stol=tolerances.stol, angle_tol=tolerances.angle_tol)


class Catalogue:
    """Crystals by reduced formula: which of them is the one in hand?"""

    def __init__(self, tolerances: Tolerances = SAME) -> None:
        self.matcher = matcher(tolerances)
        self.by_formula: dict[str, list[tuple[Any, Structure]]] = defaultdict(list)

    def add(self, key: Any, structure: Structure) -> None:
        # Reduced once here, not in every comparison.
        self.by_formula[structure.composition.reduced_formula].append((key, structure.get_reduced_structure()))

    def find(self, structure: Structure) -> Any | None:
        """The key of the first crystal that is this one, None when it is new."""
        entries = self.by_formula.get(structure.composition.reduced_formula, [])
        return next((key for key, other in entries if self.matcher.fit(structure, other)), None)

    @classmethod
    def of(cls, structures: Iterable[tuple[Any, Structure]], formulas: set[str] | None = None) -> Catalogue:
        """A catalogue of (key, structure), of the given reduced formulas alone when there are any."""
        made = cls()
        for key, structure in structures:
            if formulas is None or structure.composition.reduced_formula in formulas:
                made.add(key, structure)
        return made


def duplicates(structures: Sequence[Structure]) -> list[int | None]:
    """For each crystal the index of the first one it repeats, None for a first one."""
    seen = Catalogue()
    result: list[int | None] = []
    for index, structure in enumerate(structures):
        earlier = seen.find(structure)
        if earlier is None:
            seen.add(index, structure)
        result.append(earlier)
    return result


def novelty(
    structures: Sequence[Structure], known: Iterable[tuple[str, Structure]], valid: Sequence[bool], total: int
) -> dict:
    """Unique, novel, and valid-unique-novel fractions of `total` samples; `known` is (name, structure)."""
    formulas = {s.composition.reduced_formula for s in structures}
    catalogue = Catalogue.of(known, formulas)
    first = [earlier is None for earlier in duplicates(structures)]
    new = [catalogue.find(s) is None for s in structures]
    return {
        "n": total,
        "unique": sum(first) / total if total else None,
        "novel": sum(new) / total if total else None,
        "valid_unique_novel": sum(a and b and c for a, b, c in zip(valid, first, new)) / total if total else None,
        "tolerances": SAME._asdict(),
    }
