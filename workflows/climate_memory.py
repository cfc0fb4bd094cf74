"""How long the noise of a site model remembers: members should move in time as the truth's detail does."""

from __future__ import annotations

import torch
from torch import Tensor

from sciconsist.domains.climate.noise import likeness, memory_of
from sciconsist.domains.climate.times import is_monthly
from sciconsist.flowmap import FlowMap
from sciconsist.random import stream
from sciconsist.workflows.climate_data import RegionData
from sciconsist.workflows.climate_tuning import repeated, walk

TIMES, MEMBERS, PROBE = 48, 2, 4.0  # consecutive times and members to measure with, and a memory to try


def set_memory(model: FlowMap, site: RegionData, step: float | None) -> None:
    """Fits `memory` of the model's config to the times of `site`, `step` seconds apart.

    The correlation of the members' detail with that one step later is nearly linear in that of the noise: it is
    measured without a memory and with one, and solved for the truth's. Months, which differ in length, get none.
    """
    config = model.domain.config
    config.memory, config.slot = [], step if step and not is_monthly(step) else config.slot
    if step is not None and not is_monthly(step) and len(site) > TIMES:
        truth = lag1(standardised(model, site), site.ground.area)
        some = torch.arange(len(site) - TIMES, len(site))
        low, high = (lag1_of_members(model, site, some, memory) for memory in (0.0, PROBE))
        wanted = (truth - low) / (high - low).clamp_min(1e-3) * likeness(PROBE)
        config.memory = [memory_of(float(w)) for w in wanted.clamp(0, 0.97)]
    model.config |= {"memory": list(config.memory), "slot": config.slot}


def standardised(model: FlowMap, site: RegionData) -> Tensor:
    """Detail of the truth, `[T, C, H, W]`, in its standard deviations."""
    height, width = site.ground.valid.shape
    batches = (site.window(t, slice(0, height), slice(0, width)) for t in torch.arange(len(site)).split(64))
    return torch.cat([model.domain.residual(batch.condition["truth"], batch.condition) for batch in batches])


def lag1(detail: Tensor, area: Tensor) -> Tensor:
    """Area mean of the correlation of every cell with itself one step later, `[C]`, of `[T, C, H, W]`."""
    detail = detail - detail.mean(0)
    found = (detail[1:] * detail[:-1]).mean(0) / detail.square().mean(0).clamp_min(1e-9)
    return (found * area).sum((-2, -1)) / area.sum()


@torch.no_grad()
def lag1_of_members(model: FlowMap, site: RegionData, times: Tensor, memory: float) -> Tensor:
    """The same of members made with noise of a memory, `[C]`."""
    h, w = site.ground.valid.shape
    noise = moving(
        torch.randn((MEMBERS, len(times) + int(memory) + 1, *site.fine.shape[1:]), generator=stream(0, "memory")),
        memory,
    )
    made = []
    for start in range(0, len(times), 4):
        part = slice(start, min(start + 4, len(times)))
        batch = site.window(times[part], slice(0, h), slice(0, w))
        assert isinstance(batch.mask, Tensor)
        wide = repeated({k: v for k, v in batch.condition.items() if k not in ("truth", "unit")}, MEMBERS)
        x = (noise[:, part] * batch.mask).flatten(0, 1)
        y = model.domain.fields(walk(model, x, 2, wide), wide)
        made.append(model.domain.residual(y, wide).unflatten(0, (MEMBERS, -1)))
    return torch.stack([lag1(member, site.ground.area) for member in torch.cat(made, 1)]).mean(0)


def moving(white: Tensor, memory: float) -> Tensor:
    """Means of `[M, T, ...]` over the last `memory` times, of variance 1: `[M, T - int(memory) - 1, ...]`."""
    whole, rest = int(memory), memory - int(memory)
    weights = torch.tensor([1.0] * whole + [rest]) if memory > 1 else torch.ones(1)
    weights = weights / weights.norm()
    length = white.shape[1] - int(memory) - 1
    return torch.stack([w * white[:, k : k + length] for k, w in enumerate(weights)]).sum(0)
