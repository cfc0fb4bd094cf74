"""Sampling crystals: jumps of the flow map, or the annealed sampler, for any mix of what is given and what is free.

Every network evaluation counts as one step. Sample i of a seed depends on the seed and i alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from sciconsist.domains.crystals.adapter import CrystalDomain
from sciconsist.domains.crystals.crystals import pad
from sciconsist.domains.crystals.lattice import from_vector, to_vector
from sciconsist.domains.crystals.orbits import Orbits, stack
from sciconsist.flowmap import FlowMap
from sciconsist.random import per_sample_noise, stream
from sciconsist.state import expand


@dataclass(frozen=True)
class Plan:
    """How a crystal is drawn in `steps` network evaluations.

    `power` bends the time grid, ((n - k) / n)^power: above 1 it crowds the data's end. `jumps` says in how many of the
    first steps the network is told where they end (True: in all; a flow map or a distilled model); the others follow the
    diagonal (a teacher). There `boost` scales velocities by 1 + boost (1 - s), never past the endpoint: annealed sampling,
    which is no probability flow.
    """

    steps: int
    power: float = 1.0
    boost: float = 0.0
    jumps: bool | int = True

    def jumps_at(self, k: int) -> bool:
        return self.jumps is True or k < self.jumps

    def times(self, start: float = 1.0) -> list[float]:
        return [start * (1 - k / self.steps) ** self.power for k in range(self.steps)] + [0.0]


@dataclass(frozen=True)
class Request:
    """One crystal wanted. What is None is free.

    `numbers` `[N]` are its elements; without them `size` atoms are drawn from `allowed` classes `[K]`. `frac` `[N, 3]`
    and `vector` `[6]` describe a host; with one the cell is kept, sites of `fixed` `[N]` keep their place to the last bit
    and the others start from theirs, noised to `start` (1: from noise). `values`: e_above_hull, band_gap.
    """

    size: int
    numbers: np.ndarray | None = None
    allowed: np.ndarray | None = None
    values: tuple[float, float] = (np.nan, np.nan)
    space_group: int = 0
    frac: np.ndarray | None = None
    vector: np.ndarray | None = None
    fixed: np.ndarray | None = None
    start: float = 1.0
    sites: np.ndarray | None = None  # numbers of the host's sites that these atoms are
    orbits: Orbits | None = None  # Wyckoff positions of a space group that the atoms are kept on


@dataclass
class Sample:
    """One drawn crystal: atomic numbers `[N]`, coordinates `[N, 3]` in [0, 1), triangular cell `[3, 3]` Å, float64."""

    index: int
    request: Request
    numbers: np.ndarray
    frac: np.ndarray
    cell: np.ndarray

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self.frac).all() and np.isfinite(self.cell).all())


def draw_sizes(histogram: Mapping[int, int], indices: Sequence[int], seed: int, attempt: int = 0) -> list[int]:
    """Atom counts from a histogram, one independent draw a sample and attempt."""
    purpose = ("size", attempt) if attempt else ("size",)
    sizes = np.array(sorted(histogram))
    cumulative = np.cumsum([histogram[int(n)] for n in sizes], dtype=np.float64)
    draws = [torch.rand(1, generator=stream(seed, *purpose, i), dtype=torch.float64).item() for i in indices]
    return [int(sizes[np.searchsorted(cumulative, u * cumulative[-1], side="right")]) for u in draws]


@torch.no_grad()
def generate(
    model: FlowMap, requests: Sequence[Request], plan: Plan, *, seed: int = 0, first: int = 0, batch_size: int = 256
) -> Iterator[Sample]:  # fmt: skip
    """A sample for each request, in order; `first` is the index of the first. Results do not depend on `batch_size`."""
    model.eval()
    for begin in range(0, len(requests), batch_size):
        part = requests[begin : begin + batch_size]
        # crystals of like size share a batch, so that little is padding
        order = sorted(range(len(part)), key=lambda k: part[k].size)
        made: dict[int, Sample] = {}
        for few in np.array_split(order, max(1, len(part) // 64)):
            indices = [first + begin + int(k) for k in few]
            made |= {s.index: s for s in _batch(model, [part[int(k)] for k in few], indices, plan, seed)}
        yield from (made[first + begin + k] for k in range(len(part)))


def _batch(model: FlowMap, requests: Sequence[Request], indices: list[int], plan: Plan, seed: int) -> list[Sample]:
    domain: CrystalDomain = model.domain
    x, condition, mask, clocks = prepare(domain, requests, indices, seed)
    rows = [k for k, r in enumerate(requests) if r.orbits is not None]
    drawn = bool((clocks["species"] > 0).any())
    symmetric = Symmetric(rows, [o for r in requests if (o := r.orbits) is not None], drawn) if rows else None
    *_, (_, state, logits) = walk(model, x, condition, mask, clocks, plan, symmetric)
    classes = torch.where((clocks["species"] > 0)[:, None], logits.argmax(-1), state["species"].argmax(-1)).numpy()
    frac, cells = state["frac"].double().numpy(), domain.cells(state["lattice"], condition, mask["frac"])
    elements = np.array(domain.config.elements)
    samples = []
    for k, (request, index) in enumerate(zip(requests, indices)):
        n = request.size
        numbers = elements[classes[k, :n]] if request.numbers is None else np.asarray(request.numbers)
        place = frac[k, :n] % 1.0
        cell = cells[k]
        if request.orbits is not None:  # float32 is not exact enough for a group
            place, cell = request.orbits.place(place), request.orbits.cell(cell)
        if request.frac is not None and request.fixed is not None:
            place = np.where(request.fixed[:, None], request.frac, place)
        samples.append(Sample(index, request, numbers, place, cell))
    return samples


def walk(
    model: FlowMap, x: dict[str, Tensor], condition: dict[str, Tensor], mask: Any, clocks: Mapping[str, Tensor],
    plan: Plan, symmetric: Symmetric | None = None,
) -> Iterator[tuple[float, dict[str, Tensor], Tensor]]:  # fmt: skip
    """Every step's end from noise to data: its time, the state there, and the elements' logits `[B, N, K]`."""
    state = x if symmetric is None else symmetric.project(x, condition, lead=True)
    for k, (s, t) in enumerate(pairwise(plan.times())):
        now, then = ({f: c * u for f, c in clocks.items()} for u in (s, t))
        jump = plan.jumps_at(k)
        raw = cast(dict, model.raw(state, now, then if jump else now, condition, mask))
        if symmetric is not None:
            symmetric.share_elements(raw["species"])
        f = {name: model.rows[name].output(r, mask[name]) for name, r in raw.items()}
        f["frac"] = f["frac"] * (1.0 if jump else annealed(plan.boost, s, t))
        moved = cast(dict, model.apply_f(state, f, now, then, mask))
        state = {n: torch.where(expand(now[n] > 0, v), v, state[n]) for n, v in moved.items()}
        if symmetric is not None:
            state = symmetric.project(state, condition)
        yield t, state, raw["species"]


def annealed(boost: float, s: float, t: float) -> float:
    """Factor of the velocity from s to t: 1 + boost (1 - s), but not so much that the step goes past the endpoint."""
    return min(1 + boost * (1 - s), max(1.0, s / (s - t)))


@dataclass
class Symmetric:
    """The crystals of a batch that keep a space group: `rows` `[M]` of the batch, and their orbits.

    `drawn`: elements are not given everywhere, and are an orbit's as well.
    """

    rows: list[int]
    orbits: list[Orbits]
    drawn: bool

    def __post_init__(self) -> None:
        sizes = [o.size for o in self.orbits]
        self.stack = stack(self.orbits)
        self.size = torch.tensor(sizes)
        self.row, self.atom = np.repeat(self.rows, sizes), np.concatenate([np.arange(n) for n in sizes])

    def project(self, state: dict[str, Tensor], condition: dict[str, Tensor], lead: bool = False) -> dict[str, Tensor]:
        """The state with cells, coordinates and elements put onto the orbits.

        `lead` spreads the first atom's noise over its orbit, where a mean would have less than noise's variance.
        """
        state = {name: x.clone() for name, x in state.items()}
        places = self.stack.leads(state["frac"][self.row, self.atom].double().numpy(), lead)
        state["frac"][self.row, self.atom] = torch.from_numpy(self.stack.carried(places) % 1.0).to(state["frac"].dtype)
        mean, std = (condition[name][self.rows].double() for name in ("mean", "std"))
        cells = from_vector(state["lattice"][self.rows].double() * std + mean, self.size).numpy()
        vectors = torch.from_numpy(to_vector(self.stack.cells(cells), self.size.numpy()))
        state["lattice"][self.rows] = ((vectors - mean) / std).to(state["lattice"].dtype)
        self.share_elements(state["species"], lead)
        return state

    def share_elements(self, species: Tensor, lead: bool = False) -> None:
        """Give every atom of an orbit the orbit's mean row (`lead`: its first atom's), in place: `[B, N, K]`."""
        if not self.drawn:
            return
        for row, orbits in zip(self.rows, self.orbits):
            for atoms in orbits.members:
                own = species[row, atoms]
                species[row, atoms] = (own[0] if lead else own.mean(0)).clone()


def prepare(
    domain: CrystalDomain, requests: Sequence[Request], indices: Sequence[int], seed: int
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any], dict[str, Tensor]]:
    """Starting state, condition, masks, and each field's clock (its time at the plan's 1) of a batch."""
    zero = np.zeros
    classes = [zero(r.size, int) if r.numbers is None else domain.classes(r.numbers) for r in requests]
    places = [zero((r.size, 3)) if r.frac is None else r.frac for r in requests]
    vectors = [zero(6) if r.vector is None else r.vector for r in requests]
    padded = pad(classes, places, vectors)
    node = padded.mask
    fixed = torch.zeros_like(node)
    for k, r in enumerate(requests):
        if r.fixed is not None:
            fixed[k, : r.size] = torch.from_numpy(np.asarray(r.fixed, dtype=bool))
    allowed = None
    if any(r.allowed is not None for r in requests):
        every = np.ones(len(domain.config.elements), dtype=bool)
        allowed = torch.from_numpy(np.stack([every if r.allowed is None else r.allowed for r in requests]))
    condition = domain.condition(
        node, torch.tensor([r.values for r in requests], dtype=torch.float32),
        torch.tensor([r.space_group for r in requests]), fixed, allowed,
    )  # fmt: skip
    mask: Any = domain.masks(node)
    x0 = domain.encode(padded, condition)
    noise = cast(dict, per_sample_noise(domain.geometry, x0, seed, indices, mask))
    start = torch.tensor([r.start for r in requests])
    has_cell = torch.tensor([r.vector is not None for r in requests])
    has_species = torch.tensor([r.numbers is not None for r in requests])
    clocks = {
        "frac": start,
        "lattice": torch.where(has_cell, 0.0, start),
        "species": torch.where(has_species, 0.0, start),
    }
    torus = domain.geometry["frac"]
    arc = torus.log(x0["frac"], noise["frac"]) * expand(start, x0["frac"])  # type: ignore[union-attr]
    partly = torus.exp(x0["frac"], arc)  # type: ignore[union-attr]
    anchored = fixed.unsqueeze(-1)
    whole = torch.tensor([r.frac is None for r in requests])[:, None, None]
    x = {
        "frac": torch.where(anchored, x0["frac"], torch.where(whole, noise["frac"], partly)) * node.unsqueeze(-1),
        "lattice": torch.where(has_cell[:, None], x0["lattice"], noise["lattice"]),
        "species": torch.where(has_species[:, None, None], x0["species"], noise["species"]),
    }
    return x, condition, mask, clocks
