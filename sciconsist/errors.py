"""The exceptions that end a command without a traceback."""

from __future__ import annotations


class UserError(ValueError):
    """The request or an input is wrong (exit status 2).

    The message is one line: the file, the record, what was found, what was expected and what to do.
    """


class PartlyDone(Exception):
    """Some records were refused, the others are written (exit status 3).

    Raise it after the outputs are in place. The message is one line: how many, and the file listing them.
    """
