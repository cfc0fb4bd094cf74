"""Sampling molecules: jumps of the flow map settle the graph, decoding makes it valid, refinement places the atoms.

Every network evaluation counts as one step. Sample i of a seed depends on the seed and i alone, so any batch
size gives the same molecules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch
from rdkit import Chem
from torch import Tensor

from sciconsist.domains.molecules.adapter import MoleculeDomain
from sciconsist.domains.molecules.completion import Given
from sciconsist.domains.molecules.decode import CHARGE, DecodedGraph, kekule_choices
from sciconsist.domains.molecules.distance_network import DistanceNetwork
from sciconsist.domains.molecules.distances import restraints, settle
from sciconsist.domains.molecules.fulfil import ALL, RINGS, Preference, decode_told
from sciconsist.domains.molecules.graphs import HeavyGraph, pad_graphs
from sciconsist.domains.molecules.hydrogens import FAILED, all_positions, aromatic, skeleton, whole_molecule
from sciconsist.domains.molecules.position_network import PositionNetwork, correct_positions
from sciconsist.domains.molecules.vocabulary import AROMATIC
from sciconsist.domains.molecules.wishes import NOTHING, Told, Wish, draw_told, told_elements, told_tensor
from sciconsist.flowmap import FlowMap
from sciconsist.random import stream

State = dict[str, Tensor]


@dataclass(frozen=True)
class Plan:
    """How `steps` network evaluations are divided: `jumps` for the graph, then `refine` with the graph held.

    `power` bends the time grid of the jumps ((k/n)^power, more than 1 crowds the data end); `start` is the time to
    which positions are noised again before refinement, `refine_power` bends its grid: what is left to do there is to
    settle bond lengths, at the data's very end; `gamma` is how much of each jump is re-noised. `trust`, Å, is how far
    off the network's positions are taken to be when the graph's own distances are asked (`distances`; 0: not), at the
    end, and `jump_trust` before refinement.
    `steps` counts every evaluation of the network.
    """

    jumps: int
    refine: int
    power: float = 1.0
    start: float = 0.2
    refine_power: float = 4.0
    gamma: float = 0.0
    trust: float = 0.05
    jump_trust: float = 0.12
    guided: bool = False  # guidance asks the network twice a jump

    @property
    def steps(self) -> int:
        return self.jumps * (2 if self.guided else 1) + self.refine

    def graph_times(self) -> list[float]:
        return [(1 - k / self.jumps) ** self.power for k in range(self.jumps)] + [0.0]

    def refine_times(self) -> list[float]:
        return [self.start * (1 - k / self.refine) ** self.refine_power for k in range(self.refine)] + [0.0]


@dataclass
class Sample:
    """One generated molecule and how it came about."""

    index: int
    mol: Chem.Mol
    graph: DecodedGraph
    size: int
    told: dict[str, float] = field(default_factory=dict)  # property values the network was told
    wrong: str = ""  # why the atoms given are not in it as they should be
    measured: dict[str, float] = field(default_factory=dict)  # the same properties of what came out


def plan_steps(steps: int, guided: bool = False) -> Plan:
    """The division that measured best (docs/experiments.md); guided jumps cost two evaluations."""
    refine = {1: 0, 2: 1, 3: 2, 4: 2, 5: 2, 6: 3, 7: 3}.get(steps, 4)
    jumps = steps - refine
    if guided:
        jumps, refine = max(1, jumps // 2), max(0, min(refine, steps - 2))
    start, trust = 0.1 if refine == 1 else 0.3, 0.05 if refine else 0.12
    return Plan(jumps, refine, power=0.5, start=start, trust=trust, guided=guided)


def draw_noise(
    domain: MoleculeDomain,
    sizes: Sequence[int],
    indices: Sequence[int],
    seed: int,
    purpose: str,
    given: Given | None = None,
) -> State:
    """Prior noise of a batch, each sample from its own stream, padded to the largest; paired with given atoms."""
    size, classes, kinds = max(sizes), len(domain.vocabulary), domain.config.bond_classes
    shapes = {"positions": (size, 3), "atoms": (size, classes), "bonds": (size, size, kinds)}
    noise = {name: torch.zeros(len(sizes), *shape) for name, shape in shapes.items()}
    for k, (n, i) in enumerate(zip(sizes, indices, strict=True)):
        flat = torch.randn(n * 3 + n * classes + n * n * kinds, generator=stream(seed, purpose, i))
        x, a, b = flat.split([n * 3, n * classes, n * n * kinds])
        noise["positions"][k, :n] = x.view(n, 3)
        noise["atoms"][k, :n] = a.view(n, classes)
        noise["bonds"][k, :n, :n] = b.view(n, n, kinds)
    upper = torch.ones(size, size, dtype=torch.bool).triu(1)[..., None]
    noise["bonds"] *= upper
    noise["bonds"] += noise["bonds"].transpose(1, 2).clone()
    for k, n in enumerate(sizes):
        noise["positions"][k, :n] -= noise["positions"][k, :n].mean(0)
        if given is not None:
            own = {m: v[k, :n, :n] if m == "bonds" else v[k, :n] for m, v in noise.items()}
            for m, value in given.couple(own).items():
                noise[m][(k, slice(n), slice(n)) if m == "bonds" else (k, slice(n))] = value
    return noise


def draw_positions(sizes: Sequence[int], indices: Sequence[int], seed: int, purpose: str) -> Tensor:
    """Prior noise of positions alone, `[B, N, 3]`, each sample from its own stream and centred."""
    noise = torch.zeros(len(sizes), max(sizes), 3)
    for k, (n, i) in enumerate(zip(sizes, indices, strict=True)):
        x = torch.randn(n, 3, generator=stream(seed, purpose, i))
        noise[k, :n] = x - x.mean(0)
    return noise


def ask(model: FlowMap, x: State, s: Any, t: Any, condition: State, mask: State, guidance: float) -> State:
    """The network's output; away from the untold one by `guidance` (Ho & Salimans 2022), which asks it twice."""
    raw = cast(State, model.raw(x, s, t, condition, mask))  # type: ignore[arg-type]
    if guidance == 1.0:
        return raw
    untold = {
        **condition,
        "values": torch.zeros_like(condition["values"]),
        "known": torch.zeros_like(condition["known"]),
    }
    plain = cast(State, model.raw(x, s, t, untold, mask))  # type: ignore[arg-type]
    return {name: plain[name] + guidance * (raw[name] - plain[name]) for name in raw}


@torch.no_grad()
def settle_graphs(
    model: FlowMap,
    noise: State,
    condition: State,
    mask: State,
    plan: Plan,
    fresh: Sequence[torch.Generator] | None = None,
    guidance: float = 1.0,
    given: Given | None = None,
) -> tuple[State, State]:
    """Jump from noise to data. Returns the state at time 0 and the raw output of the last evaluation (its logits)."""
    x, raw = noise, noise
    for s, t in pairwise(plan.graph_times()):
        raw = ask(model, x, s, t, condition, mask, guidance)
        f = {name: model.rows[name].output(r, mask[name]) for name, r in raw.items()}
        if given is not None:
            x, f = given.impose(x, f, condition["length_scale"], mask["atoms"].sum(1))
        if plan.gamma > 0 and t > 0 and fresh is not None:
            x = _renoise(model, x, f, s, t, mask, plan.gamma, fresh)
        else:
            x = cast(State, model.apply_f(x, f, s, t, mask))  # type: ignore[arg-type]
    return x, raw


def _renoise(
    model: FlowMap, x: State, f: State, s: float, t: float, mask: State, gamma: float, fresh: Sequence[torch.Generator]
) -> State:
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
    model: FlowMap,
    graphs: Sequence[HeavyGraph],
    noise: Tensor,
    times: Sequence[float],
    told: Tensor | None = None,
    given: Given | None = None,
) -> list[np.ndarray]:
    """Positions of given graphs: from noise (times start at 1) or from their own positions noised to `times[0]`.

    `noise` `[B, N, 3]` has zero mean; returns `[N, 3]` arrays in Å.
    """
    domain: MoleculeDomain = model.domain
    state, condition, mask = domain.encode(pad_graphs(graphs))
    if told is not None:
        condition = domain.condition(mask["atoms"], told)
    start = times[0]
    state["positions"] = (1 - start) * state["positions"] + start * noise
    held = torch.zeros(len(graphs))
    for s, t in pairwise(times):
        clock_s = {"positions": torch.full_like(held, s), "atoms": held, "bonds": held}
        clock_t = {"positions": torch.full_like(held, t), "atoms": held, "bonds": held}
        f = cast(State, model.f(state, clock_s, clock_t, condition, mask))  # type: ignore[arg-type]
        if given is not None:
            state, f = given.impose(state, f, condition["length_scale"], mask["atoms"].sum(1))
        moved = cast(State, model.apply_f(state, f, clock_s, clock_t, mask))  # type: ignore[arg-type]
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
    histogram: Mapping[int, int] | None = None,
    batch_size: int = 64,
    wish: Wish = NOTHING,
) -> Iterator[Sample]:
    """Samples `first .. first + count` of a seed, in order; `histogram` of heavy atoms, the training data's unless given."""
    domain: MoleculeDomain = model.domain
    model.eval()
    for begin in range(first, first + count, batch_size):
        indices = list(range(begin, min(begin + batch_size, first + count)))
        told = draw_told(domain, wish, histogram or domain.config.size_histogram, indices, seed)
        yield from _batch(model, indices, told, plan, seed, wish)


def _batch(
    model: FlowMap, indices: list[int], told: list[Told], plan: Plan, seed: int, wish: Wish
) -> Iterator[Sample]:  # fmt: skip
    domain: MoleculeDomain = model.domain
    given, sizes, preference = wish.given, [one.size for one in told], preferred(domain, wish)
    charge = CHARGE if given is None else given.charge
    decoded, bare, heavy = [], [], []
    for one in predict(model, indices, told, plan, seed, wish):
        graph = decode_told(
            one.told, bool(wish.formula), one.atoms, one.bonds, domain.vocabulary, one.allowed, charge, preference
        )
        decoded.append(graph)
        bare.append(skeleton(graph.classes, graph.orders, domain.vocabulary))
        heavy.append(HeavyGraph(graph.classes, graph.orders, one.positions, aromatic(bare[-1])))
    fixed = 0 if given is None else len(given)
    learned = cast(DistanceNetwork, model.distances)
    settled = partial(settle, restraints(heavy, learned, domain.config.nearest), fixed=fixed)
    placed = [g.positions for g in heavy if g.positions is not None]
    if plan.refine:
        first = settled(placed, trust=plan.jump_trust)
        again = draw_positions(sizes, indices, seed, "refine")
        start = [replace(g, positions=x) for g, x in zip(heavy, first)]
        placed = place_atoms(model, start, again, plan.refine_times(), told_tensor(domain, told), given)
    placed = settled(placed, trust=plan.trust)
    every = [all_positions(mol, x) for mol, x in zip(bare, placed)]
    every = correct_positions(cast(PositionNetwork, model.positions), heavy, every, domain.vocabulary, fixed)
    mols = [whole_molecule(mol, x) for mol, x in zip(bare, every)]
    for k, (graph, mol) in enumerate(zip(decoded, mols)):
        asked = {name: told[k].values[name] for name in wish.properties}
        sample = Sample(indices[k], mol, graph, sizes[k], asked)
        if given is not None:
            sample.wrong = given.finish(mol) if given.kept(graph) and not mol.HasProp(FAILED) else "given atoms changed"
        yield sample


@dataclass
class Predicted:
    """What the network says of one molecule of N heavy atoms, told something, once its jumps are done.

    Log-probabilities `atoms` `[N, K]` and `bonds` `[N, N, 4]` (`kekule_choices`), classes `allowed` `[N, K]` (None: all),
    `positions` `[N, 3]` in Å.
    """

    told: Told
    atoms: np.ndarray
    bonds: np.ndarray
    allowed: np.ndarray | None
    positions: np.ndarray


def predict(
    model: FlowMap, indices: list[int], told: list[Told], plan: Plan, seed: int, wish: Wish = NOTHING
) -> list[Predicted]:  # fmt: skip
    """The jumps of samples, before their graphs are decoded."""
    domain: MoleculeDomain = model.domain
    given, sizes = wish.given, [one.size for one in told]
    node = torch.arange(max(sizes))[None] < torch.tensor(sizes)[:, None]
    values, elements = told_tensor(domain, told), told_elements(domain, told, node)
    mask, condition = domain.masks(node), domain.condition(node, values, elements)
    noise = draw_noise(domain, sizes, indices, seed, "prior", given)
    fresh = [stream(seed, "renoise", i) for i in indices] if plan.gamma > 0 else None
    state, raw = settle_graphs(model, noise, condition, mask, plan, fresh, wish.guidance, given)
    atoms = torch.log_softmax(raw["atoms"].double(), -1).numpy()
    bonds = kekule_choices(torch.log_softmax(raw["bonds"].double(), -1).numpy())
    positions = (state["positions"] * condition["length_scale"][:, None, None]).double().numpy()
    found = []
    for k, n in enumerate(sizes):
        own, pairs = atoms[k, :n], bonds[k, :n, :n]
        permitted = None if wish.allowed is None else np.broadcast_to(wish.allowed, own.shape)
        if elements is not None:
            permitted = elements[k, :n].numpy() & (True if permitted is None else permitted)
        if given is not None:
            permitted, pairs = given.constrain(own, pairs, permitted)
        found.append(Predicted(told[k], own, pairs, permitted, positions[k, :n]))
    return found


def preferred(domain: MoleculeDomain, wish: Wish = NOTHING) -> Preference:
    """What the graphs of a model's samples are chosen for."""
    return Preference(ALL if domain.config.bond_classes > AROMATIC else RINGS, domain.config.kinds.table(), wish.known)
