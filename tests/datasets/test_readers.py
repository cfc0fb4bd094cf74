"""Readers of users' files: what is whole comes through, what is not ends in one UserError that names it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rdkit import Chem
from rdkit.Chem import AllChem

from sciconsist.datasets import c7h10o2, qm7, qm9, qm9_gfn2, registry
from sciconsist.datasets.sdf import read_sdf
from sciconsist.datasets.xyz import read_xyz
from sciconsist.errors import UserError

WATER_XYZ = "3\nwater\nO 0 0 0\nH 0.757 0.586 0\nH -0.757 0.586 0\n"
RAW_METHANE = """5
gdb 1\t157.7118\t157.70997\t157.70699\t0.\t13.21\t-0.3877\t0.1171\t0.5048\t35.3641\t0.044749\t-40.47893\t-40.476062\t-40.475117\t-40.498597\t6.469\t
C\t-0.0126981359\t 1.0858041578\t 0.0080009958\t-0.535689
H\t 0.002150416\t-0.0060313176\t 0.0019761204\t 0.133921
H\t 1.0117308433\t 1.4637511618\t 2.765*^-4\t 0.133922
H\t-0.540815069\t 1.4475266138\t-0.8766437152\t 0.133923
H\t-0.5238136345\t 1.4379326443\t 0.9063972942\t 0.133923
1341.307\t1341.3284\t1341.365\t1562.6731\t1562.7453\t3038.3205\t3151.6034\t3151.6788\t3151.7078
C\tC\t
InChI=1S/CH4/h1H4\tInChI=1S/CH4/h1H4
"""  # noqa: E501


def sdf_text() -> str:
    blocks = []
    for smiles in ("CCO", "c1ccoc1"):
        mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
        AllChem.EmbedMolecule(mol, randomSeed=3)
        mol.SetProp("_Name", smiles)
        blocks.append(Chem.MolToMolBlock(mol) + ">  <gap_ev>\n6.5\n\n$$$$\n")
    return "".join(blocks)


SDF = sdf_text()


def test_sdf_and_folder(tmp_path):
    path = tmp_path / "a.sdf"
    path.write_text(SDF)
    for source in (path, tmp_path):
        records = read_sdf(source)
        assert [r.name for r in records] == ["CCO", "c1ccoc1"]
        assert records[0].properties == {"gap_ev": 6.5}
        assert records[0].same_graph and not records[0].radical
        assert records[0].mol.GetNumAtoms() == 9


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        (SDF[: len(SDF) * 3 // 4], "record 2"),
        (SDF.replace(" C  ", " Xx ", 1), "record 1"),
        (SDF.replace(" C  ", " *  ", 1), "known elements"),
        (SDF.replace("3D", "2D"), "no 3D conformer"),
        ("no sdf at all\n" * 3, "cut off"),
    ],
)
def test_broken_sdf(tmp_path, text, said):
    path = tmp_path / "broken.sdf"
    path.write_text(text)
    with pytest.raises(UserError, match=said) as caught:
        read_sdf(path)
    assert "broken.sdf" in str(caught.value) and "expected" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sdf_with_an_absent_or_impossible_conformer(tmp_path):
    path = tmp_path / "flat.sdf"
    flat = Chem.AddHs(Chem.MolFromSmiles("C"))
    path.write_text(Chem.MolToMolBlock(flat) + "$$$$\n")
    with pytest.raises(UserError, match="record 1"):
        read_sdf(path)
    lines = SDF.splitlines(keepends=True)
    lines[4] = "       nan" + lines[4][10:]
    path.write_text("".join(lines))
    with pytest.raises(UserError, match="record 1"):
        read_sdf(path)


def test_sdf_whose_bonds_make_no_molecule(tmp_path):
    path = tmp_path / "raw.sdf"
    mol = Chem.RWMol(Chem.MolFromMolBlock(SDF.split("$$$$")[0], removeHs=False))
    for bond in mol.GetBonds():
        bond.SetBondType(Chem.BondType.TRIPLE)
    path.write_text(Chem.MolToMolBlock(mol, kekulize=False) + "$$$$\n")
    with pytest.raises(UserError, match=r"record 1.*no molecule"):
        read_sdf(path)
    (kept,) = read_sdf(path, sanitize=False)
    assert kept.mol.GetNumAtoms() == 9 and kept.mol.GetNumConformers() == 1


def test_xyz(tmp_path):
    path = tmp_path / "w.xyz"
    path.write_text(WATER_XYZ * 2)
    records = read_xyz(path)
    assert len(records) == 2
    assert Chem.MolToSmiles(Chem.RemoveHs(records[0].mol)) == "O"
    path.write_text("1\nlone\nC 0 0 0\n")
    with pytest.raises(UserError, match="record 1"):
        read_xyz(path)
    assert read_xyz(path, sanitize=False)[0].mol.GetNumBonds() == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        (WATER_XYZ + WATER_XYZ[:25], "record 2.*cut off"),
        (WATER_XYZ.replace("O 0", "Qq 0"), "element"),
        (WATER_XYZ.replace("0.757", "nan"), "not finite"),
        (WATER_XYZ.replace("0.757", "1e300"), "10,000"),
        (WATER_XYZ.replace("3\n", "many\n", 1), "number of atoms"),
        (WATER_XYZ.replace("3\n", "99999999\n", 1), "1 to 10000"),
        ("2\n\nH 0 0 0\nH 0 0 0\n", "one point"),
    ],
)
def test_broken_xyz(tmp_path, text, said):
    path = tmp_path / "broken.xyz"
    path.write_text(text)
    with pytest.raises(UserError, match=said) as caught:
        read_xyz(path)
    assert "broken.xyz" in str(caught.value)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_only_user_errors_leave_the_readers(tmp_path, data):
    """Bytes overwritten, cut and repeated at random."""
    for text, name, read in ((SDF, "m.sdf", read_sdf), (WATER_XYZ, "m.xyz", read_xyz)):
        raw = bytearray(text.encode())
        for _ in range(data.draw(st.integers(1, 4))):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        raw = raw[: data.draw(st.integers(1, len(raw)))]
        (tmp_path / name).write_bytes(raw)
        try:
            records = read(tmp_path / name, sanitize=False)
        except UserError:
            continue
        assert all(np.isfinite(r.mol.GetConformer().GetPositions()).all() for r in records)


def test_raw_qm9(tmp_path):
    (tmp_path / "dsgdb9nsd_000001.xyz").write_text(RAW_METHANE)
    (record,) = qm9.load("train", path=tmp_path)
    assert Chem.MolToSmiles(Chem.RemoveHs(record.mol)) == "C" and record.same_graph
    assert record.properties["gap_ha"] == 0.5048 and record.properties["cv_cal_molk"] == 6.469
    assert qm9.load("test", path=tmp_path) == []
    (tmp_path / "dsgdb9nsd_000001.xyz").write_text(RAW_METHANE[:200])
    with pytest.raises(UserError, match="dsgdb9nsd_000001"):
        qm9.load("train", path=tmp_path)


def test_gdb9_sdf(tmp_path):
    path = tmp_path / "gdb9.sdf"
    path.write_text(SDF.replace("CCO\n", "gdb_1\n", 1).replace("c1ccoc1\n", "gdb_2\n", 1))
    names = ",".join(qm9.PROPERTIES)
    (tmp_path / "gdb9.sdf.csv").write_text(f"mol_id,{names}\ngdb_1,{','.join(['1.5'] * 15)}\n")
    first, second = qm9.load("train", path=path)
    assert first.properties["gap_ha"] == 1.5 and second.properties == {"gap_ev": 6.5}
    path.write_text(SDF)
    with pytest.raises(UserError, match="expected gdb_1"):
        qm9.load("train", path=path)


def test_splits_are_those_of_the_manifest():
    assert [qm9.split_of(i) for i in (3, 133, 5, 25, 15, 1)] == [
        "test",
        "test",
        "val",
        "val",
        "train",
        "train",
    ]


def test_qm9_gfn2(data_dir):
    train = qm9_gfn2.load("train", limit=300)
    assert len(train) == 300 and all(r.same_graph for r in train)
    everything = qm9_gfn2.load("val")
    assert sum(not r.same_graph for r in everything) > 0
    assert len(qm9_gfn2.load("val", radicals=False)) == sum(not r.radical for r in everything)
    assert 0.005 < np.mean([r.radical for r in everything]) < 0.03
    assert len(qm9_gfn2.all_smiles()) > 120_000


def test_other_molecule_sets(data_dir):
    isomers = c7h10o2.load(limit=40)
    assert {Chem.rdMolDescriptors.CalcMolFormula(r.mol) for r in isomers} == {"C7H10O2"}
    assert len(qm7.load(limit=40)) == 40


def test_broken_npz(tmp_path, data_dir):
    whole = (data_dir / "molecules/qm9_gfn2_val.npz").read_bytes()
    path = tmp_path / "qm9_gfn2_val.npz"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="qm9_gfn2_val"):
        qm9_gfn2.read(path)
    np.savez(path, numbers=np.zeros((1, 1)))
    with pytest.raises(UserError, match="expected also"):
        qm9_gfn2.read(path)
    np.savez(path, numbers=np.array([{}], dtype=object))  # a pickle inside
    with pytest.raises(UserError, match="qm9_gfn2_val"):
        qm9_gfn2.read(path)


def test_registry_says_what_it_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("SCICONSIST_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"qm7_7101.npz.*data.*cache"):
        registry.find("qm7")
    with pytest.raises(UserError, match=r"known: .*qm9-gfn2"):
        registry.find("qm10")
    with pytest.raises(UserError, match="no split"):
        registry.find("qm7", "train")
    (tmp_path / "cache/sciconsist/data/molecules").mkdir(parents=True)
    (tmp_path / "cache/sciconsist/data/molecules/qm7_7101.npz").write_bytes(b"x")
    (found,) = registry.find("qm7")
    assert registry.verify("qm7") == {found: False}


def test_loaders_exist():
    from importlib import import_module

    for dataset in registry.DATASETS.values():
        assert dataset.licence and dataset.citation and dataset.source
        if dataset.loader:
            module, function = dataset.loader.split(":")
            assert callable(getattr(import_module(f"sciconsist.datasets.{module}"), function))
