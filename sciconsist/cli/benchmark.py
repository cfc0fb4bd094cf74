"""`sciconsist benchmark ...`: one function a domain, which calls `sciconsist.workflows.benchmark_<domain>`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sciconsist.cli.options import Json, Quiet, Seed, emit, note, progress


def core(
    output: Annotated[Path, typer.Option("--output", "-o", help="A folder; a run in it goes on.")],
    recipes: Annotated[str | None, typer.Option("--recipes", help="Some recipes: lsd,ect,psd.")] = None,
    targets: Annotated[str | None, typer.Option("--targets", help="Some targets: gaussians8,torus.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=20, help="Training steps a run.")] = None,
    stress: Annotated[bool, typer.Option(help="Train once more at a high rate and a small batch.")] = True,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train every recipe on six small targets with known answers; a quarter of an hour on one core.

    The folder gets results.jsonl, a line a run, and table.md. Call it again to go on after Ctrl-C.

    \b
    Example:
      sciconsist benchmark core -o runs/core
      sciconsist benchmark core -o runs/core --targets gaussians8 --recipes lsd,meanflow --steps 200
    """
    from sciconsist.files import check_output

    folder = check_output(output, "folder")
    from sciconsist.workflows.benchmark_core import STEPS, benchmark_core, choose, jobs, table

    names, places = choose(recipes, targets)
    total = len(list(jobs(names, places, stress)))
    with progress("runs", total, quiet) as advance:

        def tell(label: str) -> None:
            advance(1)

        rows = benchmark_core(
            folder, recipes=names, targets=places, steps=steps or STEPS, stress=stress, seed=seed, progress=tell
        )
    if as_json:
        emit({"rows": rows}, True)
        return
    typer.echo(table(rows))
    note(f"wrote {folder / 'results.jsonl'} and {folder / 'table.md'}", quiet)
