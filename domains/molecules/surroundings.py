"""Surroundings of atoms that the training data have.

A network that gives every atom and pair its own probabilities says nothing of which go together: of 1,000 samples at four
evaluations 140 had an atom bonded as none in the training data is, of 1,000 real molecules not among these, 4. What an atom is
bonded to is a small table, and a graph with an atom outside it costs what such an atom's chance is worth: the share of atoms
that are the only ones of their kind (Good 1953, the chance that the next one is new).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
from pydantic import BaseModel, ConfigDict

from sciconsist.domains.molecules.graphs import HeavyGraph
from sciconsist.domains.molecules.vocabulary import AROMATIC


class Surroundings(BaseModel):
    """Kinds of surroundings (`surroundings`) in the training data; `surprise`: nats that one of another kind costs."""

    model_config = ConfigDict(extra="forbid")

    kinds: list[str] = []
    surprise: float = 0.0

    @cached_property
    def known(self) -> frozenset[str]:
        return frozenset(self.kinds)

    def cost(self, found: Sequence[str]) -> float:
        """Nats of atoms with these surroundings; 0 without a table."""
        return self.surprise * sum(kind not in self.known for kind in found) if self.kinds else 0.0


def bond_kinds(graph: HeavyGraph) -> np.ndarray:
    """Orders `[N, N]`, AROMATIC where a bond is."""
    return graph.orders if graph.aromatic is None else np.where(graph.aromatic, AROMATIC, graph.orders)


def surroundings(classes: np.ndarray, bonds: np.ndarray) -> list[str]:
    """The kind of each atom's surroundings: its class, and bonds and classes of its neighbours.

    `classes` `[N]` of the vocabulary, `bonds` `[N, N]` orders, AROMATIC where a bond is.
    """
    each = classes.tolist()
    return [
        f"{own}:" + ",".join(sorted([f"{bond}.{other}" for bond, other in zip(row, each) if bond]))
        for own, row in zip(each, bonds.tolist())
    ]


def learn(graphs: Iterable[HeavyGraph]) -> Surroundings:
    """The table of a training set."""
    counts: Counter[str] = Counter()
    for graph in graphs:
        counts.update(surroundings(graph.classes, bond_kinds(graph)))
    alone = sum(count == 1 for count in counts.values())
    surprise = math.log(counts.total() / max(alone, 1)) if counts else 0.0
    return Surroundings(kinds=sorted(counts), surprise=round(surprise, 3))
