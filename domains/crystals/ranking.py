"""What can be said of screened candidates only together: hull, duplicates, novelty, order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pymatgen.core import Structure

from .metrics.matching import SAME, Catalogue
from .screening import composition_of, structure_of_plain
from .thermo import Hull

# Columns of the table, and their unit or meaning.
COLUMNS = {
    "rank": "among the candidates that are left",
    "name": "of the input",
    "formula": "reduced",
    "status": "passed, rejected or failed",
    "stage": "where it fell",
    "reason": "why",
    "e_above_hull": "eV/atom; negative below the hull that is known",
    "e_form": "eV/atom, from the elements",
    "energy": "eV/atom, as the relaxer gives it (with corrections where they are added)",
    "offset": "eV/atom; the relaxer's error at this formula, known from a crystal of it, that e_form has taken off",
    "hull_known": "whether the hull has any compound of just these elements",
    "decomposes_to": "phases on the hull, atom fractions",
    "known_as": "crystal of the reference set that it is; empty when new",
    "space_group": "spglib, 0.1 Å",
    "space_group_number": "",
    "atoms": "in the cell",
    "density": "g/cm^3",
    "volume_per_atom": "Å^3",
    "volume_change": "by relaxing, fraction",
    "energy_unrelaxed": "eV/atom",
    "steps": "of the relaxation",
    "converged": "whether all forces fell below the limit",
    "max_force": "eV/Å at the end",
}
STAGES = ("file", "distances", "charge", "prefilter", "relaxation", "references", "hull", "duplicate")


def rank(
    records: Sequence[dict[str, Any]],
    hull: Hull | None,
    limit: float,
    known: Iterable[tuple[str, Structure]] = (),
    offsets: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Records with hull energies, known names and ranks: those left first, best first, then the others by name.

    A candidate falls when it lies more than `limit` eV/atom above the hull or repeats a better one. Without a hull
    or energies nothing falls for its energy. `offsets`, eV/atom by reduced formula, are errors of the relaxer to take
    off. The result depends on the records alone, not on their order.
    """
    rows = [_placed(dict(record), hull, limit, offsets or {}) for record in sorted(records, key=lambda r: r["name"])]
    rows.sort(key=_order)
    _mark_duplicates(rows)
    left = [row for row in rows if row["status"] == "passed"]
    catalogue = Catalogue.of(known, {row["formula"] for row in left})
    for place, row in enumerate(left, 1):
        row["rank"] = place
        row["known_as"] = catalogue.find(structure_of_plain(row["structure"])) or ""
    return left + sorted((row for row in rows if row["status"] != "passed"), key=lambda row: row["name"])


def _placed(row: dict[str, Any], hull: Hull | None, limit: float, offsets: Mapping[str, float]) -> dict[str, Any]:
    energy = row.get("energy")
    if hull is None or energy is None:
        return row
    composition = composition_of(row)
    offset = offsets.get(composition.reduced_formula, 0.0)
    formation = hull.formation_energy(composition, energy - offset)
    if formation is None:
        absent = ", ".join(sorted(e.symbol for e in composition if e.symbol not in hull.references))
        if row["status"] == "passed":
            row |= {"status": "rejected", "stage": "references", "reason": f"no reference energy of {absent}"}
        return row
    place = hull.place(composition)
    above = formation - place.energy
    row |= {
        "e_form": formation, "e_above_hull": above, "offset": offset, "hull_known": place.known,
        "decomposes_to": " + ".join(f"{share:.3f} {phase}" for phase, share in sorted(place.phases.items())),
    }  # fmt: skip
    if row["status"] == "passed" and above > limit:
        why = f"{above:.3f} eV/atom above the hull, over the limit of {limit:g}"
        row |= {"status": "rejected", "stage": "hull", "reason": why}
    return row


def _order(row: dict[str, Any]) -> tuple[Any, ...]:
    above, energy = row.get("e_above_hull"), row.get("energy")
    if above is not None:
        return (0, round(above, 6), row["name"])
    return (1, row.get("formula", ""), round(energy, 6) if energy is not None else 0.0, row["name"])


def _mark_duplicates(rows: list[dict[str, Any]]) -> None:
    seen = Catalogue(SAME)
    for row in rows:
        if row["status"] != "passed":
            continue
        structure = structure_of_plain(row["structure"])
        if (better := seen.find(structure)) is not None:
            row |= {"status": "rejected", "stage": "duplicate", "reason": f"the same crystal as {better}"}
        else:
            seen.add(row["name"], structure)


def counts(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How many were screened, are left, are new, lie in systems that the hull does not know; what fell where."""
    left = [row for row in rows if row["status"] == "passed"]
    fell = Counter(row["stage"] for row in rows if row["status"] != "passed")
    placed = [row for row in rows if row.get("e_above_hull") is not None]
    return {
        "candidates": len(rows),
        "passed": len(left),
        "novel": sum(not row["known_as"] for row in left),
        "rejected": sum(row["status"] == "rejected" for row in rows),
        "failed": sum(row["status"] == "failed" for row in rows),
        "fell": {stage: fell[stage] for stage in STAGES if fell[stage]},
        "below_hull": sum(row["e_above_hull"] < 0 for row in placed),
        "unknown_systems": sorted({_system(row) for row in placed if not row["hull_known"]}),
        "not_converged": sum(row.get("converged") is False for row in left),
    }


def _system(row: dict[str, Any]) -> str:
    return "-".join(sorted(e.symbol for e in composition_of(row)))
