"""`sciconsist demo`: the package at work, offline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sciconsist.cli.options import BatchSize, Json, Quiet, Seed, emit, note, progress


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write to.")] = Path("sciconsist-demo"),
    seed: Seed = 0,
    batch_size: BatchSize = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make molecules, crystals and climate fields, a report page and a summary, without network and data.

    Under a minute on a quiet machine, a quarter of it CHGNet relaxing four crystals where it is installed; half a minute more
    the first time, to compile.

    \b
    Example:
      sciconsist demo
      sciconsist demo -o elsewhere --seed 7
    """
    from sciconsist.files import check_output

    folder = check_output(output, "folder")
    from sciconsist.workflows.demo import check_space
    from sciconsist.workflows.demo import demo as run

    check_space(folder)
    with progress("molecules", 64, quiet) as advance:
        summary = run(folder, seed, batch_size=batch_size, progress=advance)
    if as_json:
        emit(summary, True)
        return
    mols = summary["molecules"]
    compiling = f" (and {ready:.0f} s to compile, once)" if (ready := mols["seconds_to_get_ready"]) > 3 else ""
    note(
        f"{mols['written']} molecules in {mols['steps']} network evaluations each, {mols['seconds']} s{compiling}",
        quiet,
    )
    if (made := summary.get("crystals")) is not None:
        relaxed = f", {made['relaxed']} of them relaxed" if "relaxed" in made else ""
        note(f"{made['written']} crystals in {made['steps']} network evaluations each{relaxed}", quiet)
    if (fields := summary.get("climate")) is not None:
        rows, columns = fields["grid"]
        note(
            f"{fields['members']} members of {rows} x {columns} climate fields in {fields['steps']} network "
            f"evaluations each, {fields['seconds']} s", quiet,
        )  # fmt: skip
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            typer.echo(str(path))
