"""How well molecules have the property they were asked for: asked values against what GFN2-xTB or RDKit say of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rdkit import Chem

from sciconsist.domains.molecules.metrics.conditional import baseline, conditional_errors
from sciconsist.domains.molecules.properties import PROPERTIES, check_names
from sciconsist.extras import need
from sciconsist.flowmap import FlowMap
from sciconsist.workflows.generate import Molecules
from sciconsist.workflows.molecule_data import property_values, read_data

Advance = Callable[[int], None]
TOLD, CHECKED, ATOMS, CONSTANT = "told (raw)", "told and checked", "number of atoms", "the data's median"


@dataclass(frozen=True)
class Error:
    """One row: mean absolute error of `n` molecules in the property's unit; `failed` could not be measured."""

    property: str
    unit: str
    what: str
    mae: float
    n: int
    failed: int = 0
    cpu_s: float | None = None  # a molecule, everything included

    def row(self) -> dict[str, Any]:
        return asdict(self)


def benchmark_properties(
    model: FlowMap, names: Sequence[str] = ("gap", "dipole"), data: str = "qm9-gfn2:val", targets: int = 25,
    each: int = 4, steps: int = 8, seed: int = 0, advance: Advance = lambda n: None,
) -> Iterator[Error]:  # fmt: skip
    """Of each property: `each` molecules for every one of `targets` values that cut `data` evenly; then the baselines.

    "Number of atoms" predicts the median of the data's molecules with as many atoms, hydrogens included, which is what
    knowing the size alone is worth (Hoogeboom et al. 2022). Raises UserError.
    """
    check_names(names)
    need("tblite", "molecules", "measuring properties with GFN2-xTB")
    records, _ = read_data(data)
    values = property_values(records, names)
    sizes = np.array([r.mol.GetNumAtoms() for r in records])
    for name, column in zip(names, values.T):
        marks = np.quantile(column[np.isfinite(column)], (np.arange(targets) + 0.5) / targets)
        for what in (TOLD, CHECKED):
            yield _asked(model, name, marks, what, each, steps, seed, advance)
        yield from _baselines(name, column, sizes)


def _asked(
    model: FlowMap, name: str, marks: np.ndarray, what: str, each: int, steps: int, seed: int, advance: Advance
) -> Error:
    mols: list[Chem.Mol] = []
    begin = time.process_time()
    for k, mark in enumerate(marks.tolist()):
        asked = {"raw": True} if what == TOLD else {"check": True}
        request = Molecules(model, steps=steps, seed=seed + k, properties={name: mark}, **asked)  # type: ignore[arg-type]
        mols += request.take(each, advance)
    found = conditional_errors(mols, [], limit=len(mols))[name]
    cost = (time.process_time() - begin) / len(mols)
    scored = int(found["scored"])
    return Error(name, PROPERTIES[name].unit, what, found["mae"], scored, len(mols) - scored, round(cost, 3))


def _baselines(name: str, values: np.ndarray, sizes: np.ndarray) -> Iterator[Error]:
    for what, mae in zip((ATOMS, CONSTANT), baseline(values, sizes)):
        yield Error(name, PROPERTIES[name].unit, what, mae, int(np.isfinite(values).sum()))


def table(rows: Sequence[Error]) -> str:
    """Rows as text."""
    lines = [f"{'property':<16}{'':<22}{'MAE':>9}{'n':>7}{'failed':>8}{'cpu-s':>8}"]
    for row in rows:
        cost = "-" if row.cpu_s is None else f"{row.cpu_s:.2f}"
        label = f"{row.property} {row.unit}".strip()
        lines.append(f"{label:<16}{row.what:<22}{row.mae:>9.3f}{row.n:>7}{row.failed:>8}{cost:>8}")
    return "\n".join(lines)
