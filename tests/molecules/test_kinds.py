"""Kinds of atoms and rings: what is learned of them, and graphs chosen by it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rdkit import Chem

from sciconsist.domains.molecules.fulfil import Preference, decode_told
from sciconsist.domains.molecules.graphs import HeavyGraph, heavy_graph
from sciconsist.domains.molecules.kinds import Kinds, kinds, learn, perceived, ring_kind
from sciconsist.domains.molecules.vocabulary import Vocabulary
from sciconsist.domains.molecules.wishes import Told

SMILES = ("CCO", "CCN", "CC(C)O", "c1ccccc1C", "C1CC1N", "CC(=O)OC", "OCN")


@pytest.fixture(scope="module")
def data() -> tuple[list[HeavyGraph], Vocabulary]:
    mols = [Chem.MolFromSmiles(s) for s in SMILES]
    bare = [Chem.Mol(m) for m in mols]
    for mol in bare:
        Chem.Kekulize(mol, clearAromaticFlags=True)
    vocabulary = Vocabulary.from_molecules(bare)
    return [heavy_graph(mol, vocabulary) for mol in bare], vocabulary


def kinds_of(graph: HeavyGraph, vocabulary: Vocabulary) -> list[str]:
    mol = perceived(graph.classes, graph.orders, vocabulary)
    assert mol is not None
    return kinds(graph.classes, graph.orders, mol)


def test_the_order_of_atoms_does_not_matter_and_either_kekule_form_is_the_same(data: tuple) -> None:
    graphs, vocabulary = data
    rng = np.random.default_rng(0)
    for graph in graphs:
        own = kinds_of(graph, vocabulary)
        p = rng.permutation(len(graph))
        moved = kinds_of(HeavyGraph(graph.classes[p], graph.orders[np.ix_(p, p)]), vocabulary)
        assert sorted(moved) == sorted(own) and moved[: len(graph)] == [own[k] for k in p]
    toluene = graphs[3]
    other = toluene.orders.copy()
    ring = toluene.aromatic
    assert ring is not None
    other[ring] = 3 - other[ring]  # singles and doubles change places
    again = HeavyGraph(toluene.classes, other)
    assert kinds_of(again, vocabulary) == kinds_of(toluene, vocabulary)


def test_rings_and_their_atoms_are_named_by_what_they_are(data: tuple) -> None:
    graphs, vocabulary = data
    ethanol = [kind for kind in kinds_of(graphs[0], vocabulary) if not kind.startswith("bonds ")]
    assert ethanol == ["place C1:", "place C11:", "place O1:"]
    cyclopropane = kinds_of(graphs[4], vocabulary)
    assert cyclopropane.count("ring C1C1C1") == 1
    assert cyclopropane.count("place C11:3") == 2 and cyclopropane.count("place C111:3") == 1


@given(st.lists(st.tuples(st.sampled_from("CNO"), st.sampled_from([1, 2, 4])), min_size=3, max_size=8), st.data())
def test_a_ring_reads_the_same_from_anywhere_and_either_way(ring: list[tuple[str, int]], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(ring) - 1))
    turned = ring[start:] + ring[:start]
    symbols, bonds = zip(*turned)
    assert ring_kind(symbols, bonds) == ring_kind(*zip(*ring))
    back = (symbols[0], *symbols[:0:-1])  # bonds lie between a symbol and the next: the last one comes first
    assert ring_kind(back, bonds[::-1]) == ring_kind(symbols, bonds)


def test_the_surprise_is_the_chance_of_a_kind_not_seen_before(data: tuple) -> None:
    graphs, vocabulary = data
    found = learn(graphs, vocabulary)
    every = [kind for g in graphs for kind in kinds_of(g, vocabulary)]
    assert found.molecules == len(graphs) and sum(found.counts.values()) == len(every)
    for family in ("bonds", "place", "ring"):
        own = [kind for kind in every if kind.startswith(family + " ")]
        alone = sum(own.count(kind) == 1 for kind in own)
        assert found.surprise[family] == pytest.approx(math.log(len(own) / alone), abs=1e-3)
    assert found.cost(every) == 0.0
    assert found.cost([*every, "bonds 0:1.11,1.1", "ring none"]) == pytest.approx(
        found.surprise["bonds"] + found.surprise["ring"]
    )
    priced = found.model_copy(update={"costs": {every[0]: 1.5}})
    assert priced.cost(every) == pytest.approx(1.5 * every.count(every[0]))
    assert learn([], vocabulary).cost(["bonds 1:"]) == Kinds().cost(["bonds 1:"]) == 0.0


@pytest.fixture
def chain(data: tuple) -> dict:
    """Three atoms that are ethanol, or dimethyl ether, which is a little likelier; `decode_told`'s arguments."""
    _, vocabulary = data
    names = [(c.symbol, c.hydrogens) for c in vocabulary.classes]
    methyl, methylene, hydroxyl = (names.index(k) for k in (("C", 3), ("C", 2), ("O", 1)))
    ether = next(k for k, c in enumerate(vocabulary.classes) if (c.symbol, c.hydrogens, c.charge) == ("O", 0, 0))
    atoms = np.full((3, len(vocabulary)), -30.0)
    atoms[0, methyl] = 0.0
    atoms[1, [methylene, ether]] = np.log([0.45, 0.55])
    atoms[2, [hydroxyl, methyl]] = np.log([0.45, 0.55])
    bonds = np.full((3, 3, 4), -30.0)
    bonds[..., 0] = 0.0
    for i, j in ((0, 1), (1, 2)):
        for a, b in ((i, j), (j, i)):
            bonds[a, b] = [-30.0, 0.0, -30.0, -30.0]
    ends = {"ether": [methyl, ether, methyl], "alcohol": [methyl, methylene, hydroxyl]}
    arguments = (Told(3, {}), False, atoms, bonds, vocabulary, None, 0)
    return {"arguments": arguments, "gap": 2 * np.log(0.55 / 0.45), **ends}


def test_a_graph_nearly_as_likely_gives_way_to_one_of_known_surroundings(data: tuple, chain: dict) -> None:
    usual = learn([data[0][0]], data[1])  # of ethanol alone
    free = decode_told(*chain["arguments"], Preference())
    assert free.classes.tolist() == chain["ether"] and free.gap == 0
    patient = usual.model_copy(update={"surprise": {"bonds": 1.0}})
    chosen = decode_told(*chain["arguments"], Preference(usual=patient))
    assert chosen.classes.tolist() == chain["alcohol"]
    assert chosen.gap == pytest.approx(chain["gap"])
    hasty = usual.model_copy(update={"surprise": {"bonds": 0.1}})  # cheaper than what it would take
    kept = decode_told(*chain["arguments"], Preference(usual=hasty))
    assert kept.classes.tolist() == chain["ether"]


@pytest.mark.parametrize(
    ("known", "found"),
    [({"COC", "COO", "CCC"}, "alcohol"), ({"CCO"}, "ether"), ({"COC", "COO", "CCC", "CCO"}, "ether"), (set(), "ether")],
)
def test_a_known_molecule_gives_way_to_a_new_one_where_there_is_one(chain: dict, known: set[str], found: str) -> None:
    chosen = decode_told(*chain["arguments"], Preference(known=known))
    assert chosen.classes.tolist() == chain[found]
    assert chosen.gap == pytest.approx(chain["gap"] if found == "alcohol" else 0.0)
