"""Local geometry against a reference: Wasserstein-1 of bond lengths (Å) and bond angles (degrees) by type.

A bond type is its two elements and order (`C-N`, `C=O`, `C:C` aromatic), an angle type its three elements
with the centre in the middle (`C-C-H`). Bonds are the decoded ones.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from rdkit import Chem
from scipy.stats import wasserstein_distance

from .validity import strict_molecule

_SIGNS = {
    Chem.BondType.SINGLE: "-",
    Chem.BondType.DOUBLE: "=",
    Chem.BondType.TRIPLE: "#",
    Chem.BondType.AROMATIC: ":",
}
_MIN_COUNT = 30  # a type rarer than this in the reference has no distribution to compare with


@dataclass(frozen=True)
class Geometry:
    """All bond lengths in Å and angles in degrees of a set of molecules, by type."""

    molecules: int
    lengths: dict[str, np.ndarray]
    angles: dict[str, np.ndarray]


def measure(molecules: Sequence[Chem.Mol | None]) -> Geometry:
    """Lengths and angles of molecules that are strictly valid and have finite coordinates."""
    lengths: defaultdict[str, list] = defaultdict(list)
    angles: defaultdict[str, list] = defaultdict(list)
    count = 0
    for given in molecules:
        if given is None or not given.GetNumConformers() or (mol := strict_molecule(given)) is None:
            continue
        positions = mol.GetConformer().GetPositions()
        if not np.isfinite(positions).all():
            continue
        count += 1
        _measure_one(mol, positions, lengths, angles)
    return Geometry(count, _arrays(lengths), _arrays(angles))


def _measure_one(mol: Chem.Mol, positions: np.ndarray, lengths: dict[str, list], angles: dict[str, list]) -> None:
    symbols = [atom.GetSymbol() for atom in mol.GetAtoms()]
    neighbours: list[list[int]] = [[] for _ in symbols]
    for bond in mol.GetBonds():
        i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        neighbours[i].append(j)
        neighbours[j].append(i)
        first, second = sorted((symbols[i], symbols[j]))
        sign = _SIGNS.get(bond.GetBondType(), "?")
        lengths[f"{first}{sign}{second}"].append(float(np.linalg.norm(positions[i] - positions[j])))
    triples = np.array([(a, c, b) for c, around in enumerate(neighbours) for a, b in combinations(around, 2)], int)
    if not len(triples):
        return
    u, v = (
        positions[triples[:, 0]] - positions[triples[:, 1]],
        positions[triples[:, 2]] - positions[triples[:, 1]],
    )
    # atan2 rather than arccos: exact at 180 degrees, and defined when two atoms coincide
    degrees = np.degrees(np.arctan2(np.linalg.norm(np.cross(u, v), axis=1), (u * v).sum(axis=1)))
    for (a, c, b), angle in zip(triples.tolist(), degrees.tolist(), strict=True):
        first, second = sorted((symbols[a], symbols[b]))
        angles[f"{first}-{symbols[c]}-{second}"].append(angle)


def _arrays(values: dict[str, list]) -> dict[str, np.ndarray]:
    return {kind: np.array(values[kind]) for kind in sorted(values)}


def _compare(samples: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> dict:
    """Distance by type and their mean weighted by the reference's counts, over types found on both sides."""
    wanted = {kind: values for kind, values in reference.items() if len(values) >= _MIN_COUNT}
    types = {
        kind: {
            "distance": float(wasserstein_distance(samples[kind], values)),
            "n": len(samples[kind]),
            "n_reference": len(values),
        }
        for kind, values in wanted.items()
        if kind in samples
    }
    weight = sum(t["n_reference"] for t in types.values())
    total, found = sum(map(len, wanted.values())), sum(map(len, samples.values()))
    return {
        "mean": sum(t["distance"] * t["n_reference"] for t in types.values()) / weight if weight else float("nan"),
        "reference_covered": weight / total if total else float("nan"),
        "samples_covered": sum(t["n"] for t in types.values()) / found if found else float("nan"),
        "types": types,
    }


def geometry_distance(samples: Geometry, reference: Geometry) -> dict:
    """`lengths` (Å) and `angles` (degrees), each with the weighted mean, what it covers and every type."""
    return {
        "n": samples.molecules,
        "n_reference": reference.molecules,
        "lengths": _compare(samples.lengths, reference.lengths),
        "angles": _compare(samples.angles, reference.angles),
    }
