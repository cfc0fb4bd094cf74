"""`sciconsist generate crystals`: new crystals, predicted structures, defects in a host."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from sciconsist.cli.options import (
    BatchSize,
    Device,
    Json,
    Model,
    Output,
    Quiet,
    Seed,
    emit,
    note,
    output_folder,
    progress,
)


def crystals(
    output: Output,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many.")] = 100,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Network evaluations a crystal gets.")] = 8,
    elements: Annotated[str | None, typer.Option("--elements", help="The only elements allowed: Li,Fe,P,O.")] = None,
    formula: Annotated[str | None, typer.Option("--formula", help="The reduced formula: LiFePO4.")] = None,
    atoms: Annotated[
        str | None, typer.Option("--atoms", help="Atoms in the cell: a number, 14, or a range, 4:20.")
    ] = None,
    space_group: Annotated[int | None, typer.Option("--space-group", help="International number, 1 to 230.")] = None,
    p1: Annotated[bool, typer.Option("--p1", help="Every atom free: no positions of known crystals.")] = False,
    properties: Annotated[
        list[str] | None,
        typer.Option("--property", help="e_above_hull=0 (eV/atom), band_gap=1:2 (eV); may be given again."),
    ] = None,
    charge_balanced: Annotated[
        bool, typer.Option("--charge-balanced", help="Keep compositions whose oxidation states can add up to zero.")
    ] = False,
    host: Annotated[Path | None, typer.Option("--from", help="A host crystal (CIF, POSCAR, ...) to change.")] = None,
    supercell: Annotated[str | None, typer.Option("--supercell", help="Repeat the host: 2,2,1.")] = None,
    replace: Annotated[
        list[str] | None, typer.Option("--replace", help="In the host: Na=Li (all of it), Na=Li:1 (one atom).")
    ] = None,
    vacancy: Annotated[list[str] | None, typer.Option("--vacancy", help="In the host: remove O, or two, O:2.")] = None,
    free_sites: Annotated[
        str | None, typer.Option("--free-sites", help="Sites of the host to place anew, from 0: 3,4.")
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="The samples as they come, nothing dropped: for scoring.")] = False,
    model: Model = None,
    seed: Seed = 0,
    batch_size: BatchSize = None,
    device: Device = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw crystals into a folder: 00000.cif ... in P1 as generated, and symmetrised copies in symmetrized/.

    Every crystal has plausible distances and is no duplicate; what was rejected is counted. --raw keeps every
    sample. Elements, formula and the fixed sites of a host hold exactly. Atoms start on the positions that known
    crystals of like elements occupy, and keep that space group; --p1 leaves every atom free.

    \b
    Example:
      sciconsist generate crystals -n 100 --steps 8 -o xtals
      sciconsist generate crystals -n 20 --formula LiFePO4 --atoms 14 -o lfp
      sciconsist generate crystals -n 20 --elements Li,Fe,P,O --space-group 62 -o sg62
      sciconsist generate crystals -n 5 --from nacl.cif --supercell 2,2,2 --replace Na=Li:1 -o doped
    """
    from sciconsist.errors import PartlyDone

    with output_folder(output) as folder:
        from sciconsist.workflows.crystal_output import Folder
        from sciconsist.workflows.crystal_requests import Wish
        from sciconsist.workflows.generate_crystals import Crystals
        from sciconsist.workflows.models import load_for

        wish = Wish(
            elements=None if elements is None else elements.split(","), formula=formula, atoms=atoms,
            space_group=space_group, properties=_ranges(properties), charge_balanced=charge_balanced, p1=p1,
            host=_host(host, supercell, replace or [], vacancy or [], free_sites),
        )  # fmt: skip
        request = Crystals(load_for("crystals", model), wish, steps, seed, raw, batch_size, device)
        begin = time.monotonic()
        written = Folder(folder)
        try:
            with progress("crystals", count, quiet) as advance:
                for structure in request.take(count, advance):
                    written.add(structure)
        except KeyboardInterrupt:
            note(f"stopped: {folder} has the {written.count} crystals finished so far", quiet)
            raise
        written.finish()
    figures = {**request.counts.figures(), "seconds": round(time.monotonic() - begin, 2), "steps": steps,
               "seed": seed, "raw": raw, "output": str(folder)}  # fmt: skip
    _report(figures, as_json, quiet)
    if written.count < count:
        raise PartlyDone(
            f"{folder}: {written.count} of {count} crystals after {request.counts.drawn} samples: there seem to be "
            f"no more different ones; rejected: {_reasons(figures['rejected_why'])}"
        )


def _host(path: Path | None, cells: str | None, replace: list[str], vacancy: list[str], free: str | None) -> Any:
    from sciconsist.errors import UserError

    if path is None:
        if cells or replace or vacancy or free:
            raise UserError("--supercell, --replace, --vacancy and --free-sites change a host: give one with --from")
        return None
    from sciconsist.domains.crystals.files import read_file
    from sciconsist.domains.crystals.hosts import Host, parse_change, supercell

    records = read_file(path)
    if len(records) != 1:
        raise UserError(f"{path}: found {len(records)} crystals, expected one host")
    structure = records[0].structure
    if cells is not None:
        structure = supercell(structure, _integers("--supercell", cells))
    changes = [*(parse_change(t) for t in replace), *(parse_change(t, vacancy=True) for t in vacancy)]
    return Host(structure, path.name, changes, [] if free is None else _integers("--free-sites", free))


def _integers(option: str, text: str) -> list[int]:
    from sciconsist.errors import UserError

    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"{option} {text}: expected whole numbers with commas between them") from None


def _ranges(settings: list[str] | None) -> dict[str, tuple[float, float]]:
    """band_gap=1:2 as {"band_gap": (1, 2)}."""
    from sciconsist.errors import UserError

    found: dict[str, tuple[float, float]] = {}
    for setting in settings or []:
        name, _, value = setting.partition("=")
        low, _, high = value.partition(":")
        try:
            found[name.strip()] = (float(low), float(high or low))
        except ValueError:
            raise UserError(f"--property {setting}: expected e_above_hull=0 or band_gap=1:2") from None
    return found


def _report(figures: dict[str, Any], as_json: bool, quiet: bool) -> None:
    if as_json:
        emit(figures, True)
        return
    why = f", rejected {figures['rejected']} ({_reasons(figures['rejected_why'])})" if figures["rejected"] else ""
    note(f"{figures['output']}: {figures['written']} written{why}, {figures['seconds']} s", quiet)


def _reasons(why: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in why.items()) or "none"
