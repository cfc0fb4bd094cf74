"""What separates an inconsistent argmax graph from consistent ones: numbered alternatives and their costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    changes, and `total_shifts[q]` what it adds to total q of those asked for, of which the argmax has `excess[q]` too many.
    """

    def __init__(
        self,
        class_gap: np.ndarray,
        bond_gap: np.ndarray,
        left: np.ndarray,
        right: np.ndarray,
        vocabulary: Vocabulary,
        totals: Totals,
    ) -> None:
        self.n, self.k = class_gap.shape
        n, k = self.n, self.k
        self.class_gap, self.bond_gap, self.left, self.right = class_gap, bond_gap, left, right
        self.order_sums = vocabulary.order_sums()
        self.classes, self.bonds = class_gap.argmin(1), bond_gap.argmin(1)
        ends = np.concatenate([left, right])
        spent = np.bincount(ends, np.concatenate([self.bonds, self.bonds]), minlength=n).astype(int)
        self.imbalance = self.order_sums[self.classes] - spent
        class_shift = self.order_sums[None] - self.order_sums[self.classes][:, None]
        per_class = {
            "charge": np.array([c.charge for c in vocabulary.classes]),
            "hydrogens": np.array([c.hydrogens for c in vocabulary.classes]),
            "bonds": np.zeros(k, int),
        }
        bonded = (np.arange(4) > 0).astype(int)
        excess, shifts = [], []
        for name, each in per_class.items():
            if (wanted := getattr(totals, name)) is None:
                continue
            per_pair = bonded if name == "bonds" else np.zeros(4, int)
            excess.append(int(each[self.classes].sum() + per_pair[self.bonds].sum()) - wanted)
            of_class, of_pair = each - each[self.classes][:, None], per_pair - per_pair[self.bonds][:, None]
            shifts.append(np.concatenate([of_class.ravel(), of_pair.ravel()]))
        self.excess, self.total_shifts = tuple(excess), np.array(shifts, dtype=int).reshape(-1, n * k + 4 * len(left))
        self.gaps = np.concatenate([class_gap.ravel(), bond_gap.ravel()])
        self.first = np.concatenate([np.repeat(np.arange(n), k), np.repeat(left, 4)])
        self.second = np.concatenate([np.full(n * k, -1), np.repeat(right, 4)])
        bond_shift = self.bonds[:, None] - np.arange(4)[None]
        self.shift = np.concatenate([class_shift.ravel(), bond_shift.ravel()])
        joined = (np.arange(4)[None] > 0).astype(int) - (self.bonds[:, None] > 0)
        self.joins = np.concatenate([np.zeros(n * k, dtype=int), joined.ravel()])
        self.variable = np.concatenate([np.repeat(np.arange(n), k), np.repeat(n + np.arange(len(left)), 4)])
        self.value = np.concatenate([np.tile(np.arange(k), n), np.tile(np.arange(4), len(left))])
        self.orders = np.zeros((n, n), dtype=int)
        self.orders[left, right] = self.orders[right, left] = self.bonds

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
