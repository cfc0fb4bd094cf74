"""Sketches: what a sample shall roughly be (its formula, rings, aromatic atoms), drawn before the network is asked.

The number of heavy atoms has always been drawn from the training data. A sketch says more in the same way, so the network
need not decide far-reaching whole numbers at the noise's end, where every atom decides for itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from functools import cached_property

import numpy as np
from pydantic import BaseModel, ConfigDict

ELEMENTS = {f"{s}_atoms": s for s in ("H", "C", "N", "O", "F", "P", "S", "Cl", "Br", "I")}  # properties that count one


class Sketches(BaseModel):
    """Sketches of the training data: `rows` of heavy atoms, then a value for each name; `counts` of molecules each."""

    model_config = ConfigDict(extra="forbid")

    names: list[str] = []
    rows: list[list[int]] = []
    counts: list[int] = []

    @cached_property
    def table(self) -> np.ndarray:
        return np.array(self.rows, dtype=np.int64).reshape(len(self.rows), 1 + len(self.names))

    def fitting(self, size: int, symbols: Collection[str] | None = None) -> np.ndarray:
        """Indices of the rows of `size` heavy atoms, made of `symbols` alone where given (with H to have hydrogens)."""
        keep = self.table[:, 0] == size
        for k, name in enumerate(self.names):
            if symbols is not None and ELEMENTS.get(name, "") not in (*symbols, ""):
                keep &= self.table[:, 1 + k] == 0
        return np.flatnonzero(keep)

    def draw(self, size: int, u: float, symbols: Collection[str] | None = None) -> np.ndarray | None:
        """The values `[names]` of the sketch at share `u` in [0, 1) of the training molecules that fit; None of none."""
        rows = self.fitting(size, symbols)
        if not len(rows):
            return None
        cumulative = np.cumsum(np.array(self.counts, dtype=np.float64)[rows])
        return self.table[rows[np.searchsorted(cumulative, u * cumulative[-1], side="right")], 1:]


def sketch(sizes: Sequence[int], values: np.ndarray, names: Sequence[str]) -> Sketches:
    """Sketches of molecules with these heavy atoms `[M]` and whole-numbered properties `[M, P]`."""
    counted = Counter((int(n), *(int(v) for v in row)) for n, row in zip(sizes, values, strict=True))
    rows = sorted(counted)
    return Sketches(names=list(names), rows=[list(row) for row in rows], counts=[counted[row] for row in rows])
