"""`sciconsist benchmark crystals`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sciconsist.cli.options import Json, Model, Quiet, Seed, emit, progress, report


def crystals(
    data: Annotated[str, typer.Option("--data", help="Crystals whose structures are predicted.")] = "mp-20-bt:val",
    steps: Annotated[
        str, typer.Option("--steps", help="Network evaluations: 1,4,8,16; with a boost of the velocity: 8:6.")
    ] = "1,4,8,16",
    guesses: Annotated[int, typer.Option("--guesses", "-k", min=1, help="Guesses a crystal; 5 for k = 5.")] = 1,
    limit: Annotated[int | None, typer.Option("--limit", min=2, help="The first so many crystals.")] = None,
    baselines: Annotated[
        bool, typer.Option(help="Random coordinates and substitution into known crystals too.")
    ] = True,
    p1: Annotated[bool, typer.Option("--p1", help="Every atom free: no positions of known crystals.")] = False,
    groups: Annotated[
        int | None,
        typer.Option("--groups", min=1, help="Instead: how often the so many commonest space groups come out."),
    ] = None,
    model: Model = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="All rows as JSON.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Predict the structures of known crystals from their compositions: match rate, RMSE and cost by evaluations.

    \b
    Example:
      sciconsist benchmark crystals --limit 200
      sciconsist benchmark crystals --data mp-20-bt:test -k 5 -o prediction.json
      sciconsist benchmark crystals --p1
      sciconsist benchmark crystals --groups 50
    """
    from sciconsist.files import check_output

    path = check_output(output, suffixes=(".json",)) if output is not None else None
    from sciconsist.workflows.benchmark_crystals import benchmark_crystals, space_groups, table
    from sciconsist.workflows.evaluate_crystals import KNOWN
    from sciconsist.workflows.models import load_for

    found = load_for("crystals", model)
    if groups is not None:
        with progress("groups", 4 * groups, quiet) as advance:
            emit(space_groups(found, groups, seed=seed, advance=advance), as_json)
        return
    with progress("crystals", None, quiet) as advance:
        options = {"limit": limit, "seed": seed, "known": KNOWN if baselines else None, "p1": p1}
        rows = list(benchmark_crystals(found, data, steps, guesses, **options, advance=advance))  # type: ignore[arg-type]
    result = {"data": data, "seed": seed, "model_sha256": found.card.get("sha256"), "rows": [row.row() for row in rows]}
    report(result, table(rows), path, as_json, quiet)
