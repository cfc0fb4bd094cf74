"""The smallest rings of a graph: those that are no sum of smaller ones.

Relevant cycles (Vismara 1997, Electronic Journal of Combinatorics 4:R9), all of every family. In molecules these are RDKit's
symmetrised smallest rings.
"""

from __future__ import annotations

import numpy as np

from sciconsist.domains.molecules.compiled import compiled


@compiled
def smallest_rings(orders: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Atoms of all rings, each in order, and where they begin: ring k from `begins[k]` to `begins[k + 1]`; smaller ones first.

    `orders` `[N, N]` int, symmetric, of bonds.
    """
    number, edges = _bonds_of_rings(orders)
    sets, many = _candidates(number, edges)
    # over GF(2): each basis row is 0 where an earlier one leads
    basis, lead = np.zeros((many, edges), np.bool_), np.zeros(many, np.int64)
    atoms, begins = np.zeros(many * len(orders), np.int64), np.zeros(many + 1, np.int64)
    size = found = 0
    row = np.zeros(edges, np.bool_)
    for length in range(3, len(orders) + 1):
        smaller = size  # rows of the basis that are of smaller rings
        for k in range(many):
            if _count(sets[k]) != length:
                continue
            for bond in range(edges):
                row[bond] = sets[k, bond]
            _reduce(row, basis[:smaller], lead[:smaller])
            if _count(row) == 0:
                continue
            begins[found + 1] = begins[found] + length
            _walk(sets[k], number, atoms, begins[found])
            found += 1
            _reduce(row, basis[smaller:size], lead[smaller:size])
            if _count(row):
                for bond in range(edges - 1, -1, -1):
                    basis[size, bond] = row[bond]
                    if row[bond]:
                        lead[size] = bond
                size += 1
    return atoms[: begins[found]], begins[: found + 1]


@compiled
def _count(row: np.ndarray) -> int:
    count = 0
    for k in range(len(row)):
        count += row[k]
    return count


@compiled
def _reduce(row: np.ndarray, basis: np.ndarray, lead: np.ndarray) -> None:
    """Make a row 0 where rows of the basis lead."""
    for b in range(len(basis)):
        if row[lead[b]]:
            for bond in range(len(row)):
                row[bond] ^= basis[b, bond]


@compiled
def _bonds_of_rings(orders: np.ndarray) -> tuple[np.ndarray, int]:
    """Numbers of the bonds `[N, N]`, -1 where there is none or it ends a chain; how many."""
    n = len(orders)
    left, degree = np.zeros((n, n), np.bool_), np.zeros(n, np.int64)
    for i in range(n):
        for j in range(n):
            left[i, j] = orders[i, j] > 0
            degree[i] += left[i, j]
    changed = True
    while changed:  # atoms with a single bond are taken away, again and again
        changed = False
        for i in range(n):
            for j in range(n):
                if degree[i] == 1 and left[i, j]:
                    left[i, j] = left[j, i] = False
                    degree[i] -= 1
                    degree[j] -= 1
                    changed = True
    number, edges = np.empty((n, n), np.int64), 0
    for i in range(n):
        for j in range(n):
            number[i, j] = number[j, i] if j < i else -1
            if j > i and left[i, j]:
                number[i, j] = edges
                edges += 1
    return number, edges


@compiled
def _walk(ring: np.ndarray, number: np.ndarray, out: np.ndarray, place: int) -> None:
    """The atoms of a ring, a set of bonds, in order, into `out` from `place` on."""
    n, at, before, count = len(number), -1, -1, _count(ring)
    for i in range(n):
        for j in range(n):
            if at < 0 and number[i, j] >= 0 and ring[number[i, j]]:
                at = i
    for step in range(count):
        out[place + step] = at
        then = -1
        for j in range(n):
            bond = number[at, j]
            if then < 0 and bond >= 0 and ring[bond] and bond != before:
                then = j
        at, before = then, number[at, then]


@compiled
def _candidates(number: np.ndarray, edges: int) -> tuple[np.ndarray, int]:
    """Sets of bonds of rings that two shortest paths from their last atom r and a bond, or an atom, across make; how many."""
    n = len(number)
    sets, count = np.zeros((16, edges), np.bool_), 0
    for r in range(2, n):
        # where the two agree, by way of atoms whose number is less than that of r
        down, far = _distances(number, r, r), _distances(number, r, n)
        for i in range(n):
            if down[i] != far[i]:
                down[i] = -1
        for y in range(r):
            for p in range(r):
                if down[y] < 0 or number[y, p] < 0 or down[p] < 0:
                    continue
                odd = down[p] == down[y] and p < y
                for q in range(y, y + 1) if odd else range(p):
                    even = number[y, q] >= 0 and down[p] == down[q] == down[y] - 1
                    if not (odd or even):
                        continue
                    ones, others = _paths(number, down, p), _paths(number, down, q)
                    for one in range(len(ones)):
                        for other in range(len(others)):
                            if not _apart(ones[one], others[other]):
                                continue
                            if count == len(sets):
                                sets = _twice(sets)
                            sets[count, number[y, p]] = True
                            if even:
                                sets[count, number[y, q]] = True
                            for a in range(ones.shape[1] - 1):
                                sets[count, number[ones[one, a], ones[one, a + 1]]] = True
                                sets[count, number[others[other, a], others[other, a + 1]]] = True
                            count += 1
    return sets, count


@compiled
def _twice(sets: np.ndarray) -> np.ndarray:
    """The same rows, and room for as many again."""
    longer = np.zeros((2 * len(sets), sets.shape[1]), np.bool_)
    for k in range(len(sets)):
        for bond in range(sets.shape[1]):
            longer[k, bond] = sets[k, bond]
    return longer


@compiled
def _distances(number: np.ndarray, start: int, below: int) -> np.ndarray:
    """Bonds from `start` to each atom, by way of atoms whose number is less than `below`; -1: no way."""
    n = len(number)
    distance, line = np.empty(n, np.int64), np.empty(n, np.int64)
    for i in range(n):
        distance[i] = -1
    distance[start] = 0
    line[0] = start
    first, last = 0, 1
    while first < last:
        i = line[first]
        first += 1
        for j in range(min(n, below)):
            if number[i, j] >= 0 and distance[j] < 0:
                distance[j] = distance[i] + 1
                line[last] = j
                last += 1
    return distance


@compiled
def _paths(number: np.ndarray, down: np.ndarray, end: int) -> np.ndarray:
    """All shortest paths from `end` to where `down` is 0, each bond one less, `[P, atoms]`."""
    n, length = len(down), down[end] + 1
    paths, many = np.empty((1, length), np.int64), 1
    paths[0, 0] = end
    for place in range(1, length):
        ways = 0
        for k in range(many):
            for j in range(n):
                ways += number[paths[k, place - 1], j] >= 0 and down[j] == down[end] - place
        longer, at = np.empty((ways, length), np.int64), 0
        for k in range(many):
            for j in range(n):
                if number[paths[k, place - 1], j] >= 0 and down[j] == down[end] - place:
                    for before in range(place):
                        longer[at, before] = paths[k, before]
                    longer[at, place] = j
                    at += 1
        paths, many = longer, ways
    return paths


@compiled
def _apart(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two paths meet at their ends only."""
    for a in range(len(one) - 1):
        for b in range(len(other) - 1):
            if one[a] == other[b]:
                return False
    return True
