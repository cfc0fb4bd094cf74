"""Kinds of atoms and rings: what is learned of them, and graphs chosen by it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem

from sciconsist.domains.molecules.fulfil import Preference, decode_told
from sciconsist.domains.molecules.graphs import HeavyGraph, aromatic_pairs, heavy_graph
from sciconsist.domains.molecules.kinds import Costs, keys_of, kinds, learn, nats_of, perceived
from sciconsist.domains.molecules.properties import PROPERTIES
from sciconsist.domains.molecules.rings import smallest_rings
from sciconsist.domains.molecules.vocabulary import Vocabulary
from sciconsist.domains.molecules.weighing import NOT_ASKED, NUMBERS, Wanted, Weighing, chemistry_of, lacking
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


def kinds_of(graph: HeavyGraph, vocabulary: Vocabulary) -> list[int]:
    found = kinds(graph.classes, graph.orders, vocabulary)
    assert found is not None
    return found.tolist()


def test_the_order_of_atoms_does_not_matter_and_either_kekule_form_is_the_same(data: tuple) -> None:
    graphs, vocabulary = data
    rng = np.random.default_rng(0)
    for graph in graphs:
        own, n = kinds_of(graph, vocabulary), len(graph)
        p = rng.permutation(n)
        moved = kinds_of(HeavyGraph(graph.classes[p], graph.orders[np.ix_(p, p)]), vocabulary)
        assert sorted(moved) == sorted(own)
        assert moved[: 2 * n] == [own[k] for k in p] + [own[n + k] for k in p]
    toluene = graphs[3]
    other = toluene.orders.copy()
    ring = toluene.aromatic
    assert ring is not None
    other[ring] = 3 - other[ring]  # singles and doubles change places
    again = HeavyGraph(toluene.classes, other)
    assert kinds_of(again, vocabulary) == kinds_of(toluene, vocabulary)


def test_atoms_are_alike_where_what_they_are_bonded_to_and_their_rings_are(data: tuple) -> None:
    graphs, vocabulary = data
    ethanol, ethylamine, cyclopropylamine = (kinds_of(graphs[k], vocabulary) for k in (0, 1, 4))
    assert ethanol[0] == ethylamine[0] and ethanol[1] != ethylamine[1]  # CH3 on CH2 in both; CH2 on O or on N
    assert ethanol[3:5] == ethylamine[3:5] and len(set(ethanol[3:])) == 3  # two places of carbons in chains
    places, (ring,) = cyclopropylamine[4:8], cyclopropylamine[8:]
    assert places[0] == places[1] and places[0] not in ethanol  # two single bonds, but in a ring of three
    assert ring not in kinds_of(graphs[3], vocabulary)


@given(
    st.lists(st.tuples(st.sampled_from([0, 1, 2]), st.sampled_from([1, 2, 4])), min_size=3, max_size=8),
    st.integers(0, 7), st.booleans(),
)  # fmt: skip
def test_a_ring_reads_the_same_from_anywhere_and_either_way(ring: list[tuple[int, int]], turn: int, back: bool) -> None:
    n = len(ring)
    classes, bonds = np.array([c for c, _ in ring]), np.zeros((n, n), dtype=int)
    for k, (_, bond) in enumerate(ring):
        bonds[k, (k + 1) % n] = bonds[(k + 1) % n, k] = bond
    atoms, begins = np.arange(n), np.array([0, n])
    first = keys_of(classes, np.array([6, 7, 8]), bonds, atoms, begins)
    way = np.roll(atoms, turn)[:: -1 if back else 1].copy()
    assert keys_of(classes, np.array([6, 7, 8]), bonds, way, begins)[-1] == first[-1]
    other = bonds + (bonds > 0)
    assert keys_of(classes, np.array([6, 7, 8]), other, atoms, begins)[-1] != first[-1]


def test_compiled_and_interpreted_keys_are_the_same(data: tuple) -> None:
    for graph in data[0]:
        rings = smallest_rings(graph.orders)
        arguments = (graph.classes, data[1].elements, graph.orders, *rings)
        np.testing.assert_array_equal(keys_of(*arguments), keys_of.py_func(*arguments))


def test_the_surprise_is_the_chance_of_a_kind_not_seen_before(data: tuple) -> None:
    graphs, vocabulary = data
    found = learn(graphs, vocabulary)
    every = [kind for g in graphs for kind in kinds_of(g, vocabulary)]
    assert found.molecules == len(graphs) and sum(found.counts) == len(every) and found.keys == sorted(set(every))
    n = sum(map(len, graphs))
    families = [[], [], []]
    for graph in graphs:
        own, size = kinds_of(graph, vocabulary), len(graph)
        for family, part in zip(families, (own[:size], own[size : 2 * size], own[2 * size :])):
            family.extend(part)
    assert [len(family) for family in families[:2]] == [n, n]
    for family, nats in zip(families, found.surprise):
        alone = sum(family.count(kind) == 1 for kind in family)
        assert nats == pytest.approx(math.log(len(family) / alone), abs=1e-3)


def test_nats_are_those_of_known_kinds_and_the_surprise_of_others(data: tuple) -> None:
    graphs, vocabulary = data
    found = learn(graphs, vocabulary)
    own = np.array(kinds_of(graphs[4], vocabulary))
    n, counted = len(graphs[4]), np.ones(len(own), dtype=bool)
    assert nats_of(own, n, found.table(), counted) == 0.0
    priced = found.model_copy(update={"costs": [1.5 if key == own[0] else 0.0 for key in found.keys]})
    assert nats_of(own, n, priced.table(), counted) == pytest.approx(1.5 * (own == own[0]).sum())
    strange = own.copy()
    strange[[0, n, 2 * n]] = 7, 7, 7
    assert nats_of(strange, n, found.table(), counted) == pytest.approx(sum(found.surprise))
    counted[n] = False
    assert nats_of(strange, n, found.table(), counted) == pytest.approx(found.surprise[0] + found.surprise[2])


@given(st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_what_is_not_known_of_aromatic_bonds_yet_is_left_out(seed: int) -> None:
    """Before RDKit is asked the nats are a part of those after, and all of them where no ring can be aromatic."""
    rng = np.random.default_rng(seed)
    smiles = (
        "c1ccccc1C",
        "Cc1ccoc1",
        "C1CC1N",
        "CC(=O)OC",
        "O=C1C=CC(=O)N1",
        "OC1CC=CC1",
        "c1nc[nH]n1",
        "C1CC2CC12",
        "CC#CC#N",
    )
    mol = Chem.MolFromSmiles(smiles[rng.integers(len(smiles))])
    Chem.Kekulize(mol, clearAromaticFlags=True)
    vocabulary = Vocabulary.from_molecules([mol])
    graph = heavy_graph(mol, vocabulary)
    keys = np.unique(kinds_of(graph, vocabulary))
    keep = rng.random(len(keys)) < 0.6
    costs = Costs(keys[keep], rng.random(int(keep.sum())), 5 * rng.random(3))
    wanted = Wanted(rng.integers(0, 3, len(NUMBERS)).astype(float), rng.random(len(NUMBERS)))
    aromatic = aromatic_pairs(perceived(graph.classes, graph.orders, vocabulary))
    weighing = Weighing(wanted, chemistry_of(vocabulary), costs)
    least, unsure = lacking(graph.classes, graph.orders, NOT_ASKED, weighing)
    nats, _ = lacking(graph.classes, graph.orders, aromatic, weighing)
    assert least <= nats + 1e-12
    assert unsure or least == pytest.approx(nats)
    assert unsure or not aromatic.any()
    measured = Chem.MolFromSmiles(Chem.MolToSmiles(mol))
    counts = {name: PROPERTIES[name].computed(measured) for name in NUMBERS}  # type: ignore[misc]
    missed = sum(w for name, v, w in zip(NUMBERS, *wanted) if counts[name] != v)
    assert nats == pytest.approx(
        missed + nats_of(np.array(kinds_of(graph, vocabulary)), len(graph), costs, np.ones(99, bool))
    )


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
    patient = usual.model_copy(update={"surprise": [1.0, 0.0, 0.0]})
    chosen = decode_told(*chain["arguments"], Preference(costs=patient.table()))
    assert chosen.classes.tolist() == chain["alcohol"]
    assert chosen.gap == pytest.approx(chain["gap"])
    hasty = usual.model_copy(update={"surprise": [0.1, 0.0, 0.0]})  # cheaper than what it would take
    kept = decode_told(*chain["arguments"], Preference(costs=hasty.table()))
    assert kept.classes.tolist() == chain["ether"]


@pytest.mark.parametrize(
    ("known", "found"),
    [({"COC", "COO", "CCC"}, "alcohol"), ({"CCO"}, "ether"), ({"COC", "COO", "CCC", "CCO"}, "ether"), (set(), "ether")],
)
def test_a_known_molecule_gives_way_to_a_new_one_where_there_is_one(chain: dict, known: set[str], found: str) -> None:
    chosen = decode_told(*chain["arguments"], Preference(known=known))
    assert chosen.classes.tolist() == chain[found]
    assert chosen.gap == pytest.approx(chain["gap"] if found == "alcohol" else 0.0)
