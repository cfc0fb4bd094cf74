"""Builds the tables in domains/crystals that come from data: `python -m sciconsist.workflows.crystal_tables FOLDER`.

Needs MP-20-BT and mp_elemental_references.json.gz in SCICONSIST_DATA_DIR. Test crystals stay out.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Composition

from sciconsist.datasets import registry
from sciconsist.domains.crystals.crystals import Crystal
from sciconsist.domains.crystals.files import CrystalRecord
from sciconsist.domains.crystals.likeness import fit_likeness
from sciconsist.domains.crystals.positions import origins, placed
from sciconsist.domains.crystals.symmetry import GRID, Basis, primitive
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


def symmetry_tables(crystals: Sequence[Crystal], steps: int = 3000) -> dict[str, dict[str, Any]]:
    """How crystals of each space group lie in their cells, which positions they occupy, and how alike elements are there."""
    source = "MP-20-BT train (Materials Project, CC-BY 4.0)"
    found = [p for c in crystals if (p := placed(c)) is not None]
    bases: dict[int, Counter[Basis]] = defaultdict(Counter)
    seen: dict[int, dict[tuple, list[tuple[int, ...]]]] = defaultdict(lambda: defaultdict(list))
    for p in found:
        bases[p.number][p.basis] += 1
        seen[p.number][p.basis, p.sites, p.atoms].append(p.elements)
    groups: dict[str, Any] = {
        "source": f"{source}: bases from primitive to Niggli cells by space group, with counts; Wyckoff positions in 24ths, "
        "and what other origins make of them",
        "settings": {str(g): [[n, list(b)] for b, n in bases[g].most_common()] for g in sorted(bases)},
        "sites": {str(g): [np.round(s.point * GRID).astype(int).tolist() for s in primitive(g).sites] for g in range(1, 231)},
        "origins": {str(g): [list(o) for o in origins(g)] for g in sorted(bases)},
    }
    positions: dict[str, list] = {}
    for g in sorted(seen):
        order = {b: k for k, (b, _) in enumerate(bases[g].most_common())}
        ways = sorted(seen[g].items(), key=lambda item: (-len(item[1]), item[0]))
        positions[str(g)] = [[order[b], sites, atoms, elements] for (b, sites, atoms), elements in ways]
    return {
        "space_groups.json": groups,
        "occupations.json": {
            "source": f"{source}: Wyckoff positions occupied together, by space group, with the elements; likeness of elements",
            "likeness": fit_likeness(found, steps).round(3).tolist(),
            "occupations": positions,
        },
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
        *symmetry_tables(crystals_of(registry.load("mp-20-bt", "train"))[0]).items(),
    ):
        with atomic_path(folder / name) as temporary:
            temporary.write_text(json.dumps(table, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
