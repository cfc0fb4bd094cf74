"""Times of a file as text: one form for every calendar, that sorts as time does and keys the noise."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import xarray as xr

from sciconsist.errors import UserError

DAY = 86400.0  # s


def iso(stamp: xr.DataArray, where: str) -> tuple[tuple[str, ...], str]:
    """ISO 8601 to the second of every time, in its own calendar, and the calendar's CF name.

    Raises UserError for times that are no dates.
    """
    values = np.atleast_1d(stamp.values)
    if values.dtype.kind == "M":
        if np.isnat(values).any():
            raise UserError(f"{where}: {stamp.name} has a missing time (index {int(np.isnat(values).argmax())})")
        calendar = str(stamp.encoding.get("calendar", "standard"))
        return tuple(str(v) for v in values.astype("datetime64[s]")), calendar
    if values.dtype == object and all(hasattr(v, "calendar") for v in values):
        return tuple(v.strftime("%Y-%m-%dT%H:%M:%S").strip().rjust(19, "0") for v in values), values[0].calendar
    units = stamp.attrs.get("units", "none")
    raise UserError(f"{where}: {stamp.name} holds no dates (units {units!r}); expected 'days since ...' or the like")


def month_of(time: str) -> int:
    """0 to 11."""
    return int(time[5:7]) - 1


def hour_of(time: str) -> int:
    """0 to 23."""
    return int(time[11:13])


def year_of(time: str) -> int:
    """The year."""
    return int(time[:4])


def seconds_of(time: str) -> float:
    """Seconds since year 0, every year 365.25 and every month 30.4375 days: for time differences within 1 %."""
    year, month, day = (int(part) for part in time[:10].split("-"))
    hour, minute, second = (int(part) for part in time[11:19].split(":"))
    days = year * 365.25 + (month - 1) * 30.4375 + day
    return days * DAY + hour * 3600 + minute * 60 + second


def seconds_since(time: str, calendar: str) -> float:
    """Seconds since the year 1 in a calendar of CF, exactly."""
    import cftime

    year, month, day = (int(part) for part in time[:10].split("-"))
    hour, minute, second = (int(part) for part in time[11:19].split(":"))
    date = cftime.datetime(year, month, day, hour, minute, second, calendar=calendar)
    return float(cftime.date2num(date, "seconds since 0001-01-01", calendar))


def step_of(times: Sequence[str]) -> float | None:
    """Median seconds between times, within a few percent; None for one time alone."""
    if len(times) < 2:
        return None
    stamps = np.array([seconds_of(t) for t in times[:200]])
    return float(np.median(np.diff(stamps)))


def is_monthly(step: float | None) -> bool:
    """Whether times are months apart."""
    return step is not None and 27.5 * DAY <= step <= 31.5 * DAY


def periods(dataset: xr.Dataset, time: str, times: Sequence[str]) -> tuple[float | None, bool]:
    """Seconds a value stands for, from the time bounds or the step, and whether it is a month."""
    step = step_of(times)
    bounds = dataset[time].attrs.get("bounds") or dataset[time].encoding.get("bounds")
    if bounds in dataset.variables and dataset[bounds].ndim == 2:
        pair = dataset[bounds].values[0]
        width = pair[1] - pair[0]
        seconds = width / np.timedelta64(1, "s") if isinstance(width, np.timedelta64) else None
        if seconds is None and hasattr(width, "total_seconds"):
            seconds = width.total_seconds()
        if seconds:
            return float(seconds), is_monthly(float(seconds))
    if step is None:
        return None, True  # ERA5's monthly file of one month; other amounts ask for a period
    if is_monthly(step):
        return step, True
    # hours and days are exact: the approximate months of `seconds_of` are not
    unit = DAY if step >= 0.9 * DAY else 60.0
    return max(1.0, math.floor(step / unit + 0.5)) * unit, False
