"""Screening molecules: every record accounted for, labels and figures right, the same at any number of workers."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import AllChem

from sciconsist.cli import main
from sciconsist.domains.molecules.screening import alerts, bonds_hold, diverse, examine, filter_names
from sciconsist.errors import UserError
from sciconsist.workflows.molecule_output import sdf_record
from sciconsist.workflows.screen_molecules import screen_molecules

SMILES = ("CCO", "OCC", "c1ccccc1O", "C[C@H](O)C=O", "C[C@@H](O)C=O", "CC(=O)Oc1ccccc1C(=O)O", "CC(=O)NCCO")


def molecule(smiles: str, **properties: str) -> Chem.Mol:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMolecule(mol, randomSeed=1)
    AllChem.MMFFOptimizeMolecule(mol)
    for name, text in properties.items():
        mol.SetProp(name, text)
    return mol


@pytest.fixture
def sdf(tmp_path: Path) -> Path:
    path = tmp_path / "in.sdf"
    path.write_text("".join(sdf_record(molecule(s, seed="7", index=str(k))) for k, s in enumerate(SMILES)))
    return path


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "ranked.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_screen(tmp_path: Path, sdf: Path) -> None:
    (tmp_path / "library.smi").write_text("OCC\nC[C@H](O)C=O\n")
    out = tmp_path / "out"
    out.mkdir()
    found = screen_molecules(sdf, out, novel_to=tmp_path / "library.smi", picks=3)
    rows = table(out)
    assert len(rows) == len(SMILES) == found.summary["records"]
    assert found.summary["unique"] == 6 and found.summary["duplicate"] == 1
    (twin,) = [r for r in rows if r["status"] == "duplicate"]
    assert twin["record"] == "2" and twin["note"] == "of record 1" and twin["rank"] == ""
    ranked = [r for r in rows if r["status"] == "unique"]
    scores = [float(r["score"]) for r in ranked]
    assert scores == sorted(scores, reverse=True) and [int(r["rank"]) for r in ranked] == list(range(1, 7))
    for r in ranked:
        assert float(r["score"]) == pytest.approx((float(r["qed"]) + (10 - float(r["sa"])) / 9) / 2, abs=1e-4)
    novel = {r["smiles"]: r["novel"] for r in ranked}
    assert novel["CCO"] == "no" and novel["CC(=O)NCCO"] == "yes"
    assert {novel[s] for s in novel if "@" in s} == {"no"}  # novelty does not look at stereo
    assert sorted(r["pick"] for r in ranked if r["pick"]) == ["1", "2", "3"]
    kept = list(Chem.SDMolSupplier(str(out / "ranked.sdf"), removeHs=False))
    assert [m.GetProp("screen_smiles") for m in kept] == [r["smiles"] for r in ranked]
    assert all(m.GetProp("seed") == "7" and m.GetProp("index") for m in kept)  # where it came from stays with it
    assert len(list(Chem.SDMolSupplier(str(out / "picks.sdf")))) == 3
    assert "not verdicts" in (out / "report.html").read_text()
    assert not (out / "errors.jsonl").exists()


def test_alerts_label_aspirin_and_do_not_judge_it() -> None:
    aspirin = Chem.MolFromSmiles("CC(=O)Oc1ccccc1C(=O)O")
    labels = alerts(aspirin, filter_names("default"))
    assert any("phenol_ester" in label.lower() or "ester" in label.lower() for label in labels)
    assert alerts(aspirin, filter_names("none")) == []
    assert all(label.startswith("PAINS") for label in alerts(aspirin, filter_names("pains")))
    plain = examine(1, "", molecule("CC(=O)Oc1ccccc1C(=O)O"), ())
    labelled = examine(1, "", molecule("CC(=O)Oc1ccccc1C(=O)O"), filter_names("default"))
    assert plain.score == labelled.score and labelled.alerts


def test_workers_do_not_change_the_result(tmp_path: Path, sdf: Path) -> None:
    sdf.write_text(sdf.read_text() * 6)
    tables = []
    for workers in (1, 2):
        out = tmp_path / f"out{workers}"
        out.mkdir()
        screen_molecules(sdf, out, workers=workers, picks=4, seed=3)
        tables.append([(out / name).read_bytes() for name in ("ranked.csv", "ranked.sdf", "picks.sdf", "report.html")])
    assert tables[0] == tables[1]


def test_relaxation_finds_the_minimum(tmp_path: Path) -> None:
    pytest.importorskip("tblite")
    mol = molecule("CCO")
    mol.GetConformer().SetPositions(mol.GetConformer().GetPositions() * 1.03)
    row = examine(1, "", mol, (), relax=True)
    assert row.figures["relaxation_kcal_mol"] > 1 and row.figures["rmsd_angstrom"] > 0.01 and row.note == ""
    assert row.mol is not None and bonds_hold(row.mol)
    again = examine(1, "", row.mol, (), relax=True)
    assert again.figures["relaxation_kcal_mol"] < 0.05
    assert not bonds_hold(molecule_torn())


def molecule_torn() -> Chem.Mol:
    mol = molecule("CCO")
    mol.GetConformer().SetPositions(mol.GetConformer().GetPositions() * 2)
    return mol


def test_diverse_picks_are_different_and_repeat() -> None:
    smiles = ["CCCCO", "CCCCCO", "CCCCCCO", "c1ccncc1", "C1CC1C#N"]
    assert set(diverse(smiles, 3, 0)) == {0, 3, 4}
    assert diverse(smiles, 3, 0) == diverse(smiles, 3, 0)
    assert diverse(smiles, 9, 0) == list(range(5)) and diverse([], 3, 0) == diverse(smiles, 0, 0) == []


def test_records_that_cannot_be_read_are_listed(tmp_path: Path, sdf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = sdf.read_text()
    first = text.index("$$$$\n") + 5
    sdf.write_text(text[:first].replace(" O   0", " Xx  0") + text[first : len(text) - 400])
    out = tmp_path / "out"
    assert main(["screen", "molecules", str(sdf), "-o", str(out), "--json", "--quiet"]) == 3
    captured = capsys.readouterr()
    assert captured.err.startswith("partly done: 2 of") and captured.err.count("\n") == 1
    assert json.loads(captured.out)["not_read"] == 2
    errors = [json.loads(line) for line in (out / "errors.jsonl").read_text().splitlines()]
    assert [e["record"] for e in errors] == [1, len(SMILES)]
    assert len(table(out)) == len(SMILES) - 2


def test_what_is_no_molecule_is_at_the_end(tmp_path: Path) -> None:
    bare = Chem.RWMol(molecule("CCO"))
    bare.RemoveAtom(bare.GetNumAtoms() - 1)
    (tmp_path / "in.sdf").write_text(sdf_record(bare.GetMol()) + sdf_record(molecule("CCN")))
    found = screen_molecules(tmp_path / "in.sdf", tmp_path)
    assert [r.status for r in found.rows] == ["unique", "invalid"]


@pytest.mark.parametrize(
    ("extra", "words"),
    [(["--filters", "pain"], "pains"), (["--relax", "uff"], "gfn2"), (["--novel-to", "absent.smi"], "absent.smi")],
)
def test_mistakes(tmp_path: Path, sdf: Path, capsys: pytest.CaptureFixture[str], extra: list[str], words: str) -> None:
    assert main(["screen", "molecules", str(sdf), "-o", str(tmp_path / "out"), *extra]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and words in captured.err
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="absent"):
        screen_molecules(tmp_path / "absent.sdf", tmp_path)


def test_descriptors_do_not_depend_on_the_order_of_atoms() -> None:
    mol = molecule("CC(=O)Oc1ccccc1C(=O)O")
    order = np.random.default_rng(0).permutation(mol.GetNumAtoms()).tolist()
    one, two = examine(1, "", mol, ()), examine(1, "", Chem.RenumberAtoms(mol, order), ())
    assert one.smiles == two.smiles and one.score == pytest.approx(two.score, abs=1e-9)
