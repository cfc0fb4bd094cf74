"""The extended XYZ format of periodic structures, as ASE writes it: a lattice and named columns."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

import numpy as np
from pymatgen.core import Element, Lattice, Structure

from sciconsist.errors import UserError

_PAIR = re.compile(r'(\w[\w.-]*)=(?:"([^"]*)"|(\S+))')


def format_frame(structure: Structure, origin: Mapping[str, str]) -> str:
    """One frame: species and Cartesian positions in Å, `origin` in the comment line."""
    cell = " ".join(f"{x:.10f}" for x in structure.lattice.matrix.ravel())
    said = "".join(
        f' {key}="{" ".join(str(value).replace(chr(34), chr(39)).split())}"' for key, value in origin.items()
    )
    head = f'{len(structure)}\nLattice="{cell}" Properties=species:S:1:pos:R:3 pbc="T T T"{said}\n'
    rows = (f"{site.specie.symbol:<3}" + "".join(f" {x:18.10f}" for x in site.coords) for site in structure)
    return head + "\n".join(rows) + "\n"


def read_frames(path: Path) -> Iterator[tuple[Structure, dict[str, str]]]:
    """(structure, what the comment line says) of every frame. Raises UserError or ValueError."""
    with path.open(encoding="utf-8", errors="replace") as file:
        count = 0
        for line in file:
            if not line.strip():
                continue
            count += 1
            where = f"{path}, record {count}"
            if not re.fullmatch(r"\s*\d{1,6}\s*", line):
                raise UserError(f"{where}: found {line.strip()[:40]!r}, expected the number of atoms")
            said = {key: quoted or bare for key, quoted, bare in _PAIR.findall(next(file, ""))}
            rows = [row.split() for row in islice(file, int(line))]
            if len(rows) < int(line):
                raise UserError(f"{where}: found {len(rows)} atoms before the file ends, expected {int(line)}")
            yield _structure(rows, said, where), {k: v for k, v in said.items() if k not in _OWN}


_OWN = {"Lattice", "Properties", "pbc"}


def _structure(rows: list[list[str]], said: Mapping[str, str], where: str) -> Structure:
    cell = said.get("Lattice", "").split()
    if len(cell) != 9:
        raise UserError(f'{where}: found no Lattice="...", expected nine numbers: a crystal needs a cell')
    columns = _columns(said.get("Properties", "species:S:1:pos:R:3"))
    if "species" not in columns or "pos" not in columns:
        raise UserError(f"{where}: found columns {sorted(columns)}, expected species and pos")
    species = [Element(row[columns["species"]]) for row in rows]
    start = columns["pos"]
    positions = np.array([[float(x) for x in row[start : start + 3]] for row in rows], dtype=float)
    lattice = Lattice(np.array(cell, dtype=float).reshape(3, 3))
    return Structure(lattice, species, positions, coords_are_cartesian=True)


def _columns(properties: str) -> dict[str, int]:
    """First column of each name in `species:S:1:pos:R:3`."""
    parts, start, columns = properties.split(":"), 0, {}
    for name, width in zip(parts[::3], parts[2::3]):
        columns[name], start = start, start + int(width)
    return columns
