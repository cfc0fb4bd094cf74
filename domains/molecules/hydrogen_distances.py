"""Distances of hydrogens to the atom they sit on, to its other neighbours and to each other, as GFN2-xTB has them.

Rules of symmetry put a hydrogen within a tenth of an Å of where it belongs. What an atom is bonded to says more: from
`hydrogen_distances.json`, means and standard deviations by an atom's surroundings (QM9-GFN2, training split), hydrogens move to
where these distances are likeliest beside where the rules put them; heavy atoms stay.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib import resources

import numpy as np
from rdkit import Chem

from .hydrogen_sites import Site

OFTEN = 8  # distances of a kind seen less often say nothing
SHARPEST, TRUST = 0.005, 0.1  # Å: the least standard deviation, and that of where the rules put a hydrogen
ITERATIONS, STRIDE, ENOUGH = 4, 0.3, 0.002  # of Gauss-Newton; Å a hydrogen may move in one, and by which the last did
TABLE = "hydrogen_distances.json"
BONDS = {"SINGLE": "-", "DOUBLE": "=", "TRIPLE": "#", "AROMATIC": ":"}


@cache
def table() -> dict[str, tuple[float, float]]:
    """Mean and standard deviation, Å, of every kind."""
    text = resources.files(__package__).joinpath(TABLE).read_text(encoding="utf-8")
    rows = json.loads(text)["distances"]
    return {name: (mean, std) for name, mean, std in rows}


def kinds(mol: Chem.Mol, site: Site) -> tuple[list[str], list[list[str]], list[str]]:
    """Names of a site's distances, the closest kind first: to the atom, to each of its neighbours, between hydrogens."""
    rings = mol.GetRingInfo()
    atom = mol.GetAtomWithIdx(site.atom)
    own = f"{_label(atom)}H{len(site.hydrogens)}"
    items, plain = [], []
    for j in site.neighbours:
        bond, other = mol.GetBondBetweenAtoms(site.atom, j), mol.GetAtomWithIdx(j)
        size = min(rings.BondRingSizes(bond.GetIdx()), default=0)
        joint = f"{BONDS.get(bond.GetBondType().name, '~')}{_label(other)}"
        ring = str(size) if size <= 6 else ""
        items.append(f"{joint}{other.GetTotalNumHs(includeNeighbors=True)}{ring}")
        plain.append(f"{joint}{ring}")
    near, rough = (f"{own}({','.join(sorted(names))})" for names in (items, plain))
    bare = f"{own}{atom.GetHybridization().name}"
    bond_names = [near, rough, bare]
    bends = [[f"{near}{i}", f"{rough}{p}", f"{bare}{p}"] for i, p in zip(items, plain)]
    return bond_names, bends, [f"{name}^" for name in bond_names]


def _label(atom: Chem.Atom) -> str:
    charge = atom.GetFormalCharge()
    return atom.GetSymbol() + (f"{charge:+d}" if charge else "")


def distances(mol: Chem.Mol, sites: Iterable[Site]) -> Iterator[tuple[list[str], int, int]]:
    """Names of each distance's kinds (`kinds`), a hydrogen, and the atom or hydrogen it is to."""
    for site in sites:
        own, bends, between = kinds(mol, site)
        for k, h in enumerate(site.hydrogens):
            yield own, h, site.atom
            for names, j in zip(bends, site.neighbours):
                yield names, h, j
            for other in site.hydrogens[:k]:
                yield between, h, other


def learn(mols: Iterable[tuple[Chem.Mol, Iterable[Site]]]) -> list[tuple[str, float, float]]:
    """Rows of the table: kinds seen often, their means and standard deviations, of sanitised molecules with positions."""
    seen: defaultdict[str, list[float]] = defaultdict(list)
    for mol, sites in mols:
        x = mol.GetConformer().GetPositions()
        for names, i, j in distances(mol, sites):
            for name in names:
                seen[name].append(float(np.linalg.norm(x[i] - x[j])))
    rows = ((n, round(float(np.mean(d)), 4), round(float(np.std(d)), 4)) for n, d in seen.items() if len(d) >= OFTEN)
    return sorted(rows)


def settled(mol: Chem.Mol, sites: Sequence[Site], x: np.ndarray) -> np.ndarray:
    """Coordinates `[A, 3]` Å with hydrogens at their likeliest distances (Gauss-Newton from where they are)."""
    known = table()
    asked = []
    for names, i, j in distances(mol, sites):
        row = next((known[name] for name in names if name in known), None)
        if row is not None:
            asked.append((i, j, *row))
    if not asked:
        return x
    first, second = np.array([pair[:2] for pair in asked]).T
    mean, std = np.array([pair[2:] for pair in asked]).T
    weight = np.maximum(std, SHARPEST) ** -2.0
    hydrogens = np.unique(first)
    column = np.full(len(x), -1)
    column[hydrogens] = np.arange(len(hydrogens))
    rows, at, to = np.arange(len(asked)), column[first], column[second]
    both = to >= 0
    start, x = x[hydrogens], x.copy()
    for _ in range(ITERATIONS):
        offset = x[first] - x[second]
        length = np.sqrt(np.square(offset).sum(1) + 1e-12)
        unit = offset / length[:, None]
        towards = np.zeros((len(asked), len(hydrogens), 3))
        towards[rows, at] = unit
        towards[rows[both], to[both]] = -unit[both]
        slopes = towards.reshape(len(asked), -1)
        weighted = slopes.T * weight
        right = weighted @ (mean - length) + TRUST**-2.0 * (start - x[hydrogens]).ravel()
        step = np.linalg.solve(weighted @ slopes + TRUST**-2.0 * np.eye(len(right)), right).reshape(-1, 3)
        longest = np.sqrt(np.square(step).sum(1).max())
        x[hydrogens] += step * min(1.0, STRIDE / max(longest, 1e-12))
        if longest < ENOUGH:
            break
    return x
