"""Hydrogen coordinates from heavy-atom coordinates and the graph, by analytic rules.

Sites with two or more heavy neighbours are placed by symmetry (normal, bisector); the angles and lengths
are means over QM9-GFN2 training molecules. What remains open - the torsion of a CH3, NH2 or OH, the side
of an amine or imine hydrogen - is chosen among candidates by a pair score fitted to GFN2-xTB torsion scans.
Lengths in Å, angles in degrees. Rules are covariant under rotation and reflection.
"""

from __future__ import annotations

import math

import numpy as np

from .compiled import compiled
from .hydrogen_sites import Sites
from .vectors import X_AXIS, Vector, at, between, cross, dot, normal_to, plus, put, times, unit

OTHER_LENGTH, OTHER_ANGLE = 1.09, 109.5
LENGTHS = np.full((120, 4), OTHER_LENGTH)  # X-H by atomic number and 1, 2, 3 for sp, sp2, sp3: GFN2-xTB minima of
LENGTHS[6, 1:] = 1.049, 1.079, 1.089  # QM9 molecules, training split (standard deviation 0.002-0.008 Å)
LENGTHS[7, 2:] = 1.008, 1.015
LENGTHS[8, 2:] = 0.966, 0.965
LENGTHS[16, 3], LENGTHS[15, 3] = 1.344, 1.415
ANGLES = np.full((120, 4), OTHER_ANGLE)  # between X-H and the bond to a lone neighbour
ANGLES[6, 2:] = 121.8, 110.1
ANGLES[7, 2:] = 118.0, 111.0
ANGLES[8, 2:] = 106.9, 108.6
ANGLES[[15, 16]] = 97.0
IMINE_ANGLE = 114.9  # C=N-H
NH_TILT, NH2_TURN = math.radians(31.0), math.radians(20.0)  # out of plane of an sp2 nitrogen that is a pyramid
TORSIONS = 24
CORE, CORE_RADIUS = 1000.0, 1.5  # kcal/mol/Å^2 and Å: nothing comes this close, whatever the fit says
CORNERS = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / math.sqrt(3)  # of a tetrahedron: an atom alone
METHYL, AMINE, HYDROXYL, PLANAR = range(4)
# Coefficients (of exp(-2 d), of 1 / d), kcal/mol, d in Å, for a partner two bonds from the site's atom, and
# for one farther: H on C, H elsewhere, C, N, O or F. Bounded least squares to 409 GFN2-xTB scans of QM9
# training molecules; in 4-fold cross-validation the candidate chosen lies .05 (methyl), .18, .39 and .11
# kcal/mol above the best one.
SCORES = np.array([
    [  # methyl
        [[390.7, 108.2], [139.8, -8.9]], [[548.3, 180.2], [25.6, 22.2]], [[373.7, 80.0], [181.3, -5.0]],
        [[0.0, 108.9], [120.5, -19.7]], [[0.0, 90.0], [111.9, -29.6]],
    ],
    [  # amine
        [[180.5, 7.4], [194.8, -3.1]], [[0.0, 0.0], [204.2, -3.6]], [[602.4, -31.5], [0.0, 2.1]],
        [[0.0, 0.0], [0.0, -2.3]], [[0.0, 0.0], [0.0, -6.9]],
    ],
    [  # hydroxyl
        [[249.4, 6.5], [102.5, -2.5]], [[0.0, 0.0], [187.5, 3.4]], [[412.2, -11.0], [2.7, 3.7]],
        [[0.0, 0.0], [0.0, -16.8]], [[0.0, 0.0], [0.0, -14.8]],
    ],
    [  # planar
        [[130.9, 11.9], [136.0, 2.3]], [[0.0, 0.0], [186.8, 12.2]], [[307.8, -8.8], [0.0, -5.7]],
        [[0.0, -9.8], [0.0, -18.6]], [[75.5, -14.9], [0.0, -14.9]],
    ],
])  # fmt: skip
SWEEPS = 2
TIE = 1e-3  # kcal/mol: of mirror-image candidates the first is taken, not the one round-off prefers


def place_hydrogens(sites: Sites, positions: np.ndarray) -> np.ndarray:
    """Coordinates `[A, 3]` Å of all atoms: heavy ones `[N, 3]` as given, hydrogens after them in the order of their atoms."""
    return _placed(sites.number, sites.hydrogens, sites.spread, sites.double, sites.tilted, sites.bonded, positions)


@compiled
def _placed(
    number: np.ndarray, hydrogens: np.ndarray, spread: np.ndarray, double: np.ndarray, tilted: np.ndarray,
    bonded: np.ndarray, positions: np.ndarray,
) -> np.ndarray:  # fmt: skip
    heavy = everything = len(positions)
    most = 0
    for i in range(heavy):
        everything += hydrogens[i]
        most = max(most, hydrogens[i])
    x = np.zeros((everything, 3))
    placed = np.zeros(everything, np.bool_)
    owner, kinds = np.zeros(everything, np.int64), np.zeros(everything, np.int64)
    first, many = np.zeros(heavy, np.int64), np.zeros(heavy, np.int64)  # a site's first hydrogen, and its candidates
    found = np.zeros((heavy, TORSIONS, most, 3))
    place, free = heavy, 0
    for i in range(heavy):
        put(x, i, at(positions, i))
        placed[i], owner[i], first[i] = True, i, place
        kinds[i] = 3 if number[i] == 7 else 4 if number[i] == 8 or number[i] == 9 else 2
        for _ in range(hydrogens[i]):
            owner[place], kinds[place] = i, 0 if number[i] == 6 else 1
            place += 1
    for i in range(heavy):
        if hydrogens[i]:
            many[i] = _candidates(i, hydrogens[i], number, spread, double[i], tilted[i], bonded, x, found[i])
            free += many[i] > 1
            if many[i] == 1:
                _take(found[i, 0], x, placed, first[i], hydrogens[i])
    for _ in range(SWEEPS if free > 1 else 1):
        for i in range(heavy):
            if many[i] > 1:
                kind = _kind_of_site(number[i], spread[i], hydrogens[i])
                best = _best(i, hydrogens[i], many[i], found[i], x, placed, kind, kinds, owner, bonded)
                _take(found[i, best], x, placed, first[i], hydrogens[i])
    return x


@compiled
def _take(chosen: np.ndarray, x: np.ndarray, placed: np.ndarray, first: int, count: int) -> None:
    for h in range(count):
        put(x, first + h, at(chosen, h))
        placed[first + h] = True


@compiled
def _candidates(
    i: int, count: int, number: np.ndarray, spread: np.ndarray, double: bool, tilted: bool, bonded: np.ndarray,
    x: np.ndarray, out: np.ndarray,
) -> int:  # fmt: skip
    """Possible coordinates of one site's hydrogens, into `out` `[C, H, 3]`; how many there are."""
    centre = at(x, i)
    away = np.zeros((len(bonded), 3))
    near = ends = 0
    for j in range(len(bonded)):
        if bonded[i, j]:
            put(away, near, unit(plus(at(x, j), -1.0, centre), X_AXIS))
            near, ends = near + 1, j
    many = made = 1  # candidates, and the hydrogens of each
    if near == 0:
        made = min(count, 4)
        for h in range(made):
            put(out[0], h, at(CORNERS, h))
    elif near == 1 and spread[i] == 1:
        put(out[0], 0, times(-1.0, at(away, 0)))
    elif near == 1:
        made = count
        many = _lone(i, ends, count, number[i], spread, double, tilted, bonded, at(away, 0), x, out)
    elif near == 2 and count == 1:
        many = _two_and_one(spread[i], tilted, at(away, 0), at(away, 1), out)
    elif near == 2:
        made = 2
        _two_and_two(at(away, 0), at(away, 1), out[0])
    else:
        put(out[0], 0, _opposite(away, near))
    if made < count:  # more hydrogens than any rule expects, such as a phosphorane's
        many = 1
        _spread(away, near, count, out[0])
    length = LENGTHS[number[i], spread[i]]
    for k in range(many):
        for h in range(count):
            put(out[k], h, plus(centre, length, at(out[k], h)))
    return many


@compiled
def _spread(away: np.ndarray, near: int, count: int, out: np.ndarray) -> None:
    """`count` directions far from the bonds and from each other, greedily from 200 fixed ones."""
    for h in range(count):
        least = 2.0
        for k in range(200):
            z = 1 - (2 * k + 1) / 200
            ring, turn = math.sqrt(1 - z * z), k * math.pi * (3 - math.sqrt(5))
            direction = (ring * math.cos(turn), ring * math.sin(turn), z)
            nearest = -2.0
            for j in range(near):
                nearest = max(nearest, dot(direction, at(away, j)))
            for j in range(h):
                nearest = max(nearest, dot(direction, at(out, j)))
            if nearest < least:
                least = nearest
                put(out, h, direction)


@compiled
def _lone(
    i: int, ends: int, count: int, number: int, spread: np.ndarray, double: bool, tilted: bool, bonded: np.ndarray,
    axis: Vector, x: np.ndarray, out: np.ndarray,
) -> int:  # fmt: skip
    """One heavy neighbour, along `axis`: hydrogens on a cone about the bond; the number of candidates."""
    reference, planar = _reference(i, ends, spread, bonded, axis, x)
    across = cross(axis, reference)
    angle = math.radians(IMINE_ANGLE if number == 7 and double else ANGLES[number, spread[i]])
    step = 2 * math.pi / 3 if spread[i] == 3 else math.pi
    start, stride, many = math.pi, (step if step * count > 6 else 2 * math.pi) / TORSIONS, TORSIONS
    if spread[i] == 2 and planar and count < 3:
        start, stride, many = 0.0, math.pi, 1
        if count == 1:
            start, many = math.pi, 2
        elif tilted:
            start, stride, many = NH2_TURN, -2 * NH2_TURN, 2
    for k in range(many):
        for h in range(count):
            turn = start + k * stride + h * step
            if many == 2 and count == 2 and h == 1:
                turn = math.pi - turn + step  # the mirror image of the first
            ring = plus(times(math.cos(turn), reference), math.sin(turn), across)
            put(out[k], h, plus(times(math.cos(angle), axis), math.sin(angle), ring))
    return many


@compiled
def _reference(
    i: int, ends: int, spread: np.ndarray, bonded: np.ndarray, axis: Vector, x: np.ndarray
) -> tuple[Vector, bool]:  # fmt: skip
    """A unit vector normal to the bond to atom `ends`, towards another atom, and whether both span a pi plane."""
    for farther in range(2):
        for j in range(len(bonded)):
            if farther or (bonded[ends, j] and j != i):
                offset = plus(at(x, j), -1.0, at(x, ends))
                normal = plus(offset, -dot(offset, axis), axis)
                if dot(normal, normal) > 0.3**2:
                    return unit(normal, X_AXIS), farther == 0 and spread[ends] == 2
    return normal_to(axis), False


@compiled
def _two_and_one(spread: int, tilted: bool, one: Vector, other: Vector, out: np.ndarray) -> int:
    """A hydrogen opposite the bisector, in plane for sp2, tilted to either side for an amine."""
    back = times(-1.0, unit(plus(one, 1.0, other), normal_to(one)))
    if spread < 3 and not tilted:
        put(out[0], 0, back)
        return 1
    # fitted; 61.7 degrees in aziridines, 51 in open chains
    tilt = NH_TILT if tilted else math.radians(77.2 - 0.25 * between(one, other))
    normal = unit(cross(one, other), normal_to(back))
    for k in range(2):
        put(out[k], 0, plus(times(math.cos(tilt), back), math.sin(tilt) * (1 - 2 * k), normal))
    return 2


@compiled
def _two_and_two(one: Vector, other: Vector, out: np.ndarray) -> None:
    """CH2: both in the plane normal to the heavy atoms', H-C-H closing as the heavy angle opens."""
    back = times(-1.0, unit(plus(one, 1.0, other), normal_to(one)))
    normal = unit(cross(one, other), cross(back, one))
    half = math.radians(120.96 - 0.1171 * between(one, other)) / 2
    for h in range(2):
        put(out, h, plus(times(math.cos(half), back), math.sin(half) * (1 - 2 * h), normal))


@compiled
def _opposite(away: np.ndarray, near: int) -> Vector:
    """The direction at equal angles from three bonds: 3.5 degrees from GFN2's, minus their sum 13."""
    one = at(away, 0)
    total = one
    for j in range(1, near):
        total = plus(total, 1.0, at(away, j))
    normal = cross(plus(at(away, 1), -1.0, one), plus(at(away, 2), -1.0, one))
    if near > 3 or dot(normal, normal) < 0.05**2:
        return times(-1.0, unit(total, normal_to(one)))
    normal = unit(normal, X_AXIS)
    return times(-1.0, normal) if dot(normal, total) > 0 else normal


@compiled
def _best(
    i: int, count: int, many: int, found: np.ndarray, x: np.ndarray, placed: np.ndarray, kind: int, kinds: np.ndarray,
    owner: np.ndarray, bonded: np.ndarray,
) -> int:  # fmt: skip
    """Which candidate of `found` `[C, H, 3]` has the least pair score among the atoms placed so far."""
    total = np.zeros(many)
    heavy = len(bonded)
    for j in range(len(x)):
        if owner[j] == i or not placed[j] or (j < heavy and bonded[i, j]):
            continue
        far = 1
        for b in range(heavy):
            if bonded[i, b] and (bonded[b, j] if j < heavy else owner[j] == b):
                far = 0  # two bonds away
        repulsion, coulomb = SCORES[kind, kinds[j], far, 0], SCORES[kind, kinds[j], far, 1]
        for k in range(many):
            for h in range(count):
                offset = plus(at(found[k], h), -1.0, at(x, j))
                d = max(math.sqrt(dot(offset, offset)), 0.1)
                core = max(CORE_RADIUS - d, 0.0)
                total[k] += repulsion * math.exp(-2 * d) + coulomb / d + CORE * core * core
    least = total[0]
    for k in range(many):
        least = min(least, total[k])
    best = 0
    while total[best] > least + TIE:
        best += 1
    return best


@compiled
def _kind_of_site(number: int, spread: int, hydrogens: int) -> int:
    if spread == 2:
        return PLANAR
    if hydrogens == 3:
        return METHYL
    return HYDROXYL if number == 8 or number == 16 else AMINE
