"""What climate training sees: named regions or a user's own files, made coarse; batches with their conditions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sciconsist.datasets import registry
from sciconsist.domain import Batch
from sciconsist.domains.climate.adapter import ClimateDomain, ClimateNetwork
from sciconsist.domains.climate.conserve import block_mean
from sciconsist.domains.climate.fields import NON_NEGATIVE, Fields, Statics
from sciconsist.domains.climate.files import Source, open_source
from sciconsist.domains.climate.grids import area_weights
from sciconsist.domains.climate.means import folds
from sciconsist.domains.climate.orography import read_statics, shipped, statics_on
from sciconsist.domains.climate.statics import Terrain, calendar, harmonics, terrain
from sciconsist.errors import UserError

# rows and columns that the measurements of a named region are made on, north first
CROPS = {
    "era5-andes": (slice(0, 88), slice(0, 80)),
    "era5land-kerala": (slice(0, 40), slice(4, 28)),
    "era5-uk": (slice(0, 32), slice(0, 48)),
    "arpege-nw": (slice(20, 58), slice(0, 80)),  # south of 50 N, where the United Kingdom's region begins
}
LEFT_OUT = {"era-interim": ("tp",)}  # accumulated since a forecast began that the file does not name


@dataclass(frozen=True)
class Region:
    """Fine fields `[T, C, H, W]` (0 where missing) with the ground below them."""

    name: str
    fields: Fields
    ground: Statics
    licence: str = ""


def read_region(data: str | Path, split: str = "train", variables: Sequence[str] | None = None) -> Region:
    """A split of a named region, or all of a file, folder or pattern. Raises UserError.

    The ground is that of the file where it has one, else the shipped orography.
    """
    name = str(data)
    loaded: object
    if name in registry.DATASETS:
        entry = registry.entry(name)
        licence, loaded = entry.licence, registry.load(name, split if split in entry.files else "all")
    else:
        licence, loaded = "", open_source(data, variables)
    assert isinstance(loaded, Source)
    source = loaded
    if variables is None:
        variables = [n for n in source.names if n not in LEFT_OUT.get(name, ())]
    fields = source.read(names=variables)
    if name in CROPS:
        fields = fields.crop(*CROPS[name])
    values = np.where(fields.mask, fields.values, 0.0)
    for c, variable in enumerate(fields.names):
        if variable in NON_NEGATIVE:
            values[:, c] = np.maximum(values[:, c], 0)
    label = name if name in registry.DATASETS else Path(name).name
    return Region(label, replace(fields, values=values), ground_of(fields, source, name), licence)


def ground_of(fields: Fields, source: Source, name: str) -> Statics:
    """Height and land on the fields' grid: that of the registry, or the file's own, else the shipped one."""
    entry = registry.DATASETS.get(name)
    if entry is not None and "ground" in entry.files:
        return statics_on(fields.grid, read_statics(registry.find(name, "ground")[0]))
    try:
        return statics_on(fields.grid, read_statics(source.dataset))
    except UserError:
        return statics_on(fields.grid, shipped())


# --- a fixed domain


@dataclass
class RegionData:
    """Times of one region: fine truth, coarse input, closed-form mean. `batch` cuts a window of coarse cells."""

    domain: ClimateDomain
    net: ClimateNetwork
    fine: Tensor
    coarse: Tensor
    base: Tensor
    seasons: Tensor
    ground: Terrain
    unit: Tensor  # mean |truth - base| of each variable: what one unit of the score is
    crop: int = 12  # coarse cells a side
    present: Tensor | None = None  # 1 for variables that the region has; all when None

    def __len__(self) -> int:
        return len(self.fine)

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        h, w = self.ground.valid.shape
        high, wide = min(self.crop, h), min(self.crop, w)
        i = int(torch.randint(h - high + 1, (1,), generator=generator))
        j = int(torch.randint(w - wide + 1, (1,), generator=generator))
        return self.window(indices, slice(i, i + high), slice(j, j + wide))

    def window(self, indices: Tensor, rows: slice, columns: slice) -> Batch:
        """Some times of a block of coarse cells."""
        k = self.ground.factor
        fine = (slice(rows.start * k, rows.stop * k), slice(columns.start * k, columns.stop * k))
        ground = self.ground.crop(rows, columns)
        truth, base = self.fine[indices][..., fine[0], fine[1]], self.base[indices][..., fine[0], fine[1]]
        coarse = self.coarse[indices][..., rows, columns]
        known = torch.ones(truth.shape[1]) if self.present is None else self.present
        present = known.expand(len(indices), -1)
        return make_batch(
            self.domain, self.net, truth, coarse, base, ground, self.seasons[indices], present, self.unit,
            (rows.start, columns.start),
        )  # fmt: skip

    def part(self, indices: np.ndarray) -> RegionData:
        """Some of the times."""
        index = torch.as_tensor(indices)
        picked = (self.fine[index], self.coarse[index], self.base[index], self.seasons[index])
        return RegionData(self.domain, self.net, *picked, self.ground, self.unit, self.crop, self.present)


def make_batch(
    domain: ClimateDomain, net: ClimateNetwork, truth: Tensor, coarse: Tensor, base: Tensor, ground: Terrain,
    seasons: Tensor, present: Tensor, unit: Tensor, origin: tuple[int, int] = (0, 0),
) -> Batch:  # fmt: skip
    """Residuals, conditions and mask of fine fields; the condition also has the truth, for scores in its units."""
    condition = domain.condition(coarse, base, ground, seasons, present, net, origin)
    inside = (ground.area > 0)[None, None] & (present > 0)[:, :, None, None]
    x0 = torch.where(inside, domain.residual(truth, condition), torch.zeros_like(truth))
    condition |= {"truth": truth, "unit": unit.expand(len(truth), -1)}
    return Batch(x0, condition=condition, mask=inside)


def coarsened(region: Region, factor: int) -> tuple[Tensor, Tensor, Terrain]:
    """Fine and coarse fields as tensors, and the ground. Raises UserError where the blocks do not fit."""
    H, W = region.fields.grid.shape
    high, wide = H // factor * factor, W // factor * factor
    if min(high, wide) < 2 * factor:
        raise UserError(f"{region.name}: {H} x {W} cells are too few for blocks of {factor} x {factor}; lower factor")
    fields = region.fields.crop(slice(0, high), slice(0, wide))
    ground = region.ground.crop(slice(0, high), slice(0, wide))
    area = area_weights(fields.grid, fields.mask)
    grid = fields.grid
    land = terrain(ground.orography, ground.land_sea_mask, area, factor, grid.cell[0] * factor, grid.periodic)
    fine = torch.as_tensor(fields.values, dtype=torch.float64)
    coarse = block_mean(fine, land.area[None, None].double(), factor)
    return fine.float(), coarse.float(), land


def cross_fitted(
    domain: ClimateDomain, net: ClimateNetwork, fine: Tensor, coarse: Tensor, ground: Terrain, seasons: Tensor,
    number: int, ridge: float, rounds: int,
) -> Tensor:  # fmt: skip
    """Closed-form means of every time, each by a fit that has not seen the stretch of times it lies in.

    A ridge's residuals on its own training times are too small, and an ensemble trained on them too narrow. At the
    end `net.mean` is fitted to all times.
    """
    base = torch.empty_like(fine)
    for part in folds(len(fine), number):
        rest = np.setdiff1d(np.arange(len(fine)), part)
        fit(domain, net, coarse[rest], fine[rest], ground, seasons[rest], ridge, rounds)
        base[part] = domain.base(net, coarse[part], ground, seasons[part])
    fit(domain, net, coarse, fine, ground, seasons, ridge, rounds)
    return base


def fit(
    domain: ClimateDomain, net: ClimateNetwork, coarse: Tensor, fine: Tensor, ground: Terrain, seasons: Tensor,
    ridge: float, rounds: int,
) -> None:  # fmt: skip
    """The closed-form mean of a site model, by all these times."""
    site = domain.config.site
    assert net.mean is not None and site is not None
    if site.transformed:
        coarse, fine = domain.transform(coarse), domain.transform(fine)
    waves = None if site.cycle is None else harmonics(seasons, site.cycle)
    net.mean.fit(coarse, fine, ground.valid, ridge, waves, rounds)


def held_out(count: int, share: float, stretches: int) -> tuple[np.ndarray, np.ndarray]:
    """Times to train on and times to choose on: the last `share` of each of some stretches of the whole."""
    late = np.concatenate(
        [
            part[len(part) - max(1, round(share * len(part))) :]
            for part in np.array_split(np.arange(count), min(stretches, count))
        ]
    )
    return np.setdiff1d(np.arange(count), late), late


def seasons_of(fields: Fields) -> Tensor:
    return torch.as_tensor(calendar(fields.times))
