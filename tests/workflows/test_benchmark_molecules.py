"""The molecule benchmark: every row is there, formats change round-off and not the request. No times are asserted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sciconsist.cli import main
from sciconsist.errors import UserError
from sciconsist.workflows import benchmark_molecules as bench
from sciconsist.workflows.generate import generate
from sciconsist.workflows.models import load


def test_every_row_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "STEPS", (1, 4))
    monkeypatch.setattr(bench, "BATCHES", (4, 64))
    path = tmp_path / "cost.json"
    threads = torch.get_num_threads()
    assert main(["benchmark", "molecules", "-n", "6", "--formats", "bf16,int8", "-o", str(path), "--quiet"]) == 0
    assert torch.get_num_threads() == threads
    out = capsys.readouterr().out
    rows = json.loads(path.read_text())["rows"]
    assert out.count("\n") == len(rows) + 2
    found = [(r["steps"], r["batch"], r["format"]) for r in rows]
    assert found == [
        (1, 64, "float32"), (4, 64, "float32"), (4, 4, "float32"), (4, 64, "bf16"), (4, 64, "int8"), (None, 1, ""),
        (None, 1, ""),
    ]  # fmt: skip
    assert all(r["n"] == 6 and r["cpu_ms"] > 0 and 0 <= r["molecule_stable"] <= 1 for r in rows)
    assert rows[1]["molecule_stable"] == rows[2]["molecule_stable"]  # the batch changes nothing


@pytest.mark.parametrize(("name", "near"), [("bf16", 0.2), ("int8", 0.5)])
def test_a_format_is_near_and_leaves_the_model_alone(name: str, near: float) -> None:
    model = load("molecules-qm9gfn2")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    sizes = torch.tensor([9, 7, 8])
    batch = model.domain.template(sizes)
    generator = torch.Generator().manual_seed(0)
    noise = model.geometry.prior(batch.x0, batch.mask, generator=generator)
    with torch.no_grad():
        plain = model(noise, 1.0, 0.5, batch.condition, batch.mask)
        other = bench.in_format(model, name)(noise, 1.0, 0.5, batch.condition, batch.mask)
    difference = float((plain["positions"] - other["positions"]).abs().max())
    assert 0 < difference < near
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert generate("molecules", 1, model=bench.in_format(model, name), raw=True)


def test_formats_that_are_none() -> None:
    assert bench.check_formats("none") == () and bench.check_formats("bf16") == ("bf16",)
    with pytest.raises(UserError, match="fp8"):
        bench.check_formats("fp8")
