"""Generating molecules and conformers: the same for any batch, exact requests, usable results, bad inputs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rdkit import Chem
from rdkit.Chem import AllChem

from sciconsist.domains.molecules.metrics.validity import canonical_smiles
from sciconsist.errors import UserError
from sciconsist.flowmap import FlowMap
from sciconsist.workflows.conformers import Conformers, Request
from sciconsist.workflows.demo import demo
from sciconsist.workflows.generate import Molecules, generate
from sciconsist.workflows.models import WEIGHTS, load, shipped
from sciconsist.workflows.molecule_output import sdf_record, write_stream

NAME = "molecules-qm9gfn2"


@pytest.fixture(scope="module")
def model() -> FlowMap:
    return load(NAME)


def smiles(mols: list[Chem.Mol]) -> list[str]:
    return [Chem.MolToSmiles(mol) for mol in mols]


@pytest.mark.parametrize("raw", [True, False])
def test_any_batch_size_gives_the_same_molecules(model: FlowMap, raw: bool) -> None:
    sets = [generate("molecules", 20, model=model, batch_size=b, raw=raw, seed=3) for b in (1, 7, 64)]
    for other in sets[1:]:
        assert smiles(other) == smiles(sets[0])
        for a, b in zip(sets[0], other):
            assert a.GetProp("index") == b.GetProp("index")
            difference = a.GetConformer().GetPositions() - b.GetConformer().GetPositions()
            assert np.abs(difference).max() < 1e-3


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(model: FlowMap) -> None:
    first, again, other = ("".join(map(sdf_record, generate("molecules", 6, model=model, seed=s))) for s in (0, 0, 1))
    assert first == again != other


def test_raw_is_every_sample_in_order(model: FlowMap) -> None:
    mols = generate("molecules", 30, model=model, raw=True, steps=1)
    assert [int(m.GetProp("index")) for m in mols] == list(range(30))
    assert all(m.GetProp("selection") == "raw" for m in mols)


def test_molecules_are_usable_and_say_where_they_come_from(model: FlowMap) -> None:
    mols = generate("molecules", 40, model=model, elements=["C", "N", "H"], atoms="4:5")
    assert len(mols) == 40
    bare = [Chem.MolToSmiles(Chem.RemoveHs(m), isomericSmiles=False) for m in mols]
    assert len(set(bare)) == 40
    for mol in mols:
        copy = Chem.Mol(mol)
        Chem.SanitizeMol(copy)
        assert len(Chem.GetMolFrags(copy)) == 1
        assert not any(a.GetNumRadicalElectrons() or a.GetTotalNumHs() for a in copy.GetAtoms())
        assert {a.GetSymbol() for a in mol.GetAtoms()} <= {"C", "N", "H"}
        assert mol.GetNumHeavyAtoms() in (4, 5)
        assert mol.GetConformer().Is3D()
        assert mol.GetProp("generator").startswith("sciconsist ")
        assert mol.GetProp("model") == NAME and len(mol.GetProp("model_sha256")) == 64
        assert mol.GetProp("note") == "computer-generated, not synthesised or tested"
        assert mol.GetProp("training_data_licence")


def test_what_is_known_does_not_come_out_and_is_counted(model: FlowMap) -> None:
    first = generate("molecules", 30, model=model, atoms=3)
    request = Molecules(model, novel_to=smiles(first), atoms=3)  # few others are there
    mols = list(request.take(30))
    assert not {*map(canonical_smiles, mols)} & {*map(canonical_smiles, first)}
    figures = request.counts.figures()
    assert figures["rejected_why"]["known"] > 0
    assert figures["drawn"] == figures["written"] + figures["rejected"]


def test_raw_samples_stay_away_from_what_is_known_where_they_can(model: FlowMap) -> None:
    plain = generate("molecules", 20, model=model, raw=True)
    known = {*map(canonical_smiles, plain)}
    away = generate("molecules", 20, model=model, raw=True, novel_to=smiles(plain))
    assert len(away) == 20 and sum(canonical_smiles(mol) in known for mol in away) < 10
    again = generate("molecules", 20, model=model, raw=True, novel_to=smiles(plain), batch_size=7)
    assert smiles(away) == smiles(again)


def test_an_impossible_request_ends_and_says_so(model: FlowMap) -> None:
    request = Molecules(model, elements=["F", "H"], atoms=3, steps=1)
    assert list(request.take(1)) == []
    assert request.counts.rejected["no valid graph"] == request.counts.drawn > 0
    raw = generate("molecules", 3, model=model, elements=["F", "H"], atoms=3, steps=1, raw=True)
    assert all({a.GetSymbol() for a in m.GetAtoms()} <= {"F", "H"} for m in raw)


def test_a_network_that_returns_nan_costs_samples_not_the_run(model: FlowMap) -> None:
    class Sometimes(torch.nn.Module):
        def forward(self, state: dict, *others: object) -> dict:
            out = model.net(state, *others)
            bad = state["positions"].sum((1, 2)).abs() * 1e8 % 2 > 1  # some samples
            out["atoms"][bad] = float("nan")
            return out

    broken = load(NAME)
    broken.net = Sometimes()
    raw = generate("molecules", 12, model=broken, raw=True)
    assert len(raw) == 12 and any(m.GetNumAtoms() == 0 for m in raw)
    assert len(generate("molecules", 4, model=broken)) == 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n": 0}, "at least 1"),
        ({"steps": 0}, "steps"),
        ({"seed": -1}, "seed"),
        ({"atoms": 40}, "trained on"),
        ({"atoms": "9:5"}, "range"),
        ({"atoms": "x"}, "range"),
        ({"elements": ["C", "Xx"]}, "'Xx': the model knows C"),
        ({"elements": ["H"]}, "heavier than H"),
        ({"batch_size": 0}, "batch size"),
        ({"device": "abacus"}, "expected cpu or cuda"),
        ({"model": "nonesuch"}, NAME),
        ({"domain": "poems"}, "poems"),
    ],
)
def test_bad_requests_are_user_errors(options: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        generate(**{"domain": "molecules", "n": 1, **options})


def test_a_damaged_model_file_is_a_user_error(tmp_path: Path) -> None:
    assert NAME in shipped()
    content = bytearray((WEIGHTS / f"{NAME}.safetensors").read_bytes())
    content[-1000] ^= 1
    (tmp_path / "flipped.safetensors").write_bytes(content)
    (tmp_path / "short.safetensors").write_bytes(content[:-1000])
    (tmp_path / "text.safetensors").write_text("hello")
    for path in tmp_path.iterdir():
        with pytest.raises(UserError, match=path.name):
            load(path)


# --- conformers


@pytest.mark.parametrize(
    "text",
    ["C[C@H](O)C[C@@H](F)C=O", "C/C=C\\C=N/O", "C1CC1C#N", "[2H]OC", "c1ccoc1", "C/C=N/[H]"],
)
def test_conformers_keep_the_graph_and_the_stereochemistry(model: FlowMap, text: str) -> None:
    job = Conformers(model, steps=4)
    mols = list(job.take_all([Request(text, "test")], 5))
    assert len(mols) == 5 and not job.errors
    want = Chem.AddHs(Chem.MolFromSmiles(text))
    for mol in mols:
        assert [a.GetAtomicNum() for a in mol.GetAtoms()] == [a.GetAtomicNum() for a in want.GetAtoms()]
        assert [(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in mol.GetBonds()] == [
            (b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in want.GetBonds()
        ]
        seen = Chem.Mol(mol)
        Chem.RemoveStereochemistry(seen)
        Chem.AssignStereochemistryFrom3D(seen)
        reference = Chem.MolFromSmiles(text)
        assert Chem.RemoveAllHs(seen).HasSubstructMatch(Chem.RemoveAllHs(reference), useChirality=True)
    distinct = {tuple(m.GetConformer().GetPositions().ravel().round(3)) for m in mols}
    assert len(distinct) == 5


@pytest.mark.parametrize("text", ["[H]/N=C1/OC[C@@]2(C)OC[C@@H]12", "[H]/N=C1\\OC[C@@]2(C)OC[C@@H]12"])
def test_a_hydrogen_goes_to_the_side_asked_for_of_its_double_bond(model: FlowMap, text: str) -> None:
    """The heavy atoms, all that the network places, do not say on which side it is."""
    job = Conformers(model, steps=4)
    (mol,) = job.take_all([Request(text, "test")], 1)
    assert not job.errors
    x, want = mol.GetConformer().GetPositions(), Chem.AddHs(Chem.MolFromSmiles(text))
    (bond,) = [b for b in want.GetBonds() if b.GetStereo() != Chem.BondStereo.STEREONONE]
    n, c = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
    first, last = bond.GetStereoAtoms()
    side = np.dot(np.cross(x[first] - x[n], x[c] - x[n]), np.cross(x[last] - x[c], x[n] - x[c]))
    apart = bond.GetStereo() in (Chem.BondStereo.STEREOE, Chem.BondStereo.STEREOTRANS)
    assert (side > 0) == apart  # the cross products of both ends point the same way across the bond
    assert 0.98 < np.linalg.norm(x[first] - x[n]) < 1.06  # N-H in Å


@pytest.mark.parametrize("text", ["CC[N@@]1[C@H](C=O)[C@@H]1C", "CC[N@]1[C@H](C=O)[C@@H]1C"])
def test_nitrogens_in_rings_keep_their_hand_too(model: FlowMap, text: str) -> None:
    """RDKit does not read them off coordinates: the volume of the bonds says it, as for its own embedding."""
    want = Chem.AddHs(Chem.MolFromSmiles(text))
    AllChem.EmbedMolecule(want, randomSeed=2)

    def volume(mol: Chem.Mol, centre: int) -> float:
        x = mol.GetConformer().GetPositions()
        return float(np.linalg.det(x[[b.GetOtherAtomIdx(centre) for b in mol.GetAtomWithIdx(centre).GetBonds()]][:3]
                                   - x[centre]))  # fmt: skip

    mols = list(Conformers(model, steps=4).take_all([Request(text, "test")], 3))
    assert len(mols) == 3
    for mol in mols:
        for centre in (2, 3, 6):
            assert volume(mol, centre) * volume(want, centre) > 0
    for centre in (3, 6):  # and the sign is RDKit's own where RDKit has one
        mark = want.GetAtomWithIdx(centre).GetChiralTag()
        assert (volume(want, centre) > 0) == (mark == Chem.ChiralType.CHI_TETRAHEDRAL_CCW)


def test_conformers_do_not_depend_on_the_batch_or_the_place_in_the_file(model: FlowMap) -> None:
    one = list(Conformers(model, batch_size=1).take_all([Request("CCO", "a")], 4))
    two = list(Conformers(model).take_all([Request("CO", "a"), Request("CCO", "b")], 4))[4:]
    for a, b in zip(one, two, strict=True):
        assert np.abs(a.GetConformer().GetPositions() - b.GetConformer().GetPositions()).max() < 1e-3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("C(", "cannot read"),
        ("CCS", "found S"),
        ("C" * 30, "30 heavy atoms"),
        ("C.C", "fragment"),
        ("[CH3]", "radical"),
        ("[H][H]", "hydrogen"),
    ],
)
def test_conformers_of_what_the_model_cannot_hold(model: FlowMap, text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        list(Conformers(model).take_all([Request(text, "record 1")], 1))


# --- output


def test_a_stop_keeps_finished_records_and_an_error_leaves_nothing(tmp_path: Path, model: FlowMap) -> None:
    mols = generate("molecules", 3, model=model)

    def stopped(error: BaseException):  # type: ignore[no-untyped-def]
        yield from mols
        raise error

    with pytest.raises(KeyboardInterrupt):
        write_stream(tmp_path / "stopped.sdf", stopped(KeyboardInterrupt()))
    kept = Chem.SDMolSupplier(str(tmp_path / "stopped.sdf"), removeHs=False)
    assert smiles(list(kept)) == smiles(mols)
    with pytest.raises(OSError):
        write_stream(tmp_path / "failed.sdf", stopped(OSError("disk")))
    assert [p.name for p in tmp_path.iterdir()] == ["stopped.sdf"]


def test_demo(tmp_path: Path) -> None:
    summary = demo(tmp_path / "one", n=8)
    demo(tmp_path / "two", n=8)
    made = {"molecules.sdf", "report.html", "summary.json", "downscaled.nc"} | ({"crystals"} & set(summary))
    assert {p.name for p in (tmp_path / "one").iterdir()} == made
    for path in (tmp_path / "one").glob("crystals/*.cif"):
        assert path.read_bytes() == (tmp_path / "two" / "crystals" / path.name).read_bytes()
    assert (tmp_path / "one/molecules.sdf").read_bytes() == (tmp_path / "two/molecules.sdf").read_bytes()
    assert summary["molecules"]["written"] == 8
    assert json.loads((tmp_path / "one/summary.json").read_text())["molecules"]["steps"] == 4
