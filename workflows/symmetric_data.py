"""Crystals on the positions of their space groups for the training loop: noise and paths that keep the symmetry.

A sample with a space group starts from noise on its orbits and is put back onto them at every step, so what the network
sees there is symmetric at all times. Here it learns from such states: the point of each orbit moves within its site.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from sciconsist.domain import Batch
from sciconsist.domains.crystals.adapter import CrystalDomain
from sciconsist.domains.crystals.crystals import Crystal, pad
from sciconsist.domains.crystals.lattice import from_vector, to_vector
from sciconsist.domains.crystals.orbits import Stack, stack
from sciconsist.domains.crystals.positions import Placed, placed
from sciconsist.domains.crystals.symmetry import SHIFTS, nearest
from sciconsist.times import Split
from sciconsist.workflows.crystal_data import of_like_size

EARLIEST = 5e-3  # time nearest to the data
ON_SITE = 1e-6  # fractional


class SymmetricData:
    """Crystals with known positions. A batch brings states on the path, `noise`, their ends, `x0`, and the velocity of the
    atoms, `condition["arc"]` `[B, N, 3]`, which the shortest way on the torus would not always give.
    """

    def __init__(self, crystals: Sequence[Crystal], domain: CrystalDomain, values: float) -> None:
        found = [(p, c.values) for c in crystals if (p := placed(c)) is not None]
        found.sort(key=lambda item: item[0].orbits.size)
        self.domain, self.share = domain, values
        self.placed = [p for p, _ in found]
        self.values = torch.tensor([v for _, v in found], dtype=torch.float32)
        self.classes = [domain.classes(p.orbits.numbers) for p in self.placed]
        self.vector = np.array([to_vector(p.cell, p.orbits.size) for p in self.placed])

    def __len__(self) -> int:
        return len(self.placed)

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        """As many crystals as indices, of a size like that of the first."""
        rows = of_like_size(indices, len(self), generator)
        return self.on_paths(rows, generator)

    def on_paths(self, rows: Sequence[int], generator: torch.Generator) -> Batch:
        """States of these crystals at random times."""
        domain, count = self.domain, len(rows)
        parts = [self.placed[r] for r in rows]
        s = torch.rand(count, generator=generator).clamp_min(EARLIEST)
        places = torch.rand(count, max(len(p.orbits.sites) for p in parts), 3, generator=generator).double().numpy()
        normal = torch.randn(count, 6, generator=generator)
        keep = torch.rand(count, self.values.shape[1], generator=generator) < self.share
        own = self.vector[list(rows)]
        clean = pad([self.classes[r] for r in rows], [p.frac for p in parts], list(own))
        condition = domain.condition(
            clean.mask, torch.where(keep, self.values[list(rows)], torch.nan), torch.tensor([p.number for p in parts])
        )
        size, together = clean.mask.sum(1), stack([p.orbits for p in parts])
        noisy = symmetric_vectors(together, (normal * condition["std"] + condition["mean"]).double(), size)
        line = torch.from_numpy(own)
        line = line + s.double()[:, None] * (noisy - line)
        ways = np.concatenate([self.ways(p, u) for p, u in zip(parts, places)])
        leads = together.leads(np.concatenate([p.frac for p in parts]))
        reached = np.repeat(s.double().numpy(), [len(p.orbits.sites) for p in parts])[:, None]
        ends = np.cumsum(size.numpy())[:-1]
        frac = np.split(together.carried(leads + reached * ways) % 1.0, ends)
        arcs = np.zeros(clean.frac.shape)
        arcs[clean.mask.numpy()] = together.carried(ways, points=False)
        there = pad([self.classes[r] for r in rows], frac, list(symmetric_vectors(together, line, size).numpy()))
        condition["arc"] = torch.from_numpy(arcs).float()
        given = torch.zeros(count)
        now = {"frac": s, "lattice": s, "species": given}
        times: Any = Split(now, now, now)
        mask: Any = domain.masks(clean.mask)
        return Batch(domain.encode(clean, condition), domain.encode(there, condition), times, condition, mask)

    @staticmethod
    def ways(p: Placed, u: np.ndarray) -> np.ndarray:
        """From each orbit's point to noise on its site `[K, 3]`: uniform `u`, paired among like orbits, the nearest image."""
        orbits, leads = p.orbits, p.orbits.stack.leads(p.frac)
        gram = p.cell @ p.cell.T
        out = np.zeros_like(leads)
        kinds: dict[tuple[int, int], list[int]] = {}
        for k, (site, z) in enumerate(zip(orbits.sites, orbits.elements)):
            if site.freedom:
                kinds.setdefault((id(site), z), []).append(k)
        for alike in kinds.values():
            site = orbits.sites[alike[0]]
            drawn = site.point + (u[alike] - site.point) @ site.projector.T
            images = np.einsum("mij,kj->kmi", orbits.group.rotations, drawn) + orbits.group.translations
            # [leads, noise, operations, 27, 3]
            apart = nearest(images[None] - leads[alike][:, None, None])[..., None, :] + SHIFTS
            off = np.abs(apart @ (np.eye(3) - site.projector).T).max(-1) > ON_SITE
            length = np.where(off, np.inf, np.einsum("...i,ij,...j->...", apart, gram, apart))
            flat = length.reshape(len(alike), len(alike), -1)
            best = flat.argmin(-1)
            order = linear_sum_assignment(np.take_along_axis(flat, best[..., None], -1)[..., 0])[1]
            for k, j in enumerate(order):
                out[alike[k]] = apart[k, j].reshape(-1, 3)[best[k, j]]
        return out - orbits.stack.carried(out, points=False).mean(0)  # the origin is free where the group leaves it so


def symmetric_vectors(orbits: Stack, vectors: Tensor, size: Tensor) -> Tensor:
    """The six numbers of the nearest cells with each crystal's symmetry, `[B, 6]` float64."""
    return torch.from_numpy(to_vector(orbits.cells(from_vector(vectors, size).numpy()), size.numpy()))
