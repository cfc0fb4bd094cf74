"""A user's SDF file or folder of them, one UserError for everything that can be wrong in it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rdkit import Chem, rdBase

from sciconsist.domains.molecules.shells import close_shells
from sciconsist.errors import UserError

from .records import MoleculeRecord, check_atoms, has_same_graph, record

MAX_RECORD_BYTES = 4_000_000  # a record longer than this is no small molecule, or no SDF


def read_sdf(path: str | Path, sanitize: bool = True) -> list[MoleculeRecord]:
    """Records of an .sdf file, or of every .sdf in a folder (sorted by name); numeric fields are properties.

    A record needs a 3D conformer of finite coordinates and known elements, else UserError names file, record,
    what was found and what was expected. With `sanitize=False` a record whose bonds make no molecule stays,
    as raw samples must; otherwise that is an error too.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: found nothing, expected an .sdf file or a folder of them")
    files = sorted(path.glob("*.sdf")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path}: found no .sdf file in this folder, expected at least one")
    return [
        parse_record(text, f"{f}, record {n}", sanitize) for f in files for n, text in enumerate(split_records(f), 1)
    ]


def split_records(path: Path) -> Iterator[str]:
    """Texts of the records of an SDF file, with their `$$$$` lines. Raises UserError when the last is cut."""
    lines, size, count = [], 0, 0
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                lines.append(line)
                size += len(line)
                if size > MAX_RECORD_BYTES:
                    raise UserError(f"{path}, record {count + 1}: found no $$$$ in {size} bytes, expected an SDF")
                if line.startswith("$$$$"):
                    count += 1
                    yield "".join(lines)
                    lines, size = [], 0
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    rest = "".join(lines)
    if rest.strip():
        _, end, fields = rest.partition("M  END")
        if not end or count or fields.strip():  # a single mol block alone may do without $$$$
            expected = "$$$$" if end else "M  END"
            raise UserError(
                f"{path}, record {count + 1}: found the end of the file, expected {expected}; it is cut off"
            )
        yield rest
    elif count == 0:
        raise UserError(f"{path}: found an empty file, expected SDF records")


def parse_record(text: str, where: str, sanitize: bool) -> MoleculeRecord:
    """The record of one SDF text; `read_sdf` says what is checked. `where` names it in messages."""
    supplier = Chem.SDMolSupplier()
    try:
        with rdBase.BlockLogs():
            supplier.SetData(text, sanitize=False, removeHs=False)
            mol = supplier[0]
    except (ValueError, RuntimeError, IndexError) as error:
        raise UserError(f"{where}: found a block RDKit cannot read ({error}), expected a V2000/V3000 record") from error
    if mol is None:
        raise UserError(f"{where}: found a block RDKit cannot read, expected a V2000 or V3000 record")
    numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()], dtype=np.int64)
    if mol.GetNumConformers() == 0 or text.splitlines()[1][20:22] == "2D":
        raise UserError(f"{where}: found no 3D conformer, expected coordinates in Å")
    check_atoms(numbers, mol.GetConformer().GetPositions(), where)
    mol = _sanitized(mol, where, sanitize)
    properties = {}
    for key, value in mol.GetPropsAsDict().items():
        if isinstance(value, int | float) and math.isfinite(value):
            properties[key] = float(value)
    name = mol.GetProp("_Name") if mol.HasProp("_Name") else ""
    return record(mol, name, properties, has_same_graph(mol))


def _sanitized(mol: Chem.Mol, where: str, required: bool) -> Chem.Mol:
    """A sanitised, closed-shell copy; the molecule as it came when that fails and is not required."""
    copy = Chem.Mol(mol)
    try:
        with rdBase.BlockLogs():
            Chem.SanitizeMol(copy)
            return close_shells(copy)
    except (ValueError, RuntimeError) as error:
        if required:
            raise UserError(f"{where}: found bonds that make no molecule ({error}), expected valid valences") from error
        return mol
