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
from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np
from pydantic import BaseModel, ConfigDict
from rdkit import Chem
from rdkit.rdBase import BlockLogs

from sciconsist.domains.molecules.graphs import HeavyGraph, aromatic_pairs
from sciconsist.domains.molecules.hydrogens import bonded
from sciconsist.domains.molecules.vocabulary import AROMATIC, Vocabulary

PERCEPTION = (
    Chem.SanitizeFlags.SANITIZE_PROPERTIES
    | Chem.SanitizeFlags.SANITIZE_SYMMRINGS
    | Chem.SanitizeFlags.SANITIZE_SETAROMATICITY
)
FAMILIES = ("bonds", "place", "ring")  # an atom's surroundings, its bonds and rings, what a ring is made of


class Kinds(BaseModel):
    """How often each kind is in the training data, and nats that it costs; `surprise`: of another kind, by family."""

    model_config = ConfigDict(extra="forbid")

    counts: dict[str, int] = {}
    costs: dict[str, float] = {}
    surprise: dict[str, float] = {}
    molecules: int = 0

    def cost(self, found: Iterable[str]) -> float:
        """Nats of atoms and rings of these kinds; 0 without a table."""
        costs, counts = self.costs, self.counts
        if not counts:
            return 0.0
        return sum(costs.get(kind, 0.0) if kind in counts else self.surprise[kind.partition(" ")[0]] for kind in found)


def perceived(classes: np.ndarray, orders: np.ndarray, vocabulary: Vocabulary) -> Chem.Mol | None:
    """The heavy atoms of a graph with rings and aromatic bonds found; None where RDKit refuses it."""
    try:
        with BlockLogs():
            mol = bonded(classes, orders, vocabulary)
            Chem.SanitizeMol(mol, PERCEPTION)
            return mol
    except Chem.MolSanitizeException:
        return None


def kinds(classes: np.ndarray, orders: np.ndarray, mol: Chem.Mol) -> list[str]:
    """The kinds of all atoms and rings of a graph and what is `perceived` of it."""
    bonds = np.where(aromatic_pairs(mol), AROMATIC, orders)
    symbols = [atom.GetSymbol() for atom in mol.GetAtoms()]
    sizes: list[list[int]] = [[] for _ in symbols]
    found = surroundings(classes, bonds)
    for ring in mol.GetRingInfo().AtomRings():
        along = [int(bonds[i, j]) for i, j in zip(ring, (*ring[1:], ring[0]))]
        found.append(ring_kind(tuple(symbols[i] for i in ring), tuple(along)))
        for i in ring:
            sizes[i].append(len(ring))
    return found + places(symbols, bonds, sizes)


def places(symbols: Sequence[str], bonds: np.ndarray, sizes: Sequence[Sequence[int]]) -> list[str]:
    """The kind of each atom's place: its element, its bonds and the sizes of the rings it lies in."""
    return [
        f"place {symbol}{''.join(map(str, sorted(filter(None, row))))}:{','.join(map(str, sorted(own)))}"
        for symbol, row, own in zip(symbols, bonds.tolist(), sizes)
    ]


def surroundings(classes: np.ndarray, bonds: np.ndarray) -> list[str]:
    """The kind of each atom's surroundings: its class, and bonds and classes of its neighbours.

    `classes` `[N]` of the vocabulary, `bonds` `[N, N]` orders, AROMATIC where a bond is.
    """
    each = classes.tolist()
    return [
        f"bonds {own}:" + ",".join(sorted([f"{bond}.{other}" for bond, other in zip(row, each) if bond]))
        for own, row in zip(each, bonds.tolist())
    ]


@cache
def ring_kind(symbols: tuple[str, ...], bonds: tuple[int, ...]) -> str:
    """A ring's elements and the bonds after each, the same from wherever and whichever way it is read."""
    ways = []
    for one, after in ((symbols, bonds), (symbols[::-1], (*bonds[-2::-1], bonds[-1]))):
        steps = [f"{symbol}{bond}" for symbol, bond in zip(one, after)]
        ways += ["".join(steps[k:] + steps[:k]) for k in range(len(steps))]
    return f"ring {min(ways)}"


def learn(graphs: Iterable[HeavyGraph], vocabulary: Vocabulary) -> Kinds:
    """The table of a training set, in which no kind costs anything."""
    counts: Counter[str] = Counter()
    molecules = 0
    for graph in graphs:
        if (mol := perceived(graph.classes, graph.orders, vocabulary)) is not None:
            counts.update(kinds(graph.classes, graph.orders, mol))
            molecules += 1
    return Kinds(counts=dict(sorted(counts.items())), surprise=surprises(counts), molecules=molecules)


def surprises(counts: Counter[str]) -> dict[str, float]:
    """Nats that a kind not among `counts` costs, by family."""
    found = {}
    for family in FAMILIES:
        own = [count for kind, count in counts.items() if kind.partition(" ")[0] == family]
        alone = sum(count == 1 for count in own)
        found[family] = round(math.log(sum(own) / max(alone, 1)), 3) if own else 0.0
    return found
