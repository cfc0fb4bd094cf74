"""Space groups: operations in the cells the model works in, and their Wyckoff positions.

Operations act on columns of fractional coordinates, x -> W x + w.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib import resources
from itertools import product

import moyopy
import numpy as np

from sciconsist.errors import UserError

logging.getLogger("moyo").setLevel(logging.ERROR)  # or it tells of every cell that is not primitive, on stderr

GRID = 24  # special points of every group have coordinates in 24ths
PLACE = np.array([GRID * GRID, GRID, 1])
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
        turned = self.rotations.transpose(0, 2, 1)
        self.metric = np.mean([np.kron(w, w) for w in turned], 0)  # [9, 9]: metrics to their means over the group


def nearest(x: np.ndarray) -> np.ndarray:
    return x - np.round(x)


def wyckoff_positions(rotations: np.ndarray, translations: np.ndarray) -> list[Site]:
    """Every Wyckoff position of a group of operations, found on a grid of 24ths; points first, the general one last."""
    axis = np.arange(GRID)
    grid = np.array(list(product(axis, repeat=3)))
    images = on_grid(rotations, translations, grid)
    code = images @ PLACE  # [g, m]: where each operation carries each point; points are in the order of their code
    stays = code == np.arange(len(grid))[:, None]
    power = 2.0 ** np.arange(len(rotations))  # a stabiliser as one number
    name = stays @ power
    sites: list[Site] = []
    taken = np.zeros(len(grid), dtype=bool)
    for g in np.argsort(-stays.sum(1), kind="stable"):
        if taken[g]:
            continue
        site = site_at(rotations, translations, grid[g])
        # the grid's points on the same stratum: same stabiliser, same place across the free directions
        same = np.flatnonzero((name == name[g]) & ~taken)
        across = np.eye(3) - site.projector
        offset = (grid[same] - grid[g]) @ across.T / GRID
        through = (np.abs(offset[:, None] - ORIGINS @ across.T) < 1e-6).all(-1).any(1)
        taken[code[same[through]]] = True  # and all of its images
        sites.append(site)
    return sites


def site_at(rotations: np.ndarray, translations: np.ndarray, point: np.ndarray) -> Site:
    """The position that a point of the grid (24ths) is on."""
    code = on_grid(rotations, translations, point[None])[0] @ PLACE
    stays = code == point % GRID @ PLACE
    return Site(
        point / GRID, np.mean(rotations[stays], 0), np.unique(code, return_index=True)[1], np.flatnonzero(stays)
    )


def on_grid(rotations: np.ndarray, translations: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Images `[P, M, 3]` of points of the grid, in 24ths. Raises UserError for translations that are none."""
    shift = np.round(translations * GRID).astype(int)
    if np.abs(translations * GRID - shift).max() > 1e-6:
        raise UserError("a group with translations that are no 24ths")
    return (np.einsum("mij,gj->gmi", rotations.astype(int), points) + shift) % GRID


@lru_cache(maxsize=230)
def primitive(number: int) -> Group:
    """A space group in moyopy's primitive cell. Raises UserError for a number that is none."""
    if not 1 <= number <= 230:
        raise UserError(f"space group {number}: expected 1 to 230")
    operations = moyopy.operations_from_number(number, primitive=True)
    rotations, translations = (
        np.array(operations.rotations, dtype=float),
        np.array(operations.translations, dtype=float) % 1.0,
    )
    points = table().get("sites", {}).get(str(number), [])  # found before: the search takes a tenth of a second
    return Group(number, rotations, translations, [site_at(rotations, translations, np.array(p)) for p in points])


@lru_cache(maxsize=2048)
def group(number: int, basis: Basis = (1, 0, 0, 0, 1, 0, 0, 0, 1)) -> Group:
    """A space group in the cell that `basis` (9 integers, rows) makes of the primitive one: x = U x_primitive.

    Its positions are those of the primitive cell, in the same order.
    """
    known = primitive(number)
    u = np.array(basis, dtype=float).reshape(3, 3)
    inverse = np.linalg.inv(u)
    sites = [replace(s, point=(u @ s.point) % 1.0, projector=u @ s.projector @ inverse) for s in known.sites]
    return Group(number, np.round(u @ known.rotations @ inverse), (known.translations @ u.T) % 1.0, sites)


@lru_cache(maxsize=1)
def table() -> dict[str, dict[str, list]]:
    """What the training data say of space groups, by number: `settings`, the points of their `sites`, `origins`."""
    text = resources.files("sciconsist.domains.crystals").joinpath("space_groups.json").read_text(encoding="utf-8")
    return json.loads(text)


@lru_cache(maxsize=1)
def settings() -> dict[int, list[tuple[int, Basis]]]:
    """For every group of the training data: how often, and by which basis, its primitive cell becomes the Niggli cell."""
    return {int(g): [(count, tuple(basis)) for count, basis in rows] for g, rows in table()["settings"].items()}


def detect(
    numbers: Sequence[int] | np.ndarray, frac: np.ndarray, cell: np.ndarray, tolerance: float = TOLERANCE
) -> int:
    """The space group moyopy finds at a tolerance in Å; 0 where it finds none."""
    try:
        found = moyopy.MoyoDataset(
            moyopy.Cell(np.asarray(cell).tolist(), np.asarray(frac).tolist(), [int(z) for z in numbers]),
            symprec=tolerance,
        )
    except Exception:  # moyopy raises its own types for cells it cannot standardise
        return 0
    return int(found.number)


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
