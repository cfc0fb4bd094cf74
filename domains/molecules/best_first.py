"""Best-first search over sets of changes to the argmax graph: those that make it consistent, cheapest first.

A node is a set of changes and a set of banned ones. An unbalanced atom (or a piece that must be linked, or a wrong total)
needs one of a known list of changes, and to leave a solution any change will do: child m takes the m-th and bans the earlier
ones, so children are disjoint and miss nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sciconsist.domains.molecules.compiled import compiled

from .moves import SPAN, WORD, Moves
from .repairs import piece_of_first
from .weighing import Weighing, lacking

HEAP, NODES, POPPED, FOUND, OPEN, SEEN = range(6)  # of the search's counters; OPEN: a solution not yet left, or -1
LIMIT, SLACK, HASTE, CEILING = range(4)  # of its numbers
END, SOLUTION, FULL = range(3)  # why it stopped


class Nodes(NamedTuple):
    """All nodes there have been, and the heap of those left: by the cost they may come to, then by age.

    A node's changes are `move` and its parent's; imbalances `[C, N]`, excess of totals `[C, T]`, bits of the moves that it may
    not take `[C, words]`.
    """

    key: np.ndarray
    node: np.ndarray
    cost: np.ndarray
    rest: np.ndarray
    parent: np.ndarray
    move: np.ndarray
    imbalance: np.ndarray
    excess: np.ndarray
    banned: np.ndarray


@compiled
def _at(bound: np.ndarray, atom: int, imbalance: int) -> float:
    if abs(imbalance) > SPAN:
        return np.inf
    return bound[atom, SPAN + imbalance]


@compiled
def _piece(bonded: np.ndarray, moves: Moves, nodes: Nodes, node: int, move: int) -> np.ndarray:
    """Which atoms `[N]` are in one piece with the first after a node's changes and `move` (-1: none)."""
    now = bonded.copy()
    while node >= 0:
        if move >= 0 and moves.joins[move] != 0:
            i, j = moves.first[move], moves.second[move]
            now[i, j] = now[j, i] = moves.joins[move] > 0
        move, node = nodes.move[node], nodes.parent[node]
    return piece_of_first(now)


@compiled
def _pop(nodes: Nodes, counters: np.ndarray) -> int:
    """The best node of the heap."""
    key, node = nodes.key, nodes.node
    best = node[0]
    counters[HEAP] -= 1
    size = counters[HEAP]
    last, own = key[size], node[size]
    place = 0
    while 2 * place + 1 < size:
        child = 2 * place + 1
        if child + 1 < size and (
            key[child + 1] < key[child] or (key[child + 1] == key[child] and node[child + 1] < node[child])
        ):
            child += 1
        if last < key[child] or (last == key[child] and own < node[child]):
            break
        key[place], node[place] = key[child], node[child]
        place = child
    key[place], node[place] = last, own
    return best


@compiled
def _push(nodes: Nodes, counters: np.ndarray, value: float, own: int) -> None:
    key, node = nodes.key, nodes.node
    place = counters[HEAP]
    counters[HEAP] += 1
    while place and value < key[(place - 1) // 2]:  # of equals the older one stays in front
        key[place], node[place] = key[(place - 1) // 2], node[(place - 1) // 2]
        place = (place - 1) // 2
    key[place], node[place] = value, own


@compiled
def _needed(moves: Moves, bound: np.ndarray, bonded: np.ndarray, nodes: Nodes, node: int, found: np.ndarray) -> int:
    """How many moves `found` holds, one of which a node needs, cheapest first; -1: it is a solution."""
    imbalance, excess = nodes.imbalance[node], nodes.excess[node]
    count, atom, worst = 0, -1, 0.0
    for i in range(len(imbalance)):
        if imbalance[i] != 0 and _at(bound, i, imbalance[i]) >= worst:
            worst, atom = _at(bound, i, imbalance[i]), i
    if atom >= 0:
        for k in range(moves.begins[atom], moves.begins[atom + 1]):
            found[count] = moves.of_atom[k]
            count += 1
        return count
    for total in range(len(excess)):
        if excess[total] != 0:
            for m in range(len(moves.gap)):
                if moves.totals[m, total] != 0:
                    found[count] = m
                    count += 1
            return count
    piece = _piece(bonded, moves, nodes, nodes.parent[node], nodes.move[node])
    if piece.all():
        return -1
    for m in range(len(moves.gap)):
        if moves.joins[m] > 0 and piece[moves.first[m]] != piece[moves.second[m]]:
            found[count] = m
            count += 1
    return count


@compiled
def advance(
    moves: Moves, bound: np.ndarray, argmax: tuple[np.ndarray, np.ndarray], nodes: Nodes, counters: np.ndarray,
    numbers: np.ndarray, most: np.ndarray, weighing: Weighing,
) -> tuple[int, tuple[float, np.ndarray, np.ndarray, float, bool]]:  # fmt: skip
    """Search until the next graph that may be wanted; why it stopped, and the graph.

    `argmax` are its classes and orders, `most` how many nodes there may be before the first solution, in all, and graphs.
    """
    bonded = argmax[1] > 0
    while True:
        classes, orders = argmax[0].copy(), argmax[1].copy()
        why = _next(moves, bound, bonded, nodes, counters, numbers, most)
        if why == SOLUTION and counters[SEEN] >= most[2]:
            why = END
        if why != SOLUTION:
            return why, (0.0, classes, orders, 0.0, False)
        counters[SEEN] += 1
        gap = graph_of(moves, nodes, counters[OPEN], classes, orders)
        if gap < numbers[CEILING]:
            # NOT_ASKED itself is read-only here, for which all of it would be compiled once more
            nats, unsure = lacking(classes, orders, np.zeros((0, 0), np.bool_), weighing)
            if gap + nats < numbers[CEILING]:
                return why, (gap, classes, orders, nats, unsure)


@compiled
def _next(
    moves: Moves, bound: np.ndarray, bonded: np.ndarray, nodes: Nodes, counters: np.ndarray, numbers: np.ndarray,
    most: np.ndarray,
) -> int:  # fmt: skip
    """Search until the next solution but the argmax, which is left open; why it stopped."""
    many = len(moves.gap)
    candidates, banned = np.empty(many, np.int64), np.empty(nodes.banned.shape[1], np.uint64)
    while True:
        if counters[NODES] + many > len(nodes.key):
            return FULL
        if counters[OPEN] >= 0:
            node, counters[OPEN] = counters[OPEN], -1
            count = 0
            for k in range(many):
                if nodes.cost[node] + moves.whole[moves.order[k]] <= numbers[LIMIT]:
                    candidates[count] = moves.order[k]
                    count += 1
        else:
            if counters[HEAP] == 0 or counters[POPPED] >= most[counters[FOUND]]:
                return END
            node = _pop(nodes, counters)
            times = numbers[HASTE] if counters[FOUND] else 1.0  # how many times the bound counts in what is cut off
            if nodes.cost[node] + times * nodes.rest[node] > numbers[LIMIT]:
                continue
            counters[POPPED] += 1
            count = _needed(moves, bound, bonded, nodes, node, candidates)
            if count < 0:
                counters[FOUND], counters[OPEN] = 1, node
                if nodes.move[node] >= 0:
                    return SOLUTION
                continue
        _expand(moves, bound, bonded, nodes, counters, numbers, node, candidates, count, banned)


@compiled
def _expand(
    moves: Moves, bound: np.ndarray, bonded: np.ndarray, nodes: Nodes, counters: np.ndarray, numbers: np.ndarray,
    node: int, candidates: np.ndarray, count: int, banned: np.ndarray,
) -> None:  # fmt: skip
    """Push a node's children: each takes one of the candidates, which those after it may not."""
    cost, rest, imbalance = nodes.cost[node], nodes.rest[node], nodes.imbalance[node]
    for word in range(len(banned)):
        banned[word] = nodes.banned[node, word]
    times = numbers[HASTE] if counters[FOUND] else 1.0
    for k in range(count):
        m = candidates[k]
        bit = np.uint64(1) << np.uint64(m % WORD)
        if banned[m // WORD] & bit:
            continue
        new_cost = cost + moves.gap[m]
        if new_cost > numbers[LIMIT]:
            break  # candidates come cheapest first
        i, j, shift = moves.first[m], moves.second[m], moves.shift[m]
        new_rest = rest - _at(bound, i, imbalance[i]) + _at(bound, i, imbalance[i] + shift)
        if j >= 0:
            new_rest += _at(bound, j, imbalance[j] + shift) - _at(bound, j, imbalance[j])
        if new_cost + times * new_rest <= numbers[LIMIT]:
            child = counters[NODES]
            counters[NODES] += 1
            nodes.cost[child], nodes.rest[child] = new_cost, new_rest
            nodes.parent[child], nodes.move[child] = node, m
            balanced = not counters[FOUND]
            for atom in range(len(imbalance)):
                nodes.imbalance[child, atom] = imbalance[atom] + (shift if atom in (i, j) else 0)
                balanced = balanced and nodes.imbalance[child, atom] == 0
            for total in range(nodes.excess.shape[1]):
                nodes.excess[child, total] = nodes.excess[node, total] + moves.totals[m, total]
                balanced = balanced and nodes.excess[child, total] == 0
            for word in range(len(banned)):
                nodes.banned[child, word] = banned[word] | moves.bits[m, word]
            if balanced and _piece(bonded, moves, nodes, node, m).all():
                numbers[LIMIT] = min(numbers[LIMIT], new_cost + numbers[SLACK])
            _push(nodes, counters, new_cost + numbers[HASTE] * new_rest, child)
        banned[m // WORD] |= bit


@compiled
def graph_of(moves: Moves, nodes: Nodes, node: int, classes: np.ndarray, orders: np.ndarray) -> float:
    """Make a node's changes to the argmax's `classes` `[N]` and `orders` `[N, N]`; what they cost."""
    cost = nodes.cost[node]
    while nodes.move[node] >= 0:
        m = nodes.move[node]
        i, j = moves.first[m], moves.second[m]
        if j < 0:
            classes[i] = moves.value[m]
        else:
            orders[i, j] = orders[j, i] = moves.value[m]
        node = nodes.parent[node]
    return cost
