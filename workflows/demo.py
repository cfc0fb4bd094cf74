"""The demo: everything the package does, small, offline, without data."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rdkit import Chem

from sciconsist import __version__
from sciconsist.domains.molecules.metrics import evaluate
from sciconsist.domains.molecules.report import molecule_sections
from sciconsist.errors import UserError
from sciconsist.files import atomic_path
from sciconsist.workflows.demo_climate import climate
from sciconsist.workflows.demo_crystals import crystals
from sciconsist.workflows.generate import Molecules
from sciconsist.workflows.models import load_for
from sciconsist.workflows.molecule_output import write_stream
from sciconsist.workflows.report import molecule_provenance, write_report

STEPS = 4


def demo(
    folder: str | Path,
    seed: int = 0,
    n: int = 64,
    batch_size: int | None = None,
    progress: Callable[[int], None] = lambda n: None,
) -> dict[str, Any]:
    """Write molecules.sdf, crystals/, downscaled.nc, report.html and summary.json to a folder, made if need be; the summary."""
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    summary: dict[str, Any] = {"sciconsist": __version__, "seed": seed, "output": str(folder)}
    model, begin = load_for("molecules", None), time.monotonic()
    next(Molecules(model, steps=STEPS, batch_size=1).take(1))  # compiles, the first time after an installation
    ready = time.monotonic()
    request = Molecules(model, steps=STEPS, seed=seed, batch_size=batch_size)
    made: list[Chem.Mol] = []

    def keep() -> Any:
        for mol in request.take(n, progress):
            made.append(mol)
            yield mol

    write_stream(folder / "molecules.sdf", keep())
    seconds = time.monotonic() - ready
    figures = evaluate(made)
    summary["molecules"] = {
        **request.counts.figures(),
        "steps": STEPS,
        "network_evaluations_a_sample": request.plan.steps,
        "seconds": round(seconds, 2),
        "seconds_to_get_ready": round(ready - begin, 2),
        "model": request.model.card.get("name"),
        "valid_from_distances": figures["validity"]["strict_distance"]["valid"],
        "valid_from_bonds": figures["validity"]["strict_bonds"]["valid"],
        "molecule_stable": figures["stability"]["molecule_stable"],
        "licence_of_training_data": request.model.card.get("data_licence"),
    }
    sections = molecule_sections(made, figures)
    if (found := crystals(folder, seed)) is not None:
        sections += found.pop("sections")
        summary["crystals"] = found
    if (fields := climate(folder, seed)) is not None:
        sections += fields.pop("sections")
        summary["climate"] = fields
    write_report(
        folder / "report.html", title="sciconsist demo", sections=sections, provenance=molecule_provenance(made)
    )  # fmt: skip
    with atomic_path(folder / "summary.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return summary


def check_space(folder: Path, megabytes: int = 20) -> None:
    """Raises UserError when the disk has no room for the demo."""
    parent = folder if folder.exists() else folder.parent
    if shutil.disk_usage(parent).free < megabytes * 1e6:
        raise UserError(f"{folder}: less than {megabytes} MB free; choose another -o")
