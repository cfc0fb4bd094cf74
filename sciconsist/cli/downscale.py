"""`sciconsist downscale`: fine fields from coarse ones."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from sciconsist.cli.options import Device, Json, Model, Output, Quiet, Seed, emit, note, progress


def downscale(
    data: Annotated[str, typer.Argument(metavar="IN", help="NetCDF, GRIB, Zarr, a folder or a 'pattern*.nc'.")],
    output: Output,
    factor: Annotated[float | None, typer.Option("--factor", help="Cells this many times finer, 2 to 8.")] = None,
    like: Annotated[Path | None, typer.Option("--like", help="A file whose grid to make.")] = None,
    points: Annotated[
        Path | None, typer.Option("--points", help="Stations: CSV with lat, lon, station, elevation.")
    ] = None,
    members: Annotated[int, typer.Option("--members", min=1, help="Realizations.")] = 16,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Network evaluations a member gets.")] = 2,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            help="flow (a model); nearest, bilinear, bicubic, lapse; with --reference: delta, quantile, regression, "
            "bootstrap.",
        ),
    ] = "flow",
    model: Model = None,
    variables: Annotated[str | None, typer.Option("--variables", help="Some of the file's, as t2m,tp.")] = None,
    reference: Annotated[str | None, typer.Option("--reference", help="Fine data of the past to learn from.")] = None,
    orography: Annotated[
        Path | None, typer.Option("--orography", help="Height of the fine ground; ERA5's at 0.25 degrees if left out.")
    ] = None,
    bias_correct: Annotated[
        str | None, typer.Option("--bias-correct", help="Quantile-map the input to this data of its own years first.")
    ] = None,
    conserve: Annotated[
        bool, typer.Option("--conserve/--no-conserve", help="Means over coarse cells are the input's.")
    ] = True,
    tile: Annotated[int, typer.Option("--tile", min=8, help="Cells a side at a time; memory and speed only.")] = 256,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes on this machine.")] = 1,
    scheduler: Annotated[str | None, typer.Option("--scheduler", help="A Dask cluster: tcp://host:8786.")] = None,
    seed: Seed = 0,
    device: Device = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make an ensemble of fine fields of reanalysis or model output, as CF NetCDF (.nc) or Zarr (.zarr).

    Names, units, dimension names, order and calendar stay those of the input; `realization` comes first.

    \b
    Example:
      sciconsist downscale era5_1deg.nc -o fine.nc --factor 4 --members 16 --steps 2
      sciconsist downscale coarse.nc -o stations.nc --points stations.csv --variables t2m
      sciconsist downscale coarse.nc -o fine.nc --factor 4 --method bootstrap --reference 'era5_*.nc'
    """
    from sciconsist.errors import UserError
    from sciconsist.files import check_output

    if output.suffix == ".zarr" and output.is_dir():
        if not any((output / mark).exists() for mark in ("zarr.json", ".zgroup")):
            raise UserError(f"{output}: is a folder and no Zarr store; choose another -o")
        path = output
    else:
        path = check_output(output, suffixes=(".nc", ".zarr"))
    if workers > 1 and scheduler:
        raise UserError("--workers and --scheduler: give one of them")
    from sciconsist.workflows.downscale import command_line, plan
    from sciconsist.workflows.tile_runs import to_file

    begin = time.monotonic()
    made = plan(
        data, factor, like=like, points=points, members=members, steps=steps, seed=seed, method=method, model=model,
        variables=None if variables is None else [v.strip() for v in variables.split(",") if v.strip()],
        reference=reference, orography=orography, bias_correct=bias_correct, conserve=conserve, tile=tile,
        device=device, command=command_line(),
    )  # fmt: skip
    for line in made.notes:
        note(line, quiet)
    try:
        with progress("tiles", len(made.tiles) * len(made.steps), quiet) as advance:
            figures = to_file(made, path, workers=workers, scheduler=scheduler, progress=advance)
    except KeyboardInterrupt:
        if path.exists():
            note(f"stopped: {path} has the blocks finished so far, the rest is missing", quiet)
        raise
    emit({**figures, "seconds": round(time.monotonic() - begin, 2), "seed": seed, "output": str(path)}, as_json)
