"""The demo's climate: an ensemble of fine fields over the Andes, from one month of coarse ERA5 that is in the package."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from sciconsist.domains.climate.grids import area_weights
from sciconsist.sections import Section, Text
from sciconsist.workflows.downscale import plan
from sciconsist.workflows.evaluate_climate import conservation_error
from sciconsist.workflows.models import shipped
from sciconsist.workflows.tile_runs import to_file

MODEL, EXAMPLE = "climate-andes", "era5_andes_2007-01.json"
FACTOR, MEMBERS, STEPS = 4, 8, 2
SHOWN = ("tp", "t2m")


def climate(folder: Path, seed: int = 0, advance: Callable[[int], None] = lambda n: None) -> dict[str, Any] | None:
    """Write downscaled.nc; figures, with "sections" for the report. None where the model is not shipped."""
    if MODEL not in shipped():
        return None
    begin = time.monotonic()
    coarse = example()
    made = plan(coarse, FACTOR, members=MEMBERS, steps=STEPS, seed=seed, model=MODEL)
    path = folder / "downscaled.nc"
    figures = to_file(made, path, progress=advance)
    with xr.open_dataset(path) as written:
        fine = written.load()
    weights = area_weights(made.target.grid)
    off = [conservation_error(fine[n].values, coarse[n].values, weights, FACTOR) for n in figures["variables"]]
    return {
        "written": path.name, "members": figures["members"], "grid": figures["grid"], "factor": FACTOR, "steps": STEPS,
        "variables": figures["variables"], "model": MODEL, "input": coarse.attrs["title"],
        "licence_of_training_data": coarse.attrs["licence"], "attribution": coarse.attrs["attribution"],
        "conservation_error": float(f"{max(off):.1e}"),
        "seconds": round(time.monotonic() - begin, 2), "sections": _sections(coarse, fine),
    }  # fmt: skip


def example() -> xr.Dataset:
    """The coarse month in the package, 22 x 20 cells of 1 degree."""
    text = resources.files("sciconsist.domains.climate").joinpath("examples", EXAMPLE).read_text(encoding="utf-8")
    found = json.loads(text)
    dims = ("time", "latitude", "longitude")
    return xr.Dataset(
        {n: (dims, np.asarray(v["values"])[None], {"units": v["units"]}) for n, v in found["variables"].items()},
        {
            "time": np.array([found["time"]], "datetime64[ns]"),
            "latitude": ("latitude", found["latitude"], {"units": "degrees_north"}),
            "longitude": ("longitude", found["longitude"], {"units": "degrees_east"}),
        },
        {k: found[k] for k in ("title", "source", "licence", "attribution")},
    )


def _sections(coarse: xr.Dataset, fine: xr.Dataset) -> list[Section]:
    """Maps of the input, the mean, two members and the spread."""
    what = f"{coarse.attrs['title']}, {FACTOR} times finer by {MODEL}, {MEMBERS} members, {STEPS} network evaluations."
    words: list[Section] = [Text("Climate", "", [what, coarse.attrs["attribution"]])]
    if not find_spec("matplotlib"):
        return words
    import matplotlib.pyplot as plt

    from sciconsist.domains.climate.axes import find_spatial
    from sciconsist.domains.climate.report import picture

    plt.switch_backend("Agg")
    axes, _ = find_spatial(fine, SHOWN[0], "downscaled.nc")
    for name in SHOWN:
        members = fine[name].values[:, 0]
        panels = [
            ("input", coarse[name].values[0]), ("mean", members.mean(0)), ("spread", members.std(0, ddof=1)),
            *((f"member {k}", members[k]) for k in range(3)),
        ]  # fmt: skip
        words.append(picture(plt, name, panels, axes.grid, f"{name}, {coarse.attrs['title']}"))
    return words
