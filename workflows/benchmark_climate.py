"""The climate benchmark: five cases of real reanalysis at a quarter of their resolution, and every method on them.

Each case has a training and a validation period. The coarse input is the block mean of the fine truth, so what is
scored is the detail a method adds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sciconsist.datasets import registry
from sciconsist.domains.climate import baselines
from sciconsist.domains.climate.baselines import Past, Place, coarsened
from sciconsist.domains.climate.fields import Fields
from sciconsist.domains.climate.grids import area_weights
from sciconsist.domains.climate.metrics import evaluate
from sciconsist.domains.climate.orography import shipped, statics_on
from sciconsist.domains.climate.regression import Regression
from sciconsist.domains.climate.tiles import nested_owners
from sciconsist.domains.climate.times import year_of
from sciconsist.errors import UserError
from sciconsist.workflows.evaluate_climate import conservation_error

FACTOR, MEMBERS = 4, 16
# What the table shows, in order; `evaluate` has more.
COLUMNS = (
    "rmse", "crps", "spread_skill", "high_frequency", "q99.9_error", "wet_frequency_error", "conservation",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One variable of one data set on a block of its cells (in the file's order, north first)."""

    name: str
    dataset: str
    variable: str
    rows: slice
    columns: slice
    model: str  # the site model trained on it


CASES = (
    Case("andes t2m", "era5-andes", "t2m", slice(0, 88), slice(0, 80), "climate-andes"),
    Case("andes tp", "era5-andes", "tp", slice(0, 88), slice(0, 80), "climate-andes"),
    Case("andes u10", "era5-andes", "u10", slice(0, 88), slice(0, 80), "climate-andes"),
    Case("uk hourly t2m", "era5-uk", "t2m", slice(0, 32), slice(0, 48), "climate-uk"),
    Case("kerala tp", "era5land-kerala", "tp", slice(0, 40), slice(4, 28), "climate-kerala"),
)


@dataclass(frozen=True)
class Problem:
    """A case's data: what a method may learn from, what it is given, and the truth it is scored against."""

    past: Past
    coarse: Fields
    truth: Fields
    place: Place

    @property
    def weights(self) -> np.ndarray:
        """Area `[H, W]`, 0 where a cell is missing."""
        return area_weights(self.truth.grid, self.truth.mask)


def problem(case: Case, factor: int = FACTOR) -> Problem:
    """Reads a case. Raises UserError when its data are not here."""
    fine, truth = (_block(case, split) for split in ("train", "val"))
    fine = replace(fine, mask=fine.mask & truth.mask)
    truth = replace(truth, mask=fine.mask)
    past = Past(fine, coarsened(fine, factor))
    coarse = coarsened(truth, factor)
    cell = nested_owners(coarse.grid, truth.grid)
    assert cell is not None
    ground = shipped()
    place = Place(truth.grid, cell, truth.mask, statics_on(coarse.grid, ground), statics_on(truth.grid, ground))
    return Problem(past, coarse, truth, place)


def _block(case: Case, split: str, names: list[str] | None = None) -> Fields:
    source: Any = registry.load(case.dataset, split)
    return source.read(names=names or [case.variable]).crop(case.rows, case.columns)


def methods(seed: int = 0, members: int = MEMBERS) -> dict[str, Callable[[Problem], np.ndarray]]:
    """What is compared, each giving `[M, T, C, H, W]`; conservation as the name says."""

    def one(values: np.ndarray) -> np.ndarray:
        return values[None]

    return {
        "bilinear": lambda p: one(baselines.interpolated(p.coarse, p.place, "bilinear")),
        "lapse + conservation": lambda p: one(
            baselines.conserved(baselines.lapse(p.coarse, p.place), p.coarse, p.place)
        ),
        "delta": lambda p: one(baselines.delta(p.coarse, p.place, p.past)),
        "quantile": lambda p: one(baselines.quantile(p.coarse, p.place, p.past)),
        "regression + conservation": lambda p: one(Regression(p.past, p.place).predict(p.coarse)),
        "bootstrap ensemble": lambda p: Regression(p.past, p.place).bootstrap(p.coarse, range(members), seed),
    }


def benchmark_climate(
    cases: str | None = None, seed: int = 0, members: int = MEMBERS, steps: int = 2, limit: int | None = None
) -> Iterator[dict[str, Any]]:
    """One row a case and method: `{"case", "method", **scores}`, models of the package last.

    `cases` picks those whose name contains it; `limit` bounds the validation times. Raises UserError.
    """
    chosen = [c for c in CASES if cases is None or cases in c.name]
    if not chosen:
        raise UserError(f"no case {cases!r}; there are: {', '.join(c.name for c in CASES)}")
    for case in chosen:
        found = problem(case)
        if limit is not None:
            found = replace(found, coarse=found.coarse.when(slice(limit)), truth=found.truth.when(slice(limit)))
        for name, method in {**methods(seed, members), **models(case, seed, members, steps)}.items():
            if name.startswith("lapse") and case.variable != "t2m":
                continue
            yield {"case": case.name, "method": name, **scores(found, method(found), case.variable, seed)}


def scores(found: Problem, samples: np.ndarray, variable: str, seed: int = 0) -> dict[str, Any]:
    """Everything `evaluate` says of one variable, and how far block means are from the input, in its deviations."""
    years = [year_of(t) for t in found.truth.times]
    result = evaluate(samples, found.truth.values, [variable], found.weights, factor=FACTOR, seed=seed, years=years)[
        variable
    ]
    error = conservation_error(samples[:, :, 0], found.coarse.values[:, 0], found.weights, FACTOR)
    return {**result, "conservation": error}


def models(case: Case, seed: int, members: int, steps: int) -> dict[str, Callable[[Problem], np.ndarray]]:
    """The models of the package that fit a case: its site model, which wants all variables, and the zero-shot one."""
    from sciconsist.workflows.models import load_for, shipped

    def run(name: str) -> Callable[[Problem], np.ndarray]:
        def method(p: Problem) -> np.ndarray:
            from sciconsist.domains.climate.generate import generate

            model = load_for("climate", name)
            names = list(model.domain.names) if name == case.model else [case.variable]
            coarse = coarsened(_block(case, "val", names), FACTOR).when(slice(len(p.coarse.times)))
            out = generate(
                model, coarse, p.truth.grid, statics_coarse=p.place.statics_coarse,
                statics_target=p.place.statics_target, members=range(members), steps=steps, seed=seed,
            )  # fmt: skip
            return out[:, :, [names.index(case.variable)]]

        return method

    here = set(shipped())
    return {f"{n}, {steps} steps": run(n) for n in (case.model, "climate-zeroshot") if n in here}
