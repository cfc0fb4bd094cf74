"""A few seconds of training: recipes land near the exact one-dimensional map; the identity and one Euler step do not."""

from __future__ import annotations

import copy
import itertools
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from sciconsist.exact import Mixture
from sciconsist.flowmap import FlowMap
from sciconsist.losses import flow_map_loss
from sciconsist.paths import Linear
from sciconsist.recipes import RECIPES
from tests.core.exact_maps import column

DATA = Mixture(column(0.3, 0.7), column(-2.0, 1.0)[:, None], column(0.3, 0.5))
DATA_STD = 1.45
STEPS, BATCH = 700, 256


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(0)
            self.layers = nn.Sequential(nn.Linear(7, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))

    def forward(self, x: Tensor, s: Tensor, t: Tensor) -> Tensor:
        clocks = [s, t, torch.cos(3 * s), torch.cos(3 * t), s - t, (s - t).square()]
        return self.layers(torch.cat([x, *(c[:, None] for c in clocks)], -1))


@cache
def trained(name: str, steps: int = STEPS) -> FlowMap:
    """A model after `steps` steps of Adam; teachers are the flow-matching model of this file."""
    model = FlowMap(Small(), Linear(), None, "preconditioned", DATA_STD)
    teacher = trained("fm", 1000) if RECIPES[name].needs_teacher else None
    if teacher is not None:
        model.load_state_dict(teacher.state_dict())
    average = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for k in range(steps):
        x0 = DATA.sample(BATCH, generator).float()
        noise = torch.randn(BATCH, 1, generator=generator)
        loss = flow_map_loss(
            model,
            RECIPES[name],
            x0,
            noise,
            progress=k / steps,
            generator=generator,
            teacher=teacher,
            target_model=average,
        )
        optimizer.zero_grad()
        loss.total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - k / steps) + 1e-5
        optimizer.step()
        with torch.no_grad():
            for a, p in zip(average.parameters(), model.parameters()):
                a.lerp_(p, 0.05)
    return model


def distance(model: FlowMap, times: tuple[float, ...]) -> float:
    """Mean |X_{1,0} - exact| over the prior's 2 to 98 per cent quantiles, jumping through `times`."""
    x = torch.special.ndtri(torch.linspace(0.02, 0.98, 97, dtype=torch.float64))[:, None]
    exact = DATA.flow_map(Linear(), x, 1.0, 0.0)
    y = x.float()
    with torch.no_grad():
        for s, t in itertools.pairwise(times):
            y = model(y, s, t)
    return (y - exact).abs().mean().item()


def euler(model: FlowMap, steps: int) -> float:
    x = torch.special.ndtri(torch.linspace(0.02, 0.98, 97, dtype=torch.float64))[:, None]
    exact = DATA.flow_map(Linear(), x, 1.0, 0.0)
    y = x.float()
    with torch.no_grad():
        for k in range(steps):
            y = y - model.velocity(y, 1 - k / steps) / steps
    return (y - exact).abs().mean().item()


ONE_STEP = (1.0, 0.0)
NAMES = [n for n in RECIPES if n not in ("fm", "reflow", "pd")]


def test_flow_matching_needs_many_steps() -> None:
    model = trained("fm", 1000)
    assert euler(model, 50) < 0.15
    assert euler(model, 1) > 0.5


@pytest.mark.parametrize("name", NAMES)
def test_one_step_lands_near_the_exact_map(name: str) -> None:
    found = distance(trained(name), ONE_STEP)
    print(name, round(found, 3), round(distance(trained(name), (1.0, 0.5, 0.0)), 3), round(euler(trained(name), 50), 3))
