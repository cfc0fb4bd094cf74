"""Relaxation of a crystal, atoms and cell, with CHGNet or any ASE calculator."""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from pymatgen.core import Lattice, Structure

from sciconsist.errors import UserError
from sciconsist.extras import need

CHGNET = "chgnet"


class Diverged(Exception):
    """A relaxation that left what is physical; the message says how."""


@dataclass(frozen=True)
class Relaxed:
    """Where a relaxation ended. Energies in eV/atom; `max_force` in eV/Å, the cell's stress among the forces."""

    structure: Structure
    energy: float
    first_energy: float
    steps: int
    converged: bool
    max_force: float
    cell_free: bool


def calculator(name: str) -> Any:
    """An ASE calculator: `chgnet`, or the import path of a class or function that makes one without arguments.

    An import path runs that module's code: it is the user's own choice. Raises UserError.
    """
    need("ase", "screen", "relaxing crystals")
    if name == CHGNET:
        need("chgnet", "screen", "relaxing with CHGNet")
        # CHGNet prints which device it takes; what is printed is ours to decide.
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from chgnet.model import CHGNet
            from chgnet.model.dynamics import CHGNetCalculator

            return CHGNetCalculator(CHGNet.load(model_name="0.3.0", use_device="cpu", verbose=False), use_device="cpu")
    module, _, attribute = name.replace(":", ".").rpartition(".")
    try:
        made = getattr(import_module(module), attribute)()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise UserError(
            f"relaxer {name!r}: cannot be made ({error}); expected chgnet, none, or the import path of an ASE "
            "calculator that needs no argument, for example ase.calculators.emt.EMT"
        ) from error
    if not hasattr(made, "get_potential_energy"):
        raise UserError(f"relaxer {name!r}: found a {type(made).__name__}, expected an ASE calculator")
    return made


def single_point(structure: Structure, calc: Any) -> float:
    """The energy as it stands, eV/atom. Raises Diverged when it is not finite."""
    atoms = _atoms(structure)
    atoms.calc = calc
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        energy = float(atoms.get_potential_energy()) / len(atoms)
    if not math.isfinite(energy):
        raise Diverged("the energy is not finite")
    return energy


def relax(structure: Structure, calc: Any, fmax: float = 0.05, steps: int = 200) -> Relaxed:
    """Move atoms and cell downhill (FIRE, Bitzek et al. 2006) until no force is over `fmax` eV/Å, or for `steps`.

    The cell moves when the calculator knows stress (ASE's FrechetCellFilter). Raises Diverged: energy or cell
    no longer finite, or the volume beyond 1/4 to 4 times its start.
    """
    from ase.filters import FrechetCellFilter
    from ase.optimize import FIRE

    atoms = _atoms(structure)
    atoms.calc = calc
    cell_free = "stress" in getattr(calc, "implemented_properties", [])
    moving = FrechetCellFilter(atoms) if cell_free else atoms
    start = atoms.get_volume()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first = float(atoms.get_potential_energy()) / len(atoms)
        optimizer = FIRE(moving, logfile=None)
        force = math.inf
        for _ in optimizer.irun(fmax=fmax, steps=steps):
            force = float(np.sqrt((moving.get_forces() ** 2).sum(1).max()))
            _check(atoms, start, force)
        energy = float(atoms.get_potential_energy()) / len(atoms)
    if not math.isfinite(energy):
        raise Diverged("the energy is not finite")
    relaxed = Structure(Lattice(np.array(atoms.cell)), structure.species, atoms.get_scaled_positions())
    return Relaxed(relaxed, energy, first, int(optimizer.nsteps), force <= fmax, force, cell_free)


def _check(atoms: Any, start: float, force: float) -> None:
    ratio = atoms.get_volume() / start
    if not (math.isfinite(force) and np.isfinite(atoms.positions).all()):
        raise Diverged("forces or positions are not finite")
    if not 0.25 < ratio < 4:
        raise Diverged(f"the volume became {ratio:.2g} times what it was")


def _atoms(structure: Structure) -> Any:
    from ase import Atoms

    return Atoms(
        numbers=[site.specie.Z for site in structure],
        scaled_positions=structure.frac_coords,
        cell=structure.lattice.matrix,
        pbc=True,
    )
