"""Data parallel training under torchrun: the number of processes changes the speed, and nothing else.

Every process makes the whole batch, computes the loss of its own rows, and takes the average of all gradients. So a
run of two processes is a run of one to the last digits, also where noise is coupled or times are drawn across the
batch; what is not shared is the work of making a batch.
"""

from __future__ import annotations

import atexit
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
import torch.distributed as dist
from torch import Tensor

from sciconsist.domain import Batch
from sciconsist.errors import UserError
from sciconsist.recipes import Recipe
from sciconsist.state import batch_size
from sciconsist.targets import take
from sciconsist.times import Split, TimeSampler


def join() -> tuple[int, int]:
    """This process's rank and how many there are; joins the others first if torchrun started it."""
    if dist.is_available() and dist.is_torchelastic_launched() and not dist.is_initialized():
        dist.init_process_group()
        atexit.register(dist.destroy_process_group)
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


@dataclass(frozen=True)
class OwnTimes(TimeSampler):
    """Draws the times of the whole batch and keeps those of one process."""

    rank: int = 0
    count: int = 1

    def draw(self, count: int, kind: str, progress: float, generator: torch.Generator) -> Split:
        whole = super().draw(count * self.count, kind, progress, generator)
        return Split(*(times.chunk(self.count)[self.rank] for times in whole))  # type: ignore[union-attr]


def own_recipe(recipe: Recipe, rank: int, count: int) -> Recipe:
    """The recipe for one process's rows."""
    return recipe if count == 1 else replace(recipe, times=OwnTimes(**vars(recipe.times), rank=rank, count=count))


def own_rows(batch: Batch, rank: int, count: int) -> Batch:
    """One process's rows of a batch. Raises UserError when they cannot be shared equally."""
    size = batch_size(batch.x0)
    if count == 1:
        return batch
    if size % count:
        raise UserError(f"a batch of {size}: expected a multiple of the {count} processes")
    own = torch.arange(size).chunk(count)[rank]
    return Batch(**{f.name: take(getattr(batch, f.name), own, size) for f in fields(batch)})


def average(tensors: Sequence[Tensor]) -> None:
    """Every tensor becomes its mean over the processes, in place: one message a precision."""
    for dtype in dict.fromkeys(t.dtype for t in tensors):  # in the same order everywhere
        group = [t for t in tensors if t.dtype == dtype]
        flat = torch.cat([t.reshape(-1) for t in group])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        for tensor, part in zip(group, flat.split([t.numel() for t in group])):
            tensor.copy_(part.view_as(tensor))


def agree(*tensors: Tensor) -> None:
    """The first process's values for all, in place."""
    for tensor in tensors:
        dist.broadcast(tensor, 0)


def first(value: float, device: torch.device) -> float:
    """The first process's value for all; they wait for it."""
    tensor = torch.tensor(value, dtype=torch.float64, device=device)
    agree(tensor)
    return float(tensor)
