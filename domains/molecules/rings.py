"""The smallest rings of a graph: those that are no sum of smaller ones.

Relevant cycles (Vismara 1997, Electronic Journal of Combinatorics 4:R9), all of every family. In molecules these are RDKit's
symmetrised smallest rings.
"""

from __future__ import annotations

import numpy as np

from sciconsist.domains.molecules.compiled import compiled


@compiled
def smallest_rings(bonded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Atoms of all rings, each in order, and where they begin: ring k from `begins[k]` to `begins[k + 1]`; smaller ones first.

    `bonded` `[N, N]` bool, symmetric.
    """
    bonded = _without_ends(bonded)
    left, right = np.nonzero(np.triu(bonded))
    sets, lengths = _candidates(bonded, left, right)
    # over GF(2): each basis row is 0 where an earlier one leads
    basis, lead = np.empty_like(sets), np.zeros(len(sets), np.int64)
    size = shorter = before = 0  # rows of the basis, those of rings smaller than the one at hand, this one's size
    kept = np.zeros(len(sets), np.bool_)
    order = np.argsort(lengths, kind="mergesort")
    for k in order:
        if lengths[k] > before:
            before, shorter = lengths[k], size
        row = sets[k].copy()
        for b in range(shorter):
            if row[lead[b]]:
                row ^= basis[b]
        kept[k] = row.any()
        if not kept[k]:
            continue
        for b in range(shorter, size):
            if row[lead[b]]:
                row ^= basis[b]
        if row.any():
            basis[size], lead[size] = row, row.argmax()
            size += 1
    found = order[kept[order]]
    begins = np.zeros(len(found) + 1, np.int64)
    begins[1:] = np.cumsum(lengths[found])
    atoms = np.empty(begins[-1], np.int64)
    for at, k in enumerate(found):
        _walk(sets[k], left, right, atoms[begins[at] : begins[at + 1]])
    return atoms, begins


@compiled
def _without_ends(bonded: np.ndarray) -> np.ndarray:
    """The bonds that are left when atoms with a single one are taken away, again and again."""
    bonded = bonded.copy()
    changed = True
    while changed:
        changed = False
        for i in range(len(bonded)):
            if bonded[i].sum() == 1:
                bonded[i], bonded[:, i] = False, False
                changed = True
    return bonded


@compiled
def _walk(ring: np.ndarray, left: np.ndarray, right: np.ndarray, out: np.ndarray) -> None:
    """The atoms of a ring, a set of bonds, in order, into `out`."""
    bonds = np.flatnonzero(ring)
    at, before = int(left[bonds[0]]), -1
    for place in range(len(out)):
        out[place] = at
        for bond in bonds:
            if bond != before and (left[bond] == at or right[bond] == at):
                at, before = int(left[bond] + right[bond]) - at, bond
                break


@compiled
def _candidates(bonded: np.ndarray, left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sets of bonds `[C, E]` of rings that two shortest paths from their last atom r and a bond, or an atom, across make."""
    n = len(bonded)
    number = np.full((n, n), -1)
    for bond in range(len(left)):
        number[left[bond], right[bond]] = number[right[bond], left[bond]] = bond
    sets, lengths, count = np.zeros((16, len(left)), np.bool_), np.zeros(16, np.int64), 0
    for r in range(2, n):
        # where the two agree, by way of atoms whose number is less than that of r
        down = _distances(bonded, r, r)
        down[down != _distances(bonded, r, n)] = -1
        for y in range(r):
            for p in range(r):
                if down[y] < 0 or not bonded[y, p] or down[p] < 0:
                    continue
                odd = down[p] == down[y] and p < y
                for q in range(y, y + 1) if odd else range(p):
                    even = bonded[y, q] and down[p] == down[q] == down[y] - 1
                    if not (odd or even):
                        continue
                    for one in _paths(bonded, down, p):
                        for other in _paths(bonded, down, q):
                            if not _apart(one, other):
                                continue
                            if count == len(sets):
                                sets = np.concatenate((sets, np.zeros_like(sets)))
                                lengths = np.concatenate((lengths, lengths))
                            row = sets[count]
                            row[number[y, p]] = row[number[y, q] if even else number[y, p]] = True
                            for a in range(len(one) - 1):
                                row[number[one[a], one[a + 1]]] = row[number[other[a], other[a + 1]]] = True
                            lengths[count] = row.sum()
                            count += 1
    return sets[:count], lengths[:count]


@compiled
def _distances(bonded: np.ndarray, start: int, below: int) -> np.ndarray:
    """Bonds from `start` to each atom, by way of atoms whose number is less than `below`; -1: no way."""
    n = len(bonded)
    distance = np.full(n, -1)
    distance[start] = 0
    line = np.empty(n, np.int64)
    line[0] = start
    first, last = 0, 1
    while first < last:
        i = line[first]
        first += 1
        for j in range(min(n, below)):
            if bonded[i, j] and distance[j] < 0:
                distance[j] = distance[i] + 1
                line[last] = j
                last += 1
    return distance


@compiled
def _paths(bonded: np.ndarray, down: np.ndarray, end: int) -> np.ndarray:
    """All shortest paths from `end` to where `down` is 0, each bond one less, `[P, atoms]`."""
    paths = np.full((1, down[end] + 1), end)
    for place in range(1, down[end] + 1):
        ways = np.zeros(len(paths) + 1, np.int64)
        for k in range(len(paths)):
            ways[k + 1] = ways[k] + (bonded[paths[k, place - 1]] & (down == down[end] - place)).sum()
        longer = np.empty((ways[-1], paths.shape[1]), np.int64)
        for k in range(len(paths)):
            for at, j in enumerate(np.flatnonzero(bonded[paths[k, place - 1]] & (down == down[end] - place))):
                longer[ways[k] + at] = paths[k]
                longer[ways[k] + at, place] = j
        paths = longer
    return paths


@compiled
def _apart(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two paths meet at their ends only."""
    for i in one[:-1]:
        for j in other[:-1]:
            if i == j:
                return False
    return True
