"""Loops over small arrays as machine code: compiled when first called, and kept on disk for the next process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable)


def compiled(function: F) -> F:
    """`function` of numbers and numpy arrays, compiled by Numba. Results are those of the Python code, to the bit."""
    made: Any
    try:
        made = numba.njit(cache=True, error_model="numpy")(function)
    except RuntimeError:  # neither the package's folder nor the user's can be written to
        made = numba.njit(error_model="numpy")(function)
    return made
