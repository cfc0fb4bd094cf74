"""Defects in a host: what is not touched stays to the last bit, whatever the network says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from sciconsist.domains.crystals.hosts import Host, parse_change, supercell
from sciconsist.errors import UserError
from sciconsist.flowmap import FlowMap
from sciconsist.workflows.crystal_requests import Wish
from sciconsist.workflows.generate_crystals import Crystals

from .conftest import small_model

ROCK_SALT = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
RUTILE = Structure.from_spacegroup(
    "P4_2/mnm", Lattice.tetragonal(4.594, 2.959), ["Ti", "O"], [[0, 0, 0], [0.3053, 0.3053, 0]]
)
# a cell that is far from Niggli's: b' = b + 2 a
SKEWED = Structure(np.array([[1, 0, 0], [2, 1, 0], [0, -1, 1]]) @ RUTILE.lattice.matrix, RUTILE.species,
                   RUTILE.frac_coords @ np.linalg.inv([[1, 0, 0], [2, 1, 0], [0, -1, 1]]))  # fmt: skip


def made(host: Host, n: int = 2, seed: int = 0, model: FlowMap | None = None) -> list[Structure]:
    return list(Crystals(model or small_model(), Wish(host=host), 2, seed, raw=True).take(n))


def moved(host: Structure, found: Structure) -> np.ndarray:
    """Distance of every site from where it was, for equal numbers of sites."""
    apart = found.frac_coords - host.frac_coords
    return np.linalg.norm((apart - np.round(apart)) @ host.lattice.matrix, axis=1)


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from([ROCK_SALT, RUTILE, SKEWED]), st.sets(st.integers(0, 5), min_size=1, max_size=3), st.integers(0, 50)
)
def test_sites_that_are_not_freed_keep_every_bit(host: Structure, free: set[int], seed: int) -> None:
    for found in made(Host(host, "host", (), sorted(free)), seed=seed):
        assert (found.lattice.matrix == host.lattice.matrix).all()
        assert [s.specie for s in found] == [s.specie for s in host]
        kept = [k for k in range(len(host)) if k not in free]
        assert (found.frac_coords[kept] == host.frac_coords[kept]).all()
        assert moved(host, found)[sorted(free)].min() > 1e-6


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 3), st.integers(0, 50))
def test_replaced_atoms_are_as_many_as_asked(count: int, seed: int) -> None:
    host = supercell(ROCK_SALT, (2, 1, 1))
    for found in made(Host(host, "host", [parse_change(f"Na=Li:{count}")]), seed=seed):
        counts = {e.symbol: n for e, n in found.composition.items()}
        assert counts == {"Li": count, "Na": 8 - count, "Cl": 8}
        kept = [k for k in range(len(host)) if found[k].specie == host[k].specie]
        assert len(kept) == 16 - count
        assert (found.frac_coords[kept] == host.frac_coords[kept]).all()


def test_a_substitution_without_a_count_is_of_all_atoms() -> None:
    (found,) = made(Host(RUTILE, "host", [parse_change("Ti=Si")]), n=1)
    assert found.composition.reduced_formula == "SiO2"
    assert (found.frac_coords[2:] == RUTILE.frac_coords[2:]).all()


def test_vacancies_leave_the_others_where_they_were() -> None:
    host = supercell(RUTILE, (1, 1, 2))
    for found in made(Host(host, "host", [parse_change("O:2", vacancy=True)]), n=3):
        assert found.composition.formula == "Ti4 O6"
        places = {tuple(f) for f in host.frac_coords}
        assert all(tuple(f) in places for f in found.frac_coords)


def test_which_atoms_change_depends_on_the_sample() -> None:
    host = Host(supercell(ROCK_SALT, (2, 2, 1)), "host", [parse_change("Na=Li")])
    host.changes = [parse_change("Na=Li:1")]
    places = {tuple(np.round(s.frac_coords, 1)) for f in made(host, n=8) for s in f if s.specie.symbol == "Li"}
    assert len(places) > 2


def test_supercells_are_the_crystal_repeated() -> None:
    large = supercell(RUTILE, (2, 1, 3))
    assert len(large) == 36 and large.volume == pytest.approx(6 * RUTILE.volume)
    with pytest.raises(UserError, match="0,1,1"):
        supercell(RUTILE, (0, 1, 1))


@pytest.mark.parametrize(
    ("text", "vacancy", "expected"),
    [("Na=Li", False, (11, 3, None)), ("Na=Li:2", False, (11, 3, 2)), ("O", True, (8, None, 1)), ("O:3", True, (8, None, 3))],
)  # fmt: skip
def test_changes_as_they_are_typed(text: str, vacancy: bool, expected: tuple) -> None:
    change = parse_change(text, vacancy)
    assert (change.old, change.new, change.count) == expected


@given(st.text(max_size=8))
def test_what_is_no_change_is_refused(text: str) -> None:
    for vacancy in (False, True):
        try:
            change = parse_change(text, vacancy)
        except UserError as error:
            assert repr(text) in str(error)
        else:
            assert change.old > 0 and (change.new is None) == vacancy


@pytest.mark.parametrize(
    ("changes", "free", "message"),
    [
        ([], [], "nothing to change"), ([], [99], "free site 99"), (["Li=Na"], [], "0 Li"), (["Ti=Si:9"], [], "2 Ti"),
    ],
)  # fmt: skip
def test_bad_requests_name_the_host(changes: list[str], free: list[int], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Host(RUTILE, "rutile.cif", [parse_change(c) for c in changes], free)
    assert "rutile.cif" in str(caught.value)


def test_a_host_has_a_sampler_of_its_own() -> None:
    """A model of jumps along whole trajectories walks, where it starts near a host's sites."""
    model = small_model()
    model.card["sampler"] = {"prediction": {"jumps": True}, "host": {"jumps": False}}
    host = Host(RUTILE, "host", [parse_change("Ti=Si")])
    assert not Crystals(model, Wish(host=host), 2).plan.jumps and Crystals(model, Wish(formula="TiO2"), 2).plan.jumps
    del model.card["sampler"]["host"]
    assert Crystals(model, Wish(host=host), 2).plan.jumps
