"""The consistent graphs of a problem, likeliest first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .best_first import CEILING, END, LIMIT, SOLUTION, Nodes, advance
from .moves import SPAN, WORD, imbalance_cost, moves_of
from .repairs import Problem
from .weighing import NOT_ASKED, Weighing, lacking

ROOM = 4096  # nodes that there is room for at first


class Found(NamedTuple):
    """A consistent graph: nats less likely than the argmax, classes `[N]`, orders `[N, N]`; what it lacks, as far as is known
    without RDKit, and whether that is not all (`weighing.lacking`)."""

    gap: float
    classes: np.ndarray
    orders: np.ndarray
    nats: float
    unsure: bool


@dataclass(frozen=True)
class Search:
    """How far the likely graphs are looked at: up to `slack` nats from the first unless that is the argmax itself, `most` of
    them, `nodes` of the search. With `haste` over 1 the bound of what a node still costs counts so many times: graphs come
    sooner, and some likely ones late or not at all."""

    slack: float
    most: int
    nodes: int
    haste: float = 1.0


ONE = Search(slack=0.0, most=1, nodes=0)


class Ranking:
    """Iterates over the consistent graphs that a problem has, likeliest first, but for those that cannot be wanted.

    It ends where the next is more than `limit` nats from the argmax, as `search` says, and after `before_first` nodes if none
    was found in so many. Whoever iterates may say `no_more_than` so many nats of gap and penalty: graphs of more, and those
    for which `weighing` says so, are left out.
    """

    def __init__(
        self, problem: Problem, weighing: Weighing, limit: float, before_first: int, search: Search = ONE
    ) -> None:  # fmt: skip
        self.problem, self.weighing = problem, weighing
        self.numbers = np.array([limit, search.slack, search.haste, np.inf])
        self.most = np.array([before_first, search.nodes, search.most])

    def no_more_than(self, nats: float) -> None:
        self.numbers[LIMIT], self.numbers[CEILING] = min(nats, self.numbers[LIMIT]), nats

    def __iter__(self) -> Iterator[Found]:
        problem, seen = self.problem, 0
        if problem.is_solved():  # often all that is asked for
            classes, orders, seen = problem.classes.copy(), problem.orders.copy(), 1
            yield Found(0.0, classes, orders, *lacking(classes, orders, NOT_ASKED, self.weighing))
        if np.abs(problem.imbalance).max() > SPAN - 4:
            return
        bound = imbalance_cost(
            problem.class_gap, problem.bond_gap, problem.classes, problem.bonds, problem.left, problem.right,
            problem.order_sums,
        )  # fmt: skip
        ids = problem.alternatives(self.numbers[LIMIT])
        moves = moves_of(
            ids, bound, problem.first, problem.second, problem.shift, problem.value, problem.joins, problem.total_shifts,
            problem.gaps, problem.variable,
        )  # fmt: skip
        nodes = _start(problem, bound, len(ids))
        counters = np.array([1, 1, 0, 0, -1, seen])
        argmax = (problem.classes, problem.orders)
        while True:
            why, found = advance(moves, bound, argmax, nodes, counters, self.numbers, self.most, self.weighing)
            if why == END:
                return
            if why == SOLUTION:
                yield Found(*found)
            else:
                nodes = Nodes._make(np.concatenate([part, np.empty_like(part)]) for part in nodes)


def _start(problem: Problem, bound: np.ndarray, moves: int) -> Nodes:
    """The argmax as the only node."""
    room = ROOM + moves
    columns = [np.empty(room, dtype=kind) for kind in (float, int, float, float, int, int)]
    widths = ((problem.n, int), (len(problem.excess), int), (-(-moves // WORD), np.uint64))
    nodes = Nodes._make([*columns, *(np.empty((room, width), dtype=kind) for width, kind in widths)])
    nodes.key[0], nodes.node[0], nodes.cost[0], nodes.parent[0], nodes.move[0] = 0.0, 0, 0.0, -1, -1
    nodes.rest[0] = sum(float(bound[i, SPAN + r]) for i, r in enumerate(problem.imbalance.tolist()))
    nodes.imbalance[0], nodes.excess[0], nodes.banned[0] = problem.imbalance, problem.excess, 0
    return nodes
