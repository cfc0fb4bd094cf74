"""One candidate through the screen: validity, charge, energy before relaxing, relaxation, symmetry.

What depends on the other candidates (hull, duplicates, rank) comes after, in `ranking`. Everything here is plain
data in and plain data out, so that it travels to another process or machine and into a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pymatgen.core import Composition, Element, Lattice, Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from sciconsist.errors import UserError

from .metrics.validity import MIN_DISTANCE, shortest_distance, smact_valid, structurally_valid
from .relax import Diverged, relax, single_point
from .thermo import Scale, mp2020_correction

SYMPREC = 0.1  # Å: the Materials Project's tolerance for the space group of a relaxed crystal


@dataclass(frozen=True)
class Settings:
    """What is done to every candidate. `relaxer` "none" leaves structures as they are and without energies."""

    relaxer: str = "chgnet"
    scale: Scale = "mp2020"  # of the relaxer's energies
    charge_neutral: bool = True  # leave out what SMACT finds no neutral assignment for
    prefilter: float = 2.0  # eV/atom above the hull before relaxing: beyond it there is no point in relaxing
    fmax: float = 0.05  # eV/Å
    steps: int = 200


@dataclass(frozen=True)
class Candidate:
    """A crystal to screen. `hull_energy` is the hull's energy at its composition (eV/atom, on the hull's scale)."""

    name: str
    structure: dict[str, Any]  # as `plain_structure` makes it
    hull_energy: float | None = None


def screen_one(candidate: Candidate, settings: Settings, calc: Any) -> dict[str, Any]:
    """The record of a candidate: `status` passed, rejected or failed, the `reason`, figures and the structure.

    Energies are in eV/atom, on the Materials Project's corrected scale when `settings.scale` is mp2020 or raw.
    Errors of a calculator become a record, whatever they are; only a wrong request raises (UserError).
    """
    structure = structure_of_plain(candidate.structure)
    record = {"name": candidate.name, "status": "passed", "reason": "", "stage": "", **describe(structure)}
    if not structurally_valid(structure):
        distance = shortest_distance(structure)
        return _rejected(record, "distances", f"atoms {distance:.2f} Å apart, at least {MIN_DISTANCE} is needed")
    if settings.charge_neutral and not smact_valid(structure.composition):
        return _rejected(record, "charge", "no charge-neutral assignment of oxidation states (SMACT, smact14)")
    if settings.relaxer == "none":
        return {**record, **symmetry(structure), "structure": candidate.structure}
    try:
        shift = mp2020_correction(structure) if settings.scale == "raw" else 0.0
        first = single_point(structure, calc) + shift
        record["energy_unrelaxed"] = first
        if candidate.hull_energy is not None and (above := first - candidate.hull_energy) > settings.prefilter:
            why = f"{above:.2f} eV/atom above the hull before relaxing, over the limit of {settings.prefilter:g}"
            return _rejected(record, "prefilter", why)
        result = relax(structure, calc, settings.fmax, settings.steps)
        shift = mp2020_correction(result.structure) if settings.scale == "raw" else 0.0
    except Diverged as error:
        return _failed(record, f"the relaxation diverged: {error}")
    except UserError as error:
        return _failed(record, str(error))
    except Exception as error:  # a calculator is someone else's code: one candidate's trouble, not the run's
        return _failed(record, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
    relaxed = result.structure
    record |= {
        "energy": result.energy + shift, "steps": result.steps, "converged": result.converged,
        "max_force": result.max_force, "cell_free": result.cell_free,
        "volume_change": relaxed.volume / structure.volume - 1,
    }  # fmt: skip
    if not structurally_valid(relaxed):
        return _failed(record, f"relaxed to atoms {shortest_distance(relaxed):.2f} Å apart")
    return record | describe(relaxed) | symmetry(relaxed) | {"structure": plain_structure(relaxed)}


def _rejected(record: dict[str, Any], stage: str, reason: str) -> dict[str, Any]:
    return {**record, "status": "rejected", "stage": stage, "reason": reason}


def _failed(record: dict[str, Any], reason: str) -> dict[str, Any]:
    return {**record, "status": "failed", "stage": "relaxation", "reason": reason}


def describe(structure: Structure) -> dict[str, Any]:
    """Formula, size, volume (Å^3/atom) and density (g/cm^3)."""
    return {
        "formula": structure.composition.reduced_formula,
        "atoms": len(structure),
        "volume_per_atom": structure.volume / len(structure),
        "density": float(structure.density),
    }


def symmetry(structure: Structure, symprec: float = SYMPREC) -> dict[str, Any]:
    """Space group by spglib at `symprec` Å; None where spglib finds none."""
    try:
        analyzer = SpacegroupAnalyzer(structure, symprec=symprec, angle_tolerance=5)
        return {
            "space_group": analyzer.get_space_group_symbol(),
            "space_group_number": analyzer.get_space_group_number(),
        }
    except Exception:  # pymatgen and spglib raise several kinds for cells they cannot reduce
        return {"space_group": None, "space_group_number": None}


def plain_structure(structure: Structure) -> dict[str, Any]:
    """Atomic numbers, fractional coordinates and cell rows (Å) as lists."""
    return {
        "numbers": [site.specie.Z for site in structure],
        "frac": np.asarray(structure.frac_coords, dtype=float).tolist(),
        "cell": np.asarray(structure.lattice.matrix, dtype=float).tolist(),
    }


def structure_of_plain(plain: dict[str, Any]) -> Structure:
    """The structure that `plain_structure` was made of."""
    return Structure(Lattice(plain["cell"]), [Element.from_Z(z) for z in plain["numbers"]], plain["frac"])


def composition_of(record: Mapping[str, Any]) -> Composition:
    """The composition of a record or candidate."""
    return Composition(record["formula"])
