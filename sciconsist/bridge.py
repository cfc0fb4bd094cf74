"""Schroedinger bridges: the most likely way from one sample to another of a Brownian motion of variance sigma^2.

Two roads to it. SF2M (Tong et al. 2024b): pair minibatches by entropic transport, regress drift and score on
Brownian bridges. DSBM (Shi et al. 2023): start from any pairing and alternate directions, each regressing on the
other's simulated ends. Time runs here from 0 (the first sample) to 1 (the second); states are `[B, ...]` tensors.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sciconsist.metrics import sinkhorn_plan, squared_distances
from sciconsist.random import stream
from sciconsist.state import expand

Drift = Callable[[Tensor, Tensor], Tensor]  # (x [B, ...], t [B]) -> dx/dt
Fit = Callable[[nn.Module, Callable[[torch.Generator], Tensor]], None]  # (net, loss(generator)) -> trained in place


def entropic_pairs(x0: Tensor, x1: Tensor, sigma: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """As many pairs as x0 has rows, drawn from the entropic plan with reg 2 sigma^2 of the squared distance."""
    plan = sinkhorn_plan(squared_distances(x0, x1), 2 * sigma**2)
    rows = torch.arange(len(x0))
    columns = torch.multinomial(plan / plan.sum(1, keepdim=True), 1, generator=generator)[:, 0]
    return x0[rows], x1[columns]


def bridge_point(x0: Tensor, x1: Tensor, t: Tensor, sigma: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """x_t of the Brownian bridge and its standard noise: mean (1-t) x0 + t x1, variance sigma^2 t (1-t)."""
    noise = torch.randn(x0.shape, generator=generator, dtype=x0.dtype)
    u = expand(t, x0).to(x0.dtype)
    return (1 - u) * x0 + u * x1 + sigma * (u * (1 - u)).sqrt() * noise, noise


def sf2m_loss(
    flow: nn.Module, score: nn.Module, x0: Tensor, x1: Tensor, sigma: float, generator: torch.Generator
) -> Tensor:
    """Regress the probability flow and the (noise-scaled) score of pairs' bridges (Tong et al. 2024b, eq. 10).

    `flow(x, t)` learns (1 - 2t) / (2 t (1-t)) (x - mean) + x1 - x0; `score(x, t)` learns -noise, the score times
    its standard deviation. Both are networks of `[B, ...]` and t `[B]`.
    """
    t = 0.001 + 0.998 * torch.rand(len(x0), generator=generator, dtype=x0.dtype)
    x, noise = bridge_point(x0, x1, t, sigma, generator)
    u = expand(t, x)
    velocity = sigma * (1 - 2 * u) / (2 * (u * (1 - u)).sqrt()) * noise + x1 - x0
    weight = (u * (1 - u)).sqrt()  # the velocity's noise has variance 1 / (t (1 - t))
    return ((weight * (flow(x, t) - velocity)).square() + (score(x, t) + noise).square()).mean()


def sf2m_drift(flow: nn.Module, score: nn.Module, sigma: float) -> Drift:
    """Forward drift of the bridge: flow + sigma^2 / 2 score."""

    def drift(x: Tensor, t: Tensor) -> Tensor:
        u = expand(t.clamp(0.001, 0.999), x)
        value: Tensor = flow(x, t) + sigma * score(x, t) / (2 * (u * (1 - u)).sqrt())
        return value

    return drift


@torch.no_grad()
def simulate(
    drift: Drift, x: Tensor, sigma: float, steps: int, generator: torch.Generator, backward: bool = False
) -> Tensor:
    """Euler-Maruyama in equal steps from 0 to 1, or from 1 to 0: the end state."""
    for k in range(steps):
        now = 1 - k / steps if backward else k / steps
        t = torch.full((len(x),), now, dtype=x.dtype)
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        x = x + drift(x, t) / steps + sigma * steps**-0.5 * noise
    return x


def matching_loss(
    net: nn.Module, x0: Tensor, x1: Tensor, sigma: float, generator: torch.Generator, backward: bool = False
) -> Tensor:
    """Markovian projection: regress the end that is driven to, (x1 - x) / (1 - t), or (x0 - x) / t backward.

    The network gives the end itself, E[x1 | x_t], so that its target is bounded (Shi et al. 2023, eq. 7 and 8).
    """
    t = torch.rand(len(x0), generator=generator, dtype=x0.dtype)
    x, _ = bridge_point(x0, x1, t, sigma, generator)
    return (net(x, t) - (x0 if backward else x1)).square().mean()


def end_drift(net: nn.Module, backward: bool = False) -> Drift:
    """The drift toward the end a network of `matching_loss` expects."""

    def drift(x: Tensor, t: Tensor) -> Tensor:
        left = expand((t if backward else 1 - t).clamp_min(1e-3), x)
        value: Tensor = (net(x, t) - x) / left
        return value

    return drift


def dsbm(
    net: nn.Module,
    x0: Tensor,
    x1: Tensor,
    sigma: float,
    fit: Fit,
    *,
    rounds: int = 4,
    steps: int = 30,
    seed: int = 0,
) -> tuple[nn.Module, nn.Module]:
    """Iterative Markovian fitting from independent pairs: the forward and the backward network of the last round.

    `fit(net, loss)` trains in place for as long as the caller likes. Each round simulates one direction to give
    the other its pairs; marginals are kept at the simulated direction's start.
    """
    forward, backward = net, copy.deepcopy(net)
    first, second = x0, x1[torch.randperm(len(x1), generator=stream(seed, "dsbm pairs"))]
    for round_ in range(rounds):
        for back in (True, False):
            trained = backward if back else forward

            def loss(generator: torch.Generator, trained: Any = trained, back: bool = back) -> Tensor:
                return matching_loss(trained, first, second, sigma, generator, back)  # noqa: B023

            fit(trained, loss)
            g = stream(seed, "dsbm", round_, int(back))
            if back:
                first, second = simulate(end_drift(trained, True), x1, sigma, steps, g, True), x1
            else:
                first, second = x0, simulate(end_drift(trained), x0, sigma, steps, g)
    return forward, backward
