"""Downscaling: a file or dataset in, an ensemble on a finer grid out, in tiles and chunks of time of constant memory.

`plan` checks a request and lays it out; `tile_runs` carries it out in memory, lazily or into a file.
A result depends on the seed and the place, never on tiles, chunks or workers.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from sciconsist import __version__
from sciconsist.domains.climate.baselines import HALO, LEARNING, METHODS
from sciconsist.domains.climate.bias import correct
from sciconsist.domains.climate.files import Source, open_source
from sciconsist.domains.climate.grids import refine
from sciconsist.domains.climate.output import Target, describe
from sciconsist.domains.climate.targets import by_factor, by_grid, by_points
from sciconsist.domains.climate.tiles import Tile, tiles
from sciconsist.domains.climate.times import is_monthly, step_of
from sciconsist.errors import UserError
from sciconsist.workflows.tile_runs import TILE, Advance, Plan, to_dataset, to_lazy
from sciconsist.workflows.tile_work import Held, Job, model_of

BLOCK = 6_000_000  # values of a block that comes back from a tile: 24 MB
Data = str | Path | xr.Dataset


def downscale(
    coarse: Data,
    factor: float | None = None,
    *,
    like: Data | None = None,
    points: str | Path | None = None,
    members: int | Sequence[int] = 16,
    steps: int = 2,
    seed: int = 0,
    method: str = "flow",
    model: str | Path | None = None,
    variables: Sequence[str] | None = None,
    reference: Data | None = None,
    orography: Data | None = None,
    bias_correct: Data | None = None,
    conserve: bool = True,
    tile: int = TILE,
    device: str | None = "cpu",
    progress: Advance = lambda n: None,
) -> xr.Dataset:
    """An ensemble of fine fields of a dataset or file, with the input's names, units and order.

    One of `factor`, `like` (a grid) and `points` (stations) says where. Chunked input gives a lazy dataset.
    Raises UserError.
    """
    made = plan(
        coarse, factor, like=like, points=points, members=members, steps=steps, seed=seed, method=method, model=model,
        variables=variables, reference=reference, orography=orography, bias_correct=bias_correct, conserve=conserve,
        tile=tile, device=device,
    )  # fmt: skip
    if isinstance(coarse, xr.Dataset) and any(coarse[v].chunks for v in made.source.original.values()):
        return to_lazy(made)
    return to_dataset(made, progress)


def plan(
    coarse: Data,
    factor: float | None = None,
    *,
    like: Data | None = None,
    points: str | Path | None = None,
    members: int | Sequence[int] = 16,
    steps: int = 2,
    seed: int = 0,
    method: str = "flow",
    model: str | Path | None = None,
    variables: Sequence[str] | None = None,
    reference: Data | None = None,
    orography: Data | None = None,
    bias_correct: Data | None = None,
    conserve: bool = True,
    tile: int = TILE,
    device: str | None = "cpu",
    command: str = "",
) -> Plan:
    """Checks a request and lays it out. Raises UserError."""
    chosen = tuple(range(members)) if isinstance(members, int) else tuple(members)
    _check(factor, like, points, chosen, steps, method, reference, tile)
    notes: list[str] = []
    loaded = model_of(None if model is None else str(model), device) if method == "flow" else None
    source = open_source(coarse, variables)
    if loaded is not None:
        source = _known(source, loaded, variables, notes)
    target, cell, mask, heights = _target(source, factor, like, points)
    mask &= np.append(source.mask.ravel(), False)[cell]
    if not mask.any():
        raise UserError(f"{source.where}: no cell of the target has a value of the input")
    if outside := int((cell < 0).sum()):
        notes.append(f"{outside} of {cell.size} target places lie outside the input and are missing")
    nested = _nesting(source, target, cell)
    if method in ("regression", "bootstrap") and nested is None:
        raise UserError(f"--method {method} needs cells that split the input's; give --factor with a whole number")
    if method == "lapse" and not {"t2m", "d2m"} & set(source.names):
        raise UserError("--method lapse moves temperatures only, and the input has none; choose another --method")
    job = Job(
        method, chosen, seed, steps, conserve and target.grid.kind != "points", nested,
        None if model is None else str(model), device, _held(reference), _held(orography),
    )  # fmt: skip
    rim = HALO
    if loaded is not None:
        from sciconsist.domains.climate.generate import halo

        rim = halo(loaded)
        notes += beyond_training(loaded, source, target)
    cut_up = list(tiles(source.axes.grid, target.grid, cell, tile, rim))
    largest = max(_size(t, target) for t in cut_up)
    chunk = max(1, min(len(source.times), BLOCK // max(1, job.count * len(source.names) * largest)))
    layout = describe(source, target, job.members[: job.count], provenance(job, loaded, source, factor), command)
    made = Plan(source, job, target, cell, mask, heights, cut_up, chunk, layout, notes)
    if bias_correct is not None:
        made.corrected = correct(source, open_source(bias_correct, list(source.names)))
    return made


# --- checks


def _check(
    factor: float | None, like: Data | None, points: object, members: tuple[int, ...], steps: int, method: str,
    reference: Data | None, tile: int,
) -> None:  # fmt: skip
    given = [
        name for name, value in (("--factor", factor), ("--like", like), ("--points", points)) if value is not None
    ]
    if len(given) != 1:
        raise UserError(f"{' and '.join(given) or 'nothing'} given; give one of --factor, --like and --points")
    if method not in ("flow", *METHODS):
        raise UserError(f"--method {method!r}; expected one of flow, {', '.join(METHODS)}")
    if method in LEARNING and reference is None:
        raise UserError(f"--method {method} learns from fine data of a past period; give --reference FILE")
    if method not in LEARNING and reference is not None:
        raise UserError(f"--reference is for {', '.join(LEARNING)}; --method {method} does not use it")
    if not members or len(set(members)) != len(members) or min(members) < 0:
        raise UserError("--members: expected at least 1, numbers from 0, each once")
    if steps < 1 or tile < 8:
        raise UserError(f"--steps {steps}, --tile {tile}: expected at least 1 and at least 8")


def _target(
    source: Source, factor: float | None, like: Data | None, points: str | Path | None
) -> tuple[Target, np.ndarray, np.ndarray, np.ndarray | None]:
    """The target, coarse cell, mask and station heights of a request."""
    if factor is not None:
        target, cell = by_factor(source, factor)
        return target, cell, cell >= 0, None
    if like is not None:
        target, cell, known = by_grid(source, like)
        return target, cell, known & (cell >= 0), None
    assert points is not None
    target, cell, heights = by_points(source, points)
    return target, cell, cell >= 0, heights


def _nesting(source: Source, target: Target, cell: np.ndarray) -> int | None:
    """Fine cells a side in each coarse cell, also where a pole cuts some off; None where grids do not nest."""
    coarse, grid = source.axes.grid, target.grid
    if grid.kind != coarse.kind or grid.kind == "points":
        return None
    factor = round(coarse.cell[1] / grid.cell[1])
    if factor < 2:
        return None
    same = refine(coarse, factor)
    if same.shape != grid.shape or max(np.abs(same.lat - grid.lat).max(), np.abs(same.lon - grid.lon).max()) > 1e-4:
        return None
    return factor


def _size(tile: Tile, target: Target) -> int:
    return int(np.prod([len(range(*b.indices(n))) for b, n in zip(tile.target, target.grid.shape)]))


def _held(data: Data | None) -> str | Held | None:
    if data is None or isinstance(data, str):
        return data
    return Held(data) if isinstance(data, xr.Dataset) else str(data)


def _known(source: Source, model: Any, variables: Sequence[str] | None, notes: list[str]) -> Source:
    """The source with the variables a model knows; those not asked for by name are left out with a note."""
    names = model.domain.names
    known = tuple(n for n in source.names if n in names)
    other = [source.original[n] for n in source.names if n not in names]
    if not known or (variables is not None and other):
        have = ", ".join(source.original[n] for n in source.names)
        raise UserError(
            f"{source.where}: {', '.join(other) or have} is not what this model knows ({', '.join(names)}); "
            "choose --variables, or a --method without a model"
        )
    if other:
        notes.append(f"left out, the model does not know them: {', '.join(other)}")
    return source.pick(known)


def beyond_training(model: Any, source: Source, target: Target) -> list[str]:
    """Where a request leaves what a model was trained on, one line each; what its card says it was trained on."""
    notes = []
    ranges = model.card.get("trained_on") or {}
    low, high = ranges.get("factors", (2.0, 8.0))
    if target.grid.kind != "points":
        factor = source.axes.grid.cell[1] / target.grid.cell[1]
        if not low - 1e-6 <= factor <= high + 1e-6:
            notes.append(f"factor {factor:.3g} is outside what the model was trained on ({low:g} to {high:g})")
    if "cells" in ranges:
        low, high = ranges["cells"]
        if not low * 0.9 <= source.axes.grid.cell[1] <= high * 1.1:
            notes.append(
                f"coarse cells of {source.axes.grid.cell[1]:.3g} degrees are outside what the model was trained on "
                f"({low:g} to {high:g})"
            )
    if model.domain.config.site is None and is_monthly(step_of(source.times)):
        notes.append(
            "monthly means: this model does not know the period, and may give smooth months twice their spread"
        )
    return notes


def provenance(job: Job, model: Any, source: Source, factor: float | None) -> dict[str, Any]:
    """What an output says about its making."""
    found: dict[str, Any] = {
        "version": __version__, "method": job.method, "seed": job.seed, "members": job.count, "conserve": job.conserve,
        "input": source.where, "factor": factor,
    }  # fmt: skip
    if model is not None:
        card = model.card
        found |= {
            "steps": job.steps, "model": str(card.get("name")), "model_sha256": str(card.get("sha256")),
            "training_data": listed(card.get("data")), "training_data_licence": listed(card.get("licence")),
        }  # fmt: skip
    if job.reference is not None:
        found["reference"] = str(job.reference)
    if job.method in ("flow", "lapse"):
        found["orography"] = "ERA5 0.25 degrees, in the package" if job.orography is None else str(job.orography)
    return found


def listed(value: Any) -> str:
    """One text or several of a card, on one line."""
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value or "see the model's card")


def command_line() -> str:
    """The command as typed, without folders, for the history attribute."""
    return " ".join(["sciconsist", *(Path(a).name if "/" in a else a for a in sys.argv[1:])])
