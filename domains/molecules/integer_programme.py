"""The exact repair of a graph as an integer programme, for problems the search gives up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from .repairs import Alternatives, Problem, component


def integer_programme(problem: Problem, first_window: float) -> list[int] | None:
    """The same optimum by HiGHS: binaries for the alternatives, connectivity by cuts added as needed.

    First with the alternatives within `first_window`, exact if the answer is no dearer, then with all.
    None when no consistent graph exists.
    """
    for window in (first_window, np.inf):
        table = problem.alternatives(window)
        chosen = _solve_with_cuts(problem, table)
        if chosen is not None and sum(problem.gaps[a] for a in chosen) <= window:
            return chosen
    return None


def _solve_with_cuts(problem: Problem, table: Alternatives) -> list[int] | None:
    ids, n = table.ids, problem.n
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
        add([(column[a], problem.shift[a]) for a in table.of_atom[i]], target, target)
    of_variable: dict[int, list[int]] = {}
    for a in ids:
        of_variable.setdefault(problem.variable(a), []).append(column[a])
    for members in of_variable.values():
        if len(members) > 1:
            add([(c, 1) for c in members], 0, 1)
    if problem.charge is not None:
        add([(column[a], problem.charge_shift[a]) for a in table.charged], -problem.excess, -problem.excess)
    cost = np.array([problem.gaps[a] for a in ids])
    while len(ids):
        matrix = csr_array((values, (rows, columns)), shape=(len(lower), len(ids)), dtype=float)
        result = milp(
            cost,
            integrality=np.ones(len(ids)),
            bounds=Bounds(0, 1),
            constraints=LinearConstraint(matrix, lower, upper),
            options={"mip_rel_gap": 0.0},
        )
        if result.x is None:
            return None
        chosen = [a for a, x in zip(ids, result.x, strict=True) if x > 0.5]
        neighbours = problem.neighbours_after(chosen)
        piece = set(component(neighbours, 0))
        if len(piece) == n:
            return chosen
        # at least one pair across the gap is bonded: bonds of the argmax across it that stay, plus those made
        across = [
            a for a in ids if problem.second[a] >= 0 and (problem.first[a] in piece) != (problem.second[a] in piece)
        ]
        entries = [(column[a], problem.bonding(a)) for a in across if problem.bonding(a)]
        kept = problem.bonds_across(piece)
        add(entries, 1 - kept, np.inf)
    return None
