"""Molecules from heavy atoms: the right hydrogens, at sensible places, whatever the frame."""

from __future__ import annotations

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import AllChem
from scipy.spatial.transform import Rotation

from sciconsist.domains.molecules.hydrogens import FAILED, assemble
from sciconsist.domains.molecules.vocabulary import AtomClass, Vocabulary, atom_classes

SMILES = (
    "C", "N", "O", "F", "CC", "CO", "C#C", "C#N", "C=C=C", "CC#N", "N#CN", "CN=C=O", "C=O", "C=N", "NN",
    "OO", "C[C@H](N)O", "C[C@@H](N)O", "C1CN1", "CC(=O)N", "CC(=O)O", "c1c[nH]cn1", "C/C=C/C", "C/C=C\\C",
    "CC(C)(C)O", "[NH3+]CC(=O)[O-]", "N=C1CC1", "C[C@H]1O[C@@H]1C", "CS", "CP", "C[SH2]C", "CC(C)=N",
    "OC1CC2CC12", "CC1CN1", "CC1CC1(N)O",
)  # fmt: skip


@pytest.fixture(scope="module")
def molecules() -> dict[str, Chem.Mol]:
    return {s: embedded(s) for s in SMILES}


@pytest.mark.parametrize("smiles", SMILES)
def test_hydrogens_are_those_of_the_classes(smiles: str, molecules: dict[str, Chem.Mol]) -> None:
    reference = molecules[smiles]
    mol, heavy = reassembled(reference)
    x = mol.GetConformer().GetPositions()
    assert not mol.HasProp(FAILED)
    assert mol.GetNumAtoms() == reference.GetNumAtoms() and np.isfinite(x).all()
    assert [a.GetAtomicNum() for a in list(mol.GetAtoms())[heavy:]] == [1] * (mol.GetNumAtoms() - heavy)
    assert Chem.MolToSmiles(Chem.RemoveHs(mol)) == Chem.MolToSmiles(Chem.RemoveHs(stereo(reference)))
    np.testing.assert_array_equal(x[:heavy], reference.GetConformer().GetPositions()[:heavy])
    bonded = Chem.GetAdjacencyMatrix(mol) > 0
    distances = np.linalg.norm(x[:, None] - x[None], axis=-1) + 9 * np.eye(len(x))
    assert (distances[~bonded] > 1.35).all()
    assert (distances[heavy:, :heavy].min(1, initial=9) < 1.45).all()
    assert mol.GetConformer().Is3D()


@pytest.mark.parametrize("smiles", ["C[C@H](N)O", "CC(=O)N", "CC(C)(C)O", "CC1CN1", "CC1CC1(N)O"])
def test_hydrogens_turn_with_the_molecule_and_follow_its_mirror_image(smiles: str, molecules: dict) -> None:
    reference = molecules[smiles]
    turn = Rotation.random(random_state=1).as_matrix()
    for frame, shift in ((turn, 3.0), (-turn, 0.0)):
        expected = reassembled(reference)[0].GetConformer().GetPositions() @ frame.T + shift
        positions = heavy_positions(reference) @ frame.T + shift
        found = assemble(*graph(reference), positions, vocabulary(reference)).GetConformer().GetPositions()
        np.testing.assert_allclose(*(sorted_hydrogens(found), sorted_hydrogens(expected)), atol=1e-6)


def test_a_mirror_image_has_the_other_stereocentre(molecules: dict[str, Chem.Mol]) -> None:
    reference = molecules["C[C@H](N)O"]
    image = assemble(*graph(reference), heavy_positions(reference) * [1, 1, -1], vocabulary(reference))
    assert Chem.MolToSmiles(Chem.RemoveHs(image)) == Chem.CanonSmiles("C[C@@H](N)O")


@pytest.mark.parametrize("smiles", ["CC", "CC#N", "C#CC#C", "C1CC1", "CC(C)(C)C", "CC(=O)N", "CS(C)C"])
@pytest.mark.parametrize("shape", ["line", "point", "plane"])
def test_degenerate_coordinates_still_give_finite_hydrogens(smiles: str, shape: str) -> None:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    n = Chem.RemoveHs(mol).GetNumAtoms()
    x = np.random.default_rng(0).normal(size=(n, 3))
    x[:, {"line": [1, 2], "point": [0, 1, 2], "plane": [2]}[shape]] = 0
    made = assemble(*graph(mol), x, vocabulary(mol))
    assert made.GetNumAtoms() == mol.GetNumAtoms()
    assert np.isfinite(made.GetConformer().GetPositions()).all()


def test_atoms_and_coordinates_stay_where_the_graph_is_no_molecule() -> None:
    methyl = Vocabulary((AtomClass("C", 0, 3, 4), AtomClass("C", 0, 4, 5)))
    x = np.random.default_rng(0).normal(size=(3, 3))
    wrong = assemble([0, 0, 0], np.zeros((3, 3), int), x, methyl)
    ethane_too_many = assemble([1, 1], np.array([[0, 1], [1, 0]]), x[:2], methyl)
    for mol, n in ((wrong, 3), (ethane_too_many, 2)):
        assert mol.HasProp(FAILED) and mol.GetNumBonds() == 0 and mol.GetNumAtoms() == n
        np.testing.assert_array_equal(mol.GetConformer().GetPositions(), x[:n])
        assert "V2000" in Chem.MolToMolBlock(mol)
    assert "bond order 1" in wrong.GetProp(FAILED)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_coordinates_must_be_finite(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        assemble([0], np.zeros((1, 1), int), np.full((1, 3), value), Vocabulary((AtomClass("C", 0, 4, 4),)))


def test_hydrogens_on_real_heavy_atoms(data_dir) -> None:
    """As close to GFN2's hydrogens as an analytic rule gets: the rest is the torsion of rotors."""
    archive = np.load(data_dir / "molecules" / "qm9_gfn2_val.npz")
    shifts, lengths = [], []
    for k in range(0, 2000, 40):
        reference = Chem.AddHs(Chem.MolFromSmiles(str(archive["smiles"][k])))
        if any(a.GetNumRadicalElectrons() for a in reference.GetAtoms()) or not archive["same_graph"][k]:
            continue
        conformer = Chem.Conformer(reference.GetNumAtoms())
        x = archive["positions"][k][: reference.GetNumAtoms()].astype(np.float64)
        conformer.SetPositions(x)
        reference.AddConformer(conformer, assignId=True)
        mol, heavy = reassembled(reference)
        y = mol.GetConformer().GetPositions()
        for atom in list(mol.GetAtoms())[heavy:]:
            parent = atom.GetNeighbors()[0]
            own = [b.GetIdx() for b in parent.GetNeighbors() if b.GetIdx() >= heavy]
            shifts.append(np.linalg.norm(x[own] - y[atom.GetIdx()], axis=1).min())
            lengths.append(
                np.linalg.norm(y[atom.GetIdx()] - y[parent.GetIdx()]) - np.linalg.norm(x[own[0]] - x[parent.GetIdx()])
            )
    assert np.median(shifts) < 0.06 and np.mean(np.array(shifts) > 0.5) < 0.05
    assert np.abs(lengths).max() < 0.06


def embedded(smiles: str) -> Chem.Mol:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert AllChem.EmbedMolecule(mol, randomSeed=7) == 0
    return mol


def stereo(mol: Chem.Mol) -> Chem.Mol:
    copy = Chem.Mol(mol)
    Chem.AssignStereochemistryFrom3D(copy)
    return copy


def kekulized(mol: Chem.Mol) -> Chem.Mol:
    heavy = Chem.RemoveHs(mol)
    Chem.Kekulize(heavy, clearAromaticFlags=True)
    return heavy


def vocabulary(mol: Chem.Mol) -> Vocabulary:
    return Vocabulary.from_molecules([kekulized(mol)])


def graph(mol: Chem.Mol) -> tuple[np.ndarray, np.ndarray]:
    known, heavy = vocabulary(mol), kekulized(mol)
    n = heavy.GetNumAtoms()
    orders = np.zeros((n, n), dtype=int)
    for bond in heavy.GetBonds():
        i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        orders[i, j] = orders[j, i] = int(bond.GetBondTypeAsDouble())
    return np.array([known.index(c) for c in atom_classes(heavy)]), orders


def heavy_positions(mol: Chem.Mol) -> np.ndarray:
    return mol.GetConformer().GetPositions()[: kekulized(mol).GetNumAtoms()]


def reassembled(mol: Chem.Mol) -> tuple[Chem.Mol, int]:
    positions = heavy_positions(mol)
    return assemble(*graph(mol), positions, vocabulary(mol)), len(positions)


def sorted_hydrogens(x: np.ndarray) -> np.ndarray:
    """Rows in an order that tells nothing of which hydrogen of a group is which."""
    return x[np.lexsort(np.round(x, 3).T)]
