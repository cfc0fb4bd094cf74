"""What is asked of crystals, sample by sample: sizes, then compositions, then the orbits of a space group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sciconsist.domains.crystals.adapter import PROPERTIES, composition_of
from sciconsist.domains.crystals.composition import (
    atoms_of,
    charge_balanced,
    formula_units,
    known_elements,
)
from sciconsist.domains.crystals.generate import Plan, Request, draw_sizes
from sciconsist.domains.crystals.hosts import Host
from sciconsist.domains.crystals.occupations import Choice, choose, draw_occupation, likely_positions
from sciconsist.domains.crystals.orbits import plan_orbits
from sciconsist.errors import UserError
from sciconsist.flowmap import FlowMap
from sciconsist.random import stream

ATTEMPTS = 40  # sizes and compositions tried for a space group that cannot hold them
BALANCING = 50  # compositions drawn for one whose charges balance
LARGEST = 64  # atoms of one formula unit that we still try, though the model was trained on smaller cells


@dataclass(frozen=True)
class Wish:
    """What is asked of the crystals; what is None is free.

    `elements`: symbols that may occur. `formula`: reduced formula. `atoms`: number or range, "4:20". `properties`:
    e_above_hull (eV/atom) and band_gap (eV), a number or a range (low, high). `charge_balanced` keeps compositions whose
    common oxidation states can add up to zero. `p1` leaves every atom free: else those of a composition start on the
    positions that known crystals of like elements occupy, where there are such, and keep their space group.
    """

    elements: Sequence[str] | None = None
    formula: str | None = None
    atoms: int | tuple[int, int] | str | None = None
    space_group: int | None = None
    properties: Mapping[str, float | tuple[float, float]] | None = None
    charge_balanced: bool = False
    p1: bool = False
    host: Host | None = None


class Requests:
    """The requests of a wish to a model: sample k of a seed is asked the same whatever is drawn beside it."""

    def __init__(self, model: FlowMap, wish: Wish, seed: int) -> None:
        self.model, self.domain, self.wish, self.seed = model, model.domain, wish, seed
        self.units = None if wish.formula is None else formula_units(wish.formula)
        self.allowed = self._allowed()
        self.sizes = self._sizes()
        self.values = property_ranges(wish.properties)
        if wish.space_group is not None and not 1 <= wish.space_group <= 230:
            raise UserError(f"space group {wish.space_group}: expected 1 to 230")
        if wish.host is not None and (wish.space_group, wish.formula, wish.elements, wish.atoms) != (None,) * 4:
            raise UserError("a host brings its own elements, formula, size and symmetry: leave those out")
        if wish.p1 and wish.space_group is not None:
            raise UserError(f"p1 and space group {wish.space_group}: ask for one of them")
        self.known = [] if self.units is None else self._positions([self._atoms(n) for n in self.sizes])

    def _allowed(self) -> np.ndarray | None:
        known = self.domain.config.elements
        if self.units is not None:
            known_elements([symbol_of(z) for z in self.units], known, "formula")
        if self.wish.elements is None:
            return None
        numbers = known_elements(self.wish.elements, known)
        if self.units is not None and (beyond := sorted(set(self.units) - set(numbers))):
            raise UserError(f"formula {self.wish.formula}: has {symbol_of(beyond[0])}, which elements leaves out")
        return np.isin(known, numbers)

    def _sizes(self) -> dict[int, int]:
        """Histogram of atom counts that the request leaves."""
        histogram = size_range(self.domain.config.size_histogram, self.wish.atoms)
        if self.units is None:
            return histogram
        unit = sum(self.units.values())
        if fitting := {n: count for n, count in histogram.items() if n % unit == 0}:
            return fitting
        if self.wish.atoms is not None:
            raise UserError(
                f"atoms {self.wish.atoms}: {self.wish.formula} has {unit} a formula unit; ask for a multiple"
            )
        if unit > LARGEST:
            raise UserError(f"formula {self.wish.formula}: {unit} atoms a formula unit, expected at most {LARGEST}")
        return {unit: 1}

    def _atoms(self, size: int) -> np.ndarray:
        """Atomic numbers of so many atoms of the formula."""
        assert self.units is not None
        return atoms_of(self.units, size // sum(self.units.values()))

    def _positions(self, compositions: Sequence[np.ndarray]) -> list[Choice]:
        """Positions known crystals suggest, most likely first; none where the atoms are to be free."""
        free = self.wish.p1 or self.wish.host is not None
        return [] if free else likely_positions(compositions, self.wish.space_group)

    def request(self, index: int, size: int, numbers: np.ndarray | None) -> Request:
        """Sample `index` of the seed, of `size` atoms, of the elements `numbers` where they are known."""
        rng = np.random.default_rng(stream(self.seed, "request", index).initial_seed())
        values: Any = tuple(low if not low < high else float(rng.uniform(low, high)) for low, high in self.values)
        if self.wish.host is not None:
            return self.wish.host.request(rng, self.domain, values)
        known = self.known or ([] if numbers is None else self._positions([numbers]))
        if known:
            orbits = choose(known, index).orbits
        elif self.wish.space_group is not None:
            orbits = plan_orbits(self.wish.space_group, size, numbers, rng)
        else:
            return Request(size, numbers, self.allowed, values)
        given = orbits.numbers if numbers is not None else None
        return Request(orbits.size, given, self.allowed, values, orbits.group.number, orbits=orbits)

    def of(self, indices: Sequence[int]) -> list[Request]:
        """What the samples of these indices are asked to be: sizes, then compositions, then orbits of a space group."""
        sizes: dict[int, int] = {}
        made: dict[int, Request] = {}
        failed: dict[tuple[int, int, str], UserError] = {}
        for attempt in range(1 if self.wish.space_group is None else ATTEMPTS):
            if not (left := [k for k in range(len(indices)) if k not in made]):
                break
            # a size or composition that the space group cannot hold gives way to another
            own = [indices[k] for k in left]
            each = self.atoms_of_each(own, attempt)
            sizes |= zip(left, draw_sizes(self.sizes, own, self.seed, attempt) if each is None else map(sum, each))
            found = self.compositions(own, [sizes[k] for k in left], attempt, each)
            for k, numbers in zip(left, found):
                if (key := (k, sizes[k], str(numbers))) in failed:
                    continue
                try:
                    made[k] = self.request(indices[k], sizes[k], numbers)
                except UserError as error:
                    if self.wish.space_group is None:
                        raise
                    failed[key] = error
        if len(made) < len(indices):
            raise next(iter(failed.values()))
        return [made[k] for k in range(len(indices))]

    def atoms_of_each(self, indices: Sequence[int], attempt: int) -> list[tuple[int, ...]] | None:
        """How many atoms each element has, as crystals of the space group have them; None where that is open."""
        number = self.wish.space_group
        if number is None or self.units is not None or composition_of(self.model) is None:
            return None
        elements = None if self.allowed is None else int(self.allowed.sum())
        found = []
        for index in indices:
            rng = np.random.default_rng(stream(self.seed, "occupation", attempt, index).initial_seed())
            if (drawn := draw_occupation(number, rng, sizes=self.sizes, elements=elements)) is None:
                return None
            found.append(drawn.atoms)
        return found

    def compositions(
        self, indices: Sequence[int], sizes: Sequence[int], attempt: int = 0,
        each: Sequence[tuple[int, ...]] | None = None,
    ) -> list[np.ndarray | None]:  # fmt: skip
        """Atomic numbers `[N]` of each sample: the formula's, or drawn; None where each site shall choose its own.

        `each`: atoms that the elements of a sample shall have.
        """
        if self.units is not None:
            return [self._atoms(n) for n in sizes]
        network, elements = composition_of(self.model), np.array(self.domain.config.elements)
        if self.wish.host is not None or network is None:
            return [None] * len(sizes)
        temperature = self.model.card.get("sampler", {}).get("composition", {}).get("temperature", 1.0)
        found: list[np.ndarray | None] = [None] * len(sizes)
        left = list(range(len(sizes)))
        for redrawn in range(BALANCING if self.wish.charge_balanced else 1):
            purpose = [stream(self.seed, "composition", attempt, redrawn, indices[k]) for k in left]
            u = torch.stack(
                [torch.rand(2 * network.config.largest + 1, generator=g, dtype=torch.float64) for g in purpose]
            )
            counts = None if each is None else [each[k] for k in left]
            for k, classes in zip(left, network.draw([sizes[k] for k in left], self.allowed, u, temperature, counts)):
                found[k] = elements[classes]
            if self.wish.charge_balanced:
                left = [k for k in left if not charge_balanced(found[k])]  # type: ignore[arg-type]
            if not left:
                break
        return found


def symbol_of(number: int) -> str:
    from pymatgen.core import Element

    return Element.from_Z(int(number)).symbol


def plan_for(model: FlowMap, steps: int, wish: Wish) -> Plan:
    """How a model divides so many evaluations: as its card says, for elements given or free, or a host.

    Where the card's sampler has `by_steps`, the entry of the largest number of steps up to `steps` counts.
    """
    if steps < 1:
        raise UserError(f"{steps} steps: expected at least 1")
    given = wish.formula is not None or composition_of(model) is not None
    kind = "host" if wish.host is not None else "prediction" if given else "de_novo"
    sampler = model.card.get("sampler", {})
    how = dict(sampler.get(kind, sampler.get("prediction", {}) if kind == "host" else {}))
    by_steps = how.pop("by_steps", {})
    if fitting := [n for n in by_steps if int(n) <= steps]:
        how |= by_steps[max(fitting, key=int)]
    return Plan(steps, **how)


def size_range(histogram: dict[int, int], atoms: int | tuple[int, int] | str | None) -> dict[int, int]:
    """The part of the training histogram that a request for atom counts leaves."""
    known = f"the model knows {min(histogram)} to {max(histogram)}"
    if atoms is None:
        return histogram
    try:
        parts = [int(p) for p in atoms.split(":")] if isinstance(atoms, str) else [int(v) for v in np.atleast_1d(atoms)]
        low, high = parts[0], parts[-1]
    except (ValueError, TypeError, IndexError):
        parts, low, high = [], 1, 0
    if not 1 <= len(parts) <= 2 or low > high or low < 1:
        raise UserError(f"atoms {atoms!r}: expected a number of atoms, 14, or a range, 4:20; {known}")
    if low < min(histogram) or high > max(histogram):
        raise UserError(f"atoms {atoms!r}: beyond what the model was trained on; {known}")
    return {n: histogram.get(n, 0) + 1 for n in range(low, high + 1)}


def property_ranges(properties: Mapping[str, float | tuple[float, float]] | None) -> list[tuple[float, float]]:
    """(low, high) of each property the network may be told, NaN where it is not. Raises UserError."""
    asked = dict(properties or {})
    if unknown := sorted(set(asked) - set(PROPERTIES)):
        raise UserError(f"property {unknown[0]!r}: expected one of {', '.join(PROPERTIES)}")
    ranges = []
    for name in PROPERTIES:
        value = asked.get(name, np.nan)
        low, high = (float(v) for v in (value if isinstance(value, tuple) else (value, value)))
        if name in asked and not (np.isfinite([low, high]).all() and low <= high):
            raise UserError(f"property {name}={value}: expected a number, or a range with its lower end first")
        ranges.append((low, high))
    return ranges
