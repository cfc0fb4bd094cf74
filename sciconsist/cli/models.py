"""`sciconsist models ...`: what is shipped, and what a model says about itself."""

from __future__ import annotations

from typing import Annotated

import typer

from sciconsist.cli.options import Json, emit


def list_models(as_json: Json = False) -> None:
    """List the models that come with the package.

    \b
    Example:
      sciconsist models list
    """
    from sciconsist.workflows.models import DEFAULTS, describe, shipped

    rows = [describe(name) for name in shipped()]
    if as_json:
        keys = ("name", "megabytes", "parameters", "sha256")
        emit({"models": [{**{k: r[k] for k in keys}, "domain": r["config"].get("domain")} for r in rows]}, True)
        return
    for row in rows:
        default = ", the default" if row["name"] in DEFAULTS.values() else ""
        typer.echo(f"{row['name']:<24} {row['megabytes']:>6} MB  {row['config'].get('domain')}{default}")
    if not rows:
        typer.echo("none is shipped")


def show(
    name: Annotated[str, typer.Argument(help="A model's name or file.")],
    as_json: Json = False,
) -> None:
    """Show a model's card: data, licence, intended use, recipe, sizes.

    \b
    Example:
      sciconsist models show molecules-qm9gfn2
    """
    from sciconsist.workflows.models import describe

    emit(describe(name), as_json)
