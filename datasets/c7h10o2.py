"""C7H10O2 isomers: real QM9 structures (B3LYP/6-31G(2df,p)) with their properties."""

from __future__ import annotations

import numpy as np

from .records import MoleculeRecord, check_atoms, from_coordinates, has_same_graph, read_arrays, record
from .registry import find

_NOT_PROPERTIES = {"positions", "numbers", "smiles", "name"}


def load(split: str = "all", limit: int | None = None) -> list[MoleculeRecord]:
    """All isomers whose bonds can be made out; properties under the file's names (`gap_ha`, `zpve_ha`, ...).

    The file's SMILES have another atom order than its coordinates, so the graph is matched to them.
    """
    (path,) = find("c7h10o2", split)
    arrays = read_arrays(path, ("numbers", "positions", "smiles", "name"))
    names = [key for key in arrays if key not in _NOT_PROPERTIES]
    records: list[MoleculeRecord] = []
    for row in range(len(arrays["numbers"])):
        if limit is not None and len(records) >= limit:
            break
        numbers, positions = arrays["numbers"][row], arrays["positions"][row].astype(np.float64)
        check_atoms(numbers, positions, f"{path}, record {row}")
        mol = from_coordinates(numbers, positions, str(arrays["smiles"][row]))
        if mol is not None:
            values = {key: float(arrays[key][row]) for key in names}
            records.append(record(mol, str(arrays["name"][row]), values, has_same_graph(mol)))
    return records
