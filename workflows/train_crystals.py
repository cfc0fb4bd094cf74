"""Training crystal models: flow matching, and distillation to few steps."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field
from pymatgen.core import Element

from sciconsist import __version__
from sciconsist.domain import Data
from sciconsist.domains.crystals.adapter import CrystalConfig, cell_statistics
from sciconsist.domains.crystals.crystals import Crystal
from sciconsist.domains.crystals.elements import descriptors
from sciconsist.domains.crystals.files import CrystalRecord
from sciconsist.domains.crystals.generate import Plan
from sciconsist.domains.crystals.network import NetworkConfig
from sciconsist.errors import UserError
from sciconsist.flowmap import FlowMap
from sciconsist.random import fresh_weights, stream
from sciconsist.recipes import RECIPES
from sciconsist.training import FitResult
from sciconsist.workflows.crystal_data import CrystalData, Mixture, Tasks, crystals_of, read_data
from sciconsist.workflows.crystal_trajectories import STOPS, TrajectoryData, jump_loss, make_trajectories
from sciconsist.workflows.models import build, load
from sciconsist.workflows.runs import RunConfig, Until, run
from sciconsist.workflows.symmetric_data import SymmetricData
from sciconsist.workflows.train_compositions import held_out, train_composition
from sciconsist.workflows.train_molecules import DISTILL


class TrainConfig(RunConfig):
    """What `--config FILE.toml` and `--set key=value` may say."""

    network: NetworkConfig = NetworkConfig()
    species_scale: float = Field(default=3.0, gt=0)
    max_atoms: int = Field(default=20, gt=0)  # larger crystals are left out
    prediction: float = Tasks.prediction  # shares of the batch: see crystal_data.Tasks
    separate: float = Tasks.separate
    cell_given: float = Tasks.cell_given
    sites_given: float = Tasks.sites_given
    space_group: float = Tasks.space_group
    values: float = Tasks.values
    symmetric: float = Field(default=0.5, ge=0, lt=1)  # share of batches on the positions of their space groups
    anchor: float = 0.25  # distillation: share of the batch on the diagonal
    trajectories: int = Field(
        default=8000, gt=0
    )  # recipe annealed: walks of the teacher, of so many evaluations (16, 32, ...)
    teacher_steps: int = Field(default=16, gt=0, multiple_of=STOPS)
    teacher_boost: float = Field(default=5.0, ge=0)
    part: Literal["structure", "composition"] = "structure"  # of the model, what is trained
    validation: str = ""  # part=composition: data that choose the best step; else some formulas are held out

    def tasks(self) -> Tasks:
        return Tasks(**{name: getattr(self, name) for name in asdict(Tasks())})


DISTILL_DEFAULTS: dict[str, Any] = {"lr": 5e-4, "warmup": 100, "ema": 0.998}
DISTILL_RECIPE = "annealed"  # when none is named
# what measured best of a distilled model (docs/experiments.md): a jump or two, then the annealed sampler
BY_STEPS: dict[str, dict[str, Any]] = {
    "4": {"jumps": 2, "power": 1.5, "boost": 10.0}, "8": {"jumps": 1, "power": 1.5, "boost": 20.0},
    "16": {"jumps": 1, "power": 1.5, "boost": 14.0}, "50": {"jumps": False, "power": 1.0, "boost": 10.0},
}  # fmt: skip
ANNEALED = replace(RECIPES["fm"], name="annealed", paper="jumps along the annealed sampler's stored trajectories")


def train(
    data: str | Sequence[CrystalRecord],
    out: str | Path,
    config: TrainConfig | None = None,
    *,
    until: Until,
    init: str | Path | None = None,
) -> FitResult:
    """Flow matching on crystals; with `init` from a model's weights, of its sizes and elements.

    With `part = "composition"` the model of `init` learns to draw compositions, and its structure network stays.
    """
    config = config or TrainConfig()
    if config.part == "composition" and init is None:
        raise UserError("part=composition: trains the compositions of a crystal model; name it with --init")
    records, source = read_data(data)
    crystals, skipped = crystals_of(records, config.max_atoms)
    if config.part == "composition":
        return _compositions(crystals, source, load(str(init)), out, config, until)
    model = load(init) if init is not None else new_model(crystals, config, until.seed)
    known, unknown = split_known(crystals, model)
    model.card = {**card_of(source, len(known), skipped + unknown), "recipe": "fm"}
    ready = mixed([(1.0, CrystalData(known, model.domain, config.tasks()))], known, model, config)
    return run(model, RECIPES["fm"], ready, out, config, until, metric=model.domain.metric, loss=jump_loss)


def _compositions(
    crystals: Sequence[Crystal],
    source: dict[str, str],
    model: FlowMap,
    out: str | Path,
    config: TrainConfig,
    until: Until,
) -> FitResult:
    known, _ = split_known(crystals, model)
    if config.validation:
        held, _ = split_known(crystals_of(read_data(config.validation)[0], config.max_atoms)[0], model)
    else:
        apart = held_out(known)
        known, held = [c for c, h in zip(known, apart) if not h], [c for c, h in zip(known, apart) if h]
    model.card = {**model.card, "composition_data": source["data"], "composition_held_out": len(held)}
    return train_composition(model, known, held, out, config, until)


def distill(
    teacher: str | Path,
    data: str | Sequence[CrystalRecord],
    out: str | Path,
    recipe: str = DISTILL_RECIPE,
    config: TrainConfig | None = None,
    *,
    until: Until,
    init: str | Path | None = None,
) -> FitResult:
    """A student of few steps, starting from the teacher's weights (or `init`).

    `annealed` keeps its trajectories in `out`/trajectories, made before training (which `until` does not count) and not
    again on a resume.
    """
    if recipe not in (names := (ANNEALED.name, *DISTILL)):
        raise UserError(f"recipe {recipe!r}: expected one of {', '.join(names)}")
    config = config or TrainConfig(**DISTILL_DEFAULTS)
    row, old = DISTILL.get(recipe, ANNEALED), load(teacher)
    model = load(init if init is not None else teacher)
    records, source = read_data(data)
    crystals, skipped = crystals_of(records, config.max_atoms)
    known, unknown = split_known(crystals, model)
    model.card = {
        **card_of(source, len(known), skipped + unknown), "recipe": recipe, "teacher": old.card.get("name"),
        "teacher_sha256": old.card.get("sha256"),
    }  # fmt: skip
    if recipe == ANNEALED.name:
        plan = Plan(config.teacher_steps, boost=config.teacher_boost, jumps=False)
        model.card |= {
            "teacher_steps": plan.steps, "teacher_boost": plan.boost, "trajectories": config.trajectories,
            "sampler": {"prediction": {"jumps": True, "by_steps": BY_STEPS}, "host": {"jumps": False}},
            "not_a_flow_map": "jumps of 1 to 16 steps of an annealed sampler",
        }  # fmt: skip
        Path(out).mkdir(exist_ok=True)
        order = [int(stream(until.seed, "formula", k).initial_seed() % len(known)) for k in range(config.trajectories)]
        advance = _counter(len(order), until.quiet)
        walked = make_trajectories(
            old, [known[k].numbers for k in order], Path(out) / "trajectories", plan, until.seed, advance
        )
        parts: list[tuple[float, Data]] = [
            (1 - config.anchor, TrajectoryData(walked, model.domain)),
            (config.anchor, CrystalData(known, model.domain, config.tasks())),
        ]
        both = mixed(parts, known, model, config)
        return run(model, row, both, out, config, until, metric=model.domain.metric, loss=jump_loss)
    ready = CrystalData(known, model.domain, config.tasks(), config.anchor, row.kind)
    old.to(until.device)
    return run(model, row, ready, out, config, until, teacher=old, metric=model.domain.metric)


def mixed(
    parts: Sequence[tuple[float, Data]], crystals: Sequence[Crystal], model: FlowMap, config: TrainConfig
) -> Mixture:
    """The parts, and in its share of the batches crystals that keep their space group, where some have one we can place."""
    share = config.symmetric
    if not share or not len(symmetric := SymmetricData(crystals, model.domain, config.values)):
        return Mixture(parts)
    return Mixture([*((weight * (1 - share), part) for weight, part in parts), (share, symmetric)])


def _counter(total: int, quiet: bool) -> Callable[[int], None]:
    """Tells someone who watches how many trajectories have been walked."""
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if not quiet and sys.stderr.isatty():
            print(f"\rtrajectories {done} of {total}", end="\n" if done == total else "", file=sys.stderr, flush=True)

    return advance


def new_model(crystals: Sequence[Crystal], config: TrainConfig, seed: int = 0) -> FlowMap:
    """A fresh model whose elements, sizes and cells are those of the crystals; its first weights follow from the seed."""
    elements = sorted({int(z) for c in crystals for z in c.numbers})
    mean, std = cell_statistics(crystals)
    sizes = [len(c) for c in crystals]
    values = np.array([c.values for c in crystals])
    counted = np.isfinite(values).any(0)
    known = np.where(counted, values, 0.0)
    whole = CrystalConfig(
        elements=elements,
        table=descriptors([Element.from_Z(z).symbol for z in elements]),
        cell_mean=mean,
        cell_std=std,
        size_histogram={n: sizes.count(n) for n in sorted(set(sizes))},
        value_mean=[round(float(v), 4) for v in np.nanmean(known, 0)],
        value_std=[round(float(max(v, 1e-3)), 4) for v in np.nanstd(known, 0)],
        species_scale=config.species_scale,
        network=config.network,
    )
    with fresh_weights(seed):
        return build({"domain": "crystals", **json.loads(whole.model_dump_json())})


def split_known(crystals: Sequence[Crystal], model: FlowMap) -> tuple[list[Crystal], int]:
    """Crystals of elements that the model knows, and how many there are of others."""
    classes = model.domain.class_of
    known = [c for c in crystals if all(int(z) in classes for z in c.numbers)]
    if not known:
        raise UserError(f"none of the {len(crystals)} crystals is of elements the model knows")
    return known, len(crystals) - len(known)


def card_of(source: dict[str, str], used: int, skipped: int) -> dict[str, Any]:
    return {**source, "domain": "crystals", "crystals": used, "crystals_left_out": skipped, "version": __version__}
