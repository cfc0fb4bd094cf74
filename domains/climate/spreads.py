"""Times at which a site's residual is wider than at others: the rains of the wet season, the winds of the dry one.

log w = law . (standardised coarse value, sine and cosine of the cycle, 1) in every coarse cell (Harvey 1976), 0 on average.
What is left for the network is nearly as wide at all times.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sciconsist.domains.climate.pooling import WIDEST, scale_law


def spread_terms(own: Tensor, cycle: Tensor) -> Tensor:
    """Predictors `[B, C, P, h, w]` of coarse values `[B, C, h, w]` and the cycle's sine and cosine `[B, 2]` (or `[B, 0]`)."""
    B, C, h, w = own.shape
    waves = cycle.to(own)[:, None, :, None, None].expand(B, C, -1, h, w)
    return torch.cat([own[:, :, None], waves, torch.ones_like(own[:, :, None])], 2)


def widths(law: Tensor, own: Tensor, cycle: Tensor) -> Tensor:
    """How wide the residual is beside its cell's own width, `[B, C, h, w]`; `law` `[C, P, h, w]`."""
    return (spread_terms(own, cycle) * law).sum(2).clamp(-WIDEST, WIDEST).exp()


def fit_law(error: Tensor, own: Tensor, cycle: Tensor, valid: Tensor, factor: int, rounds: int) -> Tensor:
    """The law `[C, P, h, w]` of residuals `[T, C, H, W]` of fits that have not seen them; 0 outside `valid` `[h, w]`."""
    details = torch.nn.functional.pixel_unshuffle(error.double(), factor).unflatten(1, (error.shape[1], -1))
    terms = spread_terms(own.double(), cycle.double())
    law = torch.zeros(own.shape[1], terms.shape[2], *valid.shape, dtype=torch.float64)
    for c in range(own.shape[1]):
        X, R = (x[:, c].permute(2, 3, 0, 1)[valid] for x in (terms, details))  # [cells, T, P], [cells, T, k k]
        law[c, :, valid] = scale_law(X, R, rounds)[..., 0].T
    return law
