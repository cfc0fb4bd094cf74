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
from sciconsist.errors import UserError
from sciconsist.flowmap import FlowMap
from sciconsist.workflows import train_compositions, train_crystals
from sciconsist.workflows.crystal_data import Mixture
from sciconsist.workflows.crystal_trajectories import (
    STOPS,
    Trajectory,
    TrajectoryData,
    jump_loss,
    make_trajectories,
)
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

    original = Mixture.batch

    def batch(self: Mixture, *args: object) -> object:
        if next(stop_at) == 3:
            raise KeyboardInterrupt
        return original(self, *args)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sciconsist.training.fit.__kwdefaults__", {**_fit_defaults(), "save_every_seconds": 0.0})
        patch.setattr(Mixture, "batch", batch)
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


# --- distilling the annealed sampler


FORMULAS = [np.array([11, 17] * n) for n in (1, 3, 2, 2, 1, 4)]
PLAN = Plan(32, boost=2.0, jumps=False)


def test_trajectories_are_the_samplers_own(tmp_path: Path) -> None:
    """Whatever batch they were walked in: from the noise of a sample to the sample, with the stops between."""
    model = small_model()
    walked = make_trajectories(model, FORMULAS, tmp_path / "walked", PLAN, 9)
    samples = list(generate(model, [Request(len(f), f) for f in FORMULAS], PLAN, seed=9))
    for k, (w, sample) in enumerate(zip(walked, samples)):
        x, condition, _, _ = prepare(model.domain, [Request(len(FORMULAS[k]), FORMULAS[k])], [k], 9)
        np.testing.assert_allclose(w.frac[0], x["frac"][0].numpy(), atol=1e-6)
        apart = w.frac[-1] - sample.frac
        np.testing.assert_allclose(apart - np.round(apart), 0, atol=2e-3)
        cell = model.domain.cells(torch.from_numpy(w.lattice[-1:]), condition, torch.ones(1, len(w.numbers)))
        np.testing.assert_allclose(cell[0], sample.cell, atol=1e-2)
        assert w.frac.shape == (STOPS + 1, len(FORMULAS[k]), 3) and w.lattice.shape == (STOPS + 1, 6)


def test_a_pass_goes_on_where_it_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sciconsist.workflows.crystal_trajectories.SHARD", 2)
    model = small_model()
    whole = make_trajectories(model, FORMULAS, tmp_path / "whole", PLAN, 0)
    made = sorted((tmp_path / "whole").glob("*.npz"))
    assert len(made) == 3
    part = tmp_path / "part"
    part.mkdir()
    (part / made[1].name).write_bytes(made[1].read_bytes())
    kept = (part / made[1].name).stat().st_mtime_ns
    again = make_trajectories(model, FORMULAS, part, PLAN, 0)
    assert (part / made[1].name).stat().st_mtime_ns == kept
    for a, b in zip(whole, again, strict=True):
        np.testing.assert_allclose(a.frac, b.frac, atol=1e-6)


def jumps(model: FlowMap) -> TrajectoryData:
    """Straight lines: every atom and the cell at constant velocity."""
    rng = np.random.default_rng(0)
    stops = np.linspace(0, 1, STOPS + 1)[:, None, None]
    walked = []
    for numbers in FORMULAS * 3:
        start, velocity = rng.uniform(size=(len(numbers), 3)), rng.uniform(-0.3, 0.3, (len(numbers), 3))
        velocity -= velocity.mean(0)
        cells = rng.normal(size=6) + stops[:, 0] * rng.normal(size=6)
        walked.append(
            Trajectory(numbers, ((start + stops * velocity) % 1.0).astype(np.float32), cells.astype(np.float32))
        )
    return TrajectoryData(walked, model.domain)


def test_jumps_are_those_of_few_steps() -> None:
    data = jumps(small_model())
    batch = data.batch(torch.arange(12), torch.Generator().manual_seed(0))
    s, t = batch.times.s["frac"], batch.times.t["frac"]  # type: ignore[union-attr, index]
    steps = (1 / (s - t)).round()
    torch.testing.assert_close(1 / (s - t), steps)
    assert set(steps.int().tolist()) <= {1, 2, 4, 8, 16} and len(set(steps.tolist())) > 2
    torch.testing.assert_close(s * steps, (s * steps).round())
    assert (batch.times.s["species"] == 0).all()  # type: ignore[union-attr, index]


def test_the_jump_loss_is_zero_for_the_map_itself_and_for_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that answers with the jump's own F costs nothing, and its jump ends where the trajectory does."""
    model = small_model()
    batch = jumps(model).batch(torch.arange(12), torch.Generator().manual_seed(1))
    s, t = batch.times.s, batch.times.t  # type: ignore[union-attr]
    arc = batch.x0["frac"] - batch.noise["frac"]  # type: ignore[index, call-overload]
    arc = (arc - torch.round(arc)) / (t["frac"] - s["frac"])[:, None, None]  # type: ignore[index]
    u = (batch.x0["lattice"] - batch.noise["lattice"]) / (t["lattice"] - s["lattice"])[:, None]  # type: ignore[index, call-overload]
    exact = {"frac": arc, "lattice": batch.noise["lattice"] - s["lattice"][:, None] * u,  # type: ignore[index, call-overload]
             "species": 100.0 * batch.noise["species"]}  # fmt: skip  # type: ignore[index, call-overload]
    given = {"times": batch.times, "condition": batch.condition, "mask": batch.mask}
    assert float(jump_loss(model, None, batch.x0, batch.noise, **given).total) > 0.1
    monkeypatch.setattr(model, "raw", lambda *_: exact)
    assert float(jump_loss(model, None, batch.x0, batch.noise, **given).total) < 1e-6
    end = model.apply_f(batch.noise, exact, s, t, batch.mask)
    torch.testing.assert_close(end["lattice"], batch.x0["lattice"], atol=1e-5, rtol=0)  # type: ignore[index, call-overload]
    apart = (end["frac"] - batch.x0["frac"]) * batch.mask["frac"][..., None]  # type: ignore[index, call-overload]
    torch.testing.assert_close(apart - apart.round(), torch.zeros_like(apart), atol=1e-5, rtol=0)


def test_distilling_the_annealed_sampler(tmp_path: Path) -> None:
    run, student = tmp_path / "run", tmp_path / "student"
    train_crystals.train(records(), run, config(), until=Until(steps=2))
    options = config(teacher_steps=16, teacher_boost=1.0, trajectories=9)
    train_crystals.distill(run, records(), student, config=options, until=Until(steps=3, seed=1))
    card = load(student).card
    assert card["recipe"] == "annealed" and card["teacher_steps"] == 16 and card["teacher"] == "run"
    assert card["sampler"]["prediction"]["jumps"] and "not_a_flow_map" in card
    assert len(list((student / "trajectories").glob("*.npz"))) == 1
    assert not equal(weights(run), weights(student))
    with pytest.raises(UserError, match="nonsense"):
        train_crystals.distill(run, records(), tmp_path / "other", "nonsense", until=Until(steps=1))
