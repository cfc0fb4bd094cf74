"""How alike two elements are in the places that they take in crystals, learned from crystals.

Each training crystal is to find its own positions by the votes of the others (neighbourhood components, Goldberger et al.
2004, on elements instead of features): a vote is exp(-d), d the mean distance of the atoms' elements.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import torch
from pymatgen.core import Element
from torch import Tensor

from sciconsist.domains.crystals.occupations import orders
from sciconsist.domains.crystals.positions import Placed, alike

WIDTH = 8
CROWD = 1000  # crystals that vote on one, at most


class _Kind:
    """Crystals with as many atoms of each element: their elements `[M, K]`, and which of their ways are one and the same."""

    def __init__(self, members: Sequence[Placed]) -> None:
        self.atoms = members[0].atoms
        self.share = torch.tensor(self.atoms) / sum(self.atoms)
        self.elements = torch.tensor([p.elements for p in members])
        self.orders = orders(self.atoms)
        ids: dict[tuple, int] = {}
        names: dict[tuple, list[int]] = {}
        for p in members:
            if (own := (p.number, p.sites)) not in names:
                ways = [
                    (p.number, alike(p.number, [(-n, s, e) for n, s, e in zip(self.atoms, p.sites, o)]))
                    for o in self.orders
                ]
                names[own] = [ids.setdefault(way, len(ids)) for way in ways]
        self.ways = torch.tensor([names[p.number, p.sites] for p in members])  # [M, orders]

    def loss(self, place: Tensor, k: int, rng: np.random.Generator) -> Tensor | None:
        """-log of the share of votes for the positions of crystal k; None where no other crystal has them."""
        voters = torch.from_numpy(rng.permutation(len(self.elements))[:CROWD])
        own = self.elements[k]
        voters = voters[(self.elements[voters].sort(1).values != own.sort().values).any(1)]
        right = self.ways[voters] == self.ways[k, 0]  # the first order is as it stands
        if not right.any():
            return None
        gap = place[own[torch.tensor(self.orders)]] - place[self.elements[voters]][:, None]
        votes = -((gap.square().sum(-1) + 1e-6).sqrt() @ self.share)
        return torch.logsumexp(votes.flatten(), 0) - torch.logsumexp(votes[right], 0)


def fit_likeness(
    crystals: Sequence[Placed], steps: int = 3000, batch: int = 32, lr: float = 0.03, seed: int = 0,
    advance: Callable[[int], None] = lambda n: None,
) -> np.ndarray:  # fmt: skip
    """Coordinates of elements 0 to 103, `[104, 8]`; from Mendeleev numbers (Pettifor 1984), where unknown elements stay."""
    members: dict[tuple[int, ...], list[Placed]] = defaultdict(list)
    for p in crystals:
        members[p.atoms].append(p)
    kinds = [_Kind(m) for m in members.values() if orders(m[0].atoms)]
    rows = [(kind, k) for kind in kinds for k in range(len(kind.elements))]
    place = torch.randn(104, WIDTH, generator=torch.Generator().manual_seed(seed)) * 0.02
    place[1:, 0] += torch.tensor([Element.from_Z(z).mendeleev_no for z in range(1, 104)]) / 3
    place.requires_grad_(True)
    optimizer = torch.optim.Adam([place], lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        found = [rows[i][0].loss(place, rows[i][1], rng) for i in rng.integers(len(rows), size=batch)]
        if losses := [loss for loss in found if loss is not None]:
            optimizer.zero_grad()
            torch.stack(losses).mean().backward()
            optimizer.step()
        schedule.step()
        advance(1)
    return place.detach().numpy()
