"""Crystals as orbits: atoms that a space group carries into each other, and the projection onto them.

A sample with a space group gets its orbits first: a set of Wyckoff positions whose multiplicities add up to the atoms
wanted. Then the cell and the coordinates are put onto them at every step of the sampler, so that the group holds to
round-off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sciconsist.domains.crystals.lattice import triangular
from sciconsist.domains.crystals.symmetry import ORIGINS, Group, Site, detect, group, nearest, settings
from sciconsist.errors import UserError


@dataclass(frozen=True)
class Orbits:
    """A crystal's atoms as orbits: `members[k]` are the atoms of orbit k, on `sites[k]` of `group`; `elements[k]` or 0."""

    group: Group
    sites: list[Site]
    members: list[np.ndarray]
    elements: list[int]

    @property
    def size(self) -> int:
        return sum(len(m) for m in self.members)

    @property
    def numbers(self) -> np.ndarray:
        """Atomic numbers `[N]` in the atoms' order."""
        numbers = np.zeros(self.size, dtype=int)
        for atoms, z in zip(self.members, self.elements):
            numbers[atoms] = z
        return numbers

    @cached_property
    def stack(self) -> Stack:
        return stack([self])

    def place(self, frac: np.ndarray) -> np.ndarray:
        """Coordinates `[N, 3]` moved onto the orbits, see `Stack.leads`; in [0, 1)."""
        return self.stack.carried(self.stack.leads(frac)) % 1.0

    def cell(self, cell: np.ndarray) -> np.ndarray:
        """The nearest cell that has the group's symmetry, triangular."""
        return self.stack.cells(cell[None])[0]


@dataclass(frozen=True)
class Stack:
    """The orbits of several crystals together, A atoms one crystal after the other, K orbits, M crystals.

    `order` `[A]` are the atoms orbit after orbit; the operation that carries the orbit's point to each is `rotations`,
    `translations`, its inverse `inverse`; `orbit` `[A]` is its orbit, `start` `[K]` each one's first.
    """

    order: np.ndarray
    rotations: np.ndarray
    translations: np.ndarray
    inverse: np.ndarray
    orbit: np.ndarray
    start: np.ndarray
    points: np.ndarray
    projectors: np.ndarray
    metric: np.ndarray  # [M, 9, 9]

    def leads(self, frac: np.ndarray, lead: bool = False) -> np.ndarray:
        """The point of each orbit on its site `[K, 3]`: every atom of `frac` `[A, 3]` is carried back to its orbit's first,
        and their mean (`lead`: the first alone) is projected onto the site.
        """
        back = np.einsum("aij,aj->ai", self.inverse, frac[self.order] - self.translations)
        first = back[self.start]
        if not lead:
            apart = nearest(back - first[self.orbit])
            first = first + np.add.reduceat(apart, self.start) / np.bincount(self.orbit)[:, None]
        gap = first - self.points
        # onto the site's nearest image
        shifts = ORIGINS + np.round(gap)[:, None]
        across = np.einsum("kij,ksj->ksi", np.eye(3) - self.projectors, gap[:, None] - shifts)
        nearest_image = np.argmin(np.round(np.square(across).sum(-1), 9), 1)
        shift = shifts[np.arange(len(shifts)), nearest_image]
        return self.points + shift + np.einsum("kij,kj->ki", self.projectors, gap - shift)

    def carried(self, leads: np.ndarray, points: bool = True) -> np.ndarray:
        """The atoms `[A, 3]` of each orbit's point `[K, 3]`; with `points` false, of a vector there."""
        out = np.empty((len(self.order), 3))
        out[self.order] = np.einsum("aij,aj->ai", self.rotations, leads[self.orbit]) + points * self.translations
        return out

    def cells(self, cells: np.ndarray) -> np.ndarray:
        """The nearest cells `[M, 3, 3]` with each crystal's symmetry, triangular."""
        gram = (cells @ cells.transpose(0, 2, 1)).reshape(-1, 9)
        return np.linalg.cholesky(np.einsum("mij,mj->mi", self.metric, gram).reshape(-1, 3, 3))


def stack(every: Sequence[Orbits]) -> Stack:
    """The orbits of several crystals as one."""
    first = np.cumsum([0, *(o.size for o in every)])
    sites = [
        (o.group, site, begin + members) for o, begin in zip(every, first) for site, members in zip(o.sites, o.members)
    ]
    count = [len(members) for _, _, members in sites]
    rotations = np.concatenate([g.rotations[s.operations] for g, s, _ in sites])
    return Stack(
        order=np.concatenate([members for _, _, members in sites]),
        rotations=rotations,
        translations=np.concatenate([g.translations[s.operations] for g, s, _ in sites]),
        inverse=np.concatenate([g.inverse[s.operations] for g, s, _ in sites]),
        orbit=np.repeat(np.arange(len(sites)), count),
        start=np.cumsum([0, *count])[:-1],
        points=np.stack([s.point for _, s, _ in sites]),
        projectors=np.stack([s.projector for _, s, _ in sites]),
        metric=np.stack([o.group.metric for o in every]),
    )


def orbits_of(g: Group, sites: Sequence[Site], owner: Sequence[int], elements: Sequence[int]) -> Orbits:
    """Atoms in the order of `sites`; `owner` says which of `elements` sits on each."""
    ends = np.cumsum([s.multiplicity for s in sites])
    members = [np.arange(e - s.multiplicity, e) for s, e in zip(sites, ends)]
    return Orbits(g, list(sites), members, [int(elements[o]) for o in owner])


def draw_orbits(
    g: Group, counts: Sequence[int], rng: np.random.Generator, tries: int = 60
) -> tuple[list[Site], list[int]] | None:
    """Wyckoff positions whose multiplicities add up to each count, drawn at random: sites and which count each serves.

    A position without a free direction holds one orbit. None where nothing fits.
    """
    if not all(g.reach >> count & 1 for count in counts):
        return None
    fixed = [k for k, s in enumerate(g.sites) if s.freedom == 0]
    free = [k for k, s in enumerate(g.sites) if s.freedom > 0]
    for _ in range(tries):
        left, chosen, owner = set(fixed), [], []
        for index in rng.permutation(len(counts)):
            rest = counts[index]
            while rest > 0:
                fits = [k for k in (*sorted(left), *free) if g.sites[k].multiplicity <= rest]
                if not fits:
                    break
                # large orbits first, as real crystals have few of them
                weight = np.array([g.sites[k].multiplicity for k in fits], dtype=float) ** 1.5
                k = int(rng.choice(fits, p=weight / weight.sum()))
                left.discard(k)
                chosen.append(g.sites[k])
                owner.append(int(index))
                rest -= g.sites[k].multiplicity
            if rest > 0:
                break
        else:
            return chosen, owner
    return None


def plan_orbits(
    number: int, size: int, numbers: np.ndarray | None, seed_rng: np.random.Generator, tries: int = 12
) -> Orbits:
    """Orbits of a space group for a crystal of `size` atoms (of `numbers` when given) that make this group and none above.

    Raises UserError where the group cannot hold them.
    """
    rows = settings().get(number) or [(1, (1, 0, 0, 0, 1, 0, 0, 0, 1))]
    weights = np.array([count for count, _ in rows], dtype=float)
    elements, counts = ([0], [size]) if numbers is None else (list(x) for x in np.unique(numbers, return_counts=True))
    for _ in range(tries):
        g = group(number, rows[int(seed_rng.choice(len(rows), p=weights / weights.sum()))][1])
        drawn = draw_orbits(g, [int(c) for c in counts], seed_rng)
        if drawn is None:
            if not all(g.reach >> int(c) & 1 for c in counts):
                break  # in no setting: they have the same positions
            continue
        orbits = orbits_of(g, *drawn, elements)
        if generic(orbits, seed_rng) == number:
            return orbits
    what = f"{size} atoms" if numbers is None else f"{size} atoms of counts {', '.join(map(str, counts))}"
    raise UserError(f"space group {number}: found no Wyckoff positions for {what} that give it; try other --atoms")


def generic(orbits: Orbits, rng: np.random.Generator) -> int:
    """The group that these orbits have in a cell and at coordinates of no further symmetry."""
    base = triangular(np.eye(3) * 6.0 + rng.uniform(-0.8, 0.8, (3, 3)))
    frac = orbits.place(rng.uniform(0, 1, (orbits.size, 3)))
    kinds = orbits.numbers if all(orbits.elements) else np.concatenate(
        [np.full(len(m), 3 + k) for k, m in enumerate(orbits.members)])[np.argsort(np.concatenate(orbits.members))]  # fmt: skip
    return detect(kinds, frac, orbits.cell(base))
