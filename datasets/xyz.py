"""A user's XYZ file (one frame or many) or folder of them; bonds are perceived from coordinates."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from rdkit import Chem

from sciconsist.errors import UserError

from .records import MoleculeRecord, check_atoms, conformer, from_coordinates, has_same_graph, record

MAX_ATOMS = 10_000


def read_xyz(path: str | Path, sanitize: bool = True) -> list[MoleculeRecord]:
    """Records of an .xyz file, or of every .xyz in a folder (sorted by name); hydrogens must be in it.

    Raises UserError naming file, record, what was found and what was expected. With `sanitize=False` a frame
    whose bonds cannot be perceived becomes a molecule without bonds; otherwise that is an error too.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: found nothing, expected an .xyz file or a folder of them")
    files = sorted(path.glob("*.xyz")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path}: found no .xyz file in this folder, expected at least one")
    records = []
    for file in files:
        for count, (numbers, positions, comment) in enumerate(frames(file), 1):
            where = f"{file}, record {count}"
            mol = from_coordinates(numbers, positions)
            if mol is None:
                if sanitize:
                    raise UserError(f"{where}: found atoms that make no neutral molecule, expected all hydrogens")
                records.append(record(without_bonds(numbers, positions), comment, same_graph=False))
            else:
                records.append(record(mol, comment, same_graph=has_same_graph(mol)))
    return records


def without_bonds(numbers: np.ndarray, positions: np.ndarray) -> Chem.Mol:
    """A molecule of atoms `[N]` at positions `[N, 3]` in Å that nothing joins."""
    mol = Chem.RWMol()
    for number in numbers.tolist():
        mol.AddAtom(Chem.Atom(number))
    mol.AddConformer(conformer(positions))
    return mol.GetMol()


def frames(path: Path) -> Iterator[tuple[np.ndarray, np.ndarray, str]]:
    """Atomic numbers `[N]`, positions `[N, 3]` in Å and the comment of every frame. Raises UserError."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            count = 0
            for line in file:
                if not line.strip():
                    continue
                count += 1
                yield _frame(line, file, f"{path}, record {count}")
            if count == 0:
                raise UserError(f"{path}: found an empty file, expected XYZ frames")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def _frame(head: str, file: Iterator[str], where: str) -> tuple[np.ndarray, np.ndarray, str]:
    try:
        size = int(head)
    except ValueError:
        raise UserError(f"{where}: found {head.strip()[:40]!r}, expected the number of atoms") from None
    if not 0 < size <= MAX_ATOMS:
        raise UserError(f"{where}: found {size} atoms, expected 1 to {MAX_ATOMS}")
    comment = next(file, "").strip()
    lines = list(islice(file, size))
    if len(lines) < size:
        raise UserError(f"{where}: found {len(lines)} atoms before the file ends, expected {size}; it is cut off")
    return *parse_atoms(lines, where), comment


def parse_atoms(lines: list[str], where: str) -> tuple[np.ndarray, np.ndarray]:
    """Atomic numbers `[N]` and positions `[N, 3]` of lines `symbol x y z ...`. Raises UserError.

    Mathematica's exponents, `1.2*^-6` in the raw QM9 files, are understood.
    """
    table = Chem.GetPeriodicTable()
    numbers, positions = [], []
    for line in lines:
        fields = line.replace("*^", "e").split()
        try:
            symbol = fields[0]
            numbers.append(int(symbol) if symbol.isdigit() else table.GetAtomicNumber(symbol.capitalize()))
            positions.append([float(value) for value in fields[1:4]])
        except (ValueError, RuntimeError, IndexError):
            raise UserError(f"{where}: found {line.strip()[:60]!r}, expected an element, x, y and z") from None
        if len(positions[-1]) != 3:
            raise UserError(f"{where}: found {line.strip()[:60]!r}, expected an element, x, y and z")
    arrays = np.array(numbers, dtype=np.int64), np.array(positions, dtype=np.float64)
    check_atoms(*arrays, where)
    return arrays
