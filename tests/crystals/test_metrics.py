"""Metrics of crystals: closed cases, and real crystals where there are some."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Composition, Lattice, Structure

from sciconsist.domains.crystals.metrics.matching import Catalogue, duplicates, novelty
from sciconsist.domains.crystals.metrics.prediction import chance_level, match_figures, match_row, random_guess
from sciconsist.domains.crystals.metrics.validity import (
    SMACT_SETS,
    shortest_distance,
    smact_valid,
    smact_version,
    structurally_valid,
    validity,
)
from sciconsist.domains.crystals.prototypes import Prototypes
from sciconsist.random import stream

pytest.importorskip("smact")


def rocksalt(cation: str = "Na", anion: str = "Cl", a: float = 5.64) -> Structure:
    return Structure.from_spacegroup(225, Lattice.cubic(a), [cation, anion], [[0, 0, 0], [0.5, 0.5, 0.5]])


def zincblende(a: float = 6.0) -> Structure:
    return Structure.from_spacegroup(216, Lattice.cubic(a), ["Na", "Cl"], [[0, 0, 0], [0.25, 0.25, 0.25]])


def described_otherwise(structure: Structure) -> Structure:
    """The same crystal: primitive cell, other origin, atoms in another order, turned."""
    made = structure.get_primitive_structure()
    made.translate_sites(range(len(made)), [0.13, 0.4, 0.77])
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    lattice = Lattice(made.lattice.matrix @ turn)
    return Structure(lattice, made.species[::-1], made.frac_coords[::-1])


def test_structural_validity_has_the_papers_limits() -> None:
    for distance, expected in ((0.49, False), (0.51, True)):
        pair = Structure(Lattice.cubic(10), ["H", "H"], [[0.999, 0, 0], [0.999 + distance / 10, 0, 0]])
        assert structurally_valid(pair) is expected and shortest_distance(pair) == pytest.approx(distance)
    assert not structurally_valid(Structure(Lattice.cubic(0.4), ["H"], [[0, 0, 0]]))
    assert structurally_valid(Structure(Lattice.cubic(4), ["Po"], [[0, 0, 0]]))


def test_smact_validity() -> None:
    verdicts = {f: smact_valid(Composition(f)) for f in ("NaCl", "LiFePO4", "TiO2", "NaCl2", "CuAu", "Li7O")}
    assert verdicts == {"NaCl": True, "LiFePO4": True, "TiO2": True, "NaCl2": False, "CuAu": True, "Li7O": False}
    figures = validity([rocksalt(), Structure(Lattice.cubic(9), ["Na"] * 2 + ["Cl"], np.diag([0, 0.5, 0.3]))], total=4)
    assert figures["n"] == 4 and figures["structural"] == 0.5 and figures["valid"] == 0.25
    assert set(figures["smact"]) == set(SMACT_SETS) and figures["smact_version"] == smact_version()


def test_duplicates_do_not_depend_on_the_description() -> None:
    crystals = [
        rocksalt(),
        zincblende(),
        described_otherwise(rocksalt()),
        rocksalt("K"),
        described_otherwise(zincblende()),
    ]
    assert duplicates(crystals) == [None, None, 0, None, 1]
    figures = novelty(crystals, [("known", zincblende())], [True] * 5, 5)
    assert figures["unique"] == 3 / 5 and figures["novel"] == 3 / 5 and figures["valid_unique_novel"] == 2 / 5
    assert Catalogue.of([("x", rocksalt())], formulas={"KCl"}).find(rocksalt()) is None


def test_match_rate() -> None:
    truth = rocksalt()
    exact, wrong = described_otherwise(truth), rocksalt(a=9.0)
    wrong.translate_sites([0, 1, 2], [0.2, 0.1, 0.3])
    row = match_row([wrong, exact, exact], truth)
    assert structurally_valid(wrong) and row.rms[1] is None and row.rms[5] == pytest.approx(0, abs=1e-6) and row.valid
    figures = match_figures([row, match_row([exact], truth), match_row([], truth)])
    assert figures["all_rows"]["n"] == 3 and figures["all_rows"]["match_rate_k1"] == pytest.approx(1 / 3)
    assert figures["all_rows"]["match_rate_k5"] == pytest.approx(2 / 3)
    assert figures["valid_rows"]["n"] == 2 and figures["valid_rows_cap"] == pytest.approx(2 / 3)
    clash = Structure(truth.lattice, truth.species, np.zeros((8, 3)) + np.arange(8)[:, None] * 1e-3)
    assert match_row([clash], truth).rms[1] is None


def test_rms_is_that_of_the_displacement() -> None:
    """Moving one of two sublattices by d gives, after the best shift, sqrt(mean (d/2)^2) / (V/N)^(1/3)."""
    truth = rocksalt()
    moved = truth.copy()
    moved.translate_sites(range(4, 8), [0.03, 0, 0])
    expected = 0.03 * 5.64 / 2 / (truth.volume / 8) ** (1 / 3)
    assert match_row([moved], truth).rms[1] == pytest.approx(expected, rel=1e-3)


def test_chance_level_is_the_seeds() -> None:
    truths, names = [rocksalt(), zincblende()], ["a", "b"]
    assert chance_level(truths, names, 3) == chance_level(truths, names, 3)
    one, other = (random_guess(truths[0], stream(seed, "chance", "a")) for seed in (0, 1))
    assert one.composition == truths[0].composition and not np.allclose(one.frac_coords, other.frac_coords)


def test_prototypes_swap_and_scale() -> None:
    atoms = {"Na": 20.0, "K": 30.0, "F": 15.0, "Cl": 25.0}  # Å^3
    pairs = [("Na", "F"), ("K", "Cl"), ("Na", "Cl")]
    known = [rocksalt(c, a, (4 * (atoms[c] + atoms[a])) ** (1 / 3)) for c, a in pairs]
    prototypes = Prototypes.of(known)
    (guess,) = prototypes.predict(Composition("K4F4"))
    assert guess.composition == Composition("K4F4") and guess.get_space_group_info()[1] == 225
    assert guess.volume == pytest.approx(4 * (30 + 15))
    assert prototypes.predict(Composition("K2O")) == [] and prototypes.predict(Composition("KF")) == []
    assert len(prototypes.predict(Composition("Na4F4"), k=5)) == 3
    (unknown,) = prototypes.predict(Composition("Rb4F4"))
    assert unknown.volume in [pytest.approx(s.volume) for s in known]


def test_real_crystals_set_the_ceiling(data_dir: Path) -> None:
    from sciconsist.datasets import registry

    real = [record.structure for record in registry.load("mp-20-bt", "val", limit=150)]
    figures = validity(real)
    assert figures["structural"] == 1 and 0.8 < figures["smact"]["smact14"] < 1
    assert match_figures([match_row([s], s) for s in real[:30]])["all_rows"]["match_rate_k1"] == 1
    chance = chance_level(real[:60], [str(k) for k in range(60)])["all_rows"]["match_rate_k1"]
    assert chance < 0.4
