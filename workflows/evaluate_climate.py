"""Scoring downscaled ensembles against fine truth, the baselines of the package scored the same way beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from sciconsist import __version__
from sciconsist.datasets import registry
from sciconsist.domains.climate import baselines
from sciconsist.domains.climate.baselines import Past, Place, coarsened
from sciconsist.domains.climate.fields import Fields, Grid
from sciconsist.domains.climate.files import Source, open_dataset, open_source
from sciconsist.domains.climate.grids import area_weights, block_mean, interpolate
from sciconsist.domains.climate.metrics import evaluate
from sciconsist.domains.climate.metrics.stations import verify
from sciconsist.domains.climate.orography import shipped, statics_on
from sciconsist.domains.climate.regression import Regression
from sciconsist.domains.climate.tiles import nested_owners
from sciconsist.domains.climate.times import year_of
from sciconsist.errors import UserError
from sciconsist.workflows.tile_work import on_lattice

LARGEST = 4e9  # bytes of samples that are scored at once
# Figures of the printed table, in order; the report file has all of them.
FIGURES = (
    "rmse", "crps", "spread_skill", "reliability_index", "log_spectral_distance", "high_frequency", "q99_error",
    "q99.9_error", "wet_frequency_error", "wasserstein", "lag1", "return_level_error", "conservation",
)  # fmt: skip
Data = str | Path | xr.Dataset
Method = Callable[["Scored"], np.ndarray]


@dataclass(frozen=True)
class Scored:
    """Samples and truth on one grid at the same times, whole blocks of coarse cells only, canonical units."""

    samples: np.ndarray  # [M, T, C, H, W] float32
    truth: Fields
    coarse: Fields
    place: Place
    past: Past | None

    @property
    def weights(self) -> np.ndarray:
        return area_weights(self.truth.grid, self.truth.mask)


@dataclass
class ClimateEvaluation:
    """Figures by method (the samples first) and variable, what they are of, and the fields for a report."""

    figures: dict[str, dict[str, Any]]
    about: dict[str, Any]
    scored: Scored | None = None
    others: dict[str, np.ndarray] = field(default_factory=dict)  # samples of baselines, for a report

    def to_json(self) -> dict[str, Any]:
        return {**self.about, "figures": self.figures}

    def table(self, variable: str) -> list[tuple[str, list[float | None]]]:
        """(figure, one value a method) of a variable."""
        rows = []
        for name in FIGURES:
            values = [found.get(variable, {}).get(name) for found in self.figures.values()]
            if any(v is not None and np.isfinite(v) for v in values):
                rows.append((name, values))
        return rows


def evaluate_climate(
    samples: Data,
    reference: Data,
    *,
    training: Data | None = None,
    factor: int | None = None,
    seed: int = 0,
    with_baselines: bool = True,
) -> ClimateEvaluation:
    """Score a downscaled file against fine truth: a file, or a data set's split such as `era5-andes:val`.

    `training` is fine data of a past period: with it delta, quantile mapping, cell regression and bootstrap stand
    beside bilinear and lapse rate. `factor` is read from the samples when left out. Raises UserError.
    """
    data = samples if isinstance(samples, xr.Dataset) else open_dataset(samples)
    label = "the samples" if isinstance(samples, xr.Dataset) else str(samples)
    about: dict[str, Any] = {
        "sciconsist": __version__, "source": label, "reference": str(reference) if not isinstance(reference, xr.Dataset)
        else "a dataset", "origin": {k: str(v) for k, v in data.attrs.items() if k.startswith("sciconsist_")},
    }  # fmt: skip
    if "station" in data.dims:
        return ClimateEvaluation({"samples": at_stations(data, reference, label)}, about)
    factor = factor or round(float(data.attrs.get("sciconsist_factor", 0))) or None
    if factor is None or factor < 2:
        raise UserError(f"{label}: does not say by which factor it is finer; give --factor")
    scored = pair(data, label, reference, training, factor)
    about |= {
        "factor": factor, "members": len(scored.samples), "times": len(scored.truth.times),
        "variables": list(scored.truth.names), "training": None if training is None else str(training),
        "area": f"{scored.truth.grid.lat.min():g} to {scored.truth.grid.lat.max():g} N, "
        f"{scored.truth.grid.lon.min():g} to {scored.truth.grid.lon.max():g} E",
    }  # fmt: skip
    result = ClimateEvaluation({"samples": score(scored, scored.samples, factor, seed)}, about, scored)
    for name, method in (methods(scored, seed) if with_baselines else {}).items():
        made = method(scored)
        result.figures[name] = score(scored, made, factor, seed)
        result.others[name] = made.astype(np.float32)
    return result


def score(scored: Scored, samples: np.ndarray, factor: int, seed: int) -> dict[str, Any]:
    """Everything the metrics say of samples `[M, T, C, H, W]`, and their conservation error by variable."""
    years = [year_of(t) for t in scored.truth.times]
    found = evaluate(
        samples, scored.truth.values, scored.truth.names, scored.weights, factor=factor, seed=seed, years=years
    )
    for c, name in enumerate(scored.truth.names):
        found[name]["conservation"] = conservation_error(
            samples[:, :, c], scored.coarse.values[:, c], scored.weights, factor
        )
    return found


def conservation_error(samples: np.ndarray, coarse: np.ndarray, weights: np.ndarray, factor: int) -> float:
    """Largest difference of block means of `[M, T, H, W]` from the coarse `[T, h, w]`, in its standard deviations."""
    means = block_mean(samples, weights, factor)
    return float(np.nanmax(np.abs(means - coarse)) / np.nanstd(coarse))


def methods(scored: Scored, seed: int) -> dict[str, Method]:
    """The baselines that can be had: those that learn need a past."""
    found: dict[str, Method] = {
        "bilinear": lambda s: baselines.interpolated(s.coarse, s.place, "bilinear")[None],
    }
    if {"t2m", "d2m"} & set(scored.truth.names):
        found["lapse"] = lambda s: baselines.conserved(baselines.lapse(s.coarse, s.place), s.coarse, s.place)[None]
    if scored.past is None:
        return found
    past, place = scored.past, scored.place
    fitted = Regression(past, place)
    members = range(max(2, len(scored.samples)))
    return found | {
        "delta": lambda s: baselines.delta(s.coarse, place, past)[None],
        "quantile": lambda s: baselines.quantile(s.coarse, place, past)[None],
        "regression": lambda s: fitted.predict(s.coarse)[None],
        "bootstrap": lambda s: fitted.bootstrap(s.coarse, members, seed),
    }


# --- reading


def pair(data: xr.Dataset, label: str, reference: Data, training: Data | None, factor: int) -> Scored:
    """Samples and truth cut to what they share. Raises UserError when that is nothing."""
    first, read = members_of(data, label)
    real = source_of(reference, first.original)
    names = tuple(n for n in first.names if n in real.names)
    if not names:
        theirs = ", ".join(real.names)
        raise UserError(f"{label}: has {', '.join(first.names)}, the reference {theirs}; expected some in common")
    known = {t: k for k, t in enumerate(real.times)}
    shared = [k for k, t in enumerate(first.times) if t in known]
    if not shared:
        raise UserError(
            f"{label}: {first.times[0]} to {first.times[-1]} has no time of the reference, {real.times[0]} to "
            f"{real.times[-1]}"
        )
    grid = first.axes.grid
    rows, columns = (n // factor * factor for n in grid.shape)
    box = (slice(rows), slice(columns))
    if grid.kind != "rectilinear":
        raise UserError(f"{label}: a curvilinear grid; only latitude-longitude grids can be scored")
    steps = np.array([known[first.times[k]] for k in shared])
    truth = at_times(on_lattice(real, grid.crop(*box), names), steps)
    size = 4.0 * len(shared) * len(names) * rows * columns * data.sizes.get("realization", 1)
    if size > LARGEST:
        raise UserError(f"{label}: {size / 1e9:.1f} GB, at most {LARGEST / 1e9:g} can be scored; select fewer times")
    number = data.sizes.get("realization", 1)
    cut = (..., *box)
    samples = np.stack([read(m).pick(names).values[shared][cut].astype(np.float32) for m in range(number)])
    mask = truth.mask & np.isfinite(samples).all((0, 1, 2))
    if not mask.any():
        raise UserError(f"{label}: no cell has values both there and in the reference")
    truth = replace(truth, mask=mask, values=np.where(mask, truth.values, np.nan))
    past = None
    if training is not None:
        fine = on_lattice(source_of(training, first.original), grid.crop(*box), names)
        fine = replace(fine, mask=fine.mask & mask)
        past = Past(fine, coarsened(fine, factor))
    coarse = coarsened(truth, factor)
    return Scored(samples, truth, coarse, _place(coarse.grid, truth), past)


def _place(coarse: Grid, truth: Fields) -> Place:
    cell = nested_owners(coarse, truth.grid)
    assert cell is not None
    ground = shipped()
    return Place(truth.grid, cell, truth.mask, statics_on(coarse, ground), statics_on(truth.grid, ground))


def at_times(fields: Fields, steps: np.ndarray) -> Fields:
    """Some times, in this order."""
    return replace(fields, values=fields.values[steps], times=tuple(fields.times[k] for k in steps))


def members_of(data: xr.Dataset, label: str) -> tuple[Source, Callable[[int], Fields]]:
    """The first member opened, and how to read any."""
    if "realization" not in data.dims:
        source = open_source(data)
        return replace(source, where=label), lambda m: source.read()
    source = replace(open_source(data.isel(realization=0, drop=True)), where=label)
    squeezed = source.dataset

    def read(member: int) -> Fields:
        other = data.isel(realization=member, drop=True)
        other = other.assign_coords({source.axes.stamp: squeezed[source.axes.stamp]})
        return replace(source, dataset=other).read()

    return source, read


def source_of(where: Data, original: dict[str, str]) -> Source:
    """A file, a dataset, or `NAME[:SPLIT]` of the registry, with those of the variables that it has."""
    if isinstance(where, xr.Dataset):
        return open_source(where)
    name, _, split = str(where).partition(":")
    if name in registry.DATASETS:
        entry = registry.entry(name)
        if entry.domain != "climate" or entry.loader is None:
            raise UserError(f"{where}: is no climate data set with a loader")
        chosen = split or ("val" if "val" in entry.files else next(iter(entry.files)))
        source: Source = registry.load(name, chosen)  # type: ignore[assignment]
        return source.pick(tuple(n for n in source.names if n in original) or source.names)
    return open_source(where)


def at_stations(data: xr.Dataset, reference: Data, label: str) -> dict[str, Any]:
    """Scores at stations against observations of the same stations, or a grid interpolated to them."""
    observed = reference if isinstance(reference, xr.Dataset) else None
    if not isinstance(reference, xr.Dataset) and Path(reference).exists():
        observed = open_dataset(reference)
    lat, lon = (np.asarray(data[n].values, np.float64) for n in ("lat", "lon"))
    points = Grid(lat, lon, (0.0, 0.0), False, "points")
    found: dict[str, Any] = {}
    if observed is not None and "station" in observed.dims:
        both, theirs = xr.align(data, observed, join="inner", exclude=("realization",))
        if not both.sizes["station"]:
            raise UserError(f"{label}: no station of the same name in {reference}")
        for name in set(both.data_vars) & set(theirs.data_vars):
            dims = [d for d in theirs[name].dims if d != "station"]
            y = theirs[name].transpose(*dims, "station").values
            found[str(name)] = verify(both[name].transpose("realization", *dims, "station").values, y)
        return found
    source = source_of(reference, {str(n): str(n) for n in data.data_vars})
    fields = source.read()
    values = interpolate(fields.values, fields.grid, points, mask=fields.mask)
    for c, name in enumerate(source.names):
        own = source.original[name]
        if own in data.data_vars:
            dims = [d for d in data[own].dims if d not in ("realization", "station")]
            x = data[own].transpose("realization", *dims, "station").values
            x = source.conversions[name].to_canonical(x)
            if x.shape[1] != len(values):
                raise UserError(f"{label}: {x.shape[1]} times, the reference has {len(values)}; expected the same")
            found[name] = verify(x, values[:, c])
    return found
