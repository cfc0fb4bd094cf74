"""What a graph lacks of what it is to have: numbers that were told, usual kinds of atoms and rings."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sciconsist.domains.molecules.compiled import compiled
from sciconsist.domains.molecules.kinds import Costs, Kinds, keys_of, nats_of
from sciconsist.domains.molecules.properties import RING_SIZES
from sciconsist.domains.molecules.rings import smallest_rings
from sciconsist.domains.molecules.vocabulary import AROMATIC, Vocabulary

NUMBERS = (
    "rings", "triple_bonds", "inner_triple_bonds", "H_atoms", "aromatic_atoms",
    *(f"{word}_rings" for word in RING_SIZES.values()),
)  # fmt: skip
RINGS, TRIPLE, INNER, HYDROGENS, AROMATIC_ATOMS, OTHERS = range(6)
SMALLEST, LARGEST = min(RING_SIZES), max(RING_SIZES)
NOT_ASKED = np.zeros((0, 0), dtype=bool)


class Chemistry(NamedTuple):
    """Of each class `[K]`: its atomic number and hydrogens, and whether without multiple bonds it takes part in no aromatic
    ring."""

    elements: np.ndarray
    hydrogens: np.ndarray
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


def chemistry_of(vocabulary: Vocabulary) -> Chemistry:
    return Chemistry(vocabulary.elements, vocabulary.hydrogens, (vocabulary.elements == 6) & (vocabulary.charges == 0))


@compiled
def lacking(
    classes: np.ndarray, orders: np.ndarray, aromatic: np.ndarray, weighing: Weighing
) -> tuple[float, bool]:  # fmt: skip
    """Nats of the numbers wanted that a graph does not have, and of its atoms and rings; whether more is not yet known.

    The graph is classes `[N]`, orders `[N, N]` and which bonds are `aromatic` `[N, N]`; where that is not asked yet (`[0, 0]`)
    what depends on it is left out, and the second is true.
    """
    wanted, chemistry, costs = weighing
    n, asked = len(classes), len(aromatic) > 0
    ring_atoms, begins = smallest_rings(orders)
    many = len(begins) - 1
    bonds, counts = np.empty((n, n), np.int64), np.zeros(len(NUMBERS))
    closed, counted, near = np.empty(n, np.bool_), np.empty(2 * n + many, np.bool_), np.zeros(n, np.int64)
    counts[RINGS] = 1 - n
    for i in range(n):
        most, own = 0, False
        for j in range(n):
            near[i] += orders[i, j] > 0
            is_aromatic = asked and aromatic[i, j]
            bonds[i, j] = AROMATIC if is_aromatic else orders[i, j]
            most, own = max(most, orders[i, j]), own or is_aromatic
            if j < i:
                counts[RINGS] += orders[i, j] > 0
                counts[TRIPLE] += orders[i, j] == 3
        counts[AROMATIC_ATOMS] += own
        counts[HYDROGENS] += chemistry.hydrogens[classes[i]]
        closed[i] = chemistry.closed[classes[i]] and most == 1
        counted[i] = counted[n + i] = True
    for i in range(n):
        for j in range(i):
            counts[INNER] += orders[i, j] == 3 and near[i] > 1 and near[j] > 1
    unsure = False
    for k in range(many):
        size = begins[k + 1] - begins[k]
        if SMALLEST <= size <= LARGEST:
            counts[OTHERS + size - SMALLEST] += 1
        may_be = not asked
        for a in range(begins[k], begins[k + 1]):
            may_be = may_be and not closed[ring_atoms[a]]
        if may_be:  # what is known of its atoms, and of rings that share a bond with it, is not all
            unsure = True
            for a in range(begins[k], begins[k + 1]):
                counted[ring_atoms[a]] = counted[n + ring_atoms[a]] = False
    for k in range(many):
        open_atoms = 0
        for a in range(begins[k], begins[k + 1]):
            open_atoms += not counted[ring_atoms[a]]
        counted[2 * n + k] = open_atoms < 2
    nats = 0.0
    for k in range(len(NUMBERS)):
        if wanted.worth[k] > 0 and counts[k] != wanted.values[k] and not (unsure and k == AROMATIC_ATOMS):
            nats += wanted.worth[k]
    if len(costs.keys):
        keys = keys_of(classes, chemistry.elements, bonds, ring_atoms, begins)
        nats += nats_of(keys, n, costs, counted)
    return nats, unsure


def no_weighing(vocabulary: Vocabulary) -> Weighing:
    """One that asks nothing."""
    return Weighing(Wanted(np.zeros(len(NUMBERS)), np.zeros(len(NUMBERS))), chemistry_of(vocabulary), Kinds().table())
