"""Few-step log density: the gathered divergence as one more field of the flow map, trained by the same loss.

d log / dt = div v makes (x, log) one more state with one more flow map, whose average velocity in `log` does not
depend on log itself. Along a trajectory log p falls by what has gathered. Beside `likelihood.log_density`, an ODE
solve, it costs one evaluation a jump; beside `jump_log_density`, no derivative.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from sciconsist.flowmap import FlowMap
from sciconsist.geometry import Euclidean, Product
from sciconsist.likelihood import divergence, log_prior, rademacher, refuse_tuned
from sciconsist.losses import LossParts, flow_map_loss
from sciconsist.recipes import Recipe
from sciconsist.sampling import jump
from sciconsist.schedules import TimesLike
from sciconsist.targets import on_path


class WithDensity(nn.Module):
    """F of {"x", "log"}: a frozen flow map's average velocity, and a network's average divergence `[B, 1]`."""

    def __init__(self, model: FlowMap, net: nn.Module) -> None:
        super().__init__()
        self.model, self.net = copy.deepcopy(model).requires_grad_(False), net

    def forward(self, x: dict[str, Tensor], s: Any, t: Any, condition: Any = None, mask: Any = None) -> Any:
        a, b = s["x"], t["x"]
        return {"x": self.model.average_velocity(x["x"], a, b, condition), "log": self.net(x["x"], a, b)}


def with_density(model: FlowMap, net: nn.Module) -> FlowMap:
    """The flow map of (x, log) around a model of vectors; `net(x, s, t)` gives `[B, 1]`. Train by `density_loss`."""
    refuse_tuned(model, "with_density")
    if not isinstance(model.geometry, Euclidean):
        raise ValueError("with_density: expected a model whose state is one Euclidean tensor")
    geometry = Product({"x": model.geometry, "log": Euclidean()})
    return FlowMap(WithDensity(model, net), model.path, geometry, "velocity")


def density_data(x: Tensor) -> dict[str, Tensor]:
    """Training data of the pair: nothing has gathered at time 0."""
    return {"x": x, "log": x.new_zeros(len(x), 1)}


def density_loss(
    joint: FlowMap, recipe: Recipe, x0: Any, noise: Any, *, progress: float = 1.0,
    generator: torch.Generator, condition: Any = None, **extra: Any,
) -> LossParts:  # fmt: skip
    """`flow_map_loss` of `density_data`, for `fit(loss=...)`; the linear path, and a self-distilling recipe.

    On the diagonal the velocity of log at x_s is Hutchinson's unbiased estimate of the divergence there: the
    noise of a field whose datum is 0. Off it the semigroup does as for every field.
    """
    model: FlowMap = joint.net.model  # type: ignore[union-attr, assignment]
    drawn = recipe.times.draw(len(x0["x"]), recipe.kind, progress, generator)
    s: Any = drawn.s
    x = on_path(model, x0["x"], noise["x"], s)
    probes = rademacher(x, None, generator)
    with torch.no_grad():
        _, gathered = divergence(lambda y: model.velocity(y, s, condition), x, probes)
    noise = {"x": noise["x"], "log": gathered[:, None].to(noise["x"].dtype)}
    return flow_map_loss(
        joint, recipe, x0, noise, progress=progress, generator=generator, condition=condition, times=drawn,
        field_weights={"x": 0.0},
    )  # fmt: skip


@torch.no_grad()
def few_step_log_density(
    joint: FlowMap, noise: Tensor, times: TimesLike = (1.0, 0.0), *, condition: Any = None
) -> tuple[Tensor, Tensor]:
    """Samples `[B, ...]` from `noise` by jumps, and the log density of each in nats `[B]`."""
    model: FlowMap = joint.net.model  # type: ignore[union-attr, assignment]
    start = {"x": noise, "log": noise.new_zeros(len(noise), 1)}
    end: Any = jump(joint, start, times, condition=condition)
    return end["x"], log_prior(model, noise, None) - end["log"][:, 0].double()
