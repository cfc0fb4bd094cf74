"""Graphs that are what the network was told: of the likely ones, that which keeps most of the sketch.

The network is told rings, aromatic atoms and the like of the whole, and gives every atom and pair its own probabilities; the
likeliest consistent graph of these may be one hydrogen off an aromatic ring. A number of the sketch that a graph does not
have counts as so many nats.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import islice

import numpy as np
from rdkit import Chem
from rdkit.rdBase import BlockLogs

from sciconsist.domains.molecules.decode import DecodedGraph, decode_graph, ranked_graphs
from sciconsist.domains.molecules.hydrogens import bonded
from sciconsist.domains.molecules.properties import PROPERTIES, RING_SIZES
from sciconsist.domains.molecules.vocabulary import Vocabulary
from sciconsist.domains.molecules.wishes import Told

# Nats that a number of the sketch is worth, measured (docs/experiments.md); of bonds without an aromatic class, which
# say little of aromatic rings, the rings alone
RINGS = {"rings": 6.0}
ALL = {**RINGS, **dict.fromkeys(("aromatic_atoms", "triple_bonds", *(f"{w}_rings" for w in RING_SIZES.values())), 4.0)}
SLACK, MOST, NODES = 12.0, 60, 1500  # nats, graphs and nodes of the search that are looked at


def decode_told(
    told: Told, exact: bool, atoms: np.ndarray, bonds: np.ndarray, vocabulary: Vocabulary,
    allowed: np.ndarray | None, charge: int | None, worth: Mapping[str, float] = ALL,
) -> DecodedGraph:  # fmt: skip
    """The likeliest graph, or one nearly as likely that has more of what the network was told, each number `worth` so much.

    `exact`: with the hydrogens and rings told at any cost, where there is such a graph.
    """
    likeliest = partial(decode_graph, atoms, bonds, vocabulary, allowed, charge)
    free = likeliest()
    if not free.consistent:
        return free
    if exact and "H_atoms" in told.values:
        edges = told.size - 1 + round(told.values["rings"]) if "rings" in told.values else None
        graph = likeliest(hydrogens=round(told.values["H_atoms"]), bonds=edges)
        return graph if graph.consistent else free
    wanted = {name: told.values[name] for name in worth if name in told.values}
    best, least = free, free.gap + unmet(free, wanted, worth, vocabulary)
    if least == free.gap:
        return free
    ranked = ranked_graphs(atoms, bonds, vocabulary, allowed, charge, min(SLACK, least - free.gap), NODES)
    for graph in islice(ranked, MOST):
        if graph.gap >= least:
            break
        cost = graph.gap + unmet(graph, wanted, worth, vocabulary)
        if cost < least:
            best, least = graph, cost
    return best


def unmet(
    graph: DecodedGraph, wanted: Mapping[str, float], worth: Mapping[str, float], vocabulary: Vocabulary
) -> float:
    """What the numbers wanted that a graph does not have are worth; all of them, where RDKit refuses it."""
    if not wanted:
        return 0.0
    try:
        with BlockLogs():
            mol = bonded(graph.classes, graph.orders, vocabulary)
            Chem.SanitizeMol(mol)
    except Chem.MolSanitizeException:
        return sum(worth[name] for name in wanted)
    return sum(worth[name] for name, value in wanted.items() if PROPERTIES[name].computed(mol) != value)  # type: ignore[misc]
