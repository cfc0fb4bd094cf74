"""Crystals in and out: CIF, POSCAR, extxyz and JSON files as pymatgen Structures, checked, one error type.

Whatever a library throws at a broken file, a reader here raises UserError: the file, what was found, what was
expected. What comes out is ordered (no partial occupancy), finite and of a size that can be worked with.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Element, Lattice, Structure
from pymatgen.io.cif import CifFile, CifParser, CifWriter
from pymatgen.io.vasp.inputs import Poscar

from sciconsist.errors import UserError
from sciconsist.files import atomic_path

from .extxyz import format_frame, read_frames

MAX_ATOMS = 1_000  # a cell's atoms
MAX_BYTES = 20_000_000  # of a file
MAX_VOLUME = 1e6  # of a cell, Å^3
NOTE = "computer-generated, not synthesised or tested"
_SUFFIXES = (".cif", ".vasp", ".poscar", ".extxyz", ".xyz", ".json")
_TAG = "_sciconsist_"  # CIF names of what `origin` says


@dataclass(frozen=True)
class CrystalRecord:
    """A crystal, its name, properties (unit in the name or in the docs) and what its file says of its making."""

    structure: Structure
    name: str
    properties: dict[str, float] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)


# --- reading


def structure_files(path: str | os.PathLike[str]) -> list[Path]:
    """The structure files a path stands for: itself, or those of a folder, by name. Raises UserError."""
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"{path}: found nothing, expected a structure file or a folder of them")
    files = sorted(file for file in path.iterdir() if file.is_file() and _kind(file) and file.name[0] != ".")
    if not files:
        raise UserError(f"{path}: found no structure file in this folder, expected .cif, POSCAR, .extxyz or .json")
    return files


def read_structures(path: str | os.PathLike[str]) -> list[CrystalRecord]:
    """Every crystal of a file, or of the files of a folder in the order of their names. Raises UserError."""
    return [record for file in structure_files(path) for record in read_file(file)]


def read_readable(path: str | os.PathLike[str]) -> Iterator[tuple[str, CrystalRecord | UserError]]:
    """(name, crystal) of a file or folder, with the UserError in the place of a crystal that cannot be read."""
    for file in structure_files(path):
        try:
            yield from ((record.name, record) for record in read_file(file))
        except UserError as error:
            yield file.name, error


def read_file(path: str | os.PathLike[str]) -> list[CrystalRecord]:
    """The crystals of one file; CIF, extxyz and JSON may hold several. Raises UserError."""
    path = Path(path)
    reader = {"cif": _read_cif, "poscar": _read_poscar, "extxyz": read_frames, "json": _read_json}.get(_kind(path))
    if reader is None:
        raise UserError(f"{path}: unknown kind of file; expected .cif, POSCAR, .vasp, .extxyz or .json")
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise UserError(f"{path}: found {size} bytes, expected a structure of at most {MAX_BYTES}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what matters is checked below
            found = list(reader(path))
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # parsers leak ten kinds and more: any of them means the file is broken
        detail = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(f"{path}: not a whole {_kind(path)} file ({detail})") from error
    if not found:
        raise UserError(f"{path}: found no structure, expected at least one")
    records = []
    for count, (structure, origin) in enumerate(found, 1):
        where, name = (f"{path}, record {count}", f"{path.stem}-{count}") if len(found) > 1 else (str(path), path.stem)
        check_structure(structure, where)
        records.append(CrystalRecord(structure, name, {}, origin))
    return records


def check_structure(structure: Structure, where: str = "structure", max_atoms: int = MAX_ATOMS) -> None:
    """Raises UserError unless a structure is ordered, finite, of a real cell and of 1 to `max_atoms` atoms."""
    if not 1 <= len(structure) <= max_atoms:
        raise UserError(f"{where}: found {len(structure)} atoms, expected 1 to {max_atoms}")
    for site in structure:
        if not site.is_ordered or abs(sum(site.species.values()) - 1) > 1e-6:
            raise UserError(
                f"{where}: found partial occupancy ({site.species_string}), expected whole atoms; "
                "make an ordered approximant first"
            )
        if not isinstance(site.specie, Element) and not hasattr(site.specie, "oxi_state"):
            raise UserError(f"{where}: found {site.species_string!r}, expected an element")
    if not (np.isfinite(structure.lattice.matrix).all() and np.isfinite(structure.frac_coords).all()):
        raise UserError(f"{where}: found numbers that are not finite, expected cell and coordinates in Å")
    if not 1e-3 < (volume := structure.volume) < MAX_VOLUME:
        raise UserError(f"{where}: found a cell of {volume:.3g} Å^3, expected 0.001 to {MAX_VOLUME:g}")


def _kind(path: Path) -> str:
    """cif, poscar, extxyz or json by the file's name; "" for none of them."""
    name = path.name.lower()
    if name.startswith(("poscar", "contcar")):
        return "poscar"
    suffix = Path(name).suffix
    return {".vasp": "poscar", ".xyz": "extxyz"}.get(suffix, suffix[1:]) if suffix in _SUFFIXES else ""


def _read_cif(path: Path) -> Iterator[tuple[Structure, dict[str, str]]]:
    text = path.read_text(encoding="utf-8", errors="replace")
    blocks = [b.data for b in CifFile.from_str(text).data.values() if any("_atom_site_" in key for key in b.data)]
    # Sums over 1 are let through here so that `check_structure` can say "partial occupancy" and not "invalid CIF".
    parser = CifParser(path, occupancy_tolerance=100.0)
    structures = parser.parse_structures(primitive=False, check_occu=False, on_error="raise")
    for k, structure in enumerate(structures):
        data = blocks[k] if len(blocks) == len(structures) else {}
        _refuse_fractions(data, path)
        yield structure.remove_oxidation_states(), _cif_origin(data)


def _refuse_fractions(data: Mapping[str, Any], path: Path) -> None:
    for value in data.get("_atom_site_occupancy", []):
        try:
            occupancy = float(str(value).split("(")[0])
        except ValueError:
            continue  # "." and "?" mean not stated
        if abs(occupancy - 1) > 1e-3:
            raise UserError(
                f"{path}: found partial occupancy ({value} of a site), expected whole atoms; "
                "make an ordered approximant first"
            )


def _cif_origin(data: Mapping[str, Any]) -> dict[str, str]:
    origin = {key.removeprefix(_TAG): str(value) for key, value in data.items() if key.startswith(_TAG)}
    if made := data.get("_audit_creation_method"):
        origin["generator"] = str(made)
    return origin


def _read_poscar(path: Path) -> Iterator[tuple[Structure, dict[str, str]]]:
    yield Poscar.from_str(path.read_text(encoding="utf-8"), read_velocities=False).structure, {}


def _read_json(path: Path) -> Iterator[tuple[Structure, dict[str, str]]]:
    """pymatgen's `Structure.as_dict()`, alone or in a list. Built by hand: its own decoder would import anything."""
    content = json.loads(path.read_text(encoding="utf-8"))
    for entry in content if isinstance(content, list) else [content]:
        entry = entry.get("structure", entry)
        species, coordinates = [], []
        for site in entry["sites"]:
            if len(site["species"]) != 1 or abs(float(site["species"][0]["occu"]) - 1) > 1e-3:
                raise UserError(f"{path}: found partial occupancy, expected whole atoms")
            species.append(Element(str(site["species"][0]["element"])))
            coordinates.append([float(x) for x in site["abc"]])
        lattice = Lattice(np.array(entry["lattice"]["matrix"], dtype=float))
        origin = {str(k): str(v) for k, v in (entry.get("properties") or {}).items()}
        yield Structure(lattice, species, coordinates), origin


# --- writing


def write_structure(
    path: str | os.PathLike[str], structure: Structure, origin: Mapping[str, object] | None = None
) -> None:
    """Write one crystal, in the format that the name's end says (.cif, .vasp / POSCAR, .extxyz, .json).

    `origin` says what made it (generator, model, model_sha256, seed, index, steps, training_data_licence ...);
    it is kept in every format. Raises UserError for an unknown end, OSError.
    """
    path, said = Path(path), {k: str(v) for k, v in (origin or {}).items() if str(v)}
    kinds: dict[str, Callable[[Structure, Mapping[str, str]], str]] = {
        "cif": cif_text,
        "poscar": _poscar_text,
        "extxyz": format_frame,
        "json": _json_text,
    }
    if _kind(path) not in kinds:
        raise UserError(f"{path}: the name ends with {path.suffix!r}; expected .cif, .vasp, .extxyz or .json")
    text = kinds[_kind(path)](structure, said)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def cif_text(structure: Structure, origin: Mapping[str, object] | None = None, symprec: float | None = None) -> str:
    """A CIF: P1 with every atom, or symmetrised when `symprec` (Å) is given; `origin` as data items."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        body = str(CifWriter(structure, symprec=symprec)).splitlines()
    head = next(k for k, line in enumerate(body) if line.startswith("data_"))
    items = []
    for key, value in (origin or {}).items():
        name = "_audit_creation_method" if key == "generator" else f"{_TAG}{key}"
        text = " ".join(str(value).replace('"', "'").split())
        items.append(f'{name}   "{text}"')
    return "\n".join([body[head], *items, *body[head + 1 :]]) + "\n"


def _poscar_text(structure: Structure, origin: Mapping[str, str]) -> str:
    comment = "; ".join([structure.composition.reduced_formula, *(f"{k}={v}" for k, v in origin.items())])
    return Poscar(structure, comment=" ".join(comment.split())).get_str(significant_figures=10)


def _json_text(structure: Structure, origin: Mapping[str, str]) -> str:
    return json.dumps({**structure.as_dict(), "properties": dict(origin)}) + "\n"


def write_extxyz(
    path: str | os.PathLike[str], structures: Sequence[Structure], origins: Sequence[Mapping[str, str]] | None = None
) -> None:
    """All structures as frames of one extxyz file. Raises OSError."""
    with atomic_path(path) as temporary:
        frames = zip(structures, origins or [{}] * len(structures))
        temporary.write_text("".join(format_frame(s, o) for s, o in frames), encoding="utf-8")
