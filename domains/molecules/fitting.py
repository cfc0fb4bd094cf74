"""Fitting a small network once to the training data, before the generating network is trained."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sciconsist.progress import Progress
from sciconsist.random import stream

WARMUP = 100  # steps until the full rate


@dataclass(frozen=True)
class Effort:
    """How long to fit: `passes` over the data in batches of `batch`, `least` steps for few; `steps` and `minutes` at most."""

    passes: int
    least: int
    batch: int
    rate: float
    steps: int | None = None
    minutes: float | None = None


def anneal(
    network: nn.Module, count: int, loss: Callable[[Tensor], Tensor], effort: Effort, seed: int, name: str, show: bool
) -> None:  # fmt: skip
    """Adam on the `loss` of batches of indices below `count`, its rate falling to 0 by a cosine. `show`: a bar of this name."""
    chance = stream(seed, name, 0)
    batches = -(-count // effort.batch)
    most = max(effort.passes * batches, effort.least)
    most = most if effort.steps is None else min(effort.steps, most)
    network.requires_grad_(True)
    optimiser = torch.optim.Adam(network.parameters(), lr=effort.rate)
    begin, done, step = time.monotonic(), 0.0, 0
    with Progress(show, most, None, f"{name} of the graphs") as bar:
        while done < 1.0:
            if step % batches == 0:
                order = torch.randperm(count, generator=chance)
            for group in optimiser.param_groups:
                group["lr"] = effort.rate * min(1.0, (step + 1) / WARMUP) * 0.5 * (1 + math.cos(math.pi * done))
            off = loss(order[step % batches * effort.batch :][: effort.batch])
            optimiser.zero_grad()
            off.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            step += 1
            done = step / most
            if effort.minutes is not None:
                done = max(done, (time.monotonic() - begin) / (60.0 * effort.minutes))
            bar.update(step, 0.0, {"loss": float(off.detach())})
    network.requires_grad_(False)  # what is trained afterwards leaves it as it is
