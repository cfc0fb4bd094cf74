"""Schedules: tensors of times from 1 (noise) to 0 (data)."""

from __future__ import annotations

import torch
from torch import Tensor

from sciconsist.errors import UserError


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


def _positive(n: int) -> int:
    if n < 1:
        raise UserError(f"{n} steps: expected at least one")
    return n
