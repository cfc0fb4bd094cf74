"""Builds the tables in domains/crystals that come from data: `python -m sciconsist.workflows.crystal_tables FOLDER`.

Needs MP-20-BT and mp_elemental_references.json.gz in SCICONSIST_DATA_DIR. Test crystals stay out.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pymatgen.core import Composition

from sciconsist.datasets import registry
from sciconsist.domains.crystals.files import CrystalRecord
from sciconsist.domains.crystals.occupations import count_occupations
from sciconsist.domains.crystals.symmetry import count_settings
from sciconsist.domains.crystals.thermo import Hull
from sciconsist.errors import UserError
from sciconsist.extras import need
from sciconsist.files import atomic_path
from sciconsist.workflows.crystal_data import crystals_of

SPLITS = ("train", "large", "val")
REFERENCES = "mp_elemental_references.json.gz"
ABOUT = {
    "source": "The Materials Project, materialsproject.org",
    "licence": "CC-BY 4.0",
    "citation": "A. Jain et al., APL Materials 1, 011002 (2013), doi:10.1063/1.4812323",
    "corrections": "MP2020",
}


def elemental_references(path: Path) -> dict[str, Any]:
    """Energies of the elements in their reference phase, eV/atom."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        entries = json.load(file)
    energies = {
        symbol: round((entry["energy"] + entry["correction"]) / sum(entry["composition"].values()), 6)
        for symbol, entry in sorted(entries.items())
    }
    return {**ABOUT, "changes": "energy per atom of each elemental entry of 2023-02-07", "ev_per_atom": energies}


def hull_energies() -> dict[str, Any]:
    """The hull's formation energy at the composition of every crystal outside the test split, eV/atom, by formula.

    `e_form - e_above_hull` is the true hull at a composition, even where no crystal of ours lies on it.
    """
    lowest: dict[str, float] = {}
    for split in SPLITS:
        for record in registry.load("mp-20-bt", split):
            composition: Composition = record.structure.composition
            if len(composition) == 1:
                continue
            energy = record.properties["e_form_per_atom"] - record.properties["e_above_hull"]
            formula = composition.reduced_formula
            lowest[formula] = min(lowest.get(formula, 0.0), energy)
    energies = {formula: round(float(energy), 4) for formula, energy in sorted(lowest.items()) if energy < 0}
    changes = (
        "formation energy minus energy above hull of the crystals of MP-20-BT (train, large, val), lowest by formula"
    )
    return {**ABOUT, "changes": changes, "formation_ev_per_atom": energies}


def chgnet_offsets(references: Mapping[str, float]) -> dict[str, Any]:
    """CHGNet's error for the lowest crystal of each formula, eV/atom; some ten minutes on one core."""
    chgnet = need("chgnet.model", "screen", "the errors of CHGNet")
    model = chgnet.CHGNet.load(model_name="0.3.0", use_device="cpu", verbose=False)
    lowest: dict[str, CrystalRecord] = {}
    for split in SPLITS:
        for record in registry.load("mp-20-bt", split):
            formula = record.structure.composition.reduced_formula
            best = lowest.setdefault(formula, record)
            if record.properties["e_above_hull"] < best.properties["e_above_hull"]:
                lowest[formula] = record
    hull = Hull(references, {}, "elements", "mp2020", partial=True)
    offsets: dict[str, float] = {}
    for formula, record in sorted(lowest.items()):
        composition = record.structure.composition
        energy = float(model.predict_structure(record.structure, task="e")["e"])
        formation = hull.formation_energy(composition, energy)
        if len(composition) > 1 and formation is not None:
            offsets[formula] = round(formation - record.properties["e_form_per_atom"], 3)
    changes = "CHGNet 0.3.0 minus Materials Project at its geometry, lowest crystal of each formula of MP-20-BT"
    return {**ABOUT, "changes": changes, "ev_per_atom": offsets}


def symmetry_tables() -> dict[str, dict[str, Any]]:
    """How the training crystals of each space group lie in their cells, and which Wyckoff positions they occupy."""
    crystals, _ = crystals_of(registry.load("mp-20-bt", "train"))
    source = "MP-20-BT train (Materials Project, CC-BY 4.0)"
    bases = {"source": f"{source}: bases from primitive to Niggli cells by space group, with counts"}
    positions = {"source": f"{source}: Wyckoff positions occupied together, by space group, with counts"}
    return {
        "space_groups.json": {**bases, "settings": count_settings(crystals)},
        "occupations.json": {**positions, "occupations": count_occupations(crystals)},
    }


def main(folder: Path) -> None:
    places = [root / folder / REFERENCES for root in registry.roots() for folder in registry.FOLDERS]
    references = next((path for path in places if path.is_file()), None)
    if references is None:
        raise UserError(f"no {REFERENCES} in {', '.join(map(str, registry.roots()))}")
    elements = elemental_references(references)
    for name, table in (
        ("mp_references.json", elements),
        ("mp_hull.json", hull_energies()),
        ("chgnet_offsets.json", chgnet_offsets(elements["ev_per_atom"])),
        *symmetry_tables().items(),
    ):
        with atomic_path(folder / name) as temporary:
            temporary.write_text(json.dumps(table, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
