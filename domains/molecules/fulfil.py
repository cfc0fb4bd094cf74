"""Graphs that are what the network was told and what the data know: of the likely ones, that which keeps most of both.

The network is told rings, aromatic atoms and the like of the whole, and gives every atom and pair its own probabilities; the
likeliest consistent graph of these may be one hydrogen off an aromatic ring, or have an atom bonded as none in the training
data is. A number of the sketch that a graph does not have counts as so many nats, and so does such an atom, and being in the
user's library where new molecules are asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from sciconsist.domains.molecules.decode import DecodedGraph, Farther, Search, decode_graph, decode_weighed
from sciconsist.domains.molecules.graphs import aromatic_pairs
from sciconsist.domains.molecules.hydrogens import bonded
from sciconsist.domains.molecules.kinds import Costs, Kinds, perceived
from sciconsist.domains.molecules.metrics.validity import canonical_smiles
from sciconsist.domains.molecules.properties import RING_SIZES
from sciconsist.domains.molecules.ranking import Found
from sciconsist.domains.molecules.repairs import Totals
from sciconsist.domains.molecules.vocabulary import Vocabulary
from sciconsist.domains.molecules.weighing import NUMBERS, Wanted, Weighing, chemistry_of, lacking
from sciconsist.domains.molecules.wishes import Told

# Nats that a number of the sketch is worth, measured (docs/experiments.md); of bonds without an aromatic class, which
# say little of aromatic rings, the rings alone
RINGS = {"rings": 6.0}
ALL = {
    "rings": 10.0, "H_atoms": 6.0, "aromatic_atoms": 12.0, "triple_bonds": 8.0, "inner_triple_bonds": 8.0,
    **{f"{word}_rings": 4.0 for word in RING_SIZES.values()},
}  # fmt: skip
NEAR = Search(slack=10.0, most=60, nodes=400, haste=4.0)
FAR = Search(slack=20.0, most=100, nodes=2000, haste=4.0)
# Where the best graph lacks so many nats, another is looked for FAR, among those of the hydrogens and rings told: a number
# told costs less than this, what is known (where new molecules are asked for) as much
LACKING = KNOWN = 14.0


@dataclass(frozen=True)
class Preference:
    """What a graph is chosen for that is nearly as likely as another: more of the numbers told, each `worth` so many nats,
    atoms and rings of kinds that cost less, none of the `known` SMILES (`canonical_smiles`)."""

    worth: Mapping[str, float] = field(default_factory=lambda: ALL)
    costs: Costs = field(default_factory=Kinds().table)
    known: Collection[str] = frozenset()


def decode_told(
    told: Told, exact: bool, atoms: np.ndarray, bonds: np.ndarray, vocabulary: Vocabulary,
    allowed: np.ndarray | None, charge: int | None, preference: Preference,
) -> DecodedGraph:  # fmt: skip
    """The likeliest graph, or one nearly as likely that is preferred.

    `exact`: with the hydrogens and rings told at any cost, where there is such a graph; nothing else is preferred.
    """
    totals = totals_of(told, charge)
    if exact and totals.hydrogens is not None:
        graph = decode_graph(atoms, bonds, vocabulary, allowed, charge, totals.hydrogens, totals.bonds)
        return graph if graph.consistent else decode_graph(atoms, bonds, vocabulary, allowed, charge)
    weighing = weighing_of(told, preference, vocabulary)
    answer = partial(penalty, weighing=weighing, known=preference.known, vocabulary=vocabulary)
    farther = Farther(LACKING, FAR, totals)
    return decode_weighed(atoms, bonds, vocabulary, allowed, charge, answer, NEAR, weighing, farther)


def totals_of(told: Told, charge: int | None) -> Totals:
    """Charge, hydrogens and bonded pairs of heavy atoms, those that are told."""
    hydrogens, rings = told.values.get("H_atoms"), told.values.get("rings")
    return Totals(
        charge, None if hydrogens is None else round(hydrogens), None if rings is None else told.size - 1 + round(rings)
    )


def weighing_of(told: Told, preference: Preference, vocabulary: Vocabulary) -> Weighing:
    """What a preference asks of graphs, of one molecule that is told something."""
    worth = {name: nats for name, nats in preference.worth.items() if name in told.values}
    wanted = Wanted(np.zeros(len(NUMBERS)), np.zeros(len(NUMBERS)))
    for name, nats in worth.items():
        wanted.values[NUMBERS.index(name)], wanted.worth[NUMBERS.index(name)] = told.values[name], nats
    return Weighing(wanted, chemistry_of(vocabulary), preference.costs)


def penalty(
    found: Found, enough: float, weighing: Weighing, vocabulary: Vocabulary, known: Collection[str] = frozenset()
) -> float:  # fmt: skip
    """What a graph costs beside being less likely than another; RDKit is asked where that is not known and less than enough."""
    nats = found.nats
    if found.unsure:
        if (mol := perceived(found.classes, found.orders, vocabulary)) is None:
            return float(weighing.costs.surprise.sum() + weighing.wanted.worth.sum())
        nats, _ = lacking(found.classes, found.orders, aromatic_pairs(mol), weighing)
    if known and nats < enough and canonical_smiles(bonded(found.classes, found.orders, vocabulary)) in known:
        nats += KNOWN
    return float(nats)
