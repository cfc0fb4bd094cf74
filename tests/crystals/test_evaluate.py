"""Scoring crystals end to end, and readers of public data sets."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from pymatgen.core import Lattice, Structure

pytest.importorskip("smact")

from sciconsist.cli import main
from sciconsist.datasets import crystal_csv, registry
from sciconsist.domains.crystals.files import cif_text, write_structure
from sciconsist.errors import UserError
from sciconsist.workflows.crystal_reference import read_reference
from sciconsist.workflows.evaluate_crystals import evaluate_crystals


def rocksalt(cation: str, anion: str, a: float) -> Structure:
    return Structure.from_spacegroup(225, Lattice.cubic(a), [cation, anion], [[0, 0, 0], [0.5, 0.5, 0.5]])


SALTS = [rocksalt("Na", "Cl", 5.64), rocksalt("K", "Br", 6.6), rocksalt("Mg", "O", 4.21), rocksalt("Li", "F", 4.03)]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Four samples, one of them broken and one repeated, and three real crystals."""
    samples, real = tmp_path / "samples", tmp_path / "real"
    samples.mkdir()
    real.mkdir()
    for k, structure in enumerate([SALTS[0], SALTS[0] * (1, 1, 1), SALTS[1]]):
        write_structure(samples / f"{k:05d}.cif", structure, {"generator": "a test", "index": k})
    (samples / "00003.cif").write_text("data_x\n")
    for k, structure in enumerate(SALTS[:3]):
        write_structure(real / f"{k}.cif", structure)
    return samples, real


def test_every_sample_is_in_the_denominator(folders: tuple[Path, Path]) -> None:
    samples, real = folders
    found = evaluate_crystals(samples, str(real), known=str(real / "0.cif"), match=True)
    figures = found.to_json()["samples"]
    assert figures["n"] == 4 and figures["unreadable"] == 1
    assert figures["validity"]["structural"] == 0.75 and figures["validity"]["valid"] == 0.75
    assert figures["novelty"]["unique"] == 0.5 and figures["novelty"]["novel"] == 0.25
    assert figures["match"]["all_rows"]["match_rate_k1"] == pytest.approx(2 / 3)
    assert figures["match"]["all_rows"]["rmse_k1"] == pytest.approx(0, abs=1e-6)
    assert found.about["baselines"]["substitution"]["known"] == 1 and found.about["origin"]["generator"] == "a test"
    assert {name: value for name, value, _ in found.table()}["substitution.all_rows.match_rate_k1"] == 1


def test_guesses_may_name_their_target(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "r").mkdir()
    write_structure(tmp_path / "r" / "a.cif", SALTS[0])
    write_structure(tmp_path / "r" / "b.cif", SALTS[0] * (2, 1, 1))
    write_structure(tmp_path / "s" / "0.cif", SALTS[0], {"target": "b"})
    found = evaluate_crystals(tmp_path / "s", str(tmp_path / "r"), match=True, known=str(tmp_path / "r"))
    assert found.samples["match"]["all_rows"]["match_rate_k1"] == 0.5
    with pytest.raises(UserError, match="no predictions"):
        evaluate_crystals([SALTS[2]], str(tmp_path / "r"), match=True)


def test_the_command_writes_json_and_page(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples, real = map(str, folders)
    output, page = tmp_path / "r.json", tmp_path / "r.html"
    command = [
        "evaluate",
        "crystals",
        samples,
        "--reference",
        real,
        "--known",
        real,
        "-o",
        str(output),
        "--html",
        str(page),
    ]
    assert main([*command, "--json", "--quiet"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads(output.read_text()) and told["samples"]["validity"]["smact_version"]
    assert told["samples"]["novelty"]["tolerances"] == {"ltol": 0.2, "stol": 0.3, "angle_tol": 5.0}
    assert "Structurally valid" in page.read_text() and "NaCl" in page.read_text()
    assert main(["evaluate", "crystals", samples, "--reference", "nowhere"]) == 2
    assert "mp-20-bt" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["mp-20", "mpts-52", "perov-5", "carbon-24"])
def test_public_csvs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / name.replace("-", "_")
    folder.mkdir()
    with (folder / "test.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["", "material_id", "e_above_hull", "pretty_formula", "cif"])
        writer.writerows([k, f"mp-{k}", 0.01 * k, "x", cif_text(s)] for k, s in enumerate(SALTS))
    monkeypatch.setenv("SCICONSIST_DATA_DIR", str(tmp_path))
    records = registry.load(name, "test", limit=3)
    assert [r.name for r in records] == ["mp-0", "mp-1", "mp-2"] and records[2].properties["e_above_hull"] == 0.02
    assert records[1].structure.composition == SALTS[1].composition
    assert read_reference(name)[1] == f"{name}:test" and len(read_reference(str(folder / "test.csv"))[0]) == 4


def test_a_broken_csv_names_its_record(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f'material_id,cif\na,"{cif_text(SALTS[0])}"\nb,"data_x"\n'.replace('"P 1"', "'P 1'"))
    with pytest.raises(UserError, match=r"x.csv, record 2"):
        crystal_csv.read_csv(path)
    path.write_text("material_id,energy\na,1\n")
    with pytest.raises(UserError, match="expected a cif"):
        crystal_csv.read_csv(path)


# eV/atom (Materials Project, MP2020) and space group. NaCl (mp-22862), GaAs (mp-2534) and LiFePO4 (mp-19017) are the
# ground states, so theirs is the hull; rutile (mp-2657) lies 0.037 above the hull at TiO2, -3.502.
KNOWN = {
    "NaCl": (-2.110, 225),
    "GaAs": (-0.353, 216),
    "TiO2": (-3.465, 136),
    "LiFePO4": (-2.480, 62),
}


@pytest.mark.slow
def test_known_compounds_come_through_the_screen(tmp_path: Path) -> None:
    """Built from their prototypes, relaxed with CHGNet: within 0.1 eV/atom of the Materials Project, right group."""
    pytest.importorskip("chgnet")
    olivine = [[0, 0, 0], [0.282, 0.25, 0.975], [0.095, 0.25, 0.418], [0.097, 0.25, 0.743], [0.457, 0.25, 0.206],
               [0.166, 0.047, 0.285]]  # fmt: skip
    prototypes = {
        "NaCl": rocksalt("Na", "Cl", 5.64),
        "GaAs": Structure.from_spacegroup(216, Lattice.cubic(5.65), ["Ga", "As"], [[0, 0, 0], [0.25] * 3]),
        "TiO2": Structure.from_spacegroup(
            136, Lattice.tetragonal(4.594, 2.959), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]
        ),
        "LiFePO4": Structure.from_spacegroup(
            62, Lattice.orthorhombic(10.33, 6.01, 4.69), ["Li", "Fe", "P", "O", "O", "O"], olivine
        ),
    }
    for name, structure in prototypes.items():
        write_structure(tmp_path / f"{name}.cif", structure.get_primitive_structure())
    out = tmp_path / "out"
    assert main(["screen", "crystals", str(tmp_path), "-o", str(out), "--quiet", "--workers", "1"]) == 0
    with (out / "ranked.csv").open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    for name, (energy, group) in KNOWN.items():
        row = rows[name]
        assert row["status"] == "passed" and int(row["space_group_number"]) == group, row
        assert float(row["e_form"]) == pytest.approx(energy, abs=0.1)
        assert -0.05 < float(row["e_above_hull"]) < 0.1
