"""Distances that a graph fixes: bonds, angles and flat torsions are as the training data have them, or nearly so.

Few evaluations leave positions right but for tenths of an Å. What a graph says of its distances needs no network: the mean and
standard deviation of every kind of path of one to three bonds are counted once, and positions move to where the distances
are likeliest beside what the network said of each atom (a maximum a posteriori estimate with Gaussian priors, by
Gauss-Newton; restraints as in crystallographic refinement, Hendrickson 1985).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np
from pydantic import BaseModel, ConfigDict
from rdkit import Chem

from sciconsist.domains.molecules.graphs import HeavyGraph
from sciconsist.domains.molecules.surroundings import bond_kinds, surroundings
from sciconsist.domains.molecules.vocabulary import Vocabulary

OFTEN = 8  # a kind of path seen less often says nothing
SHARPEST = {2: 0.006, 3: 0.015, 4: 0.015}  # Å: the least standard deviation, by the number of atoms
FLAT = 0.06  # Å: the ends of three bonds that spread more are free to turn
NEAREST = 0.002  # quantile of the distances of atoms that no path of the table fixes: they may come as near
CLASH = 0.05  # Å: standard deviation of what is nearer
LARGEST_RING = 6
ITERATIONS, STRIDE = 8, 0.3  # of Gauss-Newton; Å an atom may move in one
SYMBOLS = "~-=#:"  # of bonds, by their class


class Distances(BaseModel):
    """Distances of kinds of paths (`kinds`), Å; `nearest`: lower bounds three bonds apart, and farther."""

    model_config = ConfigDict(extra="forbid")

    names: list[str] = []
    means: list[float] = []
    stds: list[float] = []
    nearest: tuple[float, float] = (0.0, 0.0)

    @cached_property
    def table(self) -> dict[str, tuple[float, float]]:
        return dict(zip(self.names, zip(self.means, self.stds)))


Path = tuple[int, ...]
Restraint = tuple[np.ndarray, np.ndarray, np.ndarray]  # of all pairs [N, N]: mean, weight, least


def shortest_paths(bonds: np.ndarray) -> dict[tuple[int, int], list[Path]]:
    """For pairs (i < j) of at most three bonds between them, all shortest paths."""
    around = [np.flatnonzero(row).tolist() for row in bonds]
    found: dict[tuple[int, int], list[Path]] = {}
    edges = [(i, j) for i, near in enumerate(around) for j in near if i < j]
    twos = [(i, j, k) for j, near in enumerate(around) for k in near for i in near if i < k]
    threes = [
        (a, i, j, b) if a < b else (b, j, i, a)
        for i, j in edges for a in around[i] for b in around[j] if a != j and b != i and a != b
    ]  # fmt: skip
    for paths in (edges, twos, threes):
        for path in paths:
            others = found.setdefault((path[0], path[-1]), [])
            if not others or len(others[0]) == len(path):
                others.append(path)
    return found


def rings(bonds: np.ndarray) -> list[frozenset[int]]:
    """Atoms of the smallest rings, of at most `LARGEST_RING` atoms."""
    pairs = np.argwhere(np.triu(bonds)).tolist()
    if len(pairs) < len(bonds):
        return []
    mol = Chem.RWMol()
    for _ in bonds:
        mol.AddAtom(Chem.Atom(6))
    for i, j in pairs:
        mol.AddBond(i, j, Chem.BondType.SINGLE)
    found = [frozenset(ring) for ring in Chem.GetSymmSSSR(mol)]
    return sorted((ring for ring in found if len(ring) <= LARGEST_RING), key=len)


def kinds(graph: HeavyGraph, vocabulary: Vocabulary) -> Iterator[tuple[Path, list[str]]]:
    """Shortest paths of a graph, each with names of its kind: a bond's by its ends' surroundings, then by classes of atoms,
    by elements, an angle's by its middle."""
    bonds = bond_kinds(graph)
    cycles = rings(graph.orders)
    classes = [str(c) for c in graph.classes.tolist()]
    elements = [vocabulary.classes[c].symbol for c in graph.classes.tolist()]
    ends = surroundings(graph.classes, bonds)
    for paths in shortest_paths(graph.orders).values():
        named = []
        for path in paths:
            around = next((len(ring) for ring in cycles if ring.issuperset(path)), 0)
            joints = [SYMBOLS[bonds[a, b]] for a, b in pairwise(path)]
            names = [f"{around}{_either_way([labels[a] for a in path], joints)}" for labels in (classes, elements)]
            if len(path) == 2:
                names.insert(0, f"{around}{_either_way([ends[a] for a in path], joints)}")
            if len(path) == 3:
                names.append(f"{around}{elements[path[1]]}{''.join(sorted(joints))}")
            named.append((names, path))
        names, path = min(named)  # whatever the order of the atoms
        yield path, names


def _either_way(atoms: list[str], joints: list[str]) -> str:
    """One name for a path and its reverse."""
    ways = ((atoms, joints), (atoms[::-1], joints[::-1]))
    return min(f"|{a[0]}" + "".join(s + b for s, b in zip(j, a[1:])) for a, j in ways)


def learn(graphs: Iterable[HeavyGraph], vocabulary: Vocabulary) -> Distances:
    """The distances of graphs with positions."""
    seen: defaultdict[str, list[float]] = defaultdict(list)
    free: tuple[list[float], list[float]] = ([], [])
    for graph in graphs:
        assert graph.positions is not None
        between = np.linalg.norm(graph.positions[:, None] - graph.positions[None], axis=-1)
        near = np.zeros(between.shape, dtype=bool)
        for path, names in kinds(graph, vocabulary):
            i, j = path[0], path[-1]
            near[i, j] = near[j, i] = True
            for name in names:
                seen[name].append(between[i, j])
            if len(path) == 4:
                free[0].append(between[i, j])
        free[1].extend(between[np.triu(~near, 1)].tolist())

    def least(found: list[float]) -> float:
        return round(float(np.quantile(found, NEAREST)), 3) if found else 0.0

    rows = sorted((n, float(np.mean(d)), float(np.std(d))) for n, d in seen.items() if len(d) >= OFTEN)
    return Distances(
        names=[r[0] for r in rows], means=[round(r[1], 4) for r in rows], stds=[round(r[2], 4) for r in rows],
        nearest=(least(free[0]), least(free[1])),
    )  # fmt: skip


def expected(graph: HeavyGraph, vocabulary: Vocabulary, distances: Distances) -> Restraint:
    """Of all pairs `[N, N]`: the mean distance, its weight 1 / variance (0: free), and how near they may come."""
    n = len(graph)
    mean, weight = np.zeros((n, n)), np.zeros((n, n))
    least = np.full((n, n), distances.nearest[1])
    np.fill_diagonal(least, 0.0)
    for path, names in kinds(graph, vocabulary):
        i, j = path[0], path[-1]
        row = next((distances.table[name] for name in names if name in distances.table), None)
        if row is None or (len(path) == 4 and row[1] > FLAT):
            least[i, j] = least[j, i] = distances.nearest[0] if len(path) == 4 else 0.0
            continue
        mean[i, j] = mean[j, i] = row[0]
        weight[i, j] = weight[j, i] = max(row[1], SHARPEST[len(path)]) ** -2.0
        least[i, j] = least[j, i] = 0.0
    return mean, weight, least


def restraints(graphs: Iterable[HeavyGraph], vocabulary: Vocabulary, distances: Distances) -> list[Restraint]:
    """What `settle` asks of each graph (`expected`); nothing where there are no distances."""
    return [expected(graph, vocabulary, distances) for graph in graphs] if distances.names else []


def settle(
    asked: Sequence[Restraint], positions: Sequence[np.ndarray], trust: float, fixed: int = 0
) -> list[np.ndarray]:  # fmt: skip
    """Positions `[N, 3]` Å at the likeliest distances of each one's `restraints`.

    `trust`, Å, is the standard deviation that the given coordinates are taken to have (0, or nothing asked: they stay).
    The first `fixed` atoms stay where they are. A molecule's result does not depend on those beside it.
    """
    out: list[np.ndarray] = [np.asarray(x, dtype=np.float64) for x in positions]
    if not asked or not trust:
        return out
    by_size: defaultdict[int, list[int]] = defaultdict(list)
    for k, x in enumerate(out):
        by_size[len(x)].append(k)
    for members in by_size.values():
        mean, weight, least = (np.stack(p) for p in zip(*(asked[k] for k in members)))
        for k, x in zip(members, _settled(np.stack([out[k] for k in members]), mean, weight, least, trust, fixed)):
            out[k] = x
    return out


def _settled(
    start: np.ndarray, mean: np.ndarray, weight: np.ndarray, least: np.ndarray, trust: float, fixed: int
) -> np.ndarray:  # fmt: skip
    """Gauss-Newton on sum w (d - mean)^2 + |x - start|^2 / trust^2, `[B, N, 3]`."""
    B, N, _ = start.shape
    x, prior = start.copy(), np.full(N, trust**-2.0)
    held = np.repeat(np.arange(N) < fixed, 3)
    diagonal = np.arange(N)
    for _ in range(ITERATIONS):
        r = x[:, :, None] - x[:, None]
        d = np.sqrt(np.square(r).sum(-1) + 1e-12)
        close = d < least
        w = np.where(close, CLASH**-2.0, weight)
        off = w * (d - np.where(close, least, mean))
        unit = r / d[..., None]
        slope = (off[..., None] * unit).sum(2) + prior[:, None] * (x - start)
        blocks = -w[..., None, None] * unit[..., :, None] * unit[..., None, :]  # B N N 3 3
        blocks[:, diagonal, diagonal] = -blocks.sum(2) + prior[:, None, None] * np.eye(3)
        matrix = blocks.transpose(0, 1, 3, 2, 4).reshape(B, 3 * N, 3 * N)
        right = -slope.reshape(B, 3 * N, 1)
        matrix[:, held], matrix[:, :, held], right[:, held] = 0.0, 0.0, 0.0
        matrix[:, held, held] = 1.0
        step = np.linalg.solve(matrix, right).reshape(B, N, 3)
        longest = np.sqrt(np.square(step).sum(-1)).max(1)[:, None, None]
        x += step * np.minimum(1.0, STRIDE / np.maximum(longest, 1e-12))
    return x
