"""`sciconsist data ...`: which data sets are known, where their files are, and building QM9-GFN2."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sciconsist.cli.options import Json, Output, Quiet, Seed, emit, note, progress


def list_data(as_json: Json = False) -> None:
    """List the data sets, their licence, and whether they are on this machine.

    \b
    Example:
      sciconsist data list
    """
    from sciconsist.datasets.registry import DATASETS

    rows = [
        {
            "name": d.name,
            "domain": d.domain,
            "title": d.title,
            "licence": d.licence,
            "here": bool(_here(d.name)),
        }
        for d in DATASETS.values()
    ]
    if as_json:
        emit({"data": rows}, True)
        return
    for row in rows:
        typer.echo(
            f"{row['name']:<16} {row['domain']:<10} {'here' if row['here'] else '-':<5} "
            f"{row['title']} ({row['licence']})"
        )


def get(
    name: Annotated[str, typer.Argument(help="A data set's name, see data list.")],
    as_json: Json = False,
) -> None:
    """Say where a data set's files are on this machine and check them; else how to obtain them.

    Nothing is downloaded: the sets are fetched from their publishers, whose terms you accept there.

    \b
    Example:
      sciconsist data get qm9-gfn2
    """
    from sciconsist.datasets import registry
    from sciconsist.errors import UserError

    data = registry.entry(name)
    files = registry.verify(name)  # raises UserError: what is missing, and where to get it
    if bad := [str(path) for path, good in files.items() if good is False]:
        raise UserError(f"{', '.join(bad)}: not the sha256 we know; get the file again from {data.source}")
    states = {True: "checked", None: "not checked: no sha256 is known"}
    emit(
        {
            "name": data.name, "title": data.title, "licence": data.licence, "citation": data.citation,
            "source": data.source, "files": {str(path): states[good] for path, good in files.items()},
        },
        as_json,
    )  # fmt: skip


def build(
    name: Annotated[str, typer.Argument(help="qm9-gfn2: molecules relaxed with GFN2-xTB.")],
    smiles: Annotated[Path, typer.Option("--smiles", help="A .smi or .csv file (.gz too) of molecules.")],
    output: Output,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes.")] = 1,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="The first so many.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Build a data set from SMILES: ETKDG, MMFF94, GFN2-xTB. Stopped, it goes on when called again.

    \b
    Example:
      sciconsist data build qm9-gfn2 --smiles mine.smi -o mine.npz
    """
    from sciconsist import extras
    from sciconsist.errors import PartlyDone, UserError
    from sciconsist.files import check_output

    if name != "qm9-gfn2":
        raise UserError(f"cannot build {name!r}; expected qm9-gfn2")
    path = check_output(output, suffixes=(".npz",))
    extras.need("tblite", "molecules", "building QM9-GFN2")
    from sciconsist.datasets.builder import build as run
    from sciconsist.datasets.builder import read_smiles

    total = len(read_smiles(smiles)[:limit])
    with progress("molecules", total, quiet) as advance:
        built = run(smiles, path, workers=workers, seed=seed, limit=limit, advance=advance)
    result: dict[str, Any] = {"output": str(path), "molecules": built.molecules, "failed": built.failed,
                              "resumed": built.resumed}  # fmt: skip
    if as_json:
        emit(result, True)
    note(f"{path}: {built.molecules} molecules", quiet)
    if built.failed:
        raise PartlyDone(f"{built.failed} of {total} SMILES were refused, see {path}.errors.jsonl")


def _here(name: str) -> list[Path]:
    from sciconsist.datasets.registry import find
    from sciconsist.errors import UserError

    try:
        return find(name)
    except UserError:
        return []
