"""`sciconsist evaluate ...`: scores beside those of real data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sciconsist.cli.options import Json, Quiet, Seed, emit, note, plain


def molecules(
    samples: Annotated[Path, typer.Argument(help="An SDF file; take generate --raw to score a model.")],
    reference: Annotated[
        str, typer.Option("--reference", help="Real molecules: qm9-gfn2[:test|:val], or an SDF file.")
    ] = "qm9-gfn2:test",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="All figures as JSON.")] = None,
    posebusters: Annotated[int, typer.Option("--posebusters", min=0, help="Samples PoseBusters looks at.")] = 0,
    energy: Annotated[int, typer.Option("--energy", min=0, help="Samples relaxed with GFN2-xTB.")] = 0,
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
        samples, reference, posebusters=posebusters, energy=energy, limit=limit, say=lambda text: note(text, quiet)
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
