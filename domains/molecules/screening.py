"""What a chemist looks at before choosing: alerts, accessibility, drug-likeness, twins, diversity, strain.

Structural alerts (PAINS, BRENK, NIH: RDKit's FilterCatalog) are medicinal chemistry's warnings and label a
molecule; aspirin and caffeine have some. They are no measure of hazard and do not enter the score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import rdFingerprintGenerator, rdMolDescriptors
from rdkit.Chem.FilterCatalog import FilterCatalog, FilterCatalogParams
from rdkit.SimDivFilters import rdSimDivPickers

from sciconsist.domains.molecules.metrics.energy import aligned_rmsd
from sciconsist.domains.molecules.metrics.validity import canonical_smiles, strict_molecule
from sciconsist.domains.molecules.properties import measure
from sciconsist.errors import UserError

FILTERS = ("PAINS", "BRENK", "NIH")
FIGURES = ("qed", "sa", "logp", "tpsa", "mw")


@dataclass
class Row:
    """One candidate: its place in the input from 1, what was found, and the molecule (relaxed, if asked)."""

    record: int
    name: str
    status: str  # unique, duplicate or invalid
    smiles: str = ""
    formula: str = ""
    score: float = float("nan")
    figures: dict[str, float] = field(default_factory=dict)
    alerts: list[str] = field(default_factory=list)
    novel: bool | None = None
    pick: int | None = None  # order of the diversity picks, from 1
    note: str = ""
    mol: Chem.Mol | None = None


def filter_names(text: str) -> tuple[str, ...]:
    """Catalogues of "default", "none" or a list such as "pains,nih". Raises UserError."""
    if text.strip().lower() in ("default", "none"):
        return FILTERS if text.strip().lower() == "default" else ()
    names = tuple(name.strip().upper() for name in text.split(","))
    if unknown := [name for name in names if name not in FILTERS]:
        raise UserError(f"filters {unknown[0]!r}: expected default, none, or some of {', '.join(FILTERS).lower()}")
    return names


@lru_cache(maxsize=8)
def catalogue(names: tuple[str, ...]) -> FilterCatalog:
    parameters = FilterCatalogParams()
    for name in names:
        parameters.AddCatalog(getattr(FilterCatalogParams.FilterCatalogs, name))
    return FilterCatalog(parameters)


def alerts(mol: Chem.Mol, names: tuple[str, ...]) -> list[str]:
    """Labels `catalogue: alert` of a sanitised molecule, each once."""
    if not names:
        return []
    found = catalogue(names).GetMatches(mol)
    return sorted({f"{m.GetProp('FilterSet').split('_')[0]}: {m.GetDescription()}" for m in found})


def examine(record: int, name: str, mol: Chem.Mol, names: tuple[str, ...], relax: bool = False) -> Row:
    """Everything about one candidate that needs no other. `score` is the mean of QED and ease of synthesis, in [0, 1]."""
    strict = strict_molecule(mol)
    smiles = None if strict is None else isomeric_smiles(strict)
    if strict is None or smiles is None:
        return Row(record, name, "invalid", note="not one closed-shell molecule with its hydrogens", mol=mol)
    with rdBase.BlockLogs():
        bare = Chem.RemoveAllHs(strict)
    figures = dict(zip(FIGURES, measure(strict, FIGURES).tolist(), strict=True))
    row = Row(
        record, name, "unique", smiles, rdMolDescriptors.CalcMolFormula(strict), ease(figures), figures,
        alerts(bare, names), mol=mol,
    )  # fmt: skip
    if relax:
        relaxed(row, strict)
    return row


def ease(figures: dict[str, float]) -> float:
    """(QED + (10 - SA) / 9) / 2: drug-like and easy to make is 1 (Bickerton 2012; Ertl and Schuffenhauer 2009)."""
    return (figures["qed"] + (10 - figures["sa"]) / 9) / 2


def relaxed(row: Row, mol: Chem.Mol) -> None:
    """Put the GFN2-xTB minimum next to a molecule into its row: energy drop, RMSD, gap, dipole, and whether bonds held."""
    from sciconsist.domains.molecules.gfn2 import KCAL_MOL_PER_EV, CalculationFailed, charge_and_unpaired, relax

    numbers = np.array([a.GetAtomicNum() for a in mol.GetAtoms()])
    before = mol.GetConformer().GetPositions()
    charge, unpaired = charge_and_unpaired(mol)
    try:
        found = relax(numbers, before, charge=charge, unpaired=unpaired)
    except CalculationFailed as error:
        row.note = f"GFN2-xTB: {error}"
        return
    row.figures |= {
        "relaxation_kcal_mol": (found.start_energy_ev - found.energy_ev) * KCAL_MOL_PER_EV,
        "rmsd_angstrom": aligned_rmsd(before, found.positions),
        "gap_ev": found.lumo_ev - found.homo_ev,
        "dipole_debye": found.dipole_debye,
    }
    assert row.mol is not None
    row.mol = Chem.Mol(row.mol)
    row.mol.GetConformer().SetPositions(np.ascontiguousarray(found.positions))
    if not bonds_hold(row.mol):
        row.note = "its bonds change on relaxation"


def bonds_hold(mol: Chem.Mol, slack: float = 1.3) -> bool:
    """Whether every bond is shorter than `slack` sums of covalent radii, and no other pair within 1.15 of them."""
    table = Chem.GetPeriodicTable()
    radii = np.array([table.GetRcovalent(a.GetAtomicNum()) for a in mol.GetAtoms()])
    x = mol.GetConformer().GetPositions()
    ratio = np.linalg.norm(x[:, None] - x[None], axis=-1) / (radii[:, None] + radii[None])
    bonded = Chem.GetAdjacencyMatrix(mol).astype(bool)
    other = ~bonded & ~np.eye(len(x), dtype=bool)
    return bool((ratio[bonded] < slack).all() and not (ratio[other] < 1.15).any())


def isomeric_smiles(mol: Chem.Mol) -> str | None:
    """Canonical SMILES with stereo, no hydrogens; None when RDKit refuses."""
    try:
        with rdBase.BlockLogs():
            return Chem.MolToSmiles(Chem.RemoveHs(mol))
    except (ValueError, RuntimeError):
        return None


def compare(rows: Sequence[Row], known: set[str] | None, picks: int, seed: int) -> list[Row]:
    """Mark duplicates (the first of them stays), novelty and diverse picks, and rank: unique ones by score first.

    `known` are SMILES as `metrics.known_smiles` makes them, so novelty does not look at stereo.
    """
    first: dict[str, int] = {}
    for row in rows:
        if row.status != "invalid":
            original = first.setdefault(row.smiles, row.record)
            if original != row.record:
                row.status, row.note = "duplicate", f"of record {original}"
        if known is not None and row.mol is not None and row.status != "invalid":
            row.novel = canonical_smiles(row.mol) not in known
    unique = sorted((r for r in rows if r.status == "unique"), key=lambda r: (-r.score, r.record))
    for order, k in enumerate(diverse([r.smiles for r in unique], picks, seed), 1):
        unique[k].pick = order
    return unique + [r for r in rows if r.status == "duplicate"] + [r for r in rows if r.status == "invalid"]


def diverse(smiles: Sequence[str], count: int, seed: int) -> list[int]:
    """Indices of the most different molecules, the first always among them (MaxMin, Ashton et al. 2002; Morgan 2)."""
    if count < 1 or not smiles:
        return []
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=1024)
    prints: list[Any] = [generator.GetFingerprint(Chem.MolFromSmiles(text)) for text in smiles]
    if count >= len(prints):
        return list(range(len(prints)))
    chosen = rdSimDivPickers.MaxMinPicker().LazyBitVectorPick(prints, len(prints), count, [0], seed)
    return list(chosen)
