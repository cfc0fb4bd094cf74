"""What the report page says about generated crystals that were scored: figures, distributions, a gallery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from pymatgen.core import Structure as Crystal
from scipy.stats import wasserstein_distance

from sciconsist.sections import Badge, Card, Gallery, Histogram, Histograms, Metric, Section, Table, Text

from .drawing import draw, shown
from .metrics.distributions import densities, element_counts
from .metrics.validity import smact_valid, structurally_valid

_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def evaluation_sections(
    samples: Sequence[Crystal],
    reference: Sequence[Crystal],
    figures: Mapping[str, Any],
    ceiling: Mapping[str, Any],
    about: Mapping[str, Any],
    limit: int = 60,
) -> list[Section]:
    """Sections of an evaluation (`workflows.evaluate_crystals`); the first `limit` crystals are shown."""
    sections: list[Section] = [_table(figures, ceiling)]
    if "match" in figures:
        sections.append(_match_table(figures["match"], about["baselines"]))
    sections.append(_how(figures, about))
    fine = [s for s in samples if structurally_valid(s)]
    sections.append(_histograms(fine, reference, about["reference"]))
    cards = [crystal_card(s, k) for k, s in enumerate(samples[:limit])]
    intro = (
        f"The first {len(cards)} of {len(samples)}, in their order and in the conventional cell. Choose one to turn it."
    )
    return [*sections, Gallery("Crystals", intro, cards, len(samples))]


def _table(figures: Mapping[str, Any], ceiling: Mapping[str, Any]) -> Table:
    n, valid, best = figures["n"], figures["validity"], ceiling["validity"]
    rows = [
        Metric(
            "Structurally valid", valid["structural"], n, best["structural"], "Atoms over 0.5 Å apart, a cell of 0.1 Å³"
        ),
        *(
            Metric(f"SMACT valid, {name}", value, n, best["smact"][name], "Charges balance with these oxidation states")
            for name, value in valid["smact"].items()
        ),
        Metric("Valid", valid["valid"], n, best["valid"], "Both, with smact14"),
    ]
    if known := figures.get("novelty"):
        rows += [
            Metric("Unique", known["unique"], n, None, "Not the same crystal as an earlier sample"),
            Metric("Novel", known["novel"], n, None, "Not a known crystal"),
            Metric("Valid, unique and novel", known["valid_unique_novel"], n, None, "Of all samples"),
        ]
    hull, real = figures["hull"], ceiling["hull"]
    meaning = "The shipped hull has a compound of just these elements"
    rows.append(Metric("In systems the hull knows", hull["known_system"], n, real["known_system"], meaning))
    spread, halves = figures["distribution"], ceiling["distribution"]
    for key, name, unit in (("density_w1", "Density, W₁", "g/cm³"), ("elements_w1", "Number of elements, W₁", "")):
        what = "Distance to the reference; beside it, between its two halves"
        rows.append(Metric(name, spread[key], spread["n"], halves[key], what, unit))
    return Table("Figures", "Every sample is in the denominator.", rows, "reference")


def _match_table(match: Mapping[str, Any], baselines: Mapping[str, Any]) -> Table:
    rows = []
    for title, found in (
        ("Samples", match),
        ("Nearest prototype", baselines["substitution"]),
        ("Chance", baselines["chance"]),
    ):
        every = found["all_rows"]
        for k in (1, 5):
            if (rate := every.get(f"match_rate_k{k}")) is not None:
                rows.append(Metric(f"{title}: match rate, k = {k}", rate, every["n"], None, "All reference crystals"))
                rows.append(Metric(f"{title}: RMSE, k = {k}", every[f"rmse_k{k}"], None, None, "Of those matched", ""))
    usual = match["valid_matches_over_all_rows"]
    rows.append(Metric("Samples: valid matches", usual, None, None, "As papers count, over all crystals"))
    rows.append(Metric("Samples: rows papers count", match["valid_rows_cap"], None, None, "That rate cannot exceed it"))
    return Table("Structure prediction", "", rows, "reference")


def _how(figures: Mapping[str, Any], about: Mapping[str, Any]) -> Text:
    said = [
        f"Validity: {figures['validity']['rule']}; SMACT {figures['validity']['smact_version']}. "
        "Real crystals do not reach 100 % of it.",
        f"Reference: {about['reference']}, {about['reference_crystals']} crystals. "
        f"Novelty is against {about['novelty_against'] or 'nothing: no set of known crystals was there'}.",
        f"Hull: {about['hull']['hull']} (partial), {about['hull']['compounds']} compounds. {about['hull']['licence']}",
    ]
    for key, name in (("novelty", "Duplicates and novelty"), ("match", "Matches")):
        if key in figures:
            values = ", ".join(f"{k} {v:g}" for k, v in figures[key]["tolerances"].items())
            said.append(f"{name}: StructureMatcher with {values}.")
    return Text("How this was counted", "", said)


def _histograms(samples: Sequence[Crystal], reference: Sequence[Crystal], name: str) -> Histograms:
    panels = []
    for title, unit, measure, width, bins in (
        ("density", "g/cm³", densities, 0.5, 48),
        ("elements", "", element_counts, 1.0, 8),
        ("atoms in the cell", "", _atoms, 1.0, 52),
    ):
        found, real = measure(samples), measure(reference)
        start = -0.5 if width == 1 else 0.0
        edges = start + width * np.arange(bins + 1)
        panels.append(
            Histogram(
                title, unit, start, width,
                np.histogram(found, edges)[0].tolist(), np.histogram(real, edges)[0].tolist(),
                len(found), len(real), int((found > edges[-1]).sum()),
                float(found.mean()) if len(found) else None, float(real.mean()) if len(real) else None,
                float(wasserstein_distance(found, real)) if len(found) and len(real) else None,
            )
        )  # fmt: skip
    return Histograms("Distributions", "Structurally valid samples beside the reference.", panels, name)


def _atoms(structures: Sequence[Crystal]) -> np.ndarray:
    return np.array([float(len(s)) for s in structures])


def crystal_card(crystal: Crystal, index: int) -> Card:
    """A crystal with whether it is valid; what its `properties` say are its facts."""
    view = shown(crystal) if len(crystal) <= 200 else None
    structural = structurally_valid(crystal)
    composition = crystal.composition
    badges = [Badge("structure", structural, "no atoms nearer than 0.5 Å")]
    if find_spec("smact"):  # an extra: without it the card says nothing of charges
        badges.append(Badge("charges", smact_valid(composition), "SMACT, smact14"))
    return Card(
        name=composition.reduced_formula.translate(_SUBSCRIPTS),
        detail=f"{len(crystal)} atoms, {crystal.density:.3g} g/cm³",
        badges=badges,
        facts=[("sample", str(index)), ("formula in the cell", composition.formula),
               *((str(k).replace("_", " "), str(v)) for k, v in crystal.properties.items())],
        drawing=draw(view) if view is not None else "",
        structure=view,
    )  # fmt: skip
