"""What a graph lacks of what it is to have: numbers that were told, usual kinds of atoms and rings."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from sciconsist.domains.molecules.compiled import compiled
from sciconsist.domains.molecules.kinds import Costs, Kinds, keys_of, nats_of
from sciconsist.domains.molecules.properties import RING_SIZES
from sciconsist.domains.molecules.rings import smallest_rings
from sciconsist.domains.molecules.vocabulary import AROMATIC, Vocabulary

NUMBERS = ("rings", "triple_bonds", "aromatic_atoms", *(f"{word}_rings" for word in RING_SIZES.values()))
RINGS, TRIPLE, AROMATIC_ATOMS, OTHERS = range(4)
SMALLEST, LARGEST = min(RING_SIZES), max(RING_SIZES)
NOT_ASKED = np.zeros((0, 0), dtype=bool)


class Chemistry(NamedTuple):
    """Of each class `[K]`: its atomic number, and whether without multiple bonds it takes part in no aromatic ring."""

    elements: np.ndarray
    closed: np.ndarray


class Wanted(NamedTuple):
    """Of each of `NUMBERS`: the value told and what it is worth, nats (0: nothing)."""

    values: np.ndarray
    worth: np.ndarray


class Weighing(NamedTuple):
    """What is asked of a graph."""

    wanted: Wanted
    chemistry: Chemistry
    costs: Costs


@cache
def chemistry_of(vocabulary: Vocabulary) -> Chemistry:
    return Chemistry(vocabulary.elements(), np.array([c.symbol == "C" and c.charge == 0 for c in vocabulary.classes]))


@compiled
def lacking(
    classes: np.ndarray, orders: np.ndarray, aromatic: np.ndarray, weighing: Weighing
) -> tuple[float, bool]:  # fmt: skip
    """Nats of the numbers wanted that a graph does not have, and of its atoms and rings; whether more is not yet known.

    The graph is classes `[N]`, orders `[N, N]` and which bonds are `aromatic` `[N, N]`; where that is not asked yet (`[0, 0]`)
    what depends on it is left out, and the second is true.
    """
    wanted, chemistry, costs = weighing
    n = len(classes)
    ring_atoms, begins = smallest_rings(orders > 0)
    bonds, open_ = orders.copy(), np.zeros((n, n), np.bool_)  # bonds that may be aromatic, as far as is known
    counts = np.zeros(len(NUMBERS))
    unsure = False
    for k in range(len(begins) - 1):
        ring = ring_atoms[begins[k] : begins[k + 1]]
        if SMALLEST <= len(ring) <= LARGEST:
            counts[OTHERS + len(ring) - SMALLEST] += 1
        may_be = len(aromatic) == 0
        for i in ring:
            may_be = may_be and not (chemistry.closed[classes[i]] and orders[i].max() == 1)
        unsure = unsure or may_be
        for a in range(len(ring)):
            i, j = ring[a - 1], ring[a]
            open_[i, j] = open_[j, i] = open_[i, j] or may_be
    if len(aromatic):
        for i in range(n):
            for j in range(n):
                if aromatic[i, j]:
                    bonds[i, j] = AROMATIC
            counts[AROMATIC_ATOMS] += aromatic[i].any()
    for i in range(n):
        for j in range(i):
            counts[RINGS] += orders[i, j] > 0
            counts[TRIPLE] += orders[i, j] == 3
    counts[RINGS] -= n - 1
    nats = 0.0
    for k in range(len(NUMBERS)):
        if wanted.worth[k] > 0 and counts[k] != wanted.values[k] and not (unsure and k == AROMATIC_ATOMS):
            nats += wanted.worth[k]
    if len(costs.keys):
        counted = np.ones(2 * n + len(begins) - 1, np.bool_)
        for i in range(n):
            counted[i] = counted[n + i] = not open_[i].any()
        for k in range(len(begins) - 1):
            counted[2 * n + k] = not open_[ring_atoms[begins[k]], ring_atoms[begins[k] + 1]]
        keys = keys_of(classes, chemistry.elements, bonds, ring_atoms, begins)
        nats += nats_of(keys, n, costs, counted)
    return nats, unsure


def no_weighing(vocabulary: Vocabulary) -> Weighing:
    """One that asks nothing."""
    return Weighing(Wanted(np.zeros(len(NUMBERS)), np.zeros(len(NUMBERS))), chemistry_of(vocabulary), Kinds().table())
