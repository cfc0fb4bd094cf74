"""Training, distilling and the compositions: runs that stop and go on, cards that say what was done, files that load again."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

from sciconsist.domains.crystals.crystals import crystal_of
from sciconsist.domains.crystals.files import CrystalRecord
from sciconsist.domains.crystals.generate import Plan, Request, generate, prepare
from sciconsist.domains.crystals.lattice import automorphisms
from sciconsist.errors import UserError
from sciconsist.workflows import train_compositions, train_crystals
from sciconsist.workflows.crystal_data import CrystalData, Tasks
from sciconsist.workflows.crystal_pairs import Pair, PairedCrystals, aligned, make_pairs, prior
from sciconsist.workflows.models import load
from sciconsist.workflows.runs import Until

from .conftest import small_model

TINY = {"layers": 1, "width": 16, "pair_width": 8, "heads": 2, "radial": 8, "time_width": 8}
PAIRS = [(a, b) for a in ("Li", "Na") for b in ("Cl", "O")]


def records(count: int = 24) -> list[CrystalRecord]:
    """Rock salts and caesium chlorides of several sizes, some elongated."""
    made = []
    for k in range(count):
        a, b = PAIRS[k % 4]
        lattice = Lattice.tetragonal(3.0 + 0.05 * k, 3.2 + 0.04 * k)
        structure = Structure(lattice, [a, b], [[0, 0, 0], [0.5, 0.5, 0.5]])
        if k % 3 == 0:
            structure = structure.make_supercell([2, 1, 1])
        made.append(CrystalRecord(structure, str(k), {"e_above_hull": 0.01 * k, "spacegroup": 123.0}))
    return made


def config(**changes: object) -> train_crystals.TrainConfig:
    return train_crystals.TrainConfig(batch_size=8, warmup=2, network=TINY, ema=0.5, **changes)  # type: ignore[arg-type]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load(folder).state_dict()


def equal(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_a_resumed_run_is_the_run_that_never_stopped(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train_crystals.train(records(), whole, config(), until=Until(steps=6, seed=3))
    first = train_crystals.train(records(), parts, config(), until=Until(steps=6, seed=3))
    assert first.steps == 6
    for folder in (whole, parts):
        assert load(folder).card["recipe"] == "fm"
    assert equal(weights(whole), weights(parts))
    go_on = tmp_path / "go_on"
    stop_at = iter(range(100))

    class Stopped(Exception):
        pass

    original = CrystalData.batch

    def batch(self: CrystalData, *args: object) -> object:
        if next(stop_at) == 3:
            raise KeyboardInterrupt
        return original(self, *args)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sciconsist.training.fit.__kwdefaults__", {**_fit_defaults(), "save_every_seconds": 0.0})
        patch.setattr(CrystalData, "batch", batch)
        with pytest.raises(KeyboardInterrupt):
            train_crystals.train(records(), go_on, config(), until=Until(steps=6, seed=3))
    resumed = train_crystals.train(records(), go_on, config(), until=Until(steps=6, seed=3, resume=True))
    assert resumed.steps == 6
    assert equal(weights(go_on), weights(whole))


def _fit_defaults() -> dict:
    from sciconsist.training import fit

    return dict(fit.__kwdefaults__ or {})


def test_the_model_knows_its_crystals(tmp_path: Path) -> None:
    train_crystals.train(records(), tmp_path / "run", config(), until=Until(steps=1))
    model = load(tmp_path / "run")
    assert model.domain.config.elements == [3, 8, 11, 17]
    assert model.domain.config.size_histogram == {2: 16, 4: 8}
    assert model.card["crystals"] == 24
    (sample,) = generate(model, [Request(2, np.array([11, 17]))], Plan(2, jumps=False))
    assert sample.finite and sample.numbers.tolist() == [11, 17]


def test_only_the_composition_part_is_trained(tmp_path: Path) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    train_crystals.train(records(), run, config(), until=Until(steps=2))
    options = config(part="composition", lr=3e-2)
    train_crystals.train(records(), whole, options, until=Until(steps=220), init=run)
    before, after = weights(run), weights(whole)
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert any(name.startswith("composition.") for name in after)
    rows = list(csv.DictReader((whole / "validation.csv").open()))
    assert float(load(whole).card["validation_nats"]) == pytest.approx(min(float(r["nats"]) for r in rows))
    # it has learned: one atom of each of two kinds, or two
    model = load(whole)
    drawn = model.composition.draw([2] * 50, None, torch.rand(50, 9, generator=torch.Generator().manual_seed(0),
                                                               dtype=torch.float64), 1.0)  # fmt: skip
    assert np.mean([len(set(c)) == 2 for c in drawn]) > 0.8


def test_a_composition_part_moves_to_another_structure_network(tmp_path: Path) -> None:
    ours, bare = small_model(seed=1), small_model(composition=False, seed=2)
    joined = train_compositions.with_composition(bare, ours)
    for name, value in joined.state_dict().items():
        source = ours if name.startswith("composition.") else bare
        assert torch.equal(value, source.state_dict()[name])
    with pytest.raises(UserError, match="no such part"):
        train_compositions.with_composition(ours, bare)


def test_compositions_need_a_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--init"):
        train_crystals.train(records(), tmp_path / "run", config(part="composition"), until=Until(steps=1))


def test_formulas_are_held_out_whole() -> None:
    crystals = [crystal_of(r.structure) for r in records()]
    for share in (0.2, 0.5, 0.8):
        apart = train_compositions.held_out(crystals, share)
        by_formula: dict[tuple, set] = {}
        for c, held in zip(crystals, apart):
            by_formula.setdefault(tuple(sorted(set(c.numbers.tolist()))), set()).add(bool(held))
        assert all(len(v) == 1 for v in by_formula.values())


# --- pairs of a teacher


def test_the_noise_of_a_pair_is_the_noise_of_its_sample() -> None:
    """Whatever batch and padding the sample was drawn in."""
    model = small_model()
    requests = [Request(n, np.array([11, 17] * (n // 2))) for n in (2, 6, 4)]
    x, *_ = prepare(model.domain, requests, [5, 6, 7], 9)
    for k, request in enumerate(requests):
        noise = prior(model.domain, request.size, 9, 5 + k)
        torch.testing.assert_close(noise["frac"], x["frac"][k, : request.size])
        torch.testing.assert_close(noise["lattice"], x["lattice"][k])


@pytest.mark.parametrize("seed", range(5))
def test_alignment_finds_a_crystal_shuffled_moved_and_turned(seed: int) -> None:
    rng = np.random.default_rng(seed)
    structure = Structure(Lattice.tetragonal(4.0, 6.0), ["Na", "Na", "Cl", "O", "O"], rng.uniform(size=(5, 3)))
    c = crystal_of(structure)
    bases = np.round(np.linalg.inv(automorphisms(c.cell).astype(float)))
    order = np.array([1, 0, 2, 4, 3])
    sample = ((c.frac @ bases[seed % len(bases)])[order] + rng.uniform(size=3)) % 1.0
    frac, noise, rms = aligned(c, bases, sample, sample)
    assert rms < 1e-6
    apart = noise - frac  # the noise is the sample itself here: moved into the crystal's frame it is the crystal
    np.testing.assert_allclose(apart - np.round(apart), 0, atol=1e-6)


def test_a_pass_is_not_done_twice_and_goes_on_where_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sciconsist.workflows.crystal_pairs.SHARD", 8)
    monkeypatch.setattr("sciconsist.workflows.crystal_pairs.NEAR", 9.0)
    monkeypatch.setattr("sciconsist.workflows.crystal_pairs.CELL", 9.0)
    model = small_model()
    data = PairedCrystals([crystal_of(r.structure) for r in records()], model.domain, Tasks())
    plan = Plan(2, jumps=False)
    whole = make_pairs(model, data, tmp_path / "whole", plan, 2, 0)
    assert sorted(whole) == list(range(24)) and all(len(found) == 2 for found in whole.values())
    made = sorted((tmp_path / "whole").glob("*.npz"))
    assert len(made) == 6
    (tmp_path / "part").mkdir()
    for path in made[:2]:
        (tmp_path / "part" / path.name).write_bytes(path.read_bytes())
    kept = (tmp_path / "part" / made[0].name).stat().st_mtime_ns
    again = make_pairs(model, data, tmp_path / "part", plan, 2, 0)
    assert (tmp_path / "part" / made[0].name).stat().st_mtime_ns == kept
    for row, pairs in whole.items():
        for a, b in zip(pairs, again[row]):
            np.testing.assert_allclose(a.frac, b.frac, atol=1e-6)
            np.testing.assert_allclose(a.noise, b.noise, atol=1e-6)


def test_batches_take_the_pairs() -> None:
    model = small_model()
    data = PairedCrystals([crystal_of(r.structure) for r in records()], model.domain, Tasks(prediction=1.0, sites_given=0.0),
                          anchor=0.0)  # fmt: skip
    marked = {row: [Pair(data.frac[row], np.full((len(data.frac[row]), 3), 0.123), np.full(6, 7.0), 0.0)]
              for row in range(12)}  # fmt: skip
    data.pairs = marked
    batch = data.paired(np.arange(24), torch.Generator().manual_seed(0))
    told = batch.noise["lattice"][:, 0] == 7.0  # type: ignore[index, call-overload]
    assert told.tolist() == [True] * 12 + [False] * 12


def test_distilling_by_reflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sciconsist.workflows.crystal_pairs.NEAR", 9.0)
    run, student = tmp_path / "run", tmp_path / "student"
    train_crystals.train(records(), run, config(), until=Until(steps=2))
    options = config(teacher_steps=2, teacher_boost=1.0)
    train_crystals.distill(run, records(), student, config=options, until=Until(steps=2, seed=1))
    card = load(student).card
    assert card["recipe"] == "reflow" and card["teacher_steps"] == 2 and card["teacher"] == "run"
    assert len(list((student / "pairs").glob("*.npz"))) == 1
    with pytest.raises(UserError, match="nonsense"):
        train_crystals.distill(run, records(), tmp_path / "other", "nonsense", until=Until(steps=1))
