"""Sampling molecules: jumps of the flow map settle the graph, decoding makes it valid, refinement places the atoms.

Every network evaluation counts as one step. Sample i of a seed depends on the seed and i alone, so any batch
size gives the same molecules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import cast

import numpy as np
import torch
from rdkit import Chem
from torch import Tensor

from sciconsist.domains.molecules.adapter import MoleculeDomain
from sciconsist.domains.molecules.decode import DecodedGraph, decode_graph
from sciconsist.domains.molecules.graphs import HeavyGraph, pad_graphs
from sciconsist.domains.molecules.hydrogens import assemble
from sciconsist.flowmap import FlowMap
from sciconsist.random import stream


@dataclass(frozen=True)
class Plan:
    """How `steps` network evaluations are divided: `jumps` for the graph, then `refine` with the graph held.

    `power` bends the time grid of the jumps ((k/n)^power, more than 1 crowds the data end); `start` is the time to
    which positions are noised again before refinement; `gamma` is how much of each jump is re-noised.
    """

    jumps: int
    refine: int
    power: float = 1.0
    start: float = 0.3
    gamma: float = 0.0

    @property
    def steps(self) -> int:
        return self.jumps + self.refine

    def graph_times(self) -> list[float]:
        return [(1 - k / self.jumps) ** self.power for k in range(self.jumps)] + [0.0]

    def refine_times(self) -> list[float]:
        return [self.start * (1 - k / self.refine) for k in range(self.refine)] + [0.0]


@dataclass
class Sample:
    """One generated molecule and how it came about."""

    index: int
    mol: Chem.Mol
    graph: DecodedGraph
    size: int
    notes: dict[str, object] = field(default_factory=dict)


def plan_steps(steps: int) -> Plan:
    """The division that measured best (docs/experiments.md)."""
    refine = {1: 0, 2: 1, 3: 1, 4: 2, 5: 2, 6: 3, 7: 3}.get(steps, 4)
    return Plan(steps - refine, refine)


def draw_sizes(histogram: Mapping[int, int], indices: Sequence[int], seed: int) -> list[int]:
    """Heavy-atom counts from the training histogram, one independent draw a sample."""
    sizes = np.array(sorted(histogram))
    cumulative = np.cumsum([histogram[int(n)] for n in sizes], dtype=np.float64)
    draws = [torch.rand(1, generator=stream(seed, "size", i), dtype=torch.float64).item() for i in indices]
    return [int(sizes[np.searchsorted(cumulative, u * cumulative[-1], side="right")]) for u in draws]


def draw_noise(
    domain: MoleculeDomain, sizes: Sequence[int], indices: Sequence[int], seed: int, purpose: str
) -> dict[str, Tensor]:
    """Prior noise of a batch, each sample from its own stream, padded to the largest."""
    size, classes = max(sizes), len(domain.vocabulary)
    shapes = {"positions": (size, 3), "atoms": (size, classes), "bonds": (size, size, 4)}
    noise = {name: torch.zeros(len(sizes), *shape) for name, shape in shapes.items()}
    for k, (n, i) in enumerate(zip(sizes, indices, strict=True)):
        generator = stream(seed, purpose, i)
        flat = torch.randn(n * 3 + n * classes + n * n * 4, generator=generator)
        x, a, b = flat.split([n * 3, n * classes, n * n * 4])
        x = x.view(n, 3)
        noise["positions"][k, :n] = x - x.mean(0)
        noise["atoms"][k, :n] = a.view(n, classes)
        upper = torch.ones(n, n, dtype=torch.bool).triu(1)[..., None]
        b = b.view(n, n, 4) * upper
        noise["bonds"][k, :n, :n] = b + b.transpose(0, 1)
    return noise


@torch.no_grad()
def settle_graphs(
    model: FlowMap,
    noise: dict[str, Tensor],
    condition: dict[str, Tensor],
    mask: dict[str, Tensor],
    plan: Plan,
    fresh: Sequence[torch.Generator] | None = None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Jump from noise to data. Returns the state at time 0 and the raw output of the last evaluation (its logits)."""
    x, raw = noise, noise
    for s, t in pairwise(plan.graph_times()):
        raw = cast(dict[str, Tensor], model.raw(x, s, t, condition, mask))
        f = {name: model.rows[name].output(r, mask[name]) for name, r in raw.items()}
        if plan.gamma > 0 and t > 0 and fresh is not None:
            x = _renoise(model, x, f, s, t, mask, plan.gamma, fresh)
        else:
            x = cast(dict[str, Tensor], model.apply_f(x, f, s, t, mask))
    return x, raw


def _renoise(
    model: FlowMap,
    x: dict[str, Tensor],
    f: dict[str, Tensor],
    s: float,
    t: float,
    mask: dict[str, Tensor],
    gamma: float,
    fresh: Sequence[torch.Generator],
) -> dict[str, Tensor]:
    """Jump, with the noise part of the linear path rotated toward fresh noise: variance kept, `gamma` = 1 all new."""
    out = {}
    for name, value in x.items():
        old = (value - (1 - s) * f[name]) / s
        shape, n_real = value.shape[1:], mask["atoms"].sum(1)
        new = torch.zeros_like(value)
        for k, generator in enumerate(fresh):
            n = int(n_real[k])
            real = (*tuple(n if d == value.shape[1] else d for d in shape[:-1]), shape[-1])
            place: tuple[int | slice, ...] = (k, *(slice(0, r) for r in real))
            new[place] = torch.randn(real, generator=generator)
        if name == "bonds":
            upper = torch.ones(shape[:2], dtype=torch.bool).triu(1)[..., None]
            new = new * upper + (new * upper).transpose(1, 2)
        noise = (1 - gamma) ** 0.5 * old + gamma**0.5 * model.rows[name].geometry.project(new, mask[name])
        out[name] = (1 - t) * f[name] + t * noise
    return out


@torch.no_grad()
def place_atoms(
    model: FlowMap, graphs: Sequence[HeavyGraph], noise: Tensor, times: Sequence[float]
) -> list[np.ndarray]:
    """Positions of given graphs: from noise (times start at 1) or from their own positions noised to `times[0]`.

    `noise` `[B, N, 3]` has zero mean; returns `[N, 3]` arrays in Å.
    """
    domain: MoleculeDomain = model.domain
    padded = pad_graphs(graphs)
    state, condition, mask = domain.encode(padded)
    start = times[0]
    state["positions"] = (1 - start) * state["positions"] + start * noise
    held = torch.zeros(len(graphs))
    for s, t in pairwise(times):
        clock_s = {"positions": torch.full_like(held, s), "atoms": held, "bonds": held}
        clock_t = {"positions": torch.full_like(held, t), "atoms": held, "bonds": held}
        moved = model(state, clock_s, clock_t, condition, mask)
        state = {**state, "positions": moved["positions"]}
    positions = (state["positions"] * condition["length_scale"][:, None, None]).double().numpy()
    return [positions[k, : len(g)] for k, g in enumerate(graphs)]


def generate(
    model: FlowMap,
    count: int,
    plan: Plan,
    *,
    seed: int = 0,
    first: int = 0,
    sizes: Sequence[int] | None = None,
    batch_size: int = 64,
    allowed: np.ndarray | None = None,
) -> Iterator[Sample]:
    """Samples `first .. first + count` of a seed, in order. `allowed` `[K]` masks classes (exact element sets)."""
    domain: MoleculeDomain = model.domain
    model.eval()
    for begin in range(first, first + count, batch_size):
        indices = list(range(begin, min(begin + batch_size, first + count)))
        if sizes is None:
            chosen = draw_sizes(domain.config.size_histogram, indices, seed)
        else:
            chosen = [sizes[i % len(sizes)] for i in indices]
        yield from _batch(model, indices, chosen, plan, seed, allowed)


def _batch(
    model: FlowMap, indices: list[int], sizes: list[int], plan: Plan, seed: int, allowed: np.ndarray | None
) -> Iterator[Sample]:
    domain: MoleculeDomain = model.domain
    node = torch.arange(max(sizes))[None] < torch.tensor(sizes)[:, None]
    mask = domain.masks(node)
    condition = domain.condition(node)
    noise = draw_noise(domain, sizes, indices, seed, "prior")
    fresh = [stream(seed, "renoise", i) for i in indices] if plan.gamma > 0 else None
    state, raw = settle_graphs(model, noise, condition, mask, plan, fresh)
    atoms = torch.log_softmax(raw["atoms"].double(), -1).numpy()
    bonds = torch.log_softmax(raw["bonds"].double(), -1).numpy()
    positions = (state["positions"] * condition["length_scale"][:, None, None]).double().numpy()
    decoded, heavy = [], []
    for k, n in enumerate(sizes):
        permitted = None if allowed is None else np.broadcast_to(allowed, (n, len(domain.vocabulary)))
        graph = decode_graph(atoms[k, :n], bonds[k, :n, :n], domain.vocabulary, permitted)
        decoded.append(graph)
        heavy.append(HeavyGraph(graph.classes, graph.orders, positions[k, :n]))
    if plan.refine:
        again = draw_noise(domain, sizes, indices, seed, "refine")["positions"]
        placed = place_atoms(model, heavy, again, plan.refine_times())
    else:
        placed = [g.positions for g in heavy if g.positions is not None]
    for k, graph in enumerate(decoded):
        mol = assemble(graph.classes, graph.orders, placed[k], domain.vocabulary)
        yield Sample(indices[k], mol, graph, sizes[k])
