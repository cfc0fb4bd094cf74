"""What separates an inconsistent argmax graph from consistent ones: numbered alternatives and their costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .vocabulary import Vocabulary


def neighbour_masks(orders: np.ndarray) -> list[int]:
    return [int(sum(1 << j for j in np.flatnonzero(row))) for row in orders]


def component(neighbours: list[int], start: int) -> list[int]:
    """Atoms reachable from `start`; `neighbours[i]` is a bit mask."""
    seen, frontier, found = 1 << start, [start], []
    while frontier:
        i = frontier.pop()
        found.append(i)
        new = neighbours[i] & ~seen
        seen |= new
        while new:
            low = new & -new
            frontier.append(low.bit_length() - 1)
            new ^= low
    return found


@dataclass(frozen=True)
class Totals:
    """What a graph must add up to, None for any: net charge, hydrogens, bonded pairs (heavy atoms - 1 + rings)."""

    charge: int | None = 0
    hydrogens: int | None = None
    bonds: int | None = None


@dataclass(frozen=True)
class Alternatives:
    """Changes within a window, cheapest first: all, by atom, by the total they change, that make a bond."""

    ids: list[int]
    of_atom: list[list[int]]
    of_total: list[list[int]]
    joining: list[int]


class Problem:
    """Costs relative to the argmax, and every way to leave it as a numbered alternative.

    Alternative `i K + k` puts atom i in class k, `N K + 4 p + o` gives pair p the order o. Its `shift` is
    what it adds to the imbalance (order sum minus bond orders) of its atoms `first` and `second` (-1: none),
    `total_shifts[q]` what it adds to total q of those asked for, of which the argmax has `excess[q]` too many.
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
            shifts.append(np.concatenate([of_class.ravel(), of_pair.ravel()]).tolist())
        self.excess, self.total_shifts = tuple(excess), shifts
        self._gaps = np.concatenate([class_gap.ravel(), bond_gap.ravel()])
        self._first = np.concatenate([np.repeat(np.arange(n), k), np.repeat(left, 4)])
        self._second = np.concatenate([np.full(n * k, -1), np.repeat(right, 4)])
        bond_shift = self.bonds[:, None] - np.arange(4)[None]
        self.gaps: list[float] = self._gaps.tolist()
        self.first: list[int] = self._first.tolist()
        self.second: list[int] = self._second.tolist()
        self.shift: list[int] = np.concatenate([class_shift.ravel(), bond_shift.ravel()]).tolist()
        neighbours = np.zeros((n, n), int)
        neighbours[left, right] = neighbours[right, left] = self.bonds
        self.neighbours = neighbour_masks(neighbours)

    def alternatives(self, window: float) -> Alternatives:
        inside = (self._gaps <= window) & np.isfinite(self._gaps)
        inside[np.arange(self.n) * self.k + self.classes] = False
        inside[self.n * self.k + 4 * np.arange(len(self.left)) + self.bonds] = False
        ids = np.flatnonzero(inside)
        ids = ids[np.argsort(self._gaps[ids], kind="stable")].tolist()
        of_atom: list[list[int]] = [[] for _ in range(self.n)]
        for a in ids:
            of_atom[self.first[a]].append(a)
            if self.second[a] >= 0:
                of_atom[self.second[a]].append(a)
        of_total = [[a for a in ids if shift[a]] for shift in self.total_shifts]
        return Alternatives(ids, of_atom, of_total, [a for a in ids if self.bonding(a) > 0])

    def variable(self, a: int) -> int:
        """Bit mask of all alternatives of the variable that `a` changes."""
        atoms = self.n * self.k
        if a < atoms:
            return ((1 << self.k) - 1) << (a - a % self.k)
        return 15 << (a - (a - atoms) % 4)

    def bonding(self, a: int) -> int:
        """+1 if `a` joins two atoms that the argmax leaves apart, -1 if it parts them, else 0."""
        if self.second[a] < 0:
            return 0
        pair, order = divmod(a - self.n * self.k, 4)
        return int(order > 0) - int(self.bonds[pair] > 0)

    def bonds_across(self, piece: set[int]) -> int:
        """Bonds of the argmax between `piece` and the rest."""
        inside = np.isin(np.arange(self.n), list(piece))
        return int(((self.bonds > 0) & (inside[self.left] != inside[self.right])).sum())

    def neighbours_after(self, chosen: Sequence[int]) -> list[int]:
        neighbours = list(self.neighbours)
        for a in chosen:
            if change := self.bonding(a):
                i, j = self.first[a], self.second[a]
                neighbours[i] = neighbours[i] | 1 << j if change > 0 else neighbours[i] & ~(1 << j)
                neighbours[j] = neighbours[j] | 1 << i if change > 0 else neighbours[j] & ~(1 << i)
        return neighbours

    def is_solution(self, chosen: Sequence[int], excess: tuple[int, ...] | None = None) -> bool:
        """Whether balanced changes also leave one piece with the right totals."""
        excess = self.excess if excess is None else excess
        return not any(excess) and len(component(self.neighbours_after(chosen), 0)) == self.n

    def apply(self, chosen: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Classes `[N]` and orders `[N, N]` of the argmax after the chosen changes."""
        classes, bonds = self.classes.copy(), self.bonds.copy()
        for a in chosen:
            if a < self.n * self.k:
                classes[a // self.k] = a % self.k
            else:
                bonds[(a - self.n * self.k) // 4] = (a - self.n * self.k) % 4
        orders = np.zeros((self.n, self.n), dtype=int)
        orders[self.left, self.right] = orders[self.right, self.left] = bonds
        return classes, orders
