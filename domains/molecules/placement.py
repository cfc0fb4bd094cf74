"""Hydrogen coordinates from heavy-atom coordinates and the graph, by analytic rules.

Sites with two or more heavy neighbours are placed by symmetry (normal, bisector); the angles and lengths
are means over QM9-GFN2 training molecules. What remains open - the torsion of a CH3, NH2 or OH, the side
of an amine or imine hydrogen - is chosen among candidates by a pair score fitted to GFN2-xTB torsion scans.
Lengths in Å, angles in degrees. Rules are covariant under rotation and reflection.
"""

from __future__ import annotations

import math

import numpy as np
from rdkit import Chem

from .hydrogen_sites import SP2, Site, hydrogen_sites

LENGTHS = {  # X-H, GFN2-xTB minima of QM9 molecules, training split (standard deviation 0.002-0.008 Å)
    ("C", 1): 1.049, ("C", 2): 1.079, ("C", 3): 1.089,
    ("N", 2): 1.008, ("N", 3): 1.015, ("O", 2): 0.966, ("O", 3): 0.965,
    ("S", 3): 1.344, ("P", 3): 1.415,
}  # fmt: skip
OTHER_LENGTH = 1.09
LONE_ANGLE = {
    ("C", 2): 121.8, ("C", 3): 110.1, ("N", 2): 118.0, ("N", 3): 111.0, ("O", 2): 106.9, ("O", 3): 108.6,
}  # fmt: skip
IMINE_ANGLE, HYDRIDE_ANGLE = 114.9, 97.0  # C=N-H; C-S-H and C-P-H
NH_TILT, NH2_TURN = np.radians(31.0), np.radians(20.0)  # out of plane of an sp2 nitrogen that is a pyramid
TORSIONS = 24
CORE, CORE_RADIUS = 1000.0, 1.5  # kcal/mol/Å^2 and Å: nothing comes this close, whatever the fit says
# Coefficients (of exp(-2 d), of 1 / d), kcal/mol, d in Å, for a partner two bonds from the site's atom, and
# for one farther: H on C, H elsewhere, C, N, O or F. Bounded least squares to 409 GFN2-xTB scans of QM9
# training molecules; in 4-fold cross-validation the candidate chosen lies .05 (methyl), .18, .39 and .11
# kcal/mol above the best one.
SCORES = {
    "methyl": np.array([
        [[390.7, 108.2], [139.8, -8.9]], [[548.3, 180.2], [25.6, 22.2]], [[373.7, 80.0], [181.3, -5.0]],
        [[0.0, 108.9], [120.5, -19.7]], [[0.0, 90.0], [111.9, -29.6]],
    ]),
    "amine": np.array([
        [[180.5, 7.4], [194.8, -3.1]], [[0.0, 0.0], [204.2, -3.6]], [[602.4, -31.5], [0.0, 2.1]],
        [[0.0, 0.0], [0.0, -2.3]], [[0.0, 0.0], [0.0, -6.9]],
    ]),
    "hydroxyl": np.array([
        [[249.4, 6.5], [102.5, -2.5]], [[0.0, 0.0], [187.5, 3.4]], [[412.2, -11.0], [2.7, 3.7]],
        [[0.0, 0.0], [0.0, -16.8]], [[0.0, 0.0], [0.0, -14.8]],
    ]),
    "planar": np.array([
        [[130.9, 11.9], [136.0, 2.3]], [[0.0, 0.0], [186.8, 12.2]], [[307.8, -8.8], [0.0, -5.7]],
        [[0.0, -9.8], [0.0, -18.6]], [[75.5, -14.9], [0.0, -14.9]],
    ]),
}  # fmt: skip
SWEEPS = 2
TIE = 1e-3  # kcal/mol: of mirror-image candidates the first is taken, not the one round-off prefers


def place_hydrogens(mol: Chem.Mol, positions: np.ndarray) -> np.ndarray:
    """Coordinates `[A, 3]` Å of all atoms of `mol`: heavy ones `[N, 3]` as given, hydrogens after them."""
    heavy = len(positions)
    x = np.full((mol.GetNumAtoms(), 3), np.nan)
    x[:heavy] = positions
    open_sites = []
    for site in hydrogen_sites(mol, heavy):
        candidates = _candidates(mol, site, positions)
        if len(candidates) == 1:
            x[site.hydrogens] = candidates[0]
        else:
            open_sites.append((site, candidates))
    kinds = _kinds(mol)
    for _ in range(SWEEPS if len(open_sites) > 1 else 1):
        for site, candidates in open_sites:
            scores = _scores(mol, site, candidates, x, kinds)
            x[site.hydrogens] = candidates[(scores <= scores.min() + TIE).argmax()]
    return x


def _candidates(mol: Chem.Mol, site: Site, x: np.ndarray) -> np.ndarray:
    """Possible hydrogen coordinates `[C, H, 3]` of one site."""
    centre, count = x[site.atom], len(site.hydrogens)
    length = LENGTHS.get((site.symbol, site.spread), OTHER_LENGTH)
    away = np.array([_unit(x[j] - centre) for j in site.neighbours]).reshape(-1, 3)
    if len(away) == 0:
        directions = _isolated(count)[None]
    elif len(away) == 1:
        directions = _lone(mol, site, away[0], x)
    elif len(away) == 2 and count == 1:
        directions = _two_and_one(site, away)
    elif len(away) == 2:
        directions = _two_and_two(away)[None]
    else:
        directions = _opposite(away)[None, None]
    if directions.shape[1] < count:  # more hydrogens than any rule expects, such as a phosphorane's
        directions = _spread(away, count)[None]
    return centre + length * directions[:, :count]


def _isolated(count: int) -> np.ndarray:
    """Directions `[count, 3]` of a lone atom's hydrogens: tetrahedron corners, any orientation."""
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(3)
    return corners[:count]


def _spread(away: np.ndarray, count: int) -> np.ndarray:
    """`count` directions far from the bonds and from each other, greedily from 200 fixed ones."""
    k = np.arange(200)
    z = 1 - (2 * k + 1) / 200
    ring = np.sqrt(1 - z * z)
    turn = k * np.pi * (3 - np.sqrt(5))
    sphere = np.stack([ring * np.cos(turn), ring * np.sin(turn), z], 1)
    taken = list(away)
    for _ in range(count):
        taken.append(sphere[(sphere @ np.array(taken).T).max(1).argmin()])
    return np.array(taken[len(away) :])


def _lone(mol: Chem.Mol, site: Site, axis: np.ndarray, x: np.ndarray) -> np.ndarray:
    """One heavy neighbour, along `axis`: a linear site, or hydrogens on a cone about the bond."""
    if site.spread == 1:
        return -axis[None, None]
    reference, planar = _reference(mol, site, axis, x)
    across = _cross(axis, reference)
    count = len(site.hydrogens)
    angle = np.radians(_lone_angle(site))
    if site.spread == 2 and planar and site.tilted and count == 2:
        turns = np.array([[t, np.pi - t] for t in (NH2_TURN, -NH2_TURN)])
    elif site.spread == 2 and planar and count < 3:
        turns = np.array([[0.0, np.pi]]) if count == 2 else np.array([[np.pi], [0.0]])
    else:
        step = 2 * np.pi / (3 if site.spread == 3 else 2)
        period = step if step * count > 6 else 2 * np.pi
        turns = np.arange(TORSIONS)[:, None] * (period / TORSIONS) + np.pi + step * np.arange(count)
    ring = np.cos(turns)[..., None] * reference + np.sin(turns)[..., None] * across
    return np.cos(angle) * axis + np.sin(angle) * ring


def _lone_angle(site: Site) -> float:
    if site.symbol in ("S", "P"):
        return HYDRIDE_ANGLE
    if site.symbol == "N" and site.double:
        return IMINE_ANGLE
    return LONE_ANGLE.get((site.symbol, site.spread), 109.5)


def _reference(mol: Chem.Mol, site: Site, axis: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, bool]:
    """A unit vector normal to the bond, towards another atom, and whether both span a pi plane."""
    next_atom = site.neighbours[0]
    atom = mol.GetAtomWithIdx(next_atom)
    near = [b.GetIdx() for b in atom.GetNeighbors() if b.GetIdx() < len(x) and b.GetIdx() != site.atom]
    for place, j in enumerate([*near, *range(len(x))]):
        offset = x[j] - x[next_atom]
        normal = offset - (offset @ axis) * axis
        if _length(normal) > 0.3:
            return _unit(normal), place < len(near) and atom.GetHybridization() == SP2
    return _normal_to(axis), False


def _two_and_one(site: Site, away: np.ndarray) -> np.ndarray:
    """A hydrogen opposite the bisector, in plane for sp2, tilted to either side for an amine."""
    back = -_unit(away.sum(0), fallback=_normal_to(away[0]))
    if site.spread < 3 and not site.tilted:
        return back[None, None]
    between = np.degrees(np.arccos(np.clip(away[0] @ away[1], -1, 1)))
    # fitted; 61.7 degrees in aziridines, 51 in open chains
    tilt = NH_TILT if site.tilted else np.radians(77.2 - 0.25 * between)
    normal = _unit(_cross(away[0], away[1]), fallback=_normal_to(back))
    return np.array([[np.cos(tilt) * back + sign * np.sin(tilt) * normal] for sign in (1, -1)])


def _two_and_two(away: np.ndarray) -> np.ndarray:
    """CH2: both in the plane normal to the heavy atoms', H-C-H closing as the heavy angle opens."""
    back = -_unit(away.sum(0), fallback=_normal_to(away[0]))
    normal = _unit(_cross(away[0], away[1]), fallback=_cross(back, away[0]))
    between = np.degrees(np.arccos(np.clip(away[0] @ away[1], -1, 1)))
    half = np.radians(120.96 - 0.1171 * between) / 2
    return np.array([np.cos(half) * back + np.sin(half) * normal, np.cos(half) * back - np.sin(half) * normal])


def _opposite(away: np.ndarray) -> np.ndarray:
    """The direction at equal angles from three bonds: 3.5 degrees from GFN2's, minus their sum 13."""
    total = away[:3].sum(0)
    normal = _cross(away[1] - away[0], away[2] - away[0])
    if len(away) > 3 or _length(normal) < 0.05:
        return -_unit(away.sum(0), fallback=_normal_to(away[0]))
    normal = _unit(normal)
    return -normal if normal @ total > 0 else normal


def _kinds(mol: Chem.Mol) -> np.ndarray:
    """Row of `SCORES` of every atom `[A]`."""
    kinds = []
    for atom in mol.GetAtoms():
        number = atom.GetAtomicNum()
        if number == 1:
            kinds.append(0 if atom.GetDegree() and atom.GetNeighbors()[0].GetAtomicNum() == 6 else 1)
        else:
            kinds.append({7: 3, 8: 4, 9: 4}.get(number, 2))
    return np.array(kinds)


def _scores(mol: Chem.Mol, site: Site, candidates: np.ndarray, x: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """Pair score of candidates `[C, H, 3]` among the atoms placed so far, `[C]`, lower is better."""
    own = {site.atom, *site.neighbours, *site.hydrogens}
    near = {b.GetIdx() for j in site.neighbours for b in mol.GetAtomWithIdx(j).GetNeighbors()}
    others = np.array([j for j in range(len(x)) if j not in own and x[j, 0] == x[j, 0]], dtype=int)
    far = np.array([int(j not in near) for j in others], dtype=int)
    repulsion, coulomb = SCORES[_kind_of_site(site)][kinds[others], far].T
    offset = candidates[:, :, None] - x[others]
    d = np.sqrt((offset * offset).sum(-1)).clip(0.1)
    core = CORE * np.maximum(CORE_RADIUS - d, 0) ** 2
    return (repulsion * np.exp(-2 * d) + coulomb / d + core).sum((1, 2))


def _kind_of_site(site: Site) -> str:
    if site.spread == 2:
        return "planar"
    if len(site.hydrogens) == 3:
        return "methyl"
    return "hydroxyl" if site.symbol in ("O", "S") else "amine"


def _length(v: np.ndarray) -> float:
    return math.sqrt(float(v @ v))


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`np.cross` of two single vectors, ten times faster."""
    (p, q, r), (s, t, u) = a.tolist(), b.tolist()
    return np.array([q * u - r * t, r * s - p * u, p * t - q * s])


def _unit(v: np.ndarray, fallback: np.ndarray | None = None) -> np.ndarray:
    length = _length(v)
    if length > 1e-3:
        return v / length
    return np.array([1.0, 0.0, 0.0]) if fallback is None else _unit(fallback)


def _normal_to(axis: np.ndarray) -> np.ndarray:
    """Any unit vector normal to `axis`."""
    return _unit(_cross(axis, np.eye(3)[np.abs(axis).argmin()]))
