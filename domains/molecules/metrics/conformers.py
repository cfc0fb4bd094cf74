"""Conformers against reference ensembles: coverage and matching (Xu et al. 2021; Ganea et al. 2021), and stereo.

Recall asks whether every reference conformer is met by a sample, precision whether every sample is near one.
Coverage is the share within `CUTOFF`, matching the mean distance to the nearest. Distances are the RMSD of heavy
atoms over the symmetries of the graph, mirror images apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdDistGeom, rdForceFieldHelpers, rdMolAlign

from sciconsist.domains.molecules.gfn2 import KCAL_MOL_PER_EV, CalculationFailed, charge_and_unpaired, relax

CUTOFF = 0.5  # Å, the field's own for QM9-sized molecules
WINDOW = 6.0  # kcal/mol above the lowest: what a reference ensemble keeps
SAME = 0.15  # Å: reference conformers nearer than this are one
MATCHES = 1000  # symmetries looked at


@dataclass(frozen=True)
class Scores:
    """Of one molecule: shares in [0, 1], distances in Å."""

    coverage_recall: float
    matching_recall: float
    coverage_precision: float
    matching_precision: float


def distances(samples: Sequence[Chem.Mol], reference: Sequence[Chem.Mol]) -> np.ndarray:
    """RMSD `[R, S]` in Å between conformers of one molecule; the graphs must be the same, their order need not."""
    bare = [Chem.RemoveAllHs(mol) for mol in samples]
    real = [Chem.RemoveAllHs(mol) for mol in reference]
    return np.array([[rdMolAlign.GetBestRMS(Chem.Mol(s), r, maxMatches=MATCHES) for s in bare] for r in real])


def score(samples: Sequence[Chem.Mol], reference: Sequence[Chem.Mol], cutoff: float = CUTOFF) -> Scores:
    """Coverage and matching of samples `S > 0` against references `R > 0`."""
    d = distances(samples, reference)
    recall, precision = d.min(1), d.min(0)
    return Scores(
        float((recall < cutoff).mean()),
        float(recall.mean()),
        float((precision < cutoff).mean()),
        float(precision.mean()),
    )


def embedded(mol: Chem.Mol, count: int, seed: int) -> list[Chem.Mol]:
    """`count` conformers at most of ETKDGv3 and MMFF94: the baseline. The molecule has its hydrogens."""
    mol = Chem.Mol(mol)
    mol.RemoveAllConformers()
    parameters: Any = rdDistGeom.ETKDGv3()  # RDKit's stubs give its fields the wrong types
    parameters.randomSeed = seed + 1  # at 0 RDKit gives every conformer the same draw
    parameters.timeout = 10
    rdDistGeom.EmbedMultipleConfs(mol, count, parameters)
    if mol.GetNumConformers() and rdForceFieldHelpers.MMFFHasAllMoleculeParams(mol):
        rdForceFieldHelpers.MMFFOptimizeMoleculeConfs(mol)
    return [Chem.Mol(mol, confId=c.GetId()) for c in mol.GetConformers()]


def gfn2_ensemble(mol: Chem.Mol, starts: int, seed: int) -> list[Chem.Mol]:
    """The different GFN2-xTB minima, at most WINDOW over the lowest, that `starts` embedded conformers fall into."""
    numbers = np.array([a.GetAtomicNum() for a in mol.GetAtoms()])
    charge, unpaired = charge_and_unpaired(mol)
    found: list[tuple[float, Chem.Mol]] = []
    for start in embedded(mol, starts, seed):
        try:
            minimum = relax(numbers, start.GetConformer().GetPositions(), charge=charge, unpaired=unpaired)
        except CalculationFailed:
            continue
        start.GetConformer().SetPositions(np.ascontiguousarray(minimum.positions))
        found.append((minimum.energy_ev * KCAL_MOL_PER_EV, start))
    kept: list[Chem.Mol] = []
    for energy, one in sorted(found, key=lambda pair: pair[0]):
        if energy - min(e for e, _ in found) > WINDOW:
            break
        if not kept or distances([one], kept).min() > SAME:
            kept.append(one)
    return kept


def stereo_right(mol: Chem.Mol, smiles: str) -> bool:
    """Whether a conformer, read from its coordinates by RDKit, is the stereoisomer of a SMILES, nitrogens aside."""
    seen = Chem.Mol(mol)
    Chem.RemoveStereochemistry(seen)
    Chem.AssignStereochemistryFrom3D(seen)
    asked = Chem.MolFromSmiles(smiles)
    for atom in asked.GetAtoms():  # RDKit reads most nitrogens' marks from SMILES and not from coordinates
        if atom.GetAtomicNum() == 7:
            atom.SetChiralTag(Chem.ChiralType.CHI_UNSPECIFIED)
    return bool(Chem.RemoveAllHs(seen).HasSubstructMatch(Chem.RemoveAllHs(asked), useChirality=True))
