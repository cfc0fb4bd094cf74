"""The seven targets of the core's benchmark: data, a network, the exact map from noise where there is one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from sciconsist.exact import Gaussian, Mixture, TorusMixture
from sciconsist.flowmap import FlowMap
from sciconsist.geometry import Euclidean, Geometry, Simplex, Torus
from sciconsist.nn.fields import Fields
from sciconsist.nn.mlp import MLP
from sciconsist.nn.points import Points
from sciconsist.paths import Linear
from sciconsist.state import apply_mask

F64 = torch.float64
Draw = Callable[[int, torch.Generator], tuple[Any, Any]]  # (count, generator) -> state, mask


@dataclass(frozen=True)
class Target:
    """`model(seed)` is a fresh flow map; `exact(noise)` its X_{1,0}; `compare` what W2 looks at, on `ground`."""

    name: str
    data: Draw
    model: Callable[[int], FlowMap]
    exact: Callable[[Tensor], Tensor] | None = None
    compare: Callable[[Any, Any], Any] = lambda x, mask: x
    ground: Geometry | None = None
    batch: int = 256
    rate: float = 8e-3


def fresh(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A network whose first weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        return build()


def flat(name: str, mixture: Mixture, data_std: float) -> Target:
    size = mixture.means.shape[1]

    def draw(count: int, generator: torch.Generator) -> tuple[Tensor, None]:
        return mixture.sample(count, generator).float(), None

    return Target(
        name,
        draw,
        lambda seed: FlowMap(fresh(lambda: MLP(size), seed), Linear(), Euclidean(), None, data_std),
        lambda noise: mixture.flow_map(Linear(), noise.double(), 1.0, 0.0, 200),
    )


def gaussians8() -> Target:
    angle = torch.arange(8, dtype=F64) * math.pi / 4
    means = 2 * torch.stack([angle.cos(), angle.sin()], 1)
    return flat(
        "gaussians8", Mixture(torch.full((8,), 1 / 8, dtype=F64), means, torch.full((8,), 0.15, dtype=F64)), 1.4
    )


def moons() -> Target:
    """Two half circles with noise .1, as 32 Gaussians each, 1.5 widths apart: a ripple of 1e-3."""
    angle = (torch.arange(32, dtype=F64) + 0.5) * math.pi / 32
    upper = torch.stack([angle.cos(), angle.sin()], 1)
    lower = torch.stack([1 - angle.cos(), 0.5 - angle.sin()], 1)
    means = 1.5 * (torch.cat([upper, lower]) - torch.tensor([0.5, 0.25], dtype=F64))
    weights = torch.full((64,), 1 / 64, dtype=F64)
    return flat("moons", Mixture(weights, means, torch.full((64,), 0.1, dtype=F64)), 1.0)


def mixture1d() -> Target:
    weights, means, stds = (torch.tensor(v, dtype=F64) for v in ([0.3, 0.7], [[-2.0], [1.0]], [0.3, 0.5]))
    return flat("mixture1d", Mixture(weights, means, stds), 1.45)


def torus() -> Target:
    means = torch.tensor([[0.1, 0.2], [0.9, 0.6], [0.4, 0.8], [0.6, 0.4]], dtype=F64)
    weights = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=F64)
    data = TorusMixture(weights, means, torch.tensor([0.04, 0.05, 0.06, 0.05], dtype=F64))

    def draw(count: int, generator: torch.Generator) -> tuple[Tensor, None]:
        return data.sample(count, generator).float(), None

    return Target(
        "torus",
        draw,
        lambda seed: FlowMap(fresh(lambda: MLP(2, periodic=True), seed), Linear(), Torus()),
        lambda noise: data.flow_map(noise, 1.0, 0.0, 200),
        ground=Torus(),
    )


def categories() -> Target:
    """Two correlated variables of four classes, `[B, 2, 4]`: the exact ODE ends in one of sixteen corners."""
    geometry = Simplex(2.0)
    joint = torch.tensor(
        [[0.20, 0.02, 0.01, 0.02], [0.02, 0.15, 0.05, 0.03], [0.02, 0.03, 0.20, 0.05], [0.10, 0.01, 0.01, 0.08]],
        dtype=F64,
    ).flatten()
    eye = geometry.scale * torch.eye(4, dtype=F64)
    corners = torch.cat([eye.repeat_interleave(4, 0), eye.repeat(4, 1)], 1)
    mixture = Mixture(joint, corners, torch.full((16,), 0.01, dtype=F64))

    def draw(count: int, generator: torch.Generator) -> tuple[Tensor, None]:
        k = torch.multinomial(joint, count, replacement=True, generator=generator)
        return corners[k].float().view(-1, 2, 4), None

    def exact(noise: Tensor) -> Tensor:
        end = mixture.integrate(Linear(), noise.double().flatten(1), 1.0, 0.0, 400).view(-1, 2, 4)
        return geometry.encode(end.argmax(-1), 4).double()

    return Target(
        "categories", draw, lambda seed: FlowMap(fresh(lambda: MLP(8), seed), Linear(), geometry), exact
    )  # fmt: skip


def points() -> Target:
    """Regular rings of 4 to 6 points a unit apart, turned at random, noise .05: `[B, 6, 3]` with a mask.

    W2 is between the sorted lists of distances, which know no rotation and no order.
    """
    slots, sizes = 6, (4, 5, 6)

    def draw(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        n = torch.tensor(sizes).repeat(count // len(sizes) + 1)[:count]
        mask = torch.arange(slots) < n[:, None]
        angle = 2 * math.pi * torch.arange(slots) / n[:, None]
        ring = torch.stack([angle.cos(), angle.sin(), torch.zeros_like(angle)], -1)
        ring = ring / (2 * torch.sin(math.pi / n)[:, None, None])
        turn = torch.linalg.qr(torch.randn(count, 3, 3, generator=generator))[0]
        ring = ring @ turn + 0.05 * torch.randn(count, slots, 3, generator=generator)
        return Euclidean(zero_com=True).project(ring, mask), mask

    def distances(x: Tensor, mask: Tensor) -> Tensor:
        first, second = torch.triu_indices(slots, slots, 1)
        pair = mask[:, first] & mask[:, second]
        return apply_mask((x[:, first] - x[:, second]).norm(dim=-1), pair).sort(1, descending=True).values

    return Target(
        "points",
        draw,
        lambda seed: FlowMap(fresh(Points, seed), Linear(), Euclidean(zero_com=True), None, 0.55),
        compare=distances,
        batch=48,
        rate=4e-3,
    )


def field() -> Target:
    """A Gaussian random field on a periodic 8 x 8 grid, power falling with wave number as (1 + k^2)^-2: `[B, 1, 8, 8]`.

    A stand-in for a climate residual: the network is convolutional, and the small scales, with a hundredth of the
    largest one's power, are what a short training loses. W2 is between amplitudes in four bands of wave number,
    each relative to its true root mean square.
    """
    side = 8
    k = torch.fft.fftfreq(side, 1 / side, dtype=F64)
    wave = (k[:, None].square() + k.square()).sqrt()
    power = (1 + wave.square()) ** -2
    power = power / power.mean()  # unit variance at every point
    shifts = torch.fft.ifft2(power).real
    place = torch.arange(side)
    row, column = (v.flatten() for v in torch.meshgrid(place, place, indexing="ij"))
    law = Gaussian(
        torch.zeros(side * side, dtype=F64),
        shifts[(row[:, None] - row) % side, (column[:, None] - column) % side],
    )
    edges = (0.0, 1.5, 2.5, 3.5, 9.0)
    bands = torch.stack([((wave >= a) & (wave < b)).double() for a, b in pairwise(edges)]).flatten(1)
    bands = bands / (bands * power.flatten()).sum(1, keepdim=True) / side**2

    def draw(count: int, generator: torch.Generator) -> tuple[Tensor, None]:
        white = torch.randn(count, 1, side, side, generator=generator, dtype=F64)
        return torch.fft.ifft2(torch.fft.fft2(white) * power.sqrt()).real.float(), None

    def amplitudes(x: Tensor, mask: Any) -> Tensor:
        return (torch.fft.fft2(x.double()).abs().square().flatten(1) @ bands.T).sqrt()

    return Target(
        "field",
        draw,
        lambda seed: FlowMap(fresh(Fields, seed)),
        lambda noise: law.flow_map(Linear(), noise.double().flatten(1), 1.0, 0.0).view_as(noise),
        compare=amplitudes,
        batch=48,
        rate=4e-3,
    )


TARGETS: dict[str, Target] = {
    t.name: t for t in (gaussians8(), mixture1d(), torus(), categories(), points(), moons(), field())
}
