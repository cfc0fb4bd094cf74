"""Partial structures: a host crystal some of whose sites are replaced, removed or drawn anew; the rest is kept exactly.

The model works on the host's Niggli cell; what comes out has the host's own (super)cell, atoms in its order, and the
coordinates of the sites that were not touched are those of the host, to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pymatgen.core import Element, Structure

from sciconsist.domains.crystals.generate import Request, Sample
from sciconsist.domains.crystals.lattice import niggli_basis, to_vector, triangular
from sciconsist.errors import UserError

NEARBY = 0.2  # time to which replaced atoms are noised: they stay near their place
MAX_ATOMS = 400


@dataclass(frozen=True)
class Change:
    """Replace `count` atoms (None: all) of one element by another, or by nothing."""

    old: int
    new: int | None
    count: int | None


@dataclass
class Host:
    """A crystal and what is to happen to it. `free_sites` are site numbers from 0 in the (super)cell."""

    structure: Structure
    name: str = "host"
    changes: Sequence[Change] = ()
    free_sites: Sequence[int] = ()

    def __post_init__(self) -> None:
        count = len(self.structure)
        if count > MAX_ATOMS:
            raise UserError(f"{self.name}: {count} atoms in the (super)cell, expected at most {MAX_ATOMS}")
        if not (self.changes or self.free_sites):
            raise UserError(f"{self.name}: nothing to change; give --replace, --vacancy or --free-sites")
        if wrong := [k for k in self.free_sites if not 0 <= k < count]:
            raise UserError(f"{self.name}: free site {wrong[0]}: sites are numbered 0 to {count - 1}")
        numbers = [site.specie.Z for site in self.structure]
        for change in self.changes:
            found, symbol = numbers.count(change.old), Element.from_Z(change.old).symbol
            wanted = found if change.count is None else change.count
            if not found or wanted > found:
                raise UserError(f"{self.name}: has {found} {symbol}, cannot change {max(wanted, 1)}")
            if wanted == len(numbers) and change.new is None:
                raise UserError(f"{self.name}: removing all its atoms leaves no crystal")
        self.basis = niggli_basis(self.structure.lattice.matrix)

    def request(self, rng: np.random.Generator, domain: Any, values: tuple[float, float]) -> Request:
        """What the model is asked for one sample: which atoms change is drawn from `rng`."""
        structure = self.structure.copy()
        numbers = np.array([site.specie.Z for site in structure])
        free = np.isin(np.arange(len(numbers)), list(self.free_sites))
        keep = np.ones(len(numbers), dtype=bool)
        for change in self.changes:
            sites = np.flatnonzero((numbers == change.old) & keep)
            if change.count is not None:
                sites = np.sort(rng.choice(sites, change.count, replace=False))
            if change.new is None:
                keep[sites] = False
            else:
                numbers[sites] = change.new
                free[sites] = True
        for z in set(numbers[keep].tolist()):
            if z not in domain.class_of:
                raise UserError(f"{self.name}: the model has not seen {Element.from_Z(z).symbol}")
        cell = triangular(self.basis @ structure.lattice.matrix)
        frac = np.array(structure.frac_coords)[keep] @ np.linalg.inv(self.basis)
        count = int(keep.sum())
        return Request(
            count, numbers[keep], None, values, frac=frac - np.floor(frac), vector=to_vector(cell, count),
            fixed=~free[keep], start=1.0 if len(self.free_sites) else NEARBY, sites=np.flatnonzero(keep),
        )  # fmt: skip

    def finish(self, sample: Sample) -> Structure:
        """The host with a sample's elements, and its coordinates at the sites that were free."""
        request = sample.request
        assert request.sites is not None and request.fixed is not None
        frac = np.array(self.structure.frac_coords)[request.sites]
        moved = (sample.frac @ self.basis) % 1.0
        frac = np.where(request.fixed[:, None], frac, moved)
        return Structure(self.structure.lattice, [Element.from_Z(int(z)) for z in sample.numbers], frac)


def supercell(structure: Structure, factors: Sequence[int]) -> Structure:
    """The structure repeated along its axes. Raises UserError unless there are three whole numbers from 1."""
    if len(factors) != 3 or min(factors) < 1:
        raise UserError(f"supercell {','.join(map(str, factors))}: expected three whole numbers from 1, like 2,2,1")
    return structure.copy().make_supercell(np.diag(factors))


def parse_change(text: str, vacancy: bool = False) -> Change:
    """`Na=Li`, `Na=Li:2` (two atoms of it), or for a vacancy `O`, `O:2`. Raises UserError."""
    what, _, count = text.partition(":")
    parts = [p.strip() for p in what.split("=")]
    example = "O or O:2" if vacancy else "Na=Li or Na=Li:2"
    good = len(parts) == (1 if vacancy else 2) and all(Element.is_valid_symbol(p) for p in parts)
    if not good or (count and not (count.isdecimal() and int(count) > 0)):
        raise UserError(f"{'vacancy' if vacancy else 'replace'} {text!r}: expected {example}")
    numbers = [Element(p).Z for p in parts]
    # one vacancy unless more are asked for; a substitution is of all atoms unless fewer are
    return Change(numbers[0], None if vacancy else numbers[1], int(count) if count else (1 if vacancy else None))
