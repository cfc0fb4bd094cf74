"""Training: one loop for every recipe and domain, which stops, resumes and survives like a grown-up.

The randomness of step k comes from `stream(seed, "fit", k)` only and the order of the data from `stream(seed,
"order", epoch)`, so a resumed run is bit-identical to one that never stopped (for the same machine type,
thread count and torch build; when `minutes` stops it, the schedule follows the clock and is not repeatable).
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sciconsist.ahead import batches
from sciconsist.checkpoint import fill, read_checkpoint, save_model
from sciconsist.domain import Batch, Data, States
from sciconsist.ema import Decay, Profile
from sciconsist.errors import UserError
from sciconsist.flowmap import FlowMap
from sciconsist.losses import LossParts, flow_map_loss
from sciconsist.parallel import agree, first, join, own_recipe, own_rows
from sciconsist.progress import Log, Progress
from sciconsist.random import stream
from sciconsist.recipes import Recipe
from sciconsist.run_state import Run, Validate, load_state, save_state
from sciconsist.state import Mask, State
from sciconsist.times import Split

Coupling = Callable[[State, State, Mask, torch.Generator], State]  # (x0, noise, mask, generator) -> noise
DEFAULT_EMA = Decay(0.999)
PATIENCE = 10  # steps without a finite gradient in a row after which a run has failed
FLOOR = 0.02  # of the learning rate is left at the end


class TrainingDiverged(RuntimeError):
    """Loss or gradient stayed NaN or infinite; the model has its last good weights."""


@dataclass
class FitResult:
    """How a fit went. The model itself has the average's weights; `weights` are the last raw ones."""

    steps: int
    seconds: float
    skipped: int
    loss: float
    log: list[dict[str, Any]] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)


def fit(
    model: FlowMap,
    recipe: Recipe,
    data: State | Data,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    batch_size: int = 128,
    lr: float = 1e-3,
    warmup: int = 100,
    schedule: str = "cosine",
    weight_decay: float = 0.0,
    clip: float = 1.0,
    ema: Profile | None = DEFAULT_EMA,
    bf16: bool = False,
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    init: FlowMap | Mapping[str, Tensor] | str | Path | None = None,
    teacher: FlowMap | None = None,
    metric: Any = None,
    coupling: Coupling | None = None,
    loss: Callable[..., LossParts] = flow_map_loss,
    compile: bool = False,
    workers: int = 0,
    progress: bool = True,
    validate: Validate | None = None,
    validate_every: int | None = None,
    log_every: int = 50,
    save_every_seconds: float = 120.0,
) -> FitResult:
    """Train `model` in place by `recipe` until `steps` or `minutes`, whichever comes first.

    `data` is a state `[M, ...]` or has `__len__` and `batch(indices, generator) -> Batch`. With a folder
    `out` there are `log.csv`, the training state and `model.safetensors` (the average's weights) in it, every
    `save_every_seconds` and at the end; Ctrl-C or SIGTERM saves after the step in hand, then takes its course
    (a second Ctrl-C at once). `resume` continues from there; `init` starts from weights alone. `loss` has the
    signature of `flow_map_loss`. `workers` processes make the batches ahead (a script needs `if __name__ ==
    "__main__"` then). Under torchrun the processes share every batch (`parallel`); the first one
    writes.
    """
    if steps is None and minutes is None:
        raise UserError("fit: say when to stop, steps= or minutes=")
    if schedule not in SCHEDULES:
        raise UserError(f"schedule {schedule!r}: expected one of {', '.join(SCHEDULES)}")
    source: Data = States(data) if isinstance(data, Tensor | dict) else data
    if len(source) == 0:
        raise UserError("fit: the training data are empty")
    batch_size = min(batch_size, len(source))
    rank, count = join()
    folder = None if out is None else Path(out)
    found = prepare(folder, resume)
    if init is not None and found is None:
        fill(model, weights_of(init), init if isinstance(init, str | Path) else "init")
    if count > 1:
        agree(*model.state_dict().values())
    run = Run(model, recipe, lr, weight_decay, ema, (rank, count))
    signature = {"seed": seed, "batch_size": batch_size, "data": len(source), "recipe": recipe.name}
    if found is not None:
        run.restore(*found, signature)
    for frozen in (teacher, run.target):
        if frozen is not None:
            frozen.eval().requires_grad_(False)
    if compile:
        for one in (model, teacher, run.target):
            if one is not None:
                one.net.compile()
    own, writes = own_recipe(recipe, rank, count), folder if rank == 0 else None
    log = Log(writes / "log.csv" if writes else None, run.step)
    checks = Log(writes / "validation.csv" if writes else None, run.step)
    device = next(model.parameters()).device
    made = batches(source, batch_size, seed, run.step, workers)
    before, begin, last_save = run.seconds, time.monotonic(), time.monotonic()
    window: list[dict[str, Tensor]] = []

    def share() -> float:
        """Progress of training, the first process's for all; 2 when a signal came."""
        run.seconds = before + time.monotonic() - begin
        done = [0.0] + ([run.step / steps] if steps else []) + ([run.seconds / (60 * minutes)] if minutes else [])
        now = 2.0 if caught else min(1.0, max(done)) if steps != 0 else 1.0
        if count > 1:
            now = first(now, device)
            if now == 2.0 and not caught:
                caught.append(signal.SIGTERM)
        return now

    def save() -> None:
        if writes is not None:
            save_state(writes, run.step, run.tensors(), {**run.info(), **signature})
            save_model(writes / "model.safetensors", model, recipe=recipe, weights=run.averaged())

    def report() -> None:
        means = {k: float(torch.stack([w[k].double() for w in window]).nanmean()) for k in window[-1]}
        rate = run.optimizer.param_groups[0]["lr"]
        log.add({"step": run.step, "seconds": round(run.seconds, 2), "lr": rate, "skipped": run.skipped, **means})
        window.clear()

    model.train()
    with Progress(progress and rank == 0, steps, minutes) as bar, deferred_signals() as caught:
        while (now := share()) < 1:
            factor = min(1.0, (run.step + 1) / max(1, warmup)) * SCHEDULES[schedule](now)
            for group in run.optimizer.param_groups:
                group["lr"] = lr * factor
            batch = next(made).to(device)
            generator = stream(seed, "fit", run.step, device=device)
            with torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext():
                parts = step_loss(loss, model, own, batch, now, generator, teacher, run, metric, coupling)
            figures = {"loss": parts.total.detach().clone(), **parts.parts}
            norm = run.advance(parts.total, clip, figures)
            window.append({**figures, "grad_norm": norm})
            if run.failures >= PATIENCE:
                message = diverged(run, lr * factor)
                if folder is not None and (last := load_state(folder)) is not None:
                    run.restore(*last, signature)
                    message += f"; the model is back at step {run.step}, the last state saved in {folder}"
                raise TrainingDiverged(message)
            if run.step % log_every == 0:
                report()
                bar.update(run.step, run.seconds, log.rows[-1])
            if validate is not None and validate_every and run.step % validate_every == 0:
                checks.add({"step": run.step, **run.validated(validate)})
            if time.monotonic() - last_save > save_every_seconds:
                save()
                last_save = time.monotonic()
        if caught:
            save()
    if window:
        report()
    if caught:
        signal.raise_signal(caught[0])  # what was there before us decides: KeyboardInterrupt, mostly
        raise KeyboardInterrupt
    if validate is not None and not (validate_every and checks.rows and checks.rows[-1]["step"] == run.step):
        checks.add({"step": run.step, **run.validated(validate)})
    save()
    if count > 1:
        first(0.0, device)  # the others wait until it is written
    raw = {k: v.detach().clone() for k, v in model.state_dict().items()}
    model.load_state_dict(run.averaged())
    model.eval()
    final = log.rows[-1]["loss"] if log.rows else math.nan
    return FitResult(run.step, run.seconds, run.skipped, final, log.rows, raw)


def step_loss(
    loss: Callable[..., LossParts], model: FlowMap, recipe: Recipe, batch: Batch, progress: float,
    generator: torch.Generator, teacher: FlowMap | None, run: Run, metric: Any, coupling: Coupling | None,
) -> LossParts:  # fmt: skip
    """The loss of one batch: its own noise, or prior noise, coupled if asked."""
    noise = batch.noise
    if noise is None:
        noise = model.geometry.prior(batch.x0, batch.mask, generator=generator)  # type: ignore[arg-type]
        if coupling is not None:
            noise = coupling(batch.x0, noise, batch.mask, generator)
    batch = own_rows(replace(batch, noise=noise), *run.place)
    extra = {} if metric is None else {"metric": metric}
    if run.weighting is not None:
        extra["weighting"] = run.weighting
    if batch.times is not None:
        extra["times"] = batch.times if isinstance(batch.times, Split) else Split(*[batch.times] * 3)
    return loss(
        model, recipe, batch.x0, batch.noise, progress=progress, generator=generator, condition=batch.condition,
        mask=batch.mask, teacher=teacher, target_model=run.target, **extra,
    )  # fmt: skip


def weights_of(init: FlowMap | Mapping[str, Tensor] | str | Path) -> Mapping[str, Tensor]:
    if isinstance(init, FlowMap):
        return init.state_dict()
    return read_checkpoint(init).weights if isinstance(init, str | Path) else init


def prepare(folder: Path | None, resume: bool) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Make the run folder; the state to go on from, if asked and there."""
    if folder is None:
        if resume:
            raise UserError("resume: needs the run's folder, out=")
        return None
    folder.mkdir(exist_ok=True)
    found = load_state(folder)
    if found is not None and not resume:
        raise UserError(f"{folder}: holds a run at step {found[1]['step']}; pass resume=True or take another folder")
    return found


SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda p: 1.0,
    "linear": lambda p: FLOOR + (1 - FLOOR) * (1 - p),
    "cosine": lambda p: FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * p)),
}


def diverged(run: Run, lr: float) -> str:
    return (
        f"loss or gradient was not finite in {run.failures} steps in a row to step {run.step} (lr {lr:.2g}); "
        "they changed no weight. Lower lr or clip, or look at the data"
    )


@contextmanager
def deferred_signals() -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM wait for the step in hand; yields the list that then holds the signal."""
    caught: list[int] = []
    before: dict[int, Any] = {}

    def note(number: int, frame: object) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(number)

    if threading.current_thread() is threading.main_thread():
        for number in (int(signal.SIGINT), int(signal.SIGTERM)):
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, note)
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
