"""Which Wyckoff positions real crystals of a space group occupy together: a crystal with a wanted group starts from one.

Positions drawn at random mostly make crystals that nobody has seen, and that relax into a group above the one asked for.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import numpy as np

from sciconsist.domains.crystals.crystals import Crystal
from sciconsist.domains.crystals.symmetry import (
    ORIGINS,
    Basis,
    Group,
    Orbits,
    generic,
    group,
    nearest,
    orbits_of,
    settings,
)
from sciconsist.extras import need

SAME_PLACE = 0.02  # fractional: of standardised coordinates


@dataclass(frozen=True)
class Occupation:
    """Positions that crystals occupied `count` times, in the cell of a basis: `sites[k]` are those of the kth element.

    `sites` are indices of `group(number, basis).sites`.
    """

    count: int
    basis: Basis
    sites: tuple[tuple[int, ...], ...]
    atoms: tuple[int, ...]  # of each element, falling

    @property
    def size(self) -> int:
        return sum(self.atoms)


@lru_cache(maxsize=1)
def _table() -> dict[str, list]:
    text = resources.files("sciconsist.domains.crystals").joinpath("occupations.json").read_text(encoding="utf-8")
    return json.loads(text)["occupations"]


@lru_cache(maxsize=256)
def occupations(number: int) -> tuple[Occupation, ...]:
    """What the training data know of a group, commonest first."""
    bases = settings().get(number, [])
    return tuple(
        Occupation(count, bases[k][1], tuple(map(tuple, sites)), tuple(atoms))
        for count, k, sites, atoms in _table().get(str(number), [])
    )


def draw_occupation(
    number: int, rng: np.random.Generator, atoms: Sequence[int] | None = None,
    sizes: Mapping[int, int] | None = None, elements: int | None = None,
) -> Occupation | None:  # fmt: skip
    """One of a group's, as often as it was seen: with these `atoms` of each element (in any order), of a size among
    `sizes`, of at most so many `elements`; None where none is known.
    """
    fitting = [
        o
        for o in occupations(number)
        if (atoms is None or sorted(o.atoms) == sorted(atoms))
        and (sizes is None or o.size in sizes)
        and (elements is None or len(o.atoms) <= elements)
    ]
    if not fitting:
        return None
    weights = np.array([o.count for o in fitting], dtype=float)
    return fitting[int(rng.choice(len(fitting), p=weights / weights.sum()))]


def known_orbits(number: int, numbers: np.ndarray, rng: np.random.Generator, tries: int = 12) -> Orbits | None:
    """Orbits for atoms of `numbers`, as crystals of as many atoms of each element have them; None where none are known."""
    elements, counts = np.unique(numbers, return_counts=True)
    for _ in range(tries):
        if (o := draw_occupation(number, rng, counts.tolist())) is None:
            return None
        g, left, owner = group(number, o.basis), set(range(len(elements))), []
        for wanted, sites in zip(o.atoms, o.sites):
            k = int(rng.choice([k for k in sorted(left) if counts[k] == wanted]))
            left.discard(k)
            owner += [k] * len(sites)
        orbits = orbits_of(g, [g.sites[k] for sites in o.sites for k in sites], owner, elements.tolist())
        if generic(orbits, rng) == number:
            return orbits
    return None


def count_occupations(crystals: Sequence[Crystal], limit: int = 60) -> dict[str, list]:
    """What `occupations` reads, from crystals in their Niggli cells: the commonest of each group, in bases of `settings`."""
    moyopy = need("moyopy", "screen", "space groups")
    seen: dict[int, Counter[tuple]] = defaultdict(Counter)
    for c in crystals:
        try:
            found = moyopy.MoyoDataset(moyopy.Cell(c.cell.tolist(), c.frac.tolist(), c.numbers.tolist()), symprec=0.05)
        except Exception:  # moyopy raises its own types for cells it cannot standardise
            continue
        number, primitive = int(found.number), found.prim_std_cell
        basis = np.round(np.linalg.inv(np.array(found.prim_std_linear, dtype=float))).astype(int)
        bases = [b for _, b in settings().get(number, [])]
        if (own := tuple(int(v) for v in basis.ravel())) not in bases or len(primitive.numbers) != len(c):
            continue
        frac = np.array(primitive.positions) @ basis.T
        if (sites := occupied(group(number, own), np.array(primitive.numbers), frac)) is not None:
            seen[number][(bases.index(own), *sites)] += 1
    return {str(g): [[n, k, sites, atoms] for (k, sites, atoms), n in seen[g].most_common(limit)] for g in sorted(seen)}


def occupied(g: Group, numbers: np.ndarray, frac: np.ndarray) -> tuple[tuple, tuple] | None:
    """The positions of each element of a crystal in the group's own cell, and its atoms of each; None where unclear."""
    found: dict[int, list[int]] = defaultdict(list)
    left = np.ones(len(numbers), dtype=bool)
    while left.any():
        first = int(left.argmax())
        images = g.rotations @ frac[first] + g.translations
        apart = np.abs(nearest(frac[:, None] - images[None])).max(-1).min(1)
        orbit = left & (numbers == numbers[first]) & (apart < SAME_PLACE)
        site = position_of(g, images)
        if site is None or g.sites[site].multiplicity != orbit.sum():
            return None
        found[int(numbers[first])].append(site)
        left &= ~orbit
    rows = sorted((-sum(g.sites[k].multiplicity for k in sites), tuple(sorted(sites))) for sites in found.values())
    return tuple(sites for _, sites in rows), tuple(-n for n, _ in rows)


def position_of(g: Group, images: np.ndarray) -> int | None:
    """The most special position that holds one of a point's images `[M, 3]`."""
    for k, site in enumerate(g.sites):
        across = np.eye(3) - site.projector
        offset = ((images - np.floor(images)) - site.point) @ across.T
        if (np.abs(offset[:, None] - ORIGINS @ across.T).max(-1) < SAME_PLACE).any():
            return k
    return None
