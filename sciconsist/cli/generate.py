"""`sciconsist generate ...`: new molecules, and conformers of given ones."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from sciconsist.cli.options import BatchSize, Device, Json, Model, Output, Quiet, Seed, emit, note, progress

Count = Annotated[int, typer.Option("--count", "-n", min=1, help="How many.")]
Steps = Annotated[int, typer.Option("--steps", min=1, help="Network evaluations a sample gets, all counted.")]


def molecules(
    output: Output,
    count: Count = 100,
    steps: Steps = 4,
    atoms: Annotated[
        str | None, typer.Option("--atoms", help="Heavy atoms a molecule has: a number, 9, or a range, 5:9.")
    ] = None,
    elements: Annotated[
        str | None,
        typer.Option("--elements", help="All elements allowed: C,N,O,H (without H: no hydrogens)."),
    ] = None,
    every_element: Annotated[
        bool, typer.Option("--every-element", help="With --elements: each of them in every molecule.")
    ] = False,
    formula: Annotated[str | None, typer.Option("--formula", help="Every atom, hydrogens too: C7H10O2.")] = None,
    wanted: Annotated[
        list[str] | None,
        typer.Option("--property", help="A value, gap=6.5, or a range, logp=1:2; may be given again."),
    ] = None,
    guidance: Annotated[
        float, typer.Option("--guidance", help="How strongly properties steer; 1 is plain, above it jumps cost twice.")
    ] = 1.0,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Measure each (GFN2-xTB, .1 s): keep to every range; of 8, keep the nearest to a value."
        ),
    ] = False,
    scaffold: Annotated[
        Path | None, typer.Option("--scaffold", help="An SDF file: its atoms stay where they are, others are added.")
    ] = None,
    linker: Annotated[
        str | None, typer.Option("--linker", help="SDF files, a.sdf,b.sdf: fragments to join where they are.")
    ] = None,
    novel_to: Annotated[
        Path | None,
        typer.Option(
            "--novel-to", help="SMILES (.smi or .csv, .gz too) to stay away from: none comes out (--raw: some may)."
        ),
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="The samples as they come, nothing dropped: for scoring.")] = False,
    model: Model = None,
    seed: Seed = 0,
    batch_size: BatchSize = None,
    device: Device = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw molecules into an SDF file, hydrogens explicit, each with where it comes from.

    Every molecule sanitises in RDKit, is one fragment, no radical and no duplicate; what was rejected is
    counted. --raw keeps every sample.

    \b
    Example:
      sciconsist generate molecules -n 1000 --steps 4 -o mols.sdf
      sciconsist generate molecules -n 50 --atoms 5:7 --elements C,N,O,H -o small.sdf
      sciconsist generate molecules -n 50 --formula C7H10O2 -o isomers.sdf
      sciconsist generate molecules -n 50 --steps 12 --property gap=5:7 --check -o gap.sdf
      sciconsist generate molecules -n 20 --steps 16 --scaffold core.sdf -o grown.sdf
    """
    from sciconsist.errors import PartlyDone
    from sciconsist.files import check_output

    path = check_output(output, suffixes=(".sdf",)) if not _is_device(output) else output
    from sciconsist.workflows.generate import Molecules
    from sciconsist.workflows.models import load_for
    from sciconsist.workflows.molecule_output import write_stream

    avoid = _smiles(novel_to) if novel_to is not None else None
    request = Molecules(
        load_for("molecules", model), steps=steps, seed=seed, raw=raw, atoms=atoms,
        elements=None if elements is None else elements.split(","), batch_size=batch_size, device=device,
        novel_to=avoid, every_element=every_element, properties=_wanted(wanted), guidance=guidance, check=check,
        formula=formula, scaffold=scaffold,
        linker=None if linker is None else linker.split(","),
    )  # fmt: skip
    begin = time.monotonic()
    try:
        with progress("molecules", count, quiet) as advance:
            write_stream(path, request.take(count, advance))
    except KeyboardInterrupt:
        if request.counts.written:
            note(f"stopped: {path} has the molecules finished so far", quiet)
        raise
    figures = {**request.counts.figures(), "seconds": round(time.monotonic() - begin, 2), "steps": steps,
               "network_evaluations": request.plan.steps, "seed": seed, "raw": raw, "output": str(path)}  # fmt: skip
    _report(figures, as_json, quiet)
    if request.counts.written < count:
        raise PartlyDone(
            f"{path}: {request.counts.written} of {count} molecules after {request.counts.drawn} samples: "
            f"the request leaves too few different ones; rejected: {_reasons(figures['rejected_why'])}"
        )


def conformers(
    what: Annotated[str, typer.Argument(metavar="SMILES|FILE", help="A SMILES, or a .smi, .csv or .sdf file.")],
    output: Output,
    count: Count = 50,
    steps: Steps = 8,
    model: Model = None,
    seed: Seed = 0,
    batch_size: BatchSize = None,
    device: Device = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw 3D conformers of given molecules into an SDF file; the graph and given stereochemistry are kept.

    Stereocentres that the SMILES leaves open may come out either way. What cannot be made is listed in
    OUTPUT.errors.jsonl (exit status 3).

    \b
    Example:
      sciconsist generate conformers 'C[C@H](O)CC=O' -n 50 -o confs.sdf
    """
    from sciconsist.errors import PartlyDone
    from sciconsist.files import check_output

    path = check_output(output, suffixes=(".sdf",)) if not _is_device(output) else output
    from sciconsist.workflows.conformers import Conformers, read_requests, write_errors
    from sciconsist.workflows.models import load_for
    from sciconsist.workflows.molecule_output import write_stream

    requests = read_requests(what)
    job = Conformers(load_for("molecules", model), steps=steps, seed=seed, batch_size=batch_size, device=device)
    begin = time.monotonic()
    with progress("conformers", count * len(requests), quiet) as advance:
        write_stream(path, job.take_all(requests, count, advance))
    figures = {"molecules": len(requests), **job.figures(), "seconds": round(time.monotonic() - begin, 2),
               "steps": steps, "seed": seed, "output": str(path)}  # fmt: skip
    _report(figures, as_json, quiet)
    errors = write_errors(path, job.errors)
    if job.errors:
        raise PartlyDone(f"{len(job.errors)} of {len(requests)} molecules are not complete, see {errors}")


def _report(figures: dict[str, Any], as_json: bool, quiet: bool) -> None:
    """Figures on stdout as JSON when asked; else one line of them on stderr."""
    if as_json:
        emit(figures, True)
        return
    rejected = f", rejected {figures['rejected']}" if figures.get("rejected") else ""
    why = f" ({_reasons(figures['rejected_why'])})" if rejected else ""
    note(f"{figures['output']}: {figures['written']} written{rejected}{why}, {figures['seconds']} s", quiet)


def _reasons(why: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in why.items()) or "none"


def _smiles(path: Path) -> list[str]:
    from sciconsist.datasets.builder import read_smiles

    return [text for _, text in read_smiles(path)]


def _wanted(settings: list[str] | None) -> dict[str, str]:
    """gap=6.5 and logp=1:2 as a dict; UserError for anything else."""
    from sciconsist.errors import UserError

    found: dict[str, str] = {}
    for setting in settings or ():
        name, equals, value = (part.strip() for part in setting.partition("="))
        if not (name and equals and value) or name in found:
            raise UserError(f"--property {setting}: expected each property once, as gap=6.5 or gap=5:7")
        found[name] = value
    return found


def _is_device(path: Path) -> bool:
    """/dev/stdout, a pipe: any name will do."""
    return path.exists() and not (path.is_file() or path.is_dir())
