"""`sciconsist benchmark core`: a small run, resumed; what the targets are; wrong names."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from sciconsist.cli.app import main
from sciconsist.errors import UserError
from sciconsist.random import stream
from sciconsist.workflows import benchmark_core
from sciconsist.workflows.benchmark_core import Bench, choose, jobs, number, table
from sciconsist.workflows.benchmark_targets import TARGETS


def test_a_small_run_goes_on_where_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["benchmark", "core", "-o", str(tmp_path), "--targets", "mixture1d", "--steps", "20", "--quiet"]
    assert main([*line, "--recipes", "ect"]) == 0
    text = capsys.readouterr().out
    assert "| ect |" in text and text.strip() == (tmp_path / "table.md").read_text().strip()
    first = (tmp_path / "results.jsonl").read_text()
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"target": "mixture1d", "recipe": "cut sh')
    assert main([*line, "--recipes", "ect,pd", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [r["recipe"] for r in rows] == ["data", "exact", "euler100", "ect", "pd"]
    assert (tmp_path / "results.jsonl").read_text().startswith(first)
    assert rows[1]["w2"][0] < rows[0]["w2"][0] < rows[3]["w2"][0]  # exact, data, twenty steps of training


def test_wrong_names_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "core", "-o", str(tmp_path), "--recipes", "fm,nonsense"]) == 2
    assert "nonsense" in capsys.readouterr().err
    with pytest.raises(UserError, match="expected one of gaussians8"):
        choose(None, "moon")


@pytest.mark.parametrize("name", list(TARGETS))
def test_the_exact_map_makes_the_target(name: str) -> None:
    """Its image of noise is as near to the data as data are to data; data stay inside their geometry."""
    bench = Bench(TARGETS[name], 20, 0)
    x, mask = bench.target.data(256, stream(0))
    geometry = bench.target.model(0).geometry
    assert torch.allclose(geometry.project(x, mask), x, atol=1e-5)  # type: ignore[arg-type]
    if bench.exact is None:
        return
    floor = benchmark_core.run(bench, "data", False)["w2"][0]
    assert bench.distance(bench.exact) < 1.1 * floor
    assert bench.rmse(bench.exact) == 0
    assert bench.distance(bench.noise[0]) > 2 * floor


def test_the_table_says_what_diverged() -> None:
    row = {
        "target": "moons",
        "recipe": "psd",
        "stress": False,
        "seed": 0,
        "w2": [math.inf] * 3,
        "rmse": math.inf,
        "diverged": True,
    }
    assert "diverged / diverged / diverged" in table([row])
    assert [number(v) for v in (None, 0.1234, 1.5, 123.4, 5e6)] == ["-", ".123", "1.50", "123", "5e+06"]
    assert len(list(jobs(("fm",), tuple(TARGETS), True))) == 7 * 4 - 1 + 1  # points has no exact map; one under stress


def test_seeds_are_averaged() -> None:
    rows = [
        {
            "target": "moons", "recipe": "ect", "stress": False, "seed": k, "w2": [v, 0.4, 0.3], "rmse": v,
            "cost": 1.0, "gradient": 2 * v,
        }
        for k, v in ((0, 0.4), (1, 0.6))
    ]  # fmt: skip
    text = table(rows)
    assert "| ect | .500 / .400 / .300 |" in text and "means of 2 seeds, which are 40% of it apart" in text
    assert "| ect | 1.00 | 1.20 |" in text


def test_a_warm_run_begins_with_flow_matching(tmp_path: Path) -> None:
    """After one training step of no size the recipe draws what the teacher's map draws."""
    cold, warm = (Bench(TARGETS["mixture1d"], 20, 0, flag) for flag in (False, True))
    teacher = warm.teacher(warm.noise[0], 1.0, 0.0).detach()
    assert benchmark_core.run(warm, "ect", False)["w2"][0] < benchmark_core.run(cold, "ect", False)["w2"][0]
    assert warm.distance(teacher) > 0
    for flag in (False, True, True):
        benchmark_core.benchmark_core(tmp_path, recipes=("ect",), targets=("mixture1d",), steps=20, warm=flag)
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [r["warm"] for r in lines] == [False] * 4 + [True] * 4
