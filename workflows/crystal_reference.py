"""Real crystals by the name of a data set, or from files."""

from __future__ import annotations

from pathlib import Path

from sciconsist.datasets import registry
from sciconsist.datasets.crystal_csv import read_csv
from sciconsist.domains.crystals.files import CrystalRecord, read_structures
from sciconsist.errors import UserError


def read_reference(reference: str, limit: int | None = None) -> tuple[list[CrystalRecord], str]:
    """Crystals of `NAME`, `NAME:SPLIT`, a CSV with a column cif, or a file or folder of structures; and their name.

    Without a split the test split is meant. Raises UserError.
    """
    path = Path(reference)
    if path.exists():
        found = read_csv(path, limit) if path.suffix == ".csv" else read_structures(path)[:limit]
        return found, reference
    name, _, split = reference.partition(":")
    known = sorted(data.name for data in registry.DATASETS.values() if data.domain == "crystals" and data.loader)
    if name not in known:
        raise UserError(f"{reference}: neither a file or folder nor a set of crystals; known: {', '.join(known)}")
    split = split or "test"
    return registry.load(name, split, limit=limit), f"{name}:{split}"
