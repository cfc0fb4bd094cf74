"""The spread of a site's residual, at times wider than at others."""

from __future__ import annotations

import torch

from sciconsist.domains.climate.spreads import fit_law, widths

TIMES, LATTICE, FACTOR = 240, (4, 5), 2


def inputs(cycle: bool) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    own = torch.randn(TIMES, 2, *LATTICE, generator=g)
    angle = torch.arange(TIMES) * 2 * torch.pi / 12
    return own, torch.stack([angle.sin(), angle.cos()], 1)[:, : 2 if cycle else 0]


def test_a_spread_that_goes_with_the_season_and_the_value_is_found() -> None:
    g = torch.Generator().manual_seed(1)
    own, cycle = inputs(True)
    law = torch.tensor([[0.4, 0.3, -0.2, 0.1], [0.0, 0.0, 0.0, 0.0]])[..., None, None].expand(-1, -1, *LATTICE)
    wide = widths(law, own, cycle).repeat_interleave(FACTOR, 2).repeat_interleave(FACTOR, 3)
    error = wide * torch.randn(wide.shape, generator=g)
    valid = torch.ones(LATTICE, dtype=torch.bool)
    valid[0, 0] = False
    found = fit_law(error, own, cycle, valid, FACTOR, 6)
    mean = found[:, :3, valid].mean(-1)
    assert torch.allclose(mean, 0.78 * law[:, :3, 0, 1].double(), atol=0.03)  # flattened by the floor below residuals
    assert (found[..., ~valid] == 0).all()


def test_widths_are_one_on_average_of_logs_and_bounded() -> None:
    g = torch.Generator().manual_seed(2)
    own, cycle = inputs(False)
    error = torch.randn(TIMES, 2, LATTICE[0] * FACTOR, LATTICE[1] * FACTOR, generator=g)
    law = fit_law(error, own, cycle, torch.ones(LATTICE, dtype=torch.bool), FACTOR, 4).float()
    assert law.shape == (2, 2, *LATTICE)
    assert widths(law, own, cycle).log().mean(0).abs().max() < 0.05
    assert widths(law, own * 1e6, cycle).log().abs().max() <= 2.0
