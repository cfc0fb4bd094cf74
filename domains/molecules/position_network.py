"""The last hundredths of an Å: a small equivariant network that moves all atoms to where the atoms around have them.

The distances that a graph fixes (`distances`) leave heavy atoms some hundredths of an Å from where they belong, rules of
symmetry (`placement`) hydrogens within a tenth. The rest depends on the graph and on where all atoms near are. Messages over
pairs of near atoms move atoms along the lines between them, layer by layer (Satorras et al. 2021, E(n) equivariant graph neural
networks). It is fitted once to the training data, after the network of distances.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np
import torch
from rdkit import Chem
from torch import Tensor, nn
from torch.nn import functional

from sciconsist.domains.molecules.completion import rigid
from sciconsist.domains.molecules.distance_network import DistanceNetwork
from sciconsist.domains.molecules.distances import Nearest, Restraint, restraints, settle
from sciconsist.domains.molecules.fitting import Effort, anneal
from sciconsist.domains.molecules.graphs import HeavyGraph, heavy_graph, pad_graphs
from sciconsist.domains.molecules.hydrogens import FAILED, all_positions, skeleton
from sciconsist.domains.molecules.vocabulary import AROMATIC, Vocabulary
from sciconsist.random import stream

KINDS = AROMATIC + 1  # of bonds, the first is none
REACH = 4.5  # Å: farther atoms say nothing
CENTRES, FIRST = 16, 0.8  # of Gaussians of distances, up to REACH; Å
WIDTH, LAYERS = 32, 3
PASSES, LEAST, BATCH, RATE = 60, 1000, 128, 3e-3  # of a fit (`fitting.Effort`)
NOISE = (0.003, 0.01, 0.03, 0.1)  # Å by which heavy atoms are moved, before they settle, in the data it is fitted to
TRUST = 0.05  # Å: what such coordinates are trusted when they settle, or as much as they were moved
CHUNK = 256  # graphs whose distances are asked together
STAY = 0.01  # Å^2: how much a molecule that looks alike when turned, a straight one, is held from turning
ELSEWHERE = 0.4  # Å: an atom that starts farther from where it belongs is in another minimum, and is not fitted to
STIFF = (5.0, 3.0)  # what distances of atoms one and two bonds apart count beside their places
SOFT = 1e-3  # Å: errors smaller than this hardly count


@dataclass(frozen=True)
class Whole:
    """Molecules with their hydrogens, padded: kinds `[B, A]` (the class, or that of a hydrogen's heavy atom plus the number of
    classes), kinds of bonds `[B, A, A]`, positions `[B, A, 3]` Å, which atoms may move (`free`), which are there `[B, A]`."""

    kinds: Tensor
    bonds: Tensor
    positions: Tensor
    free: Tensor
    mask: Tensor

    def __getitem__(self, index: Tensor) -> Whole:
        """A sub-batch, cut to the largest of its molecules."""
        n = int(self.mask[index].sum(1).max())
        return Whole(
            self.kinds[index][:, :n], self.bonds[index][:, :n, :n], self.positions[index][:, :n],
            self.free[index][:, :n], self.mask[index][:, :n],
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.kinds)


@torch.no_grad()
def correct_positions(
    network: PositionNetwork, graphs: Sequence[HeavyGraph], positions: Sequence[np.ndarray], vocabulary: Vocabulary,
    fixed: int = 0,
) -> list[np.ndarray]:  # fmt: skip
    """Positions `[A, 3]` of all atoms, moved from where rules put hydrogens (`all_positions`) and heavy atoms settled; of
    molecules whose hydrogens could not be placed nothing moves. The first `fixed` heavy atoms stay where they are."""
    out = list(positions)
    counts = [len(graph) + vocabulary.hydrogens[graph.classes].sum() for graph in graphs]
    made = [k for k, count in enumerate(counts) if len(out[k]) == count]
    if not made:
        return out
    molecules = whole([graphs[k] for k in made], [out[k] for k in made], vocabulary, fixed)
    moved = network(molecules).double().numpy()
    for k, x in zip(made, moved):
        out[k] = np.concatenate([out[k][:fixed], x[fixed : len(out[k])]])
    return out


def whole(
    graphs: Sequence[HeavyGraph], positions: Sequence[np.ndarray], vocabulary: Vocabulary, fixed: int = 0
) -> Whole:  # fmt: skip
    """Graphs of N heavy atoms with the positions of all their atoms `[A, 3]`, hydrogens after the heavy ones in their order;
    all may move but the first `fixed`."""
    heavy = pad_graphs([replace(graph, positions=None) for graph in graphs])
    classes, there, n = heavy.classes.numpy(), heavy.mask.numpy(), heavy.classes.shape[1]
    count, size = len(graphs), max(map(len, positions))
    kinds, bonds = np.zeros((count, size), dtype=np.int64), np.zeros((count, size, size), dtype=np.int8)
    mask, x = np.zeros((count, size), dtype=bool), np.zeros((count, size, 3))
    kinds[:, :n], bonds[:, :n, :n], mask[:, :n] = classes, heavy.bonds(KINDS).numpy(), there
    own = vocabulary.hydrogens[classes] * there
    graph, atom = (np.repeat(k.ravel(), own.ravel()) for k in np.indices(own.shape))  # of each hydrogen
    place = there.sum(1)[graph] + np.arange(len(graph)) - np.searchsorted(graph, graph)
    kinds[graph, place], mask[graph, place] = len(vocabulary) + classes[graph, atom], True
    bonds[graph, place, atom] = bonds[graph, atom, place] = 1
    for k, own_x in enumerate(positions):
        x[k, : len(own_x)] = own_x
    return Whole(*(torch.from_numpy(a) for a in (kinds, bonds, x, mask & (np.arange(size) >= fixed), mask)))


class PositionNetwork(nn.Module):
    """Positions of `Whole` molecules, corrected, `[B, A, 3]`; equivariant under motions and reflections."""

    centres: Tensor

    def __init__(self, classes: int, width: int = WIDTH, layers: int = LAYERS) -> None:
        super().__init__()
        self.atom = nn.Embedding(2 * classes, width)
        self.pair = nn.ModuleList(nn.Embedding(KINDS + 3, width) for _ in range(layers))
        self.far = nn.ModuleList(nn.Linear(CENTRES, width, bias=False) for _ in range(layers))
        self.heard = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.spoken = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(layers))
        self.message = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.updated = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(layers))
        steps = [nn.Linear(width, 1, bias=False) for _ in range(layers)]
        for layer in steps:
            nn.init.zeros_(layer.weight)
        self.moved = nn.ModuleList(steps)
        self.register_buffer("centres", torch.linspace(FIRST, REACH, CENTRES), persistent=False)

    def forward(self, molecules: Whole) -> Tensor:
        shape = molecules.positions.shape
        x = molecules.positions.to(self.centres.dtype).reshape(-1, 3)
        free = molecules.free.flatten().to(x.dtype)[:, None]
        graph, one, other = torch.nonzero(self.near(molecules), as_tuple=True)
        apart = self.kinds_of_pairs(molecules.bonds)[graph, one, other]
        one, other = graph * shape[1] + one, graph * shape[1] + other
        to, of = torch.cat([one, other]), torch.cat([other, one])  # a pair's atoms hear of each other
        h = self.atom(molecules.kinds.flatten())
        for k in range(len(self.pair)):
            between = x.index_select(0, one) - x.index_select(0, other)  # faster than x[one]
            d = (between.square().sum(-1, keepdim=True) + 1e-12).sqrt()
            envelope = (0.5 * torch.cos(d * (torch.pi / REACH)) + 0.5) * (d < REACH)
            e = self.far[k](torch.exp(-8.0 * (d - self.centres).square())) + self.pair[k](apart)
            e = torch.cat([e, e]) + self.heard[k](h).index_select(0, to) + self.spoken[k](h).index_select(0, of)
            e = functional.silu(self.message[k](functional.silu(e))) * torch.cat([envelope, envelope])
            along = between / d
            x = x + free * torch.zeros_like(x).index_add(0, to, self.moved[k](e) * torch.cat([along, -along]))
            if k + 1 < len(self.pair):
                told = torch.zeros_like(h).index_add(0, to, e)
                h = h + self.updated[k](functional.silu(torch.cat([h, told], -1)))
        return x.view(shape)

    def near(self, molecules: Whole) -> Tensor:
        """Pairs of atoms that are within reach, each once, `[B, A, A]`."""
        x = molecules.positions.to(self.centres.dtype)
        both = molecules.mask[:, :, None] & molecules.mask[:, None]
        return (both & (torch.cdist(x, x) < REACH)).triu(1)

    def kinds_of_pairs(self, bonds: Tensor) -> Tensor:
        """The kind of bond, or that two atoms are two (KINDS) or three bonds apart or farther, `[B, A, A]`."""
        step = (bonds > 0).to(self.centres.dtype)
        two = (step @ step) * (1 - torch.eye(bonds.shape[1], dtype=step.dtype))
        kind = torch.full(bonds.shape, KINDS + 2)
        kind[two @ step > 0] = KINDS + 1
        kind[two > 0] = KINDS
        return torch.where(bonds > 0, bonds.long(), kind)


def examples(
    mols: Iterable[Chem.Mol], vocabulary: Vocabulary, distances: DistanceNetwork, least: Nearest | None, seed: int
) -> tuple[Whole, Tensor] | None:  # fmt: skip
    """Molecules moved a little (`NOISE`) and settled at the distances of a fitted network, hydrogens where rules put them, and
    where their atoms belong, `[B, A, 3]`; without those that the vocabulary or the rules do not take. None of none."""
    graphs, known, bare = [], [], []
    for mol in mols:
        try:
            graph = heavy_graph(mol, vocabulary)
        except (KeyError, ValueError):
            continue
        heavy = skeleton(graph.classes, graph.orders, vocabulary)
        if not heavy.HasProp(FAILED):
            graphs.append(graph)
            known.append(mol)
            bare.append(heavy)
    starts, ends = [], []
    for begin in range(0, len(graphs), CHUNK):
        some = graphs[begin : begin + CHUNK]
        asked = restraints(some, distances, least)
        for k, graph in enumerate(some, begin):
            own = asked[k - begin : k - begin + 1]  # none where nothing was fitted
            start = all_positions(bare[k], _moved(graph, own, stream(seed, "atoms moved", k)))
            starts.append(start)
            ends.append(_ends(known[k], start))
    if not graphs:
        return None
    return whole(graphs, starts, vocabulary), whole(graphs, ends, vocabulary).positions.float()


def _moved(graph: HeavyGraph, asked: list[Restraint], chance: torch.Generator) -> np.ndarray:
    """Heavy atoms moved by as much as chance says, and settled."""
    assert graph.positions is not None
    size = NOISE[int(torch.randint(len(NOISE), (), generator=chance))]
    noise = torch.randn(graph.positions.shape, generator=chance, dtype=torch.float64).numpy()
    return settle(asked, [graph.positions + size * noise], max(TRUST, size))[0]


def _ends(mol: Chem.Mol, start: np.ndarray) -> np.ndarray:
    """Where the atoms at `start` belong: those of `mol`, turned to where the heavy ones are nearest; hydrogens of one atom,
    which are alike, so that they have least way to go."""
    heavy = _heavy(mol)
    x, place = mol.GetConformer().GetPositions(), len(heavy)
    turn, shift = rigid(x[[atom.GetIdx() for atom in heavy]], start[:place], STAY)
    x = x @ turn + shift
    end = start.copy()
    for k, atom in enumerate(heavy):
        end[k] = x[atom.GetIdx()]
        there = [b.GetIdx() for b in atom.GetNeighbors() if b.GetAtomicNum() == 1]
        here = slice(place, place + len(there))
        place = here.stop
        if there:
            end[here] = min((x[list(p)] for p in permutations(there)), key=lambda y: np.square(y - start[here]).sum())
    return end


def _heavy(mol: Chem.Mol) -> list[Chem.Atom]:
    return [atom for atom in mol.GetAtoms() if atom.GetAtomicNum() > 1]


def misplaced(network: PositionNetwork, molecules: Whole, ends: Tensor) -> Tensor:
    """How far atoms are from where they belong, the mean in Å, and how far off the distances of those one and two bonds apart
    are, which count `STIFF` times; without those in another minimum."""
    here = molecules.mask & (torch.linalg.vector_norm(molecules.positions - ends, dim=-1) < ELSEWHERE)
    found = network(molecules)
    both = (here[:, :, None] & here[:, None]).triu(1)
    two_apart = network.kinds_of_pairs(molecules.bonds) == KINDS
    loss = _soft((found - ends)[here])
    for pairs, times in zip((molecules.bonds > 0, two_apart), STIFF):
        graph, i, j = torch.nonzero(both & pairs, as_tuple=True)
        apart, right = (torch.linalg.vector_norm(x[graph, i] - x[graph, j], dim=-1) for x in (found, ends))
        loss = loss + times * _soft((apart - right)[:, None])
    return loss


def _soft(off: Tensor) -> Tensor:
    """The mean length of vectors `[..., D]`, those under `SOFT` count less."""
    return (off.square().sum(-1) + SOFT**2).sqrt().mean()


def fit(
    network: PositionNetwork, mols: Iterable[Chem.Mol], vocabulary: Vocabulary, distances: DistanceNetwork,
    least: Nearest | None, seed: int = 0, steps: int | None = None, minutes: float | None = None, show: bool = False,
) -> None:  # fmt: skip
    """Least distances from where the atoms of molecules with conformers are (`anneal`), once `distances` are fitted."""
    if (found := examples(mols, vocabulary, distances, least, seed)) is None:
        return
    molecules, ends = found

    def loss(batch: Tensor) -> Tensor:
        own = molecules[batch]
        return misplaced(network, own, ends[batch][:, : own.mask.shape[1]])

    effort = Effort(PASSES, LEAST, BATCH, RATE, steps, minutes)
    anneal(network, len(molecules), loss, effort, seed, "positions", show)
