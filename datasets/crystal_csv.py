"""The public CSVs of crystal generation: MP-20, MPTS-52, Perov-5, Carbon-24 (Xie et al. 2021; Baird et al. 2024).

One row a crystal, a column `cif`, properties beside it; as CDVAE and DiffCSP hand them out.
"""

from __future__ import annotations

import csv
import math
import sys
import warnings
from functools import partial
from io import StringIO
from pathlib import Path

from pymatgen.core import Structure
from pymatgen.io.cif import CifParser

from sciconsist.domains.crystals.files import CrystalRecord, check_structure
from sciconsist.errors import UserError

from .registry import find


def load(split: str, limit: int | None = None, *, name: str) -> list[CrystalRecord]:
    """Crystals of a split, the first `limit` of them; properties are the CSV's columns of numbers.

    Raises UserError.
    """
    (path,) = find(name, split)
    return read_csv(path, limit)


mp_20 = partial(load, name="mp-20")
mpts_52 = partial(load, name="mpts-52")
perov_5 = partial(load, name="perov-5")
carbon_24 = partial(load, name="carbon-24")


def read_csv(path: str | Path, limit: int | None = None) -> list[CrystalRecord]:
    """Crystals of a CSV with a column `cif`, about 5 ms each. Raises UserError naming the record."""
    records: list[CrystalRecord] = []
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # a cif of 52 atoms in P1 is longer than the default
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            for count, row in enumerate(csv.DictReader(file), 1):
                if limit is not None and count > limit:
                    break
                where = f"{path}, record {count}"
                if not row.get("cif"):
                    raise UserError(
                        f"{where}: found columns {', '.join(map(str, row))}, expected a cif in one named cif"
                    )
                name = row.get("material_id") or row.get("") or str(count - 1)
                records.append(CrystalRecord(_from_cif(row["cif"], where), name, _numbers(row)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as a CSV ({error})") from error
    if not records and limit != 0:
        raise UserError(f"{path}: found no record, expected rows with a column cif")
    return records


def _from_cif(text: str, where: str) -> Structure:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            (structure,) = CifParser(StringIO(text)).parse_structures(primitive=False)
    except Exception as error:  # pymatgen's parser leaks many kinds
        raise UserError(f"{where}: its cif cannot be read ({' '.join(str(error).split())[:120]})") from error
    check_structure(structure, where)
    return structure


def _numbers(row: dict[str, str]) -> dict[str, float]:
    values = {}
    for key, text in row.items():
        try:
            number = float(text)
        except (TypeError, ValueError):
            continue
        if key and key != "material_id" and math.isfinite(number):
            values[key] = number
    return values
