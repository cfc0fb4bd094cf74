"""Tuning of a climate model: the fair CRPS of few-step ensembles, and what is chosen on times held out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from sciconsist.domains.climate.scores import fair_crps, field_score, weighted
from sciconsist.flowmap import FlowMap
from sciconsist.losses import LossParts
from sciconsist.random import stream
from sciconsist.recipes import Recipe
from sciconsist.workflows.climate_data import RegionData

STEPS = (1, 2, 4)  # network evaluations that a model is tuned for
SHARES = (0.4, 0.45, 0.15)  # of the batches
TEMPERATURES = (0.8, 0.9, 1.0, 1.1, 1.2, 1.35, 1.5)
NEAR = 0.003


def crps_loss(members: int, pooled: float, sharp: float) -> Callable[..., LossParts]:
    """The fair CRPS of a few members after 1, 2 or 4 steps, as the loss of `fit`."""

    def loss(
        model: FlowMap, recipe: Recipe, x0: Tensor, noise: Tensor, *, generator: torch.Generator, condition: Any,
        mask: Any = None, **_: Any,
    ) -> LossParts:  # fmt: skip
        M = members
        steps = STEPS[int(torch.multinomial(torch.tensor(SHARES), 1, generator=generator))]
        more = torch.randn((M - 1, *x0.shape), generator=generator, device=x0.device).flatten(0, 1)
        x = torch.cat([noise, more]) if mask is None else torch.cat([noise, more]) * mask.repeat(M, 1, 1, 1)
        wide = repeated({k: v for k, v in condition.items() if k not in ("truth", "unit")}, M)
        x = walk(model, x, steps, wide)
        y = model.domain.fields(x, wide).reshape(M, *x0.shape)
        area = condition["area"]
        score = field_score(y, condition["truth"], area, pooled, sharp) / condition["unit"]
        known = mask.flatten(2).any(2).float() if mask is not None else torch.ones_like(score)
        per_sample = (score * known).sum(1) / known.sum(1).clamp_min(1)
        return LossParts(per_sample.mean(), per_sample, {})

    return loss


def repeated(condition: dict[str, Any], members: int) -> dict[str, Any]:
    """A condition for `members` copies of its batch, member after member."""
    return {k: v.repeat(members, *[1] * (v.dim() - 1)) if isinstance(v, Tensor) else v for k, v in condition.items()}


def walk(model: FlowMap, x: Tensor, steps: int, condition: dict[str, Any]) -> Tensor:
    """Equal jumps from noise to data."""
    for s, t in pairwise(torch.linspace(1.0, 0.0, steps + 1).tolist()):
        x = model(x, s, t, condition)
    return x


class Best:
    """Fair CRPS on data held out, as `fit` wants it; keeps the weights of its best."""

    def __init__(self, late: Sequence[RegionData], times: int = 24, members: int = 6) -> None:
        self.late, self.members, self.times = late, members, times
        self.weights: dict[str, Tensor] | None = None
        self.lowest = float("inf")

    def __call__(self, model: FlowMap, step: int) -> dict[str, float]:
        relative: list[Tensor] = []
        figures: dict[str, float] = {}
        for k, part in enumerate(self.late):
            crps, ratio = late_scores(model, part, spaced(part, self.times), self.members, 2)
            relative.append(crps / part.unit)
            for name, score, spread in zip(model.domain.names, crps, ratio):
                figures |= {f"{name}_{k}": float(score), f"{name}_spread_{k}": float(spread)}
        mean = float(torch.stack(relative).nanmean())
        if mean < self.lowest:
            self.lowest, self.weights = mean, {k: v.detach().clone() for k, v in model.state_dict().items()}
        return {"late": mean, **figures}


def spaced(part: RegionData, count: int) -> Tensor:
    """Indices of up to `count` times, evenly."""
    return torch.linspace(0, len(part) - 1, min(count, len(part))).round().long()


@torch.no_grad()
def late_scores(
    model: FlowMap, late: RegionData, times: Tensor, members: int, steps: int, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Fair CRPS and spread over error of every variable, `[C]` each (NaN where the region lacks it)."""
    h, w = late.ground.valid.shape
    crps, variance, square = [], [], []
    for t in times.split(4):
        batch = late.window(t, slice(0, h), slice(0, w))
        assert isinstance(batch.x0, Tensor) and isinstance(batch.mask, Tensor)
        noise = torch.randn((members * len(t), *batch.x0.shape[1:]), generator=stream(0, "late", int(t[0])))
        wide = repeated({k: v for k, v in batch.condition.items() if k not in ("truth", "unit")}, members)
        x = walk(model, temperature * noise * batch.mask.repeat(members, 1, 1, 1), steps, wide)
        y = model.domain.fields(x, wide).reshape(members, *batch.x0.shape)
        truth, area = batch.condition["truth"], batch.condition["area"]
        crps.append(weighted(fair_crps(y, truth), area))
        variance.append(weighted(y.var(0) * (members + 1) / members, area))
        square.append(weighted((y.mean(0) - truth).square(), area))
    lacking = (
        torch.zeros(len(model.domain.names)) if late.present is None else torch.where(late.present > 0, 0.0, torch.nan)
    )
    ratio = (torch.cat(variance).mean(0) / torch.cat(square).mean(0)).sqrt()
    return torch.cat(crps).mean(0) + lacking, ratio + lacking


def calibrated(model: FlowMap, late: Sequence[RegionData], times: int = 48, members: int = 8) -> list[float]:
    """The factor on each variable's noise, from data held out; 1 where none has the variable.

    Of the factors whose fair CRPS is within `NEAR` of the least, that with the spread nearest to the error.
    """
    crps, ratio = [], []
    for temperature in TEMPERATURES:
        found = [late_scores(model, part, spaced(part, times), members, 2, temperature) for part in late]
        crps.append(torch.stack([c / part.unit for (c, _), part in zip(found, late)]).nanmean(0))
        ratio.append(torch.stack([r for _, r in found]).nanmean(0))
    score, off = torch.stack(crps), torch.stack(ratio).log().abs()
    lacking = score.isnan()
    close = torch.where(lacking, torch.inf, score) <= (1 + NEAR) * torch.where(lacking, torch.inf, score).amin(0)
    best = torch.where(close & ~lacking, off, torch.inf).argmin(0)
    return [1.0 if bool(lacking[0, c]) else TEMPERATURES[int(i)] for c, i in enumerate(best)]
