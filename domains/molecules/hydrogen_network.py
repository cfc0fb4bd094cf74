"""Hydrogens where the atoms around have them: a small equivariant network that moves them from where rules put them.

Rules of symmetry (`placement`) put a hydrogen within a tenth of an Å of where it belongs. The rest depends on the graph and on
where all atoms near it are. Messages over pairs of near atoms move hydrogens along the lines between them, layer by layer
(Satorras et al. 2021, E(n) equivariant graph neural networks); heavy atoms stay. It is fitted once to the training data.
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
NOISE = (0.0, 0.005, 0.01)  # Å by which heavy atoms are moved in the data it is fitted to
ELSEWHERE = 0.4  # Å: a hydrogen farther from where rules put it is in another minimum, and is not fitted to
STIFF = (5.0, 3.0)  # what distances of hydrogens to atoms one and two bonds away count beside their places
SOFT = 1e-3  # Å: errors smaller than this hardly count


@dataclass(frozen=True)
class Whole:
    """Molecules with their hydrogens, padded: kinds `[B, A]` (the class, or that of a hydrogen's heavy atom plus the number of
    classes), kinds of bonds `[B, A, A]`, positions `[B, A, 3]` Å, which atoms are `hydrogen` and which are there `[B, A]`."""

    kinds: Tensor
    bonds: Tensor
    positions: Tensor
    hydrogen: Tensor
    mask: Tensor

    def __getitem__(self, index: Tensor) -> Whole:
        """A sub-batch, cut to the largest of its molecules."""
        n = int(self.mask[index].sum(1).max())
        return Whole(
            self.kinds[index][:, :n], self.bonds[index][:, :n, :n], self.positions[index][:, :n],
            self.hydrogen[index][:, :n], self.mask[index][:, :n],
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.kinds)


@torch.no_grad()
def settle_hydrogens(
    network: HydrogenNetwork, graphs: Sequence[HeavyGraph], positions: Sequence[np.ndarray], vocabulary: Vocabulary
) -> list[np.ndarray]:
    """Positions `[A, 3]` of all atoms with the hydrogens moved from where rules put them (`all_positions`); where there are
    none, or they could not be placed, nothing moves."""
    out = list(positions)
    made = [k for k, (graph, x) in enumerate(zip(graphs, out)) if len(x) > len(graph)]
    if not made:
        return out
    molecules = whole([graphs[k] for k in made], [out[k] for k in made], vocabulary)
    moved = network(molecules).double().numpy()
    for k, x in zip(made, moved):
        n, everything = len(graphs[k]), len(out[k])
        out[k] = np.concatenate([out[k][:n], x[n:everything]])
    return out


def whole(graphs: Sequence[HeavyGraph], positions: Sequence[np.ndarray], vocabulary: Vocabulary) -> Whole:
    """Graphs of N heavy atoms with the positions of all their atoms `[A, 3]`, hydrogens after the heavy ones in their order."""
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
    hydrogen = mask & (np.arange(size) >= there.sum(1)[:, None])
    return Whole(*(torch.from_numpy(a) for a in (kinds, bonds, x, hydrogen, mask)))


class HydrogenNetwork(nn.Module):
    """Positions of `Whole` molecules with hydrogens moved, `[B, A, 3]`; equivariant under motions and reflections."""

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
        dtype = self.centres.dtype
        x = molecules.positions.to(dtype).reshape(-1, 3)
        graph, to, of = torch.nonzero(self.near(molecules), as_tuple=True)
        apart = self.kinds_of_pairs(molecules.bonds)[graph, to, of]
        to, of = graph * shape[1] + to, graph * shape[1] + of
        moves = molecules.hydrogen.flatten()[to].nonzero().squeeze(1)  # pairs that end at a hydrogen
        h = self.atom(molecules.kinds.flatten())
        for k in range(len(self.pair)):
            last = k + 1 == len(self.pair)
            if last:
                to, of, apart, moves = to[moves], of[moves], apart[moves], torch.arange(len(moves))
            between = x[to] - x[of]
            d = (between.square().sum(-1) + 1e-12).sqrt()
            envelope = (0.5 * torch.cos(d * (torch.pi / REACH)) + 0.5) * (d < REACH)
            spread = torch.exp(-8.0 * (d[:, None] - self.centres).square())
            e = self.far[k](spread) + self.pair[k](apart) + self.heard[k](h)[to] + self.spoken[k](h)[of]
            e = functional.silu(self.message[k](functional.silu(e))) * envelope[:, None]
            step = self.moved[k](e[moves]) * (between[moves] / d[moves][:, None])
            x = x.index_add(0, to[moves], step)
            if not last:
                told = torch.zeros_like(h).index_add(0, to, e)
                h = h + self.updated[k](functional.silu(torch.cat([h, told], -1)))
        return x.view(shape)

    def near(self, molecules: Whole) -> Tensor:
        """Pairs of different atoms that are within reach, `[B, A, A]`."""
        x = molecules.positions.to(self.centres.dtype)
        both = molecules.mask[:, :, None] & molecules.mask[:, None]
        return both & (torch.cdist(x, x) < REACH) & ~torch.eye(x.shape[1], dtype=torch.bool)

    def kinds_of_pairs(self, bonds: Tensor) -> Tensor:
        """The kind of bond, or that two atoms are two (KINDS) or three bonds apart or farther, `[B, A, A]`."""
        step = (bonds > 0).to(self.centres.dtype)
        two = (step @ step) * (1 - torch.eye(bonds.shape[1], dtype=step.dtype))
        kind = torch.full(bonds.shape, KINDS + 2)
        kind[two @ step > 0] = KINDS + 1
        kind[two > 0] = KINDS
        return torch.where(bonds > 0, bonds.long(), kind)


def examples(mols: Iterable[Chem.Mol], vocabulary: Vocabulary, seed: int) -> tuple[Whole, Tensor] | None:
    """Molecules with hydrogens where rules put them, their heavy atoms moved a little (`NOISE`), and where hydrogens belong
    beside these, `[B, A, 3]`; without those that the vocabulary or the rules do not take. None of none."""
    graphs, starts, ends = [], [], []
    for k, mol in enumerate(mols):
        try:
            graph = heavy_graph(mol, vocabulary)
        except (KeyError, ValueError):
            continue
        chance = stream(seed, "heavy atoms moved", k)
        size = NOISE[int(torch.randint(len(NOISE), (), generator=chance))]
        assert graph.positions is not None
        moved = size * torch.randn(graph.positions.shape, generator=chance, dtype=torch.float64).numpy()
        bare = skeleton(graph.classes, graph.orders, vocabulary)
        if not bare.HasProp(FAILED):
            start = all_positions(bare, graph.positions + moved)
            graphs.append(graph)
            starts.append(start)
            ends.append(_ends(mol, start, moved))
    if not graphs:
        return None
    return whole(graphs, starts, vocabulary), whole(graphs, ends, vocabulary).positions.float()


def _ends(mol: Chem.Mol, start: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """Where the atoms at `start` are in `mol`; hydrogens of one atom, which are alike, so that they have least way to go."""
    x, end, place = mol.GetConformer().GetPositions(), start.copy(), len(moved)
    for atom, move in zip(_heavy(mol), moved):
        there = [b.GetIdx() for b in atom.GetNeighbors() if b.GetAtomicNum() == 1]
        here = slice(place, place + len(there))
        place = here.stop
        if there:
            end[here] = min(
                (x[list(p)] + move for p in permutations(there)), key=lambda y: np.square(y - start[here]).sum()
            )
    return end


def _heavy(mol: Chem.Mol) -> list[Chem.Atom]:
    return [atom for atom in mol.GetAtoms() if atom.GetAtomicNum() > 1]


def misplaced(network: HydrogenNetwork, molecules: Whole, ends: Tensor) -> Tensor:
    """How far hydrogens are from where they belong, the mean in Å, and how far off their distances to atoms one and two bonds
    away are, which count `STIFF` times; without those in another minimum."""
    here = molecules.hydrogen & (torch.linalg.vector_norm(molecules.positions - ends, dim=-1) < ELSEWHERE)
    found = network(molecules)
    known = here | (molecules.mask & ~molecules.hydrogen)
    both = here[:, :, None] & known[:, None]
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
    network: HydrogenNetwork, mols: Iterable[Chem.Mol], vocabulary: Vocabulary, seed: int = 0, steps: int | None = None,
    minutes: float | None = None, show: bool = False,
) -> None:  # fmt: skip
    """Least distances from where the hydrogens of molecules with conformers are (`anneal`)."""
    if (found := examples(mols, vocabulary, seed)) is None:
        return
    molecules, ends = found

    def loss(batch: Tensor) -> Tensor:
        own = molecules[batch]
        return misplaced(network, own, ends[batch][:, : own.mask.shape[1]])

    effort = Effort(PASSES, LEAST, BATCH, RATE, steps, minutes)
    anneal(network, len(molecules), loss, effort, seed, "hydrogens", show)
