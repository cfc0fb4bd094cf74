"""Noise and crystals paired by a teacher: where its sample of some noise is the true crystal, the two belong together.

The plain pairing of training joins a crystal with any noise near it, so that paths cross and few straight steps blur
them. The annealed sampler decides for each noise which description of the crystal (origin, order of like atoms,
orientation) it leads to; flow matching on these pairs, with the true crystal at the end and not the sample, gives a model
whose paths cross less (reflow, Liu et al. 2023, with endpoints put right).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from sciconsist.domains.crystals.adapter import CrystalDomain
from sciconsist.domains.crystals.crystals import Crystal
from sciconsist.domains.crystals.generate import Plan, Request, generate
from sciconsist.domains.crystals.lattice import to_vector
from sciconsist.domains.crystals.pairing import NEVER, centre, wrapped
from sciconsist.files import atomic_path
from sciconsist.flowmap import FlowMap
from sciconsist.random import per_sample_noise
from sciconsist.workflows.crystal_data import CrystalData, Tasks

SHARD = 256  # crystals a file: what a killed pass does again
NEAR = 0.5  # RMS distance in units of (V/N)^(1/3) up to which a sample is the true crystal
CELL = 0.35  # difference of the cell's six numbers up to which it is
DESCRIPTIONS = 48  # of a crystal that are compared with a sample: more only in cubic cells with their inversion


@dataclass(frozen=True)
class Pair:
    """A crystal's coordinates `[N, 3]`, the noise `[N, 3]` in the same order and frame, the cell's noise `[6]`, their RMS."""

    frac: np.ndarray
    noise: np.ndarray
    lattice: np.ndarray
    rms: float


def aligned(
    crystal: Crystal, bases: np.ndarray, sample: np.ndarray, noise: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """The crystal described as a sample `[N, 3]` of it is, the sample's noise in its order and frame, and how far they are
    apart: RMS in units of (V/N)^(1/3).

    An atom of the rarest element goes onto each of the sample's in turn, in every description of the cell; like atoms
    are assigned, and the origin is moved to the best of it.
    """
    kinds, cell = crystal.numbers, crystal.cell
    unlike = NEVER * (kinds[:, None] != kinds[None])
    count = {z: int((kinds == z).sum()) for z in kinds}
    first = int(np.argmin([count[z] for z in kinds]))
    best = np.inf, crystal.frac, np.arange(len(kinds)), np.zeros(3)
    for basis in bases[:DESCRIPTIONS]:
        x = (crystal.frac @ basis) % 1.0
        for j in np.flatnonzero(kinds == kinds[first]):
            y = sample + x[first] - sample[j]
            for _ in range(2):
                cost = np.square(wrapped(y[None] - x[:, None]) @ cell).sum(-1) + unlike
                order = linear_sum_assignment(cost)[1]
                y = y - wrapped(y[order] - x).mean(0)
            total = float(np.square(wrapped(y[order] - x) @ cell).sum())
            if total < best[0]:
                best = total, x, order, y[0] - sample[0]
    total, x, order, shift = best
    edge = (np.linalg.det(cell) / len(kinds)) ** (1 / 3)
    return x, centre(x, noise[order] + shift), float(np.sqrt(total / len(kinds)) / edge)


def make_pairs(
    teacher: FlowMap, data: CrystalData, folder: Path, plan: Plan, passes: int, seed: int,
    advance: Callable[[int], None] = lambda n: None,
) -> dict[int, list[Pair]]:  # fmt: skip
    """Pairs of every crystal of `data` that the teacher hits, by its row, in `passes` draws of noise each.

    The pass is kept in `folder`, a file for every few crystals; what is there is not done again.
    """
    folder.mkdir(exist_ok=True)
    found: dict[int, list[Pair]] = {}
    for turn in range(passes):
        for begin in range(0, len(data), SHARD):
            rows = list(range(begin, min(begin + SHARD, len(data))))
            path = folder / f"{turn:02d}-{begin:06d}.npz"
            if not path.is_file():
                _write(path, _draw(teacher, data, rows, plan, turn, seed))
            for row, one in _read(path):
                found.setdefault(row, []).append(one)
            advance(len(rows))
    return found


def _draw(
    teacher: FlowMap, data: CrystalData, rows: Sequence[int], plan: Plan, turn: int, seed: int
) -> list[tuple[int, Pair]]:
    domain: CrystalDomain = teacher.domain
    crystals, first = data.crystals, turn * len(data) + rows[0]
    requests = [Request(len(crystals[r]), crystals[r].numbers) for r in rows]
    pairs = []
    for row, sample in zip(rows, generate(teacher, requests, plan, seed=seed, first=first)):
        c = crystals[row]
        if not sample.finite or np.abs(to_vector(sample.cell, len(c)) - c.vector).max() > CELL:
            continue
        noise = prior(domain, len(c), seed, sample.index)
        frac, paired, rms = aligned(c, data.bases[row], sample.frac, noise["frac"].double().numpy())
        if rms < NEAR:
            pairs.append((row, Pair(frac, paired, noise["lattice"].numpy(), rms)))
    return pairs


def prior(domain: CrystalDomain, size: int, seed: int, index: int) -> dict[str, Tensor]:
    """The noise that `generate` starts sample `index` from, without its batch's padding."""
    like = {"frac": torch.zeros(1, size, 3), "lattice": torch.zeros(1, 6),
            "species": torch.zeros(1, size, len(domain.config.elements))}  # fmt: skip
    mask = domain.masks(torch.ones(1, size, dtype=torch.bool))
    noise = cast(dict, per_sample_noise(domain.geometry, like, seed, [index], mask))
    return {name: value[0] for name, value in noise.items()}


def _write(path: Path, pairs: Sequence[tuple[int, Pair]]) -> None:
    sizes = [len(p.frac) for _, p in pairs]
    flat = np.zeros((0, 3), dtype=np.float32)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file, row=np.array([row for row, _ in pairs], dtype=np.int64), size=np.array(sizes, dtype=np.int64),
            frac=np.concatenate([flat, *(p.frac for _, p in pairs)]).astype(np.float32),
            noise=np.concatenate([flat, *(p.noise for _, p in pairs)]).astype(np.float32),
            lattice=np.array([p.lattice for _, p in pairs], dtype=np.float32).reshape(-1, 6),
            rms=np.array([p.rms for _, p in pairs], dtype=np.float32),
        )  # fmt: skip


def _read(path: Path) -> list[tuple[int, Pair]]:
    with np.load(path, allow_pickle=False) as a:
        arrays = {name: a[name] for name in a.files}
    ends = np.cumsum(arrays["size"])
    return [
        (int(row), Pair(arrays["frac"][e - n : e], arrays["noise"][e - n : e], lattice, float(rms)))
        for row, n, e, lattice, rms in zip(arrays["row"], arrays["size"], ends, arrays["lattice"], arrays["rms"])
    ]


class PairedCrystals(CrystalData):
    """`CrystalData` in which predictions of a crystal that the teacher hits take the teacher's noise instead."""

    def __init__(self, crystals: Sequence[Crystal], domain: CrystalDomain, tasks: Tasks, anchor: float = 0.25) -> None:
        super().__init__(crystals, domain, tasks)
        self.share = 1 - anchor  # of predictions that take the teacher's pairs where there are any
        self.pairs: dict[int, list[Pair]] = {}

    def couple(
        self, rows: np.ndarray, x0: dict[str, Tensor], noise: dict[str, Tensor], given: Tensor, fixed: Tensor, pick: Tensor
    ) -> None:  # fmt: skip
        super().couple(rows, x0, noise, given, fixed, pick)
        for k, row in enumerate(rows):
            own = self.pairs.get(int(row))
            if own is None or not given[k] or fixed[k].any() or pick[k, 0] > self.share:
                continue
            chosen = own[int(pick[k, 1] * len(own))]
            n = len(chosen.frac)
            x0["frac"][k, :n] = torch.from_numpy(chosen.frac)
            noise["frac"][k, :n] = torch.from_numpy(chosen.noise)
            noise["lattice"][k] = torch.from_numpy(chosen.lattice)
