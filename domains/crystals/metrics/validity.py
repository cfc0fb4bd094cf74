"""Structural and compositional validity as crystal generation papers count them (Xie et al. 2021, section 5.2)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib import metadata

import numpy as np
from pymatgen.core import Composition, Structure

from sciconsist.extras import need

MIN_DISTANCE = 0.5  # Å, between different atoms, images included
MIN_VOLUME = 0.1  # Å^3, of the cell
SMACT_SETS = ("smact14", "icsd16", "icsd24")  # oxidation states that SMACT ships; MP-20 papers use smact14


def structurally_valid(structure: Structure) -> bool:
    """Whether no two atoms are nearer than 0.5 Å and the cell holds at least 0.1 Å^3."""
    if not np.isfinite(structure.lattice.matrix).all() or structure.volume < MIN_VOLUME:
        return False
    return shortest_distance(structure) > MIN_DISTANCE


def shortest_distance(structure: Structure) -> float:
    """The shortest distance in Å between different atoms, images included; infinite for one atom."""
    distances = np.array(structure.distance_matrix)
    np.fill_diagonal(distances, np.inf)
    return float(distances.min()) if np.isfinite(distances).any() else float("inf")


def smact_valid(composition: Composition, oxidation_states: str = "smact14") -> bool:
    """Whether SMACT finds a charge-neutral assignment that its electronegativity test accepts.

    Elements and alloys of metals alone count as valid. Goes through `smact.screening.smact_validity` of the
    installed SMACT: code copied from older papers breaks, since `neutral_ratios` has become a plain list.
    """
    return _smact_valid(composition.reduced_formula, oxidation_states)


@lru_cache(maxsize=100_000)
def _smact_valid(formula: str, oxidation_states: str) -> bool:
    screening = need("smact.screening", "screen", "SMACT validity")
    return bool(screening.smact_validity(Composition(formula), oxidation_states_set=oxidation_states))


def smact_version() -> str:
    """The installed SMACT's version: the figure depends on it."""
    need("smact", "screen", "SMACT validity")
    return metadata.version("smact")


def validity(structures: Sequence[Structure], total: int | None = None) -> dict:
    """Fractions of `total` (samples that could not be read count as invalid), and what they depend on.

    `valid` is structural and compositional with the set smact14.
    """
    total = total or len(structures)
    structural = [structurally_valid(s) for s in structures]
    readings = {name: [smact_valid(s.composition, name) for s in structures] for name in SMACT_SETS}
    both = sum(a and b for a, b in zip(structural, readings["smact14"]))
    return {
        "n": total,
        "structural": sum(structural) / total if total else None,
        "smact": {name: sum(found) / total if total else None for name, found in readings.items()},
        "valid": both / total if total else None,
        "smact_version": smact_version(),
        "rule": f"distances over {MIN_DISTANCE} Å and a cell of {MIN_VOLUME} Å^3; SMACT with alloys and Pauling test",
    }
