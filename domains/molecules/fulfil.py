"""Graphs that are what the network was told and what the data know: of the likely ones, that which keeps most of both.

The network is told rings, aromatic atoms and the like of the whole, and gives every atom and pair its own probabilities; the
likeliest consistent graph of these may be one hydrogen off an aromatic ring, or have an atom bonded as none in the training
data is. A number of the sketch that a graph does not have counts as so many nats, and so does such an atom, and being in the
user's library where new molecules are asked for.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from sciconsist.domains.molecules.decode import DecodedGraph, Penalty, Search, decode_graph, decode_weighed
from sciconsist.domains.molecules.graphs import aromatic_pairs
from sciconsist.domains.molecules.hydrogens import bonded
from sciconsist.domains.molecules.kinds import Kinds, kinds, perceived, surroundings
from sciconsist.domains.molecules.metrics.validity import canonical_smiles
from sciconsist.domains.molecules.properties import RING_SIZES
from sciconsist.domains.molecules.vocabulary import Vocabulary
from sciconsist.domains.molecules.wishes import Told

# Nats that a number of the sketch is worth, measured (docs/experiments.md); of bonds without an aromatic class, which
# say little of aromatic rings, the rings alone
RINGS = {"rings": 6.0}
ALL = {
    **RINGS, "aromatic_atoms": 8.0, "triple_bonds": 4.0, **{f"{word}_rings": 4.0 for word in RING_SIZES.values()},
}  # fmt: skip
NEAR = Search(slack=10.0, most=60, nodes=700, haste=3.0)
KNOWN = 14.0  # nats that being known costs, where new molecules are asked for; the search then looks farther
FAR = Search(slack=14.0, most=100, nodes=1500, haste=3.0)


@dataclass(frozen=True)
class Preference:
    """What a graph is chosen for that is nearly as likely as another: more of the numbers told, each `worth` so many nats,
    atoms and rings of `usual` kinds, none of the `known` SMILES (`canonical_smiles`)."""

    worth: Mapping[str, float] = field(default_factory=lambda: ALL)
    usual: Kinds = field(default_factory=Kinds)
    known: Collection[str] = frozenset()


def decode_told(
    told: Told, exact: bool, atoms: np.ndarray, bonds: np.ndarray, vocabulary: Vocabulary,
    allowed: np.ndarray | None, charge: int | None, preference: Preference,
) -> DecodedGraph:  # fmt: skip
    """The likeliest graph, or one nearly as likely that is preferred.

    `exact`: with the hydrogens and rings told at any cost, where there is such a graph; nothing else is preferred.
    """
    if exact and "H_atoms" in told.values:
        edges = told.size - 1 + round(told.values["rings"]) if "rings" in told.values else None
        graph = decode_graph(atoms, bonds, vocabulary, allowed, charge, round(told.values["H_atoms"]), edges)
        return graph if graph.consistent else decode_graph(atoms, bonds, vocabulary, allowed, charge)
    penalty = penalties(told, preference, vocabulary)
    return decode_weighed(atoms, bonds, vocabulary, allowed, charge, penalty, FAR if preference.known else NEAR)


def penalties(told: Told, preference: Preference, vocabulary: Vocabulary) -> Penalty:
    """What graphs cost a preference beside what they are less likely than another."""
    wanted = {name: told.values[name] for name in preference.worth if name in told.values}
    known = preference.known

    def penalty(classes: np.ndarray, orders: np.ndarray, enough: float) -> float:
        nats = lacking(classes, orders, wanted, preference, vocabulary, enough)
        if known and nats < enough and canonical_smiles(bonded(classes, orders, vocabulary)) in known:
            nats += KNOWN
        return nats

    return penalty


def lacking(
    classes: np.ndarray, orders: np.ndarray, wanted: Mapping[str, float], preference: Preference,
    vocabulary: Vocabulary, enough: float = math.inf,
) -> float:  # fmt: skip
    """Nats of the numbers wanted that a graph does not have, all where RDKit refuses it, and of its atoms and rings.

    The graph is classes `[N]` and orders `[N, N]`. Where what is seen so far makes `enough`, no more is looked at. Of a
    graph without rings only its atoms' surroundings count.
    """
    worth, usual = preference.worth, preference.usual
    if not wanted and not usual.counts:
        return 0.0
    single, double, triple = (int(np.count_nonzero(orders == order)) // 2 for order in (1, 2, 3))
    rings = single + double + triple - len(classes) + 1
    has = {"rings": rings, "triple_bonds": triple}
    plain = not rings or double < 2  # furan, the smallest aromatic ring, has two double bonds
    if plain:
        has["aromatic_atoms"] = 0
    if not rings:
        has |= dict.fromkeys((f"{word}_rings" for word in RING_SIZES.values()), 0)

    def unmet() -> float:
        return sum(worth[name] for name, value in wanted.items() if has.get(name, value) != value)

    least = unmet()
    if least >= enough:
        return least
    of_kinds = usual.cost(surroundings(classes, orders)) if plain else 0.0
    if not rings or least + of_kinds >= enough:
        return least + of_kinds
    if (mol := perceived(classes, orders, vocabulary)) is None:
        return sum(usual.surprise.values()) + sum(worth[name] for name in wanted)
    sizes = [len(ring) for ring in mol.GetRingInfo().AtomRings()]
    has |= {f"{word}_rings": sizes.count(size) for size, word in RING_SIZES.items()}
    if not plain:
        has["aromatic_atoms"] = int(aromatic_pairs(mol).any(0).sum())
    least = unmet()
    return least + (of_kinds if least + of_kinds >= enough else usual.cost(kinds(classes, orders, mol)))
