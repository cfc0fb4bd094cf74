"""Running a plan: in memory, lazily with dask, or block by block into a file, here or on many processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from sciconsist.domains.climate.baselines import LEARNING
from sciconsist.domains.climate.fields import Fields
from sciconsist.domains.climate.files import Source
from sciconsist.domains.climate.output import Layout, Memory, NetCDF, Sink, Target, Zarr, variable_attributes
from sciconsist.domains.climate.tiles import Tile, cut, cut_target
from sciconsist.errors import UserError
from sciconsist.extras import need
from sciconsist.files import atomic_path
from sciconsist.workflows.tile_work import Job, Task, work

TILE = 256  # target cells a side
Advance = Callable[[int], None]


@dataclass
class Plan:
    """A request that has been checked. `notes` are for the user's eyes."""

    source: Source
    job: Job
    target: Target
    cell: np.ndarray
    mask: np.ndarray
    heights: np.ndarray | None
    tiles: list[Tile]
    chunk: int
    layout: Layout
    notes: list[str] = field(default_factory=list)
    corrected: np.ndarray | None = None  # `[T, C, H, W]`, when the input's bias is taken off

    @property
    def steps(self) -> list[slice]:
        """Chunks of time."""
        number = len(self.source.times)
        return [slice(start, min(start + self.chunk, number)) for start in range(0, number, self.chunk)]

    def coarse(self, steps: slice) -> Fields:
        """The input of some times."""
        fields = self.source.read(steps)
        return fields if self.corrected is None else replace(fields, values=self.corrected[steps])

    def task(self, tile: Tile, coarse: Fields) -> Task:
        """One tile at the times of `coarse`."""
        box = tile.target[: self.cell.ndim]
        width = coarse.grid.shape[1]
        row, column = np.full(coarse.grid.shape[0], -1), np.full(width, -1)
        row[tile.rows] = np.arange(len(tile.rows))
        column[tile.columns % width] = np.arange(len(tile.columns))
        own = self.cell[box]
        cell = np.where(own >= 0, row[own // width] * len(tile.columns) + column[own % width], -1)
        heights = None if self.heights is None else self.heights[box[0]]
        target = cut_target(self.target.grid, tile)
        return Task(self.job, cut(coarse, tile), tile.core, target, cell, self.mask[box], heights)


def blocks(made: Plan, executor: Executor | None = None, ahead: int = 4) -> Iterator[tuple[Tile, slice, np.ndarray]]:
    """(tile, times, values) of all work. With an executor at most `ahead` tiles are under way."""
    if executor is None:
        for tile, steps, task in _tasks(made):
            yield tile, steps, work(task)
        return
    waiting: dict[Future, tuple[Tile, slice]] = {}
    try:
        for tile, steps, task in _tasks(made):
            waiting[executor.submit(work, task)] = (tile, steps)
            if len(waiting) >= ahead:
                yield from _finished(waiting)
        while waiting:
            yield from _finished(waiting)
    finally:
        for future in waiting:
            future.cancel()


def _tasks(made: Plan) -> Iterator[tuple[Tile, slice, Task]]:
    """Methods that learn keep a tile's past for all its times; the others read a time once for all tiles."""
    if made.job.method in LEARNING:
        for tile in made.tiles:
            for steps in made.steps:
                yield tile, steps, made.task(tile, made.coarse(steps))
        return
    for steps in made.steps:
        coarse = made.coarse(steps)
        for tile in made.tiles:
            yield tile, steps, made.task(tile, coarse)


def _finished(waiting: dict[Future, tuple[Tile, slice]]) -> Iterator[tuple[Tile, slice, np.ndarray]]:
    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
    for future in done:
        tile, steps = waiting.pop(future)
        yield tile, steps, future.result()


def fill(sink: Sink, made: Plan, found: Iterable[tuple[Tile, slice, np.ndarray]], progress: Advance) -> int:
    """Puts blocks into a sink; how many."""
    number = 0
    for tile, steps, values in found:
        sink.write(_with_holes(made, tile, steps, values), slice(0, made.job.count), steps, tile.target)
        number += 1
        progress(1)
    return number


def _with_holes(made: Plan, tile: Tile, steps: slice, values: np.ndarray) -> np.ndarray:
    """Cells that the input lacks at some times only are missing in the output at those times."""
    if not made.source.has_holes:
        return values
    cell = made.cell[tile.target[: made.cell.ndim]]
    for c, name in enumerate(made.source.names):
        holes = made.source.holes(steps, name).reshape(values.shape[1], -1)
        values[:, :, c][:, np.pad(holes, ((0, 0), (0, 1)))[:, cell]] = np.nan
    return values


def to_dataset(made: Plan, progress: Advance = lambda n: None) -> xr.Dataset:
    """All of it in memory."""
    sink = Memory(made.layout)
    fill(sink, made, blocks(made), progress)
    return sink.dataset()


def to_lazy(made: Plan) -> xr.Dataset:
    """A dask dataset: one task a tile and chunk of time, run when somebody looks."""
    dask, da = need("dask", "climate", "lazy output"), need("dask.array", "climate", "lazy output")
    lazy = dask.delayed(_lazy_block, pure=False)
    held = dask.delayed(_Box(made), traverse=False)
    dims = made.target.grid.shape
    arrays = []
    for steps in made.steps:
        parts: dict[tuple[int, ...], Any] = {}
        length = steps.stop - steps.start
        for tile in made.tiles:
            box = tile.target[: len(dims)]
            shape = tuple(len(range(*b.indices(n))) for b, n in zip(box, dims))
            block = da.from_delayed(
                lazy(held, tile, steps), (made.job.count, length, len(made.source.names), *shape), np.float32
            )
            parts[tuple(b.indices(n)[0] for b, n in zip(box, dims))] = block
        arrays.append(_joined(da, parts, dims, (made.job.count, length, len(made.source.names))))
    whole = da.concatenate(arrays, axis=1)
    out = made.layout.frame.copy()
    for c, name in enumerate(made.source.names):
        values = made.source.conversions[name].to_file(whole[:, :, c])
        for axis, flip in enumerate(made.target.flipped):
            if flip and made.target.grid.kind != "points":
                values = da.flip(values, axis + 2)
        out[made.source.original[name]] = (
            made.layout.dims, values.astype(np.float32), variable_attributes(made.layout, name),
        )  # fmt: skip
    return out


@dataclass
class _Box:
    """Keeps dask from looking into a plan."""

    made: Plan


def _lazy_block(box: _Box, tile: Tile, steps: slice) -> np.ndarray:
    made = box.made
    return _with_holes(made, tile, steps, work(made.task(tile, made.coarse(steps))))


def _joined(da: Any, parts: dict[tuple[int, ...], Any], dims: tuple[int, ...], front: tuple[int, ...]) -> Any:
    """Blocks by their first row and column, put together; what no tile makes is missing."""
    if len(dims) == 1:
        keys = sorted(parts)
        rows = [parts[k] for k in keys]
        return _padded(da, rows, [k[0] for k in keys], dims[0], front, -1)
    starts = sorted({k[0] for k in parts})
    lines = []
    for row in starts:
        keys = sorted(k for k in parts if k[0] == row)
        lines.append(_padded(da, [parts[k] for k in keys], [k[1] for k in keys], dims[1], front, -1))
    return _padded(da, lines, starts, dims[0], front, -2)


def _padded(da: Any, parts: list[Any], starts: list[int], length: int, front: tuple[int, ...], axis: int) -> Any:
    pieces, at = [], 0
    for part, start in zip(parts, starts):
        shape = list(part.shape)
        if start > at:
            shape[axis] = start - at
            pieces.append(da.full(tuple(shape), np.nan, dtype=np.float32))
        pieces.append(part)
        at = start + part.shape[axis]
    if at < length:
        shape = list(parts[-1].shape)
        shape[axis] = length - at
        pieces.append(da.full(tuple(shape), np.nan, dtype=np.float32))
    return da.concatenate(pieces, axis=axis)


def to_file(
    made: Plan,
    path: Path,
    *,
    workers: int = 1,
    scheduler: str | None = None,
    progress: Advance = lambda n: None,
) -> dict[str, Any]:
    """Writes NetCDF (or Zarr, by the name's end); figures of what was made.

    Ctrl-C keeps the blocks that are finished: the file is closed, its other cells are missing, and the exception
    goes on.
    """
    dims = made.layout.shape
    chunk = (1, min(made.chunk, 8), *(min(TILE, n) for n in dims[2:]))
    stopped: KeyboardInterrupt | None = None
    number = 0
    with executor_for(workers, scheduler) as executor, atomic_path(path) as temporary:
        sink: Sink = (Zarr if path.suffix == ".zarr" else NetCDF)(temporary, made.layout, chunk)
        try:
            for block in blocks(made, executor, 2 * max(1, workers)):
                fill(sink, made, [block], progress)
                number += 1
        except KeyboardInterrupt as interrupt:
            if not number:
                raise
            stopped = interrupt
        finally:
            sink.close()
    if stopped is not None:
        raise stopped
    return {
        "variables": list(made.source.original.values()), "members": made.job.count, "times": len(made.source.times),
        "grid": list(made.target.grid.shape), "tiles": len(made.tiles), "method": made.job.method,
    }  # fmt: skip


@contextmanager
def executor_for(workers: int, scheduler: str | None) -> Iterator[Executor | None]:
    """Processes of this machine, or those of a Dask cluster; None to work in this process."""
    if scheduler is not None:
        distributed = need("distributed", "cluster", "--scheduler")
        try:
            client = distributed.Client(scheduler, timeout="10s")
        except (OSError, TimeoutError, ValueError) as error:
            raise UserError(f"--scheduler {scheduler}: no answer ({error}); expected tcp://host:8786") from error
        with client:
            yield client.get_executor(pure=False)
        return
    if workers <= 1:
        yield None
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_one_thread) as pool:
        yield pool


def _one_thread() -> None:
    """Processes share the cores: one thread each."""
    import torch

    torch.set_num_threads(1)
