"""Graph distance: how far the decoded molecules are from real ones, in twelve descriptors.

Mean over descriptors of the Wasserstein-1 distance divided by the reference's standard deviation. It sees
what stability hides, such as too many rings. Two disjoint real sets of 4,600 QM9 molecules are .019 apart,
400 against 3,000 are .075: compare at equal sample sizes only.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
from rdkit import Chem, RDConfig, rdBase
from rdkit.Chem import QED, rdMolDescriptors
from scipy.stats import wasserstein_distance

from .validity import strict_molecule

DESCRIPTORS = (
    "logp", "qed", "sa_score", "tpsa", "rings", "rings_3", "rings_5",
    "aromatic_atoms", "triple_bonds", "rotatable_bonds", "nitrogens", "oxygens",
)  # fmt: skip


@cache
def _sa_scorer() -> ModuleType:
    """RDKit's contributed synthetic accessibility scorer (Ertl and Schuffenhauer 2009), not on the path."""
    spec = importlib.util.spec_from_file_location(
        "rdkit_contrib_sascorer", Path(RDConfig.RDContribDir) / "SA_Score" / "sascorer.py"
    )
    if spec is None or spec.loader is None:
        raise ImportError("RDKit's SA_Score/sascorer.py cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sa_score(mol: Chem.Mol) -> float:
    """Synthetic accessibility of a sanitised molecule without explicit hydrogens, 1 (easy) to 10."""
    return float(_sa_scorer().calculateScore(mol))


def descriptors(mol: Chem.Mol) -> np.ndarray:
    """The twelve descriptors of a sanitised molecule, `[12]`, in the order of `DESCRIPTORS`."""
    with rdBase.BlockLogs():
        mol = Chem.RemoveAllHs(mol)  # also those that say a double bond's side: they would count as atoms
        rings = [len(ring) for ring in mol.GetRingInfo().AtomRings()]
        return np.array(
            [
                rdMolDescriptors.CalcCrippenDescriptors(mol)[0],
                QED.qed(mol),
                sa_score(mol),
                rdMolDescriptors.CalcTPSA(mol),
                len(rings),
                rings.count(3),
                rings.count(5),
                sum(atom.GetIsAromatic() for atom in mol.GetAtoms()),
                sum(bond.GetBondType() == Chem.BondType.TRIPLE for bond in mol.GetBonds()),
                rdMolDescriptors.CalcNumRotatableBonds(mol),
                sum(atom.GetAtomicNum() == 7 for atom in mol.GetAtoms()),
                sum(atom.GetAtomicNum() == 8 for atom in mol.GetAtoms()),
            ],
            dtype=np.float64,
        )


def describe(molecules: Sequence[Chem.Mol | None]) -> np.ndarray:
    """Descriptors `[M', 12]` of the strictly valid molecules; the others are left out."""
    rows = [descriptors(mol) for m in molecules if m is not None and (mol := strict_molecule(m)) is not None]
    return np.array(rows, dtype=np.float64).reshape(-1, len(DESCRIPTORS))


def graph_distance(samples: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Normalised Wasserstein-1 of every descriptor, from arrays `[M, 12]`; `mean` is the graph distance.

    A descriptor that is constant in the reference is divided by 1. NaN when either side is empty.
    """
    if not len(samples) or not len(reference):
        return dict.fromkeys(("mean", *DESCRIPTORS), float("nan"))
    spread = reference.std(axis=0)
    spread[spread == 0] = 1
    distances = [
        float(wasserstein_distance(samples[:, k], reference[:, k]) / spread[k]) for k in range(len(DESCRIPTORS))
    ]
    return {"mean": float(np.mean(distances)), **dict(zip(DESCRIPTORS, distances, strict=True))}
