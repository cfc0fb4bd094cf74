"""Energies and hulls: known values, geometry of the hull, corrections, users' entries."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition, Lattice, Structure
from pymatgen.entries.computed_entries import ComputedEntry

from sciconsist.domains.crystals.thermo import Hull, mp2020_correction, read_hull, shipped_hull
from sciconsist.errors import UserError


def hull_of(compounds: dict[str, float], elements: str = "Li Fe O") -> Hull:
    return Hull(dict.fromkeys(elements.split(), -1.0), compounds, "test", "own", partial=True)


def test_shipped_hull_has_the_materials_projects_values() -> None:
    hull = shipped_hull()
    # mp-22862, mp-19017, mp-554278 (hull at TiO2); eV/atom
    for formula, expected in (("NaCl", -2.1096), ("LiFePO4", -2.480), ("TiO2", -3.5016)):
        place = hull.place(Composition(formula))
        assert place.known and place.energy == pytest.approx(expected, abs=2e-3)
    assert hull.partial and "CC-BY" in hull.licence and hull.references["O"] == pytest.approx(-4.94669, abs=1e-4)


def test_elements_lie_on_the_hull() -> None:
    place = hull_of({}).place(Composition("Fe4"))
    assert place.energy == 0 and place.phases == {"Fe": 1.0} and place.known


def test_unknown_system_is_said_so() -> None:
    hull = hull_of({"Li2O": -2.0})
    assert not hull.place(Composition("LiFeO2")).known and hull.place(Composition("LiO")).known
    assert not hull.covers(Composition("NaCl")) and hull.formation_energy(Composition("NaCl"), -3.0) is None


FORMULAS = ["Li2O", "LiO", "FeO", "Fe2O3", "Fe3O4", "LiFeO2", "Li5FeO4", "LiFe", "Li2FeO3"]


@settings(max_examples=25)
@given(st.lists(st.floats(-3, 0.5), min_size=len(FORMULAS), max_size=len(FORMULAS)), st.sampled_from(FORMULAS))
def test_hull_agrees_with_pymatgens(energies: list[float], formula: str) -> None:
    compounds = dict(zip(FORMULAS, energies))
    entries = [PDEntry(Composition(f), e * Composition(f).num_atoms) for f, e in compounds.items()]
    entries += [PDEntry(Composition(e), 0.0) for e in ("Li", "Fe", "O")]
    expected = PhaseDiagram(entries).get_hull_energy_per_atom(Composition(formula))
    place = hull_of(compounds).place(Composition(formula))
    assert place.energy == pytest.approx(expected, abs=1e-6)
    assert sum(place.phases.values()) == pytest.approx(1)


def test_formation_energy_is_zero_for_the_references() -> None:
    hull = shipped_hull()
    for element in ("Li", "Fe", "O"):
        assert hull.formation_energy(Composition(element), hull.references[element]) == pytest.approx(0)
    composition = Composition("Fe2O3")
    assert hull.energy(composition) == pytest.approx(
        hull.place(composition).energy + (2 * hull.references["Fe"] + 3 * hull.references["O"]) / 5
    )


def rocksalt(cation: str, anion: str, a: float) -> Structure:
    return Structure.from_spacegroup(225, Lattice.cubic(a), [cation, anion], [[0, 0, 0], [0.5, 0.5, 0.5]])


def test_mp2020_corrections_are_those_of_the_paper() -> None:
    # Wang et al. 2021, tables 1 and 2: oxide -0.687, Fe(+U) -2.256, Cl -0.614 eV an atom; nothing for metals
    assert mp2020_correction(rocksalt("Fe", "O", 4.3)) == pytest.approx((-2.256 - 0.687) / 2)
    assert mp2020_correction(rocksalt("Mg", "O", 4.2)) == pytest.approx(-0.687 / 2)
    assert mp2020_correction(rocksalt("Na", "Cl", 5.6)) == pytest.approx(-0.614 / 2)
    assert mp2020_correction(rocksalt("Cu", "Au", 5.2)) == 0


def test_users_entries(tmp_path: Path) -> None:
    entries = [
        ComputedEntry("Li", -1.9), ComputedEntry("O2", -9.9), ComputedEntry("Li4O2", -28.0, correction=-1.4),
        ComputedEntry("Li2O2", -18.0), ComputedEntry("Li2O", -14.0),
    ]  # fmt: skip
    path = tmp_path / "entries.json"
    path.write_text(json.dumps([e.as_dict() for e in entries]))
    hull = read_hull(path, "own")
    assert hull.references == {"Li": pytest.approx(-1.9), "O": pytest.approx(-4.95)}
    assert hull.compounds["Li2O"] == pytest.approx(-29.4 / 6 + (2 * 1.9 + 4.95) / 3)
    path.write_text(json.dumps([entries[2].as_dict()]))
    with pytest.raises(UserError, match="no entry of the element"):
        read_hull(path, "own")
    assert read_hull(path, "mp2020").references["Li"] == pytest.approx(-1.9089, abs=1e-4)


BROKEN = [
    "", "{}", "[]", "[1]", '[{"energy": 1}]', '[{"energy": "x", "composition": {"Li": 1}}]',
    '[{"energy": NaN, "composition": {"Li": 1}}]', '[{"energy": 1, "composition": {}}]',
]  # fmt: skip


@pytest.mark.parametrize("text", BROKEN)
def test_broken_entries_are_user_errors(tmp_path: Path, text: str) -> None:
    (tmp_path / "entries").write_text(text)
    with pytest.raises(UserError, match="entries"):
        read_hull(tmp_path / "entries", "own")
