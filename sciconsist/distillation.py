"""Distillation beyond one row of the table: in stages, each student the next one's teacher, and in feature space."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from torch import Tensor

from sciconsist.flowmap import FlowMap
from sciconsist.losses import LossParts, Metric, flow_map_loss
from sciconsist.recipes import RECIPES, Recipe
from sciconsist.state import Mask, State, leaves
from sciconsist.times import Split
from sciconsist.training import FitResult, fit


def progressive(
    model: FlowMap, data: Any, *, steps: int, recipe: Recipe = RECIPES["pd"], **options: Any
) -> list[FitResult]:
    """Salimans and Ho 2022: halve the steps `recipe.times.levels` times, `steps` training steps in all.

    `model` is the flow-matching teacher on the way in and the student on the way out. `options` go to `fit`.
    """
    levels = recipe.times.levels
    edges = [k * steps // levels for k in range(levels + 1)]
    results = []
    for stage, (begin, end) in enumerate(pairwise(edges)):

        def at_stage(*args: Any, progress: float, stage: int = stage, **kwargs: Any) -> LossParts:
            return flow_map_loss(*args, progress=(stage + min(progress, 1 - 1e-6)) / levels, **kwargs)

        teacher = copy.deepcopy(model)
        results.append(fit(model, recipe, data, steps=end - begin, teacher=teacher, loss=at_stage, **options))
    return results


def feature_metric(features: Callable[[State], Tensor], share: float = 0.5) -> Metric:
    """A `metric` for `fit`: squared distance of frozen `features` `[B, ...]`, blended with the state's own by `share`.

    Meant for endpoint rows, whose F is a point of the data's space (LPIPS in the consistency literature). The
    features of a mean are not the mean of features: with conditional velocities this moves the minimiser, so
    take it with a teacher, or late.
    """

    def metric(output: State, target: State, times: Split, mask: Mask) -> Tensor:
        plain = sum((a - b).square().flatten(1).mean(1) for a, b in zip(leaves(output), leaves(target)))
        apart = (features(output) - features(target).detach()).square().flatten(1).mean(1)
        return share * apart + (1 - share) * plain

    return metric
