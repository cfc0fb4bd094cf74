"""`sciconsist benchmark ...`: one function a domain, which calls `sciconsist.workflows.benchmark_<domain>`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sciconsist.cli.options import Json, Quiet, Seed, emit, note, progress, report


def core(
    output: Annotated[Path, typer.Option("--output", "-o", help="A folder; a run in it goes on.")],
    recipes: Annotated[str | None, typer.Option("--recipes", help="Some recipes: lsd,ect,psd.")] = None,
    targets: Annotated[str | None, typer.Option("--targets", help="Some targets: gaussians8,torus.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=20, help="Training steps a run (400).")] = None,
    stress: Annotated[bool, typer.Option(help="Train once more at a high rate and a small batch.")] = True,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Average over so many seeds, from --seed on.")] = 1,
    warm: Annotated[bool, typer.Option("--warm", help="Begin every recipe with flow matching's weights.")] = False,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train every recipe on seven small targets with known answers, 400 steps each unless --steps says.

    A quarter of an hour of one core a seed; on a shared one as much longer.

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
    total = len(list(jobs(names, places, stress))) + (seeds - 1) * len(list(jobs(names, places, False)))
    with progress("runs", total, quiet) as advance:
        rows = benchmark_core(
            folder, recipes=names, targets=places, steps=steps or STEPS, stress=stress, seeds=range(seed, seed + seeds),
            warm=warm, progress=lambda label: advance(1),
        )  # fmt: skip
    if as_json:
        emit({"rows": rows}, True)
        return
    typer.echo(table(rows))
    note(f"wrote {folder / 'results.jsonl'} and {folder / 'table.md'}", quiet)


def climate(
    cases: Annotated[str | None, typer.Option("--cases", help="Those whose name contains it: 'andes tp'.")] = None,
    members: Annotated[int, typer.Option("--members", min=2, help="Of every ensemble.")] = 16,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Network evaluations of the models.")] = 2,
    limit: Annotated[int | None, typer.Option("--limit", min=2, help="Validation times at most.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="All figures as JSON.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score every method and the models of the package on five cases of real reanalysis, four times finer.

    Needs era5-andes, era5-uk and era5land-kerala; about five minutes on one core.

    \b
    Example:
      sciconsist benchmark climate
      sciconsist benchmark climate --cases 'kerala tp' --steps 4 -o kerala.json
    """
    import json

    from sciconsist.cli.options import plain
    from sciconsist.files import atomic_path, check_output

    path = check_output(output, suffixes=(".json",)) if output is not None else None
    from sciconsist.workflows.benchmark_climate import COLUMNS, benchmark_climate

    rows, case = [], ""
    for row in benchmark_climate(cases, seed=seed, members=members, steps=steps, limit=limit):
        rows.append(row)
        if as_json:
            continue
        if row["case"] != case:
            case = row["case"]
            typer.echo(f"{case:<28}" + "".join(f"{c.replace('_', ' '):>18}" for c in COLUMNS))
        typer.echo(
            f"  {row['method']:<26}" + "".join(f"{row[c]:>18.4g}" if c in row else f"{'-':>18}" for c in COLUMNS)
        )
    if path is not None:
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(plain(rows), indent=1) + "\n", encoding="utf-8")
        note(f"wrote {path}", quiet)
    if as_json:
        emit({"rows": rows}, True)


def molecules(
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Molecules a row.")] = 256,
    model: Annotated[str | None, typer.Option("--model", help="A model's name or file.")] = None,
    formats: Annotated[
        str, typer.Option("--formats", help="Number formats beside float32: bf16,int8,compiled, or none.")
    ] = "bf16,int8,compiled",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="All rows as JSON.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Time molecules on one thread at 1, 2, 4 and 50 steps, by batch size and format, beside RDKit's ETKDG.

    CPU time of everything: network, decoding, hydrogens, SDF. Compiling takes a minute or two by itself.

    \b
    Example:
      sciconsist benchmark molecules
      sciconsist benchmark molecules -n 64 --formats none -o cost.json
    """

    from sciconsist.files import check_output

    path = check_output(output, suffixes=(".json",)) if output is not None else None
    from sciconsist.workflows.benchmark_molecules import benchmark_molecules, check_formats, table
    from sciconsist.workflows.models import load_for

    chosen = check_formats(formats)
    rows = benchmark_molecules(
        load_for("molecules", model), count, seed, chosen,
        tell=lambda cost: note(f"{cost.what} {cost.format}: {cost.cpu_ms:.2f} cpu-ms a molecule", quiet),
    )  # fmt: skip
    result = {"rows": [cost.row() for cost in rows]}
    report(result, table(rows), path, as_json, quiet)
