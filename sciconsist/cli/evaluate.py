"""`sciconsist evaluate ...`: scores beside those of real data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sciconsist.cli.options import Json, Quiet, Seed, emit, note, plain, progress


def molecules(
    samples: Annotated[Path, typer.Argument(help="An SDF file; take generate --raw to score a model.")],
    reference: Annotated[
        str, typer.Option("--reference", help="Real molecules: qm9-gfn2[:test|:val], or an SDF file.")
    ] = "qm9-gfn2:test",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="All figures as JSON.")] = None,
    posebusters: Annotated[int, typer.Option("--posebusters", min=0, help="Samples PoseBusters looks at.")] = 0,
    energy: Annotated[int, typer.Option("--energy", min=0, help="Samples relaxed with GFN2-xTB.")] = 0,
    told: Annotated[
        int, typer.Option("--told", min=0, help="Samples whose requested properties are measured again, by GFN2-xTB.")
    ] = 200,
    html: Annotated[Path | None, typer.Option("--html", help="A report page to write.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=10, help="Reference molecules at most.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score molecules: stability, three readings of validity, distances to real molecules.

    The ceiling beside each figure is what the reference molecules score. Every sample is in the denominator.

    \b
    Example:
      sciconsist evaluate molecules mols.sdf --reference qm9-gfn2:test -o report.json
    """
    from sciconsist.files import atomic_path, check_output

    targets = [check_output(path, suffixes=(end,)) for path, end in ((output, ".json"), (html, ".html")) if path]
    from sciconsist.workflows.evaluate import evaluate_molecules

    found = evaluate_molecules(
        samples,
        reference,
        posebusters=posebusters,
        energy=energy,
        told=told,
        limit=limit,
        say=lambda text: note(text, quiet),
    )
    result = found.to_json()
    if output is not None:
        with atomic_path(output) as temporary:
            temporary.write_text(json.dumps(plain(result), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    if html is not None:
        from sciconsist.datasets.sdf import read_sdf
        from sciconsist.workflows.report import write_molecule_report

        write_molecule_report(html, [r.mol for r in read_sdf(samples, sanitize=False)], result)
    if as_json:
        emit(result, True)
        return
    typer.echo(f"{'':<44}{'samples':>12}{'ceiling':>12}")
    for name, value, best in found.table():
        typer.echo(f"{name:<44}{_number(value)}{_number(best)}")
    for path in targets:
        note(f"wrote {path}", quiet)


def _number(value: float | None) -> str:
    return f"{'-':>12}" if value is None else f"{value:>12.4g}"


def crystals(
    samples: Annotated[Path, typer.Argument(help="A folder or file of structures; take generate --raw.")],
    reference: Annotated[
        str, typer.Option("--reference", help="Real crystals: mp-20-bt[:test|:val], a CSV, a file or a folder.")
    ] = "mp-20-bt:test",
    known: Annotated[
        str | None, typer.Option("--known", help="What novelty is against; mp-20-bt:train where it is here.")
    ] = None,
    match: Annotated[
        bool, typer.Option("--match", help="The samples predict the reference: match rate, and baselines beside it.")
    ] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="All figures as JSON.")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="A report page to write.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=10, help="Reference crystals at most.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score crystals: validity, uniqueness, novelty, distances to real ones, match rate; all with its tolerances.

    The ceiling beside each figure is what the reference crystals score. Every sample is in the denominator, one whose
    file cannot be read too.

    \b
    Example:
      sciconsist evaluate crystals generated/ --reference mp-20-bt:test -o report.json --html report.html
      sciconsist evaluate crystals predicted/ --reference mp-20-bt:test --match -o report.json
    """
    from sciconsist.files import atomic_path, check_output

    targets = [check_output(path, suffixes=(end,)) for path, end in ((output, ".json"), (html, ".html")) if path]
    from sciconsist.workflows.evaluate_crystals import evaluate_crystals

    note(f"scoring against {reference}", quiet)
    with progress("crystals", None, quiet) as advance:
        found = evaluate_crystals(
            samples, reference, known=known, match=match, limit=limit, seed=seed, advance=advance
        )  # fmt: skip
    result = found.to_json()
    if output is not None:
        with atomic_path(output) as temporary:
            temporary.write_text(json.dumps(plain(result), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    if html is not None:
        from sciconsist.workflows.report import write_crystal_evaluation

        write_crystal_evaluation(html, found)
    if as_json:
        emit(result, True)
        return
    typer.echo(f"{'':<44}{'samples':>12}{'ceiling':>12}")
    for name, value, best in found.table():
        typer.echo(f"{name:<44}{_number(value)}{_number(best)}")
    for path in targets:
        note(f"wrote {path}", quiet)


def climate(
    samples: Annotated[Path, typer.Argument(help="A downscaled file: NetCDF or Zarr, with realization.")],
    reference: Annotated[str, typer.Option("--reference", help="Fine truth: a file, or era5-andes:val and the like.")],
    training: Annotated[
        str | None, typer.Option("--training", help="Fine data of a past period: more baselines, as era5-andes:train.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="All figures as JSON.")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="A report page to write.")] = None,
    factor: Annotated[int | None, typer.Option("--factor", min=2, help="Of the samples; their file says it.")] = None,
    baselines: Annotated[bool, typer.Option("--baselines/--no-baselines", help="Score the baselines, too.")] = True,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score a downscaled ensemble: CRPS, calibration, spectra, extremes, conservation, beside the baselines.

    The baselines start from the block means of the truth. Every area mean is weighted by cosine of latitude.

    \b
    Example:
      sciconsist evaluate climate fine.nc --reference truth.nc -o report.json --html report.html
      sciconsist evaluate climate fine.nc --reference era5-andes:val --training era5-andes:train
    """
    from sciconsist.files import atomic_path, check_output

    targets = [check_output(path, suffixes=(end,)) for path, end in ((output, ".json"), (html, ".html")) if path]
    from sciconsist.workflows.evaluate_climate import evaluate_climate

    found = evaluate_climate(
        samples, reference, training=training, factor=factor, seed=seed, with_baselines=baselines
    )  # fmt: skip
    result = found.to_json()
    if output is not None:
        with atomic_path(output) as temporary:
            temporary.write_text(json.dumps(plain(result), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    if html is not None:
        from sciconsist.workflows.climate_report import write_climate_report

        write_climate_report(html, found)
    if as_json:
        emit(result, True)
        return
    if found.scored is None:
        emit(dict(found.figures["samples"]), False)
    for name in found.scored.truth.names if found.scored is not None else ():
        typer.echo(f"{name:<24}" + "".join(f"{m:>12}" for m in found.figures))
        for figure, values in found.table(name):
            typer.echo(f"  {figure:<22}" + "".join(_number(v) for v in values))
    for path in targets:
        note(f"wrote {path}", quiet)


def conformers(
    samples: Annotated[Path, typer.Argument(help="An SDF file of generate conformers.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="All figures as JSON.")] = None,
    starts: Annotated[
        int, typer.Option("--starts", min=1, help="Embedded conformers that GFN2-xTB relaxes for the reference.")
    ] = 30,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Molecules at most.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score conformers against GFN2-xTB's own: coverage and matching, beside as many of ETKDG + MMFF94.

    \b
    Example:
      sciconsist generate conformers 'C[C@H](O)CC=O' -n 20 -o confs.sdf
      sciconsist evaluate conformers confs.sdf -o confs.json
    """
    from sciconsist.cli.options import progress
    from sciconsist.files import atomic_path, check_output

    path = check_output(output, suffixes=(".json",)) if output is not None else None
    from sciconsist.workflows.evaluate_conformers import FIGURES, evaluate_conformers

    with progress("molecules", None, quiet) as advance:
        found = evaluate_conformers(samples, starts=starts, limit=limit, seed=seed, progress=advance)
    if path is not None:
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(plain(found), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    if as_json:
        emit(found, True)
        return
    typer.echo(f"{'':<24}{'samples':>12}{'ETKDG+MMFF':>12}")
    for name in FIGURES:
        typer.echo(f"{name:<24}{_number(found['samples'][name])}{_number(found['etkdg_mmff94'][name])}")
    typer.echo(f"{'stereo_right':<24}{_number(found['stereo_right'])}")
