"""Training on many regions at once, for a model that works on any: random regions, windows and factors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sciconsist.domain import Batch
from sciconsist.domains.climate.adapter import ClimateDomain, ClimateNetwork
from sciconsist.domains.climate.conserve import block_mean
from sciconsist.domains.climate.grids import area_weights
from sciconsist.domains.climate.statics import terrain
from sciconsist.workflows.climate_data import Region, RegionData, coarsened, make_batch, seasons_of

CELLS = 16_000  # fine cells in a batch
WINDOW = (5, 10)  # coarse cells a side, least and most


@dataclass
class Regions:
    """Regions with fields of `names` (0 where a region lacks a variable): a batch is one region at one factor.

    The coarse field is made from a window at a random place, so blocks begin anywhere. One batch in four hides
    some of the variables.
    """

    domain: ClimateDomain
    net: ClimateNetwork
    regions: Sequence[Region]
    units: Sequence[Tensor]  # of each region, as in RegionData
    factors: tuple[int, ...] = (2, 3, 4, 4, 4, 5, 6, 8)

    def __post_init__(self) -> None:
        self.values, self.present = zip(*(spread_over(r, self.domain.names) for r in self.regions))
        self.areas = [area_weights(r.fields.grid, r.fields.mask) for r in self.regions]

    def __len__(self) -> int:
        return max(4096, sum(len(v) for v in self.values))

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        number = draw(len(self.regions), generator)
        region, count = self.regions[number], len(self.values[number])
        H, W = region.fields.grid.shape
        fitting = [k for k in self.factors if min(H, W) >= k * WINDOW[0]] or [2]
        k = fitting[draw(len(fitting), generator)]
        high, wide = (min(n // k, WINDOW[0] + draw(WINDOW[1] - WINDOW[0] + 1, generator)) for n in (H, W))
        size = max(4, min(len(indices), CELLS // (high * wide * k * k)))
        present = self.present[number].clone()
        if draw(4, generator) == 0:
            shown = present * (torch.rand(len(present), generator=generator) < 0.5)
            present = shown if bool(shown.any()) else present
        if count < size:  # few times: as many places instead
            parts = [self.window(number, k, (high, wide), count, present, generator) for _ in range(size // count)]
            return self.domain.collate(parts)
        return self.window(number, k, (high, wide), size, present, generator)

    def window(
        self, number: int, k: int, shape: tuple[int, int], count: int, present: Tensor, generator: torch.Generator
    ) -> Batch:
        """Some times of a block of `shape` coarse cells anywhere in a region, but not where all is missing."""
        area, fine = self.areas[number], self.values[number]
        H, W = area.shape
        while True:
            i, j = draw(H - shape[0] * k + 1, generator), draw(W - shape[1] * k + 1, generator)
            box = (slice(i, i + shape[0] * k), slice(j, j + shape[1] * k))
            if area[box].any():
                break
        times = torch.randint(len(fine), (count,), generator=generator)
        region, unit = self.regions[number], self.units[number]
        return lattice_batch(self.domain, self.net, region, fine[times], area, box, k, present, unit)


def draw(high: int, generator: torch.Generator) -> int:
    return int(torch.randint(high, (1,), generator=generator))


def lattice_batch(
    domain: ClimateDomain, net: ClimateNetwork, region: Region, fine: Tensor, area: np.ndarray,
    box: tuple[slice, slice], factor: int, present: Tensor, unit: Tensor
) -> Batch:  # fmt: skip
    """A window of some times `[B, C, H, W]`, made coarse by `factor`."""
    cell = region.fields.grid.cell[0] * factor
    ground = terrain(region.ground.orography[box], region.ground.land_sea_mask[box], area[box], factor, cell)
    truth = fine[..., box[0], box[1]]
    coarse = block_mean(truth.double(), ground.area[None, None].double(), factor).float()
    known = present.expand(len(truth), -1)
    seasons = torch.zeros(len(truth), 4)
    base = domain.base(net, coarse, ground, seasons) * known[:, :, None, None]
    return make_batch(domain, net, truth, coarse, base, ground, seasons, known, unit)


def spread_over(region: Region, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Values `[T, C, H, W]` of the model's variables, and which of them the region has `[C]`."""
    fields = region.fields
    values = torch.zeros(len(fields.times), len(names), *fields.grid.shape)
    present = torch.zeros(len(names))
    for c, name in enumerate(names):
        if name in fields.names:
            values[:, c] = torch.as_tensor(fields.values[:, fields.names.index(name)])
            present[c] = 1
    return values, present


def whole_region(domain: ClimateDomain, net: ClimateNetwork, region: Region, factor: int, unit: Tensor) -> RegionData:
    """All of a region at one factor, to choose and calibrate on."""
    _, _, ground = coarsened(region, factor)
    values, present = spread_over(region, domain.names)
    h, w = ground.valid.shape
    values = values[..., : h * factor, : w * factor]
    coarse = block_mean(values.double(), ground.area[None, None].double(), factor).float()
    seasons = seasons_of(region.fields)
    base = domain.base(net, coarse, ground, seasons) * present[:, None, None]
    return RegionData(domain, net, values, coarse, base, seasons, ground, unit, 10**6, present)


def statistics(domain: ClimateDomain, net: ClimateNetwork, region: Region, factor: int = 4) -> dict[str, Tensor]:
    """Of every variable `[C]`: mean and deviation of the coarse fields, of the residual, and mean |truth - mean|."""
    data = whole_region(domain, net, region, factor, torch.ones(len(domain.names)))
    inside, valid = data.ground.area > 0, data.ground.valid
    g = domain.transform(data.coarse)[..., valid]
    error = (domain.transform(data.fine) - domain.transform(data.base))[..., inside]
    assert data.present is not None
    return {
        "centre": g.mean((0, 2)), "square": g.square().mean((0, 2)), "spread": error.square().mean((0, 2)).sqrt(),
        "unit": (data.fine - data.base).abs()[..., inside].mean((0, 2)).clamp_min(1e-6), "present": data.present,
    }  # fmt: skip
