"""Distilling the annealed sampler: a student that jumps along the trajectories its teacher walked.

Scaling the velocity up toward the end makes a teacher better than its own flow, but needs many evaluations, and no recipe
that starts from data reproduces it. So the teacher's walks from noise are stored at the times of 16 even steps, and the
student learns the jump between any two of them (progressive distillation's regression, Salimans and Ho 2022, without its
stages). What comes out is a model for 1 to 16 evaluations, no flow map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from sciconsist.domain import Batch
from sciconsist.domains.crystals.adapter import CrystalDomain
from sciconsist.domains.crystals.generate import Plan, Request, prepare, walk
from sciconsist.files import atomic_path
from sciconsist.flowmap import FlowMap
from sciconsist.losses import LossParts, flow_map_loss
from sciconsist.times import Split
from sciconsist.workflows.crystal_data import of_like_size

STOPS = 16  # even steps whose ends are kept; the teacher's evaluations are a multiple
SHARD = 256  # crystals a file: what a killed pass does again


@dataclass(frozen=True)
class Trajectory:
    """Where a crystal of `numbers` `[N]` was at times 1, 15/16, ..., 0: coordinates `[17, N, 3]`, cells `[17, 6]`."""

    numbers: np.ndarray
    frac: np.ndarray
    lattice: np.ndarray


def make_trajectories(
    teacher: FlowMap, formulas: Sequence[np.ndarray], folder: Path, plan: Plan, seed: int,
    advance: Callable[[int], None] = lambda n: None,
) -> list[Trajectory]:  # fmt: skip
    """A walk for the atomic numbers of each formula. It is kept in `folder`: what is there is not done again."""
    folder.mkdir(exist_ok=True)
    found: list[Trajectory] = []
    for begin in range(0, len(formulas), SHARD):
        part = formulas[begin : begin + SHARD]
        path = folder / f"{begin:06d}.npz"
        if not path.is_file():
            _write(path, _walked(teacher, part, begin, plan, seed))
        found += _read(path)
        advance(len(part))
    return found


@torch.no_grad()
def _walked(teacher: FlowMap, formulas: Sequence[np.ndarray], first: int, plan: Plan, seed: int) -> list[Trajectory]:
    made: dict[int, Trajectory] = {}
    order = sorted(range(len(formulas)), key=lambda k: len(formulas[k]))
    for few in np.array_split(order, max(1, len(formulas) // 64)):
        requests = [Request(len(formulas[k]), formulas[k]) for k in few]
        x, condition, mask, clocks = prepare(teacher.domain, requests, [first + int(k) for k in few], seed)
        every = [x, *(state for _, state, _ in walk(teacher, x, condition, mask, clocks, plan))]
        kept = every[:: plan.steps // STOPS]
        frac, lattice = (torch.stack([state[name] for state in kept], 1).numpy() for name in ("frac", "lattice"))
        for k, places, cells in zip(few, frac, lattice):
            made[int(k)] = Trajectory(formulas[k], places[:, : len(formulas[k])], cells)
    return [made[k] for k in range(len(formulas))]


def _write(path: Path, walked: Sequence[Trajectory]) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file, size=np.array([len(w.numbers) for w in walked]), numbers=np.concatenate([w.numbers for w in walked]),
            frac=np.concatenate([w.frac for w in walked], 1), lattice=np.stack([w.lattice for w in walked]),
        )  # fmt: skip


def _read(path: Path) -> list[Trajectory]:
    with np.load(path, allow_pickle=False) as archive:
        size, numbers, frac, lattice = (archive[name] for name in ("size", "numbers", "frac", "lattice"))
    ends = np.cumsum(size)
    return [Trajectory(numbers[e - n : e], frac[:, e - n : e], cells) for n, e, cells in zip(size, ends, lattice)]


class TrajectoryData:
    """Batches of jumps along trajectories: `noise` is where they begin and `x0` where they end."""

    def __init__(self, walked: Sequence[Trajectory], domain: CrystalDomain) -> None:
        self.walked = sorted(walked, key=lambda w: len(w.numbers))
        self.domain = domain

    def __len__(self) -> int:
        return len(self.walked)

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        """As many jumps as indices, of crystals of a size like that of the first."""
        rows = of_like_size(indices, len(self), generator)
        return self.jumps([self.walked[row] for row in rows], generator)

    def jumps(self, walked: Sequence[Trajectory], generator: torch.Generator) -> Batch:
        """A jump of each trajectory, as long as a step of 1, 2, 4, 8 or 16 evaluations."""
        count = len(walked)
        level = torch.randint(5, (count,), generator=generator)
        gap = STOPS >> level
        begin = (torch.rand(count, generator=generator) * (1 << level)).long() * gap
        requests = [Request(len(w.numbers), w.numbers) for w in walked]
        x, condition, mask, _ = prepare(self.domain, requests, range(count), 0)  # elements; coordinates come below
        ends: list[dict[str, Tensor]] = []
        for stop in (begin, begin + gap):
            state = {name: value.clone() for name, value in x.items()}
            for k, (w, row) in enumerate(zip(walked, stop.tolist())):
                state["frac"][k, : len(w.numbers)] = torch.from_numpy(w.frac[row])
                state["lattice"][k] = torch.from_numpy(w.lattice[row])
            ends.append(state)
        s, t = (1 - stop / STOPS for stop in (begin, begin + gap))
        given = torch.zeros(count)
        now, then = ({"frac": u, "lattice": u, "species": given} for u in (s, t))
        return Batch(ends[1], ends[0], Split(now, then, then), condition, mask)  # type: ignore[arg-type]


def jump_loss(
    model: FlowMap, recipe: Any, x0: Any, noise: Any, *, times: Split, condition: Any, mask: Any, **options: Any
) -> LossParts:
    """The domain's loss of F against the F that carries `noise` to `x0`; on the diagonal, flow matching.

    States of symmetric crystals bring the velocity of their atoms, `condition["arc"]`.
    """
    s, t = cast(dict, times.s), cast(dict, times.t)
    if "arc" in condition:
        raw = model.raw(noise, s, t, condition, mask)
        losses, _ = model.domain.loss(raw, {**x0, "frac": condition["arc"]}, s, mask)
        return LossParts(losses.mean(), losses, {"diagonal": losses.detach().mean(), "off": torch.zeros(())})
    if torch.equal(s["frac"], t["frac"]):
        return flow_map_loss(model, recipe, x0, noise, times=times, condition=condition, mask=mask, **options)
    torus = model.rows["frac"].geometry
    gap = {name: t[name] - s[name] for name in ("frac", "lattice")}
    arc = torus.log(noise["frac"], x0["frac"]) / gap["frac"][:, None, None]
    line = (x0["lattice"] - noise["lattice"]) / gap["lattice"][:, None]
    free = mask["frac"].unsqueeze(-1).to(arc.dtype)
    arc = (arc - (arc * free).sum(1, keepdim=True) / free.sum(1, keepdim=True)) * free  # the network moves no origin
    target = {
        "frac": arc,
        "lattice": model.rows["lattice"].target(noise["lattice"], line, s["lattice"], t["lattice"]),
        "species": noise["species"],
    }
    raw = model.raw(noise, s, t, condition, mask)
    losses, _ = model.domain.loss(raw, target, s, mask)
    return LossParts(losses.mean(), losses, {"diagonal": torch.zeros(()), "off": losses.detach().mean()})
