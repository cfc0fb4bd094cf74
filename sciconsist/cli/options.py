"""Options that mean the same in every command, and how a command speaks: results on stdout, else stderr."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from sciconsist.files import atomic_path

Seed = Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same result.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes on stderr.")]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", min=1, help="Objects at a time; changes memory and speed only.")
]
Device = Annotated[str | None, typer.Option("--device", help="cpu or cuda; the best there is when left out.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Where the result goes.")]
Model = Annotated[str | None, typer.Option("--model", help="A model's name or file.")]


def emit(result: Mapping[str, Any], as_json: bool) -> None:
    """Prints a result on stdout: one strict JSON object (NaN is null), or a line for each entry."""
    values = plain(result)
    if as_json:
        typer.echo(json.dumps(values, allow_nan=False))
        return
    for key, value in values.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        typer.echo(f"{key.replace('_', ' ')}: {text}")


def report(result: Mapping[str, Any], text: str, path: Path | None, as_json: bool, quiet: bool) -> None:
    """A benchmark's result: to `path` as JSON where one is given, and to stdout, as JSON or as `text`."""
    if path is not None:
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(plain(result), indent=1) + "\n", encoding="utf-8")
        note(f"wrote {path}", quiet)
    if as_json:
        emit(result, True)
    else:
        typer.echo(text)


def plain(value: Any) -> Any:
    """JSON's own types; anything else as its `str`."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if hasattr(value, "item") and not hasattr(value, "__len__"):  # a numpy or torch scalar
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def note(message: str, quiet: bool = False) -> None:
    """One line on stderr."""
    if not quiet:
        typer.echo(message, err=True)


@contextmanager
def progress(label: str, total: int | None, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr; yields `advance(n)`. Shows nothing when quiet or stderr is no terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda n: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda n: bar.advance(task, n)


@contextmanager
def output_folder(path: Path) -> Iterator[Path]:
    """The folder a command writes to, checked and made; removed again when the command ends with nothing in it."""
    from sciconsist.files import check_output

    there = path.exists()
    folder = check_output(path, "folder")
    try:
        yield folder
    finally:
        if not there and not any(folder.iterdir()):
            folder.rmdir()
