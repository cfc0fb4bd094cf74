"""Crystals as arrays: reduced, with what training needs of each, and padded into batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pymatgen.core import Structure
from torch import Tensor

from sciconsist.domains.crystals.lattice import niggli, to_vector


@dataclass(frozen=True)
class Crystal:
    """A crystal in its Niggli cell: atomic numbers `[N]`, fractional coordinates `[N, 3]`, triangular cell `[3, 3]` Å.

    `values`: e_above_hull (eV/atom) and band_gap (eV), NaN where unknown; `space_group` 0 where unknown.
    """

    numbers: np.ndarray
    frac: np.ndarray
    cell: np.ndarray
    values: tuple[float, float] = (np.nan, np.nan)
    space_group: int = 0

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def vector(self) -> np.ndarray:
        return to_vector(self.cell, len(self))


def crystal_of(structure: Structure, properties: dict[str, float] | None = None) -> Crystal:
    """A structure as it stands, in its Niggli cell, its atoms in their order. Raises ValueError for a flat cell."""
    facts = properties or {}
    cell, frac = niggli(structure.lattice.matrix, structure.frac_coords)
    return Crystal(
        np.array([site.specie.Z for site in structure]),
        frac,
        cell,
        (facts.get("e_above_hull", np.nan), facts.get("band_gap", np.nan)),
        int(facts.get("spacegroup", 0)),
    )


def structure_of(numbers: Sequence[int] | np.ndarray, frac: np.ndarray, cell: np.ndarray) -> Structure:
    """A pymatgen Structure of arrays."""
    from pymatgen.core import Element, Lattice

    return Structure(Lattice(np.asarray(cell, dtype=np.float64)), [Element.from_Z(int(z)) for z in numbers], frac)


@dataclass(frozen=True)
class PaddedCrystals:
    """A batch: element classes `[B, N]`, coordinates `[B, N, 3]`, cells' six numbers `[B, 6]`, node mask `[B, N]`."""

    classes: Tensor
    frac: Tensor
    vector: Tensor
    mask: Tensor

    def __len__(self) -> int:
        return len(self.mask)


def pad(classes: Sequence[np.ndarray], frac: Sequence[np.ndarray], vector: Sequence[np.ndarray]) -> PaddedCrystals:
    """Crystals of different sizes in one batch; float32."""
    sizes = [len(c) for c in classes]
    size = max(sizes)
    kind, place = np.zeros((len(sizes), size), dtype=np.int64), np.zeros((len(sizes), size, 3))
    for k, n in enumerate(sizes):
        kind[k, :n], place[k, :n] = classes[k], frac[k]
    mask = torch.arange(size)[None] < torch.tensor(sizes)[:, None]
    return PaddedCrystals(
        torch.from_numpy(kind), torch.from_numpy(place).float(), torch.from_numpy(np.stack(vector)).float(), mask
    )
