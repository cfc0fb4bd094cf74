"""What the report page says about molecules: figures, a gallery, bond lengths and angles beside real ones."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem.Draw import rdMolDraw2D
from scipy.stats import wasserstein_distance

from sciconsist.sections import Badge, Card, Gallery, Histogram, Histograms, Metric, Section, Structure, Table

from .hydrogens import FAILED
from .metrics.geometry import measure
from .metrics.stability import arrays, stable_atoms
from .metrics.validity import canonical_smiles, strict_molecule
from .reference import Bins, ReferenceHistograms, qm9_gfn2

_WIDTH, _HEIGHT = 240, 170  # of a drawing
_MAX_ATOMS = 400  # beyond this a drawing says nothing
_MAX_FACT = 300  # characters
_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
_SIGNS = {"-": "–", "=": "=", "#": "≡", ":": "∶", "?": "?"}

# RDKit draws absolute colours; the page has a variable for each, with a value for light and one for dark.
_PALETTE = {
    0: (0.0, 0.0, 0.0), 1: (0.0, 0.0, 0.0), 6: (0.0, 0.0, 0.0), 7: (0.0, 0.0, 1.0), 8: (1.0, 0.0, 0.0),
    9: (0.0, 0.8, 0.0), 15: (1.0, 0.6, 0.0), 16: (0.8, 0.8, 0.0), 17: (0.0, 0.8, 0.2), 35: (0.6, 0.2, 0.0),
    53: (0.6, 0.0, 0.6),
}  # fmt: skip
_VARIABLES = {
    "#000000": "ink", "#0000FF": "n", "#FF0000": "o", "#00CC00": "hal", "#FF9900": "p", "#CCCC00": "s",
    "#00CC33": "hal", "#993300": "br", "#990099": "i",
}  # fmt: skip


def molecule_sections(
    samples: Sequence[Chem.Mol],
    metrics: Mapping[str, Any] | None = None,
    reference: Sequence[Chem.Mol] | ReferenceHistograms | None = None,
    *,
    ceiling: Mapping[str, Any] | None = None,
    known: Collection[str] | None = None,
    known_name: str = "the training data",
    limit: int = 60,
) -> list[Section]:
    """Sections for `workflows.report.write_report`: figures, gallery, histograms.

    `metrics` is what `metrics.evaluate` returns and `ceiling` the same of real molecules. `reference` is what
    histograms are compared with, by default the table of QM9-GFN2 in the package. With `known`, SMILES as
    `known_smiles` makes them, molecules are marked novel or not. The first `limit` molecules are shown.
    """
    if reference is None:
        reference = qm9_gfn2()
    elif not isinstance(reference, ReferenceHistograms):
        reference = ReferenceHistograms.from_molecules(reference)
    sections: list[Section] = []
    if metrics:
        sections.append(_table(metrics, ceiling or {}))
    cards = [_card(mol, known, known_name) for mol in samples[:limit]]
    shown = f"The first {len(cards)} of {len(samples)}" if len(cards) < len(samples) else f"All {len(cards)}"
    sections.append(
        Gallery(
            "Molecules",
            f"{shown}, in the order they were generated. Choose one to turn it round in 3D; its drawing "
            "is made from the same bonds.",
            cards,
            len(samples),
        )
    )
    return sections + _geometry(samples, reference)


# --- the gallery


def _card(mol: Chem.Mol, known: Collection[str] | None, known_name: str) -> Card:
    strict = strict_molecule(mol)
    smiles = canonical_smiles(strict) if strict is not None else None
    numbers, positions = arrays(mol)
    stable = len(numbers) > 0 and bool(stable_atoms(numbers, positions).all())
    if strict is not None:
        why = "one closed-shell molecule that RDKit accepts"
    elif mol.HasProp(FAILED):
        why = mol.GetProp(FAILED)
    else:
        why = "hydrogens are missing, or it is not one closed-shell piece"
    badges = [
        Badge("valid", strict is not None, why),
        Badge("stable", stable, "every atom has its usual valence when bonds are read off the distances"),
    ]
    if known is not None and smiles is not None:
        badges.append(Badge("novel", smiles not in known, f"compared with {known_name}"))
    formula = _formula(mol)
    return Card(
        name=smiles or _any_smiles(mol) or formula,
        detail=formula.translate(_SUBSCRIPTS),
        badges=badges,
        facts=_facts(mol),
        drawing=draw(mol if strict is None else strict),
        structure=_structure(mol, positions),
    )


def _any_smiles(mol: Chem.Mol) -> str:
    """The SMILES of something that is not a molecule; "" when it has none."""
    if mol.GetNumBonds() == 0:
        return ""
    try:
        with rdBase.BlockLogs():
            return Chem.MolToSmiles(Chem.RemoveHs(mol, sanitize=False))
    except (ValueError, RuntimeError):
        return ""


def _formula(mol: Chem.Mol) -> str:
    """Hill order: carbon, hydrogen, then the alphabet (the alphabet alone without carbon)."""
    counts = Counter(atom.GetSymbol() for atom in mol.GetAtoms())
    first = ["C", "H"] if "C" in counts else []
    order = [s for s in first if s in counts] + sorted(set(counts) - set(first))
    charge = sum(atom.GetFormalCharge() for atom in mol.GetAtoms())
    sign = f" ({charge:+d})" if charge else ""
    return "".join(f"{s}{counts[s] if counts[s] > 1 else ''}" for s in order) + sign or "no atoms"


def _facts(mol: Chem.Mol) -> list[tuple[str, str]]:
    """Size, and the properties a record carries: where it comes from."""
    heavy = sum(atom.GetAtomicNum() > 1 for atom in mol.GetAtoms())
    facts = [("atoms", f"{mol.GetNumAtoms()}, {heavy} of them heavier than hydrogen")]
    for name in mol.GetPropNames():
        text = mol.GetProp(name)
        if not name.startswith("_"):
            short = text if len(text) <= _MAX_FACT else text[: _MAX_FACT - 1] + "…"
            facts.append((name.replace("_", " "), short))
    return facts


def _structure(mol: Chem.Mol, positions: np.ndarray) -> Structure | None:
    """Atoms turned so that the longest axis lies across and the shortest points at the reader."""
    if not len(positions) or not np.isfinite(positions).all() or np.abs(positions).max() > 1e4:
        return None
    kekulized = Chem.Mol(mol)
    try:
        with rdBase.BlockLogs():
            Chem.Kekulize(kekulized, clearAromaticFlags=True)
    except (ValueError, RuntimeError):
        kekulized = mol
    centred = positions - positions.mean(0)
    axes = np.linalg.svd(centred, full_matrices=True)[2] if len(positions) > 1 else np.eye(3)
    axes *= np.where(np.take_along_axis(axes, np.abs(axes).argmax(1)[:, None], 1) < 0, -1, 1)
    axes[2] *= np.sign(np.linalg.det(axes))  # a rotation, never a mirror
    turned = np.round(centred @ axes.T, 3) + 0.0
    bonds = [
        (b.GetBeginAtomIdx(), b.GetEndAtomIdx(), max(1, int(b.GetBondTypeAsDouble()))) for b in kekulized.GetBonds()
    ]
    symbols = [atom.GetSymbol() for atom in mol.GetAtoms()]
    return Structure(symbols, [(x, y, z) for x, y, z in turned.tolist()], bonds)


def draw(mol: Chem.Mol) -> str:
    """SVG markup of the structural formula, in colours the page defines; "" where there is nothing to draw.

    The markup holds shapes and numbers only: labels are drawn as outlines.
    """
    if not 0 < mol.GetNumAtoms() <= _MAX_ATOMS or mol.GetNumBonds() == 0:
        return ""
    try:
        with rdBase.BlockLogs():
            try:
                flat = Chem.RemoveHs(mol)
            except (ValueError, RuntimeError):
                flat = Chem.RemoveHs(mol, sanitize=False)
            flat = Chem.Mol(flat)
            flat.RemoveAllConformers()  # otherwise it is drawn as its shadow in 3D
            canvas = rdMolDraw2D.MolDraw2DSVG(_WIDTH, _HEIGHT)
            options: Any = canvas.drawOptions()
            options.clearBackground = False
            options.fixedBondLength, options.bondLineWidth, options.padding = 26, 1.6, 0.06
            options.prepareMolsBeforeDrawing = False
            options.setAtomPalette(_PALETTE)
            try:
                flat = rdMolDraw2D.PrepareMolForDrawing(flat, kekulize=True)
            except (ValueError, RuntimeError):
                flat.UpdatePropertyCache(strict=False)
            canvas.DrawMolecule(flat)
            canvas.FinishDrawing()
    except (ValueError, RuntimeError):
        return ""
    shapes = re.findall(r"<(?:path|ellipse|polygon|line)\s[^<>]*/>", canvas.GetDrawingText())
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" aria-hidden="true">{"".join(map(_themed, shapes))}</svg>'


def _themed(shape: str) -> str:
    """One shape without RDKit's classes, its colour a variable of the page."""
    path = re.search(r"\sd='([^']*)'", shape)
    if path is None:
        return ""
    colours = re.findall(r"#[0-9A-Fa-f]{6}", shape)
    variable = _VARIABLES.get(colours[0].upper(), "ink") if colours else "ink"
    width = re.search(r"stroke-width:([\d.]+)", shape)
    filled = re.search(r"fill[:=]['\"]?#", shape) is not None
    paint = f"fill:var(--{variable})" if filled else "fill:none"
    if width and "stroke:#" in shape:
        paint += f";stroke:var(--{variable});stroke-width:{width[1]};stroke-linecap:round"
    return f'<path d="{path[1]}" style="{paint}"/>'


# --- figures


_VALIDITY = {
    "strict_bonds": ("Valid, from the decoded bonds", "One closed-shell molecule, no hydrogen added"),
    "strict_distance": ("Valid, from the distances", "The same demand, bonds read off the coordinates"),
    "edm": (
        "Valid, as EDM counts",
        "From the distances; missing hydrogens are added and the largest piece is kept",
    ),
}


def _table(metrics: Mapping[str, Any], ceiling: Mapping[str, Any]) -> Table:
    """The figures a reader looks for first; `report.json` has the rest."""
    rows = []

    def add(name: str, meaning: str, path: str, count: str, unit: str = "%", interval: bool = False) -> None:
        value, n = _number(metrics, path), _number(metrics, count)
        if value is None:
            return
        total = None if n is None else int(n)
        between = _wilson(value, total) if interval and total else None
        rows.append(Metric(name, value, total, _number(ceiling, path), meaning, unit, between))

    bonds = "validity.strict_bonds"
    every = _number(metrics, f"{bonds}.n") or 0.0
    valid, unique = (round(every * (_number(metrics, f"{bonds}.{k}") or 0.0)) for k in ("valid", "valid_unique"))
    metrics = {**metrics, "of": {"valid": valid, "unique": unique}}

    for reading, (name, meaning) in _VALIDITY.items():
        add(name, meaning, f"validity.{reading}.valid", f"validity.{reading}.n", interval=True)
    add("Unique", "Different molecules among the valid", f"{bonds}.uniqueness", "of.valid")
    add("Novel", "Of the different molecules, those not known before", f"{bonds}.novelty", "of.unique")
    add(
        "Valid, unique and novel", "Of all samples", f"{bonds}.valid_unique_novel", f"{bonds}.n",
        interval=True,
    )  # fmt: skip
    add(
        "Stable molecules", "Every atom has its usual valence when bonds are read off the distances",
        "stability.molecule_stable", "stability.molecules", interval=True,
    )  # fmt: skip
    add("Stable atoms", "The same, atom by atom", "stability.atom_stable", "stability.atoms")
    add(
        "PoseBusters", "Passes every check of lengths, angles, clashes and flatness",
        "posebusters.valid", "posebusters.n", interval=True,
    )  # fmt: skip
    add(
        "Graph distance", "Mean Wasserstein distance of 12 descriptors, in standard deviations; 0 is perfect",
        "graph_distance.mean", "graph_distance.n", "σ",
    )  # fmt: skip
    add("Bond lengths", "Mean Wasserstein distance by type", "geometry.lengths.mean", "geometry.n", "Å")
    add("Bond angles", "Mean Wasserstein distance by type", "geometry.angles.mean", "geometry.n", "°")
    add(
        "Relaxation energy", "Median energy given up on the way to the GFN2-xTB minimum",
        "energy.median_kcal_mol", "energy.scored", "kcal/mol",
    )  # fmt: skip
    add(
        "Relaxation RMSD", "Median shift of the atoms on that way", "energy.median_rmsd_angstrom",
        "energy.scored", "Å",
    )  # fmt: skip
    return Table("Figures", "Every sample counts, also what failed, unless the meaning says otherwise.", rows)


def _number(report: Mapping[str, Any], path: str) -> float | None:
    """A number by its dotted path; None where there is none or it is not finite."""
    found: Any = report
    for key in path.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    if not isinstance(found, int | float) or isinstance(found, bool) or not math.isfinite(found):
        return None
    return float(found)


def _wilson(share: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a share of n (Wilson 1927)."""
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


# --- histograms


def _geometry(samples: Sequence[Chem.Mol], reference: ReferenceHistograms) -> list[Section]:
    found = measure(samples)
    name = reference.name
    source = f" ({reference.source})" if reference.source else ""
    intro = (
        f"{found.molecules:,} of {len(samples):,} samples (those that are valid) against {reference.molecules:,} "
        f"of {name}{source}, for the most frequent types there. W₁ is the Wasserstein distance, taken from the "
        "bins drawn here."
    )
    return [
        Histograms("Bond lengths", intro, _panels(found.lengths, reference.lengths, "Å"), name),
        Histograms(
            "Bond angles",
            "The atom in the middle is the vertex.",
            _panels(found.angles, reference.angles, "°"),
            name,
        ),
    ]


def _panels(samples: Mapping[str, np.ndarray], reference: Mapping[str, Bins], unit: str) -> list[Histogram]:
    panels = []
    for kind, bins in reference.items():
        values = samples.get(kind, np.zeros(0))
        counts, outside = bins.count(values)
        some = len(values) > 0
        panels.append(
            Histogram(
                _title(kind), unit, bins.start, bins.width, counts, bins.counts, len(values), bins.n, outside,
                round(float(values.mean()), 5) if some else None, bins.mean,
                float(wasserstein_distance(values, bins.centres, None, bins.counts)) if some else None,
            )
        )  # fmt: skip
    return panels


def _title(kind: str) -> str:
    aromatic = " aromatic" if ":" in kind else ""
    return "".join(_SIGNS.get(c, c) for c in kind) + aromatic
