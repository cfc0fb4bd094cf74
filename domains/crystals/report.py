"""What the report page says about crystals: figures, galleries, and why each candidate of a screen fell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pymatgen.core import Structure as Crystal

from sciconsist.sections import Badge, Card, Gallery, Metric, Section, Table, Text

from .drawing import draw, shown
from .hull_plots import hull_image
from .ranking import STAGES
from .screening import structure_of_plain
from .thermo import Hull

_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
_MEANING = {
    "file": "The file could not be read",
    "distances": "Atoms nearer than 0.5 Å, or a cell without volume",
    "charge": "SMACT finds no neutral set of oxidation states",
    "prefilter": "Too far above the hull to be worth relaxing",
    "relaxation": "It crashed, hung or diverged",
    "references": "An element without a reference energy",
    "hull": "Too far above the hull once relaxed",
    "duplicate": "The same crystal as a better one",
}


def screening_sections(
    rows: Sequence[Mapping[str, Any]],
    summary: Mapping[str, Any],
    hull: Hull | None,
    inputs: Mapping[str, Crystal],
    limit: int = 60,
) -> list[Section]:
    """Sections of a screen: what fell where, energies that were used, what is left, the hull, and the rejected.

    `rows` are `ranking.rank`'s, `inputs` the crystals before relaxing; of each gallery the first `limit` are shown.
    """
    left = [row for row in rows if row["status"] == "passed"]
    fell = [row for row in rows if row["status"] != "passed"]
    sections: list[Section] = [_funnel(summary), _energies(summary)]
    shown_cards = [_screened_card(row, inputs) for row in left[:limit]]
    sections.append(
        Gallery(
            "Candidates that are left",
            f"{_first(len(shown_cards), len(left))}, best first, in the conventional cell. Choose one to turn it.",
            shown_cards,
            len(left),
        )
    )
    if hull is not None and (image := hull_image(rows, hull)) is not None:
        sections.append(image)
    if fell:
        cards = [_screened_card(row, inputs) for row in fell[:limit]]
        intro = f"{_first(len(cards), len(fell))}, each with the reason. The table in ranked.csv has all of them."
        sections.append(Gallery("Why the others fell", intro, cards, len(fell)))
    return sections


def _first(count: int, total: int) -> str:
    return f"All {total}" if count == total else f"The first {count} of {total}"


def _funnel(summary: Mapping[str, Any]) -> Table:
    total = summary["candidates"]

    def row(name: str, count: int, meaning: str) -> Metric:
        return Metric(name, count / total if total else None, count, None, meaning)

    rows = [row("Left", summary["passed"], "Passed every stage")]
    if summary["reference"]:
        rows.append(row("Left and new", summary["novel"], f"Not in {summary['reference']}"))
    rows += [row(f"Fell: {s}", summary["fell"][s], _MEANING[s]) for s in STAGES if s in summary["fell"]]
    return Table("What became of them", f"{total} candidates; n counts them.", rows)


def _energies(summary: Mapping[str, Any]) -> Text:
    hull, settings = summary["hull"], summary["settings"]
    said = [
        f"Relaxer: {summary['relaxer']}; at most {settings['steps']} steps of FIRE until no force is over "
        f"{settings['fmax']:g} eV/Å; cell and atoms move."
        if settings["relaxer"] != "none"
        else "Nothing was relaxed, so there are no energies."
    ]
    if hull is None:
        said.append(
            "No hull: the relaxer's energies are on a scale of its own, and no entries on that scale were given."
        )
    else:
        partial = "partial" if hull["partial"] else "whole"
        said.append(
            f"Hull: {hull['hull']} ({partial}; {hull['elements']} elements, {hull['compounds']} compounds). "
            f"Energies: {hull['scale_is']}. {hull['licence']}"
        )
        if settings["relaxer"] == "chgnet":
            said.append(
                "Where a known crystal has the candidate's formula, CHGNet's error for it is taken off "
                "(column offset of the table)."
            )
        unknown = summary["unknown_systems"]
        if unknown:
            names = ", ".join(unknown[:20]) + (f" and {len(unknown) - 20} more" if len(unknown) > 20 else "")
            said.append(
                f"Systems in which this hull has no compound, so the figure means little: {len(unknown)} ({names})."
            )
    if not summary["reference"]:
        said.append("Novelty was not looked at: there was no reference set.")
    said.append(
        f"Space groups: spglib at {summary['symprec']:g} Å. Duplicates and novelty: pymatgen's StructureMatcher."
    )
    return Text("How to read the energies", "", said)


def _screened_card(row: Mapping[str, Any], inputs: Mapping[str, Crystal]) -> Card:
    crystal = structure_of_plain(row["structure"]) if "structure" in row else inputs.get(row["name"])
    view = shown(crystal) if crystal is not None and len(crystal) <= 200 else None
    badges = []
    if row["status"] == "passed":
        if row.get("converged") is not None:
            badges.append(Badge("converged", row["converged"], "all forces fell below the limit"))
        badges.append(Badge("new", not row["known_as"], "compared with the reference set"))
    if row.get("hull_known") is not None:
        badges.append(Badge("known system", row["hull_known"], "the hull has a compound of just these elements"))
    above, group = row.get("e_above_hull"), row.get("space_group")
    detail = row["reason"] if row["status"] != "passed" else ""
    if not detail:
        parts = [f"{above:+.3f} eV/atom from the hull" if above is not None else "", group or ""]
        detail = " · ".join(filter(None, parts))
    rank = f"{row['rank']}. " if row.get("rank") else ""
    return Card(
        name=f"{rank}{row['formula'].translate(_SUBSCRIPTS)}" if row["formula"] else row["name"],
        detail=detail,
        badges=badges,
        facts=_facts(row),
        drawing=draw(view) if view is not None else "",
        structure=view,
    )


_FACTS = (
    ("name", "file", ""), ("e_form", "formation energy", "eV/atom"), ("e_above_hull", "above hull", "eV/atom"),
    ("decomposes_to", "hull phases", ""), ("space_group", "space group", ""), ("space_group_number", "number", ""),
    ("known_as", "known as", ""), ("atoms", "atoms in the cell", ""), ("density", "density", "g/cm³"),
    ("volume_change", "volume change by relaxing", ""), ("steps", "relaxation steps", ""),
    ("max_force", "largest force", "eV/Å"), ("stage", "fell at", ""),
)  # fmt: skip


def _facts(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = []
    for key, name, unit in _FACTS:
        value = row.get(key)
        if value in (None, ""):
            continue
        if isinstance(value, float) and math.isfinite(value):
            value = f"{value:+.1%}" if key == "volume_change" else f"{value:.4g}"
        facts.append((name, f"{value} {unit}".strip()))
    return facts
