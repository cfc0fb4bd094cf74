"""Best-first search over sets of changes to the argmax graph: those that make it consistent, cheapest first.

A node is a set of changes and a set of banned ones. An unbalanced atom (or a piece that must be linked, or a wrong total)
needs one of a known list of changes, and to leave a solution any change will do: child m takes the m-th and bans the earlier
ones, so children are disjoint and miss nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush

import numpy as np

from .repairs import Problem, component

SPAN = 12  # imbalances that the bound tells apart, in bond orders
DIGIT, MASK = 6, 63  # bits of an atom's imbalance in the one number that a node has for all
# number and bit of a change, its atoms (second: -1, none), what it adds to their imbalance, to the number of them all, cost,
# what it adds to the totals (None: nothing), bits of all changes of its variable
Move = tuple[int, int, int, int, int, int, float, tuple[int, ...] | None, int]


class Ranking:
    """Iterates over sets of changes that make a solution, each a list of numbers of alternatives, cheapest first.

    It ends where the next costs more than `limit`, which whoever iterates may lower, or `slack` more than the first unless
    that is the argmax itself; after `most` nodes; after `before_first` if none was found in so many. With `haste` over 1
    the bound of what a node still costs counts so many times: solutions come sooner, and some cheap ones late or not at all.
    """

    def __init__(
        self,
        problem: Problem,
        limit: float,
        before_first: int,
        most: int = 0,
        slack: float = 0.0,
        haste: float = 1.0,
    ) -> None:
        self.problem, self.limit, self.slack, self.haste = problem, limit, slack, haste
        self.before_first, self.most = before_first, most

    def __iter__(self) -> Iterator[list[int]]:
        problem = self.problem
        if not problem.imbalance.any() and problem.is_solution([]):
            yield []  # often all that is asked for
        if np.abs(problem.imbalance).max() > SPAN - 4:
            return
        bound = _imbalance_cost(problem)
        moves, of_atom, of_total, joining = self._moves()
        # what each costs at least where all is balanced: from a solution they are tried in this order
        whole = {
            m[0]: m[6] + bound[m[2]][SPAN + m[4]] + (bound[m[3]][SPAN + m[4]] if m[3] >= 0 else 0.0) for m in moves
        }
        moves.sort(key=lambda m: whole[m[0]])
        places = [DIGIT * i for i in range(problem.n)]
        balanced = sum(SPAN << place for place in places)
        start = balanced + sum(r << place for r, place in zip(problem.imbalance.tolist(), places))
        rest = sum(bound[i][SPAN + r] for i, r in enumerate(problem.imbalance.tolist()))
        heap: list[tuple] = [(self.haste * rest, 0, 0.0, rest, start, problem.excess, 0, ())]
        count, nodes, found, times = 0, 0, False, 1.0  # how many times the bound counts in what is cut off
        while heap and nodes < (self.most if found else self.before_first):
            _, _, cost, rest, packed, excess, banned, chosen = heappop(heap)
            limit = self.limit
            if cost + times * rest > limit:
                continue
            nodes += 1
            candidates = None
            worst = 0.0
            imbalance = [packed >> place & MASK for place in places]
            now = [least[r] for least, r in zip(bound, imbalance)]
            if packed != balanced:
                for i, r in enumerate(imbalance):
                    if r != SPAN and now[i] >= worst:
                        worst, candidates = now[i], of_atom[i]
            if candidates is None:
                candidates = next((members for members, e in zip(of_total, excess) if e), None)
            if candidates is None:
                piece = set(component(problem.neighbours_after(chosen), 0))
                if len(piece) < problem.n:
                    candidates = [m for m in joining if (m[2] in piece) != (m[3] in piece)]
            if candidates is None:
                found, times = True, self.haste
                if chosen:
                    yield list(chosen)
                limit = self.limit  # whoever iterates may have lowered it
                candidates = [m for m in moves if cost + whole[m[0]] <= limit]
            for a, bit, i, j, shift, shifts, gap, totals, variable in candidates:
                if banned & bit:
                    continue
                new_cost = cost + gap
                if new_cost > limit:
                    break  # candidates come cheapest first
                new_rest = rest - now[i] + bound[i][imbalance[i] + shift]
                if j >= 0:
                    new_rest += bound[j][imbalance[j] + shift] - now[j]
                if new_cost + times * new_rest <= limit:
                    new = packed + shifts
                    count += 1
                    new_excess = excess if totals is None else tuple([e + s for e, s in zip(excess, totals)])
                    taken = (*chosen, a)
                    if not found and new == balanced and problem.is_solution(taken, new_excess):
                        limit = self.limit = min(limit, new_cost + self.slack)
                    heappush(
                        heap,
                        (
                            new_cost + self.haste * new_rest,
                            count,
                            new_cost,
                            new_rest,
                            new,
                            new_excess,
                            banned | variable,
                            taken,
                        ),
                    )
                banned |= bit

    def _moves(self) -> tuple[list[Move], list[list[Move]], list[list[Move]], list[Move]]:
        """Changes that the limit permits, cheapest first: all, by atom, by the total they change, that make a bond."""
        problem = self.problem
        table = problem.alternatives(self.limit)
        moves: dict[int, Move] = {}
        for a in table.ids:
            shifts = tuple([shift[a] for shift in problem.total_shifts])
            i, j, shift = problem.first[a], problem.second[a], problem.shift[a]
            both = (shift << DIGIT * i) + (shift << DIGIT * j if j >= 0 else 0)
            moves[a] = (
                a, 1 << a, i, j, shift, both, problem.gaps[a],
                shifts if any(shifts) else None, problem.variable(a),
            )  # fmt: skip

        def those(ids: list[int]) -> list[Move]:
            return [moves[a] for a in ids]

        return (
            those(table.ids),
            [those(m) for m in table.of_atom],
            [those(m) for m in table.of_total],
            those(table.joining),
        )


def _imbalance_cost(problem: Problem) -> list[list[float]]:
    """Least cost, per atom, of removing an imbalance r: `[N][SPAN + r]`.

    A class change is charged to its atom, a bond change half to each end, so the sum over atoms never
    exceeds the true cost: the admissible bound of the search. Imbalances beyond SPAN count as free on the
    way, and as hopeless where the search would stop.
    """
    n = problem.n
    width = 2 * SPAN + 1
    reach = max(3, int(problem.order_sums.max() - problem.order_sums.min()))
    # [atom, neighbour (itself: the class), shift of imbalance]
    moves = np.full((n, n, 2 * reach + 1), np.inf)
    moves[:, :, reach] = 0
    shift = problem.order_sums[None] - problem.order_sums[problem.classes][:, None]
    atoms = np.arange(n)[:, None]
    np.minimum.at(moves, (atoms, atoms, shift + reach), problem.class_gap)
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
    return np.pad(cost, ((0, 0), (0, MASK + 1 - width)), constant_values=np.inf).tolist()
