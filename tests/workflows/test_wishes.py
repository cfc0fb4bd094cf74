"""What a chemist asks for comes out: scaffolds and fragments where they were, elements, property ranges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from rdkit import Chem
from rdkit.Chem import AllChem

from sciconsist.domains.molecules.completion import read_given, rigid
from sciconsist.domains.molecules.generate import plan_steps
from sciconsist.domains.molecules.properties import Known, gfn2_results, measure, summarise
from sciconsist.domains.molecules.wishes import Wish, draw_told
from sciconsist.errors import UserError
from sciconsist.flowmap import FlowMap
from sciconsist.workflows.generate import CANDIDATES, FARTHER, Molecules
from sciconsist.workflows.models import build, load
from sciconsist.workflows.train_molecules import with_properties


@pytest.fixture(scope="module")
def model() -> FlowMap:
    return load("molecules-qm9gfn2")


def molecule(smiles: str) -> Chem.Mol:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMolecule(mol, randomSeed=1)
    AllChem.MMFFOptimizeMolecule(mol)
    return mol


def written(path: Path, mol: Chem.Mol) -> Path:
    Chem.MolToMolFile(mol, str(path))
    return path


def heavy(mol: Chem.Mol) -> np.ndarray:
    return mol.GetConformer().GetPositions()[[a.GetIdx() for a in mol.GetAtoms() if a.GetAtomicNum() > 1]]


def handedness(mol: Chem.Mol, centre: int, others: list[int]) -> float:
    x = mol.GetConformer().GetPositions()
    return float(np.linalg.det(x[others] - x[centre]))


@pytest.mark.parametrize("smiles", ["c1ccoc1", "C[C@H](O)C#N", "C[C@@H](O)C#N", "O"])
def test_a_scaffold_stays_where_it_is(model: FlowMap, tmp_path: Path, smiles: str) -> None:
    core = molecule(smiles)
    request = Molecules(model, steps=8, scaffold=written(tmp_path / "core.sdf", core))
    mols = list(request.take(12))
    assert len(mols) == 12
    count = core.GetNumHeavyAtoms()
    for mol in mols:
        assert np.abs(heavy(mol)[:count] - heavy(core)).max() < 0.01
        assert mol.GetNumHeavyAtoms() > count
        for bond in core.GetBonds():
            i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
            if max(i, j) < count:
                assert mol.GetBondBetweenAtoms(i, j) is not None
        for atom in core.GetAtoms():  # hydrogens of atoms without a new bond stay as well
            own = [n.GetIdx() for n in atom.GetNeighbors() if n.GetAtomicNum() == 1]
            if atom.GetAtomicNum() > 1 and own:
                now = [n.GetIdx() for n in mol.GetAtomWithIdx(atom.GetIdx()).GetNeighbors() if n.GetAtomicNum() == 1]
                if len(now) == len(own):
                    places = mol.GetConformer().GetPositions()[now], core.GetConformer().GetPositions()[own]
                    np.testing.assert_allclose(*places, atol=0.01)


@pytest.mark.parametrize("smiles", ["C[C@H](O)C#N", "C[C@@H](O)C#N"])
def test_a_given_stereocentre_is_not_inverted(model: FlowMap, tmp_path: Path, smiles: str) -> None:
    """The fourth neighbour of the centre, hydrogen or new, lies on the hydrogen's side of the other three."""
    core = molecule(smiles)
    (own,) = [n.GetIdx() for n in core.GetAtomWithIdx(1).GetNeighbors() if n.GetAtomicNum() == 1]
    want = handedness(core, 1, [0, 2, own])
    mols = list(Molecules(model, steps=8, scaffold=written(tmp_path / "core.sdf", core)).take(20))
    for mol in mols:
        (fourth,) = [n.GetIdx() for n in mol.GetAtomWithIdx(1).GetNeighbors() if n.GetIdx() not in (0, 2, 3)]
        assert handedness(mol, 1, [0, 2, fourth]) * want > 0


def test_fragments_are_linked_where_they_lie(model: FlowMap, tmp_path: Path) -> None:
    whole = molecule("CC(=O)CNCCO")
    parts = []
    for name, atoms in (("a", (0, 1, 2)), ("b", (6, 7))):
        part = Chem.RWMol(Chem.RemoveHs(whole))
        for i in reversed(range(part.GetNumAtoms())):
            if i not in atoms:
                part.RemoveAtom(i)
        for atom in part.GetAtoms():
            atom.SetNoImplicit(False)
        Chem.SanitizeMol(part)
        parts.append(written(tmp_path / f"{name}.sdf", Chem.AddHs(part.GetMol(), addCoords=True)))
    mols = list(Molecules(model, steps=8, linker=parts).take(2))
    assert mols
    for mol in mols:
        assert len(Chem.GetMolFrags(mol)) == 1
        assert np.abs(heavy(mol)[:5] - heavy(whole)[[0, 1, 2, 6, 7]]).max() < 0.01


def test_given_atoms_that_cannot_be(model: FlowMap, tmp_path: Path) -> None:
    for smiles, words in (("CS", "found S"), ("C" * 9, "fewer than"), ("FC(F)(F)F", "no hydrogen")):
        with pytest.raises(UserError, match=words):
            Molecules(model, scaffold=written(tmp_path / "core.sdf", molecule(smiles)))
    one = written(tmp_path / "one.sdf", molecule("CO"))
    with pytest.raises(UserError, match=r"not bonded 0\.00 Å apart"):
        Molecules(model, linker=[one, one])
    with pytest.raises(UserError, match="one of them"):
        Molecules(model, linker=[one, one], scaffold=one)


def test_the_batch_does_not_matter_to_given_atoms(model: FlowMap, tmp_path: Path) -> None:
    path = written(tmp_path / "core.sdf", molecule("c1ccoc1"))
    one, many = (list(Molecules(model, scaffold=path, batch_size=b, raw=True).take(6)) for b in (1, 6))
    for a, b in zip(one, many):
        assert np.abs(a.GetConformer().GetPositions() - b.GetConformer().GetPositions()).max() < 1e-3


def test_rigid_is_proper_and_best() -> None:
    draw = np.random.default_rng(0).normal
    x, turn = draw(size=(6, 3)), np.linalg.qr(draw(size=(3, 3)))[0]
    turn = turn * np.sign(np.linalg.det(turn))
    found, shift = rigid(x, x @ turn + 2.0)
    np.testing.assert_allclose(found, turn, atol=1e-12)
    np.testing.assert_allclose(shift, 2.0, atol=1e-12)
    assert np.linalg.det(rigid(x, -x)[0]) == pytest.approx(1.0)


def test_bonds_of_given_atoms_are_single_to_new_ones(model: FlowMap) -> None:
    given = read_given([molecule("C=O")], model.domain.vocabulary, "here")
    choices = given.bond_choices(4)
    assert choices[0, 1].tolist() == [False, False, True, False]
    assert choices[0, 2].tolist() == [True, True, False, False]
    assert choices[1, 2].tolist() == [True, False, False, False]  # the oxygen has no hydrogen to give up
    assert choices[2, 3].all()


# --- elements and properties


def test_every_element_asked_for_is_there(model: FlowMap) -> None:
    mols = list(Molecules(model, elements=["C", "F", "N", "H"], every_element=True, atoms="5:9").take(5))
    assert len(mols) == 5
    assert all({a.GetSymbol() for a in mol.GetAtoms()} == {"C", "F", "N", "H"} for mol in mols)


def bare_model(model: FlowMap) -> FlowMap:
    """The shipped weights without what the shipped model can be told."""
    network = {**model.config["network"], "conditions": 0, "elements": False, "bookkeeping": False}
    bare = build({**model.config, "network": network, "properties": [], "sketches": {}})
    assert not bare.load_state_dict(model.state_dict(), strict=False).missing_keys
    return bare


def told_model(model: FlowMap) -> FlowMap:
    model = bare_model(model)
    logp = summarise("logp", np.linspace(-3.0, 3.0, 200))
    return with_properties(model, [logp, Known(name="gap", mean=5.0, std=1.0, quantiles=[2.0, 5.0, 8.0])])


def test_a_property_branch_is_silent_at_first_and_heard_when_trained(model: FlowMap) -> None:
    wide = told_model(model).eval()
    asked = {"properties": {"logp": 1.0}, "raw": True}
    plain = [Chem.MolToSmiles(m) for m in Molecules(bare_model(model), raw=True).take(6)]
    assert [Chem.MolToSmiles(m) for m in Molecules(wide, **asked).take(6)] == plain
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in wide.net.condition[2].parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    mols = list(Molecules(wide, **asked).take(6))
    assert [Chem.MolToSmiles(m) for m in mols] != plain
    assert all(m.GetProp("requested_logp") == "1" for m in mols)
    # nothing told, nothing changed: the branch speaks of what is known alone, up to its constant
    hidden = wide.domain.condition(torch.ones(2, 4, dtype=torch.bool))
    assert float(hidden["known"].abs().sum()) == float(hidden["values"].abs().sum()) == 0


def test_a_range_is_kept_to_and_drawn_from_the_data(model: FlowMap) -> None:
    request = Molecules(told_model(model), properties={"logp": "0.2:0.9"})
    mols = list(request.take(10))
    assert len(mols) == 10 and request.counts.rejected["logp outside the range"] > 0
    for mol in mols:
        assert 0.2 <= measure(mol, ["logp"])[0] <= 0.9
        assert 0.2 <= float(mol.GetProp("requested_logp")) <= 0.9
    told = draw_told(told_model(model).domain, Wish({"gap": (3.0, 7.0)}), {9: 1}, range(2000), 0)
    gaps = np.array([one.values["gap"] for one in told])
    assert all(set(one.values) == {"gap"} for one in told)
    assert gaps.min() >= 3.0 and gaps.max() <= 7.0 and gaps.mean() == pytest.approx(5.0, abs=0.1)


def test_guided_evaluations_are_all_counted(model: FlowMap) -> None:
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    wide = told_model(model)
    wide.net.register_forward_pre_hook(count)
    for steps in (2, 3, 4, 8, 12, 13):
        calls = 0
        plan = plan_steps(steps, guided=True)
        list(Molecules(wide, steps=steps, properties={"gap": 5.0}, guidance=2.0, raw=True).take(2))
        assert calls == plan.steps <= steps


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"gap": "9:10"}, "beyond"),
        ({"gap": "7:5"}, "range low:high"),
        ({"gap": "x"}, "range low:high"),
        ({"colour": 1.0}, "can be told logp, gap"),
    ],
)
def test_properties_that_cannot_be(model: FlowMap, asked: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Molecules(told_model(model), properties=asked)


def test_ranges_that_only_a_calculation_can_check(model: FlowMap) -> None:
    pytest.importorskip("tblite")
    asked = {"gap": "7.8:8.2"}  # so narrow that some samples miss it
    request = Molecules(model, steps=4, properties=asked, check=True, atoms="5:6")
    mols = list(request.take(4))
    assert request.counts.rejected["gap outside the range"] > 0
    for mol in mols:
        (gap,) = measure(mol, ["gap"], gfn2_results(mol))
        assert 7.8 <= gap <= 8.2 and float(mol.GetProp("gap")) == pytest.approx(gap, abs=1e-3)
    for rest in ({"raw": True, "properties": asked}, {}):
        with pytest.raises(UserError, match="check: drops"):
            Molecules(model, check=True, **rest)


def test_a_checked_value_gets_the_nearest_of_some(model: FlowMap) -> None:
    """Of every CANDIDATES usable samples in turn the nearest comes out, whatever the batch."""
    asked = {"properties": {"logp": 0.5}, "atoms": "5:9"}
    pytest.importorskip("tblite")
    request = Molecules(model, check=True, batch_size=7, **asked)
    chosen = list(request.take(3))
    every = Molecules(model, **asked)
    pool = list(every.take(3 * CANDIDATES))
    for k, mol in enumerate(chosen):
        apart = [abs(float(m.GetProp("logp")) - 0.5) for m in pool[k * CANDIDATES : (k + 1) * CANDIDATES]]
        assert abs(float(mol.GetProp("logp")) - 0.5) == pytest.approx(min(apart))
    assert request.counts.rejected[FARTHER] == 3 * (CANDIDATES - 1)
