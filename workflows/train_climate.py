"""Training climate models: closed-form mean, flow matching, flow map, fair-CRPS tuning, calibration, in one run.

The run's folder has a folder for each phase (1-flow, 2-map, 3-crps) and, at the end, model.safetensors.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt

from sciconsist import __version__
from sciconsist.checkpoint import read_checkpoint, save_model
from sciconsist.domain import Data
from sciconsist.domains.climate.adapter import Site, network_of
from sciconsist.domains.climate.conserve import spread_out
from sciconsist.domains.climate.network import NetworkConfig
from sciconsist.domains.climate.spreads import fit_law, widths
from sciconsist.domains.climate.times import step_of
from sciconsist.errors import UserError
from sciconsist.flowmap import FlowMap
from sciconsist.random import fresh_weights
from sciconsist.recipes import RECIPES, Recipe
from sciconsist.training import FitResult
from sciconsist.workflows.climate_data import (
    Region,
    RegionData,
    coarsened,
    cross_fitted,
    held_out,
    read_region,
    seasons_of,
)
from sciconsist.workflows.climate_memory import set_memory
from sciconsist.workflows.climate_regions import Regions, statistics, whole_region
from sciconsist.workflows.climate_tuning import STEPS, Best, calibrated, crps_loss
from sciconsist.workflows.models import build, load
from sciconsist.workflows.runs import RunConfig, Until, run

ANYWHERE = ("t2m", "tp", "u10", "v10")  # variables of a model for any region


class TrainConfig(RunConfig):
    """What `--config FILE.toml` and `--set key=value` may say."""

    network: NetworkConfig = NetworkConfig(embedding=8)
    variables: tuple[str, ...] = ()  # all of the data
    factor: int = Field(default=4, ge=2, le=8)
    radius: int = Field(default=2, ge=0)
    cross: bool = True
    cycle: Literal["year", "day"] | None = None  # of the closed-form mean, like the three below
    rank: PositiveInt | list[PositiveInt] | None = None
    squares: bool = False
    transformed: bool = False
    varying: bool = False  # whether the residual's spread goes with the coarse value and the cycle
    ridge: float = Field(default=1.0, gt=0)
    rounds: int = Field(default=4, ge=0)  # in which cells learn from each other what coefficients are like; 0: ridge
    folds: int = Field(default=6, ge=2)  # stretches of times for cross-fitted residuals
    hold: float = Field(
        default=0.1, gt=0, lt=0.5
    )  # share of the times to choose and calibrate on, never trained on ...
    stretches: int = Field(default=5, gt=0)  # ... the ends of so many stretches
    crop: int = Field(default=10, gt=1)  # coarse cells a side of a training window
    shares: tuple[float, float, float] = (0.25, 0.1, 0.65)  # of the time: flow matching, flow map, CRPS
    members: int = Field(default=2, ge=2)
    pooled: float = Field(default=0.5, ge=0)  # weights of the score of means and of differences
    sharp: float = Field(default=0.3, ge=0)
    emphasis: dict[str, float] = Field(default_factory=dict)  # weights of variables in the score, 1 if not named
    choose: tuple[str, ...] = ()  # of several regions: those that are held out to choose and calibrate on
    crps_lr: float = Field(default=8e-4, gt=0)
    batch_size: int = 16
    lr: float = 2e-3
    warmup: int = 50
    ema: float = 0.995
    weight_decay: float = 0.02


DISTILL_DEFAULTS: dict[str, Any] = {}


def train(
    data: str | Sequence[str],
    out: str | Path,
    config: TrainConfig | None = None,
    *,
    until: Until,
    init: str | Path | None = None,
) -> FitResult:
    """A site model of one domain, `data` (a named region, or the user's own fine fields); of several, with commas
    between them, a model for any region.

    With `init` the flow-matching phase starts from that model's weights. Raises UserError.
    """
    config = config or TrainConfig()
    ready: Data
    site, step = None, None
    names = data.split(",") if isinstance(data, str) else list(data)
    if len(names) > 1:
        model, ready, late = region_model(names, config, until.seed)
    else:
        region = read_region(names[0], variables=config.variables or None)
        model, site = site_model(region, config, until.seed)
        model.card, step = site_card(region, config), step_of(region.fields.times)
        chosen, end = held_out(len(site), config.hold, config.stretches)
        ready, late = site.part(chosen), [site.part(end)]
    if init is not None:
        start_from(model, init)
    return phases(model, ready, late, Path(out), config, until, site, step)


@torch.no_grad()
def start_from(model: FlowMap, init: str | Path) -> None:
    """Takes a model's network, but not what it has measured of its own domain. Raises UserError for other sizes."""
    found = dict(load(init).named_parameters())
    for name, own in model.named_parameters():
        if name not in found or (found[name].shape != own.shape and name != "net.place"):
            raise UserError(
                f"--init {init}: its network differs at {name}; set network.* and variables as its card says"
            )
        if found[name].shape == own.shape:  # learned numbers of places are those of one lattice
            own.copy_(found[name])


def site_model(region: Region, config: TrainConfig, seed: int = 0) -> tuple[FlowMap, RegionData]:
    """A fresh model of a domain with its closed-form mean fitted, and the data to train it on."""
    fine, coarse, ground = coarsened(region, config.factor)
    names, k = region.fields.names, config.factor
    if len(fine) < 10 * config.folds:
        raise UserError(f"{region.name}: {len(fine)} times; expected at least {10 * config.folds} to train on")
    if isinstance(config.rank, list) and len(config.rank) != len(names):
        raise UserError(f"rank {config.rank}: expected one number, or one for each of {', '.join(names)}")
    grid = region.fields.grid
    if grid.kind != "rectilinear":
        raise UserError(
            f"{region.name}: a {grid.kind} grid; a site model needs latitudes and longitudes of its own axes"
        )
    lat, lon = (np.asarray(a[: len(a) // k * k]).reshape(-1, k).mean(1) for a in (grid.lat, grid.lon))
    site = Site(
        lat=lat.round(6).tolist(), lon=lon.round(6).tolist(), radius=config.radius, cross=config.cross,
        cycle=config.cycle, rank=config.rank, transformed=config.transformed, squares=config.squares, varying=config.varying,
    )  # fmt: skip
    plain = {
        "variables": list(names), "factor": k, "network": config.network.model_dump(), "site": site.model_dump(),
    }  # fmt: skip
    unit_scales = {"centre": [0.0] * len(names), "scale": [1.0] * len(names), "spread": [1.0] * len(names)}
    first = build({"domain": "climate", **plain, **unit_scales})
    domain, net = first.domain, network_of(first)
    seasons = seasons_of(region.fields)
    base = cross_fitted(domain, net, fine, coarse, ground, seasons, config.folds, config.ridge, config.rounds)
    g = domain.transform(coarse)[..., ground.valid]
    error = domain.transform(fine) - domain.transform(base)
    inside = ground.area > 0
    centre, scale = g.mean((0, 2)), g.std((0, 2)).clamp_min(1e-6)
    law = None
    if config.varying:
        own = ((domain.transform(coarse) - centre[:, None, None]) / scale[:, None, None]) * ground.valid
        cycle = domain.cycle_of(seasons)
        law = fit_law(error, own, cycle, ground.valid, k, max(config.rounds, 1))
        error = error / spread_out(widths(law.float(), own, cycle), k)
    local = error.square().mean(0).sqrt() * inside
    spread = local[:, inside].mean(1)
    local = torch.where(inside, local.clamp_min(0.15 * spread[:, None, None]), spread[:, None, None])
    figures = {
        "centre": centre.tolist(), "scale": scale.tolist(), "spread": spread.clamp_min(1e-6).tolist(),
    }  # fmt: skip
    with fresh_weights(seed):
        model = build({"domain": "climate", **plain, **figures})
    new = network_of(model)
    assert new.mean is not None and net.mean is not None
    new.mean.load_state_dict(net.mean.state_dict())
    new.spread.copy_(local.clamp_min(1e-6))
    new.ground.copy_(torch.stack([ground.height, ground.land, inside.float()]))
    if new.law is not None and law is not None:
        new.law.copy_(law)
    unit = (fine - base).abs()[..., inside].mean((0, 2)).clamp_min(1e-9)
    unit = unit / torch.tensor([config.emphasis.get(n, 1.0) for n in names])
    ready = RegionData(model.domain, new, fine, coarse, base, seasons, ground, unit, config.crop)
    return model, ready


def site_card(region: Region, config: TrainConfig) -> dict[str, Any]:
    fields = region.fields
    return {
        "domain": "climate", "data": region.name, "licence": region.licence, "variables": list(fields.names),
        "attribution": fields.attributes.get("attribution", ""), "period": [fields.times[0], fields.times[-1]],
        "times": len(fields.times), "factor": config.factor, "version": __version__,
        "held_out": f"the last {config.hold:.0%} of each of {config.stretches} stretches of the training times",
    }  # fmt: skip


def region_model(names: Sequence[str], config: TrainConfig, seed: int = 0) -> tuple[FlowMap, Regions, list[RegionData]]:
    """A fresh model for any region, the regions to train it on, and whole regions it is chosen and calibrated on."""
    variables = config.variables or list(ANYWHERE)
    parts = [read_region(n) for n in names]
    kept = [p for p in parts if set(p.fields.names) & set(variables)]
    network = config.network.model_copy(update={"embedding": 0})
    plain = {"variables": variables, "factor": config.factor, "network": network.model_dump()}
    ones = {"centre": [0.0] * len(variables), "scale": [1.0] * len(variables), "spread": [1.0] * len(variables)}
    first = build({"domain": "climate", **plain, **ones})
    found = [statistics(first.domain, network_of(first), p, fitting_factor(p, config.factor)) for p in kept]
    known = torch.stack([f["present"] for f in found])
    count = known.sum(0).clamp_min(1)
    centre, square, spread = (
        (torch.stack([f[key] for f in found]) * known).sum(0) / count for key in ("centre", "square", "spread")
    )
    figures = {
        "centre": centre.tolist(), "scale": (square - centre.square()).clamp_min(1e-6).sqrt().tolist(),
        "spread": spread.clamp_min(1e-3).tolist(),
    }  # fmt: skip
    with fresh_weights(seed):
        model = build({"domain": "climate", **plain, **figures})
    own = network_of(model)
    chosen = [k for k, p in enumerate(kept) if p.name in config.choose]
    train_on = [k for k in range(len(kept)) if k not in chosen]
    if not chosen or not train_on:
        raise UserError(f"{', '.join(names)}: expected regions to train on, and one or more of them in choose=[...]")
    late = [whole_region(model.domain, own, kept[k], config.factor, found[k]["unit"]) for k in chosen]
    model.card = {
        "domain": "climate", "data": [kept[k].name for k in train_on], "chosen_on": list(config.choose),
        "licence": sorted({kept[k].licence for k in train_on}), "variables": variables, "version": __version__,
        "attribution": sorted({kept[k].fields.attributes.get("attribution", "") for k in train_on} - {""}),
    }  # fmt: skip
    ready = Regions(model.domain, own, [kept[k] for k in train_on], [found[k]["unit"] for k in train_on])
    return model, ready, late


def fitting_factor(region: Region, factor: int) -> int:
    """The factor, or the largest below it that leaves a region four coarse cells a side."""
    return max(2, min(factor, min(region.fields.grid.shape) // 4))


# --- phases


def phases(
    model: FlowMap, data: Data, late: Sequence[RegionData], out: Path, config: TrainConfig, until: Until,
    site: RegionData | None = None, step: float | None = None,
) -> FitResult:  # fmt: skip
    """Flow matching, flow map, CRPS; then the noise's temperature, all chosen on `late`; and its memory, on `site`,
    all times of a domain, `step` seconds apart."""
    out.mkdir(exist_ok=True)
    fm, few = RECIPES["fm"], replace(RECIPES["lsd_fd"], weight="unit")
    score = crps_loss(config.members, config.pooled, config.sharp)
    plan: list[tuple[str, Recipe, dict[str, Any]]] = [
        ("1-flow", fm, {}), ("2-map", few, {}), ("3-crps", replace(fm, name="crps"), {"loss": score}),
    ]  # fmt: skip
    card, result = dict(model.card), None
    for (name, recipe, extra), share in zip(plan, config.shares):
        if share == 0:
            continue
        folder = out / name
        if (folder / "done.json").is_file() and until.resume:
            model.load_state_dict(read_checkpoint(folder / "model.safetensors").weights)
            continue
        part = replace(
            until, minutes=None if until.minutes is None else until.minutes * share,
            steps=None if until.steps is None else max(1, round(until.steps * share)),
        )  # fmt: skip
        settings = config if name == "1-flow" else config.model_copy(update={"lr": config.crps_lr})
        best = Best(late)
        result = run(model, recipe, data, folder, settings, part, validate=best, validate_every=100, **extra)
        if name == "3-crps" and best.weights is not None:
            model.load_state_dict(best.weights)
        save_model(folder / "model.safetensors", model)
        (folder / "done.json").write_text(json.dumps({"steps": result.steps, "seconds": result.seconds}))
    model.eval()
    model.config["temperature"] = model.domain.config.temperature = calibrated(model, late)
    if site is not None:
        set_memory(model, site, step)
    tuned = list(STEPS) if config.shares[2] else []
    model.card = {**card, "name": out.resolve().name, "steps_tuned_for": tuned, "flow_map": not tuned}
    save_model(out / "model.safetensors", model)
    if result is None:
        done = json.loads((out / "3-crps" / "done.json").read_text())
        result = FitResult(done["steps"], done["seconds"], 0, float("nan"))
    return result


def distill(*_: Any, **__: Any) -> FitResult:
    """A climate run has its flow map and its few steps in it: there is nothing left to distil. Raises UserError."""
    raise UserError(
        "climate models learn to take few steps while they are trained: use train climate, with --init MODEL"
    )
