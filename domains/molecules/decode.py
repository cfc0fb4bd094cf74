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

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

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


def decode_weighed(
    atom_logp: np.ndarray,
    bond_logp: np.ndarray,
    vocabulary: Vocabulary,
    allowed: np.ndarray | None,
    charge: int | None,
    penalty: Penalty,
    search: Search,
    weighing: Weighing,
) -> DecodedGraph:
    """Of the likeliest consistent graphs that for which `gap` and a penalty are least.

    `penalty(found, enough)` is in nats, not less than what `weighing` says of it (`Found.nats`); what is more than `enough`
    need not be known exactly. Other arguments are `decode_graph`'s.
    """
    problem = problem_of(atom_logp, bond_logp, vocabulary, allowed, Totals(charge))
    found = [] if problem is None else list(_weighed(problem, penalty, search, weighing))
    best = min(found, key=lambda one: one[0])[1] if found else None
    return _decoded(problem, atom_logp, bond_logp, allowed, best)


def near_best(
    problem: Problem, penalty: Penalty, search: Search, weighing: Weighing, margin: float
) -> list[tuple[float, Found]]:  # fmt: skip
    """Gap and penalty of the graphs that are within `margin` nats of the one `decode_weighed` takes, and they."""
    found = list(_weighed(problem, penalty, search, weighing, margin))
    least = min((cost for cost, _ in found), default=0.0)
    return [(cost, graph) for cost, graph in found if cost <= least + margin]


def _weighed(
    problem: Problem, penalty: Penalty, search: Search, weighing: Weighing, margin: float = 0.0
) -> Iterator[tuple[float, Found]]:  # fmt: skip
    """Gap and penalty of graphs, each the best so far or, with a `margin`, within so much of it, and they."""
    ranking = Ranking(problem, weighing, WINDOW + search.slack, MAX_POPS, search)
    least = np.inf
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
    if found is None:
        return _infeasible(atom_logp, bond_logp, allowed)
    value = _log_likelihood(atom_logp, bond_logp, found.classes, found.orders)
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
    atom = np.asarray(atom_logp, dtype=np.float64)
    bond = np.asarray(bond_logp, dtype=np.float64)
    n, k = len(atom), len(vocabulary)
    if n == 0 or atom.shape != (n, k) or bond.shape != (n, n, len(BOND_ORDERS)):
        raise ValueError(
            f"expected atom_logp [N, {k}] and bond_logp [N, N, {len(BOND_ORDERS)}] with N > 0, "
            f"found {list(atom.shape)} and {list(bond.shape)}"
        )
    left, right = np.triu_indices(n, 1)  # the diagonal of bond_logp means nothing
    if np.isnan(atom).any() or np.isnan(bond[left, right]).any() or np.isnan(bond[right, left]).any():
        raise ValueError("log-probabilities contain NaN")
    if allowed is not None:
        allowed = np.asarray(allowed, dtype=bool)
        if allowed.shape != (n, k):
            raise ValueError(f"expected allowed [{n}, {k}], found {list(allowed.shape)}")
        if not allowed.any(1).all():
            return None
        atom = np.where(allowed, np.maximum(atom, -1e30), -np.inf)
    bond = np.maximum(bond + bond.transpose(1, 0, 2), -1e30) / 2
    class_gap = np.minimum(np.maximum(atom.max(1), -1e30)[:, None] - atom, FLOOR)
    if allowed is not None:
        class_gap[~allowed] = np.inf
    bond = bond[left, right]
    bond_gap = np.minimum(bond.max(1, keepdims=True) - bond, FLOOR)
    return Problem(class_gap, bond_gap, left, right, vocabulary, totals)


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
