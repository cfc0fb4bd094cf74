"""How well told properties come out: the property measured again, GFN2-xTB's at the minimum next to the sample.

Beside each error stands what a model earns that looks at the number of atoms alone: the mean property of real
molecules of that size (Hoogeboom et al. 2022, "#Atoms").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from rdkit import Chem

from sciconsist.domains.molecules.gfn2 import CalculationFailed
from sciconsist.domains.molecules.properties import PROPERTIES, gfn2_results, measure

from .validity import strict_molecule

REQUESTED = "requested_"  # before the name of a property that a sample was told


def requests(mol: Chem.Mol) -> dict[str, float]:
    """Property values a sample says it was told."""
    names = [name.removeprefix(REQUESTED) for name in mol.GetPropNames() if name.startswith(REQUESTED)]
    return {name: float(mol.GetProp(REQUESTED + name)) for name in names if name in PROPERTIES}


def conditional_errors(
    samples: Sequence[Chem.Mol],
    real: Sequence[Chem.Mol],
    recorded: Sequence[Mapping[str, float]] | None = None,
    limit: int = 200,
) -> dict[str, dict[str, float]]:
    """For every property told: `mae` between told and measured, `n` samples, `scored` of them, `atoms_only`, `spread`.

    The first `limit` samples count. `real` molecules, with GFN2-xTB's results `recorded`, give the baseline: the mean
    absolute error of predicting a real molecule's property from its number of heavy atoms, and `spread`, that of
    predicting their median. Both are NaN where the data do not have the property.
    """
    names = sorted({name for mol in samples for name in requests(mol)})
    errors: dict[str, list[float]] = {name: [] for name in names}
    asked = dict.fromkeys(names, 0)
    for sample in samples[:limit]:
        told = requests(sample)
        for name in told:
            asked[name] += 1
        if not told or (mol := strict_molecule(sample)) is None:
            continue
        results: Mapping[str, float] | None = None
        if any(PROPERTIES[name].computed is None for name in told):
            try:
                results = gfn2_results(mol)
            except CalculationFailed:
                continue
        for name, value in zip(told, measure(mol, list(told), results)):
            if np.isfinite(value):
                errors[name].append(abs(value - told[name]))
    rows = (
        [measure(mol, names, None if recorded is None else recorded[k]) for k, mol in enumerate(real)] if names else []
    )
    sizes = np.array([mol.GetNumHeavyAtoms() for mol in real])
    found = {}
    for k, name in enumerate(names):
        by_size, spread = baseline(np.array([row[k] for row in rows]), sizes)
        found[name] = {
            "mae": float(np.mean(errors[name])) if errors[name] else float("nan"),
            "n": asked[name], "scored": len(errors[name]), "atoms_only": by_size, "spread": spread,
        }  # fmt: skip
    return found


def baseline(values: np.ndarray, sizes: np.ndarray) -> tuple[float, float]:
    """Mean absolute errors of the median of each size and of the median of all, over the finite values `[M]`."""
    finite = np.isfinite(values)
    values, sizes = values[finite], sizes[finite]
    if not len(values):
        return float("nan"), float("nan")
    guess = {n: float(np.median(values[sizes == n])) for n in set(sizes.tolist())}
    by_size = np.abs(values - np.array([guess[n] for n in sizes.tolist()])).mean()
    return float(by_size), float(np.abs(values - np.median(values)).mean())
