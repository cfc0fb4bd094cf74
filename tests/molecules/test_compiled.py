"""Functions that Numba compiles."""

from __future__ import annotations

from typing import Any

import numba
import pytest

from sciconsist.domains.molecules.compiled import compiled


def twice(x: int) -> int:
    return 2 * x


def test_where_nothing_can_be_kept_on_disk_it_is_compiled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    njit, asked = numba.njit, []

    def nowhere(*arguments: Any, cache: bool = False, **options: Any) -> Any:
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(*arguments, **options)

    monkeypatch.setattr(numba, "njit", nowhere)
    function = compiled(twice)
    assert asked == [True, False]
    assert function(21) == 42 and function.signatures  # type: ignore[attr-defined]
