"""FMI radar composites: rain rate over Finland every 5 minutes at about 1 km, on a polar stereographic plane."""

from __future__ import annotations

import numpy as np

from sciconsist.domains.climate.files import Source, open_paths, open_source

from .registry import find

# The plane of FMI's composites, which the file leaves out: a sphere, true at 60 N, upright at 25 E (PROJ: stere), with
# its north edge first. Metres.
RADIUS, TRUE_AT, UPRIGHT = 6_371_288.0, 60.0, 25.0
EAST, NORTH = 380_886.310, 3_395_677.920  # false origin of the south-west corner
CELL = (999.62859, 999.674053)  # height and width


def fmi(split: str = "all") -> Source:
    """Rain rate of 40 times, tp; NaN outside the coverage."""
    data = open_paths(find("fmi-radar", split), "fmi-radar")
    lat, lon = places(data.sizes["y"], data.sizes["x"])
    return open_source(data.assign_coords(lat=(("y", "x"), lat), lon=(("y", "x"), lon)))


def places(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Latitude and longitude `[rows, columns]` of the centres of cells, the northern row first.

    Inverse polar stereographic projection of a sphere (Snyder 1987, equations 20-14 to 20-18 and 21-33).
    """
    x = (np.arange(columns) + 0.5) * CELL[1] - EAST
    y = (rows - 0.5 - np.arange(rows)) * CELL[0] - NORTH
    x, y = np.meshgrid(x, y)
    scale = (1 + np.sin(np.deg2rad(TRUE_AT))) / 2
    colatitude = 2 * np.arctan(np.hypot(x, y) / (2 * RADIUS * scale))
    return 90.0 - np.rad2deg(colatitude), UPRIGHT + np.rad2deg(np.arctan2(x, -y))
