"""The table of commands, and what becomes of an error, a signal or a status.

A new command is a plain typed function in a file of this folder and one row of COMMANDS. Its file is imported
when the command is called, not for `sciconsist --help`; torch and friends are imported inside the function.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from sciconsist import __version__
from sciconsist.errors import PartlyDone, UserError

# (words typed, module:function, one line of help), in the order of --help.
COMMANDS: tuple[tuple[str, str, str], ...] = (
    ("demo", "sciconsist.cli.demo:demo", "Make molecules and a report, offline, in under a minute."),
    ("generate molecules", "sciconsist.cli.generate:molecules", "Draw molecules into an SDF file."),
    ("generate conformers", "sciconsist.cli.generate:conformers", "Draw 3D conformers of given molecules."),
    ("generate crystals", "sciconsist.cli.generate_crystals:crystals", "Predict crystal structures into a folder."),
    ("downscale", "sciconsist.cli.downscale:downscale", "Make coarse climate fields finer, as an ensemble."),
    ("evaluate molecules", "sciconsist.cli.evaluate:molecules", "Score molecules beside real ones."),
    ("evaluate conformers", "sciconsist.cli.evaluate:conformers", "Score conformers beside GFN2-xTB's."),
    ("evaluate climate", "sciconsist.cli.evaluate:climate", "Score downscaled fields beside baselines."),
    ("evaluate crystals", "sciconsist.cli.evaluate:crystals", "Score crystals beside real ones."),
    ("screen crystals", "sciconsist.cli.screen:crystals", "Check, relax and rank crystals."),
    ("screen molecules", "sciconsist.cli.screen:molecules", "Label, compare and rank molecules."),
    ("train molecules", "sciconsist.cli.train:molecules", "Train a model by flow matching."),
    ("train crystals", "sciconsist.cli.train:crystals", "Train a crystal model by flow matching."),
    ("train climate", "sciconsist.cli.train:climate", "Train a downscaling model."),
    ("distill", "sciconsist.cli.train:distill", "Teach a trained model to take few steps."),
    ("benchmark molecules", "sciconsist.cli.benchmark:molecules", "Time molecules beside RDKit."),
    (
        "benchmark properties",
        "sciconsist.cli.benchmark_properties:properties",
        "Ask molecules for properties, measure.",
    ),
    ("benchmark core", "sciconsist.cli.benchmark:core", "Train every recipe on targets with known answers."),
    ("benchmark crystals", "sciconsist.cli.benchmark_crystals:crystals", "Predict the structures of known crystals."),
    ("benchmark climate", "sciconsist.cli.benchmark:climate", "Score every downscaling method on five cases."),
    ("data list", "sciconsist.cli.data:list_data", "List the data sets."),
    ("data get", "sciconsist.cli.data:get", "Say where a data set is, or how to obtain it."),
    ("data build", "sciconsist.cli.data:build", "Build QM9-GFN2 molecules from SMILES."),
    ("models list", "sciconsist.cli.models:list_models", "List the models that come with the package."),
    ("models show", "sciconsist.cli.models:show", "Show a model's card."),
    ("doctor", "sciconsist.cli.doctor:doctor", "Show versions, device, extras and shipped models."),
)
# Help of the words that are followed by another word.
GROUPS = {
    "generate": "Draw new molecules, conformers or crystals.",
    "evaluate": "Score samples beside real data.",
    "train": "Train a model of a domain.",
    "benchmark": "Measure a part of the package on its own test problems.",
    "screen": "Relax, check and rank candidates.",
    "data": "List, fetch and build data sets.",
    "models": "List and describe models.",
}

# Plain help: it keeps [brackets] and examples as written, and costs no import of rich.
_PLAIN: dict[str, Any] = {"rich_markup_mode": None, "pretty_exceptions_enable": False}


class LazyCommand(TyperCommand):
    """A row of COMMANDS: its name and one line of help; the rest is imported when it is called."""

    def __init__(self, name: str, target: str, help: str) -> None:
        super().__init__(name=name, help=help)
        self.target = target

    def load(self) -> Any:
        """The real command, with its options."""
        module, function = self.target.split(":")
        single = typer.Typer(add_completion=False, **_PLAIN)
        single.command(self.name)(getattr(import_module(module), function))
        return typer.main.get_command(single)

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        return self.load().make_context(*args, **kwargs)


def build() -> TyperGroup:
    """The command tree of COMMANDS. Imports none of them."""
    app = typer.Typer(**_PLAIN)
    app.callback(invoke_without_command=True)(_root)
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    for words, target, help in COMMANDS:
        *parents, name = words.split()
        group = root
        for parent in parents:
            if parent not in group.commands:
                group.add_command(TyperGroup(name=parent, help=GROUPS[parent], rich_markup_mode=None))
            group = group.commands[parent]  # type: ignore[assignment]
        group.add_command(LazyCommand(name, target, help))
    return root


def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Molecules, crystals and climate fields in any number of steps, from one model."""
    if version:
        typer.echo(__version__)
        raise typer.Exit()
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line (`sys.argv` when None) and returns its exit status.

    0 done; 2 the request or an input is wrong, one line on stderr; 3 partly done; 130 and 143 stopped by
    Ctrl-C and SIGTERM, which both arrive in a command as KeyboardInterrupt.
    An error of our own is a traceback and 1. SCICONSIST_DEBUG=1 shows the traceback of every error.
    """
    with _sigterm_interrupts() as terminated:
        status = _run(sys.argv[1:] if argv is None else list(argv))
    return 128 + signal.SIGTERM if status == 130 and terminated else status


def _run(argv: list[str]) -> int:
    try:
        result = build().main(args=argv, prog_name="sciconsist", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except KeyboardInterrupt:
        return 130
    except typer.Abort:
        return _fail("stopped at a question", 130)
    except typer.TyperException as error:  # an unknown option, a missing argument, a bad value
        context = getattr(error, "ctx", None)
        hint = f" (see '{context.command_path} --help')" if context else ""
        return _fail(error.format_message() + hint, 2)
    except UserError as error:
        return _fail(str(error), 2)
    except PartlyDone as error:
        return _fail(str(error), 3, label="partly done")
    except OSError as error:
        return _fail(_system_message(error), 2)
    except (MemoryError, RuntimeError) as error:
        # torch.OutOfMemoryError, without importing torch
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return _fail("out of memory: try a smaller --batch-size", 2)
        raise


def _fail(message: str, status: int, label: str = "error") -> int:
    """One line on stderr. Called while an exception is handled, which SCICONSIST_DEBUG=1 lets through."""
    if os.environ.get("SCICONSIST_DEBUG", "0") not in ("", "0"):
        raise
    print(f"{label}: {' '.join(message.split())}", file=sys.stderr)
    return status


def _system_message(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        cure = "; free some space or choose another -o"
    else:
        cure = ""
    return f"{f'{error.filename}: ' if error.filename else ''}{error.strerror or error}{cure}"


@contextmanager
def _sigterm_interrupts() -> Iterator[list[int]]:
    """Turns SIGTERM into KeyboardInterrupt; yields a list that holds the signal once it came."""
    came: list[int] = []

    def interrupt(number: int, frame: object) -> None:
        came.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # signals belong to the main thread
        yield came
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, before)
