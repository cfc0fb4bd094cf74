"""What a crystal is made of: formulas, allowed elements, and whether charges can balance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np

from sciconsist.errors import UserError


def formula_units(formula: str) -> dict[int, int]:
    """Atomic numbers and counts of the reduced formula. Raises UserError for what is no formula of whole numbers."""
    from pymatgen.core import Composition, Element

    try:
        reduced = Composition(formula).reduced_composition
        counts = {Element(e.symbol).Z: float(n) for e, n in reduced.items()}  # a dummy species is no element
    except Exception as error:  # pymatgen raises several kinds
        raise UserError(f"formula {formula!r}: cannot be read ({error}); expected one like LiFePO4") from error
    if not counts or any(abs(n - round(n)) > 1e-6 or n < 1 for n in counts.values()):
        raise UserError(f"formula {formula!r}: expected elements with whole numbers, like LiFePO4")
    return {z: round(n) for z, n in counts.items()}


def atoms_of(units: dict[int, int], multiples: int) -> np.ndarray:
    """Atomic numbers of so many formula units."""
    return np.repeat(list(units), [n * multiples for n in units.values()])


def known_elements(symbols: Iterable[str], model_elements: Sequence[int], what: str = "elements") -> list[int]:
    """Atomic numbers of symbols. Raises UserError for what is no element or none of the model's."""
    from pymatgen.core import Element

    numbers = []
    for symbol in (s.strip() for s in symbols):
        if not Element.is_valid_symbol(symbol):
            raise UserError(f"{what}: {symbol!r} is no element; expected symbols like Li,Fe,P,O")
        number = Element(symbol).Z
        if number not in model_elements:
            raise UserError(f"{what}: the model has not seen {symbol}; it knows {symbols_of(model_elements)}")
        numbers.append(number)
    if not numbers:
        raise UserError(f"{what}: found none; expected symbols like Li,Fe,P,O")
    return sorted(set(numbers))


def symbols_of(numbers: Iterable[int]) -> str:
    from pymatgen.core import Element

    return ",".join(Element.from_Z(int(z)).symbol for z in numbers)


@lru_cache(maxsize=256)
def oxidation_states(number: int) -> tuple[int, ...]:
    """Oxidation states of an element that occur in solids: common ones and those pymatgen counts in the ICSD."""
    from pymatgen.core import Element

    e = Element.from_Z(number)
    return tuple(sorted({int(q) for q in (*e.common_oxidation_states, *e.icsd_oxidation_states) if q}))


@lru_cache(maxsize=256)
def is_metal(number: int) -> bool:
    from pymatgen.core import Element

    return bool(Element.from_Z(number).is_metal)


def charge_balanced(numbers: Sequence[int] | np.ndarray) -> bool:
    """Whether one oxidation state an element can add up to zero; elements and alloys of metals alone always do."""
    counts = Counter(int(z) for z in numbers)
    if len(counts) == 1 or all(is_metal(z) for z in counts):
        return True
    sums = {0}
    for z, n in counts.items():
        sums = {total + n * q for total in sums for q in oxidation_states(z)}
    return 0 in sums
