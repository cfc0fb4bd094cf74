"""A molecule as every loader gives it, and how arrays and SMILES become one."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import AllChem, rdDetermineBonds

from sciconsist.domains.molecules.shells import close_shells, has_radicals
from sciconsist.errors import UserError

BOND_SCALE = 1.15  # atoms nearer than this many sums of covalent radii are bonded


@dataclass(frozen=True)
class MoleculeRecord:
    """A molecule with explicit hydrogens and one conformer (Å), its name and properties (unit in the name).

    `radical`: unpaired electrons remain. `same_graph`: distances give the bonds of the graph, orders aside.
    """

    mol: Chem.Mol
    name: str
    properties: dict[str, float] = field(default_factory=dict)
    radical: bool = False
    same_graph: bool = True


def read_arrays(path: Path, required: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, no pickle. Raises UserError when it is broken or lacks a required key."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a whole .npz file ({error}); get it again") from error
    if absent := [key for key in required if key not in arrays]:
        raise UserError(f"{path}: found arrays {sorted(arrays)}, expected also {absent}")
    first, lengths = required[0], {key: len(arrays[key]) for key in required if arrays[key].ndim}
    if len(set(lengths.values())) > 1:
        raise UserError(f"{path}: found lengths {lengths}, expected all to be {lengths[first]}")
    return arrays


def check_atoms(numbers: np.ndarray, positions: np.ndarray, where: str) -> None:
    """Raises UserError unless numbers `[N]` are elements and positions `[N, 3]` are finite and apart."""
    if len(numbers) == 0 or positions.shape != (len(numbers), 3):
        raise UserError(f"{where}: found positions {positions.shape} for {len(numbers)} atoms, expected N x 3, N > 0")
    if numbers.min() < 1 or numbers.max() > 118:
        raise UserError(f"{where}: found an atomic number outside 1-118, expected known elements")
    if not np.isfinite(positions).all():
        raise UserError(f"{where}: found coordinates that are not finite, expected numbers in Å")
    if np.abs(positions).max() > 1e4:
        raise UserError(f"{where}: found a coordinate beyond 10,000 Å, expected a molecule in Å")
    if len(numbers) > 1 and not np.ptp(positions, axis=0).any():
        raise UserError(f"{where}: found all atoms at one point, expected a 3D conformer")


def from_smiles(smiles: str, numbers: np.ndarray, positions: np.ndarray, where: str) -> Chem.Mol:
    """The molecule of a SMILES whose atoms, hydrogens added, are those given, shells closed.

    Raises UserError when RDKit cannot read the SMILES or the atoms differ.
    """
    with rdBase.BlockLogs():
        parsed = Chem.MolFromSmiles(smiles)
    if parsed is None:
        raise UserError(f"{where}: found SMILES {smiles!r}, expected one that RDKit can read")
    mol = Chem.AddHs(parsed)
    if [atom.GetAtomicNum() for atom in mol.GetAtoms()] != numbers.tolist():
        raise UserError(f"{where}: found atoms that are not those of {smiles}, expected its order, hydrogens last")
    mol = close_shells(mol)
    mol.AddConformer(conformer(positions))
    return mol


def from_coordinates(numbers: np.ndarray, positions: np.ndarray, smiles: str | None = None) -> Chem.Mol | None:
    """The molecule that coordinates alone describe, neutral; None when its bonds cannot be made out.

    With a SMILES, bond orders come from it wherever its skeleton fits the atoms, in any order.
    """
    bare = Chem.RWMol()
    for number in numbers.tolist():
        bare.AddAtom(Chem.Atom(int(number)))
    bare.AddConformer(conformer(positions))
    with rdBase.BlockLogs():
        if smiles and (template := Chem.MolFromSmiles(smiles)) is not None:
            skeleton = Chem.RWMol(bare)
            for i, j in np.argwhere(np.triu(bonded(numbers, positions))).tolist():
                skeleton.AddBond(i, j, Chem.BondType.SINGLE)
            try:
                for atom in skeleton.GetAtoms():
                    atom.SetNoImplicit(True)
                return close_shells(AllChem.AssignBondOrdersFromTemplate(Chem.AddHs(template), skeleton.GetMol()))
            except (ValueError, RuntimeError):
                pass  # another skeleton than the SMILES: let the coordinates speak
        try:
            rdDetermineBonds.DetermineBonds(bare, charge=0)
            for atom in bare.GetAtoms():
                atom.SetNoImplicit(True)  # RDKit would read a lone carbon as methane
            Chem.SanitizeMol(bare)
        except (ValueError, RuntimeError):
            return None
    if has_radicals(bare):
        return None
    return bare.GetMol()


def conformer(positions: np.ndarray) -> Chem.Conformer:
    """A 3D conformer of positions `[N, 3]` in Å."""
    made = Chem.Conformer(len(positions))
    made.SetPositions(np.asarray(positions, dtype=np.float64))
    made.Set3D(True)
    return made


def bonded(numbers: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Pairs nearer than 1.15 sums of covalent radii (Cordero 2008), `[N, N]` bool."""
    table = Chem.GetPeriodicTable()
    radii = np.array([table.GetRcovalent(int(n)) for n in numbers])
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    near = distances < BOND_SCALE * (radii[:, None] + radii[None])
    np.fill_diagonal(near, False)
    return near


def has_same_graph(mol: Chem.Mol) -> bool:
    """Whether the conformer's distances give the molecule's bonds."""
    numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()])
    near = bonded(numbers, mol.GetConformer().GetPositions())
    return bool((near == Chem.GetAdjacencyMatrix(mol).astype(bool)).all())


def record(
    mol: Chem.Mol, name: str, properties: dict[str, float] | None = None, same_graph: bool = True
) -> MoleculeRecord:
    """A MoleculeRecord, with the name set on the molecule and `radical` worked out."""
    mol.SetProp("_Name", name)
    return MoleculeRecord(mol, name, properties or {}, has_radicals(mol), same_graph)
