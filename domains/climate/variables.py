"""What a variable of a file is: its canonical name by CF standard name, GRIB name or habit, and its unit.

Canonical units are those of `fields.UNITS`. A variable we do not know keeps its own name and unit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sciconsist.errors import UserError

from .fields import NON_NEGATIVE, UNITS

# canonical name -> (standard names, other names in use: ECMWF, CMIP and CORDEX, common habit)
NAMES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "t2m": (("air_temperature",), ("t2m", "2t", "tas", "var167", "t_2m", "temp2", "2m_temperature", "tmean")),
    "d2m": (("dew_point_temperature",), ("d2m", "2d", "tdps", "var168", "td_2m", "2m_dewpoint_temperature")),
    "tp": (
        (
            "lwe_thickness_of_precipitation_amount", "precipitation_flux", "precipitation_amount",
            "lwe_precipitation_rate", "rainfall_rate", "rainfall_flux", "rainfall_amount",
            "thickness_of_rainfall_amount",
        ),
        ("tp", "pr", "precip", "precipitation", "total_precipitation", "tot_prec", "rr", "rain", "prate", "var228"),
    ),
    "u10": (("eastward_wind",), ("u10", "10u", "uas", "u_10m", "10m_u_component_of_wind", "var165")),
    "v10": (("northward_wind",), ("v10", "10v", "vas", "v_10m", "10m_v_component_of_wind", "var166")),
    "sp": (("surface_air_pressure",), ("sp", "ps", "surface_pressure", "var134")),
    "msl": (
        ("air_pressure_at_mean_sea_level", "air_pressure_at_sea_level"),
        ("msl", "psl", "prmsl", "pmsl", "slp", "mean_sea_level_pressure", "var151"),
    ),
    "sst": (("sea_surface_temperature",), ("sst", "tos", "sea_surface_temperature")),
}  # fmt: skip
# What a file says when the variable had no standard name of its own.
STANDARD_NAMES = {
    "t2m": "air_temperature", "d2m": "dew_point_temperature", "u10": "eastward_wind", "v10": "northward_wind",
    "sp": "surface_air_pressure", "msl": "air_pressure_at_mean_sea_level", "sst": "sea_surface_temperature",
}  # fmt: skip
STATIC = {
    "orography": (
        ("surface_altitude", "geopotential", "surface_geopotential", "height_above_reference_ellipsoid"),
        ("z", "orog", "oro", "hsurf", "topo", "h", "orography", "elevation", "dem", "height", "zsurf", "var129"),
    ),
    "land_sea_mask": (
        ("land_binary_mask", "land_area_fraction"), ("lsm", "sftlf", "land_sea_mask", "landmask", "mask", "var172"),
    ),
}  # fmt: skip

# spelling without blanks -> (dimension, factor, offset) to SI or, for water, mm and mm/s
_UNITS: dict[str, tuple[str, float, float]] = {
    **dict.fromkeys(("k", "kelvin", "degk", "degreesk"), ("temperature", 1.0, 0.0)),
    **dict.fromkeys(("degc", "c", "celsius", "°c", "degreec", "degreesc", "degreecelsius", "degreescelsius", "deg_c",
                     "degree_celsius", "degrees_celsius", "degree_c", "degrees_c"), ("temperature", 1.0, 273.15)),
    **dict.fromkeys(("degf", "f", "°f", "fahrenheit", "degree_fahrenheit"), ("temperature", 5 / 9, 459.67 * 5 / 9)),
    **dict.fromkeys(("pa", "pascal", "pascals"), ("pressure", 1.0, 0.0)),
    **dict.fromkeys(("hpa", "mbar", "millibar", "millibars", "mb"), ("pressure", 100.0, 0.0)),
    "kpa": ("pressure", 1000.0, 0.0),
    **dict.fromkeys(("ms-1", "m/s", "ms**-1", "ms^-1", "mps", "meterpersecond", "m.s-1"), ("speed", 1.0, 0.0)),
    **dict.fromkeys(("kmh-1", "km/h", "kph", "kmhr-1"), ("speed", 1 / 3.6, 0.0)),
    **dict.fromkeys(("knots", "knot", "kt", "kts"), ("speed", 1852 / 3600, 0.0)),
    **dict.fromkeys(("m", "metre", "meter", "metres", "meters", "mofwaterequivalent"), ("amount", 1e3, 0.0)),
    "cm": ("amount", 10.0, 0.0),
    **dict.fromkeys(("mm", "kgm-2", "kgm**-2", "kg/m2", "kg/m^2", "kgm^-2", "millimeter"), ("amount", 1.0, 0.0)),
    **dict.fromkeys(("kgm-2s-1", "kgm**-2s**-1", "kg/m2/s", "kg/m^2/s", "kgm^-2s^-1", "mm/s", "mms-1", "kg/(m2s)"),
                    ("rate", 1.0, 0.0)),
    **dict.fromkeys(("mm/h", "mmh-1", "mm/hr", "mmhr-1", "mm/hour", "mmhour-1"), ("rate", 1 / 3600, 0.0)),
    **dict.fromkeys(("mm/day", "mmday-1", "mm/d", "mmd-1", "mmday**-1", "kgm-2day-1", "kgm-2d-1"),
                    ("rate", 1 / 86400, 0.0)),
    **dict.fromkeys(("m/day", "mday-1", "md-1", "mday**-1", "mperday"), ("rate", 1e3 / 86400, 0.0)),
}  # fmt: skip
_DIMENSION = {"K": "temperature", "Pa": "pressure", "m/s": "speed", "mm/day": "rate"}
# What values can be, in canonical units: what lies outside is a wrong unit or a damaged file.
PLAUSIBLE = {
    "t2m": (150.0, 350.0), "d2m": (100.0, 330.0), "tp": (-0.5, 5000.0), "u10": (-150.0, 150.0), "v10": (-150.0, 150.0),
    "sp": (3e4, 1.2e5), "msl": (8e4, 1.2e5), "sst": (250.0, 330.0),
}  # fmt: skip
DAY = 86400.0  # s


@dataclass(frozen=True)
class Conversion:
    """canonical = scale x (value in the file) + offset, and the unit of the file."""

    scale: float = 1.0
    offset: float = 0.0
    unit: str = ""

    def to_canonical(self, values: np.ndarray) -> np.ndarray:
        return values if (self.scale, self.offset) == (1.0, 0.0) else values * self.scale + self.offset

    def to_file(self, values: np.ndarray) -> np.ndarray:
        return values if (self.scale, self.offset) == (1.0, 0.0) else (values - self.offset) / self.scale


def canonical_name(name: str, attributes: Mapping[str, object]) -> str | None:
    """Our name of a variable, None when it is none of ours. Its own name counts before its standard name:
    `air_temperature` is every temperature."""
    for canonical, (_, others) in NAMES.items():
        if name.lower() in others or str(attributes.get("GRIB_shortName", "")).lower() in others:
            return canonical
    standard = str(attributes.get("standard_name", ""))
    return next((c for c, (standards, _) in NAMES.items() if standard in standards), None)


def static_name(name: str, attributes: Mapping[str, object]) -> str | None:
    """`orography` or `land_sea_mask` when the variable is one of them."""
    for key, (standards, others) in STATIC.items():
        if str(attributes.get("standard_name", "")) in standards or name.lower() in others:
            return key
    return None


def conversion(canonical: str, unit: str, period: float | None, where: str, monthly: bool = False) -> Conversion:
    """How values of a unit become canonical. `period`: seconds a value is accumulated over, where it is an amount.

    ERA5's monthly means of tp say "m" and are m/day: `monthly` takes metres so. Raises UserError for a unit that
    is unknown or of another dimension, and for an amount without a period.
    """
    wanted = _DIMENSION.get(UNITS.get(canonical, ""))
    if wanted is None:
        return Conversion(unit=unit)
    spelling = re.sub(r"[\s*·]+(?=\S)", "", unit.strip().lower()) if unit.strip().lower() not in _UNITS else unit
    spelling = spelling.strip().lower().replace("**", "").replace("^", "")
    kind, factor, offset = _UNITS.get(spelling, ("", 1.0, 0.0))
    if kind == "amount" and wanted == "rate":
        metres = factor == 1e3
        seconds = DAY if monthly and metres else period
        if seconds is None:
            raise UserError(
                f"{where}: {unit!r} is an amount, and one time alone does not say over how long; set the units to "
                "a rate such as mm/day, or give the file time bounds"
            )
        return Conversion(factor * DAY / seconds, 0.0, unit)
    if kind != wanted:
        found = f"units {unit!r}" if unit else "no units"
        raise UserError(f"{where}: found {found}, expected a {wanted} such as {UNITS[canonical]!r}; set its units")
    return Conversion(factor * (DAY if kind == "rate" else 1.0), offset, unit)


def check_values(canonical: str, values: np.ndarray, unit: str, where: str) -> np.ndarray:
    """Values in canonical units, precipitation clipped at 0 (packing leaves -1e-6 of it).

    Raises UserError for infinite values and for what no weather makes: a unit that is not what the file says.
    """
    if np.isinf(values).any():
        raise UserError(f"{where}: has infinite values; expected finite ones, or missing values for no data")
    low, high = PLAUSIBLE.get(canonical, (-np.inf, np.inf))
    with np.errstate(invalid="ignore"):
        least, most = np.nanmin(values, initial=np.inf), np.nanmax(values, initial=-np.inf)
    if least < low or most > high:
        bad = least if least < low else most
        expected = UNITS.get(canonical, unit)
        raise UserError(
            f"{where}: {bad:.6g} {expected} after conversion from {unit!r}, expected {low:g} to {high:g}; "
            "its units attribute or its packing is wrong"
        )
    return np.maximum(values, 0.0) if canonical in NON_NEGATIVE else values
