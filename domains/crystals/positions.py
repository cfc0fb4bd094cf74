"""Crystals on the Wyckoff positions of their space groups: which ones they occupy, and exactly where.

What moyopy finds within a tolerance is made exact: the atoms are put onto their orbits, the cell gets the group's symmetry.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import moyopy
import numpy as np

from sciconsist.domains.crystals.crystals import Crystal
from sciconsist.domains.crystals.orbits import Orbits, orbits_of
from sciconsist.domains.crystals.symmetry import ORIGINS, Basis, Group, group, nearest, primitive, table

SYMPREC = (0.05, 0.1, 0.02)  # Å, tried in turn: databases' coordinates are rounded
SAME_PLACE = 0.02  # fractional: of standardised coordinates
ORIGIN_STEPS = 12  # origins that are tried: twelfths of the cell's edges
ON_GRID = 1e-6
ANYWHERE = np.array([0.1234, 0.2718, 0.0577])  # along a site's free directions, off every other site


@dataclass(frozen=True)
class Placed:
    """A crystal in the cell of a basis: its orbits, coordinates `[N, 3]` on them in their order, triangular cell `[3, 3]` Å.

    `sites[k]` are the positions, as indices of `orbits.group.sites`, of the element `elements[k]`, which has `atoms[k]` atoms.
    """

    number: int
    basis: Basis
    sites: tuple[tuple[int, ...], ...]
    atoms: tuple[int, ...]  # falling
    elements: tuple[int, ...]
    orbits: Orbits
    frac: np.ndarray
    cell: np.ndarray


def placed(crystal: Crystal) -> Placed | None:
    """A crystal in a Niggli cell on its positions; None where its cell is not primitive or no tolerance makes it clear."""
    for symprec in SYMPREC:
        try:
            found = moyopy.MoyoDataset(
                moyopy.Cell(crystal.cell.tolist(), crystal.frac.tolist(), crystal.numbers.tolist()), symprec=symprec
            )
        except Exception:  # moyopy raises its own types for cells it cannot standardise
            continue
        standard = found.prim_std_cell
        linear = np.array(found.prim_std_linear, dtype=float)  # our x = linear x_standard + a shift
        whole = np.round(linear).astype(int)
        if len(standard.numbers) != len(crystal) or np.abs(linear - whole).max() > SAME_PLACE:
            continue
        own: Basis = tuple(int(v) for v in whole.ravel())
        g = group(int(found.number), own)
        numbers, frac = np.array(standard.numbers), np.array(standard.positions) @ whole.T
        if (seen := occupied(g, numbers, frac)) is not None:
            return _placed(g, own, seen, crystal)
    return None


def _placed(g: Group, basis: Basis, seen: dict[int, list[tuple[int, np.ndarray]]], crystal: Crystal) -> Placed | None:
    rows = sorted(
        (-sum(g.sites[k].multiplicity for k, _ in found), sorted(k for k, _ in found), z) for z, found in seen.items()
    )
    elements = tuple(z for _, _, z in rows)
    order = [sorted(seen[z], key=lambda item: item[0]) for z in elements]
    owner = [k for k, found in enumerate(order) for _ in found]
    orbits = orbits_of(g, [g.sites[k] for found in order for k, _ in found], owner, elements)
    leads = np.array([point for found in order for _, point in found])
    frac = orbits.stack.carried(leads)
    exact = orbits.place(frac)
    if np.abs(nearest(exact - frac)).max() > 2 * SAME_PLACE:
        return None  # a cell so skew that the site's nearest image was not found
    return Placed(
        g.number, basis, tuple(tuple(k for k, _ in found) for found in order), tuple(-n for n, _, _ in rows), elements,
        orbits, exact, orbits.cell(crystal.cell),
    )  # fmt: skip


def occupied(g: Group, numbers: np.ndarray, frac: np.ndarray) -> dict[int, list[tuple[int, np.ndarray]]] | None:
    """The orbits of each element of a crystal in the group's own cell: the position, and a point `[3]` of the orbit on it.

    None where atoms are on no position.
    """
    found: dict[int, list[tuple[int, np.ndarray]]] = defaultdict(list)
    left = np.ones(len(numbers), dtype=bool)
    while left.any():
        first = int(left.argmax())
        images = g.rotations @ frac[first] + g.translations
        apart = np.abs(nearest(frac[:, None] - images[None])).max(-1).min(1)
        orbit = left & (numbers == numbers[first]) & (apart < SAME_PLACE)
        at = position_of(g, images)
        if at is None or g.sites[at[0]].multiplicity != orbit.sum():
            return None
        found[int(numbers[first])].append(at)
        left &= ~orbit
    return dict(found)


def position_of(g: Group, images: np.ndarray, tolerance: float = SAME_PLACE) -> tuple[int, np.ndarray] | None:
    """The most special position that holds one of a point's images `[M, 3]`, and that image."""
    inside = images - np.floor(images)
    for k, site in enumerate(g.sites):
        across = np.eye(3) - site.projector
        offset = np.abs(((inside - site.point) @ across.T)[:, None] - ORIGINS @ across.T).max(-1)
        if (offset < tolerance).any():
            return k, inside[int(offset.min(1).argmin())]
    return None


@lru_cache(maxsize=230)
def origins(number: int) -> tuple[tuple[int, ...], ...]:
    """What other choices of the origin make of a group's positions, as permutations of their indices, the identity first.

    Crystals that differ by one of them are the same (the translations of the Euclidean normalizer; ITA vol. A, ch. 3.5).
    """
    if str(number) in (known := table().get("origins", {})):
        return tuple(map(tuple, known[str(number)]))
    g = primitive(number)
    steps = np.array(list(product(range(ORIGIN_STEPS), repeat=3))) / ORIGIN_STEPS
    moved = steps @ (g.rotations - np.eye(3)).transpose(0, 2, 1)  # [M, S, 3]
    allowed = steps[(np.abs(nearest(moved)) < ON_GRID).all((0, 2))]
    points = [site.point + site.projector @ ANYWHERE for site in g.sites]
    found: dict[tuple[int, ...], None] = {}
    for shift in allowed:
        at = [position_of(g, g.rotations @ (point + shift) + g.translations, ON_GRID) for point in points]
        if all(place is not None for place in at):
            found.setdefault(tuple(place[0] for place in at if place is not None))
    return tuple(found)


Row = tuple[int, tuple[int, ...], int]  # atoms, positions, and which element


def alike(number: int, rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows by the origin that makes them least, in order: equal for crystals that differ by the origin alone."""
    return min(
        tuple(sorted((n, tuple(sorted(to[k] for k in sites)), which) for n, sites, which in rows))
        for to in origins(number)
    )
