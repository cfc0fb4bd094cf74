"""Space groups: operations in the cells the model works in, Wyckoff orbits, and the projection onto them.

A sample with a wanted space group gets its orbits first: a set of Wyckoff positions whose multiplicities add up to
the atoms wanted. Then the cell and the coordinates are put onto them at every step of the sampler, so that the group
holds to round-off. Operations act on columns of fractional coordinates, x -> W x + w.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from itertools import product

import numpy as np

from sciconsist.domains.crystals.crystals import Crystal
from sciconsist.domains.crystals.lattice import to_vector, triangular
from sciconsist.errors import UserError
from sciconsist.extras import need

GRID = 24  # special points of every group have coordinates in 24ths
SHIFTS = np.array(list(product((-1, 0, 1), repeat=3)), dtype=float)
ORIGINS = np.array(list(product(range(-2, 3), repeat=3)), dtype=float)
TOLERANCE = 0.01  # Å, of the check that the group came out
Basis = tuple[int, ...]  # 9 integers, the rows of U: x = U x_primitive


@dataclass(frozen=True)
class Site:
    """A Wyckoff position: a point of it `[3]`, the projector onto its free directions `[3, 3]`, and its orbit's operations.

    `operations` are indices, one for each atom of the orbit; `stabiliser` those that leave the point where it is.
    """

    point: np.ndarray
    projector: np.ndarray
    operations: np.ndarray
    stabiliser: np.ndarray

    @property
    def multiplicity(self) -> int:
        return len(self.operations)

    @property
    def freedom(self) -> int:
        return round(float(np.trace(self.projector)))


@dataclass
class Group:
    """A space group in one primitive cell: rotations `[M, 3, 3]`, translations `[M, 3]`, and its Wyckoff positions."""

    number: int
    rotations: np.ndarray
    translations: np.ndarray
    sites: list[Site] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.inverse = np.round(np.linalg.inv(self.rotations))
        if not self.sites:
            self.sites = wyckoff_positions(self.rotations, self.translations)
        self.reach = reachable(self.sites)

    def symmetric_gram(self, gram: np.ndarray) -> np.ndarray:
        """The mean metric `[3, 3]` over the group: what its cells have."""
        return np.mean(self.rotations.transpose(0, 2, 1) @ gram @ self.rotations, 0)


def nearest(x: np.ndarray) -> np.ndarray:
    return x - np.round(x)


def wyckoff_positions(rotations: np.ndarray, translations: np.ndarray) -> list[Site]:
    """Every Wyckoff position of a group of operations, found on a grid of 24ths; points first, the general one last."""
    axis = np.arange(GRID)
    grid = np.array(list(product(axis, repeat=3)))
    shift = np.round(translations * GRID).astype(int)
    if np.abs(translations * GRID - shift).max() > 1e-6:
        raise UserError("a group with translations that are no 24ths")
    images = (np.einsum("mij,gj->gmi", rotations.astype(int), grid) + shift) % GRID
    place = np.array([GRID * GRID, GRID, 1])
    code = images @ place  # [g, m]: where each operation carries each point; points are in the order of their code
    stays = code == np.arange(len(grid))[:, None]
    power = 2.0 ** np.arange(len(rotations))  # a stabiliser as one number
    name = stays @ power
    sites: list[Site] = []
    taken = np.zeros(len(grid), dtype=bool)
    for g in np.argsort(-stays.sum(1), kind="stable"):
        if taken[g]:
            continue
        mask = stays[g]
        projector = np.mean(rotations[mask], 0)
        # the grid's points on the same stratum: same stabiliser, same place across the free directions
        same = np.flatnonzero((name == name[g]) & ~taken)
        offset = (grid[same] - grid[g]) @ (np.eye(3) - projector).T / GRID
        through = (np.abs(offset[:, None] - ORIGINS @ (np.eye(3) - projector).T) < 1e-6).all(-1).any(1)
        taken[code[same[through]]] = True  # and all of its images
        sites.append(Site(grid[g] / GRID, projector, np.unique(code[g], return_index=True)[1], np.flatnonzero(mask)))
    return sites


@lru_cache(maxsize=512)
def group(number: int, basis: Basis = (1, 0, 0, 0, 1, 0, 0, 0, 1)) -> Group:
    """A space group in the cell that `basis` (9 integers, rows) makes of moyopy's primitive one: x = U x_primitive."""
    if not 1 <= number <= 230:
        raise UserError(f"space group {number}: expected 1 to 230")
    moyopy = need("moyopy", "screen", "space groups")
    operations = moyopy.operations_from_number(number, primitive=True)
    u = np.array(basis, dtype=float).reshape(3, 3)
    rotations = np.round(u @ np.array(operations.rotations, dtype=float) @ np.linalg.inv(u))
    return Group(number, rotations, (np.array(operations.translations, dtype=float) @ u.T) % 1.0)


@lru_cache(maxsize=1)
def settings() -> dict[int, list[tuple[int, Basis]]]:
    """For every group of the training data: how often, and by which basis, its primitive cell becomes the Niggli cell."""
    text = resources.files("sciconsist.domains.crystals").joinpath("space_groups.json").read_text(encoding="utf-8")
    return {
        int(g): [(count, tuple(basis)) for count, basis in rows] for g, rows in json.loads(text)["settings"].items()
    }


def count_settings(crystals: Sequence[Crystal], limit: int = 6) -> dict[str, list]:
    """What `settings` reads, from crystals in their Niggli cells: the commonest bases of each group."""
    moyopy = need("moyopy", "screen", "space groups")
    seen: dict[int, Counter[tuple[int, ...]]] = defaultdict(Counter)
    for c in crystals:
        try:
            found = moyopy.MoyoDataset(moyopy.Cell(c.cell.tolist(), c.frac.tolist(), c.numbers.tolist()), symprec=0.05)
        except Exception:  # moyopy raises its own types for cells it cannot standardise
            continue
        basis = np.linalg.inv(np.array(found.prim_std_linear, dtype=float))
        if np.abs(basis - np.round(basis)).max() < 1e-3 and len(found.prim_std_cell.numbers) == len(c):
            seen[int(found.number)][tuple(int(v) for v in np.round(basis).ravel())] += 1
    return {str(g): [[n, list(b)] for b, n in seen[g].most_common(limit)] for g in sorted(seen)}


def detect(
    numbers: Sequence[int] | np.ndarray, frac: np.ndarray, cell: np.ndarray, tolerance: float = TOLERANCE
) -> int:
    """The space group moyopy finds at a tolerance in Å; 0 where it finds none."""
    moyopy = need("moyopy", "screen", "space groups")
    try:
        found = moyopy.MoyoDataset(
            moyopy.Cell(np.asarray(cell).tolist(), np.asarray(frac).tolist(), [int(z) for z in numbers]),
            symprec=tolerance,
        )
    except Exception:  # moyopy raises its own types for cells it cannot standardise
        return 0
    return int(found.number)


@dataclass(frozen=True)
class Orbits:
    """A crystal's atoms as orbits: `members[k]` are the atoms of orbit k, on `sites[k]` of `group`; `elements[k]` or 0."""

    group: Group
    sites: list[Site]
    members: list[np.ndarray]
    elements: list[int]

    @property
    def size(self) -> int:
        return sum(len(m) for m in self.members)

    @property
    def numbers(self) -> np.ndarray:
        """Atomic numbers `[N]` in the atoms' order."""
        numbers = np.zeros(self.size, dtype=int)
        for atoms, z in zip(self.members, self.elements):
            numbers[atoms] = z
        return numbers

    def place(self, frac: np.ndarray, lead: bool = False) -> np.ndarray:
        """Coordinates `[N, 3]` moved onto the orbits: every atom is carried back to its orbit's first, their mean (`lead`:
        the first alone) is projected onto the site, and carried out again.
        """
        out = np.empty_like(frac)
        g = self.group
        for site, atoms in zip(self.sites, self.members):
            w, t = g.rotations[site.operations], g.translations[site.operations]
            back = np.einsum("mij,mj->mi", g.inverse[site.operations], frac[atoms] - t)
            mean = back[0] if lead else back[0] + nearest(back - back[0]).mean(0)
            # onto the site's nearest image
            shifts = SHIFTS + np.round(mean - site.point)
            across = (np.eye(3) - site.projector) @ (mean - site.point - shifts).T
            shift = shifts[int(np.argmin(np.round(np.square(across).sum(0), 9)))]
            mean = site.point + shift + site.projector @ (mean - site.point - shift)
            out[atoms] = np.einsum("mij,j->mi", w, mean) + t
        return out % 1.0

    def cell(self, cell: np.ndarray) -> np.ndarray:
        """The nearest cell that has the group's symmetry, triangular."""
        gram = self.group.symmetric_gram(cell @ cell.T)
        return np.linalg.cholesky(gram)


def reachable(sites: Sequence[Site], largest: int = 512) -> int:
    """Atom counts that some choice of positions has, as the bits of a number: bit n is set where n atoms fit."""
    bits, every = 1, (1 << (largest + 1)) - 1
    for site in sites:
        if site.freedom == 0:
            bits |= (bits << site.multiplicity) & every
    for site in (s for s in sites if s.freedom > 0):
        while (more := (bits | (bits << site.multiplicity)) & every) != bits:
            bits = more
    return bits


def draw_orbits(
    g: Group, counts: Sequence[int], rng: np.random.Generator, tries: int = 60
) -> tuple[list[Site], list[int]] | None:
    """Wyckoff positions whose multiplicities add up to each count, drawn at random: sites and which count each serves.

    A position without a free direction holds one orbit. None where nothing fits.
    """
    if not all(g.reach >> count & 1 for count in counts):
        return None
    fixed = [k for k, s in enumerate(g.sites) if s.freedom == 0]
    free = [k for k, s in enumerate(g.sites) if s.freedom > 0]
    for _ in range(tries):
        left, chosen, owner = set(fixed), [], []
        for index in rng.permutation(len(counts)):
            rest = counts[index]
            while rest > 0:
                fits = [k for k in (*sorted(left), *free) if g.sites[k].multiplicity <= rest]
                if not fits:
                    break
                # large orbits first, as real crystals have few of them
                weight = np.array([g.sites[k].multiplicity for k in fits], dtype=float) ** 1.5
                k = int(rng.choice(fits, p=weight / weight.sum()))
                left.discard(k)
                chosen.append(g.sites[k])
                owner.append(int(index))
                rest -= g.sites[k].multiplicity
            if rest > 0:
                break
        else:
            return chosen, owner
    return None


def orbits_of(g: Group, sites: Sequence[Site], owner: Sequence[int], elements: Sequence[int]) -> Orbits:
    """Atoms in the order of `sites`; `owner` says which of `elements` sits on each."""
    ends = np.cumsum([s.multiplicity for s in sites])
    members = [np.arange(e - s.multiplicity, e) for s, e in zip(sites, ends)]
    return Orbits(g, list(sites), members, [int(elements[o]) for o in owner])


def plan_orbits(
    number: int, size: int, numbers: np.ndarray | None, seed_rng: np.random.Generator, tries: int = 12
) -> Orbits:
    """Orbits of a space group for a crystal of `size` atoms (of `numbers` when given) that make this group and none above.

    Raises UserError where the group cannot hold them.
    """
    rows = settings().get(number) or [(1, (1, 0, 0, 0, 1, 0, 0, 0, 1))]
    weights = np.array([count for count, _ in rows], dtype=float)
    elements, counts = ([0], [size]) if numbers is None else (list(x) for x in np.unique(numbers, return_counts=True))
    for _ in range(tries):
        g = group(number, rows[int(seed_rng.choice(len(rows), p=weights / weights.sum()))][1])
        drawn = draw_orbits(g, [int(c) for c in counts], seed_rng)
        if drawn is None:
            if not all(g.reach >> int(c) & 1 for c in counts):
                break  # in no setting: they have the same positions
            continue
        orbits = orbits_of(g, *drawn, elements)
        if generic(orbits, seed_rng) == number:
            return orbits
    what = f"{size} atoms" if numbers is None else f"{size} atoms of counts {', '.join(map(str, counts))}"
    raise UserError(f"space group {number}: found no Wyckoff positions for {what} that give it; try other --atoms")


def generic(orbits: Orbits, rng: np.random.Generator) -> int:
    """The group that these orbits have in a cell and at coordinates of no further symmetry."""
    base = triangular(np.eye(3) * 6.0 + rng.uniform(-0.8, 0.8, (3, 3)))
    frac = orbits.place(rng.uniform(0, 1, (orbits.size, 3)))
    kinds = orbits.numbers if all(orbits.elements) else np.concatenate(
        [np.full(len(m), 3 + k) for k, m in enumerate(orbits.members)])[np.argsort(np.concatenate(orbits.members))]  # fmt: skip
    return detect(kinds, frac, orbits.cell(base))


def symmetric_vector(orbits: Orbits, cell: np.ndarray) -> np.ndarray:
    """The six numbers of the nearest symmetric cell."""
    return to_vector(orbits.cell(cell), orbits.size)
