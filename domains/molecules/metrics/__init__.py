"""Every figure we print about molecules, from RDKit molecules with explicit hydrogens and one conformer.

The sum of it is `evaluate`. Samples that failed to decode belong in the list: they are molecules without
bonds, and every denominator is all samples unless the entry says otherwise.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from rdkit import Chem

from .geometry import Geometry, geometry_distance, measure
from .graph_distance import describe, graph_distance
from .stability import stability
from .validity import known_smiles, validity

__all__ = ["Reference", "ceiling", "evaluate", "known_smiles"]


@dataclass(frozen=True)
class Reference:
    """What real molecules look like; build it once when several sets of samples meet the same reference."""

    molecules: int
    descriptors: np.ndarray
    geometry: Geometry

    @classmethod
    def from_molecules(cls, molecules: Sequence[Chem.Mol]) -> Reference:
        """Descriptors and geometry of the molecules that sanitise strictly; about 3 ms a molecule."""
        return cls(len(molecules), describe(molecules), measure(molecules))


def evaluate(
    samples: Sequence[Chem.Mol],
    reference: Sequence[Chem.Mol] | Reference | None = None,
    known: Collection[str] | None = None,
    *,
    posebusters: int = 0,
    energy: int = 0,
) -> dict:
    """All figures as a nested dict of numbers, fractions in [0, 1], each group with its `n`.

    `reference` is the test or val split (without it, distances to it are left out), `known` SMILES as
    `known_smiles` makes them. `posebusters` and `energy` say how many samples get these slow looks.
    """
    report: dict = {
        "n": len(samples),
        "stability": asdict(stability(samples)),
        "validity": {reading: counts.figures() for reading, counts in validity(samples, known).items()},
    }
    if reference is not None:
        if not isinstance(reference, Reference):
            reference = Reference.from_molecules(reference)
        described = describe(samples)
        report["graph_distance"] = {
            "n": len(described),
            "left_out": len(samples) - len(described),
            "n_reference": len(reference.descriptors),
            **graph_distance(described, reference.descriptors),
        }
        report["geometry"] = geometry_distance(measure(samples), reference.geometry)
    if posebusters:
        from .poses import pose_checks

        report["posebusters"] = pose_checks(samples, limit=posebusters)
    if energy:
        from .energy import relaxation

        report["energy"] = relaxation(samples, limit=energy)
    return report


def ceiling(
    molecules: Sequence[Chem.Mol],
    known: Collection[str] | None = None,
    *,
    posebusters: int = 0,
    energy: int = 0,
) -> dict:
    """The figures of real molecules: what a perfect model scores, and how far apart two real halves are.

    Distances are between the even and the odd molecules, so they are those of sets half as large.
    """
    report = evaluate(molecules, None, known, posebusters=posebusters, energy=energy)
    even, odd = Reference.from_molecules(molecules[::2]), Reference.from_molecules(molecules[1::2])
    report["graph_distance"] = {
        "n": len(even.descriptors),
        "n_reference": len(odd.descriptors),
        **graph_distance(even.descriptors, odd.descriptors),
    }
    report["geometry"] = geometry_distance(even.geometry, odd.geometry)
    return report
