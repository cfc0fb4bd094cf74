"""The command line. `main` is the console script; the commands are the table in `app`."""

from sciconsist.cli.app import main

__all__ = ["main"]
