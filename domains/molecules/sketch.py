"""Sketches: what a sample shall roughly be (its formula, rings, aromatic atoms), drawn before the network is asked.

The number of heavy atoms has always been drawn from the training data. A sketch says more in the same way, so the network
need not decide far-reaching whole numbers at the noise's end, where every atom decides for itself.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property

import numpy as np
from pydantic import BaseModel, ConfigDict

ELEMENTS = {f"{s}_atoms": s for s in ("H", "C", "N", "O", "F", "P", "S", "Cl", "Br", "I")}  # properties that count one
SHARED = 4.0  # molecules' worth of all sketches' deviation in the deviation of one


class Sketches(BaseModel):
    """Sketches of the training data: `rows` of heavy atoms, then a value for each of `names`; `counts` of molecules.

    `means` and `stds` `[rows][properties]` are of the properties that are no part of a sketch, for the molecules of each.
    """

    model_config = ConfigDict(extra="forbid")

    names: list[str] = []
    rows: list[list[int]] = []
    counts: list[int] = []
    properties: list[str] = []
    means: list[list[float]] = []
    stds: list[list[float]] = []

    @cached_property
    def table(self) -> np.ndarray:
        return np.array(self.rows, dtype=np.int64).reshape(len(self.rows), 1 + len(self.names))

    @property
    def values(self) -> np.ndarray:
        """`[R, names]`."""
        return self.table[:, 1:]

    @cached_property
    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array(self.means), np.array(self.stds)

    def fitting(
        self, symbols: Collection[str] | None = None, ranges: Mapping[str, tuple[float, float]] | None = None
    ) -> np.ndarray:
        """Which rows `[R]` are made of `symbols` alone (with H to have hydrogens), and within `ranges` of the names."""
        keep = np.ones(len(self.table), dtype=bool)
        for name, column in zip(self.names, self.values.T):
            if symbols is not None and name in ELEMENTS and ELEMENTS[name] not in symbols:
                keep &= column == 0
            if ranges and name in ranges:
                low, high = ranges[name]
                keep &= (column >= low) & (column <= high)
        return keep

    def weights(self, fitting: np.ndarray, told: Mapping[str, float] | None = None) -> np.ndarray:
        """How likely each row `[R]` is beside the property values told (Bayes; normal within a sketch); zeros of none."""
        with np.errstate(divide="ignore"):
            log = np.log(np.array(self.counts, dtype=np.float64) * fitting)
        for name, value in (told or {}).items():
            if name in self.properties:
                mean, std = (m[:, self.properties.index(name)] for m in self.moments)
                log = log - 0.5 * np.square((value - mean) / std) - np.log(std)
        return np.exp(log - log.max()) if np.isfinite(log.max(initial=-np.inf)) else np.zeros(len(log))


def pick(cumulative: np.ndarray, u: float) -> int:
    """The index at share `u` in [0, 1) of weights, of which these are the sums up to each."""
    return int(np.searchsorted(cumulative, u * cumulative[-1], side="right"))


def sketch(
    sizes: Sequence[int], values: np.ndarray, names: Sequence[str], others: np.ndarray, properties: Sequence[str]
) -> Sketches:
    """Sketches of molecules with heavy atoms `[M]`, whole-numbered `values` `[M, names]`, and other properties `[M, P]`.

    NaN in `others` is unknown.
    """
    whole = np.column_stack([np.asarray(sizes, dtype=np.int64), values.astype(np.int64)])
    rows, which, counts = np.unique(whole, axis=0, return_inverse=True, return_counts=True)

    def total(x: np.ndarray) -> np.ndarray:
        sums = np.zeros((len(rows), x.shape[1]))
        np.add.at(sums, which, x)
        return sums

    known = np.isfinite(others)
    count, filled = total(known.astype(float)), np.where(known, others, 0.0)
    mean = np.where(count > 0, total(filled) / count.clip(1), filled.sum(0) / known.sum(0).clip(1))
    squares = np.where(known, np.square(others - mean[which]), 0.0)
    within = squares.sum(0) / known.sum(0).clip(1)
    std = np.sqrt((total(squares) + SHARED * within) / (count + SHARED)) + 1e-9
    return Sketches(
        names=list(names), rows=rows.tolist(), counts=counts.tolist(), properties=list(properties),
        means=[[float(f"{v:.4g}") for v in row] for row in mean], stds=[[float(f"{v:.3g}") for v in row] for row in std],
    )  # fmt: skip
