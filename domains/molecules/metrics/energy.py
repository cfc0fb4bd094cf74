"""Relaxation energy: how far generated geometries lie above the GFN2-xTB minimum they fall into.

Real QM9-GFN2 molecules are at about zero by construction; a figure without the number scored says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rdkit import Chem

from sciconsist.domains.molecules.gfn2 import KCAL_MOL_PER_EV, CalculationFailed, charge_and_unpaired, relax

from .stability import arrays
from .validity import strict_molecule


def aligned_rmsd(moved: np.ndarray, fixed: np.ndarray) -> float:
    """Root mean square deviation in Å of `[N, 3]` after the best rotation and translation (Kabsch 1976)."""
    a, b = moved - moved.mean(axis=0), fixed - fixed.mean(axis=0)
    u, _, vt = np.linalg.svd(a.T @ b)
    u[:, -1] *= np.sign(np.linalg.det(u @ vt))  # a mirror image is not the same geometry
    return float(np.sqrt(((a @ u @ vt - b) ** 2).sum(axis=1).mean()))


def relaxation(samples: Sequence[Chem.Mol], limit: int = 200) -> dict:
    """Energy drop (kcal/mol) and RMSD (Å, all atoms) on relaxing the first `limit` samples with GFN2-xTB.

    Samples whose bonds are not strictly valid are skipped, calculations that do not converge are `failed`;
    medians are over the `scored`.
    """
    drops, rmsds, skipped, failed = [], [], 0, 0
    for sample in samples[:limit]:
        if (mol := strict_molecule(sample)) is None:
            skipped += 1
            continue
        numbers, positions = arrays(mol)
        charge, unpaired = charge_and_unpaired(mol)
        try:
            relaxed = relax(numbers, positions, charge=charge, unpaired=unpaired)
        except CalculationFailed:
            failed += 1
            continue
        drops.append((relaxed.start_energy_ev - relaxed.energy_ev) * KCAL_MOL_PER_EV)
        rmsds.append(aligned_rmsd(positions, relaxed.positions))
    return {
        "n": min(limit, len(samples)),
        "scored": len(drops),
        "skipped": skipped,
        "failed": failed,
        "median_kcal_mol": float(np.median(drops)) if drops else float("nan"),
        "mean_kcal_mol": float(np.mean(drops)) if drops else float("nan"),
        "median_rmsd_angstrom": float(np.median(rmsds)) if rmsds else float("nan"),
    }
