"""QM9-GFN2: QM9's molecules at their GFN2-xTB minimum, and the SMILES of all of QM9 for novelty.

Also reads what `datasets.builder` writes, which has the same layout. Graph distances and bond figures need
the closed-shell graph this loader gives: as written, 9.3 % of the SMILES carry radicals, and a reference that
leaves them out lacks the imines (on test the two references are .025 apart, two real halves .024).
"""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np

from sciconsist.errors import UserError

from .records import MoleculeRecord, check_atoms, from_smiles, read_arrays, record
from .registry import find

PROPERTIES = ("energy_ev", "homo_ev", "lumo_ev", "dipole_debye")


def load(
    split: str, limit: int | None = None, same_graph_only: bool | None = None, radicals: bool = True
) -> list[MoleculeRecord]:
    """Records of `train`, `val` or `test`; the first `limit` of them, in GDB9 order.

    `same_graph_only` drops molecules whose relaxed bonds differ from the SMILES: by default in train only.
    `radicals=False` drops the 1.6 % that keep unpaired electrons when shells are closed. Raises UserError.
    """
    only = split == "train" if same_graph_only is None else same_graph_only
    return [rec for path in find("qm9-gfn2", split) for rec in read(path, limit, only, radicals)]


def read(
    path: Path, limit: int | None = None, same_graph_only: bool = False, radicals: bool = True
) -> list[MoleculeRecord]:
    """Records of one .npz file of this layout; `load` says what the arguments mean."""
    arrays = read_arrays(path, ("numbers", "positions", "smiles", "same_graph", *PROPERTIES))
    index = arrays.get("gdb9_index", np.arange(len(arrays["numbers"])))
    records: list[MoleculeRecord] = []
    for row in range(len(index)):
        if limit is not None and len(records) >= limit:
            break
        same = bool(arrays["same_graph"][row])
        if same_graph_only and not same:
            continue
        where = f"{path}, record {row}"
        count = int((arrays["numbers"][row] > 0).sum())
        numbers, positions = (
            arrays["numbers"][row, :count],
            arrays["positions"][row, :count].astype(np.float64),
        )
        check_atoms(numbers, positions, where)
        mol = from_smiles(str(arrays["smiles"][row]), numbers, positions, where)
        rec = record(mol, f"gdb9-{index[row]}", {k: float(arrays[k][row]) for k in PROPERTIES}, same)
        if radicals or not rec.radical:
            records.append(rec)
    return records


def all_smiles() -> list[str]:
    """SMILES of every QM9 molecule of any split: what novelty is measured against. Raises UserError."""
    (path,) = find("qm9-gfn2", "smiles")
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            return [row["smiles"] for row in csv.DictReader(file)]
    except (OSError, EOFError, UnicodeDecodeError, KeyError) as error:
        raise UserError(f"{path}: not a whole gzipped CSV with a column smiles ({error})") from error
