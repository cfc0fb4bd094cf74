"""Maximum-likelihood decoding of class and bond probabilities into a valence-consistent graph.

A graph is consistent when every atom spends exactly its class's `order_sum` on heavy neighbours, the
graph is connected, and the totals are those asked for (net charge; hydrogens and rings where told).
Of all consistent graphs the decoder returns the one with the largest sum of independent log-probabilities

    sum_i log p(class_i) + sum_{i<j} log p(order_ij)

exactly: the argmax when it is consistent, else a best-first search over repairs of the argmax, and
where that search grows too large an integer programme (HiGHS). The search also lists the next likely ones (`ranked_graphs`).
Coordinates play no part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np

from .integer_programme import integer_programme
from .repairs import Alternatives, Problem, Totals, component, neighbour_masks
from .vocabulary import AROMATIC, BOND_ORDERS, Vocabulary

FLOOR = 60.0  # a log-probability this far below the best alternative counts as this far, never as impossible
WINDOW = 16.0  # dearer alternatives are left out at first, and let in when the answer is not cheaper
MAX_POPS = 3000  # search nodes before the integer programme takes over (where the two take about equally long)
SPAN = 12  # imbalances that the bound tells apart, in bond orders
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
    problem = _problem(atom_logp, bond_logp, vocabulary, allowed, Totals(charge, hydrogens, bonds))
    if problem is None:
        return _infeasible(atom_logp, bond_logp, allowed)
    chosen: list[int] = []
    if problem.imbalance.any() or not problem.is_solution(chosen):
        found = _search(problem, WINDOW, MAX_POPS)
        if found is None:
            found = integer_programme(problem, 2 * WINDOW)
        if found is None:
            return _infeasible(atom_logp, bond_logp, allowed)
        chosen = found
    return _decoded(problem, atom_logp, bond_logp, chosen)


def ranked_graphs(
    atom_logp: np.ndarray,
    bond_logp: np.ndarray,
    vocabulary: Vocabulary,
    allowed: np.ndarray | None = None,
    charge: int | None = CHARGE,
    slack: float = WINDOW,
    max_pops: int = MAX_POPS,
) -> Iterator[DecodedGraph]:
    """Consistent graphs, the likeliest first, that cost up to `slack` nats more than it; arguments as `decode_graph`'s.

    None is left out before the last; the list ends early after `max_pops` nodes of the search.
    """
    problem = _problem(atom_logp, bond_logp, vocabulary, allowed, Totals(charge))
    if problem is not None:
        for chosen in _ranked(problem, WINDOW + slack, max_pops, slack):
            yield _decoded(problem, atom_logp, bond_logp, chosen)


def _decoded(problem: Problem, atom_logp: np.ndarray, bond_logp: np.ndarray, chosen: Sequence[int]) -> DecodedGraph:
    classes, orders = problem.apply(chosen)
    return DecodedGraph(
        classes=classes,
        orders=orders,
        log_likelihood=_log_likelihood(atom_logp, bond_logp, classes, orders),
        gap=float(sum(problem.gaps[a] for a in chosen)),
        repaired=bool(chosen),
        consistent=True,
    )


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
    return len(component(neighbour_masks(orders), 0)) == len(orders)


def _problem(
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


def _imbalance_cost(problem: Problem) -> list[list[float]]:
    """Least cost, per atom, of removing an imbalance: `[N][2 SPAN + 1]`, index imbalance + SPAN.

    A class change is charged to its atom, a bond change half to each end, so the sum over atoms never
    exceeds the true cost: the admissible bound of the search. Imbalances beyond SPAN count as free.
    """
    n = problem.n
    width = 2 * SPAN + 1
    reach = max(3, int(problem.order_sums.max() - problem.order_sums.min()))
    # [atom, neighbour (itself: the class), shift of imbalance]
    moves = np.full((n, n, 2 * reach + 1), np.inf)
    moves[:, :, reach] = 0
    shift = problem.order_sums[None] - problem.order_sums[problem.classes][:, None]
    for i in range(n):
        np.minimum.at(moves[i, i], shift[i] + reach, problem.class_gap[i])
    orders = np.arange(4)
    bond_shift = problem.bonds[:, None] - orders[None] + reach
    for at, to in ((problem.left, problem.right), (problem.right, problem.left)):
        moves[at[:, None], to[:, None], bond_shift] = problem.bond_gap / 2
    padded = np.zeros((n, width + 2 * reach))
    cost = padded[:, reach : reach + width]  # a view: what the windows see
    cost[:] = np.inf
    cost[:, SPAN] = 0
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=1)
    for j in range(n):
        cost[:] = (windows + moves[:, j][:, None, :]).min(2)  # to undo r, either keep r or move it by a shift
    return cost.tolist()


def _search(problem: Problem, window: float, max_pops: int) -> list[int] | None:
    """The cheapest set of changes to the argmax, or None: it costs more than `window`, or takes more than `max_pops` nodes."""
    return next(_ranked(problem, window, max_pops), None)


def _ranked(problem: Problem, window: float, max_pops: int, slack: float = 0.0) -> Iterator[list[int]]:
    """Best-first search over sets of changes to the argmax: those that make a solution, cheapest first.

    A node is a set of changes and a set of banned ones. An unbalanced atom (or a piece that must be
    linked, or a wrong total) needs one of a known list of changes, and to leave a solution any change will do: child m
    takes the m-th and bans the earlier ones, so children are disjoint and miss nothing. It ends after solutions that
    cost `slack` more than the first, or more than `window`, and after `max_pops` nodes.
    """
    if np.abs(problem.imbalance).max() > SPAN - 4:
        return
    table = problem.alternatives(window)
    bound = _imbalance_cost(problem)
    imbalance = tuple(int(r) for r in problem.imbalance)
    rest = sum(bound[i][r + SPAN] for i, r in enumerate(imbalance))
    heap: list[tuple] = [(rest, 0, 0.0, rest, imbalance, problem.excess, 0, ())]
    limit, count = window, 0
    for _ in range(max_pops):
        if not heap:
            return
        _, _, cost, rest, imbalance, excess, banned, chosen = heappop(heap)
        candidates = _must_change(problem, table, bound, imbalance, excess, chosen)
        if candidates is None:
            yield list(chosen)
            candidates = table.ids
        for a in candidates:
            bit = 1 << a
            if banned & bit:
                continue
            i, j, shift = problem.first[a], problem.second[a], problem.shift[a]
            ri, new_cost = imbalance[i] + shift, cost + problem.gaps[a]
            if new_cost > limit:
                break  # candidates come cheapest first
            if abs(ri) > SPAN:
                return  # outside the bound's table
            new_rest = rest - bound[i][imbalance[i] + SPAN] + bound[i][ri + SPAN]
            if j >= 0:
                rj = imbalance[j] + shift
                if abs(rj) > SPAN:
                    return
                new_rest += bound[j][rj + SPAN] - bound[j][imbalance[j] + SPAN]
            if new_cost + new_rest <= limit:
                new = list(imbalance)
                new[i] = ri
                if j >= 0:
                    new[j] = rj
                count += 1
                new_excess = problem.excess_after(excess, a)
                taken = (*chosen, a)
                if not any(new) and problem.is_solution(taken, new_excess):
                    limit = min(limit, new_cost + slack)
                heappush(
                    heap,
                    (new_cost + new_rest, count, new_cost, new_rest, tuple(new), new_excess,
                     banned | problem.variable(a), taken),
                )  # fmt: skip
            banned |= bit


def _must_change(
    problem: Problem,
    table: Alternatives,
    bound: list[list[float]],
    imbalance: tuple[int, ...],
    excess: tuple[int, ...],
    chosen: tuple[int, ...],
) -> list[int] | None:
    """Alternatives of which at least one is needed; None when the node is a solution."""
    worst, atom = 0.0, -1
    for i, r in enumerate(imbalance):
        if r and bound[i][r + SPAN] >= worst:
            worst, atom = bound[i][r + SPAN], i
    if atom >= 0:
        return table.of_atom[atom]
    for members, too_many in zip(table.of_total, excess):
        if too_many:
            return members
    neighbours = problem.neighbours_after(chosen)
    piece = set(component(neighbours, 0))
    if len(piece) == problem.n:
        return None
    return [a for a in table.joining if (problem.first[a] in piece) != (problem.second[a] in piece)]


@dataclass(frozen=True)
class DecodedGraph:
    """A decoded molecule of N heavy atoms. `gap` is what consistency cost, in nats below the argmax."""

    classes: np.ndarray  # [N] int, index into the vocabulary
    orders: np.ndarray  # [N, N] int, symmetric, Kekulé orders, zero diagonal
    log_likelihood: float
    gap: float
    repaired: bool  # the argmax was not consistent, and the graph differs from it
    consistent: bool  # false: no consistent graph exists, and this is the argmax
