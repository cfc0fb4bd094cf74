"""Formation energies and energies above a hull, in eV/atom, on a stated energy scale.

Energies of the Materials Project carry the MP2020 corrections (Wang et al. 2021, doi:10.1038/s41598-021-94550-5) and,
for oxides and fluorides of some metals, +U. Raw energies beside corrected ones shift every hull, so a `Scale` says
which they are. The hull in the package is partial: what it does not know makes candidates look too stable.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pymatgen.core import Composition, Element, Structure
from scipy.optimize import linprog

from sciconsist.errors import UserError

Scale = Literal["mp2020", "raw", "own"]
SCALES: dict[str, str] = {
    "mp2020": "energies as the Materials Project's: GGA and GGA+U with the MP2020 corrections",
    "raw": "uncorrected GGA / GGA+U energies in the Materials Project's settings; MP2020 corrections are added",
    "own": "an energy scale of its own: comparable only with entries of the same calculator",
}


@dataclass(frozen=True)
class Place:
    """Where a composition's hull is: its formation energy (eV/atom) and the phases it falls into (atom fractions).

    `known` says whether any entry has exactly these elements; if not, the hull is made of the subsystems alone.
    """

    energy: float
    phases: dict[str, float]
    known: bool


@dataclass(frozen=True)
class Hull:
    """Elemental references (eV/atom) and formation energies (eV/atom) of compounds by reduced formula."""

    references: Mapping[str, float]
    compounds: Mapping[str, float]
    name: str
    scale: Scale
    partial: bool
    licence: str = ""
    _places: dict[str, Place] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def _by_elements(self) -> dict[frozenset[str], list[tuple[str, float]]]:
        groups: dict[frozenset[str], list[tuple[str, float]]] = {}
        for formula, energy in self.compounds.items():
            groups.setdefault(frozenset(e.symbol for e in Composition(formula)), []).append((formula, energy))
        return groups

    def covers(self, composition: Composition) -> bool:
        """Whether every element has a reference energy: otherwise there is no formation energy."""
        return all(element.symbol in self.references for element in composition)

    def knows(self, composition: Composition) -> bool:
        """Whether an entry has exactly these elements; elements alone are known."""
        return len(composition) == 1 or frozenset(e.symbol for e in composition) in self._by_elements

    def formation_energy(self, composition: Composition, energy: float) -> float | None:
        """eV/atom above the elements, of an `energy` in eV/atom on this hull's scale; None without references."""
        if not self.covers(composition):
            return None
        elements = sum(amount * self.references[e.symbol] for e, amount in composition.items())
        return energy - elements / composition.num_atoms

    def energy(self, composition: Composition) -> float | None:
        """The hull's energy at a composition, eV/atom on this hull's scale; None without references."""
        if not self.covers(composition):
            return None
        elements = sum(amount * self.references[e.symbol] for e, amount in composition.items())
        return elements / composition.num_atoms + self.place(composition).energy

    def place(self, composition: Composition) -> Place:
        """The hull at a composition: the lowest mixture of entries and elements, by linear programming."""
        formula = composition.reduced_formula
        if formula not in self._places:
            self._places[formula] = self._place(composition)
        return self._places[formula]

    def _place(self, composition: Composition) -> Place:
        symbols = sorted(e.symbol for e in composition)
        present = set(symbols)
        entries = [(symbol, 0.0) for symbol in symbols]
        for elements, members in self._groups_below(present):
            entries += members if elements <= present else []
        fractions = np.array([[Composition(f).get_atomic_fraction(s) for f, _ in entries] for s in symbols])
        target = np.array([composition.get_atomic_fraction(s) for s in symbols])
        found = linprog([energy for _, energy in entries], A_eq=fractions, b_eq=target, method="highs")
        phases = {f: float(x) for (f, _), x in zip(entries, found.x) if x > 1e-6}
        return Place(float(found.fun), phases, self.knows(composition))

    def _groups_below(self, present: set[str]) -> list[tuple[frozenset[str], list[tuple[str, float]]]]:
        if 2 ** len(present) > len(self._by_elements):
            return list(self._by_elements.items())
        symbols = sorted(present)
        subsets = (frozenset(s for k, s in enumerate(symbols) if mask >> k & 1) for mask in range(1, 2 ** len(symbols)))
        return [(subset, self._by_elements[subset]) for subset in subsets if subset in self._by_elements]

    def about(self) -> dict[str, Any]:
        """What this hull is, for reports."""
        return {
            "hull": self.name, "partial": self.partial, "scale": self.scale, "scale_is": SCALES[self.scale],
            "elements": len(self.references), "compounds": len(self.compounds), "licence": self.licence,
        }  # fmt: skip


def shipped_hull() -> Hull:
    """The Materials Project hull in the package: 89 elements, and the compositions of MP-20-BT without its test split.

    Partial: it has entries in the systems of 49 % of the test split, where it lies too high by a median of 0.05 and a
    mean of 0.15 eV/atom; elsewhere it is made of the subsystems alone.
    """
    references, hull = _table("mp_references.json"), _table("mp_hull.json")
    return Hull(
        references["ev_per_atom"],
        hull["formation_ev_per_atom"],
        "Materials Project, elements and the compositions of MP-20-BT",
        "mp2020",
        partial=True,
        licence=f"{hull['licence']}, {hull['source']}, {hull['citation']}",
    )


def chgnet_offsets() -> dict[str, float]:
    """CHGNet's error at the composition of a known crystal, eV/atom by reduced formula: to be taken off.

    Single points at the Materials Project's geometry, on MP-20-BT without its test split. On 300 further crystals of
    those formulas it takes the mean error from 0.023 to 0.016 eV/atom (the median from .016 to .008). Carried over to
    other formulas along their hull phases it does not help (.025 to .028 on 735 of validation), so it is not.
    """
    return _table("chgnet_offsets.json")["ev_per_atom"]


def _table(name: str) -> dict[str, Any]:
    return json.loads(resources.files("sciconsist.domains.crystals").joinpath(name).read_text(encoding="utf-8"))


def read_hull(path: str | os.PathLike[str], scale: Scale) -> Hull:
    """A user's entries: a JSON list of pymatgen ComputedEntry dicts (energy in eV, composition, correction).

    Elements come from the file where it has them; the Materials Project's stand in on its own scales only.
    Raises UserError naming the entry.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); expected a list of pymatgen entries") from error
    if isinstance(content, dict):
        content = content.get("entries")
    if not isinstance(content, list) or not content:
        raise UserError(f"{path}: found no list of entries, expected pymatgen ComputedEntry dicts")
    energies: dict[str, float] = {}
    for count, entry in enumerate(content, 1):
        composition, energy = _entry(entry, f"{path}, entry {count}")
        formula = composition.elements[0].symbol if len(composition) == 1 else composition.reduced_formula
        energies[formula] = min(energy, energies.get(formula, math.inf))
    references = {} if scale == "own" else dict(_table("mp_references.json")["ev_per_atom"])
    references.update({f: e for f, e in energies.items() if f in _SYMBOLS})
    bare = Hull(references, {}, str(path), scale, partial=True)
    compounds: dict[str, float] = {}
    for formula, energy in energies.items():
        if formula in _SYMBOLS:
            continue
        formation = bare.formation_energy(Composition(formula), energy)
        if formation is None:
            missing = [e.symbol for e in Composition(formula) if e.symbol not in references]
            raise UserError(f"{path}: found {formula} and no entry of the element {missing[0]}, expected one")
        compounds[formula] = formation
    return Hull(references, compounds, str(path), scale, partial=True)


_SYMBOLS = {element.symbol for element in Element}


def _entry(entry: Any, where: str) -> tuple[Composition, float]:
    """(composition, eV/atom) of an entry's dict, its correction added; nothing in it is imported or called."""
    try:
        composition = Composition({str(k): float(v) for k, v in entry["composition"].items()})
        correction = entry.get("correction")
        if correction is None:
            correction = sum(_adjustment(a) for a in entry.get("energy_adjustments") or [])
        energy = (float(entry["energy"]) + float(correction)) / composition.num_atoms
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise UserError(f"{where}: found no energy and composition ({error}), expected a ComputedEntry dict") from error
    if not math.isfinite(energy) or len(composition) == 0:
        raise UserError(f"{where}: found an energy of {energy}, expected eV")
    return composition, energy


def _adjustment(given: Mapping[str, Any]) -> float:
    if "value" in given:
        return float(given["value"])
    return float(given["adj_per_atom"]) * float(given["n_atoms"])


def mp2020_correction(structure: Structure) -> float:
    """The MP2020 correction of a crystal in eV/atom, with +U where the Materials Project uses it.

    Raises UserError for a composition that the scheme refuses.
    """
    from pymatgen.entries.compatibility import CompatibilityError, MaterialsProject2020Compatibility
    from pymatgen.entries.computed_entries import ComputedStructureEntry
    from pymatgen.io.vasp.sets import MPRelaxSet

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hubbards = _hubbards(structure, MPRelaxSet.CONFIG["INCAR"]["LDAUU"])
        parameters = {"run_type": "GGA+U" if hubbards else "GGA", "hubbards": hubbards, "is_hubbard": bool(hubbards)}
        entry = ComputedStructureEntry(structure, 0.0, parameters=parameters)
        try:
            adjustments = MaterialsProject2020Compatibility(check_potcar=False).get_adjustments(entry)
        except CompatibilityError as error:
            raise UserError(f"{structure.composition.reduced_formula}: no MP2020 correction ({error})") from error
    return sum(a.value for a in adjustments) / len(structure)


def _hubbards(structure: Structure, table: Mapping[str, Any]) -> dict[str, float]:
    """The Materials Project's U values: with oxygen or fluorine as the most electronegative element, else none."""
    elements = sorted((e for e in structure.composition.elements), key=lambda e: e.X)
    anion = elements[-1].symbol
    if anion not in ("O", "F") or anion not in table:
        return {}
    return {e.symbol: float(table[anion][e.symbol]) for e in elements if table[anion].get(e.symbol)}
