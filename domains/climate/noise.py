"""Noise that belongs to a place and a time: one seed is one realisation, on any tile, chunk or order.

A draw is a hash of (seed, member, variable, time stamp, latitude, longitude) turned into a standard normal:
no array index enters, so a crop, a rolled globe or another chunking finds the same noise at the same place.
Where a model has a memory, its noise is the mean of white noise over the time before: see `remembered`.
The hash is a counter-based generator in the sense of Salmon et al. 2011 ("Parallel random numbers: as easy as
1, 2, 3"), with the finaliser of SplitMix64 (Steele et al. 2014).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
from scipy.special import ndtri

RESOLUTION = 1e4  # places a degree: coordinates equal to 1e-4 degrees (11 m) are one place


def keyed_normal(
    seed: int, members: Sequence[int], names: Sequence[str], times: Sequence[str], lat: np.ndarray, lon: np.ndarray
) -> np.ndarray:
    """Standard normals `[M, T, C, *lat.shape]` float32; `lat`, `lon` (degrees) are those of every cell."""
    place = mix(cells(lat, lon))
    out = np.empty((len(members), len(times), len(names), *lat.shape), np.float32)
    for m, member in enumerate(members):
        for t, time in enumerate(times):
            for c, name in enumerate(names):
                out[m, t, c] = normal(mix(place ^ key(seed, member, name, time)))
    return out


def remembered(
    seed: int, members: Sequence[int], names: Sequence[str], stamp: str, second: float, memory: Sequence[float],
    slot: float, lat: np.ndarray, lon: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Standard normals `[M, C, *lat.shape]` float32 at one time that is like those shortly before and after.

    White noise is keyed by slots of `slot` seconds of the calendar. The value at `second` (`times.seconds_since`) is
    its integral over the `memory[c]` slots up to that of `second`, made of variance 1: times n slots apart have about
    the correlation 1 - n / memory, 0 from the memory on, and times in one slot share it. A kernel without an end (an
    autoregression) would depend on where a file begins. Memory 0 keys by the `stamp` itself.
    """
    out = np.empty((len(members), len(names), *lat.shape), np.float32)
    for c, (name, length) in enumerate(zip(names, memory)):
        if length <= 0:
            out[:, c] = keyed_normal(seed, members, [name], [stamp], lat, lon)[:, 0, 0]
            continue
        numbers, weights = window(math.floor(second / slot), length)
        draws = keyed_normal(seed, members, [name], [f"{slot:g} s {n}" for n in numbers], lat, lon)[:, :, 0]
        out[:, c] = np.tensordot(draws, weights.astype(np.float32), (1, 0))
    return out


def window(end: int, length: float) -> tuple[list[int], np.ndarray]:
    """The slots up to `end` that `length` covers, and the share of each that it does, of norm 1."""
    count = math.ceil(length - 1e-9)
    share = np.append(np.full(count - 1, 1.0), length - (count - 1))
    return [end - k for k in range(count)], share / np.linalg.norm(share)


def likeness(memory: float) -> float:
    """Correlation of the noise at times one slot apart: 0 up to memory 1."""
    if memory <= 1:
        return 0.0
    whole, rest = divmod(memory, 1.0)
    return (whole - 1 + rest) / (whole + rest**2)


def memory_of(correlation: float, longest: float = 24.0) -> float:
    """The memory that gives a correlation one slot apart; 0 where that is next to none."""
    if correlation < 0.03:
        return 0.0
    lengths = np.linspace(1.0, longest, round(20 * (longest - 1)) + 1)
    return float(lengths[np.abs([likeness(m) - correlation for m in lengths]).argmin()].round(2))


def key(seed: int, member: int, name: str, time: str) -> np.uint64:
    """64 bits of what a whole field of noise shares."""
    text = repr((int(seed), int(member), str(name), str(time))).encode()
    return np.uint64(int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little"))


def cells(lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    """An integer a place: longitudes modulo 360; at the poles all longitudes are one place."""
    row = np.round((np.asarray(lat, np.float64) + 90) * RESOLUTION).astype(np.uint64)
    turn = int(360 * RESOLUTION)
    column = np.mod(np.round(np.asarray(lon, np.float64) * RESOLUTION).astype(np.int64), turn).astype(np.uint64)
    pole = (row == 0) | (row == int(180 * RESOLUTION))
    return (row << np.uint64(32)) | np.where(pole, np.uint64(0), column)


def mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser: a bijection of 64-bit integers, every output bit depends on every input bit."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def normal(bits: np.ndarray) -> np.ndarray:
    """The normal quantile of the upper 53 bits as a number in (0, 1)."""
    return ndtri(((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53).astype(np.float32)
