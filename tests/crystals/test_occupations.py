"""Occupied Wyckoff positions: read off known crystals, laid back into their group, and what a sample starts from."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from sciconsist.domains.crystals.crystals import crystal_of
from sciconsist.domains.crystals.metrics.matching import SAME, matcher
from sciconsist.domains.crystals.occupations import (
    count_occupations,
    draw_occupation,
    known_orbits,
    occupations,
    occupied,
    position_of,
)
from sciconsist.domains.crystals.symmetry import detect, group, settings
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


@pytest.mark.parametrize(
    ("structure", "number", "atoms", "freedom"),
    [
        (RUTILE, 136, [4, 2], [1, 0]),
        (PEROVSKITE, 221, [3, 1, 1], [0, 0, 0]),
    ],
)
def test_positions_of_known_crystals(structure: Structure, number: int, atoms: list, freedom: list) -> None:
    ((key, rows),) = count_occupations([crystal_of(structure, {})]).items()
    ((count, basis, sites, each),) = rows
    assert (int(key), count, list(each)) == (number, 1, atoms)
    places = group(number, settings()[number][basis][1]).sites
    assert [places[k].freedom for (k,) in sites] == freedom


def test_heusler_positions_make_the_heusler_again() -> None:
    """225 with 2, 1 and 1 atoms has one way to be occupied: its positions have no freedom, only the cell's length has."""
    numbers = np.array([29, 29, 25, 13])
    orbits = known_orbits(225, numbers, np.random.default_rng(0))
    assert orbits is not None
    order = orbits.numbers
    frac, cell = orbits.place(np.random.default_rng(1).uniform(size=(4, 3))), orbits.cell(np.eye(3) * 4.2)
    made = Structure(Lattice(cell), order.tolist(), frac)
    assert Counter(order) == Counter(numbers) and detect(order, frac, cell) == 225
    assert matcher(SAME).fit(made, HEUSLER)
    found = occupied(orbits.group, order, frac)
    assert found is not None and found[1] == (2, 1, 1) and any(o.sites == found[0] for o in occupations(225))


@pytest.mark.parametrize("number", [62, 139, 194, 225])
def test_what_the_tables_say_can_be_built(number: int) -> None:
    for o in occupations(number)[:20]:
        sites = group(number, o.basis).sites
        assert [sum(sites[k].multiplicity for k in own) for own in o.sites] == list(o.atoms)
        assert list(o.atoms) == sorted(o.atoms, reverse=True)


def test_a_position_is_the_most_special_one() -> None:
    g = group(221)
    for k, site in enumerate(g.sites):
        images = g.rotations @ site.point + g.translations
        assert position_of(g, images) == k
    general = g.rotations @ np.array([0.11, 0.23, 0.37])
    assert position_of(g, general) == len(g.sites) - 1


def test_a_draw_is_of_what_is_asked() -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        drawn = draw_occupation(62, rng, sizes={12: 1, 20: 1}, elements=2)
        assert drawn is not None and drawn.size in (12, 20) and len(drawn.atoms) <= 2
        again = draw_occupation(62, rng, atoms=[4, 8])
        assert again is not None and sorted(again.atoms) == [4, 8]
    assert draw_occupation(62, rng, atoms=[5]) is None


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


def test_a_group_beyond_the_tables_still_comes_out(small: FlowMap) -> None:
    assert not occupations(3) or not any(o.size == 2 for o in occupations(3))
    (made,) = Crystals(small, Wish(space_group=3, atoms=2), 2, raw=True).take(1)
    assert len(made) == 2
