"""The exact repair of a graph as an integer programme, for problems the search gives up."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from .repairs import Problem

NODES = 400


def integer_programme(problem: Problem, first_window: float) -> list[int] | None:
    """The same optimum by HiGHS: binaries for the alternatives, connectivity by a flow over bonded pairs.

    First with the alternatives within `first_window`, exact if the answer is no dearer, then with all.
    A network that has learned next to nothing leaves thousands of graphs as likely: after `NODES` branches the best
    one found is taken (a count, not a time, so that a seed keeps its result). None when no consistent graph is found.
    """
    for window in (first_window, np.inf):
        chosen = _solve(problem, problem.alternatives(window).tolist())
        if chosen is not None and sum(problem.gaps[a] for a in chosen) <= window:
            return chosen
    return None


def _solve(problem: Problem, ids: list[int]) -> list[int] | None:
    n = problem.n
    rows: list[int] = []
    columns: list[int] = []
    values: list[float] = []
    lower: list[float] = []
    upper: list[float] = []

    def add(entries: Sequence[tuple[int, float]], low: float, high: float) -> None:
        rows.extend([len(lower)] * len(entries))
        columns.extend(c for c, _ in entries)
        values.extend(v for _, v in entries)
        lower.append(low)
        upper.append(high)

    column = {a: c for c, a in enumerate(ids)}
    for i in range(n):
        target = -int(problem.imbalance[i])
        own = [a for a in ids if i in (problem.first[a], problem.second[a])]
        add([(column[a], problem.shift[a]) for a in own], target, target)
    of_variable: dict[int, list[int]] = {}
    for a in ids:
        of_variable.setdefault(problem.variable[a], []).append(column[a])
    for members in of_variable.values():
        if len(members) > 1:
            add([(c, 1) for c in members], 0, 1)
    for shift, excess in zip(problem.total_shifts, problem.excess):
        add([(column[a], shift[a]) for a in ids if shift[a]], -excess, -excess)

    def cut(piece: Collection[int]) -> None:
        """At least one pair across the gap is bonded: bonds of the argmax across it that stay, plus those made."""
        across = [
            a for a in ids if problem.second[a] >= 0 and (problem.first[a] in piece) != (problem.second[a] in piece)
        ]
        entries = [(column[a], problem.joins[a]) for a in across if problem.joins[a]]
        add(entries, 1 - problem.bonds_across(set(piece)), np.inf)

    for atom in range(n) if n > 1 else ():  # no atom alone: it tightens the relaxation
        cut({atom})
    # connectivity: atom 0 sends one unit to every other atom over bonded pairs, `flow` forward less backward
    bonding: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for a in ids:
        if change := problem.joins[a]:
            bonding.setdefault((problem.first[a], problem.second[a]), []).append((column[a], change))
    kept = {pair for pair, order in zip(zip(problem.left.tolist(), problem.right.tolist()), problem.bonds) if order > 0}
    flow = {pair: len(ids) + c for c, pair in enumerate(sorted(kept | set(bonding)))}
    most = n - 1
    for pair, f in flow.items():
        for sign in (1, -1):
            entries = [(f, sign), *((c, -most * change) for c, change in bonding.get(pair, ()))]
            add(entries, -np.inf, most * (pair in kept))
    for atom in range(1, n):
        add([(f, 1 if j == atom else -1) for (i, j), f in flow.items() if atom in (i, j)], 1, 1)
    size = len(ids) + len(flow)
    binary = np.arange(size) < len(ids)
    result = milp(
        np.concatenate([[problem.gaps[a] for a in ids], np.zeros(len(flow))]),
        integrality=binary.astype(int),
        bounds=Bounds(np.where(binary, 0, -most), np.where(binary, 1, most)),
        constraints=LinearConstraint(csr_array((values, (rows, columns)), shape=(len(lower), size)), lower, upper),
        options={"mip_rel_gap": 0.0, "node_limit": NODES},
    )
    return None if result.x is None else [a for a, x in zip(ids, result.x) if x > 0.5]
