"""Maximum-likelihood decoding of class and bond probabilities into a valence-consistent graph.

A graph is consistent when every atom spends exactly its class's `order_sum` on heavy neighbours, the
graph is connected, and the totals are those asked for (net charge; hydrogens and rings where told).
Of all consistent graphs the decoder returns the one with the largest sum of independent log-probabilities

    sum_i log p(class_i) + sum_{i<j} log p(order_ij)

exactly: the argmax when it is consistent, else a best-first search over repairs of the argmax (`ranking`), and
where that search grows too large an integer programme (HiGHS). The search goes on to the next likely ones where something
else is to be weighed (`decode_weighed`). Coordinates play no part.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from .compiled import compiled
from .integer_programme import integer_programme
from .ranking import Found, Ranking, Search
from .repairs import Problem, Totals, piece_of_first
from .vocabulary import AROMATIC, BOND_ORDERS, Vocabulary
from .weighing import Weighing, no_weighing

FLOOR = 60.0  # a log-probability this far below the best alternative counts as this far, never as impossible
WINDOW = 16.0  # dearer alternatives are left out at first, and let in when the answer is not cheaper
MAX_POPS = 3000  # search nodes before the integer programme takes over (where the two take about equally long)
CHARGE = 0  # net charge of a molecule unless told otherwise


def decode_graph(
    atom_logp: np.ndarray,
    bond_logp: np.ndarray,
    vocabulary: Vocabulary,
    allowed: np.ndarray | None = None,
    charge: int | None = CHARGE,
    hydrogens: int | None = None,
    bonds: int | None = None,
) -> DecodedGraph:
    """The likeliest consistent graph of N heavy atoms.

    `atom_logp` `[N, K]` over the vocabulary, `bond_logp` `[N, N, 4]` over orders 0..3 (symmetrised here; `kekule_choices`),
    `allowed` `[N, K]` bool: classes an atom may take, `charge`: net formal charge, `hydrogens` in all, `bonds`: bonded
    pairs of heavy atoms (N - 1 + rings); None for any.
    Where no consistent graph exists the result is the argmax (of allowed classes) with `consistent=False`.
    Raises ValueError on wrong shapes or NaN.
    """
    problem = problem_of(atom_logp, bond_logp, vocabulary, allowed, Totals(charge, hydrogens, bonds))
    found = None if problem is None else next(iter(Ranking(problem, no_weighing(vocabulary), WINDOW, MAX_POPS)), None)
    return _decoded(problem, atom_logp, bond_logp, allowed, found)


Penalty = Callable[[Found, float], float]


@dataclass(frozen=True)
class Farther:
    """A second look at one that lacks `lacking` nats or more: a longer search among graphs of these totals alone."""

    lacking: float
    search: Search
    totals: Totals


def decode_weighed(
    atom_logp: np.ndarray,
    bond_logp: np.ndarray,
    vocabulary: Vocabulary,
    allowed: np.ndarray | None,
    charge: int | None,
    penalty: Penalty,
    search: Search,
    weighing: Weighing,
    farther: Farther | None = None,
) -> DecodedGraph:
    """Of the likeliest consistent graphs that for which `gap` and a penalty are least.

    `penalty(found, enough)` is in nats, not less than what `weighing` says of it (`Found.nats`); what is more than `enough`
    need not be known exactly. Other arguments are `decode_graph`'s.
    """
    problem = problem_of(atom_logp, bond_logp, vocabulary, allowed, Totals(charge))
    cost, best = _best(problem, penalty, search, weighing)
    if farther is not None and best is not None and cost - best.gap >= farther.lacking:
        again = problem_of(atom_logp, bond_logp, vocabulary, allowed, farther.totals)
        cost, best = min((cost, best), _best(again, penalty, farther.search, weighing, cost), key=lambda one: one[0])
    found = _decoded(problem, atom_logp, bond_logp, allowed, best)
    return found if best is None else replace(found, lacking=cost - best.gap)


def _best(
    problem: Problem | None, penalty: Penalty, search: Search, weighing: Weighing, least: float = np.inf
) -> tuple[float, Found | None]:  # fmt: skip
    """Gap and penalty of the graph for which they are least, and it; infinity and None where none has less than `least`."""
    found = deque(_weighed(problem, penalty, search, weighing, least=least), maxlen=1) if problem is not None else ()
    return found[0] if found else (np.inf, None)  # each is better than the one before


def near_best(
    problem: Problem, penalty: Penalty, search: Search, weighing: Weighing, margin: float
) -> list[tuple[float, Found]]:  # fmt: skip
    """Gap and penalty of the graphs that are within `margin` nats of the one `decode_weighed` takes, and they."""
    found = list(_weighed(problem, penalty, search, weighing, margin))
    least = min((cost for cost, _ in found), default=0.0)
    return [(cost, graph) for cost, graph in found if cost <= least + margin]


def _weighed(
    problem: Problem, penalty: Penalty, search: Search, weighing: Weighing, margin: float = 0.0, least: float = np.inf
) -> Iterator[tuple[float, Found]]:  # fmt: skip
    """Gap and penalty of graphs, each the best so far (of less than `least`) or, with a `margin`, so near it, and they."""
    ranking = Ranking(problem, weighing, WINDOW + search.slack, MAX_POPS, search)
    ranking.no_more_than(least + margin)
    for found in ranking:
        cost = found.gap + penalty(found, least + margin - found.gap)
        if cost < least + margin:
            yield cost, found
            least = min(least, cost)
            ranking.no_more_than(least + margin)


def _decoded(
    problem: Problem | None,
    atom_logp: np.ndarray,
    bond_logp: np.ndarray,
    allowed: np.ndarray | None,
    found: Found | None,
) -> DecodedGraph:
    """The graph `found`; where the search found none (None), the integer programme's."""
    if problem is not None and found is None and (chosen := integer_programme(problem, 2 * WINDOW)) is not None:
        found = Found(float(problem.gaps[chosen].sum()), *problem.apply(chosen), 0.0, False)
    if problem is None or found is None:
        return _infeasible(atom_logp, bond_logp, allowed)
    value = problem.best - found.gap
    return DecodedGraph(found.classes, found.orders, value, float(found.gap), repaired=found.gap > 0, consistent=True)


def kekule_choices(bond_logp: np.ndarray) -> np.ndarray:
    """Log-probabilities of the classes as those of orders `[..., 4]`: an aromatic bond may be single or double.

    Which it is decides the valences of its atoms; both as likely as the aromatic bond, so that no Kekulé form is dearer.
    """
    orders = bond_logp[..., :AROMATIC].copy()
    if bond_logp.shape[-1] > AROMATIC:
        orders[..., 1:3] = np.logaddexp(orders[..., 1:3], bond_logp[..., AROMATIC:])
    return orders


def is_connected(orders: np.ndarray) -> bool:
    """Whether the graph of non-zero entries of `orders` `[N, N]` is one piece."""
    return bool(piece_of_first(orders > 0).all())


def problem_of(
    atom_logp: np.ndarray,
    bond_logp: np.ndarray,
    vocabulary: Vocabulary,
    allowed: np.ndarray | None,
    totals: Totals,
) -> Problem | None:
    """Checked input as costs relative to the argmax; None when an atom has no class left."""
    atom = np.ascontiguousarray(atom_logp, dtype=np.float64)
    bond = np.ascontiguousarray(bond_logp, dtype=np.float64)
    n, k = len(atom), len(vocabulary)
    if n == 0 or atom.shape != (n, k) or bond.shape != (n, n, len(BOND_ORDERS)):
        raise ValueError(
            f"expected atom_logp [N, {k}] and bond_logp [N, N, {len(BOND_ORDERS)}] with N > 0, "
            f"found {list(atom.shape)} and {list(bond.shape)}"
        )
    may_be = np.ones((n, k), dtype=bool) if allowed is None else np.ascontiguousarray(allowed, dtype=bool)
    if may_be.shape != (n, k):
        raise ValueError(f"expected allowed [{n}, {k}], found {list(may_be.shape)}")
    class_gap, bond_gap, best = _gaps(atom, bond, may_be)
    if np.isnan(best):
        raise ValueError("log-probabilities contain NaN")
    return Problem(class_gap, bond_gap, best, vocabulary, totals) if may_be.any(1).all() else None


@compiled
def _gaps(atom: np.ndarray, bond: np.ndarray, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Nats by which classes `[N, K]` and orders `[P, 4]` are less likely than the best (infinite where not allowed), and the
    best's log-likelihood, NaN where anything is; the diagonal of `bond` `[N, N, 4]` means nothing."""
    n, k = atom.shape
    class_gap, bond_gap = np.full((n, k), np.inf), np.zeros((n * (n - 1) // 2, 4))
    unknown, pair, whole, both = False, 0, 0.0, np.zeros(4)
    for i in range(n):
        best = -np.inf
        for c in range(k):
            unknown = unknown or np.isnan(atom[i, c])
            if allowed[i, c]:
                best = max(best, max(atom[i, c], -1e30))
        whole += best
        for c in range(k):
            if allowed[i, c]:
                class_gap[i, c] = min(best - max(atom[i, c], -1e30), FLOOR)
        for j in range(i + 1, n):
            best = -np.inf
            for order in range(4):
                unknown = unknown or np.isnan(bond[i, j, order]) or np.isnan(bond[j, i, order])
                both[order] = max(bond[i, j, order] + bond[j, i, order], -1e30) / 2
                best = max(best, both[order])
            whole += best
            for order in range(4):
                bond_gap[pair, order] = min(best - both[order], FLOOR)
            pair += 1
    return class_gap, bond_gap, np.nan if unknown else whole


def _infeasible(atom_logp: np.ndarray, bond_logp: np.ndarray, allowed: np.ndarray | None) -> DecodedGraph:
    bond = np.asarray(bond_logp, dtype=np.float64)
    ranked = np.asarray(atom_logp) if allowed is None else np.where(allowed, atom_logp, -np.inf)
    classes = ranked.argmax(1)
    orders = (bond + bond.transpose(1, 0, 2)).argmax(2)
    np.fill_diagonal(orders, 0)
    value = _log_likelihood(atom_logp, bond_logp, classes, orders)
    return DecodedGraph(classes, orders, value, 0.0, repaired=False, consistent=False)


def _log_likelihood(atom_logp: np.ndarray, bond_logp: np.ndarray, classes: np.ndarray, orders: np.ndarray) -> float:
    n = len(classes)
    left, right = np.triu_indices(n, 1)
    picked = orders[left, right]
    bonds = (bond_logp[left, right, picked] + bond_logp[right, left, picked]).sum() / 2
    return float(np.asarray(atom_logp)[np.arange(n), classes].sum() + bonds)


@dataclass(frozen=True)
class DecodedGraph:
    """A decoded molecule of N heavy atoms. `gap` is what consistency cost, in nats below the argmax."""

    classes: np.ndarray  # [N] int, index into the vocabulary
    orders: np.ndarray  # [N, N] int, symmetric, Kekulé orders, zero diagonal
    log_likelihood: float
    gap: float
    repaired: bool  # the argmax was not consistent, and the graph differs from it
    consistent: bool  # false: no consistent graph exists, and this is the argmax
    lacking: float = 0.0  # the penalty, where graphs were weighed
