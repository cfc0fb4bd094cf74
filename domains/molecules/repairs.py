"""What separates an inconsistent argmax graph from consistent ones: numbered alternatives and their costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from sciconsist.domains.molecules.compiled import compiled

from .vocabulary import Vocabulary


@compiled
def piece_of_first(bonded: np.ndarray) -> np.ndarray:
    """Which atoms `[N]` the bonds `[N, N]` join to the first."""
    n = len(bonded)
    seen = np.zeros(n, np.bool_)
    seen[0] = True
    left = np.zeros(n, np.int64)
    count = 1
    while count:
        count -= 1
        i = left[count]
        for j in range(n):
            if bonded[i, j] and not seen[j]:
                seen[j] = True
                left[count] = j
                count += 1
    return seen


@dataclass(frozen=True)
class Totals:
    """What a graph must add up to, None for any: net charge, hydrogens, bonded pairs (heavy atoms - 1 + rings)."""

    charge: int | None = 0
    hydrogens: int | None = None
    bonds: int | None = None


class Problem:
    """Costs relative to the argmax, and every way to leave it as a numbered alternative.

    Alternative `i K + k` puts atom i in class k, `N K + 4 p + o` gives pair p the order o. Its `shift` is
    what it adds to the imbalance (order sum minus bond orders) of its atoms `first` and `second` (-1: none), `joins` is 1
    where it bonds them and -1 where it parts them, `value` the class or order, `gaps` what it costs, `variable` what it
    changes, and `total_shifts[q]` what it adds to total q of those asked for, of which the argmax has `excess[q]` too many;
    `best` is the argmax's log-likelihood.
    """

    def __init__(
        self,
        class_gap: np.ndarray,
        bond_gap: np.ndarray,
        best: float,
        vocabulary: Vocabulary,
        totals: Totals,
    ) -> None:
        self.n, self.k = class_gap.shape
        self.class_gap, self.bond_gap, self.best, self.order_sums = class_gap, bond_gap, best, vocabulary.order_sums
        self.left, self.right = left, right = _pairs(self.n)
        self.first, self.second, self.variable, self.value = _layout(self.n, self.k)
        self.gaps = np.concatenate([class_gap.ravel(), bond_gap.ravel()])
        self.classes, self.bonds, self.orders, self.imbalance, self.shift, self.joins, sums, shifts = _alternatives(
            class_gap, bond_gap, left, right, vocabulary.order_sums, vocabulary.charges, vocabulary.hydrogens
        )
        wanted = enumerate((totals.charge, totals.hydrogens, totals.bonds))
        asked = [(q, int(sums[q]) - number) for q, number in wanted if number is not None]
        self.excess, self.total_shifts = tuple(excess for _, excess in asked), shifts[[q for q, _ in asked]]

    def alternatives(self, window: float) -> np.ndarray:
        """Numbers of the changes that cost at most so much, cheapest first."""
        inside = (self.gaps <= window) & np.isfinite(self.gaps)
        inside[np.arange(self.n) * self.k + self.classes] = False
        inside[self.n * self.k + 4 * np.arange(len(self.left)) + self.bonds] = False
        ids = np.flatnonzero(inside)
        return ids[np.argsort(self.gaps[ids], kind="stable")]

    def bonds_across(self, piece: set[int]) -> int:
        """Bonds of the argmax between `piece` and the rest."""
        inside = np.isin(np.arange(self.n), list(piece))
        return int(((self.bonds > 0) & (inside[self.left] != inside[self.right])).sum())

    def is_solved(self) -> bool:
        """Whether the argmax is consistent as it is."""
        return not self.imbalance.any() and not any(self.excess) and bool(piece_of_first(self.orders > 0).all())

    def apply(self, chosen: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Classes `[N]` and orders `[N, N]` of the argmax after the chosen changes."""
        classes, orders = self.classes.copy(), self.orders.copy()
        for a in chosen:
            i, j = self.first[a], self.second[a]
            if j < 0:
                classes[i] = self.value[a]
            else:
                orders[i, j] = orders[j, i] = self.value[a]
        return classes, orders


@cache
def _pairs(n: int) -> tuple[np.ndarray, np.ndarray]:
    return np.triu_indices(n, 1)


@cache
def _layout(n: int, k: int) -> tuple[np.ndarray, ...]:
    """Atoms (second: -1), variable and value of the alternatives of n atoms with k classes each."""
    left, right = _pairs(n)
    atoms, pairs = np.arange(n), np.arange(len(left))
    return (
        np.concatenate([np.repeat(atoms, k), np.repeat(left, 4)]), np.concatenate([np.full(n * k, -1), np.repeat(right, 4)]),
        np.concatenate([np.repeat(atoms, k), np.repeat(n + pairs, 4)]),
        np.concatenate([np.tile(np.arange(k), n), np.tile(np.arange(4), len(left))]),
    )  # fmt: skip


@compiled
def _alternatives(
    class_gap: np.ndarray, bond_gap: np.ndarray, left: np.ndarray, right: np.ndarray, order_sums: np.ndarray,
    charges: np.ndarray, hydrogens: np.ndarray,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    """Classes, bonds, orders and imbalance of the argmax, `shift` and `joins` of the alternatives, charge, hydrogens and
    bonds in all, and what each alternative adds to these."""
    n, k = class_gap.shape
    pairs = len(left)
    classes, bonds, orders = np.zeros(n, np.int64), np.zeros(pairs, np.int64), np.zeros((n, n), np.int64)
    imbalance, sums = np.zeros(n, np.int64), np.zeros(3, np.int64)
    shift, joins = np.zeros(n * k + 4 * pairs, np.int64), np.zeros(n * k + 4 * pairs, np.int64)
    shifts = np.zeros((3, n * k + 4 * pairs), np.int64)
    for i in range(n):
        own = 0
        for c in range(k):
            own = c if class_gap[i, c] < class_gap[i, own] else own
        classes[i], imbalance[i] = own, order_sums[own]
        sums[0] += charges[own]
        sums[1] += hydrogens[own]
        for c in range(k):
            shift[i * k + c] = order_sums[c] - order_sums[own]
            shifts[0, i * k + c], shifts[1, i * k + c] = charges[c] - charges[own], hydrogens[c] - hydrogens[own]
    for p in range(pairs):
        own, place = 0, n * k + 4 * p
        for order in range(4):
            own = order if bond_gap[p, order] < bond_gap[p, own] else own
        i, j = left[p], right[p]
        bonds[p] = orders[i, j] = orders[j, i] = own
        imbalance[i] -= own
        imbalance[j] -= own
        sums[2] += own > 0
        for order in range(4):
            shift[place + order] = own - order
            joins[place + order] = shifts[2, place + order] = (order > 0) - (own > 0)
    return classes, bonds, orders, imbalance, shift, joins, sums, shifts
