"""Training climate models: closed-form mean, flow matching, flow map, fair-CRPS tuning, calibration, in one run.

The run's folder has a folder for each phase (1-flow, 2-map, 3-crps) and, at the end, model.safetensors.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from sciconsist import __version__
from sciconsist.checkpoint import read_checkpoint, save_model
from sciconsist.domain import Data
from sciconsist.domains.climate.adapter import ClimateConfig, ClimateDomain, ClimateNetwork, Site
from sciconsist.domains.climate.fields import NON_NEGATIVE
from sciconsist.domains.climate.network import NetworkConfig
from sciconsist.domains.climate.scores import fair_crps, field_score, weighted
from sciconsist.errors import UserError
from sciconsist.flowmap import FlowMap
from sciconsist.losses import LossParts
from sciconsist.random import stream
from sciconsist.recipes import RECIPES, Recipe
from sciconsist.state import map_fields
from sciconsist.times import TimeSampler
from sciconsist.training import FitResult
from sciconsist.workflows.climate_data import Region, SiteData, coarsened, cross_fitted, held_out, read_region, seasons_of
from sciconsist.workflows.models import build, load
from sciconsist.workflows.runs import RunConfig, Until, run

STEPS = (1, 2, 4)  # network evaluations that a model is tuned for


class TrainConfig(RunConfig):
    """What `--config FILE.toml` and `--set key=value` may say."""

    network: NetworkConfig = NetworkConfig(embedding=8)
    variables: list[str] = []  # all of the data
    factor: int = Field(4, ge=2, le=8)
    radius: int = Field(2, ge=0)
    cross: bool = True
    ridge: float = Field(1.0, gt=0)
    folds: int = Field(6, ge=2)  # stretches of times for cross-fitted residuals
    hold: float = Field(0.1, gt=0, lt=0.5)  # share of the times to choose and calibrate on, never trained on ...
    stretches: int = Field(5, gt=0)  # ... the ends of so many stretches
    crop: int = Field(10, gt=1)  # coarse cells a side of a training window
    shares: tuple[float, float, float] = (0.25, 0.1, 0.65)  # of the time: flow matching, flow map, CRPS
    members: int = Field(2, ge=2)
    pooled: float = Field(0.5, ge=0)  # weights of the score of means and of differences
    sharp: float = Field(0.3, ge=0)
    crps_lr: float = Field(8e-4, gt=0)
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
    """A site model of one domain: `data` is a named region or the user's own fine fields.

    With `init` the flow-matching phase starts from that model's weights. Raises UserError.
    """
    config = config or TrainConfig()
    if not isinstance(data, str):
        raise UserError("a site model is trained on one domain; give one data set or file")
    region = read_region(data, variables=config.variables or None)
    model, site = site_model(region, config)
    if init is not None:
        model.load_state_dict(load(init).state_dict())
    model.card = site_card(region, config)
    chosen, late = held_out(len(site), config.hold, config.stretches)
    return phases(model, site.part(chosen), site.part(late), Path(out), config, until)


def site_model(region: Region, config: TrainConfig) -> tuple[FlowMap, SiteData]:
    """A fresh model of a domain with its closed-form mean fitted, and the data to train it on."""
    fine, coarse, ground = coarsened(region, config.factor)
    names, k = region.fields.names, config.factor
    if len(fine) < 10 * config.folds:
        raise UserError(f"{region.name}: {len(fine)} times; expected at least {10 * config.folds} to train on")
    grid = region.fields.grid
    if grid.kind != "rectilinear":
        raise UserError(f"{region.name}: a {grid.kind} grid; a site model needs latitudes and longitudes of its own axes")
    lat, lon = (np.asarray(a[: len(a) // k * k]).reshape(-1, k).mean(1) for a in (grid.lat, grid.lon))
    plain = {
        "variables": list(names), "factor": k, "network": config.network.model_dump(),
        "site": Site(lat=lat.round(6).tolist(), lon=lon.round(6).tolist(), radius=config.radius, cross=config.cross).model_dump(),
    }  # fmt: skip
    unit_scales = {"centre": [0.0] * len(names), "scale": [1.0] * len(names), "spread": [1.0] * len(names)}
    first = build({"domain": "climate", **plain, **unit_scales})
    domain, net = first.domain, first.net
    base = cross_fitted(domain, net, fine, coarse, ground, config.folds, config.ridge)
    g = domain.transform(coarse)[..., ground.valid]
    error = domain.transform(fine) - domain.transform(base)
    inside = ground.area > 0
    local = error.square().mean(0).sqrt() * inside
    spread = local[:, inside].mean(1)
    local = torch.where(inside, local.clamp_min(0.15 * spread[:, None, None]), spread[:, None, None])
    figures = {
        "centre": g.mean((0, 2)).tolist(), "scale": g.std((0, 2)).clamp_min(1e-6).tolist(),
        "spread": spread.clamp_min(1e-6).tolist(),
    }  # fmt: skip
    model = build({"domain": "climate", **plain, **figures})
    model.net.mean.load_state_dict(net.mean.state_dict())
    model.net.spread.copy_(local.clamp_min(1e-6))
    model.net.ground.copy_(torch.stack([ground.height, ground.land, inside.float()]))
    unit = (fine - base).abs()[..., inside].mean((0, 2)).clamp_min(1e-9)
    ready = SiteData(model.domain, model.net, fine, coarse, base, seasons_of(region.fields), ground, unit, config.crop)
    return model, ready


def site_card(region: Region, config: TrainConfig) -> dict[str, Any]:
    fields = region.fields
    return {
        "domain": "climate", "data": region.name, "licence": region.licence, "variables": list(fields.names),
        "attribution": fields.attributes.get("attribution", ""), "period": [fields.times[0], fields.times[-1]],
        "times": len(fields.times), "factor": config.factor, "version": __version__,
        "held_out": f"the last {config.hold:.0%} of each of {config.stretches} stretches of the training times",
    }  # fmt: skip


# --- phases


def phases(model: FlowMap, data: Data, late: SiteData, out: Path, config: TrainConfig, until: Until) -> FitResult:
    """Flow matching, flow map, CRPS; then the noise's temperature, all chosen on `late`."""
    out.mkdir(exist_ok=True)
    fm, few = RECIPES["fm"], replace(RECIPES["lsd_fd"], weight="unit")
    plan: list[tuple[str, Recipe, dict[str, Any]]] = [
        ("1-flow", fm, {}), ("2-map", few, {}), ("3-crps", replace(fm, name="crps"), {"loss": crps_loss(config)}),
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
    tuned = list(STEPS) if config.shares[2] else []
    model.card = {**card, "name": out.resolve().name, "steps_tuned_for": tuned, "flow_map": not tuned}
    save_model(out / "model.safetensors", model)
    if result is None:
        done = json.loads((out / "3-crps" / "done.json").read_text())
        result = FitResult(done["steps"], done["seconds"], 0, float("nan"))
    return result


def crps_loss(config: TrainConfig) -> Callable[..., LossParts]:
    """The fair CRPS of a few members after 1, 2 or 4 steps, as the loss of `fit`."""

    def loss(
        model: FlowMap, recipe: Recipe, x0: Tensor, noise: Tensor, *, generator: torch.Generator, condition: Any,
        mask: Any = None, **_: Any,
    ) -> LossParts:  # fmt: skip
        M, B = config.members, len(x0)
        steps = STEPS[int(torch.multinomial(torch.tensor([0.4, 0.45, 0.15]), 1, generator=generator))]
        more = model.geometry.prior(x0.repeat(M - 1, 1, 1, 1), None, generator=generator)
        x = torch.cat([noise, more]) if mask is None else torch.cat([noise, more]) * mask.repeat(M, 1, 1, 1)
        wide = repeated({k: v for k, v in condition.items() if k not in ("truth", "unit")}, M)
        x = walk(model, x, steps, wide)
        y = model.domain.fields(x, wide).reshape(M, *x0.shape)
        area = condition["area"]
        score = field_score(y, condition["truth"], area, config.pooled, config.sharp) / condition["unit"]
        known = mask.flatten(2).any(2).float() if mask is not None else torch.ones_like(score)
        per_sample = (score * known).sum(1) / known.sum(1).clamp_min(1)
        return LossParts(per_sample.mean(), per_sample, {})

    return loss


def repeated(condition: dict[str, Any], members: int) -> dict[str, Any]:
    """A condition for `members` copies of its batch, member after member."""
    return {
        k: v.repeat(members, *[1] * (v.dim() - 1)) if isinstance(v, Tensor) else v for k, v in condition.items()
    }


def walk(model: FlowMap, x: Tensor, steps: int, condition: dict[str, Any]) -> Tensor:
    """Equal jumps from noise to data."""
    for s, t in pairwise(torch.linspace(1.0, 0.0, steps + 1).tolist()):
        x = model(x, s, t, condition)
    return x


class Best:
    """Fair CRPS on times held out, as `fit` wants it; keeps the weights of its best."""

    def __init__(self, late: SiteData, times: int = 24, members: int = 6) -> None:
        self.late, self.members = late, members
        self.times = torch.linspace(0, len(late) - 1, min(times, len(late))).round().long()
        self.weights: dict[str, Tensor] | None = None
        self.lowest = float("inf")

    def __call__(self, model: FlowMap, step: int) -> dict[str, float]:
        scores = late_scores(model, self.late, self.times, self.members, 2)[0]
        mean = float((scores / self.late.unit).mean())
        if mean < self.lowest:
            self.lowest, self.weights = mean, {k: v.detach().clone() for k, v in model.state_dict().items()}
        names = model.domain.names
        return {"late": mean, **{n: float(s) for n, s in zip(names, scores)}}


@torch.no_grad()
def late_scores(
    model: FlowMap, late: SiteData, times: Tensor, members: int, steps: int, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Fair CRPS and spread over error of every variable, `[C]` each, on some times of the whole domain."""
    h, w = late.ground.valid.shape
    crps, variance, square = [], [], []
    for t in times.split(4):
        batch = late.window(t, slice(0, h), slice(0, w))
        generator = stream(0, "late", int(t[0]))
        assert isinstance(batch.x0, Tensor) and isinstance(batch.mask, Tensor)
        noise = torch.randn((members * len(t), *batch.x0.shape[1:]), generator=generator)
        wide = repeated({k: v for k, v in batch.condition.items() if k not in ("truth", "unit")}, members)
        x = walk(model, temperature * noise * batch.mask.repeat(members, 1, 1, 1), steps, wide)
        y = model.domain.fields(x, wide).reshape(members, *batch.x0.shape)
        truth, area = batch.condition["truth"], batch.condition["area"]
        crps.append(weighted(fair_crps(y, truth), area))
        variance.append(weighted(y.var(0) * (members + 1) / members, area))
        square.append(weighted((y.mean(0) - truth).square(), area))
    ratio = (torch.cat(variance).mean(0) / torch.cat(square).mean(0)).sqrt()
    return torch.cat(crps).mean(0), ratio


def calibrated(model: FlowMap, late: SiteData, times: int = 24, members: int = 8) -> list[float]:
    """The factor on each variable's noise with the least fair CRPS on times held out."""
    index = torch.linspace(0, len(late) - 1, min(times, len(late))).round().long()
    grid = (0.8, 0.9, 1.0, 1.1, 1.2, 1.35, 1.5)
    scores = torch.stack([late_scores(model, late, index, members, 2, t)[0] for t in grid])
    return [grid[i] for i in scores.argmin(0).tolist()]
