"""Kinds of atoms and rings that the training data have.

A network that gives every atom and pair its own probabilities says nothing of which go together: of 1,000 samples at four
evaluations 140 had an atom bonded as none in the training data is, of 1,000 real molecules not among these, 4. What an atom is
bonded to, the rings it lies in and what a ring is made of are small tables. A graph with an atom or ring outside them costs
what its chance is worth: the share of those that are the only ones of their kind (Good 1953, the chance that the next one is
new). A kind that the network draws too often costs so much that it does not (`leanings`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict
from rdkit import Chem
from rdkit.rdBase import BlockLogs

from sciconsist.domains.molecules.compiled import compiled
from sciconsist.domains.molecules.graphs import HeavyGraph, aromatic_pairs
from sciconsist.domains.molecules.hydrogens import bonded
from sciconsist.domains.molecules.rings import smallest_rings
from sciconsist.domains.molecules.vocabulary import AROMATIC, Vocabulary

PERCEPTION = (
    Chem.SanitizeFlags.SANITIZE_PROPERTIES
    | Chem.SanitizeFlags.SANITIZE_SYMMRINGS
    | Chem.SanitizeFlags.SANITIZE_SETAROMATICITY
)
BONDS, PLACE, RING = range(3)
FAMILIES = 3  # an atom's surroundings, its bonds and rings, what a ring is made of
PRIMES, FACTORS = (1073741789, 1073741783), (536870233, 268435019)  # of two hashes of 30 bits


class Costs(NamedTuple):
    """Kinds in rising order, nats of each, and nats of another by family. Of no kinds: nothing costs anything."""

    keys: np.ndarray
    nats: np.ndarray
    surprise: np.ndarray


class Kinds(BaseModel):
    """Kinds (`kinds`), in rising order, how often each is in the training data, and nats that it costs (none: nothing);
    `surprise`: nats of another kind, by family."""

    model_config = ConfigDict(extra="forbid")

    keys: list[int] = []
    counts: list[int] = []
    costs: list[float] = []
    surprise: list[float] = [0.0, 0.0, 0.0]
    molecules: int = 0

    def table(self) -> Costs:
        """What the search asks; without kinds nothing."""
        nats = self.costs or [0.0] * len(self.keys)
        return Costs(np.array(self.keys, dtype=np.int64), np.array(nats), np.array(self.surprise))


def perceived(classes: np.ndarray, orders: np.ndarray, vocabulary: Vocabulary) -> Chem.Mol | None:
    """The heavy atoms of a graph with rings and aromatic bonds found; None where RDKit refuses it."""
    try:
        with BlockLogs():
            mol = bonded(classes, orders, vocabulary)
            Chem.SanitizeMol(mol, PERCEPTION)
            return mol
    except Chem.MolSanitizeException:
        return None


def kinds(classes: np.ndarray, orders: np.ndarray, vocabulary: Vocabulary) -> np.ndarray | None:
    """The kinds of a graph's N atoms' surroundings, of their places and of its R rings, `[2 N + R]`; None where RDKit refuses
    it."""
    if (mol := perceived(classes, orders, vocabulary)) is None:
        return None
    bonds = np.where(aromatic_pairs(mol), AROMATIC, orders)
    return keys_of(classes, vocabulary.elements, bonds, *smallest_rings(orders))


def learn(graphs: Iterable[HeavyGraph], vocabulary: Vocabulary) -> Kinds:
    """The table of a training set, in which no kind costs anything."""
    counts: tuple[Counter[int], ...] = (Counter(), Counter(), Counter())
    molecules = 0
    for graph in graphs:
        if (found := kinds(graph.classes, graph.orders, vocabulary)) is not None:
            n = len(graph)
            for count, own in zip(counts, np.split(found, [n, 2 * n])):
                count.update(own.tolist())
            molecules += 1
    both = sorted((key, n) for count in counts for key, n in count.items())
    keys, numbers = zip(*both) if both else ((), ())
    return Kinds(
        keys=list(keys), counts=list(numbers), surprise=[surprise(count.values()) for count in counts], molecules=molecules
    )  # fmt: skip


def surprise(counts: Iterable[int]) -> float:
    """Nats that a kind not among those counted costs."""
    own = list(counts)
    return round(math.log(sum(own) / max(own.count(1), 1)), 3) if own else 0.0


@compiled
def keys_of(
    classes: np.ndarray, elements: np.ndarray, bonds: np.ndarray, ring_atoms: np.ndarray, begins: np.ndarray
) -> np.ndarray:  # fmt: skip
    """The kinds of a graph: an atom's class and its neighbours' with the bonds to them; its element, bonds and the sizes of its
    rings; a ring's elements and bonds in order, wherever and whichever way it is read.

    `classes` `[N]`, `elements` of the classes `[K]`, `bonds` `[N, N]` orders or AROMATIC, rings as `smallest_rings` has them.
    """
    n, many = len(classes), len(begins) - 1
    keys = np.empty(2 * n + many, np.int64)
    own, around, sizes = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(many, np.int64)
    for i in range(n):
        count = lies_in = 0
        for j in range(n):
            if bonds[i, j]:
                own[count], around[count] = bonds[i, j], 8 * classes[j] + bonds[i, j]
                count += 1
        for k in range(many):
            for a in range(begins[k], begins[k + 1]):
                if ring_atoms[a] == i:
                    sizes[lies_in] = begins[k + 1] - begins[k]
                    lies_in += 1
        _sort(around[:count])
        keys[i] = hashed(BONDS + FAMILIES * classes[i], around[:count])
        _sort(own[:count])
        _sort(sizes[:lies_in])
        keys[n + i] = hashed(hashed(PLACE + FAMILIES * elements[classes[i]], own[:count]), sizes[:lies_in])
    for k in range(many):
        size = begins[k + 1] - begins[k]
        ahead, back = np.empty(2 * size, np.int64), np.empty(2 * size, np.int64)
        for a in range(2 * size):
            at, then = ring_atoms[begins[k] + a % size], ring_atoms[begins[k] + (a + 1) % size]
            ahead[a] = 8 * elements[classes[at]] + bonds[at, then]
            back[2 * size - 1 - a] = 8 * elements[classes[then]] + bonds[at, then]
        first = RING + FAMILIES * size
        least = hashed(first, ahead[:size])
        for a in range(size):
            least = min(least, hashed(first, ahead[a : a + size]), hashed(first, back[a : a + size]))
        keys[2 * n + k] = least
    return keys


@compiled
def _sort(numbers: np.ndarray) -> None:
    """Into rising order, by insertion: numpy's own takes seconds to compile."""
    for k in range(1, len(numbers)):
        number, place = numbers[k], k
        while place and numbers[place - 1] > number:
            numbers[place] = numbers[place - 1]
            place -= 1
        numbers[place] = number


@compiled
def hashed(first: int, numbers: np.ndarray) -> int:
    """A number less than 2^60 for whole numbers in order."""
    a, b = first % PRIMES[0], first % PRIMES[1]
    for number in numbers:
        a = (a * FACTORS[0] + number + 1) % PRIMES[0]
        b = (b * FACTORS[1] + number + 1) % PRIMES[1]
    return (a << 30) + b


@compiled
def nats_of(keys: np.ndarray, atoms: int, costs: Costs, counted: np.ndarray) -> float:
    """What the kinds of a graph of so many atoms cost, of those `counted` `[2 N + R]`."""
    total = 0.0
    for k in range(len(keys)):
        if counted[k]:
            low, high = 0, len(costs.keys)
            while low < high:
                middle = (low + high) // 2
                low, high = (middle + 1, high) if costs.keys[middle] < keys[k] else (low, middle)
            if low < len(costs.keys) and costs.keys[low] == keys[k]:
                total += costs.nats[low]
            else:
                total += costs.surprise[min(k // atoms, RING)]
    return total
