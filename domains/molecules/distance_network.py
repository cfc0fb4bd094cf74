"""A graph network of the distances that a graph fixes: of atoms one to three bonds apart, how far and how surely.

A small message-passing network (Gilmer et al. 2017) over those pairs, with the number of walks between their atoms, which
tells rings apart that messages do not (Bouritsas et al. 2022). It is fitted once to the training data, before the
generating network, and says of a bond's length in milliångström what tables of kinds of bonds say in tens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from sciconsist.domains.molecules.fitting import Effort, anneal
from sciconsist.domains.molecules.graphs import PaddedGraphs
from sciconsist.domains.molecules.vocabulary import AROMATIC

KINDS = AROMATIC + 1  # of bonds, the first is none
FARTHEST = 3  # bonds between the atoms of a pair
WALKS = 5  # walks of up to so many bonds are counted
TYPICAL = (1.4, 2.5, 3.5)  # Å, by the bonds between
FLOOR = 0.001  # Å: the least scale
WIDTH, LAYERS = 64, 3
PASSES, LEAST, BATCH = 30, 1000, 256  # over the data; steps of a fit to few graphs; graphs a step
RATE = 2e-3  # of Adam
FREEDOM = 4.0  # degrees of freedom of the errors' t distribution: a molecule that fell apart counts little
HALF = 0.741  # half the errors of that distribution are smaller
MANY, HELD, HELD_OF_FEW = 400, 20, 5  # one in so many graphs is not fitted to but looked at afterwards


@dataclass(frozen=True)
class Pairs:
    """Pairs of atoms (first < second) of a batch of graphs, `apart` bonds from each other, and their numbers of walks.

    `graph`, `first`, `second`, `apart` `[P]`, `walks` `[P, WALKS]`.
    """

    graph: Tensor
    first: Tensor
    second: Tensor
    apart: Tensor
    walks: Tensor


def near_pairs(bonded: Tensor) -> Pairs:
    """The pairs at most `FARTHEST` bonds apart of graphs `[B, N, N]`."""
    step = bonded.float()
    powers = [step]
    for _ in range(WALKS - 1):
        powers.append(powers[-1] @ step)
    apart = torch.zeros(bonded.shape, dtype=torch.long, device=bonded.device)
    for length in range(FARTHEST, 0, -1):
        apart[powers[length - 1] > 0] = length
    graph, first, second = torch.nonzero(apart.triu(1), as_tuple=True)
    walks = torch.stack([p[graph, first, second] for p in powers], -1)
    return Pairs(graph, first, second, apart[graph, first, second], walks.log1p())


class DistanceNetwork(nn.Module):
    """Means (Å) and logarithms of the scale of the errors of `Pairs`' distances.

    Nodes and pairs speak in turn: a pair hears both its atoms, an atom all its pairs.
    """

    typical: Tensor
    floor: Tensor
    temper: Tensor

    def __init__(self, classes: int, width: int = WIDTH, layers: int = LAYERS) -> None:
        super().__init__()
        self.atom = nn.Embedding(classes, width)
        self.kind = nn.Embedding(KINDS + FARTHEST, width)
        self.walks = nn.Linear(WALKS, width)
        self.heard = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.spoken = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.gathered = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.updated = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(layers))
        self.out = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, 2))
        self.register_buffer("typical", torch.tensor(TYPICAL), persistent=False)
        self.register_buffer("floor", torch.tensor(math.log(FLOOR)), persistent=False)
        self.register_buffer("temper", torch.zeros(FARTHEST))  # added to log scales: `calibrate`

    def forward(self, classes: Tensor, bonds: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Of graphs with `classes` `[B, N]` and kinds of bonds `[B, N, N]`: means and log scales `[P]`."""
        size = classes.shape[1]
        left, right = pairs.graph * size + pairs.first, pairs.graph * size + pairs.second
        h = self.atom(classes.flatten())
        kind = bonds[pairs.graph, pairs.first, pairs.second]
        walks = pairs.walks.to(self.walks.weight.dtype)
        e = self.kind(torch.where(kind > 0, kind, KINDS - 1 + pairs.apart)) + self.walks(walks)
        for heard, spoken, gathered, updated in zip(self.heard, self.spoken, self.gathered, self.updated):
            of_node = heard(h)
            e = e + spoken(functional.silu(e + of_node.index_select(0, left) + of_node.index_select(0, right)))
            gate, value = torch.sigmoid(e), gathered(h)
            told = torch.zeros_like(h).index_add(0, left, gate * value.index_select(0, right))
            told = told.index_add(0, right, gate * value.index_select(0, left))
            h = h + updated(functional.silu(torch.cat([of_node, told], -1)))
        mean, scale = self.out(torch.cat([h.index_select(0, left) + h.index_select(0, right), e], -1)).unbind(-1)
        which = pairs.apart - 1
        return self.typical[which] + 0.1 * mean, torch.logaddexp(scale - 3.0, self.floor) + self.temper[which]


def errors(network: DistanceNetwork, graphs: PaddedGraphs) -> tuple[Tensor, Tensor, Tensor]:
    """Of all near pairs of graphs with positions: the means' errors in scales, the scales' logarithms, the bonds between."""
    bonds = graphs.bonds(KINDS)
    pairs = near_pairs(bonds > 0)
    mean, scale = network(graphs.classes, bonds, pairs)
    ends = (graphs.positions[pairs.graph, k] for k in (pairs.first, pairs.second))
    return (mean - torch.linalg.vector_norm(torch.sub(*ends), dim=-1)) / scale.exp(), scale, pairs.apart


def surprise(network: DistanceNetwork, graphs: PaddedGraphs) -> Tensor:
    """Negative log-likelihood of the distances of graphs with positions, of Student's t distribution but for a constant, the
    mean over pairs."""
    away, scale, _ = errors(network, graphs)
    return (0.5 * (FREEDOM + 1) * torch.log1p(away.square() / FREEDOM) + scale).mean()


@torch.no_grad()
def calibrate(network: DistanceNetwork, graphs: PaddedGraphs) -> None:
    """Widen the scales, never narrow them, until half the errors of graphs that the fit has not seen are as small as they
    should be."""
    away, _, apart = errors(network, graphs)
    for k in range(FARTHEST):
        found = away[apart == k + 1].abs()
        if len(found):
            network.temper[k] += (found.median() / HALF).log().clamp_min(0.0)


def fit(
    network: DistanceNetwork, graphs: PaddedGraphs, seed: int = 0, steps: int | None = None, minutes: float | None = None,
    show: bool = False,
) -> None:  # fmt: skip
    """Least `surprise` (`anneal`); some graphs are left for `calibrate`.

    `steps` and `minutes`, whichever end first: at most so many (`PASSES` over the data, `LEAST` for few). `show`: a bar.
    """
    network.temper.zero_()
    every = HELD if len(graphs) >= MANY else HELD_OF_FEW
    held = torch.arange(len(graphs)) % every == every - 1
    if held.any():
        graphs, unseen = graphs[~held], graphs[held]
    effort = Effort(PASSES, LEAST, BATCH, RATE, steps, minutes)
    anneal(network, len(graphs), lambda batch: surprise(network, graphs[batch]), effort, seed, "distances", show)
    if held.any():
        calibrate(network, unseen)
