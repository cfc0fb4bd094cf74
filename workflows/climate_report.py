"""The report page of downscaled fields."""

from __future__ import annotations

from pathlib import Path

from sciconsist.domains.climate.report import climate_sections
from sciconsist.errors import UserError
from sciconsist.workflows.evaluate_climate import ClimateEvaluation
from sciconsist.workflows.report import write_report


def write_climate_report(path: str | Path, found: ClimateEvaluation, title: str = "Downscaled fields") -> None:
    """Figures, maps, spectra and calibration of a gridded evaluation. Raises UserError for one at stations."""
    scored = found.scored
    if scored is None:
        raise UserError("a report has maps, and these samples are at stations; take -o for their figures")
    sections = climate_sections(
        found.figures, scored.truth.names, scored.samples, scored.truth.values, scored.coarse.values,
        scored.truth.grid, scored.truth.mask, found.about["factor"], scored.truth.times, found.others,
    )  # fmt: skip
    provenance = {k.removeprefix("sciconsist_"): v for k, v in found.about["origin"].items()}
    provenance |= {"source": found.about["source"], "reference": found.about["reference"], **scored.truth.attributes}
    write_report(path, title=title, sections=sections, provenance=provenance)
