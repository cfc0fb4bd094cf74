"""Niggli cells and the six numbers of a lattice: the same for every choice of cell, and back again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sciconsist.domains.crystals.lattice import (
    automorphisms,
    from_vector,
    niggli,
    niggli_basis,
    to_vector,
    triangular,
    unimodular,
)

NUMBERS = st.integers(0, 10_000)


def cell(seed: int) -> np.ndarray:
    """A random cell of sensible shape, edges about 3 to 8 Å."""
    rng = np.random.default_rng(seed)
    return np.diag(rng.uniform(3, 8, 3)) + rng.uniform(-1.2, 1.2, (3, 3))


def rotation(seed: int) -> np.ndarray:
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.sign(np.linalg.det(q))


def distances(lattice: np.ndarray, frac: np.ndarray) -> np.ndarray:
    """Shortest distances of all pairs over images within two cells."""
    shifts = np.array(np.meshgrid(*[np.arange(-2, 3)] * 3)).reshape(3, -1).T
    delta = frac[:, None, None] - frac[None, :, None] + shifts
    return np.sqrt(np.square(delta @ lattice).sum(-1)).min(-1)


@settings(max_examples=40, deadline=None)
@given(NUMBERS, NUMBERS, st.integers(0, 5000))
def test_the_niggli_cell_is_the_same_for_every_choice_of_cell(seed: int, turn: int, pick: int) -> None:
    lattice, rng = cell(seed), np.random.default_rng(seed)
    frac = rng.uniform(size=(3, 3))
    first, place = niggli(lattice, frac, 1e-8)
    every = unimodular()
    other = every[pick % len(every)].astype(float)
    other = other * np.linalg.det(other)  # right-handed
    second, moved = niggli(other @ lattice @ rotation(turn), frac @ np.linalg.inv(other), 1e-8)
    assume(len(automorphisms(first, 1e-3)) == 2)  # a cell of no symmetry has one description, and its inverse
    np.testing.assert_allclose(second @ second.T, first @ first.T, atol=1e-6)
    np.testing.assert_allclose(to_vector(second, 3), to_vector(first, 3), atol=1e-7)
    np.testing.assert_allclose(distances(second, moved), distances(first, place), atol=1e-6)
    np.testing.assert_allclose(distances(first, place), distances(lattice, frac), atol=1e-6)
    assert np.linalg.det(first) == pytest.approx(abs(np.linalg.det(lattice)))


@settings(max_examples=40, deadline=None)
@given(NUMBERS, st.integers(1, 40))
def test_vector_round_trip(seed: int, count: int) -> None:
    lattice = triangular(cell(seed))
    lattice = lattice * (15.0 * count / np.linalg.det(lattice)) ** (1 / 3)
    back = from_vector(torch.from_numpy(to_vector(lattice, count))[None], torch.tensor([count]))[0]
    np.testing.assert_allclose(back.numpy(), lattice, rtol=1e-10)


def test_turning_a_crystal_changes_nothing() -> None:
    lattice = cell(3)
    np.testing.assert_allclose(triangular(lattice @ rotation(5)), triangular(lattice), atol=1e-10)


@pytest.mark.parametrize(
    ("lattice", "count"),
    [(np.eye(3) * 4, 48), (np.diag([4.0, 4, 6]), 16), (np.diag([4.0, 5, 6]), 8), (cell(1), 2)],
)
def test_automorphisms_are_the_point_group_of_the_lattice(lattice: np.ndarray, count: int) -> None:
    """Cubic 48, tetragonal 16, orthorhombic 8, triclinic 2 (International Tables A, table 3.1.2.1)."""
    found = automorphisms(lattice)
    assert len(found) == count
    assert (found[0] == np.eye(3)).all()
    assert any((w == -np.eye(3)).all() for w in found)


@pytest.mark.parametrize("bad", [np.zeros((3, 3)), np.full((3, 3), np.nan), np.diag([1.0, 1.0, 0.0])])
def test_a_flat_cell_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="volume"):
        niggli_basis(bad)
