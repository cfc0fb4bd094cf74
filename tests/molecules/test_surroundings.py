"""Surroundings of atoms: what is learned of them, and graphs chosen by it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from rdkit import Chem

from sciconsist.domains.molecules.fulfil import Preference, decode_told
from sciconsist.domains.molecules.graphs import HeavyGraph, heavy_graph
from sciconsist.domains.molecules.surroundings import Surroundings, bond_kinds, learn, surroundings
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


def test_the_order_of_atoms_does_not_matter_and_either_kekule_form_is_the_same(data: tuple) -> None:
    graphs, _ = data
    rng = np.random.default_rng(0)
    for graph in graphs:
        kinds = surroundings(graph.classes, bond_kinds(graph))
        p = rng.permutation(len(graph))
        moved = surroundings(graph.classes[p], bond_kinds(graph)[np.ix_(p, p)])
        assert moved == [kinds[k] for k in p]
    toluene = graphs[3]
    other = toluene.orders.copy()
    ring = toluene.aromatic
    assert ring is not None
    other[ring] = 3 - other[ring]  # singles and doubles change places
    again = HeavyGraph(toluene.classes, other, None, ring)
    assert surroundings(again.classes, bond_kinds(again)) == surroundings(toluene.classes, bond_kinds(toluene))


def test_the_surprise_is_the_chance_of_a_kind_not_seen_before(data: tuple) -> None:
    graphs, _ = data
    found = learn(graphs)
    every = [kind for g in graphs for kind in surroundings(g.classes, bond_kinds(g))]
    alone = sum(every.count(kind) == 1 for kind in set(every))
    assert found.kinds == sorted(set(every)) and 0 < alone < len(every)
    assert found.surprise == pytest.approx(-math.log(alone / len(every)), abs=1e-3)
    assert found.cost(every) == 0.0
    assert found.cost([*every, "0:1.1,1.1", "never"]) == pytest.approx(2 * found.surprise)
    assert learn([]).cost(["anything"]) == Surroundings().cost(["anything"]) == 0.0


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
    usual = learn([data[0][0]])  # of ethanol alone
    free = decode_told(*chain["arguments"], Preference())
    assert free.classes.tolist() == chain["ether"] and free.gap == 0
    patient = Surroundings(kinds=usual.kinds, surprise=1.0)
    chosen = decode_told(*chain["arguments"], Preference(usual=patient))
    assert chosen.classes.tolist() == chain["alcohol"]
    assert chosen.gap == pytest.approx(chain["gap"])
    hasty = Surroundings(kinds=usual.kinds, surprise=0.1)  # cheaper than what it would take
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
