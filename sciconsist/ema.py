"""Averages of the weights over training: plain with a warm-up, power profile, widths chosen afterwards.

Karras et al. 2024 (EDM2), "Analyzing and Improving the Training Dynamics of Diffusion Models", appendix C.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Power:
    """theta_t <- beta theta_t-1 + (1 - beta) theta, beta = (1 - 1/t)^(gamma + 1).

    `width` is sigma_rel, the profile's standard deviation over the training so far: 0.1 forgets what lies
    before the last few tenths. The first step copies, so there is no bias to correct.
    """

    width: float = 0.1

    @property
    def gamma(self) -> float:
        return width_to_gamma(self.width)

    def beta(self, step: int) -> float:
        return (1 - 1 / step) ** (self.gamma + 1)


@dataclass(frozen=True)
class Decay:
    """Constant decay behind a warm-up: beta = min(decay, (t - 1) / (t + 9)); the first step copies."""

    decay: float = 0.999

    def beta(self, step: int) -> float:
        return min(self.decay, (step - 1) / (step + 9))


Profile = Power | Decay


class EMA:
    """The running average of a module's floating-point state; everything else is copied."""

    def __init__(self, model: nn.Module, profile: Profile) -> None:
        self.profile = profile
        self.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after optimizer step `step` = 1, 2, ..."""
        now = model.state_dict()
        names = [n for n, w in self.weights.items() if w.is_floating_point()]
        torch._foreach_lerp_([self.weights[n] for n in names], [now[n] for n in names], 1 - self.profile.beta(step))
        for name, value in now.items():
            if not value.is_floating_point():
                self.weights[name].copy_(value)

    @torch.no_grad()
    def load(self, weights: Mapping[str, Tensor]) -> None:
        for name, value in self.weights.items():
            value.copy_(weights[name])

    def copy_to(self, model: nn.Module) -> None:
        model.load_state_dict(self.weights)


@dataclass(frozen=True)
class Snapshot:
    """A power average stored at a step."""

    step: int
    gamma: float
    weights: Mapping[str, Tensor]


def width_to_gamma(width: float) -> float:
    """gamma whose profile has sigma_rel = sqrt((g + 1) / ((g + 2)^2 (g + 3))), solved for g."""
    if not 0 < width < 0.28:
        raise ValueError(f"width {width}: expected 0 < sigma_rel < 0.28")
    return float(np.roots([1, 7, 16 - width**-2, 12 - width**-2]).real.max())


def reconstruct(snapshots: Sequence[Snapshot], step: int, width: float) -> dict[str, Tensor]:
    """Any `width` at `step` from stored averages: least squares over their profiles (appendix C.3).

    Exact for a width that is stored at that step, else approximate, the better the more snapshots there are.
    """
    share = posthoc_shares([(s.step, s.gamma) for s in snapshots], step, width_to_gamma(width))
    names = [n for n, w in snapshots[0].weights.items() if w.is_floating_point()]
    total = {n: sum(c * s.weights[n].double() for c, s in zip(share, snapshots)) for n in names}
    last = max(snapshots, key=lambda s: s.step).weights
    return {n: torch.as_tensor(total[n]).to(w.dtype) if n in total else w.clone() for n, w in last.items()}


def posthoc_shares(stored: Sequence[tuple[int, float]], step: int, gamma: float) -> list[float]:
    """Coefficients of stored profiles `(step, gamma)` whose sum comes nearest to the one asked for."""
    steps, gammas = np.array([s for s, _ in stored], float), np.array([g for _, g in stored], float)
    gram = _overlap(steps[:, None], gammas[:, None], steps[None], gammas[None])
    wanted = _overlap(steps, gammas, np.array(float(step)), np.array(gamma))
    # snapshots close together make the Gram matrix singular to round-off
    return [float(c) for c in np.linalg.lstsq(gram, wanted, rcond=1e-13)[0]]


def _overlap(t_a: np.ndarray, g_a: np.ndarray, t_b: np.ndarray, g_b: np.ndarray) -> np.ndarray:
    """Integral of the product of two profiles p(x) = (g + 1) x^g / t^(g + 1) on [0, t]."""
    power = np.where(t_a < t_b, g_b, -g_a)
    return (g_a + 1) * (g_b + 1) * (t_a / t_b) ** power / ((g_a + g_b + 1) * np.maximum(t_a, t_b))
