"""The demo's crystals: structures for a few formulas, relaxed with CHGNet where it is installed."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pymatgen.core import Structure

from sciconsist.domains.crystals.evaluation_report import crystal_card
from sciconsist.domains.crystals.metrics.validity import structurally_valid
from sciconsist.domains.crystals.relax import CHGNET, Diverged, calculator, relax
from sciconsist.domains.crystals.screening import symmetry
from sciconsist.domains.crystals.thermo import shipped_hull
from sciconsist.sections import Gallery, Section
from sciconsist.workflows.crystal_output import Folder
from sciconsist.workflows.crystal_requests import Wish
from sciconsist.workflows.generate_crystals import Crystals
from sciconsist.workflows.models import DEFAULTS, load_for, shipped

FORMULAS = ("NaCl", "TiO2", "SrTiO3", "GaAs")
EACH = 2  # crystals of a formula; the first of them is relaxed
STEPS = 8
RELAX_STEPS = 40


def crystals(folder: Path, seed: int = 0, advance: Callable[[int], None] = lambda n: None) -> dict[str, Any] | None:
    """Write crystals/*.cif and, relaxed, crystals/relaxed/*.cif; figures, with "sections" for the report.

    None where no crystal model is shipped.
    """
    if DEFAULTS.get("crystals") not in shipped():
        return None
    begin = time.monotonic()
    model = load_for("crystals", None)
    made: list[list[Structure]] = []
    (folder / "crystals").mkdir(exist_ok=True)
    out = Folder(folder / "crystals")
    for formula in FORMULAS:
        made.append(list(Crystals(model, Wish(formula=formula), STEPS, seed).take(EACH)))
        for structure in made[-1]:
            out.add(structure)
            advance(1)
    out.finish()
    every = [structure for few in made for structure in few]
    figures: dict[str, Any] = {
        "written": len(every), "formulas": list(FORMULAS), "steps": STEPS, "model": model.card.get("name"),
        "structurally_valid": sum(map(structurally_valid, every)) / len(every) if every else None,
        "licence_of_training_data": model.card.get("data_licence"),
        "seconds": round(time.monotonic() - begin, 2),
    }  # fmt: skip
    relaxed: list[Structure] = []
    if find_spec("chgnet") and find_spec("ase"):
        begin = time.monotonic()
        relaxed = _relaxed(folder / "crystals" / "relaxed", [few[0] for few in made if few])
        figures |= {"relaxed": len(relaxed), "relaxing_seconds": round(time.monotonic() - begin, 2)}
    return {**figures, "sections": [_gallery(relaxed or every, bool(relaxed))]}


def _relaxed(folder: Path, made: list[Structure]) -> list[Structure]:
    calc, hull, done = calculator(CHGNET), shipped_hull(), []
    folder.mkdir(exist_ok=True)
    out = Folder(folder)
    for structure in made:
        try:
            found = relax(structure, calc, steps=RELAX_STEPS)
        except (Diverged, ValueError, RuntimeError):
            continue  # the crystal as generated is in the folder above
        composition = found.structure.composition
        place, formation = hull.place(composition), hull.formation_energy(composition, found.energy)
        found.structure.properties = {
            **structure.properties, "relaxer": "CHGNet 0.3.0", "relaxation_steps": found.steps,
            "e_above_hull_ev_per_atom": "" if formation is None else f"{formation - place.energy:.3f}",
            "space_group": symmetry(found.structure)["space_group"] or "",
        }  # fmt: skip
        out.add(found.structure)
        done.append(found.structure)
    out.finish()
    return done


def _gallery(structures: list[Structure], relaxed: bool) -> Section:
    how = f"relaxed with CHGNet for at most {RELAX_STEPS} steps" if relaxed else "as generated"
    cards = [crystal_card(structure, index) for index, structure in enumerate(structures)]
    intro = f"Structures predicted for {', '.join(FORMULAS)} in {STEPS} network evaluations, {how}."
    return Gallery("Crystals", intro, cards, len(structures))
