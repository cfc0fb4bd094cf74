"""MP-20-BT: Materials Project crystals of at most 20 atoms, most of them the binary and ternary rows of MP-20.

Not MP-20, and figures on it are not comparable with MP-20's. Formula-disjoint train, val and test; `large` has crystals
of 21 to 52 atoms, without gap and space group.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from sciconsist.domains.crystals.files import CrystalRecord
from sciconsist.errors import UserError

from .registry import find

KEYS = {"natoms", "lattice", "properties", "atomic_numbers", "frac_coords", "material_id", "property_names"}


def load(split: str, limit: int | None = None) -> list[CrystalRecord]:
    """Records of `train`, `val`, `test` or `large`; the first `limit` of them. Raises UserError.

    Properties: e_form_per_atom and e_above_hull (eV/atom), band_gap (eV), spacegroup, year, where they are known.
    """
    return [rec for path in find("mp-20-bt", split) for rec in read(path, limit)]


def read(path: Path, limit: int | None = None) -> list[CrystalRecord]:
    """Records of one .npz file of this layout. Raises UserError when it is broken or has impossible values."""
    from pymatgen.core import Lattice, Structure

    arrays = read_concatenated(path)
    ends = np.cumsum(arrays["natoms"], dtype=np.int64)
    atoms = int(ends[-1]) if len(ends) else 0
    if len(arrays["atomic_numbers"]) != atoms or arrays["frac_coords"].shape != (atoms, 3):
        raise UserError(f"{path}: natoms add up to {atoms}, found {len(arrays['atomic_numbers'])} atomic numbers")
    if not (np.isfinite(arrays["frac_coords"]).all() and np.isfinite(arrays["lattice"]).all()):
        raise UserError(f"{path}: found coordinates or cells that are not finite, expected numbers")
    names = [str(n) for n in arrays["property_names"]]
    records = []
    for row, (end, count) in enumerate(zip(ends[:limit], arrays["natoms"].astype(int))):
        part = slice(end - count, end)
        structure = Structure(
            Lattice(arrays["lattice"][row].astype(np.float64)),
            arrays["atomic_numbers"][part].astype(int).tolist(),
            arrays["frac_coords"][part].astype(np.float64),
        )
        values = {n: float(v) for n, v in zip(names, arrays["properties"][row]) if np.isfinite(v)}
        records.append(CrystalRecord(structure, str(arrays["material_id"][row]), values))
    return records


def read_concatenated(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file whose atoms are concatenated over structures."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a whole .npz file ({error}); get it again") from error
    if absent := sorted(KEYS - set(arrays)):
        raise UserError(f"{path}: found arrays {sorted(arrays)}, expected also {absent}")
    rows = {key: len(arrays[key]) for key in ("natoms", "lattice", "properties", "material_id")}
    if len(set(rows.values())) > 1:
        raise UserError(f"{path}: found lengths {rows}, expected one row a crystal")
    return arrays
