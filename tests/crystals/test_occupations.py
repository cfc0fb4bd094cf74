"""Occupied Wyckoff positions: read off known crystals, likely ones for a composition, and what a sample starts from."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from sciconsist.domains.crystals.crystals import Crystal, crystal_of, structure_of
from sciconsist.domains.crystals.lattice import triangular
from sciconsist.domains.crystals.likeness import fit_likeness
from sciconsist.domains.crystals.metrics.matching import SAME, matcher
from sciconsist.domains.crystals.occupations import choose, draw_occupation, likely_positions, occupations, orders
from sciconsist.domains.crystals.positions import alike, occupied, origins, placed, position_of
from sciconsist.domains.crystals.symmetry import detect, group
from sciconsist.errors import UserError
from sciconsist.flowmap import FlowMap
from sciconsist.workflows.crystal_requests import Requests, Wish
from sciconsist.workflows.generate_crystals import Crystals

HEUSLER = Structure.from_spacegroup(
    "Fm-3m", Lattice.cubic(6.0), ["Cu", "Mn", "Al"], [[0.25] * 3, [0.0] * 3, [0.5] * 3]
).get_primitive_structure()
RUTILE = Structure.from_spacegroup(
    "P4_2/mnm", Lattice.tetragonal(4.6, 2.96), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]
)
PEROVSKITE = Structure.from_spacegroup(
    "Pm-3m", Lattice.cubic(3.9), ["Sr", "Ti", "O"], [[0, 0, 0], [0.5] * 3, [0.5, 0.5, 0]]
)
CORUNDUM = Structure.from_spacegroup(
    "R-3c", Lattice.hexagonal(4.76, 12.99), ["Al", "O"], [[0, 0, 0.352], [0.306, 0, 0.25]]
).get_primitive_structure()
KNOWN = [
    (HEUSLER, 225, (2, 1, 1), 0), (RUTILE, 136, (4, 2), 1), (PEROVSKITE, 221, (3, 1, 1), 0), (CORUNDUM, 167, (6, 4), 2),
]  # fmt: skip


@pytest.mark.parametrize(("structure", "number", "atoms", "freedom"), KNOWN)
def test_positions_of_known_crystals(structure: Structure, number: int, atoms: tuple, freedom: int) -> None:
    found = placed(crystal_of(structure, {}))
    assert found is not None and (found.number, found.atoms) == (number, atoms)
    assert sum(site.freedom for site in found.orbits.sites) == freedom
    assert matcher(SAME).fit(structure_of(found.orbits.numbers, found.frac, found.cell), structure)


@given(which=st.integers(0, len(KNOWN) - 1), seed=st.integers(0, 2**20))
@settings(max_examples=25, deadline=None)
def test_placing_does_not_depend_on_the_cell_or_the_origin(which: int, seed: int) -> None:
    """Any basis of the lattice, any origin, any order of the atoms: the crystal that comes out is the one put in."""
    structure, number, atoms, _ = KNOWN[which]
    rng = np.random.default_rng(seed)
    basis = np.eye(3)
    for _ in range(2):  # shears along the edges
        i, j = rng.permutation(3)[:2]
        basis[i] += rng.integers(-1, 2) * basis[j]
    order = rng.permutation(len(structure))
    frac = (structure.frac_coords[order] + rng.uniform(size=3)) @ np.linalg.inv(basis)
    numbers = np.array([structure[int(k)].specie.Z for k in order])
    found = placed(Crystal(numbers, frac % 1.0, triangular(basis @ structure.lattice.matrix)))
    assert found is not None and (found.number, found.atoms) == (number, atoms)
    assert matcher(SAME).fit(structure_of(found.orbits.numbers, found.frac, found.cell), structure)


def test_a_cell_that_is_not_primitive_has_no_positions() -> None:
    assert placed(crystal_of(HEUSLER * (2, 1, 1), {})) is None


@pytest.mark.parametrize("number", [2, 62, 166, 216, 225, 227])
def test_other_origins_exchange_positions_of_a_kind(number: int) -> None:
    sites, found = group(number).sites, origins(number)
    assert found[0] == tuple(range(len(sites)))
    for to in found:
        assert sorted(to) == list(range(len(sites)))
        assert all((sites[a].multiplicity, sites[a].freedom) == (s.multiplicity, s.freedom) for a, s in zip(to, sites))


def test_rock_salt_is_one_way_whichever_element_sits_at_the_origin() -> None:
    assert alike(225, [(-1, (0,), 11), (-1, (1,), 17)]) == alike(225, [(-1, (0,), 17), (-1, (1,), 11)])
    assert alike(225, [(-2, (2,), 9), (-1, (0,), 20)]) != alike(225, [(-2, (3,), 9), (-1, (0,), 20)])


def test_heusler_positions_make_the_heusler_again() -> None:
    """225 with 2, 1 and 1 atoms has one way to be occupied: its positions have no freedom, only the cell's length has."""
    numbers = np.array([29, 29, 25, 13])
    best = likely_positions([numbers])[0]
    order, orbits = best.orbits.numbers, best.orbits
    frac, cell = orbits.place(np.random.default_rng(1).uniform(size=(4, 3))), orbits.cell(np.eye(3) * 4.2)
    made = Structure(Lattice(cell), order.tolist(), frac)
    assert best.number == 225 and Counter(order) == Counter(numbers) and detect(order, frac, cell) == 225
    assert matcher(SAME).fit(made, HEUSLER)
    found = occupied(orbits.group, order, frac)
    assert found is not None and {z: [k for k, _ in at] for z, at in found.items()} == {
        z: list(sites) for z, sites in zip(best.elements, best.sites)
    }


@pytest.mark.parametrize("number", [62, 139, 194, 225])
def test_what_the_tables_say_can_be_built(number: int) -> None:
    for o in occupations(number)[:20]:
        sites = group(number, o.basis).sites
        assert [sum(sites[k].multiplicity for k in own) for own in o.sites] == list(o.atoms)
        assert list(o.atoms) == sorted(o.atoms, reverse=True) and o.seen.shape == (o.count, len(o.atoms))


def test_a_position_is_the_most_special_one() -> None:
    g = group(221)
    for k, site in enumerate(g.sites):
        found = position_of(g, g.rotations @ site.point + g.translations)
        assert found is not None and found[0] == k
    found = position_of(g, g.rotations @ np.array([0.11, 0.23, 0.37]))
    assert found is not None and found[0] == len(g.sites) - 1


def test_likely_positions_are_shares_in_falling_order() -> None:
    found = likely_positions([np.array([11, 17]), np.array([11, 11, 17, 17])])
    shares = [c.share for c in found]
    assert sum(shares) == pytest.approx(1) and shares == sorted(shares, reverse=True)
    assert found[0].number == 225 and {len(c.orbits.numbers) for c in found} == {2, 4}
    assert all(c.number == 221 for c in likely_positions([np.array([11, 17])], 221))
    assert likely_positions([np.array([11] * 10 + [17] * 11)]) == []


def test_many_samples_take_the_ways_in_their_shares() -> None:
    found = likely_positions([np.array([38, 22, 8, 8, 8])])
    taken = Counter(found.index(choose(found, k)) for k in range(2000))
    assert choose(found, 0) is found[0]
    for k, choice in enumerate(found):
        assert taken[k] / 2000 == pytest.approx(choice.share, abs=0.01)


def test_elements_of_one_count_are_exchanged_and_no_others() -> None:
    assert orders((4, 2)) == [[0, 1]] and orders((1, 1)) == [[0, 1], [1, 0]] and len(orders((2, 1, 1, 1))) == 6
    assert orders((1,) * 6) == []


def test_likeness_brings_together_what_is_exchanged_in_crystals() -> None:
    """Two structures of AX, each with its own cations: alkali metals come nearer to each other than to iron or nickel."""
    salts = [Structure.from_spacegroup("Fm-3m", Lattice.cubic(6.0), [m, x], [[0] * 3, [0.5] * 3]).get_primitive_structure()
             for m in ("Na", "K", "Rb", "Li") for x in ("Cl", "Br", "I")]  # fmt: skip
    alloys = [
        Structure(Lattice.cubic(3.5), [m, x], [[0] * 3, [0.5] * 3]) for m in ("Fe", "Ni") for x in ("Cl", "Br", "I")
    ]
    known = [p for s in [*salts, *alloys] if (p := placed(crystal_of(s, {}))) is not None]
    place = fit_likeness(known, steps=30)
    apart = np.linalg.norm(place[[19, 37, 28]] - place[[11, 11, 19]], axis=1)
    assert len(known) == 18 and max(apart[:2]) < apart[2]


def test_a_draw_is_of_what_is_asked() -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        drawn = draw_occupation(62, rng, sizes={12: 1, 20: 1}, elements=2)
        assert drawn is not None and drawn.size in (12, 20) and len(drawn.atoms) <= 2
    assert draw_occupation(62, rng, sizes={5: 1}) is None


@pytest.mark.parametrize("number", [62, 139, 221])
def test_samples_start_from_known_positions(small: FlowMap, number: int) -> None:
    """Atoms of each element are those of a crystal of the group; a few elements are enough, and no group fails."""
    asked = Requests(small, Wish(space_group=number), 0)
    known = {tuple(sorted(o.atoms)) for o in occupations(number)}
    requests = asked.of(range(12))
    for request in requests:
        assert request.numbers is not None
        assert tuple(sorted(Counter(request.numbers.tolist()).values())) in known
    assert [r.numbers.tolist() for r in asked.of([5])] == [requests[5].numbers.tolist()]  # type: ignore[union-attr]


def test_a_formula_starts_from_known_positions_and_p1_does_not(small: FlowMap) -> None:
    known = Requests(small, Wish(formula="SrTiO3", atoms=5), 0).of(range(3))
    assert known[0].space_group == 221 and all(r.orbits is not None for r in known)
    assert all(Counter(r.numbers.tolist())[8] * 5 == 3 * r.size for r in known)  # type: ignore[union-attr]
    free = Requests(small, Wish(formula="SrTiO3", p1=True), 0).of(range(3))
    assert all(r.orbits is None and r.space_group == 0 for r in free)
    with pytest.raises(UserError, match="p1 and space group 62"):
        Requests(small, Wish(formula="SrTiO3", p1=True, space_group=62), 0)


def test_a_group_beyond_the_tables_still_comes_out(small: FlowMap) -> None:
    assert not occupations(3) or not any(o.size == 2 for o in occupations(3))
    (made,) = Crystals(small, Wish(space_group=3, atoms=2), 2, raw=True).take(1)
    assert len(made) == 2
