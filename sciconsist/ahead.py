"""The batches of a training run, made where they are needed or ahead by worker processes.

Step k's batch depends on the seed and k alone, so who makes it changes nothing. Workers pay where the device is faster
than one core can pair noise with data.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sciconsist.domain import Batch, Data
from sciconsist.random import stream

QUEUED = 4  # batches each worker has ready


@dataclass
class Steps(Dataset):
    """A training set by steps."""

    data: Data
    size: int
    seed: int

    def __getitem__(self, step: int) -> Batch:
        indices = batch_indices(len(self.data), self.size, self.seed, step)
        return self.data.batch(indices, stream(self.seed, "data", step))


def batches(data: Data, size: int, seed: int, first: int, workers: int = 0) -> Iterator[Batch]:
    """The batches of steps `first`, `first` + 1, ..., without end."""
    steps = Steps(data, size, seed)
    if workers == 0:
        return (steps[step] for step in count(first))
    loader = DataLoader(
        steps, batch_size=None, sampler=range(first, 2**62), num_workers=workers, prefetch_factor=QUEUED,
        worker_init_fn=prepare, multiprocessing_context="spawn", generator=torch.Generator(),
    )  # fmt: skip
    return iter(loader)


def prepare(worker: int) -> None:
    """One thread each; Ctrl-C is the main process's to answer."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def batch_indices(count: int, size: int, seed: int, step: int) -> Tensor:
    """Data of a step: epochs are permutations, their rest that fills no batch is left out."""
    epoch, position = divmod(step, count // size)
    order = torch.randperm(count, generator=stream(seed, "order", epoch))
    return order[position * size : (position + 1) * size]
