"""The folder of a screen: what it was asked, and one file for each finished candidate.

A result is written under a temporary name and renamed, so a run killed at any moment leaves whole results only,
and a run that goes on does the rest.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sciconsist import __version__
from sciconsist.domains.crystals.files import CrystalRecord
from sciconsist.domains.crystals.screening import plain_structure
from sciconsist.errors import UserError
from sciconsist.files import atomic_path

T = TypeVar("T")


class ScreenRun:
    """`open_run` makes one. `results` holds the records that are finished."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.results: dict[str, dict[str, Any]] = {}

    def keep(self, record: dict[str, Any]) -> None:
        """Write a finished candidate's record."""
        path = self.folder / "results" / f"{record['name']}.json"
        write_json(path, record)
        self.results[record["name"]] = record


def open_run(folder: Path, request: Mapping[str, Any], names: Iterable[str], resume: bool) -> ScreenRun:
    """Start a run in an existing folder, or go on with the one in it.

    `request` is all that a candidate's record depends on. Raises UserError: the folder holds another run, or one
    that was not to be resumed.
    """
    told = {"sciconsist": __version__, **json.loads(json.dumps(request))}
    path = folder / "run.json"
    if path.exists():
        if not resume:
            raise UserError(f"{folder}: holds a screen already; give --resume to go on with it, or another -o")
        before = read_json(path)
        if different := sorted(key for key in told | before if told.get(key) != before.get(key)):
            raise UserError(
                f"{folder}: was begun with {_shown(before, different)}, now asked with {_shown(told, different)}; "
                "ask as before, or choose another -o"
            )
    run = ScreenRun(folder)
    (folder / "results").mkdir(exist_ok=True)
    if not path.exists():
        write_json(path, told)
    wanted = set(names)
    for file in (folder / "results").glob("*.json"):
        if file.stem in wanted:
            run.results[file.stem] = read_json(file)
    return run


def _shown(told: Mapping[str, Any], keys: Sequence[str]) -> str:
    return ", ".join(f"{key} {json.dumps(told.get(key))[:120]}" for key in keys)


def named(items: Sequence[tuple[str, T]]) -> dict[str, T]:
    """What was read, by names that are good for a file and differ, in its order."""
    result: dict[str, T] = {}
    for given, item in items:
        base = re.sub(r"[^\w.+-]+", "_", given).strip(".")[:80] or "crystal"
        name, count = base, 2
        while name in result:
            name, count = f"{base}-{count}", count + 1
        result[name] = item
    return result


def fingerprint(records: Mapping[str, CrystalRecord]) -> str:
    """sha256 of all names and structures: are these the same candidates?"""
    digest = hashlib.sha256()
    for name, record in records.items():
        digest.update(json.dumps([name, plain_structure(record.structure)]).encode())
    return digest.hexdigest()


def write_json(path: Path, content: Any) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Raises UserError when the file is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error}); remove it and give --resume") from error
