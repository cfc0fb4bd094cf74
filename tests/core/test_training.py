"""The training loop: bit-exact resume (also after kill -9), guards, limits, logs, signals."""

from __future__ import annotations

import csv
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sciconsist import sampling
from sciconsist.ahead import batch_indices
from sciconsist.checkpoint import read_checkpoint
from sciconsist.couplings import minibatch_ot
from sciconsist.domain import Batch
from sciconsist.ema import Decay, Power
from sciconsist.errors import UserError
from sciconsist.flowmap import FlowMap
from sciconsist.losses import flow_map_loss
from sciconsist.random import stream
from sciconsist.recipes import RECIPES, Recipe
from sciconsist.run_state import load_state
from sciconsist.training import SCHEDULES, TrainingDiverged, fit

DATA = torch.randn(300, 2, generator=stream(0, "data")) * torch.tensor([0.5, 1.5]) + 2.0


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(4, 48), nn.Linear(48, 48), nn.Linear(48, 2)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=stream(0, "init", p.numel())) / math.sqrt(max(p.shape[-1], 4)))

    def forward(self, x: Tensor, s: Tensor, t: Tensor) -> Tensor:
        h = torch.nn.functional.silu(self.first(torch.cat([x, s[:, None].to(x), t[:, None].to(x)], -1)))
        return self.last(torch.nn.functional.silu(self.middle(h)))


def model() -> FlowMap:
    made = FlowMap(Net())
    made.config = {"domain": "toy"}
    return made


def train(steps: int | None = 20, recipe: str | Recipe = "lsd_fd", made: FlowMap | None = None, **keywords: Any) -> Any:
    keywords = {"batch_size": 64, "warmup": 5, "log_every": 5, "progress": False, **keywords}
    data = keywords.pop("data", DATA)
    row = RECIPES[recipe] if isinstance(recipe, str) else recipe
    return fit(made or model(), row, data, steps=steps, **keywords)


def states_equal(a: Path, b: Path) -> bool:
    one, two = load_state(a), load_state(b)
    assert one is not None and two is not None
    assert one[0].keys() == two[0].keys() and any(".exp_avg_sq" in k for k in one[0])
    return one[1]["step"] == two[1]["step"] and all(torch.equal(v, two[0][k]) for k, v in one[0].items())


class Stop(Exception):
    pass


def dying_loss(at: int, how: Any) -> Any:
    count = {"calls": 0}

    def loss(*a: Any, **k: Any) -> Any:
        count["calls"] += 1
        if count["calls"] > at:
            how()
        return flow_map_loss(*a, **k)

    return loss


def give_up() -> None:
    raise Stop


@pytest.mark.parametrize("recipe", ["lsd_fd", "ct"])
def test_resume_is_bit_exact(tmp_path: Path, recipe: str) -> None:
    """20 steps at once == 10 steps, death, and 10 more: weights, optimizer, average, order of data, log."""
    for profile in (Decay(0.99), Power(0.1)):
        whole, parts = tmp_path / f"whole-{profile}", tmp_path / f"parts-{profile}"
        straight = train(20, recipe, out=whole, ema=profile)
        keywords: dict[str, Any] = {"out": parts, "ema": profile, "save_every_seconds": 0.0}
        with pytest.raises(Stop):
            train(20, recipe, loss=dying_loss(10, give_up), **keywords)
        kept = load_state(parts)
        assert kept is not None and kept[1]["step"] == 10
        resumed = train(20, recipe, resume=True, **keywords)
        assert states_equal(whole, parts)
        assert all(torch.equal(v, resumed.weights[k]) for k, v in straight.weights.items())
        assert [(r["step"], r["loss"]) for r in straight.log] == [(r["step"], r["loss"]) for r in resumed.log]
        a, b = (read_checkpoint(p / "model.safetensors").weights for p in (whole, parts))
        assert all(torch.equal(v, b[k]) for k, v in a.items())


SCRIPT = """
import sys, torch
sys.path.insert(0, {root!r})
torch.set_num_threads(1)
from pathlib import Path
from tests.core.test_training import train
train(400, out=Path({out!r}), resume=True, save_every_seconds=0.0)
"""


def test_resume_after_kill_9(tmp_path: Path) -> None:
    root = str(Path(__file__).resolve().parents[2])
    train(400, out=tmp_path / "whole")
    for round_ in range(2):
        script = SCRIPT.format(root=root, out=str(tmp_path / "killed"))
        child = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "OMP_NUM_THREADS": "1"})
        deadline, aim = time.monotonic() + 60, 40 * (round_ + 1)
        while time.monotonic() < deadline and child.poll() is None:
            steps = [int(p.name[6:]) for p in (tmp_path / "killed").glob("state-*")]
            if steps and max(steps) >= aim:
                break
            time.sleep(0.01)
        child.kill()
        assert child.wait() == -signal.SIGKILL
    train(400, out=tmp_path / "killed", resume=True)
    assert states_equal(tmp_path / "whole", tmp_path / "killed")
    assert not list((tmp_path / "killed").glob(".tmp-*state-*"))


def test_a_damaged_state_gives_way_to_the_one_before(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(10, out=run)
    shutil.copytree(run / "state-00000010", run / "state-00000012")
    (run / "state-00000012" / "tensors.safetensors").write_bytes(b"nonsense")
    found = load_state(run)
    assert found is not None and found[1]["step"] == 10
    shutil.rmtree(run / "state-00000010")
    with pytest.raises(UserError, match="no whole training state"):
        train(20, out=run, resume=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_takes_its_course(tmp_path: Path, number: signal.Signals) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(number, stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(
                20,
                out=tmp_path / "run",
                loss=dying_loss(7, lambda: signal.raise_signal(number) if fresh() else None),
            )
        assert signal.getsignal(number) is stop
    finally:
        signal.signal(number, before)
        seen.clear()
    found = load_state(tmp_path / "run")
    assert found is not None and found[1]["step"] == 8
    train(20, out=tmp_path / "run", resume=True)
    train(20, out=tmp_path / "whole")
    assert states_equal(tmp_path / "run", tmp_path / "whole")


seen: list[int] = []


def fresh() -> bool:
    seen.append(1)
    return len(seen) == 1


class Bad:
    """Data with NaN at chosen calls."""

    def __init__(self, bad: set[int]) -> None:
        self.bad, self.calls = bad, 0

    def __len__(self) -> int:
        return 300

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        x = DATA[indices].clone()
        x[0, 0] = math.nan if self.calls in self.bad else x[0, 0]
        self.calls += 1
        return Batch(x)


def test_nan_steps_change_nothing_and_are_counted() -> None:
    made = model()
    result = train(20, made=made, data=Bad({3, 7, 8}), recipe="fm")
    assert (result.steps, result.skipped) == (20, 3)
    assert all(bool(torch.isfinite(v).all()) for v in (*result.weights.values(), *made.state_dict().values()))
    assert result.log[-1]["skipped"] == 3 and math.isfinite(result.log[0]["loss"])


def test_a_run_that_stays_nan_stops_with_its_last_state(tmp_path: Path) -> None:
    made = model()
    with pytest.raises(TrainingDiverged, match=r"10 steps in a row.*back at step 6.*run"):
        loss = saving_at(6, tmp_path / "run")
        train(40, made=made, data=Bad(set(range(6, 99))), recipe="fm", out=tmp_path / "run", loss=loss)
    assert all(bool(torch.isfinite(v).all()) for v in made.state_dict().values())


def saving_at(step: int, out: Path) -> Any:
    """A loss whose run has been saved at `step` before: train there once."""
    if not out.exists():
        train(step, data=Bad(set()), recipe="fm", out=out.with_name("first"))
        shutil.copytree(out.with_name("first") / f"state-{step:08d}", out.with_name("kept"))

    def loss(*a: Any, **k: Any) -> Any:
        if not list(out.glob("state-*")):
            shutil.copytree(out.with_name("kept"), out / f"state-{step:08d}")
        return flow_map_loss(*a, **k)

    return loss


def test_minutes_stop_the_run_and_drive_the_schedule() -> None:
    begin = time.monotonic()
    result = train(None, minutes=0.02, recipe="fm", log_every=1)
    assert 1.2 <= time.monotonic() - begin < 6
    rates = [row["lr"] for row in result.log[5:]]
    assert rates[-1] < 0.05 * rates[0] and result.steps == result.log[-1]["step"]
    assert train(5, minutes=5.0, recipe="fm").steps == 5


def test_log_checks_and_what_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"

    def validate(m: FlowMap, step: int) -> dict[str, float]:
        assert not m.training and not torch.is_grad_enabled()
        return {"norm": float(sum(p.square().sum() for p in m.parameters()))}

    result = train(12, out=run, validate=validate, validate_every=5)
    with (run / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [r["step"] for r in rows] == ["5", "10", "12"]
    assert {"seconds", "lr", "loss", "grad_norm", "skipped", "diagonal", "off"} <= rows[0].keys()
    assert float(rows[-1]["loss"]) == pytest.approx(result.loss)
    with (run / "validation.csv").open() as file:
        assert [r["step"] for r in csv.DictReader(file)] == ["5", "10", "12"]
    for wrong, message in (
        ({"out": run}, "resume=True"),
        ({"out": run, "resume": True, "seed": 3}, "seed 0, now it is 3"),
        ({"resume": True}, "folder"),
        ({"schedule": "wavy"}, "expected one of"),
        ({"data": DATA[:0]}, "empty"),
        ({"steps": None}, "when to stop"),
    ):
        with pytest.raises(UserError, match=message):
            train(**{"steps": 20, **wrong})


def test_fit_learns_and_leaves_the_average_in_the_model() -> None:
    """The README's lines: one step of a trained map turns noise into data."""
    made = model()
    result = train(800, "ect", made, lr=3e-3, batch_size=256, ema=Power(0.1))
    assert not made.training and not torch.equal(made.net.last.weight, result.weights["net.last.weight"])
    x = sampling.jump(made, torch.randn(2000, 2, generator=stream(9)), [1, 0])
    assert isinstance(x, Tensor)
    assert torch.allclose(x.mean(0), DATA.mean(0), atol=0.25)
    assert torch.allclose(x.std(0), DATA.std(0), atol=0.35)


def test_init_coupling_and_condition_pass_through() -> None:
    def couple(x0: Any, noise: Any, mask: Any, generator: torch.Generator) -> Any:
        return noise[minibatch_ot(x0, noise)]

    source = model()
    with torch.no_grad():
        source.net.last.bias.fill_(3.0)
    made = model()
    result = train(1, made=made, init=source, coupling=couple, recipe="fm", lr=0.0)
    assert torch.equal(result.weights["net.last.bias"], source.net.last.bias)
    teacher = model()
    train(3, recipe="lmd", teacher=teacher)
    assert not any(p.requires_grad for p in teacher.parameters())
    train(2, recipe="fm", bf16=True)


def test_order_of_data_is_a_permutation_an_epoch() -> None:
    first = torch.cat([batch_indices(100, 20, 0, k) for k in range(5)])
    second = torch.cat([batch_indices(100, 20, 0, k) for k in range(5, 10)])
    assert first.sort().values.tolist() == list(range(100)) == second.sort().values.tolist()
    assert not torch.equal(first, second)
    assert [round(SCHEDULES["cosine"](p), 3) for p in (0.0, 0.5, 1.0)] == [1.0, 0.51, 0.02]


def test_batches_made_ahead_by_workers_change_nothing() -> None:
    alone, ahead = model(), model()
    state = torch.random.get_rng_state()
    train(7, made=alone)
    train(7, made=ahead, workers=2)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(alone.state_dict().values(), ahead.state_dict().values()))
