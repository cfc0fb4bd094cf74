"""A crystal as something to look at: a flat drawing (SVG), and atoms, bonds and cell for the 3D view."""

from __future__ import annotations

import numpy as np
from pymatgen.core import Structure as Crystal
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer
from rdkit import Chem

from sciconsist.sections import Structure

from .screening import SYMPREC

_WIDTH, _HEIGHT = 240, 170
_MAX_ATOMS = 80  # shown; a conventional cell beyond it is shown as it was given
_BOND = 1.15  # sums of covalent radii (Cordero 2008)
_FACE = 1e-3  # fractional distance from a face at which an atom is shown on the opposite face too
_EDGES = [(i, j) for i in range(8) for j in range(i + 1, 8) if bin(i ^ j).count("1") == 1]
# Jmol's colours of the elements (jmol.sourceforge.net/jscolors), by atomic number from 1.
_COLOURS = (
    "ffffff d9ffff cc80ff c2ff00 ffb5b5 909090 3050f8 ff0d0d 90e050 b3e3f5 ab5cf2 8aff00 bfa6a6 f0c8a0 ff8000 ffff30 "
    "1ff01f 80d1e3 8f40d4 3dff00 e6e6e6 bfc2c7 a6a6ab 8a99c7 9c7ac7 e06633 f090a0 50d050 c88033 7d80b0 c28f8f 668f8f "
    "bd80e3 ffa100 a62929 5cb8d1 702eb0 00ff00 94ffff 94e0e0 73c2c9 54b5b5 3b9e9e 248f8f 0a7d8c 006985 c0c0c0 ffd98f "
    "a67573 668080 9e63b5 d47a00 940094 429eb0 57178f 00c900 70d4ff ffffc7 d9ffc7 c7ffc7 a3ffc7 8fffc7 61ffc7 45ffc7 "
    "30ffc7 1fffc7 00ff9c 00e675 00d452 00bf38 00ab24 4dc2ff 4da6ff 2194d6 267dab 266696 175487 d0d0e0 ffd123 b8b8d0 "
    "a6544d 575961 9e4fb5 ab5c00 754f45 428296 420066 007d00 70abfa 00baff 00a1ff 008fff 0080ff 006bff 545cf2 785ce3 "
    "8a4fe3 a136d4"
)


def shown(crystal: Crystal) -> Structure:
    """Atoms of the conventional cell, those on faces repeated, bonds within it, cell rows (Å), a little from above."""
    cell = _conventional(crystal)
    symbols, positions = _with_faces(cell)
    bonds = _bonds(symbols, positions)
    turn = _turn(18.0, 12.0)
    rows = [tuple(float(x) for x in row) for row in cell.lattice.matrix @ turn.T]
    places = [tuple(float(x) for x in row) for row in positions @ turn.T]
    return Structure(symbols, places, bonds, (rows[0], rows[1], rows[2]))  # type: ignore[arg-type]


def draw(structure: Structure) -> str:
    """SVG markup, seen along z; "" for no atoms."""
    if not structure.symbols or structure.cell is None:
        return ""
    corners = np.array([[(k >> axis) & 1 for axis in range(3)] for k in range(8)]) @ np.array(structure.cell)
    atoms = np.array(structure.positions)
    everything = np.concatenate([corners, atoms])
    low, high = everything[:, :2].min(0), everything[:, :2].max(0)
    scale = min((_WIDTH - 40) / max(high[0] - low[0], 1e-6), (_HEIGHT - 36) / max(high[1] - low[1], 1e-6))
    middle = (low + high) / 2

    def place(point: np.ndarray) -> tuple[float, float]:
        x, y = (point[:2] - middle) * scale
        return round(_WIDTH / 2 + x, 1), round(_HEIGHT / 2 - y, 1)

    parts: list[tuple[float, str]] = []
    for i, j in _EDGES:
        (x1, y1), (x2, y2) = place(corners[i]), place(corners[j])
        line = f'<path d="M{x1},{y1}L{x2},{y2}" style="fill:none;stroke:var(--soft);stroke-width:.8"/>'
        parts.append((min(corners[i][2], corners[j][2]) - 1e-3, line))
    for i, j, _ in structure.bonds:
        (x1, y1), (x2, y2) = place(atoms[i]), place(atoms[j])
        line = f'<path d="M{x1},{y1}L{x2},{y2}" style="fill:none;stroke:var(--soft);stroke-width:2.2"/>'
        parts.append(((atoms[i][2] + atoms[j][2]) / 2 - 0.2, line))
    for symbol, atom in zip(structure.symbols, atoms):
        x, y = place(atom)
        radius = min(15.0, max(3.0, 0.42 * _radius(symbol) * scale))
        style = f"fill:#{colour(symbol)};stroke:var(--ink);stroke-width:.7"
        parts.append((float(atom[2]), f'<circle cx="{x}" cy="{y}" r="{radius:.1f}" style="{style}"/>'))
    parts.sort(key=lambda part: part[0])
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" aria-hidden="true">{"".join(markup for _, markup in parts)}</svg>'


def colour(symbol: str) -> str:
    """Jmol's colour of an element, six hexadecimal digits."""
    colours = _COLOURS.split()
    return colours[min(Chem.GetPeriodicTable().GetAtomicNumber(symbol), len(colours)) - 1]


def _conventional(crystal: Crystal) -> Crystal:
    try:
        made = SpacegroupAnalyzer(crystal, symprec=SYMPREC).get_conventional_standard_structure()
    except Exception:  # no symmetry found: several kinds of errors
        return crystal
    return made if len(made) <= _MAX_ATOMS else crystal


def _with_faces(cell: Crystal) -> tuple[list[str], np.ndarray]:
    symbols, places = [], []
    for site in cell:
        frac = np.mod(site.frac_coords, 1.0)
        frac[frac > 1 - _FACE] = 0.0
        shifts = [(0, 1) if x < _FACE else (0,) for x in frac]
        for shift in np.array(np.meshgrid(*shifts)).reshape(3, -1).T:
            symbols.append(site.specie.symbol)
            places.append(frac + shift)
    return symbols, cell.lattice.get_cartesian_coords(np.array(places))


def _bonds(symbols: list[str], positions: np.ndarray) -> list[tuple[int, int, int]]:
    radii = np.array([_radius(s) for s in symbols])
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    near = (distances < _BOND * (radii[:, None] + radii[None])) & (distances > 0.1)
    return [(int(i), int(j), 1) for i, j in np.argwhere(np.triu(near))]


def _radius(symbol: str) -> float:
    table = Chem.GetPeriodicTable()
    return float(table.GetRcovalent(table.GetAtomicNumber(symbol)))


def _turn(around: float, above: float) -> np.ndarray:
    """Rotation `[3, 3]`: c upwards on the page, turned about it and seen from above, degrees; z towards the reader."""
    a, b = np.deg2rad([around, above])
    upright = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], dtype=float)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    return about_x @ upright @ about_z
