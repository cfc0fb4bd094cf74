"""The smallest rings are RDKit's, and a basis of all rings."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem

from sciconsist.domains.molecules.rings import smallest_rings

SMILES = (
    "CCO", "C1CC1", "C1CC2CC12", "c1ccc2ccccc2c1", "C1CC2CCC1CC2", "C12C3C4C1C5C4C3C25", "O=C1NCC2C3CC2C13",
    "O=C1C2C=CC3OC2C13", "C1C2CC34OCC23CC14", "OC1C2C3CC4C3C1C42", "C1CCCCCCCCC1", "CC(C)CC1=CC=CC=C1", "NC1=CC2CN12.O=C=O",
    "C1CC23CC1(C2)C3", "C1CC11CC1", "CN1C2CC3OC2C31C",
)  # fmt: skip


def rings_of(bonded: np.ndarray) -> list[list[int]]:
    atoms, begins = smallest_rings(bonded.astype(int))
    return [atoms[i:j].tolist() for i, j in pairwise(begins)]


@pytest.mark.parametrize("smiles", SMILES)
def test_rings_are_those_of_rdkit(smiles: str) -> None:
    mol = Chem.MolFromSmiles(smiles)
    found = rings_of(Chem.GetAdjacencyMatrix(mol).astype(bool))
    assert sorted(map(sorted, found)) == sorted(sorted(ring) for ring in Chem.GetSymmSSSR(mol))
    assert [len(ring) for ring in found] == sorted(len(ring) for ring in found)
    for ring in found:
        assert all(mol.GetBondBetweenAtoms(i, j) for i, j in zip(ring, ring[1:] + ring[:1]))


@st.composite
def graphs(draw: st.DrawFn) -> np.ndarray:
    """Any graph of up to nine atoms with at most four bonds each."""
    n = draw(st.integers(1, 9))
    bonded = np.zeros((n, n), dtype=bool)
    for i in range(n):
        for j in draw(st.sets(st.integers(0, max(i - 1, 0)), max_size=3)):
            if j < i and max(bonded[i].sum(), bonded[j].sum()) < 4:
                bonded[i, j] = bonded[j, i] = True
    return bonded


@given(graphs(), st.randoms())
@settings(max_examples=150, deadline=None)
def test_rings_span_all_rings_and_do_not_depend_on_the_order_of_atoms(bonded: np.ndarray, random: object) -> None:
    found = rings_of(bonded)
    n = len(bonded)
    pairs = {pair: k for k, pair in enumerate(zip(*np.triu(bonded).nonzero()))}
    rows = []
    for ring in found:
        assert len(set(ring)) == len(ring) >= 3
        ways = [tuple(sorted(pair)) for pair in zip(ring, ring[1:] + ring[:1])]
        rows.append(sum(1 << pairs[way] for way in ways))  # a KeyError where atoms are not bonded
    assert len(set(rows)) == len(rows)
    pieces, seen = 0, set()
    for start in range(n):
        if start not in seen:
            pieces, line = pieces + 1, [start]
            while line:
                i = line.pop()
                if i not in seen:
                    seen.add(i)
                    line += np.flatnonzero(bonded[i]).tolist()
    assert rank(rows) == len(pairs) - n + pieces
    order = list(range(n))
    random.shuffle(order)  # type: ignore[attr-defined]
    turned = rings_of(bonded[np.ix_(order, order)])
    assert sorted(sorted(order[i] for i in ring) for ring in turned) == sorted(map(sorted, found))


def rank(rows: list[int]) -> int:
    """Over GF(2)."""
    basis: list[int] = []
    for row in rows:
        for b in basis:
            row = min(row, row ^ b)
        if row:
            basis.append(row)
    return len(basis)


def test_compiled_and_interpreted_rings_are_the_same() -> None:
    for smiles in SMILES:
        bonded = Chem.GetAdjacencyMatrix(Chem.MolFromSmiles(smiles)).astype(bool)
        for one, other in zip(smallest_rings(bonded.astype(int)), smallest_rings.py_func(bonded.astype(int))):
            np.testing.assert_array_equal(one, other)
