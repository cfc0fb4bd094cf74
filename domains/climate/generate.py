"""Ensembles from coarse fields: deterministic, the same on a tile as on the whole and in any chunk of time.

A target that splits every coarse cell in k x k is generated on its own lattice. Any other (a rotated grid,
stations, a factor of 2.5) is read off the lattice that the model knows best: the last step's neural field is
evaluated at the target's places, with their own height and cell size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from sciconsist.domains.climate import conserve as conservation
from sciconsist.domains.climate.adapter import ClimateDomain, ClimateNetwork, Condition
from sciconsist.domains.climate.fields import LAPSE_RATE, NON_NEGATIVE, Fields, Grid, Statics
from sciconsist.domains.climate.grids import area_weights, refine
from sciconsist.domains.climate.means import LAPSE_NAMES
from sciconsist.domains.climate.network import offset_features, sample, upsample
from sciconsist.domains.climate.noise import remembered
from sciconsist.domains.climate.statics import Terrain, calendar, terrain
from sciconsist.domains.climate.times import seconds_since
from sciconsist.errors import UserError
from sciconsist.flowmap import FlowMap

CELLS = 150_000  # fine cells that are in memory at once: about 150 MB


def halo(model: FlowMap) -> int:
    """Coarse cells around a cell that its result depends on: the rim a tile needs."""
    return int(model.net.halo)  # type: ignore[arg-type]


@torch.no_grad()
def generate(
    model: FlowMap,
    coarse: Fields,
    target: Grid,
    *,
    statics_coarse: Statics | None = None,
    statics_target: Statics | None = None,
    members: Sequence[int] = (0,),
    steps: int = 2,
    seed: int = 0,
    conserve: bool = True,
) -> np.ndarray:
    """Members `[M, T, C, *target.shape]` float32 of the coarse fields' variables, in their order and units.

    `members` are numbers: member 7 is the same whoever it is made with. `steps` network evaluations each (what a
    model was tuned for is in its card). NaN where the coarse cell is missing, and outside a site model's mask.
    A tile is asked for with its rim of `halo(model)` coarse cells, on both grids; cut it off afterwards.
    Points have no area, so conservation does not touch them.
    Raises UserError: a variable that the model does not know, a place a site model was not made for.
    """
    if steps < 1:
        raise UserError(f"steps = {steps}: expected at least 1")
    flipped = (
        coarse.grid.kind == "rectilinear" and len(coarse.grid.lat) > 1 and coarse.grid.lat[0] < coarse.grid.lat[-1]
    )
    if flipped:
        turned = _turned(coarse.grid)
        coarse = replace(coarse, values=coarse.values[..., ::-1, :], mask=coarse.mask[::-1], grid=turned)
        statics_coarse = None if statics_coarse is None else _turned_statics(statics_coarse)
    upside = target.kind == "rectilinear" and len(target.lat) > 1 and target.lat[0] < target.lat[-1]
    if upside:
        target = _turned(target)
        statics_target = None if statics_target is None else _turned_statics(statics_target)
    work = _prepare(model, coarse, target, statics_coarse, statics_target)
    out = np.empty((len(members), len(coarse.times), len(coarse.names), *target.shape), np.float32)
    for t, one in _times(work, coarse):
        for m in _chunks(len(members), work.lattice_cells):
            chosen = [members[i] for i in m]
            fields = _members(work, one, chosen, (coarse.times[t], coarse.calendar), steps, seed, conserve)
            out[m.start : m.stop, t] = fields[:, work.picked]
    if conserve and target.kind != "points":
        _close(out, coarse, work)
    out[..., work.outside] = np.nan
    return out[..., ::-1, :] if upside else out


@dataclass
class _Work:
    """What all times share."""

    model: FlowMap
    domain: ClimateDomain
    net: ClimateNetwork
    ground: Terrain
    origin: tuple[int, int]
    places: tuple[np.ndarray, np.ndarray]  # latitudes and longitudes of the fine lattice
    picked: list[int]  # the coarse fields' variables among the model's
    query: dict[str, Tensor] | None
    lift: Tensor | None  # height of the target over that of the lattice, m
    cell: np.ndarray  # coarse cell of every target cell
    area: np.ndarray
    outside: np.ndarray

    @property
    def lattice_cells(self) -> int:
        return self.ground.height.numel()


def _prepare(
    model: FlowMap, coarse: Fields, target: Grid, statics_coarse: Statics | None, statics_target: Statics | None
) -> _Work:
    domain, net = model.domain, model.net
    assert isinstance(net, ClimateNetwork)
    unknown = [n for n in coarse.names if n not in domain.names]
    if unknown:
        raise UserError(f"variable {unknown[0]}: this model knows {', '.join(domain.names)}; choose with --variables")
    if coarse.grid.kind == "points":
        raise UserError("the coarse input is a list of points; expected a grid")
    nested = nesting(coarse.grid, target)
    origin = (0, 0)
    if domain.config.site is not None:
        missing = [n for n in domain.names if n not in coarse.names]
        if missing:
            raise UserError(
                f"a site model needs all its variables; {', '.join(missing)} is missing, or use climate-zeroshot"
            )
        origin = site_origin(domain, coarse.grid)
        factor = domain.config.factor
    else:
        factor = nested or domain.config.factor
    own = nested == factor
    fine = target if own else refine(coarse.grid, factor)
    ground = _ground(net, domain, coarse, fine, factor, origin, statics_coarse, statics_target if own else None)
    query, lift = (None, None) if own else _query(coarse.grid, target, ground, statics_target)
    lat, lon = fine.mesh()
    if own:
        cell, outside = _blocks(coarse.grid.shape, factor), (ground.area <= 0).numpy()
    else:
        cell = conservation.owners(*target.mesh(), coarse.grid.lat, coarse.grid.lon)
        outside = ~np.append(coarse.mask.ravel(), False)[cell]  # -1, no coarse cell, is the last
    area = np.where(outside, 0.0, area_weights(target)) if target.kind != "points" else np.zeros(target.shape)
    picked = [domain.names.index(n) for n in coarse.names]
    return _Work(model, domain, net, ground, origin, (lat, lon), picked, query, lift, cell, area, outside)


def nesting(coarse: Grid, target: Grid) -> int | None:
    """k where every coarse cell is k x k target cells (2 to 8), None where the grids do not nest so."""
    if target.kind != coarse.kind or target.kind == "points":
        return None
    factor = target.shape[0] // coarse.shape[0]
    if not 2 <= factor <= 8 or target.shape != tuple(factor * n for n in coarse.shape):
        return None
    if coarse.kind == "curvilinear":
        pairs = [(coarse.lat, target.lat), (coarse.lon, target.lon)]
        means = [f.reshape(len(c), factor, -1, factor).mean((1, 3)) for c, f in pairs]
    else:
        pairs = [(coarse.lat, target.lat), (coarse.lon, target.lon)]
        means = [f.reshape(-1, factor).mean(1) for _, f in pairs]
    off = [np.abs((m - c + 180) % 360 - 180).max() for m, (c, _) in zip(means, pairs)]
    return factor if max(off) < 0.02 * max(coarse.cell) else None


def site_origin(domain: ClimateDomain, grid: Grid) -> tuple[int, int]:
    """Row and column of a site's domain that a grid begins at. Raises UserError where it is no block of it."""
    site = domain.config.site
    assert site is not None
    step = max(grid.cell)
    starts = []
    for name, axis, known in (("latitudes", grid.lat, site.lat), ("longitudes", grid.lon, site.lon)):
        whole = np.asarray(known)
        first = int(np.abs((whole - axis.flat[0] + 180) % 360 - 180).argmin())
        part = whole[first : first + len(axis)]
        if (
            grid.kind != "rectilinear"
            or len(part) != len(axis)
            or np.abs((part - axis + 180) % 360 - 180).max() > 0.05 * step
        ):
            raise UserError(
                f"a site model works on its own coarse grid, {name} {whole[0]:g} to {whole[-1]:g} in {len(whole)} "
                f"cells; found {axis.flat[0]:g} to {axis.flat[-1]:g} in {len(axis)}; use climate-zeroshot, or train one"
            )
        starts.append(first)
    return starts[0], starts[1]


def _ground(
    net: ClimateNetwork, domain: ClimateDomain, coarse: Fields, fine: Grid, factor: int, origin: tuple[int, int],
    statics_coarse: Statics | None, statics_fine: Statics | None,
) -> Terrain:  # fmt: skip
    h, w = coarse.grid.shape
    size, around = coarse.grid.cell[0], coarse.grid.periodic
    if domain.config.site is not None:  # what it was trained on
        height, land, inside = net.local_ground(origin, (h, w), factor).numpy()
        return terrain(height, land, area_weights(fine) * inside, factor, size, around, valid=coarse.mask)
    area = area_weights(fine) * np.kron(coarse.mask, np.ones((factor, factor)))
    rough = statics_coarse
    if rough is None and statics_fine is None:
        rough = Statics(np.zeros((h, w), np.float32), np.ones((h, w), np.float32))
    if statics_fine is None:
        assert rough is not None
        both = torch.as_tensor(np.stack([rough.orography, rough.land_sea_mask]))[None].float()
        smooth = upsample(both, factor, around)[0].numpy()
        statics_fine = Statics(smooth[0], smooth[1])
    heights = None if rough is None else rough.orography
    lands = None if rough is None else rough.land_sea_mask
    return terrain(
        statics_fine.orography, statics_fine.land_sea_mask, area, factor, size, around, heights, lands, coarse.mask
    )


def _query(coarse: Grid, target: Grid, ground: Terrain, statics: Statics | None) -> tuple[dict[str, Tensor], Tensor]:
    """Places of the target on the coarse lattice, with what the network is told of them; and their lift."""
    if coarse.kind != "rectilinear":
        raise UserError("from a curvilinear coarse grid only grids that split its cells can be made; give --factor")
    lat, lon = (a.ravel() for a in target.mesh())
    places = _place(coarse.lat, lat, False), _place(coarse.lon, lon, coarse.periodic)
    row, column = (torch.as_tensor(a, dtype=torch.float32)[None] for a in places)
    k, around = ground.factor, ground.periodic
    at = (k * (row + 0.5) - 0.5, k * (column + 0.5) - 0.5)
    fixed = torch.stack([ground.height, ground.land])[None]
    here = sample(fixed, *at, around)[0]
    height, land = here[0], here[1]
    if statics is not None:
        height, land = (
            torch.as_tensor(a.ravel(), dtype=torch.float32) for a in (statics.orography, statics.land_sea_mask)
        )
    size = float(np.mean(target.cell) / np.mean(coarse.cell))
    waves = offset_features(row[0] - row[0].round(), column[0] - column[0].round(), size)
    query = {"row": row, "column": column, "height": height, "land": land, "waves": waves}
    return query, height - here[0]


def _place(axis: np.ndarray, x: np.ndarray, around: bool) -> np.ndarray:
    """Index of places among an axis' centres, not rounded; beyond its ends the line goes on half a cell."""
    if around:
        return ((x - axis[0]) % 360.0) / (axis[1] - axis[0])
    if axis[0] < axis[-1]:  # longitudes
        x = conservation.wrap_near(x, axis)
        return np.interp(x, axis, np.arange(len(axis)))
    return np.interp(-x, -axis, np.arange(len(axis)))


def _times(work: _Work, coarse: Fields) -> Iterator[tuple[int, tuple[Condition, Tensor]]]:
    """The condition and the mask of one time after another."""
    C = len(work.domain.names)
    seasons = torch.as_tensor(calendar(coarse.times))
    present = torch.zeros(1, C)
    present[0, work.picked] = 1
    for t in range(len(coarse.times)):
        given = torch.zeros(1, C, *coarse.grid.shape, dtype=torch.float64)  # 280 K has few digits left in float32
        given[0, work.picked] = torch.as_tensor(np.nan_to_num(coarse.values[t]), dtype=torch.float64)
        base = work.domain.base(work.net, given, work.ground, seasons[t : t + 1], work.origin)
        base = base * present[:, :, None, None]
        condition = work.domain.condition(given, base, work.ground, seasons[t : t + 1], present, work.net, work.origin)
        condition |= {name: condition[name].float() for name in ("coarse", "fine")}  # what the network sees
        inside = (work.ground.area > 0)[None, None] & (present > 0)[:, :, None, None]
        yield t, (condition, inside)


def _chunks(count: int, cells: int) -> Iterator[range]:
    size = max(1, CELLS // cells)
    for start in range(0, count, size):
        yield range(start, min(start + size, count))


def _members(
    work: _Work, one: tuple[Condition, Tensor], members: Sequence[int], stamp: tuple[str, str], steps: int, seed: int,
    conserve: bool,
) -> np.ndarray:  # fmt: skip
    """`[M, C, *target.shape]` of one time, its text and its calendar."""
    condition, inside = one
    time, almanac = stamp
    config = work.domain.config
    memory = config.memory or [0.0] * len(config.variables)
    second = seconds_since(time, almanac) if any(memory) else 0.0
    noise = torch.as_tensor(
        remembered(seed, members, work.domain.names, time, second, memory, config.slot, *work.places)
    )
    warm = torch.tensor(config.temperature or [1.0] * len(config.variables))[None, :, None, None]
    x = noise * warm * inside
    M = len(members)
    wide = {k: v.expand(M, *v.shape[1:]) if isinstance(v, Tensor) else v for k, v in condition.items()}
    times = torch.linspace(1.0, 0.0, steps + 1).tolist()
    for s, t in pairwise(times[:-1] if work.query is not None else times):
        x = work.model(x, s, t, wide)
    if work.query is None:
        return work.domain.fields(x, wide, conserve).numpy()
    # the last jump ends at time 0, where the endpoint form is F itself: it can be read at any place
    wide |= {"query": _asked(work, condition, M)}
    f = work.model.f(x, times[-2], 0.0, wide)
    assert isinstance(f, Tensor)
    return _read_off(work, condition, f).numpy()


def _asked(work: _Work, condition: Condition, members: int) -> dict[str, Tensor]:
    """The query with its features in the order of the fine lattice's own."""
    assert work.query is not None
    q, C, k, around = work.query, len(work.domain.names), work.ground.factor, work.ground.periodic
    at = (k * (q["row"] + 0.5) - 0.5, k * (q["column"] + 0.5) - 0.5)
    near = sample(condition["fine"][:, : 2 * C + 3], *at, around)  # mean's detail, spread, height and slopes
    near[:, 2 * C] += (work.lift if work.lift is not None else torch.zeros(())) / 300
    inside = torch.ones_like(q["height"])
    own = torch.cat([q["land"][None], inside[None], q["waves"]])[None]
    features = torch.cat([near, own], 1)
    return {
        "row": q["row"].expand(members, -1), "column": q["column"].expand(members, -1),
        "features": features.expand(members, -1, -1),
    }  # fmt: skip


def _read_off(work: _Work, condition: Condition, x: Tensor) -> Tensor:
    """Fields `[M, C, *target.shape]` of residuals at the target's places `[M, C, N]`."""
    assert work.query is not None and work.lift is not None
    k, around = work.ground.factor, work.ground.periodic
    at = (k * (work.query["row"] + 0.5) - 0.5, k * (work.query["column"] + 0.5) - 0.5)
    base, spread = sample(condition["base"], *at, around), sample(condition["spread"], *at, around)
    lapse = torch.tensor([LAPSE_RATE if n in LAPSE_NAMES else 0.0 for n in work.domain.names])[None, :, None]
    base = base + lapse * work.lift
    rain = torch.expm1((torch.log1p(base.clamp_min(0)) + spread * x).clamp(0, 12))
    y = torch.where(work.domain.positive.view(1, -1, 1), rain, base + spread * x)
    return y.reshape(*y.shape[:2], *work.cell.shape)


def _close(out: np.ndarray, coarse: Fields, work: _Work) -> None:
    """Conservation to the last digits, in float64, over target cells by the coarse cell they lie in."""
    flat = out.reshape(*out.shape[:3], -1)
    want = np.where(coarse.mask, coarse.values, np.nan).reshape(*coarse.values.shape[:2], -1)
    cell, area = work.cell.ravel(), work.area.ravel()
    for c, name in enumerate(coarse.names):
        for m in range(len(out)):
            flat[m, :, c] = conservation.conserve(flat[m, :, c], want[:, c], cell, area, name in NON_NEGATIVE)


def _blocks(shape: tuple[int, ...], factor: int) -> np.ndarray:
    return np.arange(shape[0] * shape[1]).reshape(shape).repeat(factor, 0).repeat(factor, 1)


def _turned(grid: Grid) -> Grid:
    return replace(grid, lat=grid.lat[::-1])


def _turned_statics(statics: Statics) -> Statics:
    return Statics(statics.orography[::-1], statics.land_sea_mask[::-1])
