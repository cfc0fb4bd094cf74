"""Training by several processes: two give what one gives; one of them writes; a signal and a resume go well."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sciconsist.checkpoint import read_checkpoint
from sciconsist.couplings import minibatch_ot
from sciconsist.domain import Batch
from sciconsist.errors import UserError
from sciconsist.parallel import own_recipe, own_rows
from sciconsist.random import stream
from sciconsist.recipes import RECIPES
from sciconsist.run_state import load_state
from tests.core.test_training import dying_loss, model, train

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import os, sys
sys.path.insert(0, {root!r})
import torch
torch.set_num_threads(1)
from pathlib import Path
from tests.core.test_parallel import go
out = Path({out!r})
go(out, {weight!r}, {stop}, os.environ["RANK"] == "1")
os.write(1, f"done {{out.joinpath('model.safetensors').is_file()}}\\n".encode())  # whole: two processes write
"""


def couple(x0: Any, noise: Any, mask: Any, generator: torch.Generator) -> Any:
    return noise[minibatch_ot(x0, noise)]


def go(out: Path, weight: str, stop: int = 0, other_weights: bool = False) -> None:
    """Twelve steps of training, or until a signal in step `stop` + 1; a run in the folder goes on."""
    made = model()
    if other_weights:  # the first process's count
        with torch.no_grad():
            made.net.last.bias.add_(1.0)  # type: ignore[union-attr, operator]
    options: dict[str, Any] = {"loss": dying_loss(stop, lambda: signal.raise_signal(signal.SIGINT))} if stop else {}
    train(12, replace(RECIPES["lsd_fd"], weight=weight), made, out=out, coupling=couple, resume=True, **options)


def run(out: Path, weight: str, stop: int = 0) -> str:
    """The same by two processes of torchrun: what they print."""
    script = out.with_suffix(".py")
    script.write_text(SCRIPT.format(root=str(ROOT), out=str(out), weight=weight, stop=stop))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = subprocess.run(launch, env=environment, capture_output=True, text=True, timeout=240, cwd=ROOT)
    assert (found.returncode == 0) == (not stop), found.stderr
    return found.stdout


def difference(a: Path, b: Path) -> float:
    one, two = (read_checkpoint(p / "model.safetensors").weights for p in (a, b))
    return max(float((v - two[k]).abs().max()) for k, v in one.items())


def losses(folder: Path) -> list[float]:
    with (folder / "log.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@pytest.mark.slow
@pytest.mark.parametrize(("weight", "stop"), [("velocity", 5), ("learned", 0)])
def test_two_processes_give_what_one_gives(tmp_path: Path, weight: str, stop: int) -> None:
    """The same batch, coupled noise and times, shared by two: the same weights to round-off, also after a signal."""
    go(tmp_path / "one", weight)
    if stop:
        run(tmp_path / "two", weight, stop)
        kept = load_state(tmp_path / "two")
        assert kept is not None and kept[1]["step"] == stop + 1
    assert run(tmp_path / "two", weight).count("done True") == 2
    assert difference(tmp_path / "one", tmp_path / "two") < 1e-5
    if not stop:
        assert losses(tmp_path / "one") == pytest.approx(losses(tmp_path / "two"), rel=1e-3)


def test_rows_of_all_processes_are_the_batch() -> None:
    x = torch.arange(12.0)[:, None]
    batch = Batch({"a": x, "b": 2 * x}, condition=(x, "kept"), mask={"a": x[:, 0] > 3, "b": None})
    parts = [own_rows(batch, rank, 3) for rank in range(3)]
    assert torch.equal(torch.cat([p.x0["a"] for p in parts]), x)  # type: ignore[index]
    assert all(p.condition[1] == "kept" and torch.equal(p.condition[0], p.x0["a"]) for p in parts)  # type: ignore[index]
    with pytest.raises(UserError, match="multiple of the 5 processes"):
        own_rows(batch, 0, 5)


@pytest.mark.parametrize("name", ["lsd_fd", "ict", "shortcut", "ect"])
def test_times_of_all_processes_are_the_batchs(name: str) -> None:
    recipe = RECIPES[name]
    whole = recipe.times.draw(12, recipe.kind, 0.3, stream(0))
    parts = [own_recipe(recipe, rank, 3).times.draw(4, recipe.kind, 0.3, stream(0)) for rank in range(3)]
    for k in range(3):
        assert torch.equal(torch.cat([p[k] for p in parts]), whole[k])  # type: ignore[arg-type]
