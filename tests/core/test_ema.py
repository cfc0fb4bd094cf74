"""Weight averages against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sciconsist.ema import EMA, Decay, Power, Snapshot, posthoc_shares, reconstruct, width_to_gamma


class Walk(nn.Module):
    """Weights that move as told, in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(3, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def at(self, step: int) -> Walk:
        with torch.no_grad():
            self.w.copy_(torch.tensor([step / 100, np.sin(step / 40), (step / 100) ** 2]))
            self.count.fill_(step)
        return self


def test_power_profile_is_the_weighted_mean() -> None:
    """theta = sum_t p_t theta_t with p_t proportional to t^gamma in the limit."""
    profile, walk = Power(0.15), Walk()
    ema = EMA(walk, profile)
    for step in range(1, 201):
        ema.update(walk.at(step), step)
    betas = np.array([profile.beta(t) for t in range(1, 201)])
    shares = (1 - betas) * np.append(np.cumprod(betas[::-1])[::-1][1:], 1.0)
    assert shares.sum() == pytest.approx(1, abs=1e-12)
    expected = sum(s * Walk().at(t).w.detach() for t, s in enumerate(shares, 1))
    assert torch.allclose(ema.weights["w"], expected, atol=1e-12)
    assert int(ema.weights["count"]) == 200
    # the profile's spread, counted in the training so far, is the width
    t = np.arange(1, 201)
    spread = np.sqrt((shares * t**2).sum() - (shares * t).sum() ** 2) / 200
    assert spread == pytest.approx(0.15, rel=0.02)


def test_width_and_gamma() -> None:
    """Karras et al. 2024: sigma_rel 0.05 and 0.10 are gamma 16.97 and 6.94."""
    assert width_to_gamma(0.05) == pytest.approx(16.97, abs=0.01)
    assert width_to_gamma(0.10) == pytest.approx(6.94, abs=0.01)
    with pytest.raises(ValueError, match="sigma_rel"):
        width_to_gamma(0.5)


def test_decay_warms_up() -> None:
    profile = Decay(0.99)
    assert profile.beta(1) == 0
    assert profile.beta(11) == pytest.approx(0.5)
    assert profile.beta(10**6) == 0.99


def track(width: float, every: int, last: int = 400) -> tuple[EMA, list[Snapshot]]:
    walk, stored = Walk(), []
    ema = EMA(walk, Power(width))
    for step in range(1, last + 1):
        ema.update(walk.at(step), step)
        if step % every == 0:
            stored.append(Snapshot(step, ema.profile.gamma, {k: v.clone() for k, v in ema.weights.items()}))
    return ema, stored


def test_posthoc_reconstruction() -> None:
    """A stored width comes back exactly, another one the better the more snapshots there are."""
    snapshots = {e: [s for w in (0.05, 0.1) for s in track(w, e)[1]] for e in (200, 100, 50)}
    same = reconstruct(snapshots[100], 400, 0.1)
    assert torch.allclose(same["w"], track(0.1, 100)[0].weights["w"], atol=1e-8)
    assert int(same["count"]) == 400
    direct = track(0.15, 100)[0].weights["w"]
    errors = [float((reconstruct(snapshots[e], 400, 0.15)["w"] - direct).norm()) for e in (200, 100, 50)]
    assert errors[2] < errors[1] < errors[0]
    assert errors[2] < 0.05
    assert sum(posthoc_shares([(s.step, s.gamma) for s in snapshots[50]], 400, 5.0)) == pytest.approx(1, abs=0.02)
