"""Pairing of noise with crystals: a permutation of like atoms, no drift, never worse than no pairing."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sciconsist.domains.crystals.lattice import automorphisms, triangular
from sciconsist.domains.crystals.pairing import NEVER, centre, circular_mean, pair, wrapped

IDENTITY = np.eye(3)[None]


def draw(seed: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.uniform(size=(count, 3)), rng.uniform(size=(count, 3)), rng.integers(0, 2, count)


def length(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.square(wrapped(y - x)).sum())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9), st.booleans())
def test_only_like_atoms_change_places(seed: int, count: int, free: bool) -> None:
    frac, noise, kinds = draw(seed, count)
    x, y, order = pair(frac, noise, NEVER * (kinds[:, None] != kinds[None]), IDENTITY, free)
    assert sorted(order) == list(range(count))
    assert (kinds[order] == kinds).all()
    np.testing.assert_allclose(wrapped(x - frac), 0, atol=1e-12)
    moved = wrapped(y - noise[order])  # the noise is moved as a whole, or not at all
    np.testing.assert_allclose(wrapped(moved - moved[0]), 0, atol=1e-9)
    if not free:
        np.testing.assert_allclose(moved, 0, atol=1e-12)
        assert length(x, y) <= length(frac, noise) + 1e-9


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9))
def test_free_pairs_do_not_drift(seed: int, count: int) -> None:
    frac, noise, _ = draw(seed, count)
    x, y, _ = pair(frac, noise, np.zeros((count, count)), IDENTITY)
    np.testing.assert_allclose(wrapped(y - x).mean(0), 0, atol=0.02)  # exact but for atoms at half a cell
    assert ((y >= 0) & (y < 1)).all()


def test_noise_that_is_the_crystal_moved_and_shuffled_is_found() -> None:
    rng = np.random.default_rng(2)
    frac = rng.uniform(size=(6, 3))
    shuffle = rng.permutation(6)
    noise = (frac + np.array([0.21, -0.07, 0.4]))[shuffle] % 1.0
    x, y, order = pair(frac, noise, np.zeros((6, 6)), IDENTITY)
    np.testing.assert_allclose(wrapped(y - x), 0, atol=1e-9)
    assert (shuffle[order] == np.arange(6)).all()


def test_the_best_description_of_a_symmetric_cell_is_taken() -> None:
    cell = triangular(np.eye(3) * 4.0)
    bases = np.round(np.linalg.inv(automorphisms(cell).astype(float)))
    frac = np.random.default_rng(0).uniform(size=(5, 3))
    noise = (frac @ bases[17]) % 1.0
    x, y, _ = pair(frac, noise, np.zeros((5, 5)), bases)
    assert length(x, y) < 1e-12 < length(*pair(frac, noise, np.zeros((5, 5)), IDENTITY)[:2])


def test_circular_mean_crosses_the_boundary() -> None:
    np.testing.assert_allclose(wrapped(circular_mean(np.array([[0.95, 0.1, 0.5], [0.05, 0.2, 0.5]]))), [0, 0.15, -0.5],
                               atol=1e-12)  # fmt: skip


def test_centre_removes_the_mean_displacement() -> None:
    rng = np.random.default_rng(1)
    frac = rng.uniform(size=(8, 3))
    noise = frac + 0.1 * rng.normal(size=(8, 3)) + 0.3
    np.testing.assert_allclose(wrapped(centre(frac, noise) - frac).mean(0), 0, atol=1e-9)
