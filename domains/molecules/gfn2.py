"""GFN2-xTB energies, relaxations and properties of one molecule through tblite (optional extra).

GFN2-xTB: Bannwarth, Ehlert and Grimme 2019, doi:10.1021/acs.jctc.8b01176. The physics behind QM9-GFN2, its
builder, the relaxation energies and the oracle for conditional errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from rdkit import Chem
from scipy.optimize import minimize

HARTREE_EV = 27.211386245988  # CODATA 2018
BOHR_ANGSTROM = 0.529177210903
DEBYE_PER_AU = 2.541746473
KCAL_MOL_PER_EV = 23.060547830619


class CalculationFailed(RuntimeError):
    """The self-consistent field or the relaxation did not converge, or tblite refused the input."""


@dataclass(frozen=True)
class Relaxed:
    """A GFN2-xTB minimum (or a single point): positions `[N, 3]` in Å, energies in eV, dipole in debye."""

    positions: np.ndarray
    start_energy_ev: float
    energy_ev: float
    homo_ev: float
    lumo_ev: float
    dipole_debye: float
    evaluations: int


def charge_and_unpaired(mol: Chem.Mol) -> tuple[int, int]:
    """Total charge and number of unpaired electrons: 0 or 1, as the electron count is even or odd."""
    charge = sum(atom.GetFormalCharge() for atom in mol.GetAtoms())
    return charge, (sum(atom.GetAtomicNum() for atom in mol.GetAtoms()) - charge) % 2


def relax(
    numbers: np.ndarray,
    positions: np.ndarray,
    *,
    charge: int = 0,
    unpaired: int = 0,
    force: float = 0.02,
    max_steps: int = 300,
) -> Relaxed:
    """Relax with L-BFGS until no force component exceeds `force` eV/Å; `max_steps=0` is a single point.

    `numbers` `[N]`, `positions` `[N, 3]` in Å. Raises CalculationFailed.
    """
    from tblite.interface import Calculator

    numbers, start = np.asarray(numbers, dtype=int), np.asarray(positions, dtype=np.float64)
    if not np.isfinite(start).all():
        raise CalculationFailed("coordinates are not finite")
    energies: list[float] = []
    result: Any = None  # tblite's, which is optional

    def energy_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal result
        calculator.update(flat.reshape(-1, 3) / BOHR_ANGSTROM)
        result = calculator.singlepoint(result)  # restarts from the last density
        energies.append(float(result.get("energy")) * HARTREE_EV)
        return energies[-1], result.get("gradient").ravel() * (HARTREE_EV / BOHR_ANGSTROM)

    try:
        calculator = Calculator("GFN2-xTB", numbers, start / BOHR_ANGSTROM, float(charge), unpaired)
        calculator.set("verbosity", 0)
        final = start.ravel()
        if max_steps:
            found = minimize(
                energy_and_gradient,
                final,
                jac=True,
                method="L-BFGS-B",
                options={
                    "gtol": force,
                    "ftol": 1e-12,
                    "maxcor": 20,
                    "maxiter": max_steps,
                    "maxfun": 2 * max_steps,
                },
            )
            final = found.x
            if np.abs(found.jac).max() > max(5 * force, 0.1):
                raise CalculationFailed(f"forces of {np.abs(found.jac).max():.2g} eV/Å after {found.nit} steps")
        energy_and_gradient(final)
        return _collect(final.reshape(-1, 3), energies, result)
    except CalculationFailed:
        raise
    except Exception as error:  # tblite has its own exception types, and they are not importable without it
        raise CalculationFailed(f"{type(error).__name__}: {error}") from error


def _collect(positions: np.ndarray, energies: list[float], result: Any) -> Relaxed:
    levels, occupations = result.get("orbital-energies") * HARTREE_EV, result.get("orbital-occupations")
    levels, occupations = levels.reshape(-1, levels.shape[-1]), occupations.reshape(-1, occupations.shape[-1])
    occupied = (occupations > 0.5).any(axis=0)
    levels = levels[0]
    return Relaxed(
        positions=positions.copy(),
        start_energy_ev=energies[0],
        energy_ev=energies[-1],
        homo_ev=float(levels[occupied].max()),
        lumo_ev=float(levels[~occupied].min()) if (~occupied).any() else float("nan"),
        dipole_debye=float(np.linalg.norm(result.get("dipole")) * DEBYE_PER_AU),
        evaluations=len(energies),
    )
