"""Screening: what falls and why, sandboxes, resuming; with cheap ASE calculators."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

pytest.importorskip("ase")
pytest.importorskip("smact")

from sciconsist.domains.crystals.files import read_file, write_structure
from sciconsist.domains.crystals.ranking import counts, rank
from sciconsist.domains.crystals.relax import Diverged, calculator, relax, single_point
from sciconsist.domains.crystals.screening import (
    Candidate,
    Settings,
    describe,
    plain_structure,
    screen_one,
    structure_of_plain,
    symmetry,
)
from sciconsist.domains.crystals.thermo import Hull
from sciconsist.errors import UserError
from sciconsist.workflows.sandbox import Sandboxes
from sciconsist.workflows.screen_materials import ScreenRequest, read_candidates, scale_for, screen

EMT = "ase.calculators.emt.EMT"
METALS = ["Cu", "Au", "Ag", "Pt", "Pd", "Ni", "Al"]


def alloy(seed: int) -> Structure:
    """Four metals on a face-centred lattice, shaken."""
    rng = np.random.default_rng(seed)
    species = [METALS[(seed + k) % 7] for k in range(4)]
    frac = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]) + 0.03 * rng.normal(size=(4, 3))
    return Structure(Lattice.cubic(4.0 + 0.01 * seed), species, frac)


def fcc(symbol: str, a: float) -> Structure:
    return Structure.from_spacegroup(225, Lattice.cubic(a), [symbol], [[0, 0, 0]])


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "ranked.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# --- relaxation


def test_relaxation_finds_emts_copper() -> None:
    """EMT's equilibrium lattice constant of copper is 3.589 Å, its energy near 0 (its own reference)."""
    found = relax(fcc("Cu", 3.8), calculator(EMT), fmax=0.001)
    assert found.converged and found.cell_free and found.structure.lattice.a == pytest.approx(3.589, abs=2e-3)
    assert found.energy == pytest.approx(0, abs=0.02) and found.energy < found.first_energy
    assert symmetry(found.structure)["space_group_number"] == 225


def test_a_cut_relaxation_says_so() -> None:
    found = relax(alloy(0), calculator(EMT), fmax=1e-9, steps=3)
    assert found.steps == 3 and not found.converged and found.max_force > 1e-9


@pytest.mark.parametrize("name", ["nowhere.EMT", "ase.calculators.emt.NoSuch", "EMT", "os.getcwd", "math.sqrt"])
def test_a_wrong_relaxer_is_a_user_error(name: str) -> None:
    with pytest.raises(UserError, match="relaxer"):
        calculator(name)


def test_energies_say_their_scale() -> None:
    assert scale_for("chgnet", None) == "mp2020" and scale_for(EMT, None) == "own" and scale_for(EMT, "raw") == "raw"
    for relaxer, given in (("chgnet", "raw"), (EMT, "pbe")):
        with pytest.raises(UserError, match="energies"):
            scale_for(relaxer, given)


# --- one candidate


class Broken:
    """A calculator whose energy is never a number."""

    implemented_properties = ("energy", "forces")

    def get_potential_energy(self, atoms: Any = None, force_consistent: bool = False) -> float:
        return float("nan")


def test_each_stage_says_why() -> None:
    calc, settings = calculator(EMT), Settings(relaxer=EMT, scale="own")

    def outcome(structure: Structure, calc: Any = calc, hull: float | None = None) -> tuple[str, str]:
        record = screen_one(Candidate("x", plain_structure(structure), hull), settings, calc)
        json.dumps(record, allow_nan=False)  # what comes out can be written
        return record["status"], record["stage"]

    near = Structure(Lattice.cubic(4), ["Cu", "Cu"], [[0, 0, 0], [0.1, 0, 0]])
    salt = Structure.from_spacegroup(225, Lattice.cubic(5.6), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    odd = Structure(Lattice.cubic(5), ["Na", "Na", "Cl"], [[0, 0, 0], [0.5, 0, 0], [0.5, 0.5, 0.5]])
    assert outcome(alloy(1)) == ("passed", "")
    assert outcome(near) == ("rejected", "distances")
    assert outcome(odd) == ("rejected", "charge")
    assert outcome(salt) == ("failed", "relaxation")  # EMT knows no sodium
    assert outcome(alloy(1), Broken()) == ("failed", "relaxation")
    assert outcome(alloy(1), hull=-5.0) == ("rejected", "prefilter")
    with pytest.raises(Diverged):
        single_point(alloy(0), Broken())


# --- many


def record(name: str, structure: Structure, energy: float | None, **more: Any) -> dict[str, Any]:
    made = {"name": name, "status": "passed", "stage": "", "reason": "", **describe(structure), **symmetry(structure)}
    return {**made, "energy": energy, "structure": plain_structure(structure), **more}


def salt(cation: str = "Na", a: float = 5.64) -> Structure:
    return Structure.from_spacegroup(225, Lattice.cubic(a), [cation, "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def test_ranking() -> None:
    hull = Hull({"Na": -1.0, "Cl": -2.0, "K": -1.0}, {"NaCl": -2.0}, "test", "own", partial=True)
    caesium = Structure.from_spacegroup(221, Lattice.cubic(3.5), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    zinc = Structure.from_spacegroup(216, Lattice.cubic(6.1), ["K", "Cl"], [[0, 0, 0], [0.25, 0.25, 0.25]])
    records = [
        record("worse", caesium, -3.45), record("best", salt(), -3.5), record("again", salt(a=5.7), -3.49),
        record("far", Structure(Lattice.cubic(9), ["Na", "Cl"], [[0, 0, 0], [0.3, 0, 0]]), -3.0),
        record("lithium", salt("Li", 5.1), -4.0), record("unknown", zinc, -2.0),
        {"name": "bad", "status": "failed", "stage": "file", "reason": "broken", "formula": ""},
    ]  # fmt: skip
    rows = rank(records, hull, 0.1, [("mp-1", salt())])
    assert rows == rank(records[::-1], hull, 0.1, [("mp-1", salt())])
    left = {row["name"]: row for row in rows if row["status"] == "passed"}
    assert list(left) == ["unknown", "best", "worse"]
    assert left["best"]["e_form"] == pytest.approx(-2.0) and left["best"]["e_above_hull"] == pytest.approx(0)
    assert left["best"]["known_as"] == "mp-1" and not left["worse"]["known_as"]
    assert not left["unknown"]["hull_known"] and left["unknown"]["e_above_hull"] == pytest.approx(-0.5)
    fell = {row["name"]: row["stage"] for row in rows if row["status"] != "passed"}
    assert fell == {"again": "duplicate", "far": "hull", "lithium": "references", "bad": "file"}
    found = counts(rows)
    assert found["passed"] == 3 and found["novel"] == 2 and found["failed"] == 1
    assert found["unknown_systems"] == ["Cl-K"]


def test_the_relaxers_error_at_a_known_formula_is_taken_off() -> None:
    hull = Hull({"Na": -1.0, "Cl": -2.0}, {"NaCl": -2.0}, "test", "own", partial=True)
    (row,) = rank([record("a", salt(), -3.4)], hull, 0.1, offsets={"NaCl": 0.08})
    assert row["e_above_hull"] == pytest.approx(0.02) and row["energy"] == -3.4 and row["offset"] == 0.08


# --- in child processes


def write_alloys(folder: Path, count: int) -> Path:
    folder.mkdir()
    for k in range(count):
        write_structure(folder / f"{k:05d}.cif", alloy(k), {"generator": "a test", "index": k})
    return folder


def request(**more: Any) -> ScreenRequest:
    options = {"reference": None, "workers": 2, "deadline": 120.0, **more}
    relaxer = options.pop("relaxer", EMT)
    settings = Settings(relaxer=relaxer, scale="own", steps=options.pop("steps", 60))
    return ScreenRequest(settings, **options)


MISBEHAVING = """
import os, time
from ase.calculators.emt import EMT

class Calc(EMT):
    def calculate(self, atoms, *rest):
        symbols = set(atoms.get_chemical_symbols())
        if symbols == {"Cu"}:
            os._exit(9)  # a crash in compiled code
        if symbols == {"Ag"}:
            time.sleep(1000)
        if symbols == {"Au"}:
            raise ArithmeticError("no solution")
        print("noise on standard output")
        super().calculate(atoms, *rest)
"""


def test_what_crashes_hangs_or_fails_is_a_row_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "misbehaving.py").write_text(MISBEHAVING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    boxes = Sandboxes(Settings(relaxer="misbehaving.Calc", scale="own"), deadline=30.0)
    try:
        boxes.start()
        records = {}
        for symbol in ("Cu", "Au", "Pt", "Ag", "Ni"):
            boxes.deadline = 3.0 if symbol == "Ag" else 120.0
            records[symbol] = boxes.screen(Candidate(symbol, plain_structure(fcc(symbol, 4.0))))
    finally:
        boxes.close()
    assert {k: r["status"] for k, r in records.items()} == {
        "Cu": "failed", "Au": "failed", "Pt": "passed", "Ag": "failed", "Ni": "passed",
    }  # fmt: skip
    assert "died" in records["Cu"]["reason"] and "deadline" in records["Ag"]["reason"]
    assert "ArithmeticError: no solution" in records["Au"]["reason"]
    assert all(child.process.poll() is not None for child in boxes.all)


def test_a_relaxer_that_cannot_be_made_ends_the_run_before_it_starts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be made"):
        screen(read_candidates([write_alloys(tmp_path / "in", 1)]), tmp_path / "out", request(relaxer="no.where"))


def test_a_screen_end_to_end(tmp_path: Path) -> None:
    folder = write_alloys(tmp_path / "in", 3)
    (folder / "00003.cif").write_text("data_broken\n")
    write_structure(folder / "00004.cif", alloy(1), {})  # the same as 00001
    known = tmp_path / "known"
    known.mkdir()
    out = tmp_path / "out"
    first = screen(read_candidates([folder]), out, request())
    assert first["candidates"] == 5 and first["fell"] == {"file": 1, "duplicate": 1} and first["passed"] == 3
    rows = table(out)
    assert [row["rank"] for row in rows] == ["1", "2", "3", "", ""] and rows[0]["converged"] == "yes"
    assert json.loads((out / "errors.jsonl").read_text())["name"] == "00003.cif"
    (relaxed,) = read_file(out / "relaxed" / f"{rows[0]['name']}.cif")
    assert relaxed.origin["generator"] == "a test" and relaxed.origin["relaxer"] == EMT
    assert "3Dmol" in (out / "report.html").read_text() and (out / "symmetrized").is_dir()

    # again: refused, then taken up, then with a known crystal and nothing computed anew
    with pytest.raises(UserError, match="--resume"):
        screen(read_candidates([folder]), out, request())
    write_structure(known / "k.cif", relaxed.structure)
    again = screen(read_candidates([folder]), out, request(reference=str(known)), resume=True)
    assert again["resumed"] == 4 and again["novel"] == 2
    with pytest.raises(UserError, match="was begun with"):
        screen(read_candidates([folder]), out, request(steps=5), resume=True)


def test_no_relaxer_ranks_without_energies(tmp_path: Path) -> None:
    write_structure(tmp_path / "a.cif", salt())
    found = screen(read_candidates([tmp_path / "a.cif"]), tmp_path / "out", request(relaxer="none"))
    (row,) = found["rows"]
    assert row["status"] == "passed" and row.get("energy") is None and row["space_group_number"] == 225


def _screen(folder: Path, out: Path) -> None:
    os.setpgrp()
    screen(read_candidates([folder]), out, request(reference=str(folder), workers=2), resume=True)


@pytest.mark.slow
def test_killed_at_random_moments_the_table_is_the_same(tmp_path: Path) -> None:
    """SIGKILL, then again with --resume, eight times: no finished candidate is lost, repeated or changed."""
    folder = write_alloys(tmp_path / "in", 10)
    begin = time.monotonic()
    screen(read_candidates([folder]), tmp_path / "whole", request(reference=str(folder)))
    whole = time.monotonic() - begin
    rng = np.random.default_rng(0)
    out = tmp_path / "killed"
    out.mkdir()
    kept: dict[str, bytes] = {}
    for _ in range(8):
        process = multiprocessing.get_context("fork").Process(target=_screen, args=(folder, out))
        process.start()
        time.sleep(float(rng.uniform(0, whole)))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        files = {f.name: f.read_bytes() for f in (out / "results").glob("*.json")} if (out / "results").exists() else {}
        assert kept.items() <= files.items()  # seconds are in them: none was computed again
        kept = files
    summary = screen(read_candidates([folder]), out, request(reference=str(folder)), resume=True)
    assert summary["candidates"] == 10 and summary["resumed"] == len(kept)
    assert (out / "ranked.csv").read_bytes() == (tmp_path / "whole" / "ranked.csv").read_bytes()
    names = sorted(f.name for f in (tmp_path / "whole" / "relaxed").iterdir())
    assert names == sorted(f.name for f in (out / "relaxed").iterdir()) and len(names) == 10
    for name in names:
        assert (out / "relaxed" / name).read_bytes() == (tmp_path / "whole" / "relaxed" / name).read_bytes()


def test_plain_structures_are_exact() -> None:
    structure = alloy(2)
    back = structure_of_plain(json.loads(json.dumps(plain_structure(structure))))
    assert np.array_equal(back.frac_coords, structure.frac_coords) and back.lattice == structure.lattice
