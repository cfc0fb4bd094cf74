"""The public QM9 (B3LYP/6-31G(2df,p)) for users who have it: gdb9.sdf, or the raw dsgdb9nsd xyz files.

Splits are those of QM9-GFN2, by GDB9 index. Properties keep their published units, which their names say.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from rdkit import Chem

from sciconsist.errors import UserError

from .records import MoleculeRecord, from_coordinates, has_same_graph, record
from .registry import find
from .sdf import parse_record, split_records
from .xyz import parse_atoms

# Order of the raw files' second line, after "gdb INDEX"; gdb9.sdf.csv uses the short names.
PROPERTIES = {
    "A": "a_ghz", "B": "b_ghz", "C": "c_ghz", "mu": "dipole_debye", "alpha": "alpha_bohr3", "homo": "homo_ha",
    "lumo": "lumo_ha", "gap": "gap_ha", "r2": "r2_bohr2", "zpve": "zpve_ha", "u0": "u0_ha", "u298": "u_ha",
    "h298": "h_ha", "g298": "g_ha", "cv": "cv_cal_molk",
}  # fmt: skip


def split_of(index: int) -> str:
    """The split of a GDB9 index (from 1): last digit 3 is test, index mod 20 = 5 is val, the rest train."""
    return "test" if index % 10 == 3 else "val" if index % 20 == 5 else "train"


def load(split: str, limit: int | None = None, path: str | Path | None = None) -> list[MoleculeRecord]:
    """Records of `train`, `val` or `test` from `path`: gdb9.sdf (gdb9.sdf.csv beside it) or a folder of xyz.

    Without a path the registry looks for it. Molecules whose bonds RDKit cannot make out (under 2 %) are left
    out. Raises UserError.
    """
    if split not in ("train", "val", "test"):
        raise UserError(f"qm9 has no split {split!r}; it has train, val, test")
    source = find("qm9", split)[0] if path is None else Path(path)
    records: list[MoleculeRecord] = []
    for rec in _from_folder(source, split) if source.is_dir() else _from_sdf(source, split):
        if limit is not None and len(records) >= limit:
            break
        records.append(rec)
    return records


def _from_sdf(path: Path, split: str) -> Iterator[MoleculeRecord]:
    table = _properties(path.with_name(path.name + ".csv"))
    for index, text in enumerate(split_records(path), 1):
        if split_of(index) != split:
            continue
        rec = parse_record(text, f"{path}, record {index}", sanitize=False)
        if rec.name != f"gdb_{index}":
            raise UserError(f"{path}, record {index}: found the name {rec.name!r}, expected gdb_{index}")
        mol: Chem.Mol | None = rec.mol
        if rec.mol.NeedsUpdatePropertyCache():  # charges are not in the file: ask the coordinates
            numbers = [atom.GetAtomicNum() for atom in rec.mol.GetAtoms()]
            mol = from_coordinates(np.array(numbers), rec.mol.GetConformer().GetPositions())
        if mol is not None:
            made = record(mol, f"gdb9-{index}", table.get(rec.name, {}), has_same_graph(mol))
            yield replace(made, properties=made.properties or rec.properties)


def _properties(path: Path) -> dict[str, dict[str, float]]:
    if not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return {
                row["mol_id"]: {name: float(row[short]) for short, name in PROPERTIES.items()}
                for row in csv.DictReader(file)
            }
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: found no table of QM9 properties ({error!r}), expected gdb9.sdf.csv") from error


def _from_folder(folder: Path, split: str) -> Iterator[MoleculeRecord]:
    files = {int(match[1]): f for f in folder.glob("*.xyz") if (match := re.search(r"(\d+)\.xyz$", f.name))}
    if not files:
        raise UserError(f"{folder}: found no dsgdb9nsd_*.xyz, expected the raw QM9 files")
    for index in sorted(files):
        if split_of(index) == split and (rec := read_raw_xyz(files[index])) is not None:
            yield rec


def read_raw_xyz(path: Path) -> MoleculeRecord | None:
    """One raw QM9 file; None when its bonds cannot be made out. Raises UserError.

    Lines: number of atoms; `gdb INDEX` and 15 properties; atoms; frequencies; two SMILES (before and after
    the relaxation); two InChIs.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        size = int(lines[0])
        head, smiles = lines[1].replace("*^", "e").split(), lines[size + 3].split()
        index = int(head[1])
        values = dict(zip(PROPERTIES.values(), map(float, head[2:17]), strict=True))
    except (OSError, ValueError, IndexError) as error:
        raise UserError(f"{path}: not a whole raw QM9 file ({error}); expected dsgdb9nsd_*.xyz") from error
    numbers, positions = parse_atoms(lines[2 : 2 + size], str(path))
    mol = from_coordinates(numbers, positions, smiles[-1] if smiles else None)
    return None if mol is None else record(mol, f"gdb9-{index}", values, has_same_graph(mol))
