"""The changes to a graph that a search may make, cheapest first, and what imbalances cost at least."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .compiled import compiled

SPAN = 12  # imbalances that the bound tells apart, in bond orders
WORD = 64  # bits


class Moves(NamedTuple):
    """The changes within the limit, cheapest first.

    Of M moves each one's atoms (second: -1, none), what it adds to their imbalance, the class or order it gives, what it adds
    to bonds, and to the totals `[M, T]`; its cost; which moves are of the same variable, as `bits` `[M, words]`. `of_atom`:
    those of atom i at `begins[i]` to `begins[i + 1]`; `order`: all, as they are tried from a solution, by `whole`: what each
    costs at least where all is balanced.
    """

    first: np.ndarray
    second: np.ndarray
    shift: np.ndarray
    value: np.ndarray
    joins: np.ndarray
    totals: np.ndarray
    gap: np.ndarray
    bits: np.ndarray
    of_atom: np.ndarray
    begins: np.ndarray
    order: np.ndarray
    whole: np.ndarray


@compiled
def moves_of(
    ids: np.ndarray, bound: np.ndarray, first: np.ndarray, second: np.ndarray, shift: np.ndarray, value: np.ndarray,
    joins: np.ndarray, totals: np.ndarray, gaps: np.ndarray, variable: np.ndarray,
) -> Moves:  # fmt: skip
    """What the search asks of the alternatives `ids`, which come cheapest first; the others are of all alternatives."""
    many, n = len(ids), len(bound)
    numbers, bits = np.zeros((5, many), np.int64), np.zeros((many, -(-many // WORD)), np.uint64)
    own_totals, gap, whole = np.zeros((many, len(totals)), np.int64), np.zeros(many), np.zeros(many)
    begins, order = np.zeros(n + 1, np.int64), np.zeros(many, np.int64)
    for m in range(many):
        a = ids[m]
        i, j = first[a], second[a]
        numbers[0, m], numbers[1, m], numbers[2, m], numbers[3, m], numbers[4, m] = i, j, shift[a], value[a], joins[a]
        gap[m], whole[m] = gaps[a], gaps[a] + bound[i, SPAN + shift[a]]
        begins[i + 1] += 1
        if j >= 0:
            whole[m] += bound[j, SPAN + shift[a]]
            begins[j + 1] += 1
        for total in range(len(totals)):
            own_totals[m, total] = totals[total, a]
        for other in range(m + 1):  # those of the same variable
            if variable[ids[other]] == variable[a]:
                bits[m, other // WORD] |= np.uint64(1) << np.uint64(other % WORD)
                bits[other, m // WORD] |= np.uint64(1) << np.uint64(m % WORD)
        place = m
        while place and whole[order[place - 1]] > whole[m]:
            order[place] = order[place - 1]
            place -= 1
        order[place] = m
    for i in range(n):
        begins[i + 1] += begins[i]
    of_atom, end = np.zeros(begins[n], np.int64), begins.copy()
    for m in range(many):
        for k in range(2):
            atom = numbers[k, m]
            if atom >= 0:
                of_atom[end[atom]] = m
                end[atom] += 1
    return Moves(
        numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], own_totals, gap, bits, of_atom, begins, order, whole
    )


@compiled
def imbalance_cost(
    class_gap: np.ndarray, bond_gap: np.ndarray, classes: np.ndarray, bonds: np.ndarray, left: np.ndarray,
    right: np.ndarray, order_sums: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Least cost, per atom, of removing an imbalance r: `[N, SPAN + r]`.

    A class change is charged to its atom, a bond change half to each end, so the sum over atoms never
    exceeds the true cost: the admissible bound of the search. Imbalances beyond SPAN count as free on the
    way, and as hopeless where the search would stop.
    """
    n, width = len(classes), 2 * SPAN + 1
    reach = max(3, order_sums.max() - order_sums.min())
    # [atom, neighbour (itself: the class), shift of imbalance]
    moves = np.full((n, n, 2 * reach + 1), np.inf)
    moves[:, :, reach] = 0.0
    for i in range(n):
        for k in range(class_gap.shape[1]):
            shift = order_sums[k] - order_sums[classes[i]] + reach
            moves[i, i, shift] = min(moves[i, i, shift], class_gap[i, k])
    for p in range(len(left)):
        for order in range(4):
            shift = bonds[p] - order + reach
            moves[left[p], right[p], shift] = moves[right[p], left[p], shift] = bond_gap[p, order] / 2
    cost = np.full((n, width), np.inf)
    cost[:, SPAN] = 0.0
    before = np.empty(width)
    for i in range(n):
        for j in range(n):
            before[:] = cost[i]
            for r in range(width):
                least = np.inf  # to undo r, either keep r or move it by a shift
                for shift in range(2 * reach + 1):
                    at = r + shift - reach
                    ahead = before[at] if 0 <= at < width else 0.0
                    least = min(least, ahead + moves[i, j, shift])
                cost[i, r] = least
    return cost
