"""Scoring conformers against GFN2-xTB's own, with ETKDG + MMFF94 beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rdkit import Chem

from sciconsist import __version__
from sciconsist.datasets.sdf import read_sdf
from sciconsist.domains.molecules.metrics.conformers import (
    CUTOFF,
    Scores,
    embedded,
    gfn2_ensemble,
    score,
    stereo_right,
)
from sciconsist.errors import UserError
from sciconsist.extras import need

FIGURES = tuple(Scores.__dataclass_fields__)


def evaluate_conformers(
    path: str | Path,
    *,
    starts: int = 30,
    limit: int | None = None,
    seed: int = 0,
    progress: Callable[[int], None] = lambda n: None,
) -> dict[str, Any]:
    """Figures of the conformers in an SDF file, grouped by the molecule asked for (`request`, else its SMILES).

    Reference ensembles are the GFN2-xTB minima reached from `starts` embedded conformers; the baseline gets as many
    ETKDGv3 + MMFF94 conformers as there are samples. The means are over molecules. Raises UserError.
    """
    need("tblite", "molecules", "reference conformers")
    groups = list(grouped(path))[:limit]
    rows: list[dict[str, Any]] = []
    skipped: list[str] = []
    for smiles, mols in groups:
        asked = Chem.AddHs(Chem.MolFromSmiles(smiles))
        reference = gfn2_ensemble(asked, starts, seed + 1000)
        baseline = embedded(asked, len(mols), seed)
        progress(1)
        if not reference or not baseline:
            skipped.append(smiles)
            continue
        rows.append(
            {
                "smiles": smiles, "conformers": len(mols), "reference_conformers": len(reference),
                "stereo_right": float(np.mean([stereo_right(mol, smiles) for mol in mols])),
                "samples": asdict(score(mols, reference)), "etkdg_mmff94": asdict(score(baseline, reference)),
            }
        )  # fmt: skip
    if not rows:
        raise UserError(f"{path}: no molecule of it could be embedded and relaxed, so there is nothing to compare with")
    return {
        "sciconsist": __version__, "source": str(path), "molecules": len(rows), "skipped": skipped,
        "conformers": sum(r["conformers"] for r in rows), "cutoff_angstrom": CUTOFF, "starts": starts, "seed": seed,
        "stereo_right": sum(r["stereo_right"] * r["conformers"] for r in rows) / sum(r["conformers"] for r in rows),
        **{who: {f: float(np.mean([r[who][f] for r in rows])) for f in FIGURES} for who in ("samples", "etkdg_mmff94")},
        "rows": rows,
    }  # fmt: skip


def grouped(path: str | Path) -> Iterator[tuple[str, list[Chem.Mol]]]:
    """The conformers of every molecule of a file, in the order the molecules first occur."""
    groups: dict[str, list[Chem.Mol]] = {}
    for record in read_sdf(path):
        mol = record.mol
        smiles = mol.GetProp("request") if mol.HasProp("request") else Chem.MolToSmiles(Chem.RemoveHs(mol))
        groups.setdefault(smiles, []).append(mol)
    yield from groups.items()
