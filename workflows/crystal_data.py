"""Crystals for the core's training loop: where they come from, and what a batch of them is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sciconsist.datasets import mp20bt, registry
from sciconsist.domain import Batch, Data
from sciconsist.domains.crystals.adapter import CrystalDomain
from sciconsist.domains.crystals.crystals import Crystal, crystal_of, pad
from sciconsist.domains.crystals.files import CrystalRecord, read_structures
from sciconsist.domains.crystals.lattice import automorphisms
from sciconsist.domains.crystals.pairing import NEVER, pair
from sciconsist.errors import UserError
from sciconsist.times import Split, split_point

WINDOW = 8  # a batch is drawn from so many batches' worth of crystals of like size, so that little is padding
BASES = 2  # descriptions of a crystal tried for each draw of noise


@dataclass(frozen=True)
class Tasks:
    """Shares of a batch, and how much a crystal is told."""

    prediction: float = 0.65  # elements given
    separate: float = 0.1  # elements on a clock of their own; the rest have one clock
    cell_given: float = 0.12
    sites_given: float = 0.08  # some sites given, and the cell
    space_group: float = 0.15
    values: float = 0.25


def of_like_size(indices: Tensor, length: int, generator: torch.Generator) -> list[int]:
    """As many rows as indices of a set sorted by size, near the first index."""
    width = min(length, WINDOW * len(indices))
    start = int((indices[0] - width // 2).clamp(0, length - width))
    return (start + torch.randperm(width, generator=generator)[: len(indices)]).tolist()


class CrystalData:
    """Crystals in memory. A batch brings its own paired noise and times; `kind` None is the diagonal."""

    def __init__(
        self, crystals: Sequence[Crystal], domain: CrystalDomain, tasks: Tasks | None = None,
        anchor: float = 0.25, kind: str | None = None,
    ) -> None:  # fmt: skip
        order = np.argsort([len(c) for c in crystals], kind="stable")
        self.domain, self.tasks, self.anchor, self.kind = domain, tasks or Tasks(), anchor, kind
        self.crystals = crystals = [crystals[i] for i in order]
        self.classes = [domain.classes(c.numbers) for c in crystals]
        self.frac = [c.frac for c in crystals]
        self.vector = np.stack([c.vector for c in crystals])
        self.values = torch.tensor([c.values for c in crystals], dtype=torch.float32)
        self.space_group = torch.tensor([c.space_group for c in crystals])
        self.bases = [np.round(np.linalg.inv(automorphisms(c.cell).astype(np.float64))) for c in crystals]

    def __len__(self) -> int:
        return len(self.frac)

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        """As many crystals as indices, of a size like that of the first."""
        return self.paired(np.array(of_like_size(indices, len(self), generator)), generator)

    def paired(self, rows: np.ndarray, generator: torch.Generator) -> Batch:
        domain, tasks, count = self.domain, self.tasks, len(rows)
        u = torch.rand(6, count, generator=generator)
        given = u[0] < tasks.prediction
        separate = ~given & (u[0] > 1 - tasks.separate)
        partial = u[1] < tasks.sites_given
        cell_given = partial | (u[1] > 1 - tasks.cell_given)
        told = torch.where(u[2] < tasks.space_group, self.space_group[rows], 0)
        keep = torch.rand(count, self.values.shape[1], generator=generator) < tasks.values
        values = torch.where(keep, self.values[rows], torch.nan)

        plain = pad([self.classes[r] for r in rows], [self.frac[r] for r in rows], self.vector[rows])
        fixed = (torch.rand(plain.mask.shape, generator=generator) < u[3][:, None]) & plain.mask & partial[:, None]
        condition = domain.condition(plain.mask, values, told, fixed)
        x0 = domain.encode(plain, condition)
        mask = domain.masks(plain.mask)
        noise = domain.geometry.prior(x0, mask, generator=generator)
        pick = torch.rand(count, BASES, generator=generator)
        self.couple(rows, x0, noise, given, fixed, pick)
        times = self.times(count, given, separate, cell_given, generator)
        return Batch(x0, noise, times, condition, mask)  # type: ignore[arg-type]

    def couple(
        self, rows: np.ndarray, x0: dict[str, Tensor], noise: dict[str, Tensor], given: Tensor, fixed: Tensor, pick: Tensor
    ) -> None:  # fmt: skip
        """Pair in place: choose the crystal's description and order its noise. Fixed sites get themselves as noise."""
        similarity = torch.matmul(x0["species"], noise["species"].transpose(1, 2)).double().numpy()
        for k, row in enumerate(rows):
            n = len(self.frac[row])
            own = self.bases[row]
            chosen = own[(pick[k].numpy() * len(own)).astype(int)]
            classes = self.classes[row]
            if given[k]:
                extra = NEVER * (classes[:, None] != classes[None])
            else:
                extra = -0.05 * similarity[k, :n, :n]
            held = fixed[k, :n].numpy()
            if held.any():
                extra = extra + NEVER * (held[:, None] | held[None]) * (1 - np.eye(n))
                chosen = chosen[:1]
            frac, e = self.frac[row], noise["frac"][k, :n].double().numpy()
            frac, e, order = pair(frac, e, extra, chosen, free=not held.any())
            e[held] = frac[held]
            x0["frac"][k, :n] = torch.from_numpy(frac % 1.0)
            noise["frac"][k, :n] = torch.from_numpy(e)
            noise["species"][k, :n] = noise["species"][k, :n][torch.from_numpy(order)]

    def times(
        self, count: int, given: Tensor, separate: Tensor, cell_given: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor] | Split:
        """One clock for the structure, elements on it, on their own, or given; the cell on it or given."""
        u, v, w, source, low, stay = torch.rand(6, count, generator=generator)
        zero = torch.zeros(count)

        def fields(clock: Tensor, own: Tensor) -> dict[str, Tensor]:
            species = torch.where(given, zero, torch.where(separate, own, clock))
            return {"frac": clock, "lattice": torch.where(cell_given, zero, clock), "species": species}

        if self.kind is None:
            return fields(u.clamp_min(5e-3), v.clamp_min(5e-3))
        s = torch.where(source < 0.35, torch.ones_like(u), u).clamp_min(2e-2)
        t = torch.where(low < 0.35, zero, v * s)
        split = split_point(self.kind, s, t, 0.08 * (0.5 / 0.08) ** w)
        on = stay < self.anchor
        split, t = torch.where(on, s, split), torch.where(on, s, t)
        return Split(*(fields(x, x) for x in (s, split, t)))


@dataclass(frozen=True)
class Mixture:
    """Training sets that take turns, each in its share of the batches; the first says how long a pass is."""

    parts: Sequence[tuple[float, Data]]

    def __len__(self) -> int:
        return len(self.parts[0][1])

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        shares = torch.tensor([share for share, _ in self.parts])
        k = int(torch.multinomial(shares, 1, generator=generator))
        data = self.parts[k][1]
        if k:
            indices = torch.randint(len(data), (len(indices),), generator=generator)
        return data.batch(indices, generator)


def read_data(data: str | Sequence[CrystalRecord]) -> tuple[list[CrystalRecord], dict[str, str]]:
    """Records of a data set (mp-20-bt, mp-20-bt:val), an .npz file, or a file or folder of structures; and their origin.

    Raises UserError.
    """
    if not isinstance(data, str):
        return list(data), {"data": f"{len(data)} structures", "data_licence": "unknown"}
    name, _, split = data.partition(":")
    if name in registry.DATASETS:
        entry = registry.entry(name)
        if entry.domain != "crystals":
            raise UserError(f"{name}: is data of {entry.domain}, expected crystals")
        split = split or "train"
        origin = {
            "data": f"{entry.title} ({name}:{split})", "data_licence": entry.licence, "data_citation": entry.citation,
        }  # fmt: skip
        return registry.load(name, split), origin
    path = Path(data)
    origin = {"data": path.name, "data_licence": "unknown"}
    if path.suffix == ".npz":
        return mp20bt.read(path), origin
    return list(read_structures(path)), origin


def crystals_of(records: Sequence[CrystalRecord], largest: int | None = None) -> tuple[list[Crystal], int]:
    """Crystals that can be worked with, and how many cannot (a flat cell, more than `largest` atoms)."""
    crystals = []
    for rec in records:
        if largest is not None and len(rec.structure) > largest:
            continue
        try:
            crystals.append(crystal_of(rec.structure, rec.properties))
        except ValueError:
            continue
    if not crystals:
        raise UserError(f"none of the {len(records)} crystals can be used for training")
    return crystals, len(records) - len(crystals)
