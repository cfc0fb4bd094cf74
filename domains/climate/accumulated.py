"""Amounts that a forecast has added up since it began, made amounts of one step each."""

from __future__ import annotations

import numpy as np
import xarray as xr

from sciconsist.errors import UserError


def step_amounts(dataset: xr.Dataset, where: str) -> xr.Dataset:
    """GRIB messages of step type `accum` along `step` hold the sum since the forecast began: differences are taken.

    A single step, as in ERA5's hourly files, is its own amount. Raises UserError where steps are not even from the
    beginning on, for then the first amount stands for another time than the rest.
    """
    summed = [
        name for name, variable in dataset.data_vars.items()
        if variable.attrs.get("GRIB_stepType") == "accum" and dataset.sizes.get("step", 1) > 1 and "step" in variable.dims
    ]  # fmt: skip
    if not summed:
        return dataset
    hours = dataset["step"].values / np.timedelta64(1, "h")
    if not np.allclose(np.diff(hours, prepend=0.0), hours[0]):
        raise UserError(
            f"{where}: {summed[0]} is summed since the forecast began, and its steps ({', '.join(f'{h:g}' for h in hours[:4])}"
            ", ... hours) are not even from there on; select even ones"
        )
    out = dataset.copy()
    for name in summed:
        total = dataset[name]
        before = total.shift(step=1).fillna(0.0).where(total.notnull())
        out[name] = (total - before).clip(min=0).assign_attrs(total.attrs, GRIB_stepType="step amount")
    return out
