"""`sciconsist benchmark properties`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sciconsist.cli.options import Json, Model, Quiet, Seed, progress, report


def properties(
    names: Annotated[str, typer.Option("--names", help="Properties the model can be told.")] = "gap,dipole",
    data: Annotated[str, typer.Option("--data", help="Molecules whose values are asked for.")] = "qm9-gfn2:val",
    targets: Annotated[int, typer.Option("--targets", min=1, help="Values of each property.")] = 25,
    each: Annotated[int, typer.Option("--each", min=1, help="Molecules for each value.")] = 4,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Network evaluations a sample gets.")] = 8,
    model: Model = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="All rows as JSON.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Ask for molecules with a property and measure them: error of raw samples, of checked ones, of guesses by size.

    \b
    Example:
      sciconsist benchmark properties --targets 8
      sciconsist benchmark properties --names gap,dipole,logp --data qm9-gfn2:test -o told.json
    """
    from sciconsist.files import check_output

    path = check_output(output, suffixes=(".json",)) if output is not None else None
    from sciconsist.workflows.benchmark_properties import benchmark_properties, table
    from sciconsist.workflows.models import load_for

    chosen = [name.strip() for name in names.split(",") if name.strip()]
    found = load_for("molecules", model)
    with progress("molecules", 2 * len(chosen) * targets * each, quiet) as advance:
        rows = list(benchmark_properties(found, chosen, data, targets, each, steps, seed, advance))
    result = {"data": data, "seed": seed, "model_sha256": found.card.get("sha256"), "rows": [row.row() for row in rows]}
    report(result, table(rows), path, as_json, quiet)
