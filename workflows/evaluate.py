"""Scoring generated molecules, with real ones scored the same way beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rdkit import Chem

from sciconsist import __version__
from sciconsist.datasets import qm9_gfn2, registry
from sciconsist.datasets.records import MoleculeRecord
from sciconsist.datasets.sdf import read_sdf
from sciconsist.domains.molecules.adapter import flat
from sciconsist.domains.molecules.metrics import Reference, ceiling, evaluate, known_smiles
from sciconsist.domains.molecules.metrics.conditional import conditional_errors, requests
from sciconsist.errors import UserError


@dataclass
class Evaluation:
    """Figures of samples and of reference molecules, and what they are of."""

    samples: dict[str, Any]
    ceiling: dict[str, Any]
    about: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {**self.about, "samples": self.samples, "ceiling": self.ceiling}

    def table(self) -> list[tuple[str, float, float | None]]:
        """(figure, samples, ceiling) of the main numbers, in order; `to_json` has all of them."""
        beside = dict(flat(self.ceiling))
        rows = [(name, value, beside.get(name)) for name, value in flat(self.samples)]
        return [row for row in rows if not any(part in row[0] for part in (".types.", ".checks."))]


def evaluate_molecules(
    samples: str | Path | list[Chem.Mol],
    reference: str = "qm9-gfn2:test",
    *,
    posebusters: int = 0,
    energy: int = 0,
    told: int = 200,
    limit: int | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Evaluation:
    """Score an SDF file (or molecules) against a data set's split or an SDF file of real molecules.

    `limit` bounds the reference molecules; the first `told` samples that were told properties are measured for
    them. Novelty is against all of QM9's SMILES where the data folder has
    them. `say` hears that the work begins, once the inputs are read. Raises UserError.
    """
    if isinstance(samples, list):
        mols, source = samples, f"{len(samples)} molecules"
    else:
        mols, source = [record.mol for record in read_sdf(samples, sanitize=False)], str(samples)
    records, name = read_reference(reference, limit)
    real = [record.mol for record in records]
    known, novelty = qm9_smiles()
    say(f"scoring {len(mols)} molecules beside {len(real)} of {name}")
    found = evaluate(mols, Reference.from_molecules(real), known, posebusters=posebusters, energy=energy)
    if told and any(requests(mol) for mol in mols):
        found["told"] = conditional_errors(mols, real, [r.properties for r in records], told)
    best = ceiling(real, known, posebusters=posebusters, energy=energy)
    about = {
        "sciconsist": __version__, "source": source, "reference": name, "reference_molecules": len(real),
        "novelty_against": novelty, "origin": origin(mols),
        "ceiling_is": "reference molecules scored the same way; distances are between two halves of them",
    }  # fmt: skip
    return Evaluation(found, best, about)


def read_reference(reference: str, limit: int | None = None) -> tuple[list[MoleculeRecord], str]:
    """Records of `NAME`, `NAME:SPLIT` or an SDF file, and the name with its split."""
    if Path(reference).suffix == ".sdf":
        return read_sdf(reference)[:limit], reference
    name, _, split = reference.partition(":")
    data = registry.entry(name)
    if data.domain != "molecules" or data.loader is None:
        raise UserError(f"{reference}: not a set of 3D molecules; expected qm9-gfn2:test or an SDF file")
    split = split or ("test" if "test" in data.files else next(iter(data.files)))
    records = registry.load(name, split, limit=limit)
    return records, f"{name}:{split}"


def qm9_smiles() -> tuple[set[str] | None, str | None]:
    """All of QM9 for novelty, and its name; None where the data folder does not have it."""
    try:
        smiles = qm9_gfn2.all_smiles()
    except UserError:
        return None, None
    return known_smiles(smiles), f"all {len(smiles)} SMILES of QM9"


def origin(mols: list[Chem.Mol]) -> dict[str, str]:
    """What the first record says about its making."""
    keys = ("generator", "model", "model_sha256", "seed", "steps", "selection", "training_data")
    return {k: mols[0].GetProp(k) for k in keys if mols and mols[0].HasProp(k)}
