"""Reading and writing crystals: round trips, what is refused, and one kind of error whatever the file holds."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from sciconsist.domains.crystals.files import (
    cif_text,
    read_file,
    read_readable,
    read_structures,
    write_extxyz,
    write_structure,
)
from sciconsist.errors import UserError

ORIGIN = {"generator": "sciconsist 0.1", "model": 'a "model"', "seed": "3", "index": "7", "steps": "4"}


@pytest.fixture
def rutile() -> Structure:
    return Structure.from_spacegroup(136, Lattice.tetragonal(4.594, 2.959), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]])


@pytest.mark.parametrize("name", ["a.cif", "POSCAR", "a.vasp", "a.extxyz", "a.json"])
def test_round_trip(tmp_path: Path, rutile: Structure, name: str) -> None:
    write_structure(tmp_path / name, rutile, ORIGIN)
    (record,) = read_file(tmp_path / name)
    np.testing.assert_allclose(record.structure.lattice.abc, rutile.lattice.abc, atol=1e-6)
    assert StructureMatcher(ltol=1e-4, stol=1e-4, angle_tol=1e-2, primitive_cell=False).fit(record.structure, rutile)
    if "POSCAR" not in name and ".vasp" not in name:  # there it is in the comment
        assert record.origin["index"] == "7" and record.origin["model"].replace('"', "'") == "a 'model'"
    else:
        assert "index=7" in (tmp_path / name).read_text().splitlines()[0]


def test_cif_is_p1_and_says_what_made_it(rutile: Structure) -> None:
    text = cif_text(rutile, ORIGIN)
    assert "'P 1'" in text and text.splitlines()[1] == '_audit_creation_method   "sciconsist 0.1"'
    assert "Int_Tables_number   136" in cif_text(rutile, ORIGIN, symprec=0.01)


def test_many_in_one_file_and_a_folder(tmp_path: Path, rutile: Structure) -> None:
    write_extxyz(tmp_path / "b.extxyz", [rutile, rutile * (2, 1, 1)])
    write_structure(tmp_path / "a.cif", rutile)
    (tmp_path / "notes.txt").write_text("no structure")
    found = read_structures(tmp_path)
    assert [(r.name, len(r.structure)) for r in found] == [("a", 6), ("b-1", 6), ("b-2", 12)]
    (tmp_path / "c.cif").write_text("data_x\n")
    kinds = [isinstance(record, UserError) for _, record in read_readable(tmp_path)]
    assert kinds == [False, False, False, True]


@pytest.mark.parametrize("occupancy", ["0.5", "0.5(1)", "1.5"])
def test_partial_occupancy_is_refused_by_name(tmp_path: Path, rutile: Structure, occupancy: str) -> None:
    lines = cif_text(rutile).splitlines()
    assert lines[-1].endswith("1")
    lines[-1] = lines[-1].rstrip("1").rstrip() + f"  {occupancy}"
    (tmp_path / "x.cif").write_text("\n".join(lines))
    with pytest.raises(UserError, match="partial occupancy"):
        read_file(tmp_path / "x.cif")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.cif", ""),
        ("a.cif", "data_x\n_cell_length_a 1\n"),
        ("POSCAR", "x\n1.0\n"),
        ("a.extxyz", "2\nno lattice\nH 0 0 0\nH 0 0 1\n"),
        ("a.extxyz", '2\nLattice="1 0 0 0 1 0 0 0 1"\nH 0 0 0\n'),
        ("a.extxyz", '1\nLattice="1 0 0 0 nan 0 0 0 1"\nH 0 0 0\n'),
        ("a.extxyz", '1\nLattice="1 0 0 0 1 0 0 0 0"\nH 0 0 0\n'),
        ("a.json", "{}"),
        ("a.json", '{"@module": "os", "@class": "system"}'),
        ("a.dat", "x"),
    ],
)
def test_broken_files_are_user_errors(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=name):
        read_file(tmp_path / name)


def test_mutated_files_raise_one_kind_of_error(tmp_path: Path, rutile: Structure) -> None:
    rng = random.Random(0)
    outcomes = set()
    for name in ("a.cif", "POSCAR", "a.extxyz", "a.json"):
        write_structure(tmp_path / name, rutile)
        good = (tmp_path / name).read_text()
        for _ in range(40):
            text = list(good)
            for _ in range(rng.randint(1, 6)):
                text[rng.randrange(len(text))] = rng.choice("0123456789.-+eE nNaAxX\n'\"_{}[]")
            (tmp_path / name).write_text("".join(text)[: rng.choice([None, len(text) // 2])])
            try:
                for record in read_file(tmp_path / name):
                    assert np.isfinite(record.structure.lattice.matrix).all()
                    assert np.isfinite(record.structure.frac_coords).all()
                outcomes.add("read")
            except UserError:
                outcomes.add("refused")
    assert outcomes == {"read", "refused"}


def test_json_decoder_imports_nothing(tmp_path: Path, rutile: Structure) -> None:
    entry = rutile.as_dict()
    entry["sites"][0]["properties"] = {"x": {"@module": "this", "@class": "c"}}
    (tmp_path / "a.json").write_text(json.dumps([entry, {"structure": rutile.as_dict()}]))
    import sys

    assert len(read_file(tmp_path / "a.json")) == 2 and "this" not in sys.modules
