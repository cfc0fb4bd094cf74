"""Which Wyckoff positions known crystals occupy together, and how likely each way is for a composition.

A crystal of a given composition starts on positions that crystals of like elements occupy, as a chemist looks for an
isostructural compound first: every training crystal with as many atoms of each element votes, by the likeness of its
elements to those asked for (learned, `likeness.py`). Free coordinates and the cell are the network's.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from itertools import permutations
from typing import Any

import numpy as np

from sciconsist.domains.crystals.orbits import Orbits, orbits_of
from sciconsist.domains.crystals.positions import Row, alike
from sciconsist.domains.crystals.symmetry import Basis, group, settings

INTERCHANGED = 5  # elements of one count that are tried in every order; with more, no positions are known
UNLIKELY = 1e-4  # share of the votes below which a way is left out
GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Occupation:
    """Positions in the cell of a basis: `sites[k]` are those of the kth element, as indices of `group(number, basis).sites`.

    `seen` `[M, K]` are the elements of the crystals that had them.
    """

    number: int
    basis: Basis
    sites: tuple[tuple[int, ...], ...]
    atoms: tuple[int, ...]  # of each element, falling
    seen: np.ndarray

    @property
    def size(self) -> int:
        return sum(self.atoms)

    @property
    def count(self) -> int:
        return len(self.seen)


@dataclass(frozen=True)
class Choice:
    """A way for a composition, and its share of the votes: atoms of `elements[k]` on the positions `sites[k]`."""

    share: float
    number: int
    basis: Basis
    sites: tuple[tuple[int, ...], ...]
    elements: tuple[int, ...]

    @property
    def orbits(self) -> Orbits:
        g = group(self.number, self.basis)
        owner = [k for k, own in enumerate(self.sites) for _ in own]
        return orbits_of(g, [g.sites[k] for own in self.sites for k in own], owner, self.elements)


@lru_cache(maxsize=1)
def _table() -> dict[str, Any]:
    text = resources.files("sciconsist.domains.crystals").joinpath("occupations.json").read_text(encoding="utf-8")
    return json.loads(text)


@lru_cache(maxsize=1)
def likeness() -> np.ndarray:
    """Coordinates of the elements by atomic number, `[Z, D]`: what is near sits in the same places of crystals."""
    return np.array(_table()["likeness"])


@lru_cache(maxsize=256)
def occupations(number: int) -> tuple[Occupation, ...]:
    """What the training data know of a group, commonest first."""
    bases = settings().get(number, [])
    return tuple(
        Occupation(number, bases[k][1], tuple(map(tuple, sites)), tuple(atoms), np.array(seen))
        for k, sites, atoms, seen in _table()["occupations"].get(str(number), [])
    )


@lru_cache(maxsize=1)
def _by_atoms() -> dict[tuple[int, ...], list[Occupation]]:
    found: dict[tuple[int, ...], list[Occupation]] = defaultdict(list)
    for number in settings():
        for o in occupations(number):
            found[o.atoms].append(o)
    return dict(found)


def orders(atoms: Sequence[int]) -> list[list[int]]:
    """Every order of the elements that exchanges those of equal counts only; counts fall. Empty where there are too many."""
    found: list[list[int]] = [[]]
    for count in sorted(set(atoms), reverse=True):
        members = [k for k, n in enumerate(atoms) if n == count]
        if len(members) > INTERCHANGED:
            return []
        found = [[*head, *tail] for head in found for tail in permutations(members)]
    return found


@lru_cache(maxsize=1024)
def _ranked(elements: tuple[int, ...], atoms: tuple[int, ...], number: int | None) -> tuple[Choice, ...]:
    known = [o for o in _by_atoms().get(atoms, []) if number is None or o.number == number]
    ways = orders(atoms)
    if not known or not ways:
        return ()
    place, share = likeness(), np.array(atoms) / sum(atoms)
    seen, owner = np.concatenate([o.seen for o in known]), np.repeat(np.arange(len(known)), [o.count for o in known])
    asked = place[np.array(elements)[ways]]  # [ways, K, D]
    distance = np.linalg.norm(asked[:, None] - place[seen], axis=-1) @ share
    votes = np.stack([np.bincount(owner, row, len(known)) for row in np.exp(-distance)])
    pooled: dict[tuple[int, tuple[Row, ...]], list[tuple[float, int, int]]] = defaultdict(list)
    for w, k in np.argwhere(votes > UNLIKELY * votes.sum()):
        o = known[k]
        rows = [(-n, sites, elements[e]) for n, sites, e in zip(o.atoms, o.sites, ways[w])]
        pooled[o.number, alike(o.number, rows)].append((float(votes[w, k]), int(w), int(k)))
    choices = []
    for _, same in sorted(pooled.items()):
        _, w, k = max(same)
        o = known[k]
        total = sum(vote for vote, _, _ in same)
        choices.append(Choice(total, o.number, o.basis, o.sites, tuple(elements[e] for e in ways[w])))
    return tuple(choices)


def likely_positions(compositions: Sequence[np.ndarray], number: int | None = None) -> list[Choice]:
    """Ways to lay out one of these compositions (atomic numbers `[N]` each), most likely first, of a space group or of any.

    Empty where no known crystal has as many atoms of each element.
    """
    found: list[Choice] = []
    for numbers in compositions:
        elements, counts = np.unique(numbers, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        found += _ranked(tuple(elements[order].tolist()), tuple(counts[order].tolist()), number)
    total = sum(c.share for c in found)
    found = [Choice(c.share / total, c.number, c.basis, c.sites, c.elements) for c in found]
    return sorted(found, key=lambda c: -c.share)


def choose(choices: Sequence[Choice], index: int) -> Choice:
    """The way that sample `index` takes: the most likely for the first, and all in their shares, evenly, for many."""
    shares = np.cumsum([c.share for c in choices])
    at = int(np.searchsorted(shares, index * GOLDEN % 1.0 * shares[-1], side="right"))
    return choices[min(at, len(choices) - 1)]


def draw_occupation(
    number: int, rng: np.random.Generator, sizes: Mapping[int, int] | None = None, elements: int | None = None
) -> Occupation | None:
    """One of a group's, as often as it was seen, of a size among `sizes`, of at most so many `elements`; None where none is."""
    fitting = [
        o
        for o in occupations(number)
        if (sizes is None or o.size in sizes) and (elements is None or len(o.atoms) <= elements)
    ]
    if not fitting:
        return None
    weights = np.array([o.count for o in fitting], dtype=float)
    return fitting[int(rng.choice(len(fitting), p=weights / weights.sum()))]
