"""Space groups: Wyckoff positions as tabulated, orbits that keep the group, a group that comes out of any network."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from sciconsist.domains.crystals.crystals import Crystal, structure_of
from sciconsist.domains.crystals.lattice import niggli, triangular
from sciconsist.domains.crystals.metrics.matching import SAME, matcher
from sciconsist.domains.crystals.orbits import draw_orbits, plan_orbits, stack
from sciconsist.domains.crystals.positions import placed
from sciconsist.domains.crystals.symmetry import TOLERANCE, detect, group, primitive, settings, table, wyckoff_positions
from sciconsist.errors import UserError
from sciconsist.flowmap import FlowMap
from sciconsist.workflows.crystal_requests import Wish
from sciconsist.workflows.generate_crystals import Crystals

# (group, multiplicities in the primitive cell of positions without a free direction, of all others): International
# Tables A. In a centred cell a multiplicity is that of the table over the number of lattice points.
TABLES = [
    (1, [], [1]),
    (2, [1] * 8, [2]),
    (221, [1, 1, 3, 3], [6, 6, 8, 12, 12, 12, 24, 24, 24, 48]),
    (225, [1, 1, 2, 6], [6, 8, 12, 12, 12, 24, 24, 48]),
    (227, [2, 2, 4, 4], [8, 12, 24, 24, 48]),
    (62, [4, 4], [4, 8]),
    (194, [2, 2, 2, 2, 6], [4, 4, 6, 12, 12, 12, 24]),
]


@pytest.mark.parametrize(("number", "fixed", "free"), TABLES)
def test_wyckoff_positions_are_those_of_the_tables(number: int, fixed: list[int], free: list[int]) -> None:
    sites = group(number).sites
    assert sorted(s.multiplicity for s in sites if s.freedom == 0) == sorted(fixed)
    assert sorted(s.multiplicity for s in sites if s.freedom > 0) == sorted(free)


@pytest.mark.parametrize("number", [2, 14, 62, 139, 166, 194, 216, 221, 225, 227])
def test_orbits_keep_the_group(number: int) -> None:
    """Random coordinates and a random cell put on orbits are carried onto themselves by every operation."""
    rng = np.random.default_rng(number)
    orbits = plan_orbits(number, 12, None, rng)
    frac = orbits.place(rng.uniform(size=(12, 3)))
    cell = orbits.cell(triangular(np.eye(3) * 7 + rng.uniform(-1, 1, (3, 3))))
    g = orbits.group
    for w, t in zip(g.rotations, g.translations):
        moved = frac @ w.T + t
        for atoms in orbits.members:
            apart = moved[atoms][:, None] - frac[atoms][None]
            assert (np.abs(apart - np.round(apart)).max(-1).min(1) < 1e-9).all()
        np.testing.assert_allclose(w.T @ cell @ cell.T @ w, cell @ cell.T, atol=1e-9)
    np.testing.assert_allclose(orbits.place(frac), frac, atol=1e-9)  # a projection


def test_rock_salt_is_found_and_a_shaken_one_is_not() -> None:
    frac = np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]])
    cell = triangular(np.array([[0, 2.8, 2.8], [2.8, 0, 2.8], [2.8, 2.8, 0]]))
    assert detect([11, 17], frac, cell) == 225
    assert detect([11, 17], frac, cell @ np.diag([1.0, 1.02, 0.97])) != 225
    assert detect([11, 17], frac + np.array([[0.0, 0, 0], [0.02, 0, 0]]), cell) != 225


def test_settings_carry_the_primitive_cell_to_the_niggli_cell() -> None:
    """A crystal of each common group, laid into our setting of its group, is the same crystal."""
    cell, frac = niggli(
        np.array([[0, 2.8, 2.8], [2.8, 0, 2.8], [2.8, 2.8, 0]]), np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]])
    )
    rock_salt = Crystal(np.array([11, 17]), frac, cell)
    known = placed(rock_salt)
    assert known is not None and known.number == 225 and any(basis == known.basis for _, basis in settings()[225])
    basis = known.basis
    rng = np.random.default_rng(0)
    sites, owner = draw_orbits(group(225, basis), [1, 1], rng) or ([], [])
    assert sorted(owner) == [0, 1] and [s.multiplicity for s in sites] == [1, 1]
    gram = cell @ cell.T
    np.testing.assert_allclose(group(225, basis).metric @ gram.ravel(), gram.ravel(), atol=1e-9)
    made = structure_of([11, 17], np.array([s.point for s in sites]), cell)
    assert matcher(SAME).fit(made, structure_of([11, 17], frac, cell))


def test_several_crystals_are_put_onto_their_orbits_together() -> None:
    rng = np.random.default_rng(0)
    every = [plan_orbits(number, 12, None, rng) for number in (62, 166, 225)]
    frac, cells = rng.uniform(size=(36, 3)), triangular(np.eye(3) * 7 + rng.uniform(-1, 1, (3, 3, 3)))
    together = stack(every)
    alone = np.concatenate([o.place(f) for o, f in zip(every, np.split(frac, 3))])
    np.testing.assert_allclose(together.carried(together.leads(frac)) % 1.0, alone, atol=1e-12)
    np.testing.assert_allclose(together.cells(cells), [o.cell(c) for o, c in zip(every, cells)], atol=1e-9)


@pytest.mark.parametrize("number", [1, 36, 139, 225, 227])
def test_the_stored_positions_are_those_that_the_search_finds(number: int) -> None:
    g = primitive(number)
    found = wyckoff_positions(g.rotations, g.translations)
    assert len(table()["sites"]) == 230 and len(found) == len(g.sites)
    for ours, theirs in zip(g.sites, found):
        np.testing.assert_array_equal(ours.point, theirs.point)
        np.testing.assert_array_equal(ours.operations, theirs.operations)
        np.testing.assert_array_equal(ours.projector, theirs.projector)


def test_a_group_that_cannot_hold_the_atoms_is_refused() -> None:
    with pytest.raises(UserError, match="space group 227"):
        plan_orbits(227, 1, None, np.random.default_rng(0))


def test_positions_without_freedom_hold_one_orbit() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        sites, _ = draw_orbits(group(225), [1, 1, 2], rng) or ([], [])
        points = Counter(tuple(s.point) for s in sites if s.freedom == 0)
        assert max(points.values(), default=1) == 1


@pytest.mark.parametrize("number", [2, 14, 62, 139, 166, 194, 221, 225])
def test_the_group_asked_for_comes_out_of_any_network(small: FlowMap, number: int) -> None:
    """Weights are random here: the projection alone gives the group."""
    made = list(Crystals(small, Wish(space_group=number, elements=["Na", "Ti", "O"]), 2, raw=True).take(6))
    groups = [detect([site.specie.Z for site in s], s.frac_coords, s.lattice.matrix, TOLERANCE) for s in made]
    assert sum(g == number for g in groups) >= 5, groups


def test_settings_cover_the_common_groups() -> None:
    assert {2, 12, 14, 62, 63, 139, 166, 194, 216, 221, 225, 227} <= set(settings())
