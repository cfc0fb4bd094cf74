"""How far samples are from real crystals in density and number of elements (Xie et al. 2021, section 5.2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pymatgen.core import Structure
from scipy.stats import wasserstein_distance


def densities(structures: Sequence[Structure]) -> np.ndarray:
    """g/cm^3, `[n]`."""
    return np.array([float(s.density) for s in structures])


def element_counts(structures: Sequence[Structure]) -> np.ndarray:
    """How many different elements each crystal has, `[n]`."""
    return np.array([float(len(s.composition)) for s in structures])


def distributions(samples: Sequence[Structure], reference: Sequence[Structure]) -> dict:
    """Wasserstein-1 distances of density (g/cm^3) and number of elements; None without samples.

    Give it samples that are structurally valid, as papers do: the density of the others says nothing.
    """
    figures: dict = {"n": len(samples), "n_reference": len(reference)}
    for name, measure in (("density_w1", densities), ("elements_w1", element_counts)):
        both = len(samples) and len(reference)
        figures[name] = float(wasserstein_distance(measure(samples), measure(reference))) if both else None
    return figures
