"""QM7: molecules of up to seven heavy atoms C, N, O, S with PBE0 atomisation energies (Rupp et al. 2012)."""

from __future__ import annotations

import numpy as np

from .records import MoleculeRecord, check_atoms, from_coordinates, has_same_graph, read_arrays, record
from .registry import find


def load(split: str = "all", limit: int | None = None) -> list[MoleculeRecord]:
    """Molecules whose bonds can be made out from coordinates (all but one in 350), energies in kcal/mol."""
    (path,) = find("qm7", split)
    arrays = read_arrays(path, ("numbers", "positions", "atomization_kcal_mol"))
    records: list[MoleculeRecord] = []
    for row in range(len(arrays["numbers"])):
        if limit is not None and len(records) >= limit:
            break
        count = int((arrays["numbers"][row] > 0).sum())
        numbers, positions = (
            arrays["numbers"][row, :count],
            arrays["positions"][row, :count].astype(np.float64),
        )
        check_atoms(numbers, positions, f"{path}, record {row}")
        if (mol := from_coordinates(numbers, positions)) is not None:
            values = {"atomization_kcal_mol": float(arrays["atomization_kcal_mol"][row])}
            records.append(record(mol, f"qm7-{row}", values, has_same_graph(mol)))
    return records
