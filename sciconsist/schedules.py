"""Schedules, tensors of times from 1 (noise) to 0 (data), and how samplers read what they get as times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sciconsist.errors import UserError
from sciconsist.paths import Linear, Path
from sciconsist.state import State, Times, batch_size, field_of, leaves

TimesLike = Any  # Sequence[float] | Tensor [K+1] or [K+1, B] | a dict of those and of numbers


def uniform(n: int) -> Tensor:
    """`n` equal steps from 1 to 0: `[n + 1]`."""
    return torch.linspace(1, 0, _positive(n) + 1, dtype=torch.float64)


def karras(n: int, rho: float = 7.0, t_min: float = 2.5e-5) -> Tensor:
    """Karras et al. 2022, eq. 5, t = sigma / sigma_max, then 0; `t_min` is their .002 / 80: `[n + 1]`."""
    ramp = torch.linspace(1, t_min ** (1 / rho), _positive(n), dtype=torch.float64)
    return torch.cat([ramp**rho, ramp.new_zeros(1)])


def shifted(n: int, shift: float) -> Tensor:
    """Times moved toward the noise by `shift` > 1 (Esser et al. 2024, eq. 23): `[n + 1]`."""
    t = uniform(n)
    return shift * t / (1 + (shift - 1) * t)


def snr_uniform(n: int, path: Path | None = None, low: float = 0.01, high: float = 0.99) -> Tensor:
    """Equal steps of log a/b (Lu et al. 2022, DPM-Solver) from `high` to `low`, whose ends then are 1 and 0: `[n + 1]`.

    The path's logarithm is inverted by bisection; the linear path is the default.
    """
    path = path if path is not None else Linear()
    if not 0 < low < high < 1:
        raise UserError(f"snr_uniform: expected 0 < low < high < 1, found {low} and {high}")
    ends = torch.tensor([high, low], dtype=torch.float64)
    first, last = torch.log(path.a(ends) / path.b(ends)).tolist()
    wanted = torch.linspace(first, last, _positive(n) + 1, dtype=torch.float64)
    below, above = torch.full_like(wanted, low), torch.full_like(wanted, high)
    for _ in range(60):
        middle = 0.5 * (below + above)
        noisy = torch.log(path.a(middle) / path.b(middle)) < wanted  # the time sought is earlier
        below, above = torch.where(noisy, below, middle), torch.where(noisy, middle, above)
    times = 0.5 * (below + above)
    times[0], times[-1] = 1.0, 0.0
    return times


def grid(x: State, times: TimesLike) -> list[Times]:
    """The times of every field as a list of `[B]` tensors (dicts of them), K + 1 long."""
    size, first = batch_size(x), leaves(x)[0]
    dtype = torch.float64 if first.dtype == torch.float64 else torch.float32

    def one(value: Any) -> Tensor:
        read = torch.as_tensor(value, dtype=dtype, device=first.device)
        if not bool(((read >= 0) & (read <= 1)).all()):
            raise UserError(f"times {value}: expected numbers from 0 (data) to 1 (noise)")
        return read.unsqueeze(-1).expand(*read.shape, size) if read.dim() < 2 else read

    if not isinstance(x, Mapping):
        return list(_checked(one(times)))
    clocks = {name: one(field_of(times, name)) for name in x}
    count = max((len(c) for c in clocks.values() if c.dim() == 2), default=0)
    whole = {n: c.expand(count, size) if c.dim() == 1 else _checked(c, count) for n, c in clocks.items()}
    return [{name: clock[k] for name, clock in whole.items()} for k in range(count)]


def _checked(clock: Tensor, count: int | None = None) -> Tensor:
    if clock.dim() != 2 or len(clock) < 2 or (count is not None and len(clock) != count):
        raise UserError(f"times: expected two or more, as many for every field; got {tuple(clock.shape[:1])}")
    return clock


def _positive(n: int) -> int:
    if n < 1:
        raise UserError(f"{n} steps: expected at least one")
    return n
