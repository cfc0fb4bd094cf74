"""`sciconsist screen ...`: candidates in, a ranked table and a report out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sciconsist.cli.options import Json, Model, Output, Quiet, Seed, emit, note, output_folder, progress


def crystals(
    output: Output,
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="DIR|CIFs", help="Folders or files: CIF, POSCAR, extxyz, JSON.")
    ] = None,
    generate: Annotated[
        int | None, typer.Option("--generate", min=1, help="Draw so many crystals first, into OUTPUT/generated.")
    ] = None,
    elements: Annotated[
        str | None, typer.Option("--elements", help="With --generate: elements that may occur, Li,Fe,P,O.")
    ] = None,
    formula: Annotated[str | None, typer.Option("--formula", help="With --generate: the reduced formula.")] = None,
    gen_steps: Annotated[
        int, typer.Option("--steps", min=1, help="With --generate: network evaluations a crystal gets.")
    ] = 8,
    model: Model = None,
    relaxer: Annotated[
        str, typer.Option("--relaxer", help="chgnet, none, or an ASE calculator by import path.")
    ] = "chgnet",
    energies: Annotated[
        str | None,
        typer.Option("--energies", help="Scale of the relaxer's energies: mp2020, raw (MP2020 is added) or own."),
    ] = None,
    hull: Annotated[
        Path | None, typer.Option("--hull", help="Your entries (pymatgen, JSON) in place of the shipped hull.")
    ] = None,
    ehull: Annotated[float, typer.Option("--ehull", help="Keep up to so many eV/atom above the hull.")] = 0.1,
    reference: Annotated[
        str | None, typer.Option("--reference", help="Known crystals: mp-20-bt:train, a file or a folder.")
    ] = None,
    any_charge: Annotated[
        bool, typer.Option("--any-charge", help="Keep what SMACT finds no neutral oxidation states for.")
    ] = False,
    prefilter: Annotated[
        float, typer.Option("--prefilter", min=0, help="Do not relax what starts over so many eV/atom above the hull.")
    ] = 2.0,
    fmax: Annotated[float, typer.Option("--fmax", min=1e-6, help="Relax until no force is over it, eV/Å.")] = 0.05,
    max_steps: Annotated[int, typer.Option("--max-steps", min=1, help="Relaxation steps at most.")] = 200,
    deadline: Annotated[float, typer.Option("--deadline", min=1, help="Seconds a candidate may take.")] = 600.0,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Processes; one a core.")] = None,
    scheduler: Annotated[
        str | None, typer.Option("--scheduler", help="A Dask scheduler's address: compute on its workers.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the screen in the output folder.")] = False,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check, relax and rank crystals: validity, charge, CHGNet energy, hull, duplicates, novelty, symmetry.

    The folder gets ranked.csv, relaxed/*.cif, symmetrized/*.cif, summary.json and report.html. What crashes, hangs
    or diverges is a row of the table and a line of errors.jsonl (exit status 3). The shipped hull is partial.

    \b
    Example:
      sciconsist screen crystals --generate 200 --elements Li,Fe,P,O -o screened
      sciconsist screen crystals generated/ -o screened --ehull 0.05
      sciconsist screen crystals *.cif -o screened --relaxer ase.calculators.emt.EMT --workers 4
      sciconsist screen crystals generated/ -o screened --scheduler tcp://node1:8786 --resume
    """
    from sciconsist.errors import PartlyDone, UserError

    if not paths and not generate:
        raise UserError("no crystals to screen: name files or folders, or draw some with --generate 200")
    if (elements or formula) and not generate:
        raise UserError("--elements and --formula are for crystals to be drawn: add --generate 200")
    from sciconsist.domains.crystals.screening import Settings
    from sciconsist.files import check_output
    from sciconsist.workflows.screen_materials import ScreenRequest, draw_candidates, read_candidates, scale_for, screen

    folder = check_output(output, "folder")
    settings = Settings(relaxer, scale_for(relaxer, energies), not any_charge, prefilter, fmax, max_steps)
    request = ScreenRequest(settings, hull, ehull, reference, deadline, workers, scheduler)
    try:
        if generate:
            wish = {"elements": elements.split(",") if elements else None, "formula": formula}
            with progress("drawing", generate, quiet) as advance:
                drawn = draw_candidates(
                    folder / "generated", generate, gen_steps, seed, model, wish, resume=resume, advance=advance
                )  # fmt: skip
            paths = [*(paths or []), drawn]
        candidates = read_candidates(paths or [])
        with progress("candidates", len(candidates), quiet) as advance:
            summary = screen(candidates, folder, request, resume=resume, advance=advance)
    except KeyboardInterrupt:
        note(f"stopped: what is finished is in {folder}; the same command with --resume goes on", quiet)
        raise
    _report(summary, folder, as_json, quiet)
    if summary["failed"]:
        raise PartlyDone(f"{summary['failed']} of {summary['candidates']} failed, see {folder / 'errors.jsonl'}")


def _report(summary: dict[str, Any], folder: Path, as_json: bool, quiet: bool) -> None:
    rows = summary.pop("rows")
    if as_json:
        emit(summary, True)
        return
    for row in rows[:20]:
        if row["status"] == "passed":
            above = row.get("e_above_hull")
            energy = f"{above:>8.3f}" if above is not None else f"{'-':>8}"
            new = "known" if row["known_as"] else "new" if summary["reference"] else ""
            typer.echo(
                f"{row['rank']:>4} {row['formula']:<16}{energy} {row['space_group'] or '-':<10} {new:<6}{row['name']}"
            )
    fell = ", ".join(f"{count} {stage}" for stage, count in summary["fell"].items()) or "none"
    note(f"{summary['passed']} of {summary['candidates']} left (fell: {fell}); {folder / 'report.html'}", quiet)
    if summary["hull"] and summary["hull"]["partial"]:
        note("the hull is partial: energies above it (eV/atom, third column) are too low", quiet)
    if summary["unknown_systems"]:
        note(f"{len(summary['unknown_systems'])} systems in which the hull has no compound; see the report", quiet)


def molecules(
    path: Annotated[Path, typer.Argument(metavar="FILE.sdf", help="Molecules in 3D, such as generate writes.")],
    output: Output,
    filters: Annotated[
        str, typer.Option("--filters", help="Alerts to label: default (all), none, or some of pains,brenk,nih.")
    ] = "default",
    novel_to: Annotated[
        Path | None, typer.Option("--novel-to", help="Your library as SMILES (.smi or .csv, .gz too).")
    ] = None,
    relax: Annotated[str, typer.Option("--relax", help="gfn2 relaxes every molecule with GFN2-xTB; none.")] = "none",
    picks: Annotated[int, typer.Option("--picks", min=0, help="How many diverse ones to pick.")] = 50,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes.")] = 1,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Look through molecules: alerts, synthesis, drug-likeness, duplicates, novelty, diversity; ranked.

    The folder gets ranked.csv, ranked.sdf, picks.sdf, summary.json and report.html. Alerts label a molecule and do
    not judge it. Records that cannot be read are listed in errors.jsonl (exit status 3).

    \b
    Example:
      sciconsist screen molecules mols.sdf -o screened
      sciconsist screen molecules mols.sdf -o screened --novel-to library.smi --relax gfn2 --workers 2
    """
    from sciconsist.errors import PartlyDone

    with output_folder(output) as folder:
        from sciconsist.workflows.screen_molecules import read_texts, screen_molecules

        total = len(read_texts(path)[0])
        with progress("screened", total, quiet) as advance:
            found = screen_molecules(
                path, folder, filters=filters, novel_to=novel_to, relax=relax, picks=picks, workers=workers, seed=seed,
                progress=advance,
            )  # fmt: skip
    if as_json:
        emit(found.summary, True)
    else:
        for row in [r for r in found.rows if r.status == "unique"][:10]:
            labels = f"  {len(row.alerts)} alerts" if row.alerts else ""
            typer.echo(f"{row.score:.3f}  {row.smiles}{labels}")
        note(f"{found.summary.get('unique', 0)} unique of {found.summary['records']} records in {folder}", quiet)
    if found.errors:
        raise PartlyDone(f"{len(found.errors)} of {total} records could not be read, see {folder / 'errors.jsonl'}")
