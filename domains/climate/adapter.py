"""The climate domain: a fine field is a closed-form mean, and a residual that the flow map generates.

residual x = (g(y) - g(mean)) / spread, g = log(1 + y) for precipitation and y otherwise; back again
y = mean + spread x for temperature, wind and pressure, its block means removed, and for precipitation the
shares of max(0, g^-1(g(mean) + spread x)) in the coarse cell's amount. Both are exact in their conservation,
inside training and out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import Tensor, nn

from sciconsist.domain import Batch
from sciconsist.domains.climate.conserve import shares, spread_out, zero_mean
from sciconsist.domains.climate.fields import NON_NEGATIVE, UNITS
from sciconsist.domains.climate.means import SiteMean, lapse_mean
from sciconsist.domains.climate.network import OFFSET_FEATURES, FieldNetwork, NetworkConfig, offset_features, offsets
from sciconsist.domains.climate.scores import fair_crps
from sciconsist.domains.climate.spreads import widths
from sciconsist.domains.climate.statics import (
    CALENDAR,
    COARSE_FEATURES,
    FINE_FEATURES,
    WAVES,
    Terrain,
    coarse_features,
    fine_features,
    harmonics,
)
from sciconsist.flowmap import FlowMap
from sciconsist.geometry import Euclidean
from sciconsist.paths import Linear

Condition = dict[str, Any]
LARGEST = 12.0  # of log(1 + mm/day): far above any rain


class Site(BaseModel):
    """The fixed domain of a site model: the centres of its coarse cells, in degrees, rows from north to south."""

    model_config = ConfigDict(extra="forbid")

    lat: list[float]
    lon: list[float]
    radius: int = Field(default=2, ge=0)  # of the mean's neighbourhood, coarse cells
    cross: bool = True  # the mean looks at the other variables, too
    cycle: Literal["year", "day"] | None = None  # and at the time of it
    rank: PositiveInt | list[PositiveInt] | None = None  # patterns of detail a cell (of each variable); all if None
    squares: bool = False  # of neighbours are in the mean, and the other variables' nine nearest cells
    transformed: bool = False  # the mean is of g(y)
    varying: bool = False  # the residual's spread goes with the coarse value and the cycle


class ClimateConfig(BaseModel):
    """Everything needed to rebuild the model around its weights."""

    model_config = ConfigDict(extra="forbid")

    variables: list[str]
    factor: int = Field(
        default=4, ge=2, le=8
    )  # fine cells a side in a coarse one; a model without site takes others, too
    site: Site | None = None
    network: NetworkConfig = NetworkConfig()
    centre: list[float]  # mean and standard deviation of the coarse fields after g
    scale: list[float]
    spread: list[float]  # standard deviation of the residual; of a site model relative to that of each cell
    temperature: list[float] = []  # noise is multiplied by it: calibrated on data held out; empty is 1
    memory: list[float] = []  # slots that the noise of a variable is the mean of (`noise.remembered`); empty is 0
    slot: float = Field(default=3600.0, gt=0)  # s


@dataclass
class ClimateDomain:
    """Adapter between fields and the core."""

    config: ClimateConfig

    def __post_init__(self) -> None:
        unknown = [n for n in self.config.variables if n not in UNITS]
        if unknown:
            raise ValueError(f"variable {unknown[0]!r}: expected some of {', '.join(UNITS)}")
        self.geometry = Euclidean()
        self.names = tuple(self.config.variables)
        self.positive = torch.tensor([n in NON_NEGATIVE for n in self.names])

    def model(self) -> FlowMap:
        net = ClimateNetwork(self.config)
        model = FlowMap(net, Linear(), self.geometry, "endpoint")
        model.domain, model.config = self, self.config.model_dump()
        return model

    def network(self, size: Any = None) -> nn.Module:
        return ClimateNetwork(self.config)

    def collate(self, items: Sequence[Batch]) -> Batch:
        """Batches of one lattice size into one."""
        first = items[0].condition
        joined = {
            k: torch.cat([b.condition[k] for b in items]) if isinstance(v, Tensor) else v for k, v in first.items()
        }
        masks = None if items[0].mask is None else torch.cat([b.mask for b in items])  # type: ignore[misc]
        x0 = torch.cat([b.x0 for b in items])  # type: ignore[misc]
        return Batch(x0, condition=joined, mask=masks)

    def decode(self, batch: Batch) -> list[Tensor]:
        """Residuals to fields `[C, H, W]` in their units."""
        return list(self.fields(batch.x0, batch.condition))  # type: ignore[arg-type]

    def metrics(self, samples: Sequence[Tensor | Batch], reference: Sequence[Tensor | Batch]) -> dict[str, float]:
        """Fair CRPS of the samples as one ensemble about each reference, and its spread (`metrics/` has the rest).

        Fields `[C, H, W]`, or batches of them.
        """
        ensemble, truth = (torch.cat([self._fields_of(x) for x in xs]) for xs in (samples, reference))
        scores = [fair_crps(ensemble, one) for one in truth]
        return {"fair_crps": float(torch.stack(scores).mean()), "spread": float(ensemble.std(0).mean())}

    def _fields_of(self, item: Tensor | Batch) -> Tensor:
        return item[None] if isinstance(item, Tensor) else torch.stack(self.decode(item))

    # --- what the network is told ---------------------------------------------------------------------------

    def transform(self, y: Tensor) -> Tensor:
        """g of fields `[B, C, ...]`."""
        positive = self.positive.to(y.device).view(1, -1, *[1] * (y.dim() - 2))
        return torch.where(positive, torch.log1p(y.clamp_min(0)), y)

    def back(self, g: Tensor) -> Tensor:
        """Fields of their transform."""
        positive = self.positive.to(g.device).view(1, -1, *[1] * (g.dim() - 2))
        return torch.where(positive, torch.expm1(g.clamp(0, LARGEST)), g)

    def base(
        self, net: ClimateNetwork, coarse: Tensor, ground: Terrain, season: Tensor, origin: tuple[int, int] = (0, 0)
    ) -> Tensor:
        """The closed-form mean `[B, C, H, W]`, conserving. `season` `[B, 4]` is `statics.calendar`'s."""
        site = self.config.site
        if net.mean is not None and site is not None:
            waves = None if site.cycle is None else harmonics(season, site.cycle)
            seen = self.transform(coarse) if site.transformed else coarse
            raw = net.mean(seen, ground.valid, origin, waves)
            raw = self.back(raw) if site.transformed else raw
        else:
            raw = lapse_mean(
                coarse, ground.valid, ground.coarse_height, ground.height, self.names, ground.factor, ground.periodic
            )
        return self.conserved_mean(raw, coarse, ground)

    def conserved_mean(self, raw: Tensor, coarse: Tensor, ground: Terrain) -> Tensor:
        area = ground.area[None, None].to(raw)
        coarse = torch.where(ground.valid, coarse, torch.zeros_like(coarse))
        detail = zero_mean(raw, area, ground.factor) + spread_out(coarse, ground.factor)
        rain = shares(raw.clamp_min(0), torch.zeros_like(raw), coarse, area, ground.factor)
        return torch.where(self.positive.view(1, -1, 1, 1), rain, detail)

    def condition(
        self, coarse: Tensor, base: Tensor, ground: Terrain, calendar: Tensor, present: Tensor, net: ClimateNetwork,
        origin: tuple[int, int] = (0, 0),
    ) -> Condition:  # fmt: skip
        """What the network is told of B times on one lattice: every entry begins with the batch.

        coarse `[B, C, h, w]` in units, base as `base` gives it, calendar `[B, 4]`, present `[B, C]` (1 where the
        variable is known; the others' values do not matter). `origin`: the first cell's place in a site.
        """
        B, C, h, w = coarse.shape
        k, like = ground.factor, coarse
        known = present[:, :, None, None] * ground.valid.to(like)
        coarse = torch.where(known > 0, coarse, torch.zeros_like(coarse))
        g_coarse, seen = self.transform(coarse), present[:, :, None, None]
        own = self.standardised(coarse) * known
        scale = torch.tensor(self.config.scale, dtype=like.dtype)[None, :, None, None]
        detail = (self.transform(base) - spread_out(g_coarse, k)) / scale * spread_out(known, k)
        spread = net.local_spread(origin, (h, w), k).to(like)[None].expand(B, C, h * k, w * k)
        if net.law is not None:
            law = net.law[..., origin[0] : origin[0] + h, origin[1] : origin[1] + w].to(like)
            spread = spread * spread_out(widths(law, own, self.cycle_of(calendar)), k)
        o = offsets(k, like)
        dy, dx = torch.meshgrid(o, o, indexing="ij")
        waves = offset_features(dy, dx, 1 / k).repeat(1, h, w)
        inside = (ground.area > 0).to(like)
        fixed = torch.cat([fine_features(ground).to(like), inside[None], waves])
        season = calendar.to(like) if self.config.site is not None else torch.zeros_like(calendar).to(like)
        return {
            "coarse": torch.cat([
                own, seen.expand(B, C, h, w),
                ground.valid.to(like).expand(B, 1, h, w), coarse_features(ground).to(like).expand(B, -1, h, w),
                season[:, :, None, None].expand(-1, -1, h, w),
            ], 1),
            "fine": torch.cat([
                detail, torch.log(spread / torch.tensor(self.config.spread, dtype=like.dtype)[None, :, None, None]),
                fixed.expand(B, -1, -1, -1),
            ], 1),
            "base": base, "amount": coarse, "spread": spread,
            "area": ground.area.to(like).expand(B, 1, h * k, w * k),
            "box": torch.tensor(origin).expand(B, 2), "periodic": ground.periodic,
        }  # fmt: skip

    def standardised(self, coarse: Tensor) -> Tensor:
        """g of coarse fields `[B, C, h, w]`, less its mean, in its standard deviations."""
        centre, scale = (
            torch.tensor(v, dtype=coarse.dtype)[None, :, None, None] for v in (self.config.centre, self.config.scale)
        )
        return (self.transform(coarse) - centre) / scale

    def cycle_of(self, calendar: Tensor) -> Tensor:
        """Sine and cosine of the site's cycle, `[B, 2]`; `[B, 0]` without one."""
        site = self.config.site
        return calendar[:, :0] if site is None or site.cycle is None else harmonics(calendar, site.cycle)[:, :2]

    # --- residuals ------------------------------------------------------------------------------------------

    def residual(self, y: Tensor, condition: Condition) -> Tensor:
        """x of fields y `[B, C, H, W]`."""
        return (self.transform(y) - self.transform(condition["base"])) / condition["spread"]

    def fields(self, x: Tensor, condition: Condition, conserve: bool = True) -> Tensor:
        """y of residuals x, in units; with the coarse cells' own means unless `conserve` is off."""
        base, area, amount = condition["base"], condition["area"], condition["amount"]
        factor = x.shape[-1] // amount.shape[-1]
        step = condition["spread"] * x
        rain = torch.expm1((torch.log1p(base.clamp_min(0)) + step).clamp(0, LARGEST))
        if conserve:
            rain = shares(rain, base.clamp_min(0), amount, area, factor)
            step = zero_mean(step, area, factor)
        return torch.where(self.positive.to(x.device).view(1, -1, 1, 1), rain, base + step)


class ClimateNetwork(FieldNetwork):
    """The field network with what a site model has measured of its domain."""

    spread: Tensor
    ground: Tensor
    law: Tensor | None  # of a spread that varies (`spreads`)

    def __init__(self, config: ClimateConfig) -> None:
        C, site = len(config.variables), config.site
        lattice = None if site is None else (len(site.lat), len(site.lon))
        super().__init__(
            C,
            2 * C + 1 + COARSE_FEATURES + CALENDAR,
            2 * C + FINE_FEATURES + 1 + OFFSET_FEATURES,
            config.network,
            lattice,
        )
        self.mean: SiteMean | None = None
        self.register_buffer("law", None)
        if lattice is not None and site is not None:
            waves = 0 if site.cycle is None else WAVES
            self.mean = SiteMean(C, config.factor, lattice, site.radius, site.cross, waves, site.rank, site.squares)
            self.halo += site.radius
            fine = (lattice[0] * config.factor, lattice[1] * config.factor)
            self.register_buffer("spread", torch.ones(C, *fine))
            self.register_buffer("ground", torch.zeros(3, *fine))  # height (m), land, cells that have values
            if site.varying:
                terms = 2 if site.cycle is None else 4
                self.law = torch.zeros(C, terms, *lattice)
        else:
            self.register_buffer("spread", torch.tensor(config.spread)[:, None, None], persistent=False)
            self.halo += 2

    def local_spread(self, origin: tuple[int, int], shape: tuple[int, int], factor: int) -> Tensor:
        """Standard deviation of the residual `[C, H, W]`, all times together."""
        if self.mean is None:
            return self.spread.expand(-1, shape[0] * factor, shape[1] * factor)
        return self.spread[(slice(None), *block(origin, shape, factor))]

    def local_ground(self, origin: tuple[int, int], shape: tuple[int, int], factor: int) -> Tensor:
        """Height, land and mask `[3, H, W]` of a block of a site."""
        return self.ground[(slice(None), *block(origin, shape, factor))]


def block(origin: tuple[int, int], shape: tuple[int, int], factor: int) -> tuple[slice, slice]:
    """Fine cells of a block of coarse ones."""
    (i, j), (h, w) = origin, shape
    return slice(i * factor, (i + h) * factor), slice(j * factor, (j + w) * factor)


def network_of(model: FlowMap) -> ClimateNetwork:
    """The climate network inside a model of this domain."""
    assert isinstance(model.net, ClimateNetwork)
    return model.net


def from_config(config: dict[str, Any]) -> ClimateDomain:
    """The domain a checkpoint's config describes. Raises pydantic's ValidationError when a key is unknown."""
    return ClimateDomain(ClimateConfig(**config))
