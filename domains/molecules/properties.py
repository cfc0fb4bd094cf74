"""Properties a model can be told and a molecule can be measured for: GFN2-xTB's and RDKit's.

GFN2-xTB's need `tblite` to be measured again (the `molecules` extra); data sets bring them along.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict
from rdkit import Chem, rdBase
from rdkit.Chem import QED, Descriptors, rdMolDescriptors

from sciconsist.domains.molecules.metrics.graph_distance import sa_score
from sciconsist.domains.molecules.sketch import ELEMENTS
from sciconsist.errors import UserError

RING_SIZES = {3: "three", 4: "four", 5: "five", 6: "six"}  # numbers of rings so large, by RDKit's smallest rings
MARKS = 101  # quantiles of a property that a model remembers of its training data


def _gap(record: Mapping[str, float], atoms: int) -> float:
    return record["lumo_ev"] - record["homo_ev"]


def _energy_per_atom(record: Mapping[str, float], atoms: int) -> float:
    return record["energy_ev"] / atoms


def _atoms(symbol: str) -> Callable[[Chem.Mol], float]:
    def count(mol: Chem.Mol) -> float:
        if symbol == "H":
            return sum(atom.GetTotalNumHs() for atom in mol.GetAtoms())
        return sum(atom.GetSymbol() == symbol for atom in mol.GetAtoms())

    return count


def _rings(mol: Chem.Mol) -> float:
    """Independent rings: bonds that could be cut without parting the molecule. RDKit's own count has more in cages."""
    return mol.GetNumBonds() - mol.GetNumAtoms() + len(Chem.GetMolFrags(mol))


def _rings_of(size: int) -> Callable[[Chem.Mol], float]:
    return lambda mol: sum(len(ring) == size for ring in mol.GetRingInfo().AtomRings())


def _triple_bonds(mol: Chem.Mol) -> float:
    return sum(bond.GetBondType() == Chem.BondType.TRIPLE for bond in mol.GetBonds())


def _inner_triple_bonds(mol: Chem.Mol) -> float:
    """Triple bonds within a chain: both atoms are bonded to another heavy atom, as in 2-butyne."""
    return sum(
        bond.GetBondType() == Chem.BondType.TRIPLE
        and all(
            sum(b.GetAtomicNum() > 1 for b in a.GetNeighbors()) > 1 for a in (bond.GetBeginAtom(), bond.GetEndAtom())
        )
        for bond in mol.GetBonds()
    )


@dataclass(frozen=True)
class Property:
    """`computed` measures a sanitised molecule; `recorded` reads a data set's GFN2-xTB results (KeyError without)."""

    name: str
    unit: str
    computed: Callable[[Chem.Mol], float] | None = None
    recorded: Callable[[Mapping[str, float], int], float] | None = None


PROPERTIES = {
    p.name: p
    for p in (
        Property("gap", "eV", recorded=_gap),
        Property("dipole", "debye", recorded=lambda record, atoms: record["dipole_debye"]),
        Property("energy_per_atom", "eV", recorded=_energy_per_atom),
        Property("logp", "", lambda mol: rdMolDescriptors.CalcCrippenDescriptors(mol)[0]),
        Property("qed", "", QED.qed),
        Property("tpsa", "Å²", rdMolDescriptors.CalcTPSA),
        Property("sa", "", sa_score),
        Property("mw", "g/mol", Descriptors.MolWt),  # type: ignore[attr-defined]
        Property("rings", "", _rings),
        Property("aromatic_atoms", "", lambda mol: sum(atom.GetIsAromatic() for atom in mol.GetAtoms())),
        Property("triple_bonds", "", _triple_bonds),
        Property("inner_triple_bonds", "", _inner_triple_bonds),
        *(Property(f"{word}_rings", "", _rings_of(n)) for n, word in RING_SIZES.items()),
        *(Property(name, "", _atoms(symbol)) for name, symbol in ELEMENTS.items()),
    )
}


class Known(BaseModel):
    """What a model knows of one property: the training data's mean, deviation and quantiles from least to most."""

    model_config = ConfigDict(extra="forbid")

    name: str
    mean: float
    std: float
    quantiles: list[float]

    def draw(self, low: float, high: float, u: float) -> float:
        """The value at share `u` in [0, 1) of the training data between `low` and `high`."""
        marks = np.linspace(0.0, 1.0, len(self.quantiles))
        start, end = (float(np.interp(v, self.quantiles, marks)) for v in (low, high))
        return float(np.clip(np.interp(start + u * (end - start), marks, self.quantiles), low, high))


def summarise(name: str, values: np.ndarray) -> Known:
    """`Known` of a data set's values; raises UserError where there are too few or all are the same."""
    finite = values[np.isfinite(values)]
    if len(finite) < 2 or finite.std() == 0:
        raise UserError(f"property {name}: found {len(finite)} different values in the data, expected at least 2")
    quantiles = np.quantile(finite, np.linspace(0, 1, MARKS)).round(6).tolist()
    return Known(name=name, mean=float(finite.mean()), std=float(finite.std()), quantiles=quantiles)


def check_names(names: Sequence[str]) -> list[str]:
    """The names, once it is sure that there are such properties and none is there twice. Raises UserError."""
    if unknown := [name for name in names if name not in PROPERTIES]:
        raise UserError(f"property {unknown[0]!r}: expected one of {', '.join(PROPERTIES)}")
    if len(set(names)) < len(names):
        raise UserError(f"properties {', '.join(names)}: one is named twice")
    return list(names)


def measure(mol: Chem.Mol, names: Sequence[str], recorded: Mapping[str, float] | None = None) -> np.ndarray:
    """Values `[P]` of a molecule with explicit hydrogens; NaN where only a calculation we were not given could say.

    `recorded` has GFN2-xTB's results under the data sets' names (energy_ev, homo_ev, lumo_ev, dipole_debye).
    """
    values = np.full(len(names), np.nan)
    with rdBase.BlockLogs():
        bare = Chem.RemoveAllHs(mol)
    for k, name in enumerate(names):
        one = PROPERTIES[name]
        if one.computed is not None:
            values[k] = one.computed(bare)
        elif recorded and one.recorded is not None:
            try:
                values[k] = one.recorded(recorded, mol.GetNumAtoms())
            except KeyError:
                continue
    return values


def gfn2_results(mol: Chem.Mol) -> dict[str, float]:
    """GFN2-xTB at the minimum next to the molecule's geometry, under the data sets' names.

    Raises `gfn2.CalculationFailed`.
    """
    from sciconsist.domains.molecules.gfn2 import charge_and_unpaired, relax

    numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()])
    charge, unpaired = charge_and_unpaired(mol)
    found = relax(numbers, mol.GetConformer().GetPositions(), charge=charge, unpaired=unpaired)
    return {
        "energy_ev": found.energy_ev, "homo_ev": found.homo_ev, "lumo_ev": found.lumo_ev,
        "dipole_debye": found.dipole_debye,
    }  # fmt: skip
