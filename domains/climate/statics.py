"""What the ground tells the network: height, slope and coast; never latitude or longitude themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sciconsist.domains.climate.conserve import block_mean
from sciconsist.domains.climate.network import edged, upsample

COARSE_FEATURES = 4  # height, roughness, land, size of the cell
FINE_FEATURES = 4  # height above the coarse ground, slope southward and eastward, land
CALENDAR = 4  # sine and cosine of the day of the year and of the hour of the day


@dataclass(frozen=True)
class Terrain:
    """The ground below a lattice of h x w coarse cells, each of `factor` x `factor` fine ones.

    `height` (m), `land` (share) and `area` (relative, 0 where a cell is missing) are `[H, W]`; `coarse_height`,
    `coarse_land` and `valid` (a coarse cell has a value) `[h, w]`; `size` is the coarse cell's in degrees.
    """

    height: Tensor
    land: Tensor
    area: Tensor
    coarse_height: Tensor
    coarse_land: Tensor
    valid: Tensor
    factor: int
    size: float
    periodic: bool = False

    def crop(self, rows: slice, columns: slice) -> Terrain:
        """A block of coarse cells."""
        k = self.factor
        box = (slice(rows.start * k, rows.stop * k), slice(columns.start * k, columns.stop * k))
        return Terrain(
            self.height[box], self.land[box], self.area[box], self.coarse_height[rows, columns],
            self.coarse_land[rows, columns], self.valid[rows, columns], k, self.size,
        )  # fmt: skip


def terrain(
    height: np.ndarray, land: np.ndarray, area: np.ndarray, factor: int, size: float, periodic: bool = False,
    coarse_height: np.ndarray | None = None, coarse_land: np.ndarray | None = None, valid: np.ndarray | None = None,
) -> Terrain:  # fmt: skip
    """From fine arrays; the coarse ground is their area mean where none is given."""
    z, m, a = (torch.as_tensor(np.asarray(v, np.float32)) for v in (height, land, area))
    whole = block_mean(torch.stack([z, m])[None], a[None, None], factor)[0]
    zc = whole[0] if coarse_height is None else torch.as_tensor(np.asarray(coarse_height, np.float32))
    mc = whole[1] if coarse_land is None else torch.as_tensor(np.asarray(coarse_land, np.float32))
    seen = functional.avg_pool2d(a[None, None], factor)[0, 0] > 0
    if valid is not None:
        seen = seen & torch.as_tensor(valid)
    return Terrain(z, m, a, zc, mc, seen, factor, size, periodic)


def coarse_features(ground: Terrain) -> Tensor:
    """`[4, h, w]`."""
    k = ground.factor
    z = ground.height[None, None]
    rough = (functional.avg_pool2d(z * z, k) - functional.avg_pool2d(z, k).square())[0, 0].clamp_min(0).sqrt()
    size = torch.full_like(ground.coarse_height, np.log2(max(ground.size, 1e-6)) / 3)
    return torch.stack([ground.coarse_height / 1000, torch.log1p(rough / 100) / 2, ground.coarse_land, size])


def fine_features(ground: Terrain) -> Tensor:
    """`[4, H, W]`."""
    z = ground.height[None, None]
    above = z - upsample(ground.coarse_height[None, None], ground.factor, ground.periodic)
    wide = edged(z, ground.periodic)
    south = (wide[..., 2:, 1:-1] - wide[..., :-2, 1:-1]) / 2
    east = (wide[..., 1:-1, 2:] - wide[..., 1:-1, :-2]) / 2
    return torch.cat([above / 300, south / 200, east / 200, ground.land[None, None]], 1)[0]


def calendar(times: tuple[str, ...] | list[str]) -> np.ndarray:
    """Season and hour of ISO 8601 stamps of any calendar: `[T, 4]` float32."""
    out = np.zeros((len(times), CALENDAR), np.float32)
    for i, stamp in enumerate(times):
        month, day = int(stamp[-14:-12]), int(stamp[-11:-9])
        hour = int(stamp[-8:-6]) + int(stamp[-5:-3]) / 60
        year = 2 * np.pi * ((month - 1) + (day - 1) / 31) / 12
        turn = 2 * np.pi * hour / 24
        out[i] = np.sin(year), np.cos(year), np.sin(turn), np.cos(turn)
    return out


WAVES = 4


def harmonics(calendar: Tensor, cycle: str) -> Tensor:
    """Sine and cosine of once and twice the `cycle`, "year" or "day", of a `calendar` `[B, 4]`: `[B, 4]`."""
    sine, cosine = (calendar[:, :2] if cycle == "year" else calendar[:, 2:]).unbind(1)
    return torch.stack([sine, cosine, 2 * sine * cosine, cosine.square() - sine.square()], 1)
